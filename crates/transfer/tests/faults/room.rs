//! Large files on a disk: room is set aside before they are written, and they are
//! written past the page cache. In memory it is not so.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use pinhole_transfer::Existing;
use rustix::fs::{AtFlags, FallocateFlags, StatxFlags, fallocate, statx};
use tempfile::TempDir;

use crate::injector::{Call, Plan};
use crate::{Attempt, CHUNK, attempt_over, files, injector, noise, parts};

/// The smallest file for which room is set aside is one byte longer.
const RESERVED_BYTES: usize = 64 * CHUNK;

/// A file of so many bytes, and a folder on a disk that sets room aside.
struct Large {
    _from: TempDir,
    into: TempDir,
    path: PathBuf,
}

impl Large {
    /// `None`, said aloud, where there is no such disk.
    fn new(bytes: usize) -> Option<Self> {
        let [from, into] =
            [(); 2].map(|()| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        let trial = fs::File::create(from.path().join("trial")).unwrap();
        let is_memory = rustix::fs::fstatfs(&trial).unwrap().f_type == 0x0102_1994;
        let reserved = fallocate(&trial, FallocateFlags::KEEP_SIZE, 0, CHUNK as u64);
        if is_memory || reserved.is_err() {
            skipped("room set aside on a disk, which this file system cannot");
            return None;
        }
        let path = from.path().join("large");
        fs::write(&path, noise(bytes, 1)).unwrap();
        Some(Self {
            _from: from,
            into,
            path,
        })
    }

    /// Over a connection that breaks after so many bytes, while calls fail.
    fn attempt(&self, plan: Plan, breaks_after: u64) -> io::Result<(Attempt, Vec<Call>)> {
        let (paths, into) = ([self.path.clone()], self.into.path());
        let attempt = || attempt_over(&paths, into, breaks_after, Existing::Rename);
        let attempted = injector::run(into, plan, attempt);
        if attempted.is_err() {
            skipped("failing disks, which need a kernel that hands on system calls");
        }
        attempted
    }

    /// A further attempt, without faults, completes and leaves nothing else.
    fn complete(&self, what: &str) {
        let (again, _) = self.attempt(Plan::Nothing, u64::MAX).unwrap();
        let received = again.received.expect(what);
        assert_eq!((received.files, received.resent_bytes), (1, 0), "{what}");
        let there = files(self.into.path());
        let arrived = there.values().eq([&fs::read(&self.path).unwrap()]);
        assert!(arrived, "{what}");
        assert_eq!(parts(self.into.path()), Vec::<PathBuf>::new(), "{what}");
        fs::remove_file(self.into.path().join("large")).unwrap();
    }

    /// The temporary of the file.
    fn part(&self) -> Option<PathBuf> {
        let mut parts = parts(self.into.path()).into_iter();
        parts.find(|path| is_of_file(path))
    }
}

fn skipped(what: &str) {
    // Past the capture of the test harness.
    let _ = writeln!(io::stderr(), "SKIPPED: {what}");
}

fn is_of_file(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    name.starts_with(".large.")
}

/// Where in the calls the only one of this name is.
fn only(calls: &[Call], name: &str) -> usize {
    let mut found = (0..).zip(calls).filter(|(_, call)| call.name == name);
    let (at, call) = found.next().expect(name);
    assert!(is_of_file(&call.path), "{call:?}");
    assert!(found.next().is_none(), "{name} twice");
    at
}

fn are_written(calls: &[Call]) -> bool {
    let mut calls = calls.iter();
    calls.any(|call| call.name == "pwrite64" && is_of_file(&call.path))
}

#[test]
fn a_disk_without_room_says_so_before_it_is_written() {
    let Some(large) = Large::new(RESERVED_BYTES + 1) else {
        return;
    };
    let Ok((attempt, calls)) = large.attempt(Plan::Nothing, u64::MAX) else {
        return;
    };
    assert_eq!(attempt.received.map(|it| it.files), Ok(1));
    fs::remove_file(large.into.path().join("large")).unwrap();
    let at = only(&calls, "fallocate");
    assert!(!are_written(&calls[..at]) && are_written(&calls[at..]));

    for plan in [Plan::Once, Plan::FromThenOn, Plan::Full, Plan::Lacks] {
        let plan = plan(at);
        let (attempt, calls) = large.attempt(plan, u64::MAX).unwrap();
        let what = format!("{plan:?}: {attempt:?}");
        assert_eq!(only(&calls, "fallocate"), at, "{what}");
        match plan {
            Plan::Lacks(_) => {
                assert!(attempt.failed.is_empty() && attempt.received.is_ok());
                fs::remove_file(large.into.path().join("large")).unwrap();
                continue;
            }
            Plan::Full(_) => {
                let told = attempt.received.expect_err(&what);
                assert!(told.contains("the disk is full"), "{what}");
            }
            Plan::Once(_) => assert_eq!(attempt.failed, [Path::new("large")], "{what}"),
            _ => assert!(
                attempt.received.is_err() || !attempt.failed.is_empty(),
                "{what}"
            ),
        }
        assert!(!are_written(&calls), "{what}");
        assert!(files(large.into.path()).is_empty(), "{what}");
        large.complete(&what);
    }
}

#[test]
fn what_was_set_aside_is_given_back_or_used() {
    let Some(large) = Large::new(RESERVED_BYTES + CHUNK) else {
        return;
    };
    let breaks_after = (8 * CHUNK) as u64;
    let Ok((_, calls)) = large.attempt(Plan::Nothing, breaks_after) else {
        return;
    };
    only(&calls, "fallocate");
    // An empty one is cut when it is made, too.
    let cuts = |calls: &[Call]| calls.iter().rposition(|call| call.name == "ftruncate");
    let at = cuts(&calls).unwrap();
    let left = || {
        let metadata = fs::metadata(large.part().unwrap()).unwrap();
        (metadata.len(), metadata.blocks() * 512)
    };
    let (length_bytes, room_bytes) = left();
    assert!(length_bytes >= 5 * CHUNK as u64, "{length_bytes}");
    assert!(length_bytes <= breaks_after, "{length_bytes}");
    // Beside the content there is what the file system notes.
    assert!(
        room_bytes <= length_bytes + CHUNK as u64 / 2,
        "{room_bytes}"
    );
    large.complete("given back");

    // It cannot be given back.
    let (attempt, calls) = large.attempt(Plan::Once(at), breaks_after).unwrap();
    let what = format!("{:?}: {attempt:?}", calls.get(at));
    assert_eq!(cuts(&calls), Some(at), "{what}");
    let (length_bytes, room_bytes) = left();
    assert!(length_bytes <= breaks_after, "{what}");
    assert!(room_bytes > RESERVED_BYTES as u64, "{room_bytes}: {what}");
    large.complete(&what);
}

#[test]
fn a_file_that_is_soon_written_needs_no_room_set_aside() {
    let Some(large) = Large::new(RESERVED_BYTES) else {
        return;
    };
    let Ok((attempt, calls)) = large.attempt(Plan::Nothing, u64::MAX) else {
        return;
    };
    assert_eq!(attempt.received.map(|it| it.files), Ok(1));
    assert!(calls.iter().all(|call| call.name != "fallocate"));
}

impl Large {
    /// Whether this disk can be written to past the page cache. Where it cannot it
    /// is said aloud.
    fn can_direct(&self) -> bool {
        let file = fs::File::open(&self.path).unwrap();
        let stat = statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).unwrap();
        let can = (1..=4096).contains(&stat.stx_dio_offset_align);
        if !can {
            skipped("writes past the page cache, which this file system cannot");
        }
        can
    }

