//! A crowd of strangers against one person, while those whom the person knows send.
#![cfg(target_os = "linux")]

mod person;
mod rogue;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use person::Person;
use pinhole_client::PeerIdentity;
use pinhole_tests::process::{Process, binary};
use pinhole_tests::scene::{SOON, Scene};
use pinhole_transfer::{ResumeState, Source};
use rogue::Rogue;

const STRANGERS: usize = 16;
const SESSIONS_OF_ONE: usize = 8;
const FRIENDS: usize = 20;
const ROUNDS_ALONE: usize = 8;
const FILE_BYTES: usize = 4 * 1024 * 1024;
/// Offers of so many entries, several for each stranger, are more than all may wait.
const ENTRIES: usize = 5_000;
const MEMORY_MAX_KIB: u64 = 256 * 1024;

/// What the process has in memory.
fn memory_kib(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("a process");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.expect("VmRSS").trim().trim_end_matches(" kB");
    resident.parse().expect("a number")
}

/// Friends whom bob has chosen once, and bob, who now takes what they send.
struct Circle {
    friends: Vec<Person>,
    files: Vec<PathBuf>,
    bob: Process,
    who: PeerIdentity,
}

impl Circle {
    async fn meet(scene: &mut Scene) -> Self {
        let hello = scene.file("hello.txt", b"hello");
        let mut bob = Person::log_in(scene, "b", "bob").await;
        let mut friends = Vec::new();
        for number in 0..FRIENDS {
            let name = format!("friend{number}");
            let mut friend = Person::log_in(scene, &name, &name).await;
            friend.send("bob", &hello).await;
            let offer = bob.offered().await;
            bob.accept(offer);
            assert_eq!(friend.finished().await, None);
            friends.push(friend);
        }
        let who = PeerIdentity {
            name: "bob".parse().expect("a name"),
            key: bob.client.snapshot().key,
        };
        let profile = bob.profile.clone();
        bob.end();
        let mut command = Command::new(binary("pinhole"));
        command.arg("--data-dir").arg(profile);
        command.args([
            "--server",
            &scene.server_address,
            "--name",
            "bob",
            "--no-nearby",
        ]);
        command.args(["--json", "receive", "--accept", "contacts", "--into"]);
        command.arg(scene.folder.path().join("inbox"));
        let mut bob = Process::start("bob", command);
        bob.event("logged_in", SOON);
        let files = (0..FRIENDS).map(|number| {
            let content = vec![u8::try_from(number).expect("few"); FILE_BYTES];
            scene.file(&format!("from{number}.bin"), &content)
        });
        Self {
            friends,
            files: files.collect(),
            bob,
            who,
        }
    }

    /// All send at once. Returns how long the slowest took.
    async fn send_all(&mut self) -> Duration {
        let begun = Instant::now();
        for (friend, file) in self.friends.iter_mut().zip(&self.files) {
            friend.send("bob", file).await;
        }
        for friend in &mut self.friends {
            assert_eq!(friend.finished().await, None);
        }
        begun.elapsed()
    }
}

/// Does all that a stranger can, over and over, until told to end.
async fn swarm(rogue: Rogue, bob: PeerIdentity, folder: PathBuf, ended: Arc<AtomicBool>) {
    let mut raids = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        if raids.len() < SESSIONS_OF_ONE {
            let raid = rogue.try_raid(&bob).await;
            if let Some(raid) = raid {
                for _ in 0..2 {
                    let source = Source::scan(std::slice::from_ref(&folder)).expect("a source");
                    // A session that is over refuses, and the next one tries.
                    let fresh = ResumeState::default();
                    let _ = raid.exchange.send_resumable(source, &fresh);
                }
                raids.push(raid);
            }
        }
        raids.retain_mut(|raid| !raid.is_over());
        for raid in &raids {
            let _ = raid.exchange.send_text("look here".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn many_files(scene: &Scene) -> PathBuf {
    let folder = scene.folder.path().join("many");
    fs::create_dir(&folder).expect("a folder");
    for number in 0..ENTRIES {
        fs::write(folder.join(format!("a rather long name {number}")), b"").expect("a file");
    }
    folder
}

/// The crowd comes and goes. Returns bob and his friends, and what bob's process had in
/// memory before.
async fn a_crowd_for(scene: &mut Scene, time: Duration) -> (Circle, u64) {
    let mut circle = Circle::meet(scene).await;
    // The slowest of some rounds, for in the crowd it is the slowest of many.
    let mut alone = Duration::ZERO;
    for _ in 0..ROUNDS_ALONE {
        alone = alone.max(circle.send_all().await);
    }
    let before = memory_kib(&circle.bob);

    let ended = Arc::new(AtomicBool::new(false));
    let folder = many_files(scene);
    let mut crowd = Vec::new();
    for number in 0..STRANGERS {
        let rogue = Rogue::log_in(scene, &format!("rogue{number}")).await;
        let (bob, folder, ended) = (circle.who.clone(), folder.clone(), ended.clone());
        crowd.push(tokio::spawn(swarm(rogue, bob, folder, ended)));
    }
    let until = Instant::now() + time;
    let (mut slowest, mut most, mut rounds) = (Duration::ZERO, 0, 0);
    while rounds == 0 || Instant::now() < until {
        slowest = slowest.max(circle.send_all().await);
        most = most.max(memory_kib(&circle.bob));
        rounds += 1;
    }
    ended.store(true, Ordering::Relaxed);
    for stranger in crowd {
        stranger.await.expect("a stranger that ends");
    }
    println!(
        "alone {alone:?}, in the crowd {slowest:?} ({rounds} rounds), {before} KiB before, {most} KiB at most"
    );
    assert!(
        slowest < 3 * alone,
        "alone {alone:?}, in the crowd {slowest:?}"
    );
    assert!(most < MEMORY_MAX_KIB, "{most} KiB");

    let taken = fs::read_dir(scene.folder.path().join("inbox")).expect("an inbox");
    let of_strangers = |path: &Path| path.to_string_lossy().contains("many");
    let mut taken = taken.map(|entry| entry.expect("an entry").path());
    assert!(
        !taken.any(|path| of_strangers(&path)),
        "nobody said yes to a stranger"
    );
    (circle, before)
}

fn part(friends: Vec<Person>) {
    for friend in friends {
        friend.end();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_strangers_keeps_no_friend_out() {
    let mut scene = Scene::on_loopback();
    let (circle, _) = a_crowd_for(&mut scene, Duration::from_secs(5)).await;
    part(circle.friends);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute and more: tests/nightly.sh"]
async fn a_crowd_of_strangers_keeps_no_friend_out_for_a_minute() {
    let mut scene = Scene::on_loopback();
    let (circle, before) = a_crowd_for(&mut scene, Duration::from_secs(60)).await;
    let given_back = Instant::now() + Duration::from_secs(60);
    while memory_kib(&circle.bob) > before + 32 * 1024 {
        assert!(
            Instant::now() < given_back,
            "{} KiB stay",
            memory_kib(&circle.bob)
        );
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    part(circle.friends);
}
