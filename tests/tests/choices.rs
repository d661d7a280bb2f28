//! What people can choose on the command line, with the real binaries.
#![allow(clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::fs;
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::time::{Duration, Instant};

use pinhole_tests::process::{EndedProcess, Process, binary};
use pinhole_tests::scene::{Peer, SOON, Scene};
use pinhole_tests::tree;
use serde_json::Value;

fn alice_and_bob(scene: &Scene) -> (Peer<'static>, Peer<'static>) {
    (scene.peer("alice"), scene.peer("bob"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A file of that size whose chunks all differ.
fn large_file(scene: &Scene, name: &str, size_bytes: u64) -> PathBuf {
    let path = scene.folder.path().join(name);
    tree::write_file(&path, size_bytes, 7).expect("a file");
    path
}

/// The exit code and a word of the reason given.
#[track_caller]
fn assert_failed(ended: &EndedProcess, code: i32, word: &str) {
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    let reason = ended.event("failed")["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(word), "{word:?} is not in {reason:?}");
}

#[track_caller]
fn completed(ended: &EndedProcess) -> &Value {
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    ended.event("completed")
}

/// Sends two files, of which bob has one name already, and returns what both
/// sides say of the end.
fn send_beside_existing(
    scene: &Scene,
    existing: &str,
) -> (Peer<'static>, EndedProcess, EndedProcess) {
    let (alice, bob) = alice_and_bob(scene);
    let files = [
        scene.file("report.pdf", b"the new one"),
        scene.file("notes.txt", b"new"),
    ];
    fs::write(bob.inbox.join("report.pdf"), "the old one").expect("a file");
    let receiving = bob.receive(&["--once", "--existing", existing]);
    let sent = alice.send("bob", &[&files[0], &files[1]]).end(SOON);
    (bob, sent, receiving.end(SOON))
}

#[track_caller]
fn assert_inbox(bob: &Peer<'_>, expected: &[(&str, &str)]) {
    let mut found: Vec<(String, String)> = fs::read_dir(&bob.inbox)
        .expect("the inbox")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let content = fs::read_to_string(&path).expect("a file");
            let name = path.file_name().expect("a name").to_string_lossy();
            (name.into_owned(), content)
        })
        .collect();
    found.sort();
    let found: Vec<_> = found.iter().map(|(n, c)| (&**n, &**c)).collect();
    assert_eq!(found, expected);
}

#[test]
fn what_is_there_gets_a_neighbour_with_a_number() {
    let scene = Scene::on_loopback();
    let (bob, sent, received) = send_beside_existing(&scene, "rename");
    assert_eq!(completed(&sent)["skipped_files"], 0);
    assert_eq!(completed(&received)["files"], 2);
    let paths = ["report (1).pdf", "notes.txt"].map(|name| bob.inbox.join(name));
    let mut told: Vec<String> =
        serde_json::from_value(completed(&received)["paths"].clone()).expect("paths");
    told.sort();
    assert_eq!(told, [text(&paths[1]), text(&paths[0])]);
    let expected = [
        ("notes.txt", "new"),
        ("report (1).pdf", "the new one"),
        ("report.pdf", "the old one"),
    ];
    assert_inbox(&bob, &expected);
}

#[test]
fn what_is_there_can_be_skipped() {
    let scene = Scene::on_loopback();
    let (bob, sent, received) = send_beside_existing(&scene, "skip");
    for side in [&sent, &received] {
        let completed = completed(side);
        assert_eq!(completed["skipped_files"], 1, "{completed}");
        assert_eq!(completed["files"], 1, "{completed}");
        assert_eq!(completed["bytes"], 3, "{completed}");
    }
    assert_inbox(&bob, &[("notes.txt", "new"), ("report.pdf", "the old one")]);
}

#[test]
fn what_is_there_can_be_replaced() {
    let scene = Scene::on_loopback();
    let (bob, sent, received) = send_beside_existing(&scene, "replace");
    assert_eq!(completed(&sent)["skipped_files"], 0);
    assert_eq!(completed(&received)["files"], 2);
    assert_inbox(&bob, &[("notes.txt", "new"), ("report.pdf", "the new one")]);
}

#[test]
fn only_so_much_is_taken_without_asking() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let mut receiving = bob.receive(&["--max-size", "1k"]);
    let (small, large) = (
        scene.file("small", &[1; 1000]),
        scene.file("large", &[1; 1001]),
    );
    let declined = alice.send("bob", &[&large]).end(SOON);
    assert_eq!(declined.code, Some(5), "{declined:#?}");
    let told = receiving.event("failed", SOON);
    let reason = told["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("1001 bytes are more than the 1000"),
        "{reason}"
    );
    completed(&alice.send("bob", &[&small]).end(SOON));
    receiving.event("completed", SOON);
    assert!(bob.inbox.join("small").exists());
    assert!(!bob.inbox.join("large").exists());
}

#[test]
#[cfg(unix)]
fn programs_stay_programs_when_asked_for() {
    use std::os::unix::fs::PermissionsExt as _;
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let program = scene.file("program", b"#!/bin/sh\n");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("permissions");
    let is_program = |name| {
        let metadata = fs::metadata(bob.inbox.join(name)).expect("what arrived");
        metadata.permissions().mode() & 0o111 != 0
    };
    for (name, choice) in [("program", None), ("program (1)", Some("--executable"))] {
        let more: Vec<_> = ["--once"].into_iter().chain(choice).collect();
        let receiving = bob.receive(&more);
        completed(&alice.send("bob", &[&program]).end(SOON));
        completed(&receiving.end(SOON));
        assert_eq!(is_program(name), choice.is_some(), "{name}");
    }
}

/// 4 MB at 2 MB a second, within 15 %.
#[track_caller]
fn assert_took_two_seconds(ended: &EndedProcess) {
    let elapsed_ms = completed(ended)["elapsed_ms"].as_u64().expect("a time");
    assert!((1_700..=2_300).contains(&elapsed_ms), "{elapsed_ms} ms");
}

#[test]
fn a_limit_on_sending_is_kept() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let file = large_file(&scene, "file", 4_000_000);
    let receiving = bob.receive(&["--once"]);
    let sending = alice.start(&["send", "--limit", "2M", "bob", text(&file)]);
    assert_took_two_seconds(&sending.end(SOON));
    assert_took_two_seconds(&receiving.end(SOON));
}

