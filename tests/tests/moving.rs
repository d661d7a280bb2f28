//! What happens on the road while a file travels: paths that get better, that
//! break, and that come back. With the real binaries behind real NATs.
//!
//! Each test prints how long nothing arrived, and how long after the network's
//! return something new did. By day the files are small and the line is slow,
//! so that what happens does so in the midst; by night they have 2 GiB.
#![cfg(target_os = "linux")]
#![allow(clippy::indexing_slicing)]

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use pinhole_tests::lab::{self, Host, Lab, Line, Plan, Router};
use pinhole_tests::process::{EndedProcess, Process};
use pinhole_tests::scene::{SOON, Scene};

const MIB: u64 = 1024 * 1024;
/// Of the line between each site and the internet.
const DELAY: Duration = Duration::from_millis(25);
const RTT_MS: u32 = 100;
/// New bytes arrive again so soon after the return of the network at the latest, on
/// the old way or, where that is lost for good, on another.
const AFTER_RETURN: Duration = Duration::from_secs(2);

/// How much travels, how fast, and how long things stand still.
#[derive(Clone, Copy)]
struct Scale {
    bytes: u64,
    mbit: u32,
    stopped: Duration,
}

const BY_DAY: Scale = Scale {
    bytes: 48 * MIB,
    mbit: 60,
    stopped: Duration::from_secs(8),
};
const BY_NIGHT: Scale = Scale {
    bytes: 2048 * MIB,
    mbit: 400,
    stopped: Duration::from_secs(60),
};
/// A line that is cut that long.
const CUT: Duration = Duration::from_secs(20);

/// A transfer under way.
struct Road<'a> {
    lab: &'a Lab,
    scale: Scale,
    scene: Scene,
    sending: Process,
    receiving: Process,
}

impl Road<'_> {
    /// What is under way at most: in both send buffers, in the queues of the
    /// line and on it, and the chunk that is being written.
    const IN_FLIGHT: u64 = 16 * MIB;
}

/// How a transfer went on that was disturbed.
struct Story {
    sent: EndedProcess,
    received: EndedProcess,
    /// The longest time in which nothing new arrived.
    stall: Duration,
    /// From the return of the network to the end of that time.
    after_return: Duration,
    resent: u64,
}

impl Story {
    /// That a connection is lost is said before that another is there.
    fn is_told_in_order(&self) {
        let mut events = self.sent.events.iter();
        let lost = events.rposition(|event| event["event"] == "reconnecting");
        let mut events = self.sent.events.iter();
        let there = events.rposition(|event| event["event"] == "connected");
        assert!(lost < there, "{:#?}", without_progress(&self.sent));
    }

    fn goes_on_soon(&self) {
        assert!(
            self.after_return < AFTER_RETURN,
            "{:?}\n{}\n{}",
            self.after_return,
            self.sent.errors,
            self.received.errors
        );
    }
}

/// Numbers that are nowhere the same, without holding them all in memory.
fn write_content(path: &Path, bytes: u64) {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).expect("a file"));
    for number in 0..bytes / 8 {
        let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        file.write_all(&number.to_le_bytes()).expect("writing");
    }
    file.flush().expect("writing");
}

fn equal(a: &Path, b: &Path) -> bool {
    let [a, b] = [a, b].map(|path| File::open(path).expect("a file"));
    let len = |file: &File| file.metadata().expect("metadata").len();
    if len(&a) != len(&b) {
        return false;
    }
    let mut readers = [a, b].map(|file| BufReader::with_capacity(1 << 20, file));
    let [mut left, mut right] = [[0; 65536]; 2];
    loop {
        let read = readers[0].read(&mut left).expect("reading");
        if read == 0 {
            return true;
        }
        readers[1].read_exact(&mut right[..read]).expect("reading");
        if left[..read] != right[..read] {
            return false;
        }
    }
}

/// Waits until this much has arrived.
fn arrived(receiving: &mut Process, bytes: u64) {
    while receiving.event("progress", SOON)["bytes"].as_u64() < Some(bytes) {}
}

/// The times at which more had arrived than ever before. What had come of a chunk
/// when a connection broke comes again, and is none.
fn news(received: &EndedProcess) -> Vec<Instant> {
    let mut most = 0;
    let mut times = Vec::new();
    for (event, at) in received.events.iter().zip(&received.times) {
        let bytes = event["bytes"].as_u64().unwrap_or(0);
        if event["event"] == "reconnecting" || event["event"] == "connected" {
            most -= most % MIB;
        }
        let is_news = event["event"] == "progress" && bytes > most;
        if is_news || event["event"] == "completed" {
            most = bytes.max(most);
            times.push(*at);
        }
    }
    times
}