    /// Attempts it without a break, after which it is there; `None` where
    /// nothing can be counted.
    fn arrives(&self, plan: Plan) -> Option<Vec<Call>> {
        let (attempt, calls) = self.attempt(plan, u64::MAX).ok()?;
        let what = format!("{plan:?}: {attempt:?}");
        assert!(attempt.failed.is_empty() && attempt.sent.is_ok(), "{what}");
        let arrived = self.into.path().join("large");
        let [arrived_as, sent] = [&arrived, &self.path].map(|path| fs::read(path).unwrap());
        assert!(arrived_as == sent, "{what}");
        fs::remove_file(arrived).unwrap();
        Some(calls)
    }
}

fn is_direct_write(call: &Call) -> bool {
    call.name == "pwrite64" && call.is_direct
}

/// Where in the calls the chunk of this index is written.
fn write_of(calls: &[Call], index: usize) -> usize {
    let begin = (index * CHUNK) as u64;
    let is_write = |call: &Call| call.name == "pwrite64" && call.offset_bytes == begin;
    let mut calls = calls.iter();
    calls
        .position(|call| is_of_file(&call.path) && is_write(call))
        .unwrap()
}

#[test]
fn a_large_file_is_written_past_the_page_cache() {
    let Some(large) = Large::new(RESERVED_BYTES + 1) else {
        return;
    };
    let Some(calls) = large.arrives(Plan::Nothing).filter(|_| large.can_direct()) else {
        return;
    };
    let last = RESERVED_BYTES / CHUNK;
    // The first may have come ahead of the answer, and lie where it was held.
    for index in 1..last {
        assert!(is_direct_write(&calls[write_of(&calls, index)]), "{index}");
    }
    assert!(
        !is_direct_write(&calls[write_of(&calls, last)]),
        "not whole"
    );

    // It cannot be opened a second time.
    let is_opened = |call: &Call| call.name.starts_with("openat") && is_of_file(&call.path);
    let begun = write_of(&calls, 0);
    let opened = calls[..begun].iter().rposition(is_opened).unwrap();
    let calls = large.arrives(Plan::Once(opened)).unwrap();
    assert!(!calls.iter().any(is_direct_write));

    // The file system does not take it after all.
    let fifth = write_of(&calls, 5);
    let calls = large.arrives(Plan::Lacks(fifth)).unwrap();
    assert!(is_direct_write(&calls[fifth]));
    assert!(!calls[fifth + 1..].iter().any(is_direct_write));
}

#[test]
fn what_a_disk_took_of_a_file_written_past_the_page_cache_is_of_use() {
    let Some(large) = Large::new(RESERVED_BYTES + CHUNK) else {
        return;
    };
    let Some(calls) = large.arrives(Plan::Nothing).filter(|_| large.can_direct()) else {
        return;
    };
    let fifth = write_of(&calls, 5);
    for plan in [Plan::Full(fifth), Plan::FromThenOn(fifth)] {
        let (attempt, calls) = large.attempt(plan, u64::MAX).unwrap();
        let what = format!("{plan:?}: {attempt:?}");
        assert!(is_direct_write(&calls[fifth]), "{what}");
        let told = attempt.received.expect_err(&what);
        if matches!(plan, Plan::Full(_)) {
            assert!(told.contains("the disk is full"), "{what}");
        }
        assert!(files(large.into.path()).is_empty(), "{what}");
        large.complete(&what);
    }
}
