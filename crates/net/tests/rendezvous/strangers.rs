//! A punch port that everybody may connect to, and who is let in.

use std::net::SocketAddr;
use std::sync::Arc;

use pinhole_net::socket::{AddressReuse, LocalPort};
use pinhole_net::{Answer, Expect, HostSharing, Identity, PathKind, PathPolicy, PeerName, Way};
use pinhole_proto::candidate::{Candidate, CandidateKind};
use pinhole_proto::frame::{Decoder, FrameKind, encode};
use pinhole_proto::hello::{Hello, Purpose};
use pinhole_proto::rendezvous::{
    ClientMessage, IntroductionId, PROTOCOL_VERSION, Reachability, ServerMessage,
};
use pinhole_proto::tls::{self, ALPN_PEER, ALPN_RENDEZVOUS};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::scene::{Client, PATIENCE, Server, begun, identity};

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
        let introduce = ClientMessage::Introduce {
            introduction: IntroductionId::from_random([7; 16]),
            round: 1,
            peer,
            reachability: Reachability {
                candidates: vec![candidate],
                share_host: HostSharing::SameNetwork,
                relay: false,
            },
        };
        self.say(&introduce).await;
        loop {
            if let ServerMessage::Introduced { candidates, .. } = self.hear().await {
                return candidates.iter().map(|c| c.address).collect();
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

async fn secure(
    tcp: TcpStream,
    identity: &Identity,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let config = tls::client_config(identity, Expect::AnyKey, alpn).unwrap();
    let connector = TlsConnector::from(Arc::clone(&config));
    connector.connect(tls::server_name(), tcp).await
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
    let (bob_name, rendezvous) = (bob.name(), bob.rendezvous.clone());
    let alice = identity();
    let mut raw = RawClient::log_in(&server, "alice", &alice).await;
    let accepting = tokio::spawn(async move {
        let invitation = bob.invitation().await;
        rendezvous
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

    let mut ours = secure(dial(bob_at[0]).await, &alice, ALPN_PEER)
        .await
        .unwrap();
    assert!(!accepting.is_finished(), "the right key is not enough");
    let hello = Hello {
        purpose: Purpose::Begin,
        path: PathKind::Lan,
        session: IntroductionId::from_random([1; 16]),
    };
    ours.write_all(&hello.encode()).await.unwrap();
    let accepted = timeout(PATIENCE, accepting).await.unwrap().unwrap();
    let session = begun(accepted.unwrap());
    assert_eq!(session.peer.key, alice.key());
    assert_eq!(session.path, PathKind::Lan);
    let accepted = session
        .report
        .tried
        .iter()
        .filter(|t| matches!(t.way, Way::Accepted(_)));
    let answers: Vec<&Answer> = accepted.map(|tried| &tried.answer).collect();
    assert_eq!(answers.len(), 4, "{}", session.report);
    assert_eq!(answers[0], &Answer::Connected);
    assert!(matches!(answers[1], Answer::Lost(_)), "{}", answers[1]);
    assert_eq!(answers[2], &Answer::Stranger);
    assert_eq!(answers[3], &Answer::Selected);
    drop(silent);
}

#[tokio::test]
async fn who_allows_only_the_relay_is_not_given_away_by_the_server_either() {
    let server = Server::start();
    let bob = identity();
    let mut raw = RawClient::log_in(&server, "bob", &bob).await;
    let alice = Client::with_path(&server, "alice", PathPolicy::RelayOnly).await;
    let inviting = alice.rendezvous.connect(
        "bob".parse().unwrap(),
        bob.key(),
        // The most that she could allow.
        HostSharing::Always,
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
