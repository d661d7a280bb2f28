//! Two nodes of one server. Each has a table of names of its own here, because what they
//! tell each other does not depend on it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::rendezvous::{
    ClientMessage, IntroductionFailure, NodeId, PeerIdentity, Refusal, RelayToken, Role,
    ServerMessage,
};
use pinhole_proto::tls::Identity;
use pinhole_server::{
    Control, DataDir, KnownNode, NodeConfig, ServeError, ServerConfig, listener, serve,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::PATIENCE;
use super::client::{Client, identity, introduction, relay_only};
use super::codes::{found, opened, show_each_other_credentials};

struct Node {
    address: SocketAddr,
    controls: mpsc::Sender<Control>,
    running: JoinHandle<Result<(), ServeError>>,
    _dir: TempDir,
}

impl Node {
    async fn stop(self) {
        self.controls.send(Control::Stop).await.unwrap();
        timeout(PATIENCE, self.running)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    /// Ends it without a word, as a crash does.
    fn kill(self) {
        self.running.abort();
    }
}

/// Nodes that know each other. Returns as well what would tell them of others.
async fn nodes(count: u8) -> (Vec<Node>, watch::Sender<Vec<KnownNode>>) {
    let (tell, known) = watch::channel(Vec::new());
    let dirs: Vec<_> = (0..count).map(|_| tempfile::tempdir().unwrap()).collect();
    // The key is the server's, the same for all its nodes.
    drop(DataDir::open(dirs[0].path()).unwrap());
    let mut nodes = Vec::new();
    let mut all = Vec::new();
    for (number, dir) in (1..).zip(dirs) {
        if number > 1 {
            copy_key(nodes.first().unwrap(), dir.path());
        }
        let id = NodeId::from_random([number; 16]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        all.push(KnownNode { id, address });
        let node = NodeConfig {
            id,
            listener,
            relay_addresses: Vec::new(),
            known: known.clone(),
        };
        nodes.push(start(dir, node));
    }
    tell.send_replace(all);
    (nodes, tell)
}

fn copy_key(of: &Node, to: &Path) {
    let missing = pinhole_server::Missing::StartAfresh;
    fs::copy(of._dir.path().join("server.key"), to.join("server.key")).unwrap();
    drop(DataDir::open_with(to, missing).unwrap());
}

fn start(dir: TempDir, node: NodeConfig) -> Node {
    let data_dir = DataDir::open(dir.path()).unwrap();
    let listeners = listener::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let address = listeners[0].local_addr().unwrap();
    let config = ServerConfig {
        node: Some(node),
        ..ServerConfig::default()
    };
    let (control, controls) = mpsc::channel(1);
    Node {
        address,
        controls: control,
        running: tokio::spawn(serve(listeners, data_dir, config, controls)),
        _dir: dir,
    }
}

fn name(text: &str) -> PeerName {
    text.parse().unwrap()
}

fn bob(key: PeerKey) -> PeerIdentity {
    PeerIdentity {
        name: name("bob"),
        key,
    }
}

/// Waits until the client is told that bob is online or is not.
async fn sees_bob(client: &mut Client, expected: Option<PeerKey>) {
    loop {
        let (online, offline) = client.hear_presence().await;
        let found = match expected {
            Some(key) => online.contains(&bob(key)),
            None => offline.contains(&name("bob")),
        };
        if found {
            return;
        }
    }
}

/// alice at the first node and bob at the second, who see each other.
async fn alice_and_bob(nodes: &[Node], alice: &Identity, bob: &Identity) -> [Client; 2] {
    let mut a = Client::log_in(nodes[0].address, alice, "alice").await;
    let b = Client::log_in(nodes[1].address, bob, "bob").await;
    sees_bob(&mut a, Some(bob.key())).await;
    [a, b]
}

fn introduce(number: u8) -> ClientMessage {
    ClientMessage::Introduce {
        introduction: introduction(number),
        round: 1,
        peer: name("bob"),
        reachability: relay_only(),
        credential: None,
    }
}

fn answer(number: u8) -> ClientMessage {
    ClientMessage::Answer {
        introduction: introduction(number),
        round: 1,
        reachability: relay_only(),
    }
}

/// What one side of an introduction learns.
async fn introduced(client: &mut Client) -> (PeerIdentity, Role, RelayToken, Vec<SocketAddr>) {
    match client.hear().await {
        ServerMessage::Introduced {
            peer,
            role,
            relay: Some(token),
            relay_addresses,
            ..
        } => (peer, role, token, relay_addresses),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn people_of_two_nodes_are_introduced_and_relayed_by_the_inviter_s() {
    let (nodes, _tell) = nodes(2).await;
    let (alice, bob) = (identity(), identity());
    let [mut a, mut b] = alice_and_bob(&nodes, &alice, &bob).await;
    a.say(&introduce(1)).await;
    let ServerMessage::Invitation { from, .. } = b.hear().await else {
        panic!("bob is not invited");
    };
    assert_eq!((from.name, from.key), (name("alice"), alice.key()));
    b.say(&answer(1)).await;
    let (of_bob, role, a_token, nowhere_else) = introduced(&mut a).await;
    assert_eq!((of_bob.key, role), (bob.key(), Role::Controlling));
    let (of_alice, role, b_token, relay_addresses) = introduced(&mut b).await;
    assert_eq!((of_alice.key, role), (alice.key(), Role::Controlled));
    assert_eq!((a_token, nowhere_else), (b_token, Vec::new()));
    assert_eq!(relay_addresses, [nodes[0].address]);

    let relay = ClientMessage::Relay { token: a_token };
    let a = Client::begin(nodes[0].address, &alice, &relay).await;
    let b = Client::begin(relay_addresses[0], &bob, &relay).await;
    let (mut a, mut b) = (a.meet().await, b.meet().await);
    a.write_all(b"across").await.unwrap();
    let mut heard = [0; 6];
    b.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"across");
}

#[tokio::test]
async fn a_code_leads_to_another_node_until_its_owner_has_gone() {
    let (nodes, _tell) = nodes(2).await;
    let (alice, bob) = (identity(), identity());
    let [mut a, mut b] = alice_and_bob(&nodes, &alice, &bob).await;
    let number = opened(&mut b).await;
    // Nodes tell each other of changes in their order.
    let carol = identity();
    let at_the_second = Client::log_in(nodes[1].address, &carol, "carol").await;
    loop {
        let (online, _) = a.hear_presence().await;
        if online.iter().any(|it| it.key == carol.key()) {
            break;
        }
    }
    assert_eq!(found(&mut a, number).await, Some(self::bob(bob.key())));
    assert_eq!(found(&mut b, number).await, None, "nobody finds himself");
    show_each_other_credentials(&mut a, &mut b).await;
    drop(b);
    sees_bob(&mut a, None).await;
    assert_eq!(found(&mut a, number).await, None);
    drop(at_the_second);
}

#[tokio::test]
async fn the_newest_login_of_a_key_ends_the_one_at_another_node() {
    let (nodes, _tell) = nodes(2).await;
    let (alice, bob) = (identity(), identity());
    let [mut a, mut b] = alice_and_bob(&nodes, &alice, &bob).await;
    let mut newer = Client::log_in(nodes[0].address, &bob, "bob").await;
    assert_eq!(b.refusal().await, Refusal::Replaced);
    a.say(&introduce(1)).await;
    let invited = newer.hear().await;
    assert!(
        matches!(invited, ServerMessage::Invitation { .. }),
        "{invited:?}"
    );
}

#[tokio::test]
async fn the_people_of_a_node_that_dies_are_gone_within_seconds() {
    const BOUND: Duration = Duration::from_secs(5);
    let (mut nodes, _tell) = nodes(3).await;
    let (alice, bob) = (identity(), identity());
    let [mut a, _b] = alice_and_bob(&nodes, &alice, &bob).await;
    let begin = Instant::now();
    nodes.remove(1).kill();
    sees_bob(&mut a, None).await;
    let passed = begin.elapsed();
    assert!(passed < BOUND, "{passed:?}");
    a.say(&introduce(1)).await;
    let failed = ServerMessage::IntroductionFailed {
        introduction: introduction(1),
        reason: IntroductionFailure::Offline,
        credential: None,
    };
    assert_eq!(a.hear().await, failed);
}

#[tokio::test]
async fn nobody_but_a_node_links_to_a_node() {
    let (nodes, tell) = nodes(1).await;
    let at = tell.borrow()[0].address;
    // Somebody with another key, and somebody who says nothing of TLS at all.
    let (other, first) = (identity(), introduce(1));
    let refused = Client::try_begin_from([127, 0, 0, 1], at, &other, &first).await;
    assert!(refused.is_none());
    let mut stranger = tokio::net::TcpStream::connect(at).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, stranger.read_to_end(&mut rest))
        .await
        .unwrap();
    // TLS answers with an alert at most.
    assert!(ended.is_err() || rest.len() < 16, "{rest:?}");
    nodes.into_iter().next().unwrap().stop().await;
}
