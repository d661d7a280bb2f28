//! What the command line says, to whom it listens, and what it takes for an answer,
//! with the real binaries.
#![cfg(target_os = "linux")]
#![allow(clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use pinhole_tests::process::{EndedProcess, Process, binary};
use pinhole_tests::scene::{Peer, SOON, Scene};
use pinhole_tests::tree;

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn alice_and_bob(scene: &Scene) -> (Peer<'static>, Peer<'static>) {
    (scene.peer("alice"), scene.peer("bob"))
}

/// The command without `--json`, as people type it.
fn for_people(peer: &Peer<'_>, arguments: &[&str]) -> Command {
    let with_json = peer.command(arguments);
    let mut command = Command::new(with_json.get_program());
    command.args(with_json.get_args().filter(|word| *word != "--json"));
    for (name, value) in with_json.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn run(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().expect("pinhole")
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Asks on a terminal, into its inbox.
fn asking(peer: &Peer<'_>) -> Process {
    let inbox = text(&peer.inbox).to_owned();
    let command = peer.command(&["receive", "--into", &inbox, "--accept", "ask"]);
    let mut receiving = Process::on_terminal("receive", &command);
    receiving.event("logged_in", SOON);
    receiving
}

#[track_caller]
fn assert_ended(ended: &EndedProcess, code: i32, kind: &str, word: &str) {
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    let failed = ended.event("failed");
    assert_eq!(failed["kind"], kind, "{ended:#?}");
    let reason = failed["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(word), "{word:?} is not in {reason:?}");
}

// Whether results are heard.

#[test]
fn a_result_that_cannot_be_written_is_no_success() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let receiving = bob.receive(&["--once"]);
    let sent = alice.send("bob", &[&scene.file("f", b"f")]).end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(receiving.end(SOON).code, Some(0));
    let full = || File::options().write(true).open("/dev/full").expect("full");
    for arguments in [
        &["id"][..],
        &["history"],
        &["doctor", "--last"],
        &["peers"],
        &["send", "bob", "/none"],
    ] {
        for mut command in [alice.command(arguments), for_people(&alice, arguments)] {
            let output = command.stdin(Stdio::null()).stdout(full());
            let output = output.output().expect("pinhole");
            let said = shown(&output.stderr);
            // Nothing is written there by `peers` and a refused `send` for people.
            let writes = command.get_args().any(|word| word == "--json")
                || !matches!(arguments[0], "peers" | "send");
            if writes {
                assert_ne!(output.status.code(), Some(0), "{arguments:?}: {said}");
            }
            if writes && arguments[0] != "send" {
                assert!(said.contains("Cannot write to standard output"), "{said}");
                assert!(!said.contains("os error"), "{said}");
            }
        }
    }
}

#[test]
fn nothing_is_received_when_nobody_reads_what_is_told() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let inbox = text(&bob.inbox).to_owned();
    let mut command = bob.command(&["receive", "--into", &inbox, "--accept", "all"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut receiving = command.spawn().expect("pinhole");
    let mut lines = BufReader::new(receiving.stdout.take().expect("piped"));
    let mut first = String::new();
    lines.read_line(&mut first).expect("a line");
    assert!(first.contains("logged_in"), "{first}");
    // As `head -1`.
    drop(lines);
    let ended = receiving.wait_with_output().expect("its end");
    assert_eq!(ended.status.code(), Some(1));
    let said = shown(&ended.stderr);
    assert!(said.contains("Nothing is received any more"), "{said}");
    let sent = alice.send("bob", &[&scene.file("f", b"f")]).end(SOON);
    assert_eq!(sent.code, Some(4), "{sent:#?}");
    assert_eq!(fs::read_dir(&bob.inbox).expect("the inbox").count(), 0);
}

#[test]
fn words_that_cannot_be_shown_are_not_taken() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let inbox = text(&bob.inbox).to_owned();
    let mut command = for_people(&bob, &["receive", "--into", &inbox, "--accept", "all"]);
    let full = File::options().write(true).open("/dev/full").expect("full");
    let receiving = command
        .stdin(Stdio::null())
        .stdout(full)
        .stderr(Stdio::piped());
    let receiving = receiving.spawn().expect("pinhole");
    let sent = alice.start(&["send", "--wait", "bob", "--text", "words"]);
    let ended = receiving.wait_with_output().expect("its end");
    assert_eq!(ended.status.code(), Some(1), "{}", shown(&ended.stderr));
    // Whoever sent them goes on waiting for somebody who reads them.
    let mut reading = bob.receive(&[]);
    assert_eq!(reading.event("text", SOON)["text"], "words");
    let sent = sent.end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
}

// Who answers a question.

/// What a process does now: `T` for stopped.
fn state(process: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("a process");
    let (_, behind) = stat.rsplit_once(") ").expect("a state");
    behind.chars().take(1).collect()
}

#[test]
fn in_the_background_an_offer_waits_and_stops_nothing() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let inbox = text(&bob.inbox).to_owned();
    let command = bob.command(&["receive", "--into", &inbox, "--accept", "ask"]);
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    let words: Vec<&str> = words.map(|word| word.to_str().expect("UTF-8")).collect();
    let line = format!(
        "PINHOLE_NO_NEARBY=1 {} & echo $!; while read -r line; do $line; done",
        words.join(" ")
    );
    let mut shell = Command::new("bash");
    shell.args(["-mc", &line]);
    let mut shell = Process::on_terminal("bash", &shell);
    let pid: u32 = shell.line(SOON).trim().parse().expect("a process id");
    shell.event("logged_in", SOON);
    let file = scene.file("file", b"content");
    let sending = alice.send("bob", &[&file]);
    shell.event("offered", SOON);
    // Still there for others.
    let carol = scene.peer("carol");
    let asked = carol.send("bob", &[&file]);
    shell.event("connected", SOON);
    assert_ne!(state(pid), "T", "stopped");
    shell.type_line("fg");
    // The question is put again, now that somebody can answer it.
    loop {
        let line = shell.line(SOON);
        if line.contains("from alice? [y/N") {
            break;
        }
    }
    shell.type_line("y");
    let sent = sending.end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(
        fs::read(bob.inbox.join("file")).expect("the file"),
        b"content"
    );
    drop(asked);
}

#[test]
fn what_was_typed_for_one_offer_answers_no_other() {
    for (before, after) in [("y", "\n"), ("", "y\n"), ("", "\n"), ("y", "y\n")] {
        let scene = Scene::on_loopback();
        let (alice, bob) = alice_and_bob(&scene);
        let carol = scene.peer("carol");
        let mut receiving = asking(&bob);
        let from_alice = alice.send("bob", &[&scene.file("hers", b"hers")]);
        receiving.event("offered", SOON);
        let mut from_carol = carol.send("bob", &[&scene.file("other", b"other")]);
        from_carol.event("waiting", SOON);
        receiving.event("connected", SOON);
        receiving.type_keys(before);
        from_alice.interrupt();
        receiving.event("offered", SOON);
        receiving.type_keys(after);
        // Only now somebody decides.
        loop {
            let line = receiving.line(SOON);
            if line.contains("from carol? [y/N") {
                break;
            }
        }
        receiving.event_within("nothing", Duration::from_millis(600));
        receiving.type_line("n");
        let declined = from_carol.end(SOON);
        assert_ended(&declined, 5, "declined", "declined");
        assert_eq!(
            fs::read_dir(&bob.inbox).expect("the inbox").count(),
            0,
            "{before:?} {after:?}"
        );
    }
}

// What is shown.

#[test]
fn words_of_others_stand_behind_a_gutter() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let inbox = text(&bob.inbox).to_owned();
    let mut command = for_people(
        &bob,
        &["receive", "--into", &inbox, "--accept", "all", "--once"],
    );
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let receiving = command.spawn().expect("pinhole");
    let words = "x\ncarol writes:\n✓ bank.pdf from carol into /home\r\n\u{9b}2Jy";
    let sent = alice
        .start(&["send", "--wait", "bob", "--text", words])
        .end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    let received = receiving.wait_with_output().expect("its end");
    let expected = [
        "│ x",
        "│ carol writes:",
        "│ ✓ bank.pdf from carol into /home",
        "│ \\u{9b}2Jy",
    ];
    let received = shown(&received.stdout);
    assert_eq!(received.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn names_that_move_the_cursor_are_written_out() {
    let scene = Scene::on_loopback();
    let alice = scene.peer("alice");
    let name = "k\u{1b}[2J\u{9b}x\u{202e}\ny";
    let link = scene.folder.path().join(name);
    std::os::unix::fs::symlink("x", &link).expect("a link");
    let missing = scene.folder.path().join(format!("none{name}"));
    let option = format!("--{name}");
    for argument in [text(&link), text(&missing), &option] {
        let output = run(for_people(&alice, &["send", "bob", argument]));
        assert_ne!(output.status.code(), Some(0));
        let said = shown(&output.stderr);
        let json = run(alice.command(&["send", "bob", argument]));
        let told = shown(&json.stdout);
        assert!(told.contains("\"failed\""), "{told}");
        for raw in ['\u{1b}', '\u{9b}', '\u{202e}'] {
            assert!(!said.contains(raw), "{said:?}");
            assert!(!told.contains(raw), "{told:?}");
        }
        assert!(!said.lines().any(|line| line.starts_with('y')), "{said}");
    }
}

#[test]
fn a_locale_of_ascii_is_shown_ascii() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let receiving = bob.receive(&["--once"]);
    let file = scene.file("猫.txt", b"content");
    let mut command = for_people(&alice, &["send", "bob", text(&file)]);
    command.env("LC_ALL", "C");
    let sent = run(command);
    assert_eq!(sent.status.code(), Some(0));
    assert_eq!(receiving.end(SOON).code, Some(0));
    let said = shown(&sent.stdout) + &shown(&sent.stderr);
    assert!(
        said.is_ascii() && said.contains("ok: \\u{732b}.txt to bob"),
        "{said}"
    );
    for (arguments, locale) in [
        (&["history"][..], "C"),
        (&["--help"], "POSIX"),
        (&["help", "send"], "C"),
        (&["help", "receive"], "C"),
        (&["help", "peers"], "C"),
        (&["help", "trust"], "C"),
        (&["help", "contacts"], "C"),
        (&["help", "recovery"], "C"),
        (&["help", "recover"], "C"),
        (&["help", "doctor"], "C"),
    ] {
        let mut command = for_people(&alice, arguments);
        command.env("LC_ALL", locale);
        let output = run(command);
        assert!(output.stdout.is_ascii(), "{}", shown(&output.stdout));
    }
}

#[test]
fn a_terminal_that_cannot_draw_is_told_in_lines() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let _receiving = bob.receive(&[]);
    let file = scene.folder.path().join("large");
    tree::write_file(&file, 4_000_000, 7).expect("a file");
    for (columns, term) in [(80, "dumb"), (5, "xterm")] {
        let sent = for_people(&alice, &["send", "--limit", "4M", "bob", text(&file)]);
        let words = [sent.get_program()].into_iter().chain(sent.get_args());
        let words: Vec<&str> = words.map(|word| word.to_str().expect("UTF-8")).collect();
        let line = format!(
            "stty cols {columns} rows 24; TERM={term} PINHOLE_NO_NEARBY=1 {}",
            words.join(" ")
        );
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]);
        let output = run(command);
        let said = shown(&output.stdout);
        assert!(said.contains("% of large to bob"), "{term}: {said}");
        assert!(!said.contains('\u{1b}'), "{term}: {said:?}");
    }
}

