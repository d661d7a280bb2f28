//! Several nodes of one server on one PostgreSQL: the real programs, people on each node,
//! nodes that are killed, and a database that is away.

#![cfg(target_os = "linux")]
#![allow(clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use pinhole_tests::postgres::Postgres;
use pinhole_tests::process::{EndedProcess, Process, binary};
use pinhole_tests::scene::{Peer, SOON, Scene};
use pinhole_tests::wire::Wire;

/// How long the people of a node that dies may take to be back elsewhere.
const BACK: Duration = Duration::from_secs(5);
/// The pause before somebody logs in once more.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a node is cut off from the database.
const CUT: Duration = Duration::from_secs(20);

/// A further node of the server of a scene, with a folder of its own.
struct Node {
    address: String,
    process: Process,
}

/// A scene whose server keeps its names in a database.
fn scene(url: &str, more: &[&str]) -> Scene {
    Scene::with_server(&[&["--database", url], more].concat())
}

/// Starts another node of the scene's server.
fn another(scene: &Scene, url: &str, more: &[&str]) -> Node {
    let folder = (2..)
        .map(|number| scene.folder.path().join(format!("node-{number}")))
        .find(|folder| !folder.exists())
        .expect("a free name");
    fs::create_dir(&folder).expect("a folder");
    let key = scene.server_data_dir().join("server.key");
    fs::copy(key, folder.join("server.key")).expect("the key of the server");
    let mut command = Command::new(binary("pinhole-server"));
    command.args(["--json", "--listen", "127.0.0.1:0", "--database", url]);
    command.arg("--data-dir").arg(folder).args(more);
    let mut process = Process::start("node", command);
    let listening = process.event("listening", SOON);
    let address = listening["addresses"][0].as_str().expect("an address");
    let fingerprint = listening["fingerprint"].as_str().expect("a fingerprint");
    let address = format!("{address}#{fingerprint}");
    let (_, same) = scene.server_address.split_once('#').expect("a fingerprint");
    assert_eq!(fingerprint, same);
    Node { address, process }
}

/// Somebody who uses this node.
fn peer_at(scene: &Scene, node: &str, name: &str) -> Peer<'static> {
    let mut peer = scene.peer(name);
    node.clone_into(&mut peer.server_address);
    peer
}

/// Both places in one address.
fn either(first: &str, second: &str) -> String {
    let (place, _) = first.split_once('#').expect("a fingerprint");
    format!("{place},{second}")
}

fn sees(sender: &Peer<'_>, name: &str) -> bool {
    let ended = sender.start(&["peers", name]).end(SOON);
    ended
        .events
        .iter()
        .any(|it| it["event"] == "peer" && it["name"] == name)
}

/// Nodes find each other within seconds of their start.
fn until_linked(sender: &Peer<'_>, name: &str) {
    let begin = Instant::now();
    while !sees(sender, name) {
        assert!(begin.elapsed() < SOON, "{name} is not seen");
        // A key may not log in all the time.
        thread::sleep(AGAIN);
    }
}

fn delivered(sent: &EndedProcess, receiver: &Peer<'_>, file: &str, content: &[u8]) {
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    let received = fs::read(receiver.inbox.join(file)).expect("the file");
    assert!(received == content, "other bytes have arrived");
}

#[test]
fn people_of_three_nodes_send_to_each_other_directly_and_by_relay() {
    let postgres = Postgres::start();
    let url = postgres.database("pinhole");
    let scene = scene(&url, &[]);
    let nodes = [another(&scene, &url, &[]), another(&scene, &url, &[])];
    let people = [
        scene.peer("alice"),
        peer_at(&scene, &nodes[0].address, "bob"),
        peer_at(&scene, &nodes[1].address, "carol"),
    ];
    for (receiver, number) in people.iter().zip(0..) {
        let _receiving = receiver.receive(&[]);
        for sender in people.iter().filter(|it| it.name != receiver.name) {
            until_linked(sender, &receiver.name);
            for path in ["direct", "relay"] {
                let name = format!("{}-{path}-{number}", sender.name);
                let content = name.repeat(10_000).into_bytes();
                let file = scene.file(&name, &content);
                let file = file.to_str().expect("a path in UTF-8");
                let sending = sender.start(&["send", "--path", path, &receiver.name, file]);
                delivered(&sending.end(SOON), receiver, &name, &content);
            }
        }
    }
}

