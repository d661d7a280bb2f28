//! Clients that are slow, greedy or broken.

use std::time::{Duration, Instant};

use pinhole_proto::frame::{FrameKind, encode};
use pinhole_proto::rendezvous::{ClientMessage, Refusal, RefuseReason, ServerMessage};
use pinhole_server::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{Client, identity, introduction, relay_only};
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
    };
    alice.say(&introduce).await;
    let answer = alice.hear().await;
    assert!(matches!(answer, ServerMessage::IntroductionFailed { .. }));
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_the_protocol_ends_the_connection() {
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
async fn a_key_has_so_many_connections_and_no_more() {
    let limits = Limits {
        connections_per_key: 2,
        ..Limits::default()
    };
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
async fn an_address_has_so_many_connections_and_no_more() {
    let limits = Limits {
        connections_per_address: 2,
        ..Limits::default()
    };
    let server = Server::start(limits);
    let alice = Client::log_in(server.address(), &identity(), "alice").await;
    let bob = Client::log_in(server.address(), &identity(), "bob").await;
    let mut third = TcpStream::connect(server.address()).await.unwrap();
    let mut byte = [0];
    let read = timeout(PATIENCE, third.read(&mut byte)).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    drop((alice, bob));
    server.stop().await;
}

#[tokio::test]
async fn throwaway_keys_do_not_log_in_without_end() {
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
async fn who_has_all_the_names_that_it_may_keeps_them() {
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
    let offline = ServerMessage::Offline {
        name: "deaf".parse().unwrap(),
    };
    assert_eq!(alice.hear().await, offline);
    server.stop().await;
}