#[test]
fn a_log_in_a_file_has_no_colours() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let mut command = bob.command(&["receive", "--strangers", "ask"]);
    command.env("PINHOLE_LOG", "info");
    let mut receiving = Process::start("bob", command);
    receiving.event("logged_in", SOON);
    let sent = alice.send("bob", &[&scene.file("f", b"f")]).end(SOON);
    assert_eq!(sent.code, Some(5), "{sent:#?}");
    receiving.event("asked", SOON);
    receiving.signal("TERM");
    let said = receiving.end(SOON).errors;
    assert!(said.contains("refused an invitation"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said:?}");
}

#[test]
fn a_question_is_put_where_the_user_sees_it() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let inbox = text(&bob.inbox).to_owned();
    let command = for_people(&bob, &["receive", "--into", &inbox, "--once"]);
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    let words: Vec<&str> = words.map(|word| word.to_str().expect("UTF-8")).collect();
    let log = scene.folder.path().join("log");
    let line = format!(
        "PINHOLE_NO_NEARBY=1 {} 2> {}",
        words.join(" "),
        log.display()
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]);
    let mut receiving = Process::on_terminal("sh", &shell);
    let sending = alice.start(&[
        "send",
        "--wait",
        "bob",
        text(&scene.file("file", b"content")),
    ]);
    loop {
        if receiving.line(SOON).contains("file") {
            break;
        }
    }
    receiving.type_line("y");
    let sent = sending.end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert!(bob.inbox.join("file").exists());
}

