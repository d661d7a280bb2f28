//! The real binaries on one LAN, with and without a server.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use pinhole_net::PeerKey;
use pinhole_tests::lab::{self, Host, Lab, Plan, Router};
use pinhole_tests::process::{EndedProcess, Process, binary};
use pinhole_tests::scene::{SOON, Scene};
use pinhole_tests::tree;
use serde_json::Value;

/// RFC 6762, section 6, and a little.
const ANSWERED_AGAIN_AFTER: Duration = Duration::from_millis(1_200);

fn one_lan() -> Option<Lab> {
    one_lan_far_away(Duration::from_millis(25))
}

/// With the server this far away.
fn one_lan_far_away(delay: Duration) -> Option<Lab> {
    lab::build_or_skip(Plan::one_lan(Router::HOME).delayed(delay))
}

/// A profile on a host of the LAN.
struct Person<'a> {
    lab: &'a Lab,
    host: Host,
    name: &'static str,
    profile: PathBuf,
    inbox: PathBuf,
    server: Option<String>,
}

impl<'a> Person<'a> {
    /// `who` names the profile; several may go by one name.
    fn new(lab: &'a Lab, host: Host, name: &'static str, folder: &Path, who: &str) -> Self {
        let inbox = folder.join(format!("{who}-inbox"));
        fs::create_dir_all(&inbox).expect("an inbox");
        Self {
            lab,
            host,
            name,
            profile: folder.join(format!("{who}-profile")),
            inbox,
            server: None,
        }
    }

    fn at(self, scene: &Scene) -> Self {
        let server = Some(scene.server_address.clone());
        Self { server, ..self }
    }

    fn start(&self, arguments: &[&str]) -> Process {
        let mut command = self.lab.command(self.host, &binary("pinhole"));
        command.args(["--json", "--name", self.name]);
        command.arg("--data-dir").arg(&self.profile);
        if let Some(server) = &self.server {
            command.args(["--server", server]);
        }
        Process::start(self.name, {
            command.args(arguments);
            command
        })
    }

    /// Takes everything; can be found when this returns.
    fn receive(&self) -> (Process, Value) {
        let inbox = self.inbox.to_str().expect("UTF-8");
        let mut process = self.start(&["receive", "--accept", "all", "--into", inbox]);
        let nearby = process.event("nearby", SOON);
        (process, nearby)
    }

    fn send(&self, to: &str, file: &Path) -> EndedProcess {
        let file = file.to_str().expect("UTF-8");
        self.start(&["send", to, file]).end(SOON)
    }

    fn id(&self) -> (String, String) {
        let ended = self.start(&["id"]).end(SOON);
        let id = ended.event("id");
        let text = |field: &str| id[field].as_str().expect("text").to_owned();
        (text("key"), text("fingerprint"))
    }

    fn received(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.inbox).expect("an inbox");
        let name = |entry: std::io::Result<fs::DirEntry>| {
            let name = entry.expect("an entry").file_name();
            name.to_str().expect("UTF-8").to_owned()
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }
}

/// Somebody who announces another's key at a port of the host.
struct Forger(Child, BufReader<ChildStdout>);

impl Forger {
    fn start(
        lab: &Lab,
        host: Host,
        name: &str,
        (key, print): &(String, String),
        port: u64,
    ) -> Self {
        let mut command = lab.command(host, &binary("announce"));
        command.args([name, key, print, &port.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a forger");
        let mut ready = String::new();
        let stdout = child.stdout.take().expect("piped");
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut ready).expect("a line");
        assert_eq!(ready, "ready\n");
        Self(child, stdout)
    }

    /// How often it was taken for somebody else.
    fn connections(mut self) -> usize {
        let _ = self.0.kill();
        self.1.by_ref().lines().count()
    }
}

impl Drop for Forger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn file(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, format!("content of {name}")).expect("a file");
    path
}

