//! More files than anybody sends by hand.

#![cfg(target_os = "linux")]

use std::fs;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pinhole_tests::process::Process;
use pinhole_tests::scene::{SOON, Scene};

/// What either side may need at most.
const MEMORY_BYTES: u64 = 48 << 20;

/// The most memory a process has had so far.
fn peak_bytes(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes = line.split_whitespace().nth(1)?;
    Some(kilobytes.parse::<u64>().ok()? * 1024)
}

/// Looks at the process until it is gone. The peak only rises, so that the last
/// look is that of the end, or a moment before.
fn watch(process: &Process) -> JoinHandle<u64> {
    let id = process.id();
    thread::spawn(move || {
        let mut peak = 0;
        while let Some(bytes) = peak_bytes(id) {
            peak = bytes;
            thread::sleep(Duration::from_millis(20));
        }
        peak
    })
}

#[test]
#[ignore = "makes 200,000 files; the nightly profile runs it"]
fn a_hundred_thousand_files_need_little_memory() {
    let scene = Scene::on_loopback();
    let top = scene.folder.path().join("source/many");
    for folder in 0..100 {
        let folder_path = top.join(format!("folder number {folder}"));
        fs::create_dir_all(&folder_path).expect("a folder");
        for file in 0..1000 {
            let path = folder_path.join(format!("file number {file} of many.dat"));
            fs::write(path, file.to_string()).expect("a small file");
        }
    }
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let receiving = bob.receive(&["--once"]);
    let sending = alice.send("bob", &[&top]);
    let peaks = [watch(&sending), watch(&receiving)];
    let sent = sending.end(Duration::from_secs(240));
    assert_eq!(sent.code, Some(0), "{}", sent.errors);
    let received = receiving.end(SOON);
    assert_eq!(received.code, Some(0), "{}", received.errors);
    for side in [&sent, &received] {
        assert_eq!(side.event("completed")["files"], 100_000);
    }
    for folder in 0..100 {
        let folder_path = bob.inbox.join(format!("many/folder number {folder}"));
        for file in 0..1000 {
            let path = folder_path.join(format!("file number {file} of many.dat"));
            let arrived = fs::read_to_string(path).expect("a file that arrived");
            assert_eq!(arrived, file.to_string());
        }
    }
    let peaks = peaks.map(|peak| peak.join().expect("a number"));
    println!(
        "peak memory: sender {} B, receiver {} B",
        peaks[0], peaks[1]
    );
    assert!(
        peaks.iter().all(|peak| (1..MEMORY_BYTES).contains(peak)),
        "{peaks:?}"
    );
}