// What is asked for.

#[test]
fn arguments_that_make_no_sense_are_json_where_it_is_asked_for() {
    let scene = Scene::on_loopback();
    let alice = scene.peer("alice");
    for (arguments, word) in [
        (&["send"][..], "required"),
        (&["send", "bob", "f", "--path", "x"], "auto, direct, relay"),
        (&["receive", "--max-size", "big"], "500k"),
        (&["nonsense"], "nonsense"),
    ] {
        let ended = alice.start(arguments).end(SOON);
        assert_ended(&ended, 2, "usage", word);
        let said = run(for_people(&alice, arguments));
        assert_eq!(said.status.code(), Some(2));
        assert!(shown(&said.stderr).contains(word), "{said:?}");
    }
}

#[test]
fn an_option_counts_whatever_its_variable_says() {
    let scene = Scene::on_loopback();
    let alice = scene.peer("alice");
    for (variable, value, arguments) in [
        ("PINHOLE_NAME", "NO NAME", &["--name", "anna", "id"][..]),
        ("PINHOLE_NAME", "NO NAME", &["id", "--name=anna"]),
        ("PINHOLE_PATH", "nowhere", &["id", "--path", "direct"]),
    ] {
        let mut command = Command::new(binary("pinhole"));
        command
            .arg("--json")
            .arg("--data-dir")
            .arg(scene.folder.path().join("profile"));
        command.args(arguments).env(variable, value);
        let ended = Process::start("pinhole", command).end(SOON);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:#?}");
    }
    let mut command = for_people(&alice, &["peers"]);
    command.env("PINHOLE_PATH", "nowhere");
    let output = run(command);
    assert_eq!(output.status.code(), Some(2));
    let said = shown(&output.stderr);
    assert!(said.contains("PINHOLE_PATH"), "which variable? {said}");
}

