//! Disks that fail: every call on the receiving side fails in turn, once, for
//! good, or because the disk is full. Whatever fails, what stands under a final
//! name is whole and right, both sides are told, and a further attempt
//! completes.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing
)]

mod injector;
mod room;
mod short;
mod spoilt;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use injector::{Call, Plan};
use pinhole_transfer::{
    AcceptError, AcceptOptions, DeclineReason, Destination, Exchange, ExchangeEvent, Existing,
    Owner, Resources, Side, Source, Summary, TransferError, start,
};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

const CHUNK: usize = 1024 * 1024;
/// Nothing takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// So that only every so many-th call fails; the nightly profile takes all.
const STRIDE: usize = 5;

#[test]
fn every_fifth_call_that_fails_costs_nothing_but_the_attempt() {
    fail_everywhere(STRIDE);
}

#[test]
#[ignore = "takes minutes; the nightly profile runs it"]
fn every_call_that_fails_costs_nothing_but_the_attempt() {
    fail_everywhere(1);
}

/// Two sides of one question: the user's folder may hold millions of files, and
/// what is left of a renamed file is found all the same.
#[test]
fn a_full_folder_is_not_looked_through() {
    const FILES: usize = 30_000;
    let offered = Offered::new();
    let into = offered.destination(There::Moved);
    for number in 0..FILES {
        fs::write(into.path().join(format!("another {number}")), "").unwrap();
    }
    let attempt = || offered.attempt(into.path(), There::Moved);
    let Ok((attempt, calls)) = injector::run(into.path(), Plan::Nothing, attempt) else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: counting calls on a full folder"
        );
        return;
    };
    assert_eq!(attempt.received.map(|it| it.resent_bytes), Ok(0));
    let listings = calls
        .iter()
        .filter(|call| call.name == "getdents64")
        .count();
    // All of it would be 30 and more; no other call goes by what is there.
    assert!(listings <= 10, "{listings} lists of names were asked for");
    assert!(calls.len() < 1000, "{} calls", calls.len());
}

/// As on FAT, or in a folder of another user in which this one may write.
#[test]
fn files_come_without_times_and_rights_where_they_may_have_none() {
    let offered = Offered::new();
    for refused in ["utimensat", "fchmod"] {
        for there in [There::Nothing, There::Old] {
            let into = offered.destination(there);
            let attempt = || offered.attempt(into.path(), there);
            let plan = Plan::Refuses(refused);
            let Ok((attempt, calls)) = injector::run(into.path(), plan, attempt) else {
                let _ = writeln!(std::io::stderr(), "SKIPPED: calls that are refused");
                return;
            };
            assert!(calls.iter().any(|call| call.name == refused), "{refused}");
            let received = attempt.received.expect(refused);
            let counts = (received.files as usize, received.failed_files);
            assert_eq!(counts, (offered.content.len(), 0), "{refused}");
            assert_eq!(parts(into.path()), Vec::<PathBuf>::new());
        }
    }
}

#[test]
fn nothing_is_replaced_where_the_file_system_would() {
    let offered = Offered::new();
    for there in [There::Nothing, There::Moved, There::Old] {
        let into = offered.destination(there);
        let attempt = || offered.attempt(into.path(), there);
        let Ok((attempt, calls)) = injector::run(into.path(), Plan::Replaces, attempt) else {
            let _ = writeln!(std::io::stderr(), "SKIPPED: a file system that replaces");
            return;
        };
        let is_told = |name: &str| calls.iter().any(|call| call.name == name);
        assert_eq!(is_told("linkat"), there != There::Old);
        let what = format!("{there:?}: {attempt:?}");
        offered.check_whole(into.path(), there, &what);
        offered.check_told(&attempt, into.path(), &what);
        assert!(attempt.failed.is_empty(), "{what}");
        assert_eq!(parts(into.path()), Vec::<PathBuf>::new(), "{what}");
    }
}

/// One that is opened to ask whether something was lost knows of nothing that
/// was lost before.
#[test]
fn what_was_lost_is_asked_of_a_file_that_was_open_before() {
    let [from, into] = [(); 2].map(|()| folder());
    let set = from.path().join("set");
    for number in 0..20 {
        fs::create_dir_all(set.join(number.to_string())).unwrap();
    }
    let attempt = || attempt_over(&[set], into.path(), u64::MAX, Existing::Rename);
    let Ok((attempt, calls)) = injector::run(into.path(), Plan::Nothing, attempt) else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: which files are asked");
        return;
    };
    attempt.received.unwrap();
    let asked = calls.iter().position(|call| call.name == "syncfs").unwrap();
    let path = &calls[asked].path;
    assert!(
        path.to_string_lossy().ends_with(".pinhole-part"),
        "{path:?}"
    );
    let is_opened = |call: &Call| call.name.starts_with("openat") && call.path == *path;
    let opened = calls.iter().rposition(is_opened).unwrap();
    let is_made = |call: &Call| call.name == "mkdirat";
    assert!(opened < calls.iter().position(is_made).unwrap());
}

