//! Two sides meet at the relay.

use std::net::SocketAddr;
use std::time::Duration;

use pinhole_proto::rendezvous::{ClientMessage, Refusal, RelayToken, ServerMessage};
use pinhole_proto::tls::Identity;
use pinhole_server::{Limits, RelayLimits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::client::{Client, identity, introduction, relay_only};
use super::{PATIENCE, Server};

/// The token of a fresh introduction of two new peers, and their sessions.
async fn introduced(
    server: SocketAddr,
    alice: &Identity,
    bob: &Identity,
) -> (RelayToken, [Client; 2]) {
    let mut a = Client::log_in(server, alice, "alice").await;
    let mut b = Client::log_in(server, bob, "bob").await;
    let introduce = ClientMessage::Introduce {
        introduction: introduction(1),
        round: 1,
        peer: "bob".parse().unwrap(),
        reachability: relay_only(),
        credential: None,
    };
    a.say(&introduce).await;
    b.hear().await; // the invitation
    let answer = ClientMessage::Answer {
        introduction: introduction(1),
        round: 1,
        reachability: relay_only(),
    };
    b.say(&answer).await;
    match b.hear().await {
        ServerMessage::Introduced {
            relay: Some(token), ..
        } => (token, [a, b]),
        other => panic!("{other:?}"),
    }
}

/// The token of an introduction of two peers who are gone.
async fn token(server: SocketAddr, alice: &Identity, bob: &Identity) -> RelayToken {
    introduced(server, alice, bob).await.0
}

/// Two sides that have shown a fresh token.
async fn arrive(server: SocketAddr, alice: &Identity, bob: &Identity) -> [Client; 2] {
    let token = token(server, alice, bob).await;
    let relay = ClientMessage::Relay { token };
    let a = Client::begin(server, alice, &relay).await;
    [a, Client::begin(server, bob, &relay).await]
}

async fn pair(server: SocketAddr, alice: &Identity, bob: &Identity) -> (TcpStream, TcpStream) {
    let [a, b] = arrive(server, alice, bob).await;
    (a.meet().await, b.meet().await)
}

/// Waits until the server ends the connection.
async fn ended(mut relayed: TcpStream) {
    let read = timeout(PATIENCE, relayed.read(&mut [0])).await;
    assert!(matches!(read.unwrap(), Ok(0) | Err(_)));
}

#[tokio::test]
async fn ten_mebibytes_pass_each_way_at_once() {
    const SIZE_BYTES: usize = 10 * 1024 * 1024;
    let server = Server::default();
    let (a, b) = pair(server.address(), &identity(), &identity()).await;
    let exchange = |relayed: TcpStream, ours: u8, theirs: u8| async move {
        let (mut reader, mut writer) = relayed.into_split();
        let write = async {
            for chunk in vec![ours; SIZE_BYTES].chunks(100_000) {
                writer.write_all(chunk).await.unwrap();
            }
            writer.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let read = reader.read_to_end(&mut received);
        let ((), read) = tokio::join!(write, read);
        read.unwrap();
        assert_eq!(received.len(), SIZE_BYTES);
        assert!(received.iter().all(|&byte| byte == theirs));
    };
    tokio::join!(exchange(a, b'a', b'b'), exchange(b, b'b', b'a'));
    server.stop().await;
}

#[tokio::test]
async fn a_token_serves_once_and_only_its_two_keys() {
    let server = Server::default();
    let (alice, bob) = (identity(), identity());
    let token = token(server.address(), &alice, &bob).await;
    let relay = ClientMessage::Relay { token };
    let mut stranger = Client::begin(server.address(), &identity(), &relay).await;
    assert_eq!(stranger.refusal().await, Refusal::Token);
    let mut a = Client::begin(server.address(), &alice, &relay).await;
    let mut b = Client::begin(server.address(), &bob, &relay).await;
    assert_eq!(a.hear().await, ServerMessage::RelayPaired);
    assert_eq!(b.hear().await, ServerMessage::RelayPaired);
    for side in [&alice, &bob] {
        let mut replayed = Client::begin(server.address(), side, &relay).await;
        assert_eq!(replayed.refusal().await, Refusal::Token);
    }
    let unknown = ClientMessage::Relay {
        token: RelayToken::from_random([7; 32]),
    };
    let mut unknown = Client::begin(server.address(), &alice, &unknown).await;
    assert_eq!(unknown.refusal().await, Refusal::Token);
    server.stop().await;
}

#[tokio::test]
async fn a_side_that_vanishes_ends_the_other() {
    let server = Server::default();
    let (a, b) = pair(server.address(), &identity(), &identity()).await;
    drop(a);
    ended(b).await;
    server.stop().await;
}

#[tokio::test]
async fn going_down_ends_relays_waiting_and_paired() {
    let server = Server::default();
    let (alice, bob) = (identity(), identity());
    let (a, b) = pair(server.address(), &alice, &bob).await;
    let token = token(server.address(), &alice, &bob).await;
    let relay = ClientMessage::Relay { token };
    let mut waiting = Client::begin(server.address(), &alice, &relay).await;
    // An answer on another connection proves that the token has arrived.
    let mut twice = Client::begin(server.address(), &alice, &relay).await;
    assert_eq!(twice.refusal().await, Refusal::Token);
    let told = tokio::spawn(async move { waiting.refusal().await });
    server.stop().await;
    assert_eq!(told.await.unwrap(), Refusal::ShuttingDown);
    ended(a).await;
    ended(b).await;
}

#[tokio::test]
async fn an_observation_turns_into_a_relay_connection() {
    let server = Server::default();
    let (alice, bob) = (identity(), identity());
    let mut observers = Vec::new();
    for who in [&alice, &bob] {
        let mut observer = Client::begin(server.address(), who, &ClientMessage::Observe).await;
        observer.hear().await;
        observers.push(observer);
    }
    let token = token(server.address(), &alice, &bob).await;
    for observer in &mut observers {
        observer.say(&ClientMessage::Relay { token }).await;
    }
    let mut met = Vec::new();
    for observer in observers {
        met.push(observer.meet().await);
    }
    let [a, b] = &mut met[..] else {
        panic!("two observers")
    };
    pass(a, b).await;
}

#[tokio::test]
async fn a_pair_counts_among_the_connections_of_the_inviter_alone() {
    let mut limits = Limits::default();
    limits.connections.per_key = 4;
    let server = Server::start(limits);
    let (alice, bob) = (identity(), identity());
    let (token, _sessions) = introduced(server.address(), &alice, &bob).await;
    let relay = ClientMessage::Relay { token };
    // Also while it waits.
    let mut second = Client::begin(server.address(), &bob, &relay).await;
    let mut first = Client::begin(server.address(), &alice, &relay).await;
    for side in [&mut first, &mut second] {
        assert_eq!(side.hear().await, ServerMessage::RelayPaired);
    }
    let observe = |who| Client::begin(server.address(), who, &ClientMessage::Observe);
    let mut of_alice = observe(&alice).await;
    assert!(matches!(
        of_alice.hear().await,
        ServerMessage::Observed { .. }
    ));
    assert_eq!(observe(&alice).await.refusal().await, Refusal::Limited);
    let mut of_bob = Vec::new();
    for _ in 0..3 {
        let mut client = observe(&bob).await;
        assert!(matches!(
            client.hear().await,
            ServerMessage::Observed { .. }
        ));
        of_bob.push(client);
    }
    server.stop().await;
}

fn limited(relay: RelayLimits) -> Server {
    Server::start(Limits {
        relay,
        ..Limits::default()
    })
}

#[tokio::test]
async fn an_exhausted_quota_is_told_on_every_connection() {
    let server = limited(RelayLimits {
        bytes_per_day: Some(1_000),
        ..RelayLimits::default()
    });
    let (alice, bob) = (identity(), identity());
    let (mut a, mut b) = pair(server.address(), &alice, &bob).await;
    let mut at_alice = Client::log_in(server.address(), &alice, "alice").await;
    let mut at_bob = Client::log_in(server.address(), &bob, "bob").await;
    a.write_all(&[0; 1_000]).await.unwrap();
    b.read_exact(&mut [0; 1_000]).await.unwrap();
    a.write_all(b"x").await.unwrap();
    let reason = Refusal::RelayBytes;
    let of = |identity: &Identity| identity.key();
    let peer = of(&bob);
    let told = at_alice.hear().await;
    assert_eq!(told, ServerMessage::RelayEnded { peer, reason });
    let peer = of(&alice);
    let told = at_bob.hear().await;
    assert_eq!(told, ServerMessage::RelayEnded { peer, reason });
    ended(a).await;
    ended(b).await;
    for mut side in arrive(server.address(), &alice, &bob).await {
        assert_eq!(side.refusal().await, Refusal::RelayBytes);
    }
    server.stop().await;
}

#[tokio::test]
async fn beyond_the_pairs_of_an_inviter_both_sides_are_refused() {
    let mut relay = RelayLimits::default();
    relay.pairs.per_key = 1;
    let server = limited(relay);
    let (alice, bob) = (identity(), identity());
    let (first, second) = pair(server.address(), &alice, &bob).await;
    for mut side in arrive(server.address(), &alice, &bob).await {
        assert_eq!(side.refusal().await, Refusal::Limited);
    }
    drop(first);
    // The place is free when the other side has been ended, too.
    ended(second).await;
    loop {
        let [mut a, mut b] = arrive(server.address(), &alice, &bob).await;
        match (a.hear().await, b.hear().await) {
            (ServerMessage::RelayPaired, ServerMessage::RelayPaired) => break,
            (ServerMessage::Refused { .. }, ServerMessage::Refused { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    server.stop().await;
}

/// Sends a few bytes from one side to the other.
async fn pass(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"through").await.unwrap();
    let mut heard = [0; 7];
    timeout(PATIENCE, to.read_exact(&mut heard))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&heard, b"through");
}

fn draining(drain: Duration) -> Server {
    Server::start(Limits {
        drain,
        ..Limits::default()
    })
}

#[tokio::test]
async fn a_relayed_pair_outlives_the_sessions_of_a_server_that_stops() {
    let server = draining(PATIENCE * 2);
    let address = server.address();
    let (mut a, mut b) = pair(address, &identity(), &identity()).await;
    let mut carla = Client::log_in(address, &identity(), "carla").await;
    let Server { stop, running, .. } = server;
    stop.send(()).unwrap();
    assert_eq!(carla.refusal().await, Refusal::ShuttingDown);
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    pass(&mut a, &mut b).await;
    pass(&mut b, &mut a).await;
    assert!(!running.is_finished());
    drop((a, b));
    let ended = timeout(PATIENCE, running).await;
    ended
        .expect("nothing is left to wait for")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_relayed_pair_is_cut_off_when_the_time_is_up() {
    let drain = Duration::from_millis(500);
    let server = draining(drain);
    let (mut a, mut b) = pair(server.address(), &identity(), &identity()).await;
    let begin = Instant::now();
    let Server { stop, running, .. } = server;
    stop.send(()).unwrap();
    pass(&mut a, &mut b).await;
    ended(a).await;
    ended(b).await;
    assert!(begin.elapsed() >= drain);
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_what_is_relayed() {
    use rustix::process::Signal;

    use super::binary::{ANY_PORT, Process};
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::spawn(dir.path(), &[&ANY_PORT[..], &["--drain=1h"]].concat());
    let (addresses, _) = server.listening();
    let (mut a, mut b) = pair(addresses[0], &identity(), &identity()).await;
    let mut carla = Client::log_in(addresses[0], &identity(), "carla").await;
    server.signal(Signal::TERM);
    assert_eq!(carla.refusal().await, Refusal::ShuttingDown);
    pass(&mut a, &mut b).await;
    // The second of two signals.
    let log = server.log();
    assert!(log.contains("relayed pairs may go on"), "{log}");
    assert!(log.contains("relayed pairs are cut off pairs=1"), "{log}");
    ended(a).await;
}