#[test]
fn what_is_named_twice_arrives_once() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let folder = scene.folder.path().join("fo");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("x"), "x").expect("a file");
    let file = scene.file("a", b"a");
    let receiving = bob.receive(&["--once"]);
    let slash = format!("{}/", text(&folder));
    let again = format!("{slash}../a");
    let arguments = [
        "send",
        "bob",
        text(&file),
        text(&file),
        &again,
        text(&folder),
        &slash,
    ];
    let sent = alice.start(&arguments).end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(sent.event("completed")["files"], 2);
    assert_eq!(receiving.end(SOON).code, Some(0));
    let arrived = tree::read(&bob.inbox).expect("what arrived");
    assert_eq!(arrived.keys().collect::<Vec<_>>(), ["a", "fo", "fo/x"]);
}

#[test]
fn a_tilde_is_the_home_folder() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let home = scene.folder.path().join("home");
    fs::create_dir(&home).expect("a folder");
    let mut command = bob.command(&["receive", "--into=~/in", "--accept", "all", "--once"]);
    command.env("HOME", &home).current_dir(scene.folder.path());
    let mut receiving = Process::start("bob", command);
    receiving.event("logged_in", SOON);
    let sent = alice.send("bob", &[&scene.file("f", b"f")]).end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(receiving.end(SOON).code, Some(0));
    assert!(home.join("in/f").exists() && !scene.folder.path().join("~").exists());
}

