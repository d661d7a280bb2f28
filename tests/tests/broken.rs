//! Transfers whose connection breaks, and what becomes of them: with two engines,
//! the real server, and a line between them that can be cut. Where a disk is to
//! hang, a file system of its own is frozen; that needs root.
#![allow(clippy::indexing_slicing, reason = "a test fails by a panic")]

mod person;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::time::{Duration, Instant};

use person::Person;
use pinhole_client::{AcceptPolicy, Command, Event, Failure, Snapshot, Stage, TransferId};
use pinhole_tests::scene::{SOON, Scene};
use pinhole_tests::tree;
use pinhole_tests::wire::Wire;

/// Alice, who sends slowly, and bob, behind a line that can be cut.
struct Pair {
    scene: Scene,
    wire: Wire,
    alice: Person,
    bob: Person,
}

const MIB: u64 = 1 << 20;

impl Pair {
    async fn new() -> Self {
        let scene = Scene::on_loopback();
        let wire = Wire::to(&scene.server_address);
        let alice = Person::log_in(&scene, "a", "alice").await;
        let bob = Person::log_in_over(&scene, &wire, "b", "bob").await;
        Self {
            scene,
            wire,
            alice,
            bob,
        }
    }

    fn limit(&self, bytes_per_second: u64) {
        self.alice.command(Command::SetLimits {
            send: Some(bytes_per_second),
            receive: None,
        });
    }

    async fn send(&mut self, name: &str, size_bytes: u64) -> PathBuf {
        let file = self.scene.folder.path().join(name);
        tree::write_file(&file, size_bytes, 3).expect("a file");
        self.alice.send("bob", &file).await;
        file
    }

    /// Has bob take a file, and returns when both have begun.
    async fn begin(&mut self, name: &str, size_bytes: u64) -> (PathBuf, TransferId) {
        let file = self.send(name, size_bytes).await;
        let transfer = self.bob.offered().await;
        self.bob.accept(transfer);
        started(&mut self.alice).await;
        started(&mut self.bob).await;
        (file, transfer)
    }

    fn inbox(&self) -> PathBuf {
        self.bob.profile.join("received")
    }

    fn end(self) {
        self.alice.end();
        self.bob.end();
    }
}

async fn started(person: &mut Person) {
    let started = |e: &Event| matches!(e, Event::Started { .. }).then_some(());
    person.event(started).await;
}

/// The first word of a broken connection, or of an end.
async fn breaks(person: &mut Person) {
    person
        .event(|e| match e {
            Event::Reconnecting { .. } => Some(()),
            Event::Finished { failure, .. } => panic!("ended: {failure:?}"),
            _ => None,
        })
        .await;
}

async fn reconnects(person: &mut Person) {
    breaks(person).await;
    started(person).await;
}

/// Something of it is on the disk.
async fn has_come(person: &mut Person, bytes: u64) {
    let come = |s: &Snapshot| s.transfers.iter().any(|t| t.progress.bytes_done >= bytes);
    person.shows(come).await;
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.expect("an entry").file_name();
        name.to_string_lossy().into_owned()
    };
    let mut names: Vec<_> = entries.map(name).collect();
    names.sort();
    names
}

