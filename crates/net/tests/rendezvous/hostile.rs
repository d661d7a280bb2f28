//! A server that wants its clients to knock at other people's doors.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pinhole_net::{
    ConnectError, Expect, HostSharing, LiveSessions, LogIn, PathPolicy, PeerIdentity, PeerKey,
    Rendezvous, RendezvousEvent, Way,
};
use pinhole_proto::candidate::{Candidate, CandidateKind};
use pinhole_proto::frame::{Decoder, FrameKind, encode};
use pinhole_proto::rendezvous::{ClientMessage, IntroductionId, Role, ServerMessage};
use pinhole_proto::tls::{ALPN_RENDEZVOUS, server_config};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::scene::{PATIENCE, identity};

/// The server's end of a client's control connection.
struct Control {
    stream: TlsStream<TcpStream>,
    decoder: Decoder,
}

impl Control {
    async fn say(&mut self, message: &ServerMessage) {
        let frame = encode(FrameKind::Server, message).unwrap();
        self.stream.write_all(&frame).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn hear(&mut self) -> ClientMessage {
        let mut bytes = [0; 4096];
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return message;
            }
            let read = timeout(PATIENCE, self.stream.read(&mut bytes)).await;
            let count = read.expect("silence").unwrap();
            assert_ne!(count, 0, "the client hung up");
            self.decoder.feed(&bytes[..count]);
        }
    }

    async fn invite(&mut self, number: u8, peer: &PeerIdentity) {
        let invitation = ServerMessage::Invitation {
            introduction: IntroductionId::from_random([number; 16]),
            round: 1,
            from: peer.clone(),
        };
        self.say(&invitation).await;
    }
}

/// A client of a hostile server, with the server's end of its connection. It
/// comes through a proxy, so that loopback is nothing special to it.
async fn victim() -> (Rendezvous, mpsc::Receiver<RendezvousEvent>, Control) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = server_config(&identity(), Expect::AnyKey, ALPN_RENDEZVOUS).unwrap();
    let acceptor = TlsAcceptor::from(config);
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let log_in = LogIn {
        server: "pinhole.invalid:4747".parse().unwrap(),
        expect: Expect::AnyKey,
        identity: identity(),
        name: "alice".parse().unwrap(),
        path: PathPolicy::DirectOnly,
        sessions: LiveSessions::default(),
        port_mapper: None,
        proxy: format!("http://{}", proxy.local_addr().unwrap())
            .parse()
            .unwrap(),
    };
    tokio::spawn(async move {
        let (mut client, _) = proxy.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(client.read_u8().await.unwrap());
        }
        let mut server = TcpStream::connect(address).await.unwrap();
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        copy_bidirectional(&mut client, &mut server).await
    });
    let serve = async {
        let (tcp, observed) = listener.accept().await.unwrap();
        let mut control = Control {
            stream: acceptor.accept(tcp).await.unwrap(),
            decoder: Decoder::new(FrameKind::Client),
        };
        control.hear().await;
        let logged_in = ServerMessage::LoggedIn {
            observed,
            observer_ports: vec![4747],
            relay: true,
        };
        control.say(&logged_in).await;
        control
    };
    let (logged_in, control) = tokio::join!(Rendezvous::log_in(log_in), serve);
    let (rendezvous, _, events) = logged_in.unwrap();
    (rendezvous, events, control)
}

fn peer() -> PeerIdentity {
    PeerIdentity {
        name: "mallory".parse().unwrap(),
        key: PeerKey::from_bytes([7; 32]),
    }
}

/// A listener, and how many have knocked at it.
async fn door(ip: IpAddr) -> (SocketAddr, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::<std::sync::atomic::AtomicUsize>::default();
    let knocks = count.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            knocks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    });
    (address, count)
}

/// The addresses dialled when the server names these.
async fn dialled(named: &[String]) -> Vec<SocketAddr> {
    let (rendezvous, mut events, mut control) = victim().await;
    control.invite(1, &peer()).await;
    let Some(RendezvousEvent::Invitation(invitation)) = events.recv().await else {
        panic!("no invitation");
    };
    let accepting = rendezvous.accept(invitation, HostSharing::SameNetwork);
    let introducing = async {
        let ClientMessage::Answer {
            introduction,
            round,
            ..
        } = control.hear().await
        else {
            panic!("no answer");
        };
        let candidates = named.iter().map(|address| Candidate {
            kind: CandidateKind::ServerReflexive,
            address: address.parse().unwrap(),
        });
        let introduced = ServerMessage::Introduced {
            introduction,
            round,
            peer: peer(),
            role: Role::Controlled,
            candidates: candidates.collect(),
            relay: None,
            start_in_ms: 0,
        };
        // Said three times, it is done once.
        for _ in 0..3 {
            control.say(&introduced).await;
        }
    };
    let (ended, ()) = tokio::join!(timeout(PATIENCE * 3, accepting), introducing);
    match ended.expect("still at it").unwrap_err() {
        ConnectError::NoPath { report, .. } => {
            let ways = report.tried.iter().filter_map(|tried| match tried.way {
                Way::Dialled(address) => Some(address),
                Way::Accepted(_) | Way::Relay => None,
            });
            ways.collect()
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn it_cannot_aim_them_at_themselves_at_services_or_at_many() {
    let (loopback, knocks) = door([127, 0, 0, 1].into()).await;
    let port = loopback.port();
    let mut named = vec![
        format!("127.0.0.1:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("[64:ff9b::127.0.0.1]:{port}"),
        format!("[2002:7f00:1::1]:{port}"),
        format!("0.0.0.0:{port}"),
        format!("[::]:{port}"),
        format!("[::1]:{port}"),
        "169.254.169.254:8080".into(),
        "100.100.100.200:8080".into(),
        "[fd00:ec2::254]:8080".into(),
        "224.0.0.251:5353".into(),
        "255.255.255.255:5000".into(),
        "192.0.2.1:22".into(),
        "192.0.2.1:1023".into(),
    ];
    // Nobody is there: that range is for documentation.
    named.extend((1..=20).map(|host| format!("192.0.2.{host}:5000")));
    let dialled = dialled(&named).await;
    assert_eq!(knocks.load(std::sync::atomic::Ordering::Relaxed), 0);
    let harmless = |address: &SocketAddr| {
        address.to_string().starts_with("192.0.2.") && address.port() == 5000
    };
    assert!(dialled.iter().all(harmless), "{dialled:?}");
    if dialled.is_empty() {
        eprintln!("SKIPPED the count of addresses: no network interface here");
        return;
    }
    assert_eq!(dialled.len(), Candidate::MAX_PER_SIDE, "{dialled:?}");
}

#[tokio::test]
async fn it_cannot_have_them_dial_without_end() {
    let (_rendezvous, mut events, mut control) = victim().await;
    for number in 0..200 {
        control.invite(number, &peer()).await;
    }
    let mut refused = 0;
    while refused < 200 - 64 - 10 {
        match control.hear().await {
            ClientMessage::Refuse { .. } => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    let mut passed_on = 0;
    while let Ok(Some(RendezvousEvent::Invitation(_))) =
        timeout(Duration::from_millis(200), events.recv()).await
    {
        passed_on += 1;
    }
    // One more a second.
    assert!((64..=74).contains(&passed_on), "{passed_on}");
}
