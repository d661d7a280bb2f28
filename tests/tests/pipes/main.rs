//! What one program writes, straight into another on another computer: `send -` and
//! `receive --stdout`, with the real binaries.
#![cfg(unix)]
#![allow(clippy::indexing_slicing, reason = "a test fails by a panic")]

mod piped;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use pinhole_tests::process::Process;
use pinhole_tests::scene::{Peer, SOON, Scene};
use pinhole_tests::tree;
use serde_json::Value;

use crate::piped::{Ended, Piped};

const MIB: usize = 1 << 20;
/// For a few hundred MiB on a busy machine.
const LONG: Duration = Duration::from_secs(120);

fn alice_and_bob(scene: &Scene) -> (Peer<'static>, Peer<'static>) {
    (scene.peer("alice"), scene.peer("bob"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Bytes that tell where they are.
fn counting(from: usize, bytes: usize) -> Vec<u8> {
    let numbers = (from / 8..).flat_map(usize::to_le_bytes);
    numbers.take(bytes).collect()
}

/// Writes so many bytes, counts them, and returns when they are written or nobody
/// takes them.
fn feed(mut input: ChildStdin, bytes: usize) -> (thread::JoinHandle<()>, Arc<AtomicU64>) {
    let written = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&written);
    let feeding = thread::spawn(move || {
        for piece in 0..bytes / MIB {
            if input.write_all(&counting(piece * MIB, MIB)).is_err() {
                return;
            }
            counter.fetch_add(MIB as u64, Ordering::Relaxed);
        }
    });
    (feeding, written)
}

#[test]
fn a_tar_of_many_files_goes_through_both_pipes() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let (from, into) = (
        scene.folder.path().join("from"),
        scene.folder.path().join("into"),
    );
    fs::create_dir_all(from.join("d/e")).expect("folders");
    fs::create_dir(&into).expect("a folder");
    for number in 0..300_usize {
        let folder = ["", "d", "d/e"][number % 3];
        let file = from.join(folder).join(number.to_string());
        fs::write(file, counting(0, number * 97)).expect("a file");
    }
    tree::write_file(&from.join("large"), 5 * MIB as u64 + 3, 1).expect("a file");
    let mut unpacking = Command::new("tar");
    let unpacking = unpacking
        .args(["x", "-C", text(&into)])
        .stdin(Stdio::piped());
    let mut unpacking = unpacking.spawn().expect("tar");
    let output = unpacking.stdin.take().expect("piped");
    let receiving = Piped::receiving(&bob, &["--accept", "all"], output.into());
    let mut packing = Command::new("tar");
    let packing = packing
        .args(["c", "-C", text(&from), "."])
        .stdout(Stdio::piped());
    let mut packing = packing.spawn().expect("tar");
    let input = packing.stdout.take().expect("piped");
    let sent = Piped::sending(&alice, input.into()).end();
    let received = receiving.end();
    assert!(packing.wait().expect("tar").success());
    assert!(unpacking.wait().expect("tar").success());
    assert_eq!(sent.digest(), received.digest());
    assert!(sent.digest().is_string());
    assert_eq!(
        tree::read(&from).expect("what was sent"),
        tree::read(&into).expect("what has come")
    );
    assert_eq!(fs::read_dir(&bob.inbox).expect("the inbox").count(), 0);
}

#[test]
fn a_stream_becomes_a_file_and_has_no_total() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    for bytes in [0, 1, MIB, 40 * MIB] {
        let receiving = bob.receive(&["--once"]);
        let mut sending = Piped::sending(&alice, Stdio::piped());
        let (data, mut input) = (counting(0, bytes), sending.stdin());
        let feeding = thread::spawn(move || {
            let begin = data.len() / 2;
            input.write_all(&data[..begin]).expect("bob");
            // Long enough for somebody to look at the progress.
            thread::sleep(Duration::from_millis(600));
            input.write_all(&data[begin..]).expect("bob");
        });
        let sent = sending.end();
        feeding.join().expect("all was taken");
        let received = receiving.end(SOON);
        assert_eq!(received.code, Some(0), "{received:#?}");
        assert_eq!(*sent.digest(), received.event("completed")["digest"]);
        assert_eq!(sent.event("completed")["bytes"], bytes);
        assert_eq!(received.event("completed")["bytes"], bytes);
        for events in [&sent.told, &received.events] {
            let started = events.iter().find(|it| it["event"] == "started");
            let started = started.expect("a start");
            assert!(started["bytes"].is_null() && started["files"] == 1);
            let mut progress = events.iter().filter(|it| it["event"] == "progress");
            assert!(progress.all(|it| it["total"].is_null()), "{events:#?}");
        }
        let file = bob.inbox.join("s");
        assert!(fs::read(&file).expect("the file") == counting(0, bytes));
        assert_eq!(fs::read_dir(&bob.inbox).expect("the inbox").count(), 1);
        fs::remove_file(file).expect("removing it");
    }
}

