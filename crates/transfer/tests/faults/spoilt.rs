//! A disk that fails to take what was written, in the midst of a file whose
//! connection then breaks.

use std::io::Write;
use std::path::Path;

use pinhole_transfer::Existing;

use crate::injector::{Call, Plan};
use crate::{CHUNK, attempt_over, folder, injector, noise, parts};

/// Made durable for the first time after 64 MiB.
const SYNCED: usize = 64;

fn is_of_film(part: &Path) -> bool {
    part.to_string_lossy().contains(".film.")
}

/// What the disk had in its cache may be gone, and what is read back proves
/// nothing: the next attempt must not go on from there.
#[test]
fn a_part_that_the_disk_did_not_take_is_not_kept() {
    let from = folder();
    let file = from.path().join("film");
    std::fs::write(&file, noise((SYNCED + 8) * CHUNK, 3)).unwrap();
    // In the midst of the next chunk: nothing is to be done but that.
    let breaks_after = (SYNCED * CHUNK + CHUNK / 2) as u64;
    let broken_off = |plan| {
        let into = folder();
        let paths = [file.clone()];
        let attempt = || attempt_over(&paths, into.path(), breaks_after, Existing::Rename);
        let ran = injector::run(into.path(), plan, attempt);
        ran.ok().map(|(attempt, calls)| {
            let is_kept = parts(into.path()).iter().any(|part| is_of_film(part));
            let is_broken_off = attempt.received.is_err() && attempt.sent.is_err();
            (is_kept, is_broken_off, calls)
        })
    };
    // The journal of the offer is made durable, too.
    let is_sync = |call: &Call| call.name == "fdatasync" && is_of_film(&call.path);
    let Some((is_kept, is_broken_off, calls)) = broken_off(Plan::Nothing) else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: a disk that takes nothing");
        return;
    };
    assert!(is_broken_off && is_kept, "all is well");
    // The threads take turns as they like; which call is the one differs.
    let mut at = calls.iter().position(is_sync);
    for _ in 0..20 {
        let plan = Plan::Once(at.expect("made durable in the midst"));
        let (is_kept, is_broken_off, calls) = broken_off(plan).unwrap();
        if calls.get(plan.at()).is_some_and(is_sync) {
            return assert!(is_broken_off && !is_kept);
        }
        at = calls.iter().position(is_sync);
    }
    panic!("that call never failed");
}
