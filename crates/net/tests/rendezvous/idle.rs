//! Whoever is idle holds one connection, and is reached nevertheless.

use pinhole_net::{PathKind, PathPolicy, Session};

use crate::scene::{Client, Server, connect, exchange};

/// The port of the connection with which this client is logged in.
fn login_port(client: &Client) -> u16 {
    client.logged_in.observed.port()
}

fn is_from_login(session: &Session, client: &Client) -> bool {
    session.local.port() == login_port(client)
}

#[cfg(target_os = "linux")]
mod connections {
    use std::time::Duration;

    use pinhole_net::Warmth;
    use tokio::time::{sleep, timeout};

    use crate::scene::{Client, PATIENCE, Server};

    /// How many connections the server's side of the kernel has on these ports.
    fn established(ports: &[u16]) -> usize {
        const ESTABLISHED: &str = "01";
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let is_ours = |line: &&str| {
            let mut words = line.split_whitespace().skip(1);
            let local = words.next().unwrap();
            let port = local.split_once(':').unwrap().1;
            let port = u16::from_str_radix(port, 16).unwrap();
            ports.contains(&port) && words.nth(1) == Some(ESTABLISHED)
        };
        table.lines().skip(1).filter(is_ours).count()
    }

    async fn come_to(count: usize, ports: &[u16]) {
        let reached = async {
            while established(ports) != count {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let reached = timeout(PATIENCE, reached).await;
        assert!(reached.is_ok(), "{} connections", established(ports));
    }

    #[tokio::test]
    async fn whoever_is_idle_holds_one_connection() {
        let server = Server::start();
        let alice = Client::new(&server, "alice").await;
        let ports = &alice.logged_in.observer_ports;
        come_to(3, ports).await;
        alice.connector.set_warmth(Warmth::Cold);
        come_to(1, ports).await;
        alice.connector.set_warmth(Warmth::Warm);
        come_to(3, ports).await;
        alice.connector.set_warmth(Warmth::Cold);
        come_to(1, ports).await;
        let _bob = Client::idle(&server, "bob").await;
        come_to(2, ports).await;
    }
}

#[tokio::test]
async fn two_idle_peers_connect_from_the_ports_of_their_logins() {
    let server = Server::start();
    let alice = Client::idle(&server, "alice").await;
    let mut bob = Client::idle(&server, "bob").await;
    let (at_alice, at_bob) = connect(&alice, &mut bob).await;
    let (at_alice, at_bob) = (at_alice.unwrap(), at_bob.unwrap());
    assert_eq!((at_alice.path, at_bob.path), (PathKind::Lan, PathKind::Lan));
    assert!(is_from_login(&at_alice, &alice), "{}", at_alice.local);
    assert!(is_from_login(&at_bob, &bob), "{}", at_bob.local);
    exchange(at_alice, at_bob, 1_000_000).await;
    // The ports serve again, and the logins have not suffered.
    let (at_alice, at_bob) = connect(&alice, &mut bob).await;
    exchange(at_alice.unwrap(), at_bob.unwrap(), 1_000_000).await;
    assert!(alice.connector.rendezvous().answers().await);
    assert!(bob.connector.rendezvous().answers().await);
}

#[tokio::test]
async fn one_may_be_idle_on_either_side() {
    let server = Server::start();
    let mut alice = Client::idle(&server, "alice").await;
    let mut bob = Client::new(&server, "bob").await;
    let (at_alice, at_bob) = connect(&alice, &mut bob).await;
    let (at_alice, at_bob) = (at_alice.unwrap(), at_bob.unwrap());
    assert!(is_from_login(&at_alice, &alice), "{}", at_alice.local);
    assert!(!is_from_login(&at_bob, &bob), "{}", at_bob.local);
    exchange(at_alice, at_bob, 1_000_000).await;
    let (at_bob, at_alice) = connect(&bob, &mut alice).await;
    let (at_bob, at_alice) = (at_bob.unwrap(), at_alice.unwrap());
    assert_ne!(at_alice.path, PathKind::Relay);
    exchange(at_bob, at_alice, 1_000_000).await;
}

#[tokio::test]
async fn whoever_is_idle_meets_others_at_the_relay() {
    let server = Server::start();
    let mut alice = Client::idle(&server, "alice").await;
    let mut bob = Client::with_path(&server, "bob", PathPolicy::RelayOnly).await;
    let (at_alice, at_bob) = connect(&alice, &mut bob).await;
    let (at_alice, at_bob) = (at_alice.unwrap(), at_bob.unwrap());
    assert_eq!(
        (at_alice.path, at_bob.path),
        (PathKind::Relay, PathKind::Relay)
    );
    exchange(at_alice, at_bob, 1_000_000).await;
    let (at_bob, at_alice) = connect(&bob, &mut alice).await;
    exchange(at_bob.unwrap(), at_alice.unwrap(), 1_000_000).await;
}