#[test]
fn nothing_but_data_is_written_to_standard_output() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    for bytes in [0, 3, 200_000, 3 * MIB + 1] {
        // An ordinary file, and a stream.
        for is_stream in [false, true] {
            let file = scene.file("s", &counting(0, bytes));
            let mut receiving = Piped::receiving(&bob, &["--accept", "all"], Stdio::piped());
            let mut output = receiving.stdout();
            let reading = thread::spawn(move || {
                let mut all = Vec::new();
                output.read_to_end(&mut all).map(|_| all)
            });
            let sent = match is_stream {
                true => Piped::sending(&alice, File::open(&file).expect("the file").into()).end(),
                false => {
                    let ended = alice.send("bob", &[&file]).end(SOON);
                    Ended {
                        code: ended.code,
                        told: ended.events,
                    }
                }
            };
            let received = receiving.end();
            assert_eq!(sent.digest(), received.digest());
            assert!(received.event("completed")["folder"].is_null());
            let read = reading.join().expect("a reader").expect("all of it");
            assert!(read == counting(0, bytes), "{bytes}");
        }
    }
}

/// Bob takes a stream into his inbox or to standard output, and so much of it has come.
fn under_way(
    scene: &Scene,
    to_stdout: bool,
    bytes: usize,
) -> (Piped, Piped, thread::JoinHandle<()>, Peer<'static>) {
    let (alice, bob) = alice_and_bob(scene);
    let mut receiving = match to_stdout {
        true => Piped::receiving(&bob, &["--accept", "all"], Stdio::piped()),
        false => {
            let inbox = text(&bob.inbox).to_owned();
            let arguments = ["receive", "--once", "--accept", "all", "--into", &inbox];
            let mut command = bob.command(&arguments);
            command.stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = command.spawn().expect("pinhole");
            let told = child.stdout.take().expect("piped");
            let mut receiving = Piped::new(child, told);
            receiving.event("logged_in");
            receiving
        }
    };
    let mut sending = Piped::sending(&alice, Stdio::piped());
    let (_, written) = feed(sending.stdin(), 16 << 30);
    let reading = match to_stdout {
        true => {
            let mut output = receiving.stdout();
            thread::spawn(move || {
                std::io::copy(&mut output, &mut std::io::sink()).expect("a pipe");
            })
        }
        false => thread::spawn(|| {}),
    };
    sending.event("started");
    while written.load(Ordering::Relaxed) < bytes as u64 {
        thread::sleep(Duration::from_millis(20));
    }
    // The sender hears four times a second what has arrived.
    while sending.event("progress")["bytes"].as_u64() <= Some(bytes as u64 / 2) {}
    (sending, receiving, reading, bob)
}

fn is_killed(scene: &Scene, to_stdout: bool, bytes: usize) {
    let (mut sending, receiving, reading, bob) = under_way(scene, to_stdout, bytes);
    // Killed without a word, as by a power cut.
    sending.child.kill().expect("alice");
    let arrived = receiving.end().broken(6, "connection to alice was lost");
    assert!(arrived > bytes as u64 / 2, "{arrived}");
    reading.join().expect("a reader");
    assert_eq!(fs::read_dir(&bob.inbox).expect("the inbox").count(), 0);

    let (sending, mut receiving, reading, _bob) = under_way(scene, to_stdout, bytes);
    receiving.child.kill().expect("bob");
    let arrived = sending.end().broken(6, "connection to bob was lost");
    assert!(arrived > bytes as u64 / 2, "{arrived}");
    reading.join().expect("a reader");
}