// What is said.

#[test]
fn who_is_online_cannot_be_told_without_the_server() {
    let mut scene = Scene::on_loopback();
    let alice = scene.peer("alice");
    scene.stop_server();
    let ended = alice.start(&["peers"]).end(SOON);
    assert_eq!(ended.code, Some(6), "{ended:#?}");
    let reason = ended.event("failed")["reason"].clone();
    let reason = reason.as_str().expect("a reason");
    assert!(!reason.contains("os error"), "{reason}");
}

#[test]
fn a_size_beside_the_limit_is_told_exactly() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let mut receiving = bob.receive(&["--max-size", "3000"]);
    let large = scene.file("large", &[1; 3001]);
    assert_eq!(alice.send("bob", &[&large]).end(SOON).code, Some(5));
    let told = receiving.event("failed", SOON);
    let reason = told["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("3001 bytes") && reason.contains("3000"),
        "{reason}"
    );
}

// How it ends.

#[test]
fn a_service_that_is_stopped_has_not_failed() {
    for signal in ["TERM", "HUP"] {
        let scene = Scene::on_loopback();
        let (alice, bob) = alice_and_bob(&scene);
        let mut receiving = bob.receive(&[]);
        let file = scene.folder.path().join("large");
        tree::write_file(&file, 8_000_000, 7).expect("a file");
        let sending = alice.start(&["send", "--limit", "2M", "bob", text(&file)]);
        while receiving.event("progress", SOON)["bytes"].as_u64() < Some(2_200_000) {}
        receiving.signal(signal);
        let ended = receiving.end(SOON);
        assert_ended(&ended, 0, "interrupted", "is kept");
        assert_ended(&sending.end(SOON), 5, "interrupted_by_peer", "stopped");
        let parts = fs::read_dir(&bob.inbox).expect("the inbox").count();
        assert_eq!(parts, 1, "what has arrived is kept");
        // What was to be sent was not.
        let sending = alice.start(&["send", "--wait", "bob", text(&file)]);
        let mut sending = sending;
        sending.event("waiting", SOON);
        sending.signal(signal);
        assert_eq!(sending.wait(SOON), Some(130), "{signal}");
    }
}

#[test]
fn who_is_to_survive_its_terminal_does() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let inbox = text(&bob.inbox).to_owned();
    let pinhole = bob.command(&["receive", "--into", &inbox, "--accept", "all"]);
    let mut command = Command::new("nohup");
    command.arg(pinhole.get_program()).args(pinhole.get_args());
    command.env("PINHOLE_NO_NEARBY", "1");
    let mut receiving = Process::start("nohup", command);
    receiving.event("logged_in", SOON);
    receiving.signal("HUP");
    let sent = alice.send("bob", &[&scene.file("f", b"f")]).end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    receiving.signal("TERM");
    assert_eq!(receiving.wait(SOON), Some(0));
}

/// A name that is no text.
#[test]
fn a_name_that_is_no_text_can_be_sent() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let name = std::ffi::OsString::from_vec(b"n\xff".to_vec());
    let path: PathBuf = scene.folder.path().join(name);
    fs::write(&path, "content").expect("a file");
    let receiving = bob.receive(&["--once"]);
    let mut command = alice.command(&["send", "bob"]);
    command.arg(&path).arg(&path);
    let sent = Process::start("alice", command).end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(receiving.end(SOON).code, Some(0));
}