fn fail_everywhere(stride: usize) {
    let offered = Offered::new();
    for there in [There::Nothing, There::Parts, There::Moved, There::Old] {
        let into = offered.destination(there);
        let attempt = || offered.attempt(into.path(), there);
        let Ok((_, calls)) = injector::run(into.path(), Plan::Nothing, attempt) else {
            // Past the capture of the test harness.
            let told = "SKIPPED: failing disks, which need a kernel that hands on system calls";
            let _ = writeln!(std::io::stderr(), "{told} (seccomp, Linux 5.9)");
            return;
        };
        println!("{there:?}: {} calls", calls.len());
        for plan in [Plan::Once, Plan::FromThenOn, Plan::Full] {
            for at in (0..calls.len()).step_by(stride) {
                offered.fail(plan(at), there);
            }
        }
    }
}

/// What is in the destination before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Nothing,
    /// What an attempt has left that broke off.
    Parts,
    /// The same, of an attempt at the offer before a folder in it was renamed.
    Moved,
    /// Another file under each name, to be replaced.
    Old,
}

/// Files by their paths.
type Content = BTreeMap<PathBuf, Vec<u8>>;

/// What is sent, and where it lies.
struct Offered {
    from: TempDir,
    content: Content,
    paths: Vec<PathBuf>,
}

/// What came of an attempt.
#[derive(Debug)]
struct Attempt {
    received: Result<Summary, String>,
    /// What the receiver was told of files that failed.
    failed: Vec<PathBuf>,
    sent: Result<Summary, TransferError>,
}

/// In memory: these disks only fail when told to.
fn folder() -> TempDir {
    match Path::new("/dev/shm") {
        memory if memory.is_dir() => tempfile::tempdir_in(memory),
        _ => tempfile::tempdir(),
    }
    .unwrap()
}

fn noise(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes)
        .map(|place| ((place * 31 + seed * 7) ^ (place >> 8)) as u8)
        .collect()
}

/// What was in the destination before, under a name that is offered.
const KEPT: &str = "report.txt";
/// What an offered folder was called before.
const BEFORE: &str = "before";