#[test]
fn a_stream_into_a_file_ends_on_both_sides_when_one_is_killed() {
    is_killed(&Scene::on_loopback(), false, 256 * MIB);
}

#[test]
fn a_stream_through_both_pipes_ends_on_both_sides_when_one_is_killed() {
    is_killed(&Scene::on_loopback(), true, 256 * MIB);
}

#[test]
fn who_is_interrupted_says_how_much_arrived() {
    let scene = Scene::on_loopback();
    for sender_ends in [true, false] {
        let (sending, receiving, _, bob) = under_way(&scene, false, 16 * MIB);
        let interrupted = if sender_ends { &sending } else { &receiving };
        let id = interrupted.child.id().to_string();
        let mut kill = Command::new("kill");
        assert!(kill.args(["-INT", &id]).status().expect("kill").success());
        let (sent, received) = (sending.end(), receiving.end());
        match sender_ends {
            true => {
                sent.broken(130, "Cancelled");
                received.broken(5, "alice stopped");
            }
            false => {
                sent.broken(5, "bob stopped");
                received.broken(130, "Cancelled");
            }
        }
        assert_eq!(fs::read_dir(&bob.inbox).expect("the inbox").count(), 0);
    }
}

#[test]
fn a_reader_that_closes_ends_the_stream_on_both_sides() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let mut head = Command::new("head");
    let head = head.args(["-c", "1000"]).stdin(Stdio::piped());
    let mut head = head.stdout(Stdio::piped()).spawn().expect("head");
    let output = head.stdin.take().expect("piped");
    let receiving = Piped::receiving(&bob, &["--accept", "all"], output.into());
    let mut sending = Piped::sending(&alice, Stdio::piped());
    let (feeding, _) = feed(sending.stdin(), 1 << 30);
    let (sent, received) = (sending.end(), receiving.end());
    received.broken(8, "standard output: the program that read it takes no more");
    sent.broken(8, "bob reports: the program that read it takes no more");
    let read = head.wait_with_output().expect("head");
    assert!(read.stdout == counting(0, 1000));
    feeding.join().expect("a feeder");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_output_ends_the_stream_on_both_sides() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let full = File::options().write(true).open("/dev/full").expect("full");
    let receiving = Piped::receiving(&bob, &["--accept", "all"], full.into());
    let mut sending = Piped::sending(&alice, Stdio::piped());
    let _feeding = feed(sending.stdin(), 1 << 30);
    let (sent, received) = (sending.end(), receiving.end());
    assert_eq!(received.broken(8, "standard output: the disk is full"), 0);
    assert_eq!(sent.broken(8, "bob reports: the disk is full"), 0);
}

#[test]
fn a_slow_reader_and_an_input_that_stalls_are_waited_for() {
    // Longer than any silence that a session tolerates.
    const STALL: Duration = Duration::from_secs(8);
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let mut receiving = Piped::receiving(&bob, &["--accept", "all"], Stdio::piped());
    let mut output = receiving.stdout();
    let mut sending = Piped::sending(&alice, Stdio::piped());
    let mut input = sending.stdin();
    let written = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&written);
    let feeding = thread::spawn(move || {
        for piece in 0..256 {
            input.write_all(&counting(piece * MIB, MIB)).expect("bob");
            counter.fetch_add(MIB as u64, Ordering::Relaxed);
        }
        thread::sleep(STALL);
        input.write_all(&counting(256 * MIB, 10)).expect("bob");
    });
    thread::sleep(STALL);
    // What is under way is bounded: the buffers of both and what the kernel keeps.
    let held = written.load(Ordering::Relaxed);
    assert!(held < 128 * MIB as u64, "{held} bytes are under way");
    let mut read = Vec::new();
    output.read_to_end(&mut read).expect("all of it");
    feeding.join().expect("all was taken");
    assert!(read == counting(0, 256 * MIB + 10));
    let (sent, received) = (sending.end(), receiving.end());
    assert_eq!(sent.digest(), received.digest());
    for ended in [sent, received] {
        assert!(ended.find("reconnecting").is_none(), "{:#?}", ended.told);
    }
}

