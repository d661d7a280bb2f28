//! What is sent is what arrives: big, many, empty, and strangely named.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pinhole_tests::process::EndedProcess;
use pinhole_tests::scene::{SOON, Scene};
use pinhole_tests::tree::{self, Node};

/// A gigabyte, hashed and sealed by binaries that are hardly optimised, on a
/// machine that does other things too.
const LONG: Duration = Duration::from_secs(240);

/// Sends the path to a fresh peer and compares what arrives with what was sent.
fn arrives_equal(scene: &Scene, path: &Path) -> EndedProcess {
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let receiving = bob.receive(&["--once"]);
    let sent = alice.send("bob", &[path]).end(LONG);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    let received = receiving.end(SOON);
    assert_eq!(received.code, Some(0), "{received:#?}");

    let original = tree::read(path.parent().expect("a parent")).expect("reading what was sent");
    let arrived = tree::read(&bob.inbox).expect("reading what arrived");
    let different = original
        .iter()
        .filter(|(name, node)| arrived.get(*name) != Some(*node));
    let different: Vec<_> = different.take(5).collect();
    assert!(
        different.is_empty(),
        "differ or are missing: {different:#?}"
    );
    assert_eq!(
        arrived.len(),
        original.len(),
        "something arrived that was not sent"
    );

    let files = original
        .values()
        .filter(|node| matches!(node, Node::File { .. }))
        .count();
    for side in [&sent, &received] {
        let completed = side.event("completed");
        assert_eq!(completed["files"], files, "{completed}");
        assert_eq!(
            completed["bytes"],
            original.values().map(Node::size_bytes).sum::<u64>()
        );
        assert_eq!(completed["resent_bytes"], 0);
    }
    sent
}

#[test]
fn a_gibibyte() {
    let scene = Scene::on_loopback();
    let source = scene.folder.path().join("source");
    fs::create_dir(&source).expect("a folder");
    let file = source.join("large.bin");
    tree::write_file(&file, 1 << 30, 1).expect("writing a gibibyte");
    let sent = arrives_equal(&scene, &file);
    let shown = sent.event("progress");
    assert_eq!(shown["total"], 1 << 30);
    assert_eq!(sent.event("connected")["path"], "lan");
}

#[test]
fn ten_thousand_small_files_in_a_tree() {
    let scene = Scene::on_loopback();
    let top = scene.folder.path().join("source/many");
    for folder in 0..100 {
        let folder_path = top.join(format!("{}/{folder}", folder % 7));
        fs::create_dir_all(&folder_path).expect("a folder");
        for file in 0..100 {
            let path = folder_path.join(format!("{file}.dat"));
            tree::write_file(&path, 4096, folder * 100 + file).expect("a small file");
        }
    }
    arrives_equal(&scene, &top);
}

#[test]
fn empty_things_and_names_of_all_scripts() {
    let scene = Scene::on_loopback();
    let top = scene.folder.path().join("source/mixed");
    for folder in ["empty folder", "文件夹/嵌套", "مجلد"] {
        fs::create_dir_all(top.join(folder)).expect("a folder");
    }
    let files = [
        "文件夹/嵌套/报告.txt",
        "مجلد/ملف مهم.txt",
        "🦀📦.bin",
        "ünïcödé é.txt",
        "a b  c",
    ];
    for (seed, name) in files.iter().enumerate() {
        tree::write_file(&top.join(name), 1000 + seed as u64, seed as u64).expect("a file");
    }
    tree::write_file(&top.join("empty file"), 0, 0).expect("a file");
    arrives_equal(&scene, &top);
}

#[test]
fn several_things_at_once_beside_what_is_there() {
    let scene = Scene::on_loopback();
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let one = scene.file("report.pdf", b"the new one");
    let two = scene.file("notes", b"");
    fs::write(bob.inbox.join("report.pdf"), "the old one").expect("a file");
    let _receiving = bob.receive(&[]);
    let sent = alice.send("bob", &[&one, &two]).end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    let read = |name: &str| fs::read_to_string(bob.inbox.join(name)).expect("a file");
    assert_eq!(
        read("report.pdf"),
        "the old one",
        "nothing is ever overwritten"
    );
    assert_eq!(read("report (1).pdf"), "the new one");
    assert_eq!(read("notes"), "");
}
