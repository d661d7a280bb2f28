//! What is said of files is true: of those whose size is not what is declared, of
//! those that change behind their times, of names that must be changed, and of
//! what a file that is replaced had.

use std::fs;
use std::fs::{File, FileTimes, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pinhole_transfer::{AcceptOptions, Existing, Source};
use tempfile::tempdir;

use crate::resume::broken_off;
use crate::support::{Peer, names, noise, pair};

const MIB: usize = 1024 * 1024;

/// Why each file failed at alice and at bob, when nothing else arrived.
async fn failures(alice: &mut Peer, bob: &mut Peer, path: &Path) -> [Vec<String>; 2] {
    let into = tempdir().unwrap();
    let id = alice.send(&[path.to_owned()]).await;
    bob.accept_next(into.path()).await;
    let received = bob.finished(id).await.unwrap();
    let sent = alice.finished(id).await.unwrap();
    assert_eq!((received.files, sent.files), (0, 0), "{}", path.display());
    assert_eq!((received.failed_files, sent.failed_files), (1, 1));
    assert_eq!(names(into.path()), [""; 0], "nothing has a final name");
    reasons([alice, bob])
}

fn reasons(peers: [&Peer; 2]) -> [Vec<String>; 2] {
    peers.map(|peer| {
        let failed = peer.failed.iter();
        failed.map(|(_, error)| error.to_string()).collect()
    })
}

/// The kernel makes these up while they are read, and declares no size or a page.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_declared_size_is_not_believed() {
    for path in [
        "/proc/cpuinfo",
        "/proc/self/status",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/devices/system/cpu/online",
    ] {
        let path = Path::new(path);
        if !path.exists() {
            continue;
        }
        let (mut alice, mut bob) = pair();
        let said = failures(&mut alice, &mut bob, path).await;
        let why = "its size is not known before it is read";
        let expected = [
            vec![why.to_owned()],
            vec![format!("on the other side: {why}")],
        ];
        assert_eq!(said, expected, "{}", path.display());
    }
}