impl Offered {
    /// Large, small and empty files, enough of them that they are made durable
    /// together, one whose name is taken, and folders.
    fn new() -> Self {
        let from = folder();
        let mut content = Content::new();
        for (path, bytes) in [
            ("alone.bin", CHUNK + 1),
            ("report.txt", 9),
            ("set/deep/empty", 0),
            ("set/deep/large", 2 * CHUNK + 5),
            ("set/z", 70_000),
        ] {
            content.insert(path.into(), noise(bytes, content.len() + 1));
        }
        for number in 0..9 {
            let path = format!("set/many/{number}");
            content.insert(path.into(), noise(100 * number, number));
        }
        for (path, data) in &content {
            let path = from.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, data).unwrap();
        }
        let program = fs::Permissions::from_mode(0o755);
        fs::set_permissions(from.path().join("set/z"), program).unwrap();
        let paths = ["alone.bin", "report.txt", "set"].map(|name| from.path().join(name));
        Self {
            from,
            content,
            paths: paths.into(),
        }
    }

    /// A folder to receive into.
    fn destination(&self, there: There) -> TempDir {
        let into = folder();
        fs::write(into.path().join(KEPT), "kept").unwrap();
        match there {
            There::Nothing => {}
            There::Parts => {
                // In the midst of the second large file.
                let bytes = self.content.values().map(Vec::len).sum::<usize>() * 2 / 3;
                let broken = self.attempt_over(into.path(), bytes as u64, Existing::Rename);
                assert!(broken.received.is_err() && broken.sent.is_err());
                assert!(large_part(into.path()).is_some(), "{broken:?}");
            }
            There::Moved => {
                let before = self.from.path().join(BEFORE);
                fs::rename(&self.paths[2], &before).unwrap();
                let bytes = self.content.values().map(Vec::len).sum::<usize>() * 2 / 3;
                let paths = [&self.paths[..2], std::slice::from_ref(&before)].concat();
                let broken = attempt_over(&paths, into.path(), bytes as u64, Existing::Rename);
                fs::rename(&before, &self.paths[2]).unwrap();
                assert!(broken.received.is_err() && broken.sent.is_err());
                assert!(large_part(into.path()).is_some(), "{broken:?}");
            }
            There::Old => {
                for path in self.content.keys() {
                    let path = into.path().join(path);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, "kept").unwrap();
                }
            }
        }
        into
    }

    /// Tries with faults, and again without.
    fn fail(&self, plan: Plan, there: There) {
        let into = self.destination(there);
        let into = into.path();
        let (attempt, calls) = injector::run(into, plan, || self.attempt(into, there)).unwrap();
        let failing = calls.get(plan.at()).map(|call| (call.name, &call.path));
        let what = format!("{plan:?} {failing:?}, {there:?}: {attempt:?}");
        self.check_whole(into, there, &what);
        self.check_told(&attempt, into, &what);
        self.check_plan(plan, &attempt, &calls, into, &what);

        let again = self.attempt(into, there);
        let what = format!("{what}, then {again:?}");
        self.check_whole(into, there, &what);
        if there == There::Old {
            assert!(files(into) == self.content, "{what}");
        }
        self.check_told(&again, into, &what);
        let received = again.received.expect(&what);
        assert_eq!(received.files as usize, self.content.len(), "{what}");
        assert_eq!(parts(into), Vec::<PathBuf>::new(), "{what}");
    }

    fn attempt(&self, into: &Path, there: There) -> Attempt {
        let existing = match there {
            There::Old => Existing::Replace,
            _ => Existing::Rename,
        };
        self.attempt_over(into, u64::MAX, existing)
    }

    fn attempt_over(&self, into: &Path, breaks_after: u64, existing: Existing) -> Attempt {
        attempt_over(&self.paths, into, breaks_after, existing)
    }

    /// Under final names stands what was offered, whole, or what was there,
    /// which is never lost.
    fn check_whole(&self, into: &Path, there: There, what: &str) {
        let files = files(into);
        for (path, data) in &files {
            let is_kept = data == b"kept" && (there == There::Old || path == Path::new(KEPT));
            let is_sent = self.content.get(&offered_as(path)) == Some(data);
            assert!(is_kept || is_sent, "{path:?} is not what was sent: {what}");
        }
        let is_there = |path: &PathBuf| files.contains_key(path);
        assert!(is_there(&KEPT.into()), "{what}");
        if there == There::Old {
            assert!(self.content.keys().all(is_there), "{what}");
        }
    }

    /// Both sides know what was received and what was not, and why.
    fn check_told(&self, attempt: &Attempt, into: &Path, what: &str) {
        match (&attempt.received, &attempt.sent) {
            (Ok(received), Ok(sent)) => {
                let failed = attempt.failed.len();
                let counts = |summary: &Summary| (summary.files, summary.failed_files as usize);
                let right = ((self.content.len() - failed) as u32, failed);
                assert_eq!((counts(received), counts(sent)), (right, right), "{what}");
                for path in self.content.keys() {
                    let top = path.iter().next().unwrap();
                    let is_named = |on_disk: &&PathBuf| {
                        let name = on_disk.strip_prefix(into).unwrap();
                        offered_as(name) == Path::new(top)
                    };
                    let top = received.paths.iter().find(is_named);
                    let below: PathBuf = path.iter().skip(1).collect();
                    let is_there = top.is_some_and(|top| match below.as_os_str().is_empty() {
                        true => top.is_file(),
                        false => top.join(below).is_file(),
                    });
                    // A file that is there from an earlier attempt and cannot
                    // be made sure of fails, too.
                    assert!(
                        is_there || attempt.failed.contains(path),
                        "{path:?}: {what}"
                    );
                }
            }
            (Err(told), Err(_)) => assert!(!told.is_empty(), "{what}"),
            _ => panic!("the sides do not agree: {what}"),
        }
    }

    fn check_plan(&self, plan: Plan, attempt: &Attempt, calls: &[Call], into: &Path, what: &str) {
        let is_complete = attempt.received.is_ok() && attempt.failed.is_empty();
        let failed = match plan {
            Plan::Nothing
            | Plan::Lacks(_)
            | Plan::Refuses(_)
            | Plan::ShortNames(_)
            | Plan::Replaces => &[],
            Plan::Once(at) => calls.get(at..=at).unwrap_or_default(),
            Plan::FromThenOn(at) => calls.get(at..).unwrap_or_default(),
            Plan::Full(at) => {
                let failed = calls.get(at..).unwrap_or_default();
                // What was written of a large file serves the next attempt.
                let first = failed.first();
                if first.is_some_and(|call| {
                    call.name == "pwrite64" && call.offset_bytes >= CHUNK as u64
                }) {
                    assert!(!parts(into).is_empty(), "{what}");
                }
                return assert!(
                    !is_complete || !failed.iter().any(|call| call.takes_room),
                    "{what}"
                );
            }
        };
        // Nobody may be told that something is safe when that failed, and what
        // is in the temporary cannot be told any more.
        let is_in_doubt = |call: &Call| matches!(call.name, "fsync" | "fdatasync");
        if let (Plan::Once(_), Some(call)) = (plan, failed.first()) {
            assert!(!is_in_doubt(call) || !is_part_of_file(&call.path), "{what}");
        }
        assert!(!is_complete || !failed.iter().any(is_in_doubt), "{what}");
    }
}

