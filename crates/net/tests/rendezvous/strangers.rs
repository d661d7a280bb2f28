//! A punch port that everybody may connect to, and who is let in.

use std::net::SocketAddr;
use std::sync::Arc;

use pinhole_net::socket::{AddressReuse, LocalPort};
use pinhole_net::{
    Accepted, Answer, ConnectError, Expect, HostSharing, Identity, PathAttempt, PathKind,
    PathPolicy, PeerName,
};
use pinhole_proto::candidate::{Candidate, CandidateKind};
use pinhole_proto::frame::{Decoder, FrameKind, encode};
use pinhole_proto::hello::{Hello, Purpose};
use pinhole_proto::rendezvous::{
    ClientMessage, IntroductionId, PROTOCOL_VERSION, Reachability, RelayToken, ServerMessage,
};
use pinhole_proto::tls::{self, ALPN_PEER, ALPN_RENDEZVOUS};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::scene::{Client, PATIENCE, Server, begun, identity};

/// The introduction that the tests' own clients ask for, which names their session.
const SESSION: IntroductionId = IntroductionId::from_random([7; 16]);

/// A client of the test's own, which can do what ours never would.
struct RawClient {
    stream: TlsStream<TcpStream>,
    decoder: Decoder,
}

impl RawClient {
    async fn log_in(server: &Server, name: &str, identity: &Identity) -> Self {
        let address = (server.address.host(), server.port());
        let tcp = TcpStream::connect(address).await.unwrap();
        let mut client = Self {
            stream: secure(tcp, identity, ALPN_RENDEZVOUS).await.unwrap(),
            decoder: Decoder::new(FrameKind::Server),
        };
        let log_in = ClientMessage::LogIn {
            version: PROTOCOL_VERSION,
            name: name.parse().unwrap(),
            watch: Vec::new(),
            recovery: None,
        };
        client.say(&log_in).await;
        let first = client.hear().await;
        let logged_in = matches!(first, ServerMessage::LoggedIn { .. });
        assert!(logged_in, "{first:?}");
        client
    }

    async fn say(&mut self, message: &ClientMessage) {
        let frame = encode(FrameKind::Client, message).unwrap();
        self.stream.write_all(&frame).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Asks for `peer`, to which it names the address `own`, and returns where
    /// the peer may be reached.
    async fn introduce(&mut self, peer: PeerName, own: SocketAddr) -> Vec<SocketAddr> {
        let candidate = Candidate {
            kind: CandidateKind::Host,
            address: own,
        };
        let reachability = Reachability {
            candidates: vec![candidate],
            share_host: HostSharing::SameNetwork,
            relay: false,
        };
        self.invite(SESSION, peer, reachability).await.0
    }

    /// As `introduce`, to meet at the relay: returns the token.
    async fn introduce_at_relay(&mut self, id: IntroductionId, peer: PeerName) -> RelayToken {
        let reachability = Reachability {
            candidates: Vec::new(),
            share_host: HostSharing::SameNetwork,
            relay: true,
        };
        self.invite(id, peer, reachability)
            .await
            .1
            .expect("a relay")
    }

    async fn invite(
        &mut self,
        introduction: IntroductionId,
        peer: PeerName,
        reachability: Reachability,
    ) -> (Vec<SocketAddr>, Option<RelayToken>) {
        let introduce = ClientMessage::Introduce {
            introduction,
            round: 1,
            peer,
            reachability,
            credential: None,
        };
        self.say(&introduce).await;
        loop {
            if let ServerMessage::Introduced {
                candidates, relay, ..
            } = self.hear().await
            {
                let addresses = candidates.iter().map(|c| c.address).collect();
                return (addresses, relay);
            }
        }
    }

    async fn hear(&mut self) -> ServerMessage {
        let mut bytes = [0; 4096];
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return message;
            }
            let count = self.stream.read(&mut bytes).await.unwrap();
            assert_ne!(count, 0, "the server hung up");
            self.decoder.feed(&bytes[..count]);
        }
    }
}

async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
    tcp: S,
    identity: &Identity,
    alpn: &[u8],
) -> std::io::Result<TlsStream<S>> {
    let config = tls::client_config(identity, Expect::AnyKey, alpn).unwrap();
    let connector = TlsConnector::from(Arc::clone(&config));
    connector.connect(tls::server_name(), tcp).await
}

/// The peer's own TLS at the relay.
type Relayed = TlsStream<TcpStream>;