/// Sends a file through two home routers and does something to it when a
/// quarter has arrived, which returns when the network was whole again.
fn disturbed(scale: Scale, name: &str, begins: &str, act: fn(&mut Road) -> Instant) -> Story {
    let plan = Plan::two_sites(Router::HOME, Router::HOME).delayed(DELAY);
    let lab = Lab::build(plan);
    lab.limit(scale.mbit, RTT_MS);
    let scene = Scene::in_lab(&lab);
    let bob = scene.peer_in(&lab, Host::B, "bob");
    let alice = scene.peer_in(&lab, Host::A, "alice");
    let file: PathBuf = scene.folder.path().join("film");
    write_content(&file, scale.bytes);
    if begins == "relay" {
        lab.part();
    }
    let receiving = bob.receive(&["--once"]);
    let sending = alice.send("bob", &[&file]);
    let mut road = Road {
        lab: &lab,
        scale,
        scene,
        sending,
        receiving,
    };
    let connected = road.receiving.event("connected", SOON);
    assert_eq!(connected["path"], begins, "{connected}");
    arrived(&mut road.receiving, scale.bytes / 4);

    let back = act(&mut road);
    let patience = SOON * 6;
    let (sent, received) = (road.sending.end(patience), road.receiving.end(patience));
    assert_eq!(
        (sent.code, received.code),
        (Some(0), Some(0)),
        "{name}: {:#?} {} {:#?} {}",
        without_progress(&sent),
        sent.errors,
        without_progress(&received),
        received.errors
    );
    assert!(equal(&bob.inbox.join("film"), &file), "{name}: not equal");
    let left = fs::read_dir(&bob.inbox).expect("the inbox").count();
    assert_eq!(left, 1, "{name}: nothing else is left");

    let news = news(&received);
    let gaps = news.windows(2).map(|pair| (pair[1] - pair[0], pair[1]));
    let (stall, ended) = gaps.max().expect("more than one line");
    let story = Story {
        stall,
        after_return: ended.saturating_duration_since(back),
        resent: received.event("completed")["resent_bytes"]
            .as_u64()
            .expect("a number"),
        sent,
        received,
    };
    println!(
        "{name}: nothing new for {:.2} s, {:.2} s after the return; {} bytes sent again; \
         {} sessions, {:?} at the end",
        story.stall.as_secs_f64(),
        story.after_return.as_secs_f64(),
        story.resent,
        count(&story.received, "connected"),
        story.received.event("completed")["path"].as_str()
    );
    assert!(
        story.resent <= Road::IN_FLIGHT,
        "{name}: {} sent again",
        story.resent
    );
    story
}

fn without_progress(ended: &EndedProcess) -> Vec<&serde_json::Value> {
    let events = ended.events.iter();
    events
        .filter(|event| event["event"] != "progress")
        .collect()
}

fn count(ended: &EndedProcess, name: &str) -> usize {
    let events = ended.events.iter();
    events.filter(|event| event["event"] == name).count()
}

/// One thing that happens, and what must be true of how it went on.
struct Case {
    name: &'static str,
    begins: &'static str,
    act: fn(&mut Road) -> Instant,
    holds: fn(&Story),
}

const TOGETHER: Case = Case {
    name: "a direct path opens",
    begins: "relay",
    act: |road| {
        road.lab.join();
        Instant::now()
    },
    holds: |story| {
        assert_eq!(story.resent, 0);
        assert_eq!(count(&story.sent, "reconnecting"), 0);
        assert_eq!(story.received.event("moved")["path"], "punched");
        assert_eq!(story.received.event("completed")["path"], "punched");
        assert!(story.stall < Duration::from_secs(1), "{:?}", story.stall);
    },
};

const SENDERS_NAT_REBOOTS: Case = Case {
    name: "the sender's NAT reboots",
    begins: "punched",
    act: |road| {
        road.lab.reboot(Host::A);
        Instant::now()
    },
    holds: |story| {
        story.goes_on_soon();
        story.is_told_in_order();
    },
};

const RECEIVERS_NAT_REBOOTS: Case = Case {
    name: "the receiver's NAT reboots",
    begins: "punched",
    act: |road| {
        road.lab.reboot(Host::B);
        Instant::now()
    },
    holds: Story::goes_on_soon,
};

const SENDER_IS_RENUMBERED: Case = Case {
    name: "the sender gets a new public address",
    begins: "punched",
    act: |road| {
        road.lab.renumber(Host::A);
        Instant::now()
    },
    holds: Story::goes_on_soon,
};