#[test]
fn a_limit_on_receiving_is_kept() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let file = large_file(&scene, "file", 4_000_000);
    let receiving = bob.receive(&["--once", "--limit", "2MB/s"]);
    let sending = alice.send("bob", &[&file]);
    assert_took_two_seconds(&sending.end(SOON));
    assert_took_two_seconds(&receiving.end(SOON));
}

#[test]
#[cfg(target_os = "linux")]
fn a_part_of_an_offer_is_chosen_by_numbers() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let album = scene.folder.path().join("album");
    fs::create_dir(&album).expect("a folder");
    fs::write(album.join("one.jpg"), "1").expect("a file");
    let files = ["a", "b", "c"].map(|name| scene.file(name, name.as_bytes()));
    let inbox = text(&bob.inbox).to_owned();
    let arguments = ["receive", "--into", &inbox, "--accept", "ask", "--once"];
    let mut receiving = Process::on_terminal("bob", &bob.command(&arguments));
    receiving.event("logged_in", SOON);
    let sending = alice.send("bob", &[&files[0], &album, &files[1], &files[2]]);
    receiving.event("offered", SOON);
    receiving.type_line("all of it");
    receiving.type_line("2-3");
    let sent = sending.end(SOON);
    assert_eq!(completed(&sent)["skipped_files"], 2);
    assert_eq!(receiving.wait(SOON), Some(0));
    let arrived = tree::read(&bob.inbox).expect("what arrived");
    let names: Vec<_> = arrived.keys().collect();
    assert_eq!(names, ["album", "album/one.jpg", "b"]);
}

/// Waits until so much has arrived or left.
#[cfg(unix)]
fn moved(process: &mut Process, bytes: u64) {
    while process.event("progress", SOON)["bytes"].as_u64() < Some(bytes) {}
}