/// Meets the peer at the relay, and proves its key there.
async fn meet_at_relay(server: &Server, identity: &Identity, token: RelayToken) -> Relayed {
    let address = (server.address.host(), server.port());
    let tcp = TcpStream::connect(address).await.unwrap();
    let mut relay = secure(tcp, identity, ALPN_RENDEZVOUS).await.unwrap();
    let message = ClientMessage::Relay { token };
    let frame = encode(FrameKind::Client, &message).unwrap();
    relay.write_all(&frame).await.unwrap();
    relay.get_mut().1.send_close_notify();
    relay.flush().await.unwrap();
    let paired = encode(FrameKind::Server, &ServerMessage::RelayPaired).unwrap();
    let mut heard = vec![0; paired.len()];
    relay.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, paired);
    // The peer waits for this side to speak first.
    assert_eq!(relay.read(&mut [0]).await.unwrap(), 0, "TLS is over");
    secure(relay.into_inner().0, identity, ALPN_PEER)
        .await
        .unwrap()
}

async fn say_hello(
    stream: &mut (impl AsyncWrite + Unpin),
    purpose: Purpose,
    path: PathKind,
    session: IntroductionId,
) {
    let hello = Hello {
        purpose,
        path,
        session,
    };
    stream.write_all(&hello.encode()).await.unwrap();
    stream.flush().await.unwrap();
}