const RECEIVER_IS_RENUMBERED: Case = Case {
    name: "the receiver gets a new public address",
    begins: "punched",
    act: |road| {
        road.lab.renumber(Host::B);
        Instant::now()
    },
    holds: Story::goes_on_soon,
};

const LINE_IS_CUT: Case = Case {
    name: "the sender's line is down for 20 s",
    begins: "punched",
    act: |road| {
        let whole = Line::delayed(DELAY);
        let cut = Line {
            loss_percent: 100,
            ..whole
        };
        road.lab.set_line(Host::A, cut);
        thread::sleep(CUT);
        road.lab.set_line(Host::A, whole);
        Instant::now()
    },
    holds: Story::goes_on_soon,
};

const CABLE_IS_PULLED: Case = Case {
    name: "the receiver's cable is out for 20 s",
    begins: "punched",
    act: |road| {
        road.lab.unplug(Host::B);
        thread::sleep(CUT);
        road.lab.replug(Host::B);
        Instant::now()
    },
    holds: Story::goes_on_soon,
};

fn restart_server(road: &mut Road) -> Instant {
    road.scene.kill_server();
    thread::sleep(Duration::from_secs(2));
    road.scene.start_server_in(road.lab);
    Instant::now()
}

const SERVER_RESTARTS_BESIDE: Case = Case {
    name: "the server restarts during a direct transfer",
    begins: "punched",
    act: restart_server,
    holds: |story| {
        assert_eq!(story.resent, 0);
        assert_eq!(count(&story.sent, "reconnecting"), 0);
        assert!(story.stall < Duration::from_secs(1), "{:?}", story.stall);
    },
};

const SERVER_RESTARTS_BETWEEN: Case = Case {
    name: "the server restarts during a relayed transfer",
    begins: "relay",
    act: restart_server,
    holds: Story::goes_on_soon,
};

/// A line that loses a packet in twenty, with 300 ms between the two sides: a bad
/// one, but the one there is.
const LINE_IS_BAD: Case = Case {
    name: "the line is bad for 15 s",
    begins: "punched",
    act: |road| {
        let bad = Line {
            loss_percent: 5,
            ..Line::delayed(DELAY * 5)
        };
        road.lab.set_line(Host::A, bad);
        thread::sleep(Duration::from_secs(15));
        road.lab.set_line(Host::A, Line::delayed(DELAY));
        Instant::now()
    },
    holds: |story| {
        assert_eq!(count(&story.sent, "reconnecting"), 0);
        assert_eq!(story.resent, 0);
    },
};

/// How long things are made hard for a transfer that must bear it.
const HARD_TIME: Duration = Duration::from_secs(15);

/// Whatever was hard, the way was whole, and none was looked for.
fn bears_it(story: &Story) {
    assert_eq!(count(&story.sent, "reconnecting"), 0);
    assert_eq!(count(&story.received, "connected"), 1);
    assert_eq!(story.resent, 0);
}

const MACHINE_IS_BUSY: Case = Case {
    name: "the machine is busy for 15 s",
    begins: "punched",
    act: |_| {
        let end = Instant::now() + HARD_TIME;
        let cores = thread::available_parallelism().map_or(2, usize::from);
        thread::scope(|scope| {
            for _ in 0..4 * cores {
                scope.spawn(|| while Instant::now() < end {});
            }
        });
        end
    },
    holds: bears_it,
};

/// As if its disk took everything in gulps.
const RECEIVER_STUTTERS: Case = Case {
    name: "the receiver stutters for 15 s",
    begins: "punched",
    act: |road| {
        let end = Instant::now() + HARD_TIME;
        while Instant::now() < end {
            stop(&road.receiving, Duration::from_millis(400));
            thread::sleep(Duration::from_millis(200));
        }
        end
    },
    holds: bears_it,
};

fn stop(process: &Process, stopped: Duration) -> Instant {
    process.signal("STOP");
    thread::sleep(stopped);
    process.signal("CONT");
    Instant::now()
}

const RECEIVER_STANDS_STILL: Case = Case {
    name: "the receiver stands still",
    begins: "punched",
    act: |road| stop(&road.receiving, road.scale.stopped),
    holds: Story::goes_on_soon,
};

const SENDER_STANDS_STILL: Case = Case {
    name: "the sender stands still",
    begins: "punched",
    act: |road| stop(&road.sending, road.scale.stopped),
    holds: Story::goes_on_soon,
};

impl Case {
    fn holds_at(&self, scale: Scale) {
        (self.holds)(&disturbed(scale, self.name, self.begins, self.act));
    }

    fn by_day(&self) {
        if !lab::skipped() {
            self.holds_at(BY_DAY);
        }
    }
}

