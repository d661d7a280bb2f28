//! Clients that are slow, greedy or broken.

use std::time::{Duration, Instant};

use pinhole_budget::SubnetBounds;
use pinhole_proto::frame::{FrameKind, encode};
use pinhole_proto::rendezvous::{ClientMessage, Refusal, RefuseReason, ServerMessage};
use pinhole_server::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{Client, identity, introduction, log_in, relay_only};
use super::{PATIENCE, Server};

const SHORT: Duration = Duration::from_millis(300);

fn impatient() -> Limits {
    Limits {
        authenticate_timeout: SHORT,
        ..Limits::default()
    }
}

#[tokio::test]
async fn silence_before_or_after_tls_is_not_waited_for() {
    let server = Server::start(impatient());
    let begin = Instant::now();
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    let mut half = Client::connect(server.address(), &identity()).await;
    let mut byte = [0];
    let read = timeout(PATIENCE, silent.read(&mut byte)).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert_eq!(half.hear_or_end().await, None);
    assert!(begin.elapsed() >= SHORT);
    server.stop().await;
}

#[tokio::test]
async fn a_session_outlives_the_time_to_authenticate() {
    let server = Server::start(impatient());
    let mut alice = Client::log_in(server.address(), &identity(), "alice").await;
    // Takes the server longer than the limit, because it waits for it.
    let mut late = Client::connect(server.address(), &identity()).await;
    assert_eq!(late.hear_or_end().await, None);
    let introduce = ClientMessage::Introduce {
        introduction: introduction(1),
        round: 1,
        peer: "bob".parse().unwrap(),
        reachability: relay_only(),
        credential: None,
    };
    alice.say(&introduce).await;
    let answer = alice.hear().await;
    assert!(matches!(answer, ServerMessage::IntroductionFailed { .. }));
    server.stop().await;
}