/// Connects as soon as the port listens.
async fn dial(address: SocketAddr) -> TcpStream {
    let dialling = async {
        loop {
            match TcpStream::connect(address).await {
                Ok(stream) => return stream,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    timeout(PATIENCE, dialling).await.expect("nobody listens")
}

/// Whether the other end hangs up without having said anything but alerts.
async fn is_sent_away(mut stream: impl AsyncRead + Unpin) -> bool {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    read.expect("still connected").is_err() || bytes.is_empty()
}

#[tokio::test]
async fn strangers_on_the_punch_port_neither_get_in_nor_keep_the_peer_out() {
    let server = Server::start();
    let mut bob = Client::new(&server, "bob").await;
    let (bob_name, connector) = (bob.name(), bob.connector.clone());
    let alice = identity();
    let mut raw = RawClient::log_in(&server, "alice", &alice).await;
    let accepting = tokio::spawn(async move {
        let invitation = bob.invitation().await;
        connector
            .accept(invitation, HostSharing::SameNetwork, PathPolicy::Auto)
            .await
    });
    // Bob dials this in vain: nobody listens there.
    let own = LocalPort::bind("127.0.0.1:0".parse().unwrap(), AddressReuse::On).unwrap();
    let bob_at = raw.introduce(bob_name, own.address()).await;

    let silent = dial(bob_at[0]).await;
    let mut garbage = dial(bob_at[0]).await;
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut alert = Vec::new();
    let read = timeout(PATIENCE, garbage.read_to_end(&mut alert)).await;
    drop(read.expect("garbage is listened to"));
    // In TLS 1.3 the client is done before the server has seen its key.
    let mallory = secure(dial(bob_at[0]).await, &identity(), ALPN_PEER).await;
    if let Ok(mallory) = mallory {
        assert!(is_sent_away(mallory).await);
    }
    assert!(!accepting.is_finished());

    let mut other = secure(dial(bob_at[0]).await, &alice, ALPN_PEER)
        .await
        .unwrap();
    let others = IntroductionId::from_random([1; 16]);
    say_hello(&mut other, Purpose::Begin, PathKind::Lan, others).await;
    assert!(is_sent_away(other).await, "a session of another name");

    let mut ours = secure(dial(bob_at[0]).await, &alice, ALPN_PEER)
        .await
        .unwrap();
    assert!(!accepting.is_finished(), "the right key is not enough");
    say_hello(&mut ours, Purpose::Begin, PathKind::Relay, SESSION).await;
    let accepted = timeout(PATIENCE, accepting).await.unwrap().unwrap();
    let session = begun(accepted.unwrap());
    assert_eq!(session.peer.key, alice.key());
    assert_eq!(session.path, PathKind::Lan);
    let accepted = session
        .report
        .tried
        .iter()
        .filter(|t| matches!(t.way, PathAttempt::Accepted(_)));
    let answers: Vec<&Answer> = accepted.map(|tried| &tried.answer).collect();
    assert_eq!(answers.len(), 5, "{}", session.report);
    assert_eq!(answers[0], &Answer::Connected);
    assert!(matches!(answers[1], Answer::Lost(_)), "{}", answers[1]);
    assert_eq!(answers[2], &Answer::Stranger);
    assert!(matches!(answers[3], Answer::Lost(_)), "{}", answers[3]);
    assert_eq!(answers[4], &Answer::Selected);
    drop(silent);
}

/// Nobody who tells a wrong name or path has it shown, or takes another's session.
/// Waits until somebody is introduced to `bob`, who begins to accept over the relay.
async fn accepting_over_relay<T>(
    introducing: impl Future<Output = T>,
    bob: &mut Client,
) -> (T, JoinHandle<Result<Accepted, ConnectError>>) {
    let mut introducing = Box::pin(introducing);
    let invitation = tokio::select! {
        invitation = bob.invitation() => invitation,
        _ = &mut introducing => panic!("introduced before bob was asked"),
    };
    let connector = bob.connector.clone();
    let accepting = tokio::spawn(async move {
        let sharing = HostSharing::SameNetwork;
        let accepted = connector.accept(invitation, sharing, PathPolicy::RelayOnly);
        accepted.await
    });
    (introducing.await, accepting)
}

#[tokio::test]
async fn a_session_keeps_its_owner_and_shows_the_path_that_it_takes() {
    let server = Server::start();
    let mut bob = Client::new(&server, "bob").await;
    let (alice, mallory) = (identity(), identity());
    let mut sessions = Vec::new();
    // The id of alice's session is no secret from bob, and mallory may know it, too.
    for (name, key) in [("alice", &alice), ("mallory", &mallory)] {
        let mut raw = RawClient::log_in(&server, name, key).await;
        let introducing = raw.introduce_at_relay(SESSION, bob.name());
        let (token, accepting) = accepting_over_relay(introducing, &mut bob).await;
        let mut stream = meet_at_relay(&server, key, token).await;
        say_hello(&mut stream, Purpose::Begin, PathKind::Lan, SESSION).await;
        let session = begun(
            timeout(PATIENCE, accepting)
                .await
                .unwrap()
                .unwrap()
                .unwrap(),
        );
        assert_eq!(session.path, PathKind::Relay);
        assert_eq!(session.handle.path().borrow().kind, PathKind::Relay);
        sessions.push((session, stream, raw));
    }
    // Alice moves hers, and says again what is not so.
    let (at_bob, _, mut raw) = sessions.remove(0);
    let next = IntroductionId::from_random([8; 16]);
    let introducing = raw.introduce_at_relay(next, bob.name());
    let (token, accepting) = accepting_over_relay(introducing, &mut bob).await;
    let mut moved = meet_at_relay(&server, &alice, token).await;
    say_hello(&mut moved, Purpose::Continue, PathKind::Lan, SESSION).await;
    let ready = timeout(PATIENCE, moved.read_u8()).await.expect("no answer");
    assert_eq!(ready.unwrap(), Hello::READY);
    let accepted = timeout(PATIENCE, accepting).await.unwrap().unwrap();
    assert!(matches!(accepted.unwrap(), Accepted::Migrated));
    assert_eq!(at_bob.peer.key, alice.key());
    assert_eq!(at_bob.handle.path().borrow().kind, PathKind::Relay);
}

#[tokio::test]
async fn who_allows_only_the_relay_is_not_given_away_by_the_server_either() {
    let server = Server::start();
    let bob = identity();
    let mut raw = RawClient::log_in(&server, "bob", &bob).await;
    let alice = Client::with_path(&server, "alice", PathPolicy::RelayOnly).await;
    let inviting = alice.connector.connect(
        "bob".parse().unwrap(),
        bob.key(),
        // The most that she could allow.
        HostSharing::Always,
        None,
    );
    let listening = async {
        let mut heard = Vec::new();
        loop {
            let message = raw.hear().await;
            heard.push(format!("{message:?}"));
            match message {
                ServerMessage::Invitation {
                    introduction,
                    round,
                    ..
                } => {
                    let reachability = Reachability {
                        candidates: Vec::new(),
                        share_host: HostSharing::Always,
                        relay: true,
                    };
                    let answer = ClientMessage::Answer {
                        introduction,
                        round,
                        reachability,
                    };
                    raw.say(&answer).await;
                }
                ServerMessage::Introduced { candidates, .. } => {
                    assert_eq!(candidates, []);
                    return heard;
                }
                _ => {}
            }
        }
    };
    let heard = tokio::select! {
        heard = timeout(PATIENCE, listening) => heard.expect("not introduced"),
        session = inviting => panic!("{:?}", session.map(|_| ())),
    };
    let address = alice.logged_in.observed.ip().to_string();
    assert!(heard.len() > 1);
    for message in heard {
        assert!(!message.contains(&address), "{message}");
    }
}