#[test]
fn the_people_of_a_killed_node_are_back_elsewhere_within_seconds() {
    let postgres = Postgres::start();
    let url = postgres.database("pinhole");
    let mut scene = scene(&url, &[]);
    let node = another(&scene, &url, &[]);
    let bob = peer_at(&scene, &either(&scene.server_address, &node.address), "bob");
    let alice = peer_at(&scene, &node.address, "alice");
    let mut receiving = bob.receive(&[]);
    until_linked(&alice, "bob");
    let begin = Instant::now();
    scene.kill_server();
    receiving.event("logged_in", SOON);
    let passed = begin.elapsed();
    println!("back after {passed:?}");
    assert!(passed < BACK, "{passed:?}");
    let file = scene.file("file", b"after the node has gone");
    let sent = alice.send("bob", &[&file]).end(SOON);
    delivered(&sent, &bob, "file", b"after the node has gone");
}

#[test]
fn without_the_database_a_relayed_transfer_goes_on_and_new_names_wait() {
    let mut postgres = Postgres::start();
    let url = postgres.database("pinhole");
    let scene = scene(&url, &["--relay-rate", "2M"]);
    let node = another(&scene, &url, &["--relay-rate", "2M"]);
    let (alice, bob) = (scene.peer("alice"), peer_at(&scene, &node.address, "bob"));
    let _receiving = bob.receive(&[]);
    until_linked(&alice, "bob");
    let content = vec![7; 12_000_000];
    let file = scene.file("video", &content);
    let file = file.to_str().expect("a path in UTF-8");
    let mut sending = alice.start(&["send", "--path", "relay", "bob", file]);
    sending.event("progress", SOON);
    postgres.stop();
    let newcomer = scene.peer("newcomer");
    let refused = newcomer.start(&["peers"]).end(SOON);
    assert_ne!(refused.code, Some(0), "{refused:#?}");
    delivered(&sending.end(SOON), &bob, "video", &content);
    postgres.restart();
    let begin = Instant::now();
    while newcomer.start(&["peers"]).end(SOON).code != Some(0) {
        assert!(begin.elapsed() < SOON, "no new names");
        thread::sleep(AGAIN);
    }
    assert!(sees(&newcomer, "bob"));
}

#[test]
fn a_node_cut_off_from_the_database_gives_no_name_to_another_key() {
    let postgres = Postgres::start();
    let url = postgres.database("pinhole");
    let scene = scene(&url, &[]);
    let wire = Wire::to(&format!("127.0.0.1:{}", postgres.port()));
    let through_wire = url.replace(
        &postgres.port().to_string(),
        &wire.address().port().to_string(),
    );
    let node = another(&scene, &through_wire, &[]);
    let bob = peer_at(&scene, &node.address, "bob");
    let _receiving = bob.receive(&[]);
    until_linked(&scene.peer("watcher"), "bob");
    let begin = Instant::now();
    wire.down();
    let first = scene.peer("erin");
    assert_eq!(first.start(&["peers"]).end(SOON).code, Some(0));
    let mut attempts = 0;
    while begin.elapsed() < CUT {
        // The same name under another key, at the node that does not know of it.
        let mut second = peer_at(&scene, &node.address, "second");
        second.name = "erin".to_owned();
        let refused = second.start(&["peers"]).end(SOON);
        assert_ne!(refused.code, Some(0), "{refused:#?}");
        attempts += 1;
        thread::sleep(AGAIN);
    }
    assert!(attempts > 0);
    assert!(
        sees(&first, "bob"),
        "who was logged in there is there still"
    );
    wire.up();
    let begin = Instant::now();
    let late = peer_at(&scene, &node.address, "frank");
    while late.start(&["peers"]).end(SOON).code != Some(0) {
        assert!(begin.elapsed() < SOON, "no new names");
        thread::sleep(AGAIN);
    }
    let mut second = peer_at(&scene, &node.address, "second");
    second.name = "erin".to_owned();
    let taken = second.start(&["peers"]).end(SOON);
    assert_ne!(taken.code, Some(0), "{taken:#?}");
    drop(node.process);
}