/// Waits until `peers` of this person lists so many of that name.
fn sees(person: &Person<'_>, name: &str, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + SOON;
    loop {
        let ended = person.start(&["peers"]).end(SOON);
        let is_it = |event: &&Value| event["event"] == "peer" && event["name"] == name;
        let seen: Vec<Value> = ended.events.iter().filter(is_it).cloned().collect();
        if seen.len() == count {
            return seen;
        }
        assert!(Instant::now() < deadline, "{count} of {name}: {ended:#?}");
    }
}

#[test]
fn two_send_to_each_other_with_no_server_at_all() {
    let Some(lab) = one_lan() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let alice = Person::new(&lab, Host::A, "alice", folder.path(), "alice");
    let bob = Person::new(&lab, Host::B, "bob", folder.path(), "bob");
    let (receiving, _) = bob.receive();
    let begun = Instant::now();
    let sent = alice.send("bob", &file(folder.path(), "one"));
    eprintln!("found and sent in {:?}", begun.elapsed());
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(sent.event("connected")["path"], "lan");
    assert_eq!(sent.event("nearby_only")["reason"], Value::Null);
    assert_eq!(bob.received(), ["one"]);
    let peers = sees(&alice, "bob", 1);
    let flags = ["nearby", "claimed", "contact"].map(|flag| peers[0][flag] == true);
    assert_eq!(
        flags,
        [true, false, true],
        "an offer went through: {peers:#?}"
    );
    let text = alice.start(&["send", "bob", "--text", "words"]).end(SOON);
    assert_eq!(text.code, Some(0), "{text:#?}");

    // Whoever leaves in good order is gone at once.
    receiving.interrupt();
    assert_eq!(receiving.end(SOON).code, Some(130));
    let begun = Instant::now();
    let absent = alice.send("bob", &file(folder.path(), "two"));
    assert_eq!(absent.code, Some(4), "{absent:#?}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{absent:#?}");
}

#[test]
fn who_plugs_in_later_is_found() {
    let Some(lab) = one_lan() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let alice = Person::new(&lab, Host::A, "alice", folder.path(), "alice");
    let bob = Person::new(&lab, Host::B, "bob", folder.path(), "bob");
    let plug = |state: &str| {
        let mut ip = lab.command(Host::B, "ip".as_ref());
        let status = ip.args(["link", "set", "eth0", state]).status();
        assert!(status.expect("ip").success());
    };
    plug("down");
    let _receiving = bob.receive();
    let path = file(folder.path(), "one");
    let mut sending = alice.start(&["send", "--wait", "bob", path.to_str().expect("UTF-8")]);
    sending.event("nearby", SOON);
    plug("up");
    let begun = Instant::now();
    let sent = sending.end(SOON);
    eprintln!("found {:?} after plugging in", begun.elapsed());
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(bob.received(), ["one"]);
}

#[test]
fn it_goes_on_without_a_server_after_a_kill() {
    let Some(lab) = one_lan() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let alice = Person::new(&lab, Host::A, "alice", folder.path(), "alice");
    let bob = Person::new(&lab, Host::B, "bob", folder.path(), "bob");
    let large = folder.path().join("large");
    tree::write_file(&large, 64 << 20, 7).expect("a file");
    let (mut receiving, _) = bob.receive();
    let path = large.to_str().expect("UTF-8");
    let mut sending = alice.start(&["send", "bob", "--limit", "16M", path]);
    loop {
        let progress = sending.event("progress", SOON);
        if progress["bytes"].as_u64().expect("bytes") > 8 << 20 {
            break;
        }
    }
    receiving.kill();
    sending.event("reconnecting", SOON);
    let _receiving = bob.receive();
    let sent = sending.end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(bob.received(), ["large"]);
    assert_eq!(
        fs::read(bob.inbox.join("large")).expect("the file"),
        fs::read(&large).expect("the file")
    );
}

