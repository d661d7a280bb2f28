//! Sends one file with `pinhole-client` and nothing else of Pinhole. The profile
//! stays in the folder `send_file-profile`: the next run has the same key.
//!
//! `cargo run -p pinhole-client --example send_file -- SERVER NAME PEER FILE`

use anyhow::{Context as _, Result, ensure};
use pinhole_client::{Command, Event, Options, PeerName, Stage, start};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: send_file SERVER NAME PEER FILE";
    let mut next = || arguments.next().context(usage);
    let log_in = Command::LogIn {
        server: next()?.parse()?,
        name: next()?.parse()?,
        patient: false,
    };
    let (to, file): (PeerName, _) = (next()?.parse()?, std::path::absolute(next()?)?);
    let mut options = Options {
        data_dir: Some("send_file-profile".into()),
        ..Options::default()
    };
    options.overrides.takes_nothing = true;
    let (mut client, mut events) = start(options, || {})?;
    // An earlier run may have left transfers in the profile.
    let earlier = client.snapshot().transfers.last().map(|it| it.id);
    client.command(log_in)?;
    let mut is_sent = false;
    loop {
        let event = tokio::select! {
            event = events.next() => Some(event.context("the engine has ended")?),
            _ = client.changed() => None,
        };
        if let Some(Event::LogInFailed { failure } | Event::CommandFailed { failure }) = event {
            return Err(failure.into());
        }
        let snapshot = client.snapshot();
        let mut peers = snapshot.peers.iter();
        if !is_sent && let Some(peer) = peers.find(|it| it.online && it.identity.name == to) {
            let (peer, paths) = (peer.identity.key, vec![file.clone()]);
            client.command(Command::Send { peer, paths })?;
            is_sent = true;
        }
        let ours = snapshot.transfers.iter().find(|it| Some(it.id) > earlier);
        match ours.map(|it| (&it.stage, it.progress.bytes_done)) {
            Some((Stage::Transferring, bytes)) => println!("{bytes} bytes sent"),
            Some((Stage::Failed(failure), _)) => return Err(failure.clone().into()),
            Some((Stage::Completed(done), _)) => {
                ensure!(done.files > 0 && done.missing() == 0, "not all was sent");
                println!("{to} has {} bytes on disk", done.bytes);
                break;
            }
            _ => {}
        }
    }
    client.shut_down(events);
    Ok(())
}