#[test]
fn a_peer_that_stands_still_for_a_while_goes_on_with_the_stream() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let mut receiving = Piped::receiving(&bob, &["--accept", "all"], Stdio::piped());
    let mut output = receiving.stdout();
    let reading = thread::spawn(move || {
        let mut all = Vec::new();
        output.read_to_end(&mut all).map(|_| all)
    });
    let mut sending = Piped::sending(&alice, Stdio::piped());
    let mut input = sending.stdin();
    sending.event("started");
    input.write_all(&counting(0, 8 * MIB)).expect("bob");
    // Such a silence has files go on over another session.
    for who in [&receiving, &sending] {
        let id = who.child.id().to_string();
        let signal = |name: &str| {
            let sent = Command::new("kill").args(["-s", name, &id]).status();
            assert!(sent.expect("kill").success());
        };
        signal("STOP");
        thread::sleep(Duration::from_secs(6));
        signal("CONT");
    }
    input.write_all(&counting(8 * MIB, 8 * MIB)).expect("bob");
    drop(input);
    let (sent, received) = (sending.end(), receiving.end());
    assert_eq!(sent.digest(), received.digest());
    let read = reading.join().expect("a reader").expect("all of it");
    assert!(read == counting(0, 16 * MIB));
}

#[test]
fn several_files_do_not_go_to_standard_output() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let folder = scene.folder.path().join("d");
    fs::create_dir(&folder).expect("a folder");
    let (one, two) = (scene.file("one", b"1"), scene.file("two", b"2"));
    for paths in [vec![one.as_path(), &two], vec![&folder]] {
        let mut receiving = Piped::receiving(&bob, &["--accept", "all"], Stdio::piped());
        let mut output = receiving.stdout();
        let sent = alice.send("bob", &paths).end(SOON);
        assert_eq!(sent.code, Some(8), "{sent:#?}");
        let reason = sent.event("failed")["reason"].as_str().expect("a reason");
        assert!(reason.contains("only a single file"), "{reason}");
        let received = receiving.end();
        assert_eq!(received.code, Some(1), "{:#?}", received.told);
        let reason = received.event("failed")["reason"].as_str();
        assert!(reason.expect("a reason").contains("only a single file"));
        let mut read = Vec::new();
        output.read_to_end(&mut read).expect("nothing");
        assert!(read.is_empty());
    }
    // Words do not count.
    let receiving = Piped::receiving(&bob, &["--accept", "all"], Stdio::null());
    let sent = alice.start(&["send", "bob", "--text", "words"]).end(SOON);
    assert_eq!(sent.code, Some(8), "{sent:#?}");
    let sent = alice.send("bob", &[&one]).end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(receiving.end().code, Some(0));
}