#[test]
fn a_dead_server_does_not_part_those_who_are_near() {
    let Some(lab) = one_lan() else { return };
    let mut scene = Scene::in_lab(&lab);
    let folder = tempfile::tempdir().expect("a folder");
    let alice = Person::new(&lab, Host::A, "alice", folder.path(), "alice").at(&scene);
    let bob = Person::new(&lab, Host::B, "bob", folder.path(), "bob").at(&scene);
    let (mut receiving, _) = bob.receive();
    receiving.event("logged_in", SOON);
    let sent = alice.send("bob", &file(folder.path(), "before"));
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    let one = sees(&alice, "bob", 1);
    assert_eq!(one[0]["claimed"], false, "the server vouches for the name");
    scene.stop_server();
    receiving.event("disconnected", SOON);
    let sent = alice.send("bob", &file(folder.path(), "after"));
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(bob.received(), ["after", "before"]);

    // Somebody else who takes the name is not taken for bob.
    receiving.interrupt();
    receiving.wait(SOON);
    let mallory = Person::new(&lab, Host::B, "bob", folder.path(), "mallory");
    let _waiting = mallory.receive();
    let refused = alice.send("bob", &file(folder.path(), "secret"));
    assert_eq!(refused.code, Some(7), "{refused:#?}");
    assert_eq!(mallory.received(), [""; 0]);
}

#[test]
fn a_name_of_a_server_is_filled_by_nobody_who_only_claims_it() {
    let Some(lab) = one_lan() else { return };
    let mut scene = Scene::in_lab(&lab);
    let folder = tempfile::tempdir().expect("a folder");
    let alice = Person::new(&lab, Host::A, "alice", folder.path(), "alice").at(&scene);
    let bob = Person::new(&lab, Host::B, "bob", folder.path(), "bob").at(&scene);
    let mallory = Person::new(&lab, Host::B, "bob", folder.path(), "mallory");
    // The name is bob's there, and he is away.
    let known = bob.start(&["--no-nearby", "peers"]).end(SOON);
    assert_eq!(known.code, Some(0), "{known:#?}");
    let (_, fingerprint) = mallory.id();
    let (_receiving, _) = mallory.receive();
    let secret = file(folder.path(), "secret");
    let refuse = |sent: &EndedProcess| {
        assert_eq!(sent.code, Some(4), "{sent:#?}");
        assert_eq!(sent.event("failed")["kind"], "claimed", "{sent:#?}");
        let reason = sent.event("failed")["reason"].to_string();
        assert!(reason.contains(&format!("bob#{fingerprint}")), "{reason}");
    };
    refuse(&alice.send("bob", &secret));
    let secret_text = secret.to_str().expect("UTF-8");
    let mut waiting = alice.start(&["send", "--wait", "bob", secret_text]);
    waiting.event("waiting", SOON);
    waiting.interrupt();
    assert_eq!(waiting.wait(SOON), Some(130));
    scene.stop_server();
    refuse(&alice.send("bob", &secret));
    let unheard = alice.start(&["peers"]).end(SOON);
    assert_eq!(unheard.code, Some(6), "{unheard:#?}");
    assert_eq!(unheard.event("peer")["claimed"], true, "{unheard:#?}");
    assert_eq!(mallory.received(), [""; 0]);

    // Who says whom he means gets what he asks for.
    let wrong = PeerKey::from_bytes([7; 32]).fingerprint();
    let refused = alice.send(&format!("bob#{wrong}"), &secret);
    assert_eq!(refused.code, Some(7), "{refused:#?}");
    let sent = alice.send(&format!("bob#{fingerprint}"), &secret);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(sent.event("claimed")["fingerprint"], fingerprint.as_str());
    assert_eq!(mallory.received(), ["secret"]);
}

