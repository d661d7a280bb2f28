//! Names that are taken, or cannot be given: they cost what they are of, and are told.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use pinhole_transfer::{AcceptOptions, Existing, FileErrorKind, Renamed, Summary};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::{TempDir, tempdir};

use crate::support::{Peer, pair};

struct Scene {
    from: TempDir,
    into: TempDir,
}

impl Scene {
    /// What alice offers: files by their paths, and folders that end in a slash.
    fn new(offered: &[&str]) -> Self {
        let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
        for path in offered {
            let at = from.path().join(path);
            if path.ends_with('/') {
                fs::create_dir_all(at).unwrap();
            } else {
                fs::create_dir_all(at.parent().unwrap()).unwrap();
                fs::write(at, path).unwrap();
            }
        }
        Self { from, into }
    }

    /// Both summaries, and what failed at either side.
    async fn sent(&self, tops: &[&str], existing: Existing) -> [(Summary, Vec<Failed>); 2] {
        let (mut alice, mut bob) = pair();
        let paths: Vec<_> = tops.iter().map(|top| self.from.path().join(top)).collect();
        let id = alice.send(&paths).await;
        bob.offered().await;
        let choices = AcceptOptions {
            existing,
            ..AcceptOptions::default()
        };
        bob.accept_some(id, self.into.path(), choices).await;
        let received = bob.finished(id).await.unwrap();
        let sent = alice.finished(id).await.unwrap();
        [(sent, failed(&alice)), (received, failed(&bob))]
    }

    fn holds(&self, path: &str) -> bool {
        fs::read_to_string(self.into.path().join(path)).is_ok_and(|text| text == path)
    }
}

/// What failed, why, and what is said of it.
type Failed = (String, FileErrorKind, String);

fn failed(peer: &Peer) -> Vec<Failed> {
    let failed = peer.failed.iter().map(|(path, error)| {
        let path = path.as_str().to_owned();
        (path, error.trouble(), error.to_string())
    });
    failed.collect()
}