/// Something that another program does to a file and hides behind its times.
type Change = (&'static str, fn(&Path));

const HIDDEN_CHANGES: [Change; 4] = [
    ("written over", |path| {
        fs::write(path, noise(3 * MIB, 2)).unwrap();
    }),
    ("written in place", |path| {
        let mut file = File::options().write(true).open(path).unwrap();
        file.write_all(b"new").unwrap();
    }),
    ("replaced", |path| {
        let other = path.with_extension("other");
        fs::write(&other, noise(3 * MIB, 2)).unwrap();
        keep_time(path, &other);
        fs::rename(other, path).unwrap();
    }),
    ("longer for a while", |path| {
        let file = File::options().append(true).open(path).unwrap();
        file.set_len(4 * MIB as u64).unwrap();
        file.set_len(3 * MIB as u64).unwrap();
    }),
];

/// Gives `to` the time of `from`.
fn keep_time(from: &Path, to: &Path) {
    let modified = fs::metadata(from).unwrap().modified().unwrap();
    let file = File::options().write(true).open(to).unwrap();
    let times = FileTimes::new().set_modified(modified);
    file.set_times(times).unwrap();
}

/// The first chunk has gone ahead of the answer by then, or the receiver has some of
/// the file from before.
#[tokio::test(flavor = "multi_thread")]
async fn no_mixture_of_two_versions_arrives() {
    for (what, change) in HIDDEN_CHANGES {
        for is_resumed in [false, true] {
            let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
            let path = from.path().join("v");
            fs::write(&path, noise(3 * MIB, 1)).unwrap();
            let paths = [path.clone()];
            if is_resumed {
                broken_off(&paths, into.path(), 2 * MIB).await;
            }
            let (mut alice, mut bob) = pair();
            let id = match is_resumed {
                true => alice.send_again(&paths).await,
                false => alice.send(&paths).await,
            };
            let (offered, _) = bob.offered().await;
            let before = from.path().join("ref");
            fs::write(&before, "").unwrap();
            keep_time(&path, &before);
            change(&path);
            keep_time(&before, &path);
            bob.accept(offered, into.path()).await;
            let received = bob.finished(id).await.unwrap();
            let sent = alice.finished(id).await.unwrap();
            let what = format!("{what}, resumed: {is_resumed}");
            assert_eq!((received.files, sent.files), (0, 0), "{what}");
            for said in reasons([&alice, &bob]) {
                let told = said
                    .iter()
                    .all(|it| it.contains("changed while it was being sent"));
                assert!(told && said.len() == 1, "{what}: {said:?}");
            }
            assert_eq!(names(into.path()), [""; 0], "{what}");
        }
    }
}

#[tokio::test]
async fn a_name_that_must_be_changed_is_never_too_long() {
    let long = |start: &str, end: &str, bytes: usize| {
        let middle = "x".repeat(bytes - start.len() - end.len());
        format!("{start}{middle}{end}")
    };
    for name in [
        long("", ".", 254),
        long("", ".", 255),
        long("", " ", 255),
        long("", "..", 255),
        long("CON.", "", 255),
        long("nul .", ".txt", 255),
        long("COM1.", ".", 255),
        long(".", ".", 255),
    ] {
        let from = tempdir().unwrap();
        let path = from.path().join(&name);
        fs::write(&path, "content").unwrap();
        let source = Source::scan(&[path]).unwrap();
        assert_eq!(source.skipped(), [], "{name}");
        let offered = source.entries()[0].path().as_str();
        assert!((250..=255).contains(&offered.len()), "{offered}");
        assert_eq!(
            name.ends_with(".txt"),
            offered.ends_with(".txt"),
            "{offered}"
        );
    }
}

/// It says what there is, and why it is not sent.
#[test]
fn nothing_to_send_is_said_only_where_there_is_nothing() {
    let from = tempdir().unwrap();
    let unfinished = from.path().join(".x.1.pinhole-part");
    fs::write(&unfinished, "x").unwrap();
    let error = Source::scan(std::slice::from_ref(&unfinished)).unwrap_err();
    let said = error.to_string();
    assert_eq!(
        said,
        format!("{}: not received completely yet", unfinished.display())
    );
    assert_eq!(
        Source::scan(&[]).unwrap_err().to_string(),
        "there is nothing to send"
    );
}

async fn replaced(from: &Path, into: &Path, choices: AcceptOptions) {
    let (mut alice, mut bob) = pair();
    let id = alice.send(&[from.to_owned()]).await;
    let (offered, _) = bob.offered().await;
    bob.accept_some(offered, into, choices).await;
    assert_eq!(bob.finished(id).await.unwrap().files, 1);
    assert_eq!(alice.finished(id).await.unwrap().files, 1);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn a_file_that_is_replaced_keeps_its_mode() {
    for (before, is_program, after) in [
        (0o640, false, 0o640),
        (0o600, false, 0o600),
        (0o666, false, 0o666),
        (0o444, false, 0o444),
        (0o755, false, 0o755),
        (0o640, true, 0o750),
        // What would give rights to whoever runs it does not stay with another's
        // content.
        (0o6755, false, 0o755),
    ] {
        for size in [5, 3 * MIB] {
            let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
            let [sent, there] = [&from, &into].map(|dir| dir.path().join("f"));
            fs::write(&sent, noise(size, 1)).unwrap();
            if is_program {
                fs::set_permissions(&sent, Permissions::from_mode(0o755)).unwrap();
            }
            fs::write(&there, "old").unwrap();
            fs::set_permissions(&there, Permissions::from_mode(before)).unwrap();
            let choices = AcceptOptions {
                existing: Existing::Replace,
                keeps_executable: true,
                ..AcceptOptions::default()
            };
            replaced(&sent, into.path(), choices).await;
            assert!(fs::read(&there).unwrap() == fs::read(&sent).unwrap());
            assert_eq!(mode(&there), after, "{before:o} {is_program}");
        }
    }
}

/// Files and folders of a group that may write, by the user's mask.
#[cfg(target_os = "linux")]
#[test]
fn what_is_made_is_for_its_owner_to_write() {
    for (mask, made) in [
        (0o002, [0o755, 0o755, 0o644]),
        (0, [0o755, 0o755, 0o644]),
        (0o077, [0o700, 0o700, 0o600]),
    ] {
        let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
        let top = from.path().join("top");
        fs::create_dir_all(top.join("sub")).unwrap();
        fs::write(top.join("sub/file"), "content").unwrap();
        with_mask(mask, || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(replaced(&top, into.path(), AcceptOptions::default()));
        });
        let paths = ["top", "top/sub", "top/sub/file"];
        let modes = paths.map(|it| mode(&into.path().join(it)));
        assert_eq!(modes, made, "{mask:o}");
    }
}

/// The mask is that of one thread and those that it starts.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn with_mask(mask: u32, work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: it takes a number and touches no memory.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FS) }, 0);
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
            work();
        });
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_listed_takes_files() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let top = from.path().join("top");
    fs::create_dir_all(top.join("sub")).unwrap();
    fs::write(top.join("sub/file"), noise(3 * MIB, 1)).unwrap();
    fs::write(top.join("small"), "small").unwrap();
    for path in [from.path(), into.path()] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let inbox = into.path().join("inbox");
    fs::create_dir(&inbox).unwrap();
    fs::set_permissions(&inbox, Permissions::from_mode(0o333)).unwrap();
    let paths: Vec<PathBuf> = vec![top];
    let received = as_somebody(|| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let (mut alice, mut bob) = pair();
            let id = alice.send(&paths).await;
            bob.accept_next(&inbox).await;
            let received = bob.finished(id).await.unwrap();
            assert_eq!(alice.finished(id).await.unwrap().files, 2);
            received
        })
    });
    if let Some(received) = received {
        assert_eq!((received.files, received.failed_files), (2, 0));
        assert_eq!(
            names(&inbox),
            ["top", "top/small", "top/sub", "top/sub/file"]
        );
    }
}

/// As a user who has no rights to anything but what everybody has. `None`, said
/// aloud, where this one may not become another.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn as_somebody<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    const SOMEBODY: u32 = 12_345;
    if !rustix::process::geteuid().is_root() {
        // Past the capture of the test harness.
        let _ = writeln!(std::io::stderr(), "SKIPPED: another user, which needs root");
        return None;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: it takes a number and touches no memory. It is that of this
            // thread, and of those that it starts.
            unsafe { libc::setfsuid(SOMEBODY) };
            work()
        });
        Some(thread.join().unwrap())
    })
}