#[test]
fn a_name_that_several_claim_is_nobodys_but_the_known_ones() {
    let Some(lab) = one_lan() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let alice = Person::new(&lab, Host::A, "alice", folder.path(), "alice");
    let bob = Person::new(&lab, Host::B, "bob", folder.path(), "bob");
    let mallory = Person::new(&lab, Host::A, "bob", folder.path(), "mallory");
    let (receiving, _) = bob.receive();
    let sent = alice.send("bob", &file(folder.path(), "first"));
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    // bob is pinned now.
    let _waiting = mallory.receive();
    let both = sees(&alice, "bob", 2);
    let changed: Vec<_> = both.iter().map(|peer| &peer["key_changed"]).collect();
    assert_eq!(
        changed.iter().filter(|c| ***c == true).count(),
        1,
        "{both:#?}"
    );
    let sent = alice.send("bob", &file(folder.path(), "second"));
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(bob.received(), ["first", "second"]);
    assert_eq!(mallory.received(), [""; 0]);
    drop(receiving);
}

#[test]
fn a_forged_address_leads_nowhere_and_the_true_one_still_does() {
    let Some(lab) = one_lan() else { return };
    let scene = Scene::in_lab(&lab);
    let folder = tempfile::tempdir().expect("a folder");
    let alice = Person::new(&lab, Host::A, "alice", folder.path(), "alice");
    let bob = Person::new(&lab, Host::B, "bob", folder.path(), "bob");
    let mallory = Person::new(&lab, Host::A, "mallory", folder.path(), "mallory");
    let (waiting, nearby) = mallory.receive();
    let port = nearby["port"].as_u64().expect("a port");
    let forger = Forger::start(&lab, Host::A, "bob", &bob.id(), port);
    sees(&alice, "bob", 1);
    let lost = alice.send("bob", &file(folder.path(), "alone"));
    assert_eq!(lost.code, Some(7), "{lost:#?}");

    // Through the server, which knows where bob is, although nearby lies.
    let bob_at_server = Person::new(&lab, Host::B, "bob", folder.path(), "bob").at(&scene);
    let inbox = bob.inbox.to_str().expect("UTF-8");
    let arguments = ["--no-nearby", "receive", "--accept", "all", "--into", inbox];
    let mut receiving = bob_at_server.start(&arguments);
    receiving.event("logged_in", SOON);
    let alice_at_server = Person::new(&lab, Host::A, "alice", folder.path(), "alice").at(&scene);
    let sent = alice_at_server.send("bob", &file(folder.path(), "by server"));
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    receiving.interrupt();
    receiving.wait(SOON);

    // Beside the true announcement.
    let _receiving = bob.receive();
    let deadline = Instant::now() + SOON;
    loop {
        let sent = alice.send("bob", &file(folder.path(), "beside"));
        if sent.code == Some(0) {
            break;
        }
        // Only the forged one may have been heard so far.
        assert_eq!(sent.code, Some(7), "{sent:#?}");
        assert!(Instant::now() < deadline, "{sent:#?}");
    }
    assert_eq!(bob.received(), ["beside", "by server"]);
    assert_eq!(mallory.received(), [""; 0]);
    drop((forger, waiting));
}

#[test]
fn a_silent_forger_does_not_delay_what_the_server_leads_to() {
    // So far away that whoever is nearby is found before the login is done.
    let Some(lab) = one_lan_far_away(Duration::from_millis(150)) else {
        return;
    };
    let scene = Scene::in_lab(&lab);
    let folder = tempfile::tempdir().expect("a folder");
    let alice = Person::new(&lab, Host::A, "alice", folder.path(), "alice").at(&scene);
    let bob = Person::new(&lab, Host::B, "bob", folder.path(), "bob").at(&scene);
    let forger = Forger::start(&lab, Host::A, "bob", &bob.id(), 0);
    let inbox = bob.inbox.to_str().expect("UTF-8");
    let arguments = ["--no-nearby", "receive", "--accept", "all", "--into", inbox];
    let mut receiving = bob.start(&arguments);
    receiving.event("logged_in", SOON);
    let both = sees(&alice, "bob", 1);
    assert_eq!(both[0]["nearby"], true);
    let mut delays_ms = Vec::new();
    for number in 0..3 {
        // What has just been answered is not answered again before.
        std::thread::sleep(ANSWERED_AGAIN_AFTER);
        let sent = alice.send("bob", &file(folder.path(), &number.to_string()));
        assert_eq!(sent.code, Some(0), "{sent:#?}");
        let elapsed_ms = sent.event("connected")["elapsed_ms"].as_u64();
        delays_ms.push(elapsed_ms.expect("a time"));
    }
    eprintln!("beside a silent forger: {delays_ms:?} ms");
    assert!(delays_ms.iter().all(|&ms| ms < 3_000), "{delays_ms:?}");
    assert!(forger.connections() > 0, "it was never tried");
}