/// Ends a transfer by Ctrl-C on one side when it has got far enough, and does
/// the same again.
#[cfg(unix)]
fn assert_ctrl_c_keeps(scene: &Scene, at_receiver: bool) {
    const SIZE_BYTES: u64 = 40_000_000;
    let (alice, bob) = alice_and_bob(scene);
    let file = large_file(scene, "large", SIZE_BYTES);
    let send = || alice.start(&["send", "--limit", "20M", "bob", text(&file)]);
    let mut receiving = bob.receive(&["--once"]);
    let sending = send();
    moved(&mut receiving, 25_000_000);
    let (stopped, other) = if at_receiver {
        (receiving, sending)
    } else {
        (sending, receiving)
    };
    let start = Instant::now();
    stopped.interrupt();
    assert_failed(&stopped.end(SOON), 130, "goes on from there");
    assert_failed(&other.end(SOON), 5, "stopped. What has arrived is kept");
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
    let mut kept_bytes = 0;
    for entry in fs::read_dir(&bob.inbox).expect("the inbox") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("a name");
        assert!(
            name.starts_with('.') && name.ends_with(".pinhole-part"),
            "{name}"
        );
        kept_bytes += entry.metadata().expect("a part").len();
    }
    assert!(kept_bytes >= 24_000_000, "{kept_bytes} bytes kept");

    let receiving = bob.receive(&["--once"]);
    let sent = send().end(SOON);
    let (sent, received) = (completed(&sent).clone(), receiving.end(SOON));
    let received = completed(&received);
    assert_eq!(received["resent_bytes"], 0);
    for side in [&sent, received] {
        let here_bytes = side["here_bytes"].as_u64();
        assert!(
            (Some(24_000_000)..Some(SIZE_BYTES)).contains(&here_bytes),
            "{side}"
        );
    }
    // At 20 bytes a microsecond, with half a second for everything else.
    let most_ms = (SIZE_BYTES - 24_000_000) / 20_000 + 500;
    let elapsed_ms = sent["elapsed_ms"].as_u64().expect("a time");
    assert!(
        elapsed_ms < most_ms,
        "{elapsed_ms} ms: more travelled than was missing"
    );
    let arrived = fs::read(bob.inbox.join("large")).expect("the file");
    assert!(
        arrived == fs::read(&file).expect("the original"),
        "they differ"
    );
    assert_eq!(fs::read_dir(&bob.inbox).expect("the inbox").count(), 1);
}

#[test]
#[cfg(unix)]
fn ctrl_c_at_the_sender_keeps_what_has_arrived() {
    assert_ctrl_c_keeps(&Scene::on_loopback(), false);
}

#[test]
#[cfg(unix)]
fn ctrl_c_at_the_receiver_keeps_what_has_arrived() {
    assert_ctrl_c_keeps(&Scene::on_loopback(), true);
}

#[test]
#[cfg(unix)]
fn ctrl_c_between_two_connections_keeps_what_has_arrived() {
    for at_receiver in [true, false] {
        let scene = Scene::on_loopback();
        let (alice, bob) = alice_and_bob(&scene);
        let file = large_file(&scene, "large", 40_000_000);
        let mut receiving = bob.receive(&[]);
        let sending = alice.start(&["send", "--limit", "20M", "bob", text(&file)]);
        moved(&mut receiving, 5_000_000);
        let (mut stays, mut goes) = (receiving, sending);
        if !at_receiver {
            std::mem::swap(&mut stays, &mut goes);
        }
        goes.kill();
        stays.event("reconnecting", SOON);
        stays.interrupt();
        assert_failed(&stays.end(SOON), 130, "is kept");
        let parts = fs::read_dir(&bob.inbox).expect("the inbox");
        let kept = parts.map(|part| part.expect("a part").metadata().expect("a part").len());
        assert!(kept.sum::<u64>() >= 4_000_000, "nothing is kept");
    }
}