#[test]
fn a_stream_is_not_taken_unasked_where_there_is_a_limit() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let limited = ["--accept", "all", "--max-size", "1G"];
    for (more, word) in [
        (&limited[..], "may be more than the 1.00 GB of --max-size"),
        (&["--accept", "ask"], "a file whose size is not known"),
    ] {
        let mut receiving = Piped::receiving(&bob, more, Stdio::piped());
        let mut output = receiving.stdout();
        let file = scene.file("s", b"a few bytes");
        let sent = Piped::sending(&alice, File::open(file).expect("a file").into()).end();
        assert_eq!(sent.code, Some(5), "{:#?}", sent.told);
        let received = receiving.end();
        assert_eq!(received.code, Some(5), "{:#?}", received.told);
        let reason = received.event("failed")["reason"].as_str();
        let reason = reason.expect("a reason");
        assert!(reason.contains(word), "{reason}");
        let mut read = Vec::new();
        output.read_to_end(&mut read).expect("nothing");
        assert!(read.is_empty());
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_read() {
    let scene = Scene::on_loopback();
    let (alice, _) = alice_and_bob(&scene);
    let file = text(&scene.file("f", b"f")).to_owned();
    for (arguments, word) in [
        (vec!["send", "bob", "-"], "--as NAME"),
        (
            vec!["send", "bob", "--as", "n", &file],
            "give - as the only path",
        ),
        (
            vec!["send", "bob", "--as", "n", "-", &file],
            "give - as the only path",
        ),
        (
            vec!["send", "bob", "--as", "n", "-", "-"],
            "give - as the only path",
        ),
        (vec!["send", "bob,carol", "--as", "n", "-"], "one person"),
        (vec!["send", "bob", "--as", "a/b", "-"], "without folders"),
        (vec!["send", "bob", "--as", "../b", "-"], "--as"),
        (vec!["send", "bob", "--as", "", "-"], "--as"),
        (vec!["send", "bob", "--as", "NUL", "-"], "--as"),
        (vec!["send", "bob", "--as", "a\nb", "-"], "--as"),
        (
            vec!["send", "bob", "--as", "n", "--text", "words"],
            "--text",
        ),
    ] {
        let refused = alice.start(&arguments).end(SOON);
        assert_eq!(refused.code, Some(2), "{arguments:?}: {refused:#?}");
        let failed = refused.event("failed");
        assert_eq!(failed["kind"], "usage");
        let reason = failed["reason"].as_str().expect("a reason");
        assert!(reason.contains(word), "{arguments:?}: {reason}");
    }
}

#[test]
fn standard_output_for_data_gets_no_words_about_wrong_arguments() {
    let scene = Scene::on_loopback();
    let (alice, _) = alice_and_bob(&scene);
    for (arguments, word) in [
        (&["receive", "--stdout"][..], "--once"),
        (
            &["receive", "--once", "--stdout", "--accept", "x"],
            "ask, contacts, all",
        ),
    ] {
        let refused = alice.start(arguments).end(SOON);
        assert_eq!(refused.code, Some(2), "{refused:#?}");
        assert!(refused.events.is_empty(), "{refused:#?}");
        assert!(refused.errors.contains(word), "{refused:#?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_is_neither_read_nor_written_to() {
    let scene = Scene::on_loopback();
    let (alice, _) = alice_and_bob(&scene);
    for (arguments, word) in [
        (
            &["send", "bob", "--as", "n", "-"][..],
            "standard input is a terminal",
        ),
        (
            &["receive", "--once", "--stdout"],
            "standard output is a terminal",
        ),
    ] {
        let refused = Process::on_terminal("refused", &alice.command(arguments)).end(SOON);
        assert_eq!(refused.code, Some(2), "{refused:#?}");
        let reason = refused.event("failed")["reason"].as_str();
        assert!(reason.expect("a reason").contains(word), "{refused:#?}");
    }
}

/// How many MB arrive in a second.
fn speed(bytes: u64, elapsed_ms: &Value) -> u64 {
    bytes / 1000 / elapsed_ms.as_u64().expect("milliseconds").max(1)
}

#[test]
#[ignore = "moves ten gibibytes"]
fn two_gibibytes_go_through_pipes_about_as_fast_as_a_file() {
    const COUNT: usize = 2 << 30;
    const BYTES: u64 = COUNT as u64;
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let file = scene.folder.path().join("s");
    tree::write_file(&file, BYTES, 7).expect("a file");
    let receiving = bob.receive(&["--once"]);
    let sent = alice.send("bob", &[&file]).end(LONG);
    assert_eq!(receiving.end(LONG).code, Some(0));
    let as_file = speed(BYTES, &sent.event("completed")["elapsed_ms"]);
    let receiving = bob.receive(&["--once"]);
    let into_file = Piped::sending(&alice, File::open(&file).expect("the file").into()).end();
    assert_eq!(receiving.end(LONG).code, Some(0));
    let into_file = speed(BYTES, &into_file.event("completed")["elapsed_ms"]);
    let mut receiving = Piped::receiving(&bob, &["--accept", "all"], Stdio::piped());
    let mut output = receiving.stdout();
    let reading = thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    let through = Piped::sending(&alice, File::open(&file).expect("the file").into()).end();
    assert_eq!(through.digest(), receiving.end().digest());
    assert_eq!(reading.join().expect("a reader").expect("all of it"), BYTES);
    let through = speed(BYTES, &through.event("completed")["elapsed_ms"]);
    println!("MB/s: a file {as_file}, a stream into a file {into_file}, through pipes {through}");
    assert!(into_file * 2 > as_file, "{into_file} and {as_file} MB/s");
    assert!(through * 2 > as_file, "{through} and {as_file} MB/s");
    for name in ["s", "s (1)"] {
        fs::remove_file(bob.inbox.join(name)).expect("what came");
    }
    is_killed(&scene, true, COUNT);
    is_killed(&scene, false, COUNT);
}