/// Multicast DNS, and joining any group of it, that left the host so far.
fn multicast_packets(lab: &Lab, host: Host) -> u64 {
    let mut list = lab.command(host, "nft".as_ref());
    let output = list
        .args(["list", "table", "inet", "multicast"])
        .output()
        .expect("nft");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let counts = text.split("packets ").skip(1);
    let counts = counts.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

fn count_multicast(lab: &Lab, host: Host) {
    let rules = "table inet multicast { chain leaving { type filter hook output priority 0; \
                 udp dport 5353 counter; ip protocol igmp counter; }; }";
    let mut add: Command = lab.command(host, "nft".as_ref());
    let status = add.arg(rules).status().expect("nft");
    assert!(status.success());
}

#[test]
fn switched_off_nothing_is_announced_or_asked() {
    let Some(lab) = one_lan() else { return };
    let scene = Scene::in_lab(&lab);
    let folder = tempfile::tempdir().expect("a folder");
    let alice = Person::new(&lab, Host::A, "alice", folder.path(), "alice").at(&scene);
    let bob = Person::new(&lab, Host::B, "bob", folder.path(), "bob").at(&scene);
    let inbox = bob.inbox.to_str().expect("UTF-8");
    let path = file(folder.path(), "one");
    let path = path.to_str().expect("UTF-8");
    for host in [Host::A, Host::B] {
        count_multicast(&lab, host);
    }
    for off in [&["--no-nearby"][..], &["--path", "relay"]] {
        let receive = ["receive", "--once", "--accept", "all", "--into", inbox];
        let mut receiving = bob.start(&[off, &receive].concat());
        receiving.event("logged_in", SOON);
        let sent = alice.start(&[off, &["send", "bob", path]].concat());
        assert_eq!(sent.end(SOON).code, Some(0));
        assert_eq!(receiving.end(SOON).code, Some(0));
        assert_eq!(multicast_packets(&lab, Host::A), 0, "{off:?}");
        assert_eq!(multicast_packets(&lab, Host::B), 0, "{off:?}");
    }
    let alone = Person::new(&lab, Host::A, "alice", folder.path(), "alone");
    let nowhere = alone.start(&["--no-nearby", "send", "bob", path]).end(SOON);
    assert_eq!(nowhere.code, Some(2), "{nowhere:#?}");

    let (mut receiving, _) = bob.receive();
    receiving.event("logged_in", SOON);
    let seen = sees(&alice, "bob", 1);
    assert_eq!(seen[0]["nearby"], true);
    for host in [Host::A, Host::B] {
        assert!(multicast_packets(&lab, host) > 0, "the counter counts");
    }
}

#[test]
fn a_refused_name_is_not_remembered() {
    let Some(lab) = one_lan() else { return };
    let scene = Scene::in_lab(&lab);
    let folder = tempfile::tempdir().expect("a folder");
    let bob = Person::new(&lab, Host::B, "bob", folder.path(), "bob").at(&scene);
    let (mut receiving, _) = bob.receive();
    receiving.event("logged_in", SOON);
    let mallory = Person::new(&lab, Host::A, "bob", folder.path(), "mallory").at(&scene);
    let refused = mallory.start(&["peers"]).end(SOON);
    assert_eq!(refused.code, Some(3), "{refused:#?}");
    let mut id = lab.command(Host::A, &binary("pinhole"));
    id.args(["--json", "--data-dir"])
        .arg(&mallory.profile)
        .arg("id");
    let id = Process::start("mallory", id).end(SOON);
    assert_eq!(id.event("id")["name"], Value::Null);
}