#[tokio::test]
async fn a_violation_of_the_protocol_ends_the_connection() {
    let oversize = 16 * 1024 + 2_u32;
    let broken: [(&str, Vec<u8>); 5] = [
        ("oversize", [&oversize.to_be_bytes()[..], &[1]].concat()),
        ("empty", vec![0, 0, 0, 0]),
        ("unknown kind", vec![0, 0, 0, 3, 9, b'{', b'}']),
        ("not JSON", vec![0, 0, 0, 3, 1, b'{', b'{']),
        (
            "no such message",
            b"\0\0\0\x0f\x01{\"type\":\"eat\"}".to_vec(),
        ),
    ];
    let server = Server::default();
    let names = ["alice", "bob", "carol", "dave", "eve"];
    for ((what, bytes), name) in broken.into_iter().zip(names) {
        let mut first = Client::connect(server.address(), &identity()).await;
        first.stream.write_all(&bytes).await.unwrap();
        assert_eq!(first.hear_or_end().await, None, "{what}");
        let mut later = Client::log_in(server.address(), &identity(), name).await;
        later.stream.write_all(&bytes).await.unwrap();
        assert_eq!(later.hear_or_end().await, None, "{what}, logged in");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_connection_may_not_begin_in_the_middle() {
    let server = Server::default();
    for message in [
        ClientMessage::Pong { nonce: 1 },
        ClientMessage::Refuse {
            introduction: introduction(1),
            reason: RefuseReason::Busy,
            credential: None,
        },
    ] {
        let mut client = Client::begin(server.address(), &identity(), &message).await;
        assert_eq!(client.hear_or_end().await, None);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_observer_that_talks_is_closed() {
    let server = Server::default();
    let mut observer = Client::begin(server.address(), &identity(), &ClientMessage::Observe).await;
    observer.hear().await;
    observer.say(&ClientMessage::Observe).await;
    assert_eq!(observer.hear_or_end().await, None);
    server.stop().await;
}

#[tokio::test]
async fn a_key_has_a_limit_of_connections() {
    let mut limits = Limits::default();
    limits.connections.per_key = 2;
    let server = Server::start(limits);
    let alice = identity();
    let observe = || Client::begin(server.address(), &alice, &ClientMessage::Observe);
    let (mut first, mut second) = (observe().await, observe().await);
    first.hear().await;
    second.hear().await;
    assert_eq!(observe().await.refusal().await, Refusal::Limited);
    Client::log_in(server.address(), &identity(), "bob").await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_refused_for_its_network_is_told() {
    let mut limits = Limits::default();
    limits.connections.per_subnet = SubnetBounds::uniform(2);
    let server = Server::start(limits);
    let alice = Client::log_in(server.address(), &identity(), "alice").await;
    let bob = Client::log_in(server.address(), &identity(), "bob").await;
    let mut third = Client::asking(server.address(), &identity(), "carol").await;
    assert_eq!(third.refusal().await, Refusal::Limited);
    drop((alice, bob));
    server.stop().await;
}

/// A stranger who is there for the first time, and has a network of its own.
async fn from(address: [u8; 4], server: &Server, first: &ClientMessage) -> Client {
    Client::begin_from(address, server.address(), &identity(), first).await
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_client_with_most_connections_is_evicted_and_told() {
    let mut limits = Limits::default();
    limits.connections.total = 4;
    limits.connections.reserved = 0;
    let server = Server::start(limits);
    let mut crowd = Vec::new();
    for name in ["eve1", "eve2", "eve3", "eve4"] {
        let mut stranger = from([127, 7, 0, 1], &server, &log_in(name)).await;
        stranger.welcome().await;
        crowd.push(stranger);
    }
    let mut alice = from([127, 8, 0, 1], &server, &ClientMessage::Observe).await;
    let observed = alice.hear().await;
    assert!(
        matches!(observed, ServerMessage::Observed { .. }),
        "{observed:?}"
    );
    let gone = &mut crowd[3];
    let refused = ServerMessage::Refused {
        reason: Refusal::Limited,
    };
    assert_eq!(gone.hear().await, refused);
    assert_eq!(gone.hear_or_end().await, None);
    // The crowd itself pushes nobody out.
    let mut fifth = from([127, 7, 0, 2], &server, &ClientMessage::Observe).await;
    let told = fifth.hear().await;
    assert!(
        matches!(told, ServerMessage::Observed { .. }),
        "for a heavier neighbour: {told:?}"
    );
    let mut sixth = from([127, 7, 0, 1], &server, &ClientMessage::Observe).await;
    assert_eq!(sixth.refusal().await, Refusal::Limited);
    server.stop().await;
}

#[tokio::test]
async fn a_key_that_is_not_logged_in_observes_little() {
    let mut limits = Limits::default();
    limits.strange_observations.per_key = 1;
    let server = Server::start(limits);
    let alice = identity();
    let observe = || Client::begin(server.address(), &alice, &ClientMessage::Observe);
    let mut first = observe().await;
    first.hear().await;
    assert_eq!(observe().await.refusal().await, Refusal::Limited);
    let _session = Client::log_in(server.address(), &alice, "alice").await;
    let observed = observe().await.hear().await;
    assert!(
        matches!(observed, ServerMessage::Observed { .. }),
        "{observed:?}"
    );
    server.stop().await;
}

/// Who floods waits; everybody else is answered.
#[tokio::test]
async fn one_session_s_messages_are_read_at_a_measured_speed() {
    let server = Server::start(Limits {
        session_bytes_per_second: 1_000,
        ..Limits::default()
    });
    let mut alice = Client::log_in(server.address(), &identity(), "alice").await;
    let ping = encode(FrameKind::Client, &ClientMessage::Ping { nonce: 1 }).unwrap();
    let count = 2_000 / ping.len();
    let begin = Instant::now();
    for _ in 0..count {
        alice.stream.write_all(&ping).await.unwrap();
    }
    alice.stream.flush().await.unwrap();
    for _ in 0..count {
        assert_eq!(alice.hear().await, ServerMessage::Pong { nonce: 1 });
    }
    assert!(
        begin.elapsed() > Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    server.stop().await;
}

#[tokio::test]
async fn new_keys_do_not_log_in_without_end() {
    let server = Server::default();
    for number in 0..1000 {
        let name = format!("peer{number}");
        let mut client = Client::asking(server.address(), &identity(), &name).await;
        if let ServerMessage::Refused { reason } = client.hear().await {
            assert_eq!(reason, Refusal::Limited);
            return server.stop().await;
        }
    }
    panic!("a thousand have logged in");
}

#[tokio::test]
async fn a_key_with_all_its_names_keeps_them() {
    let server = Server::start(Limits {
        names_per_key: 1,
        ..Limits::default()
    });
    let alice = identity();
    let first = Client::log_in(server.address(), &alice, "alice").await;
    let mut second = Client::asking(server.address(), &alice, "eve").await;
    assert_eq!(second.refusal().await, Refusal::TooManyNames);
    drop(first);
    Client::log_in(server.address(), &alice, "alice").await;
    Client::log_in(server.address(), &identity(), "eve").await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped() {
    let limits = Limits {
        write_timeout: SHORT,
        session_bytes_per_second: 1 << 30,
        ..Limits::default()
    };
    let server = Server::start(limits);
    let mut deaf = Client::log_in(server.address(), &identity(), "deaf").await;
    let mut alice = Client::log_in(server.address(), &identity(), "alice").await;
    let late = ClientMessage::Answer {
        introduction: introduction(1),
        round: 1,
        reachability: relay_only(),
    };
    // Each is answered, until nothing more fits between the two.
    let frame = encode(FrameKind::Client, &late).unwrap();
    let flood = frame.repeat(1000);
    let talk = async { while deaf.stream.write_all(&flood).await.is_ok() {} };
    timeout(PATIENCE, talk).await.expect("still listened to");
    let gone = "deaf".parse().unwrap();
    while !alice.hear_presence().await.1.contains(&gone) {}
    server.stop().await;
}
