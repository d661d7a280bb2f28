//! `pinhole invite` and `pinhole join`.

use pinhole_client::{Command, Event, Failure, InvitationLink, PeerName, ServerAddress, Uses};

use crate::arguments::{Common, Invite};
use crate::exit::Exit;
use crate::terminal::{Terminal, Wake};

/// Prints a link. Nobody has to be logged in for it.
pub(crate) async fn invite(
    terminal: &mut Terminal<'_>,
    common: &Common,
    task: Invite,
) -> anyhow::Result<Exit> {
    let uses = match task.once {
        true => Uses::Once,
        false => Uses::Many,
    };
    terminal.client.command(Command::Invite {
        name: common.name.clone(),
        server: common.server.clone(),
        uses,
        lasts: task.lasts,
    })?;
    loop {
        match terminal.wait().await? {
            Wake::Event(Event::Invitation { link }) => {
                terminal.report.invitation(&link, uses);
                return Ok(Exit::Done);
            }
            Wake::Event(Event::CommandFailed { failure }) => return Ok(terminal.fail(&failure)),
            Wake::Interrupted(_) => return Ok(Exit::Interrupted),
            Wake::Event(_) | Wake::Changed => {}
        }
    }
}

/// Joins by a link: the person behind it is a contact afterwards.
pub(crate) async fn join(
    terminal: &mut Terminal<'_>,
    common: &Common,
    link: &str,
) -> anyhow::Result<Exit> {
    let link: InvitationLink = match link.trim().parse() {
        Ok(link) => link,
        Err(error) => {
            let reason = format!("This is no invitation that can be used: {error}.");
            terminal.report.error("usage", &reason);
            return Ok(Exit::Usage);
        }
    };
    let name = own_name(terminal, common);
    if let Some(server) = link.server() {
        log_in(terminal, name.clone(), server.clone())?;
    }
    terminal.client.command(Command::Join { link })?;
    loop {
        match terminal.wait().await? {
            Wake::Event(Event::Joined { peer, is_told }) => {
                terminal.report.joined(&name, &peer, is_told);
                return Ok(Exit::Done);
            }
            Wake::Event(Event::CommandFailed {
                failure: failure @ Failure::Profile { .. },
            }) => terminal.report.warning(&failure),
            Wake::Event(Event::CommandFailed { failure } | Event::LogInFailed { failure }) => {
                return Ok(terminal.fail(&failure));
            }
            Wake::Interrupted(_) => return Ok(Exit::Interrupted),
            Wake::Event(event) => terminal.tell(&event),
            Wake::Changed => {}
        }
    }
}

/// Logs in at the server of the command line or the profile, as somebody who may not have
/// chosen a name. The inner `Err` holds the exit code when there is no server.
pub(crate) fn log_in_for_code(
    terminal: &mut Terminal<'_>,
    common: &Common,
) -> anyhow::Result<Result<PeerName, Exit>> {
    let snapshot = terminal.client.snapshot();
    // The engine may have been logged in for another face.
    let (_, server) = snapshot.login.wanted().unzip();
    let server = common.server.as_ref().or(server);
    let Some(server) = server.or(snapshot.settings.server.as_ref()).cloned() else {
        let reason = "no server: pass --server HOST:PORT or set PINHOLE_SERVER; two people find each other by a code through it";
        terminal.report.error("usage", reason);
        return Ok(Err(Exit::Usage));
    };
    let name = own_name(terminal, common);
    log_in(terminal, name.clone(), server)?;
    Ok(Ok(name))
}

fn log_in(terminal: &Terminal<'_>, name: PeerName, server: ServerAddress) -> anyhow::Result<()> {
    terminal.client.command(Command::LogIn {
        name,
        server,
        patient: false,
    })?;
    Ok(terminal.client.command(Command::Attend { stays: true })?)
}

/// The name of the command line, of the login that there is or of the profile, or that of a
/// guest.
fn own_name(terminal: &Terminal<'_>, common: &Common) -> PeerName {
    let snapshot = terminal.client.snapshot();
    let (name, _) = snapshot.login.wanted().unzip();
    let chosen = common.name.as_ref().or(name);
    let chosen = chosen.or(snapshot.settings.name.as_ref()).cloned();
    chosen.unwrap_or_else(|| PeerName::guest(snapshot.key))
}