#[test]
fn a_relayed_file_moves_to_a_direct_path_under_way() {
    TOGETHER.by_day();
}

/// A small offer, whose files have come along, waits for its answer meanwhile.
#[test]
fn an_offer_moves_to_a_direct_path_before_it_is_answered() {
    let plan = Plan::two_sites(Router::HOME, Router::HOME).delayed(DELAY);
    let Some(lab) = lab::build_or_skip(plan) else {
        return;
    };
    let scene = Scene::in_lab(&lab);
    let bob = scene.peer_in(&lab, Host::B, "bob");
    let alice = scene.peer_in(&lab, Host::A, "alice");
    let files = ["a", "b"].map(|name| scene.file(name, name.as_bytes()));
    lab.part();
    let inbox = bob.inbox.to_str().expect("a folder in UTF-8").to_owned();
    // A stranger learns no address otherwise before the answer.
    let arguments = [
        "receive",
        "--into",
        &inbox,
        "--accept",
        "ask",
        "--once",
        "--strangers",
        "direct",
    ];
    let mut receiving = Process::on_terminal("bob", &bob.command(&arguments));
    receiving.event("logged_in", SOON);
    let mut sending = alice.send("bob", &[&files[0], &files[1]]);
    assert_eq!(sending.event("connected", SOON)["path"], "relay");
    receiving.event("offered", SOON);
    lab.join();
    for side in [&mut sending, &mut receiving] {
        assert_eq!(side.event("moved", SOON)["path"], "punched");
    }
    receiving.type_line("y");
    let sent = sending.end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(sent.event("completed")["path"], "punched");
    assert_eq!(receiving.wait(SOON), Some(0));
    for file in &files {
        let name = file.file_name().expect("a name");
        assert!(equal(&bob.inbox.join(name), file), "{file:?}");
    }
    assert_eq!(fs::read_dir(&bob.inbox).expect("the inbox").count(), 2);
}

#[test]
fn a_file_survives_a_reboot_of_the_senders_nat() {
    SENDERS_NAT_REBOOTS.by_day();
}

#[test]
fn a_file_survives_a_reboot_of_the_receivers_nat() {
    RECEIVERS_NAT_REBOOTS.by_day();
}

#[test]
fn a_file_survives_a_new_address_of_the_sender() {
    SENDER_IS_RENUMBERED.by_day();
}

#[test]
fn a_file_survives_a_new_address_of_the_receiver() {
    RECEIVER_IS_RENUMBERED.by_day();
}

#[test]
fn a_file_survives_twenty_seconds_without_a_line() {
    LINE_IS_CUT.by_day();
}

#[test]
fn a_file_survives_twenty_seconds_without_a_cable() {
    CABLE_IS_PULLED.by_day();
}

#[test]
fn a_bad_line_is_not_given_up() {
    LINE_IS_BAD.by_day();
}

#[test]
fn a_busy_machine_is_not_given_up() {
    MACHINE_IS_BUSY.by_day();
}

#[test]
fn a_receiver_that_stutters_is_not_given_up() {
    RECEIVER_STUTTERS.by_day();
}

#[test]
fn a_restart_of_the_server_disturbs_no_direct_transfer() {
    SERVER_RESTARTS_BESIDE.by_day();
}

#[test]
fn a_relayed_file_survives_a_restart_of_the_server() {
    SERVER_RESTARTS_BETWEEN.by_day();
}

#[test]
fn a_file_survives_a_receiver_that_stands_still() {
    RECEIVER_STANDS_STILL.by_day();
}

#[test]
fn a_file_survives_a_sender_that_stands_still() {
    SENDER_STANDS_STILL.by_day();
}

#[test]
#[ignore = "takes a quarter of an hour"]
fn two_gibibytes_survive_all_of_it() {
    if lab::skipped() {
        return;
    }
    let cases = [
        TOGETHER,
        SENDERS_NAT_REBOOTS,
        RECEIVERS_NAT_REBOOTS,
        SENDER_IS_RENUMBERED,
        RECEIVER_IS_RENUMBERED,
        LINE_IS_CUT,
        CABLE_IS_PULLED,
        LINE_IS_BAD,
        MACHINE_IS_BUSY,
        RECEIVER_STUTTERS,
        SERVER_RESTARTS_BESIDE,
        SERVER_RESTARTS_BETWEEN,
        RECEIVER_STANDS_STILL,
        SENDER_STANDS_STILL,
    ];
    let failed = cases.iter().filter(|case| {
        let held = AssertUnwindSafe(|| case.holds_at(BY_NIGHT));
        catch_unwind(held).is_err()
    });
    let failed: Vec<&str> = failed.map(|case| case.name).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
