//! Connections that break under way, with the real binaries behind real NATs.
#![cfg(target_os = "linux")]
#![allow(clippy::cast_possible_truncation, clippy::indexing_slicing)]

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use pinhole_tests::lab::{self, Host, Lab, Plan, Router};
use pinhole_tests::process::Process;
use pinhole_tests::scene::{SOON, Scene};

const MIB: usize = 1024 * 1024;

/// While it exists, everything that this host sends from a port is answered
/// with a reset instead of being sent.
struct Cut<'a> {
    lab: &'a Lab,
    host: Host,
}

impl<'a> Cut<'a> {
    fn new(lab: &'a Lab, host: Host, port: u16) -> Self {
        let cut = Self { lab, host };
        cut.nft(&format!(
            "add table inet cut; \
             add chain inet cut out {{ type filter hook output priority 0; }}; \
             add rule inet cut out tcp sport {port} reject with tcp reset"
        ));
        cut
    }

    fn nft(&self, commands: &str) {
        let mut nft = self.lab.command(self.host, "nft".as_ref());
        assert!(nft.arg(commands).status().expect("nft").success());
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        self.nft("delete table inet cut");
    }
}

/// The port of the connection to the peer on this process's side.
fn port(process: &mut Process) -> u16 {
    let connected = process.event("connected", SOON);
    let local: SocketAddr = connected["local"]
        .as_str()
        .expect("an address")
        .parse()
        .expect("an address");
    local.port()
}

/// Breaks the connection in the midst of a file, seen by this host first.
fn goes_on_after_a_cut_at(host: Host) {
    let plan = Plan::two_sites(Router::HOME, Router::HOME).delayed(Duration::from_millis(5));
    let Some(lab) = lab::build_or_skip(plan) else {
        return;
    };
    lab.limit(200, 20);
    let scene = Scene::in_lab(&lab);
    let bob = scene.peer_in(&lab, Host::B, "bob");
    let alice = scene.peer_in(&lab, Host::A, "alice");
    let mut receiving = bob.receive(&["--once"]);
    let content: Vec<u8> = (0..96 * MIB / 4)
        .flat_map(|n: usize| (n as u32).to_le_bytes())
        .collect();
    let file = scene.file("film", &content);
    let mut sending = alice.send("bob", &[&file]);
    let ports = (port(&mut sending), port(&mut receiving));
    while receiving.event("progress", SOON)["bytes"].as_u64() < Some(8 * MIB as u64) {}

    let (seen_by, port) = match host {
        Host::A => (&mut sending, ports.0),
        _ => (&mut receiving, ports.1),
    };
    let cut = Cut::new(&lab, host, port);
    seen_by.event("reconnecting", SOON);
    drop(cut);

    let (sent, received) = (sending.end(SOON), receiving.end(SOON));
    assert_eq!(
        (sent.code, received.code),
        (Some(0), Some(0)),
        "{sent:#?} {received:#?}"
    );
    assert_eq!(received.event("completed")["resent_bytes"], 0);
    assert!(fs::read(bob.inbox.join("film")).expect("the file") == content);
    let left = fs::read_dir(&bob.inbox).expect("the inbox").count();
    assert_eq!(left, 1, "nothing else is left");
}

#[test]
fn a_file_goes_on_by_itself_when_the_sender_loses_the_connection() {
    goes_on_after_a_cut_at(Host::A);
}

#[test]
fn a_file_goes_on_by_itself_when_the_receiver_loses_the_connection() {
    goes_on_after_a_cut_at(Host::B);
}