#[test]
#[cfg(unix)]
fn a_second_ctrl_c_waits_for_nobody() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let file = large_file(&scene, "large", 40_000_000);
    let receiving = bob.receive(&[]);
    let mut sending = alice.start(&["send", "--limit", "10M", "bob", text(&file)]);
    moved(&mut sending, 2_000_000);
    receiving.signal("STOP");
    sending.interrupt();
    sending.event("failed", SOON);
    let start = Instant::now();
    sending.interrupt();
    assert_eq!(sending.wait(SOON), Some(130));
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_millis(500), "{elapsed:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn ctrl_c_before_the_answer_takes_the_offer_back() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let inbox = text(&bob.inbox).to_owned();
    let arguments = ["receive", "--into", &inbox, "--accept", "ask", "--once"];
    let mut receiving = Process::on_terminal("bob", &bob.command(&arguments));
    receiving.event("logged_in", SOON);
    let sending = alice.send("bob", &[&scene.file("file", b"content")]);
    receiving.event("offered", SOON);
    sending.interrupt();
    assert_failed(&sending.end(SOON), 130, "Cancelled");
    assert_eq!(
        receiving.event("failed", SOON)["reason"],
        "alice cancelled."
    );
    assert_eq!(receiving.wait(SOON), Some(5));
    assert_eq!(fs::read_dir(&bob.inbox).expect("the inbox").count(), 0);
}

#[test]
fn several_get_the_same_and_the_exit_code_is_of_the_worst() {
    let scene = Scene::on_loopback();
    let peers = ["bob", "carol"].map(|name| scene.peer(name));
    let receiving = peers.each_ref().map(|peer| peer.receive(&["--once"]));
    let alice = scene.peer("alice");
    let file = large_file(&scene, "file", 3_000_000);
    let sent = alice.send("bob,carol,dave", &[&file]).end(SOON);
    assert_failed(&sent, 4, "dave");
    assert_eq!(sent.event("failed")["peer"], "dave");
    let mut delivered: Vec<_> = sent
        .events
        .iter()
        .filter(|e| e["event"] == "completed")
        .collect();
    delivered.sort_by_key(|event| event["peer"].to_string());
    for (event, name) in delivered.iter().zip(["bob", "carol"]) {
        assert_eq!(
            (&event["peer"], &event["bytes"]),
            (&name.into(), &3_000_000.into())
        );
    }
    for (peer, receiving) in peers.iter().zip(receiving) {
        completed(&receiving.end(SOON));
        let arrived = fs::read(peer.inbox.join("file")).expect("the file");
        assert!(
            arrived == fs::read(&file).expect("the original"),
            "they differ"
        );
    }
    let receiving = peers.each_ref().map(|peer| peer.receive(&["--once"]));
    let sent = alice.send("carol,bob", &[&file]).end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    for receiving in receiving {
        completed(&receiving.end(SOON));
    }
}

#[test]
fn words_of_strangers_arrive_with_a_yes() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let inbox = text(&bob.inbox);
    let receive = |accept| {
        let arguments = ["receive", "--into", inbox, "--accept", accept, "--once"];
        let mut receiving = bob.start(&arguments);
        receiving.event("logged_in", SOON);
        receiving
    };
    let words = "https://example.org/?a=b\nand 猫";
    let send = || alice.start(&["send", "bob", "--text", words]).end(SOON);
    // Nobody can be asked there.
    let receiving = receive("ask");
    assert_eq!(send().event("failed")["kind"], "declined");
    let received = receiving.end(SOON);
    assert!(received.code != Some(0), "{received:#?}");
    assert!(
        !format!("{received:?}").contains("example.org"),
        "{received:#?}"
    );

    let receiving = receive("all");
    assert_eq!(completed(&send())["bytes"], words.len());
    let received = receiving.end(SOON);
    assert_eq!(received.code, Some(0), "{received:#?}");
    let told = received.event("text");
    assert_eq!(
        (&told["peer"], &told["text"]),
        (&"alice".into(), &words.into())
    );
    assert_eq!(fs::read_dir(&bob.inbox).expect("the inbox").count(), 0);
}