/// Waits until nothing is left in a folder.
async fn becomes_empty(folder: &Path) {
    let begin = Instant::now();
    while !names(folder).is_empty() {
        assert!(begin.elapsed() < SOON, "left: {:?}", names(folder));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A file system of its own, whose writes can be made to hang.
struct Disk {
    place: PathBuf,
    is_frozen: bool,
    // Behind the mount, and so dropped after it.
    _image: tempfile::TempDir,
}

impl Disk {
    /// `None` where that is not to be had.
    fn mounted(at: &Path) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let image = folder.path().join("image");
        let made = fs::File::create(&image).and_then(|file| file.set_len(64 * MIB));
        made.expect("a file");
        fs::create_dir_all(at).expect("a folder");
        let [image, place] = [image.as_path(), at].map(|path| path.to_str().expect("UTF-8"));
        if !run("mkfs.ext4", &["-q", image]) || !run("mount", &["-o", "loop", image, place]) {
            // Past the capture of the test harness.
            let told = "SKIPPED: a disk that hangs, for no file system can be mounted here";
            let _ = writeln!(std::io::stderr(), "{told}");
            return None;
        }
        fs::remove_dir(at.join("lost+found")).expect("an empty folder");
        Some(Self {
            place: at.to_owned(),
            is_frozen: false,
            _image: folder,
        })
    }

    fn freeze(&mut self) {
        assert!(self.run("fsfreeze", "-f"));
        self.is_frozen = true;
    }

    fn thaw(&mut self) {
        assert!(self.run("fsfreeze", "-u"));
        self.is_frozen = false;
    }

    fn run(&self, program: &str, option: &str) -> bool {
        run(program, &[option, self.place.to_str().expect("UTF-8")])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_frozen {
            self.run("fsfreeze", "-u");
        }
        self.run("umount", "-l");
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let status = Program::new(program).args(arguments).status();
    status.is_ok_and(|status| status.success())
}

#[tokio::test]
async fn of_what_has_ended_no_list_is_kept() {
    let mut pair = Pair::new().await;
    for is_taken in [true, false] {
        pair.send("file", 10).await;
        let transfer = pair.bob.offered().await;
        let view = |bob: &Person| {
            let snapshot = bob.client.snapshot();
            let mut all = snapshot.transfers.iter();
            all.find(|t| t.id == transfer)
                .expect("the transfer")
                .clone()
        };
        assert_eq!(view(&pair.bob).offer.entries.len(), 1);
        match is_taken {
            true => pair.bob.accept(transfer),
            false => pair.bob.command(Command::Cancel { transfer }),
        }
        pair.bob.finished().await;
        let offer = view(&pair.bob).offer;
        assert_eq!((offer.entries.len(), offer.top_level.len()), (0, 0));
        assert_eq!((offer.title.as_str(), offer.files), ("file", 1));
    }
    pair.end();
}

#[tokio::test]
async fn what_is_cancelled_between_two_connections_leaves_nothing() {
    let mut pair = Pair::new().await;
    pair.limit(4 * MIB);
    let (_, transfer) = pair.begin("file", 64 * MIB).await;
    has_come(&mut pair.bob, 2 * MIB).await;
    pair.wire.down();
    breaks(&mut pair.bob).await;
    assert_ne!(names(&pair.inbox()), [""; 0]);
    pair.bob.command(Command::Cancel { transfer });
    assert_eq!(pair.bob.finished().await, Some(Failure::Cancelled));
    becomes_empty(&pair.inbox()).await;
    pair.end();
}

#[tokio::test]
async fn what_is_cancelled_while_it_is_put_away_leaves_nothing() {
    let mut pair = Pair::new().await;
    let Some(mut disk) = Disk::mounted(&pair.inbox()) else {
        return;
    };
    pair.limit(4 * MIB);
    let (_, transfer) = pair.begin("file", 32 * MIB).await;
    has_come(&mut pair.bob, 2 * MIB).await;
    disk.freeze();
    // Alice is back before bob's disk has let go.
    pair.wire.cut();
    breaks(&mut pair.alice).await;
    let offered_again = |s: &Snapshot| matches!(s.transfers[0].stage, Stage::AwaitingAnswer);
    pair.alice.shows(offered_again).await;
    // What comes behind it says that it has come.
    pair.send("next", 10).await;
    pair.bob.offered().await;
    pair.bob.command(Command::Cancel { transfer });
    assert_eq!(pair.bob.finished().await, Some(Failure::Cancelled));
    let told = pair.alice.finished().await;
    assert!(
        matches!(told, Some(Failure::CancelledByPeer { .. })),
        "{told:?}"
    );
    disk.thaw();
    becomes_empty(&pair.inbox()).await;
    pair.end();
}

#[tokio::test]
async fn a_second_break_is_no_end_for_the_sender() {
    let mut pair = Pair::new().await;
    pair.limit(4 * MIB);
    let (file, _) = pair.begin("file", 16 * MIB).await;
    has_come(&mut pair.bob, 2 * MIB).await;
    pair.wire.down();
    breaks(&mut pair.alice).await;
    breaks(&mut pair.bob).await;
    // The next bob knows nothing of it, and asks.
    pair.bob.end();
    pair.wire.up();
    pair.bob = Person::log_in_over(&pair.scene, &pair.wire, "b", "bob").await;
    pair.bob.offered().await;
    pair.wire.cut();
    breaks(&mut pair.alice).await;
    let transfer = pair.bob.offered().await;
    pair.bob.accept(transfer);
    assert_eq!(pair.alice.finished().await, None);
    assert!(pair.bob.received("file") == fs::read(file).expect("the original"));
    assert_eq!(names(&pair.inbox()), ["file"]);
    pair.end();
}

#[tokio::test]
async fn a_second_break_is_no_end_for_the_receiver() {
    let mut pair = Pair::new().await;
    let Some(mut disk) = Disk::mounted(&pair.inbox()) else {
        return;
    };
    pair.limit(4 * MIB);
    let (file, _) = pair.begin("file", 16 * MIB).await;
    has_come(&mut pair.bob, 2 * MIB).await;
    pair.wire.down();
    breaks(&mut pair.bob).await;
    breaks(&mut pair.alice).await;
    disk.freeze();
    pair.wire.up();
    let offered_again = |s: &Snapshot| matches!(s.transfers[0].stage, Stage::AwaitingAnswer);
    pair.alice.shows(offered_again).await;
    pair.wire.cut();
    breaks(&mut pair.alice).await;
    pair.alice.shows(offered_again).await;
    disk.thaw();
    started(&mut pair.bob).await;
    assert_eq!(pair.alice.finished().await, None);
    assert_eq!(pair.bob.finished().await, None);
    assert!(pair.bob.received("file") == fs::read(file).expect("the original"));
    assert_eq!(names(&pair.inbox()), ["file"]);
    pair.end();
}

#[tokio::test]
async fn a_last_word_that_is_lost_costs_no_second_copy() {
    let mut pair = Pair::new().await;
    pair.limit(2 * MIB);
    let (file, _) = pair.begin("file", 2 * MIB + 7).await;
    pair.wire.mute();
    assert_eq!(pair.bob.finished().await, None);
    // As `pinhole receive` does.
    let transfer = pair.bob.client.snapshot().transfers[0].id;
    pair.bob.command(Command::Dismiss { transfer });
    // It is his by now: nothing of it is looked at or put back.
    assert!(pair.bob.received("file") == fs::read(&file).expect("the original"));
    fs::write(pair.inbox().join("file"), "edited").expect("bob's file");
    pair.wire.cut();
    breaks(&mut pair.alice).await;
    assert_eq!(pair.alice.finished().await, None);
    let Stage::Completed(done) = pair.alice.client.snapshot().transfers[0].stage.clone() else {
        panic!("not completed");
    };
    assert_eq!(
        (done.files, done.skipped_files, done.resent_bytes),
        (1, 0, 0)
    );
    assert_eq!(pair.bob.received("file"), b"edited");
    assert_eq!(names(&pair.inbox()), ["file"]);
    // Sent again by the user it is another offer.
    pair.alice.send("bob", &file).await;
    let transfer = pair.bob.offered().await;
    pair.bob.accept(transfer);
    assert_eq!(pair.alice.finished().await, None);
    assert_eq!(names(&pair.inbox()), ["file", "file (1)"]);
    pair.end();
}

#[tokio::test]
async fn a_pause_outlives_its_connection() {
    let mut pair = Pair::new().await;
    pair.limit(4 * MIB);
    let (file, transfer) = pair.begin("file", 16 * MIB).await;
    has_come(&mut pair.bob, 2 * MIB).await;
    let is_paused = |wanted: bool| {
        move |s: &Snapshot| {
            let view = &s.transfers[0];
            matches!(view.stage, Stage::Transferring) && view.progress.paused.by_us == wanted
        }
    };
    let told = |wanted: bool| {
        move |e: &Event| match e {
            Event::PausedByPeer { paused, .. } => (*paused == wanted).then_some(()),
            _ => None,
        }
    };
    pair.bob.command(Command::Pause {
        transfer,
        paused: true,
    });
    pair.alice.event(told(true)).await;
    pair.wire.cut();
    reconnects(&mut pair.alice).await;
    pair.alice.event(told(true)).await;
    pair.bob.shows(is_paused(true)).await;
    // Or is taken back meanwhile.
    pair.wire.down();
    breaks(&mut pair.bob).await;
    pair.bob.command(Command::Pause {
        transfer,
        paused: false,
    });
    pair.wire.up();
    assert_eq!(pair.alice.finished().await, None);
    assert!(pair.bob.received("file") == fs::read(file).expect("the original"));
    pair.end();
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_only_what_is_for_it() {
    let mut pair = Pair::new().await;
    let Some(mut disk) = Disk::mounted(&pair.inbox()) else {
        return;
    };
    let elsewhere = pair.scene.folder.path().join("elsewhere");
    pair.send("first", 10).await;
    let first = pair.bob.offered().await;
    pair.send("second", 10).await;
    let second = pair.bob.offered().await;
    disk.freeze();
    pair.bob.accept(first);
    pair.bob.command(Command::Accept {
        transfer: second,
        into: Some(elsewhere.clone()),
        unwanted: std::collections::BTreeSet::new(),
        existing: None,
    });
    assert_eq!(pair.bob.finished().await, None);
    assert_eq!(names(&elsewhere), ["second"]);
    assert_eq!(pair.alice.finished().await, None);
    // And that can be cancelled.
    pair.bob.command(Command::Cancel { transfer: first });
    assert_eq!(pair.bob.finished().await, Some(Failure::Cancelled));
    let told = pair.alice.finished().await;
    assert!(
        matches!(told, Some(Failure::CancelledByPeer { .. })),
        "{told:?}"
    );
    disk.thaw();
    becomes_empty(&pair.inbox()).await;
    // Whoever is asked nothing is not held up either.
    pair.bob.command(Command::SetAcceptPolicy {
        policy: AcceptPolicy::All,
    });
    pair.send("third", 10).await;
    assert_eq!(pair.bob.finished().await, None);
    assert_eq!(names(&pair.inbox()), ["third"]);
    pair.end();
}