/// What it is, and how it is put somewhere.
type Obstacle = (&'static str, fn(&Path));

/// What may stand where a folder should be.
const OBSTACLES: &[Obstacle] = &[
    ("a file", |at| fs::write(at, "mine").unwrap()),
    ("a link to a folder", |at| symlink("/", at).unwrap()),
    ("a link to nothing", |at| symlink("nothing", at).unwrap()),
    ("a pipe", |at| {
        mknodat(CWD, at, FileType::Fifo, Mode::RWXU, 0).unwrap();
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_folder_costs_only_what_was_to_go_into_it() {
    let offered = ["w/a", "w/sub/deep/x", "w/sub/deep/none/", "w/sub/y", "w/z"];
    for existing in [Existing::Skip, Existing::Replace] {
        for (what, put) in OBSTACLES {
            let scene = Scene::new(&offered);
            let obstacle = scene.into.path().join("w/sub");
            fs::create_dir(scene.into.path().join("w")).unwrap();
            put(&obstacle);
            let before = fs::symlink_metadata(&obstacle).unwrap();
            let [(sent, of_sender), (received, of_receiver)] = scene.sent(&["w"], existing).await;
            let counts = |summary: &Summary| (summary.files, summary.folders, summary.failed_files);
            assert_eq!(counts(&received), (2, 1, 3), "{what}: {of_receiver:?}");
            assert_eq!(received.files, sent.files, "{what}");
            assert_eq!(received.failed_files, sent.failed_files, "{what}");
            assert!(scene.holds("w/a") && scene.holds("w/z"), "{what}");
            for failed in [&of_sender, &of_receiver] {
                let mut paths: Vec<_> = failed.iter().map(|it| it.0.as_str()).collect();
                paths.sort_unstable();
                let right = ["w/sub/deep/none", "w/sub/deep/x", "w/sub/y"];
                assert_eq!(paths, right, "{what}");
                let is_right = |it: &Failed| it.1 == FileErrorKind::NotAFolder;
                assert!(failed.iter().all(is_right), "{what}: {failed:?}");
            }
            let names_it = |it: &Failed| it.2 == "not a folder (w/sub)";
            assert!(of_receiver.iter().all(names_it), "{what}: {of_receiver:?}");
            let after = fs::symlink_metadata(&obstacle).unwrap();
            assert_eq!(after.file_type(), before.file_type(), "{what}");
        }
    }
}

/// A file system that is mounted below the folder is written to as any folder.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_mount_point_is_a_folder_as_any() {
    for existing in [Existing::Skip, Existing::Replace] {
        let scene = Scene::new(&["w/a", "w/sub/x", "w/sub/deep/y", "w/z"]);
        let at = scene.into.path().join("w/sub");
        fs::create_dir_all(&at).unwrap();
        let mount = |program: &str, arguments: &[&str]| {
            let mut command = std::process::Command::new(program);
            let output = command.args(arguments).arg(&at).output();
            output.is_ok_and(|output| output.status.success())
        };
        if !mount("mount", &["-t", "tmpfs", "-o", "size=16m", "tmpfs"]) {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "SKIPPED: mounting needs root on Linux");
            return;
        }
        let [(sent, _), (received, failed)] = scene.sent(&["w"], existing).await;
        let arrived = ["w/a", "w/sub/x", "w/sub/deep/y", "w/z"].map(|path| scene.holds(path));
        assert!(mount("umount", &[]));
        assert_eq!((sent.files, received.files), (4, 4), "{failed:?}");
        assert_eq!(arrived, [true; 4], "{existing:?}");
    }
}

/// A file is never replaced by what is no file, nor the other way about.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_is_not_replaced_by_one() {
    for (what, put) in &OBSTACLES[1..] {
        let scene = Scene::new(&["w/a"]);
        fs::create_dir(scene.into.path().join("w")).unwrap();
        put(&scene.into.path().join("w/a"));
        let [_, (received, failed)] = scene.sent(&["w"], Existing::Replace).await;
        assert_eq!((received.files, failed.len()), (1, 0), "{what}");
        let renamed = Renamed {
            first: vec![("w/a".to_owned(), "w/a (1)".to_owned())],
            count: 1,
        };
        assert_eq!(received.renamed, renamed, "{what}");
        let arrived = fs::read_to_string(scene.into.path().join("w/a (1)"));
        assert_eq!(arrived.unwrap(), "w/a", "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_change_are_told_on_the_side_that_changes_them() {
    let offered = ["12:30.png", "CON", "w/a|b", "w/x", "README", "Readme"];
    let scene = Scene::new(&offered);
    for taken in ["README", "w"] {
        fs::write(scene.into.path().join(taken), "mine").unwrap();
    }
    let tops = ["12:30.png", "CON", "w", "README", "Readme"];
    let [(sent, _), (received, _)] = scene.sent(&tops, Existing::Rename).await;
    let pairs = |pairs: &[(&str, &str)]| {
        let pair = |(before, now): &(&str, &str)| ((*before).to_owned(), (*now).to_owned());
        Vec::from_iter(pairs.iter().map(pair))
    };
    let by_sender = pairs(&[
        ("12:30.png", "12_30.png"),
        ("CON", "_CON"),
        ("w/a|b", "w/a_b"),
        ("Readme", "Readme (1)"),
    ]);
    assert_eq!(sent.renamed.first, by_sender);
    let by_receiver = pairs(&[("w", "w (1)"), ("README", "README (1)")]);
    assert_eq!(received.renamed.first, by_receiver);
    assert_eq!((sent.renamed.count, received.renamed.count), (4, 2));
    assert_eq!(scene.sent(&["w"], Existing::Rename).await[0].0.files, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_changed_names_are_counted_and_the_first_are_named() {
    let names = Vec::from_iter((0..1000).map(|number| format!("w/{number}?")));
    let scene = Scene::new(&Vec::from_iter(names.iter().map(String::as_str)));
    let [(sent, _), _] = scene.sent(&["w"], Existing::Rename).await;
    assert_eq!(sent.renamed.count, 1000);
    assert_eq!(sent.renamed.first.len(), Renamed::NAMED_MAX);
}