#[test]
fn words_come_from_standard_input() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let mut receiving = bob.receive(&[]);
    let send = |content: &[u8]| {
        let input = fs::File::open(scene.file("input", content)).expect("a file");
        let mut command = alice.command(&["send", "bob", "--text", "-"]);
        command
            .stdin(input)
            .output()
            .expect("pinhole")
            .status
            .code()
    };
    assert_eq!(send(b"one\ntwo\n"), Some(0));
    assert_eq!(receiving.event("text", SOON)["text"], "one\ntwo\n");
    assert_eq!(send(&[b'x'; 32 * 1024]), Some(0));
    let longest = receiving.event("text", SOON);
    assert_eq!(longest["text"].as_str().map(str::len), Some(32 * 1024));
    assert_eq!(send(&[b'x'; 32 * 1024 + 1]), Some(2), "too long");
    assert_eq!(send(b""), Some(2), "nothing");
    assert_eq!(send(b"\xff"), Some(8), "no text");
}

#[test]
fn the_history_tells_which_way_and_how_fast() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let receiving = bob.receive(&["--once"]);
    completed(
        &alice
            .send("bob", &[&scene.file("file", b"content")])
            .end(SOON),
    );
    completed(&receiving.end(SOON));
    for (peer, direction) in [(&alice, "sending"), (&bob, "receiving")] {
        let ended = peer.start(&["history"]).end(SOON);
        let entry = ended.event("history");
        assert_eq!(entry["direction"], direction);
        assert_eq!(entry["path"], "lan");
        assert_eq!(entry["outcome"]["completed"]["failed_files"], 0);
        assert!(
            entry["elapsed_ms"].is_u64() && entry["digest"].is_string(),
            "{entry}"
        );
    }
}

#[test]
fn variables_switch_things_off_and_say_nothing_when_they_are_empty() {
    let scene = Scene::on_loopback();
    let mut command = std::process::Command::new(binary("pinhole"));
    command
        .args(["--json", "--data-dir"])
        .arg(scene.folder.path());
    command.arg("id").env("PINHOLE_NO_PORT_MAPPING", "1");
    for empty in ["SERVER", "NAME", "PATH", "DATA_DIR", "NO_NEARBY"] {
        command.env(format!("PINHOLE_{empty}"), "");
    }
    let ended = Process::start("pinhole", command).end(SOON);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(ended.event("id")["name"], Value::Null);
}

#[test]
fn only_the_end_of_the_first_offer_ends_who_receives_once() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let mut receiving = bob.receive(&["--once"]);
    let large = large_file(&scene, "large", 6_000_000);
    let sending = alice.start(&["send", "--limit", "2M", "bob", text(&large)]);
    receiving.event("started", SOON);
    let small = scene.file("small", b"content");
    completed(&scene.peer("carol").send("bob", &[&small]).end(SOON));
    completed(&sending.end(SOON));
    assert_eq!(completed(&receiving.end(SOON))["peer"], "alice");
}

#[test]
#[cfg(target_os = "linux")]
fn ctrl_d_declines_one_offer_only() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let inbox = text(&bob.inbox).to_owned();
    let arguments = ["receive", "--into", &inbox, "--accept", "ask"];
    let mut receiving = Process::on_terminal("bob", &bob.command(&arguments));
    receiving.event("logged_in", SOON);
    let file = scene.file("file", b"content");
    let sending = alice.send("bob", &[&file]);
    receiving.event("offered", SOON);
    receiving.type_keys("\u{4}");
    assert_failed(&sending.end(SOON), 5, "declined");
    let sending = alice.send("bob", &[&file]);
    receiving.event("offered", SOON);
    receiving.type_line("y");
    completed(&sending.end(SOON));
}

#[test]
#[cfg(target_os = "linux")]
fn whoever_is_asked_can_skip_and_replace_what_is_there() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let file = scene.file("file", b"new");
    let inbox = text(&bob.inbox).to_owned();
    let arguments = ["receive", "--into", &inbox, "--accept", "ask"];
    let mut receiving = Process::on_terminal("bob", &bob.command(&arguments));
    receiving.event("logged_in", SOON);
    for (answer, expected) in [("s", "old"), ("r", "new")] {
        fs::write(bob.inbox.join("file"), "old").expect("a file");
        let sending = alice.send("bob", &[&file]);
        let offered = receiving.event("offered", SOON);
        assert_eq!(offered["existing_names"], serde_json::json!(["file"]));
        receiving.type_line(answer);
        completed(&sending.end(SOON));
        assert_inbox(&bob, &[("file", expected)]);
    }
}
