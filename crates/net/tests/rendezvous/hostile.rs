//! A server that wants its clients to knock at other people's doors.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pinhole_net::{
    ConnectError, Connector, Expect, HostSharing, KnownKeys, LogIn, LoginRecovery, PathAttempt,
    PathPolicy, PeerIdentity, PeerKey, RefuseReason, RendezvousEvent,
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

use crate::scene::{PATIENCE, connect_config, identity};

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
            credential: None,
        };
        self.say(&invitation).await;
    }
}

/// A client of a hostile server, with the server's end of its connection. It
/// comes through a proxy, so that loopback is nothing special to it.
async fn victim(
    path: PathPolicy,
    known: KnownKeys,
) -> (Connector, mpsc::Receiver<RendezvousEvent>, Control) {
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
        known,
        proxy: format!("http://{}", proxy.local_addr().unwrap())
            .parse()
            .unwrap(),
        recovery: LoginRecovery::default(),
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
            codes: true,
        };
        control.say(&logged_in).await;
        control
    };
    let (logged_in, control) = tokio::join!(Connector::log_in(log_in, connect_config(path)), serve);
    let (connector, _, events) = logged_in.unwrap();
    (connector, events, control)
}

fn peer() -> PeerIdentity {
    PeerIdentity {
        name: "mallory".parse().unwrap(),
        key: PeerKey::from_bytes([255; 32]),
    }
}

fn someone(number: u8) -> PeerIdentity {
    PeerIdentity {
        name: format!("someone{number}").parse().unwrap(),
        key: PeerKey::from_bytes([number; 32]),
    }
}

/// Where this machine would be dialled if somebody was to.
fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
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
    let (connector, mut events, mut control) =
        victim(PathPolicy::DirectOnly, KnownKeys::default()).await;
    control.invite(1, &peer()).await;
    let Some(RendezvousEvent::Invitation(invitation)) = events.recv().await else {
        panic!("no invitation");
    };
    let accepting = connector.accept(invitation, HostSharing::SameNetwork, PathPolicy::Auto);
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
            relay_addresses: Vec::new(),
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
                PathAttempt::Dialled(address) => Some(address),
                PathAttempt::Accepted(_) | PathAttempt::Relay => None,
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
    let known = KnownKeys::default();
    let contact = someone(200);
    known.set([contact.key]);
    let (_connector, mut events, mut control) = victim(PathPolicy::Auto, known).await;
    // One who asks again and again, then many who ask once, then a contact.
    let pushy = std::iter::repeat_n(peer(), 100);
    let many = (1..=150).map(someone);
    let all = pushy.chain(many).chain([contact.clone()]);
    for (number, from) in all.enumerate() {
        control.invite(u8::try_from(number).unwrap(), &from).await;
    }
    let mut passed_on = Vec::new();
    while let Ok(Some(RendezvousEvent::Invitation(invitation))) =
        timeout(Duration::from_millis(500), events.recv()).await
    {
        passed_on.push(invitation.from().key);
    }
    let of = |key| passed_on.iter().filter(|&&from| from == key).count();
    // Some more while the test runs: one a second, of all two a second.
    assert!((32..=40).contains(&of(peer().key)), "{}", of(peer().key));
    assert_eq!(of(contact.key), 1);
    assert!(
        (129..=145).contains(&passed_on.len()),
        "{}",
        passed_on.len()
    );
    for _ in passed_on.len()..251 {
        match control.hear().await {
            ClientMessage::Refuse { reason, .. } => assert_eq!(reason, RefuseReason::Busy),
            other => panic!("{other:?}"),
        }
    }
}

/// What a key that is no contact's learns of an invitation that is taken up over the
/// relay, even when it and the server do all they can.
#[tokio::test]
async fn nobody_who_is_answered_over_the_relay_only_learns_an_address_or_is_dialled() {
    let (doorstep, knocks) = door(own_address().unwrap_or([127, 0, 0, 1].into())).await;
    let (connector, mut events, mut control) = victim(PathPolicy::Auto, KnownKeys::default()).await;
    control.invite(1, &peer()).await;
    let Some(RendezvousEvent::Invitation(invitation)) = events.recv().await else {
        panic!("no invitation");
    };
    let accepting = connector.accept(invitation, HostSharing::Always, PathPolicy::RelayOnly);
    let introducing = async {
        let ClientMessage::Answer {
            introduction,
            round,
            reachability,
        } = control.hear().await
        else {
            panic!("no answer");
        };
        assert_eq!(reachability.candidates, []);
        assert!(reachability.relay);
        let kinds = [CandidateKind::Host, CandidateKind::PortMapped];
        let candidates = kinds.map(|kind| Candidate {
            kind,
            address: doorstep,
        });
        let introduced = ServerMessage::Introduced {
            introduction,
            round,
            peer: peer(),
            role: Role::Controlled,
            candidates: candidates.to_vec(),
            relay: None,
            relay_addresses: Vec::new(),
            start_in_ms: 0,
        };
        control.say(&introduced).await;
    };
    let (ended, ()) = tokio::join!(timeout(PATIENCE, accepting), introducing);
    let ended = ended.expect("still at it");
    match ended.unwrap_err() {
        ConnectError::NoPath { report, .. } => assert_eq!(report.tried, []),
        other => panic!("{other}"),
    }
    assert_eq!(knocks.load(std::sync::atomic::Ordering::Relaxed), 0);
}