/// Sends everything, over a connection that breaks after so many bytes.
fn attempt_over(paths: &[PathBuf], into: &Path, breaks_after: u64, existing: Existing) -> Attempt {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let attempt = async {
        let (left, right) = tokio::io::duplex(64 * 1024);
        let (read, write) = tokio::io::split(right);
        let (alice, mut sending) = start(
            tokio::io::split(left),
            Side::Initiator,
            Owner::stranger([2; 32]),
            Resources::default(),
        );
        let (bob, mut receiving) = start(
            (read.take(breaks_after), write),
            Side::Responder,
            Owner::stranger([1; 32]),
            Resources::default(),
        );
        let source = Source::scan(paths).unwrap();
        alice.send(source).unwrap();
        tokio::join!(
            sent(&mut sending),
            received(&bob, &mut receiving, into, existing)
        )
    };
    let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, attempt).await });
    let (sent, (received, failed)) = ended.expect("an end in time");
    Attempt {
        received,
        failed,
        sent,
    }
}

/// How the sender's attempt ends.
async fn sent(events: &mut mpsc::Receiver<ExchangeEvent>) -> Result<Summary, TransferError> {
    loop {
        match events.recv().await.unwrap() {
            ExchangeEvent::Finished { outcome, .. } => return outcome,
            ExchangeEvent::Closed { reason } => panic!("closed: {reason:?}"),
            _ => {}
        }
    }
}

/// How the receiver's attempt ends, and which files failed.
async fn received(
    bob: &Exchange,
    events: &mut mpsc::Receiver<ExchangeEvent>,
    into: &Path,
    existing: Existing,
) -> (Result<Summary, String>, Vec<PathBuf>) {
    let mut failed = Vec::new();
    loop {
        match events.recv().await.unwrap() {
            ExchangeEvent::Offered { id, .. } => {
                let destination = Destination::open(into).map_err(AcceptError::from);
                let choices = AcceptOptions {
                    existing,
                    keeps_executable: true,
                    ..AcceptOptions::default()
                };
                let accepted = match destination {
                    Ok(destination) => bob.accept(id, destination, choices).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = accepted {
                    let reason = DeclineReason::NotWritable;
                    bob.decline(id, reason).unwrap();
                    return (Err(error.to_string()), failed);
                }
            }
            ExchangeEvent::FileFailed { path, .. } => failed.push(path.as_str().into()),
            ExchangeEvent::Finished { outcome, .. } => {
                return (outcome.map_err(|error| error.to_string()), failed);
            }
            ExchangeEvent::Closed { reason } => panic!("closed: {reason:?}"),
            other => panic!("{other:?} unasked"),
        }
    }
}

/// Everything in a folder and below it.
fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found
}

fn is_part(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "pinhole-part")
}

/// Temporaries, and what is noted beside them.
fn parts(folder: &Path) -> Vec<PathBuf> {
    let all = all_files(folder).into_iter();
    all.filter(|path| is_part(path)).collect()
}

/// Whether a temporary is there; the note beside them has no name in its own.
fn is_part_of_file(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    is_part(path) && name.matches('.').count() > 2 && path.exists()
}

fn large_part(folder: &Path) -> Option<PathBuf> {
    let is_large = |path: &PathBuf| path.to_str().unwrap().contains("/.large.");
    parts(folder).into_iter().find(is_large)
}

/// What stands under final names.
fn files(folder: &Path) -> Content {
    let all = all_files(folder).into_iter();
    let files = all.filter(|path| !is_part(path));
    files
        .map(|path| {
            let data = fs::read(&path).unwrap();
            (path.strip_prefix(folder).unwrap().to_owned(), data)
        })
        .collect()
}

/// The path without the number that the first name got.
fn offered_as(path: &Path) -> PathBuf {
    let path = match path.strip_prefix(BEFORE) {
        Ok(below) => &Path::new("set").join(below),
        Err(_) => path,
    };
    let text = path.to_str().unwrap();
    let Some((before, behind)) = text.split_once(" (") else {
        return path.to_owned();
    };
    let (_, behind) = behind.split_once(')').unwrap();
    format!("{before}{behind}").into()
}
