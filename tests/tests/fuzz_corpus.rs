//! The fuzzer's targets without the fuzzer: what it starts from, and all
//! beginnings and small changes of that.

#![allow(
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "the targets are a crate of their own, and fail by a panic"
)]

use std::fs;
use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

/// Every file of the corpus of that name.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let files = fs::read_dir(folder.join(name)).expect("a corpus");
    files
        .map(|file| fs::read(file.expect("a file").path()).expect("its bytes"))
        .collect()
}

#[test]
fn what_must_hold_holds_for_the_corpus() {
    for (name, hold) in fuzz::TARGETS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} starts from nothing");
        for bytes in corpus {
            hold(&bytes);
            for end in 0..bytes.len() {
                hold(&bytes[..end]);
                for change in [1, 0x80, 0xff] {
                    let mut changed = bytes.clone();
                    changed[end] ^= change;
                    hold(&changed);
                }
            }
        }
    }
}

#[test]
fn every_corpus_has_its_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let folders = fs::read_dir(folder).expect("the corpora");
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("UTF-8");
    let mut names: Vec<_> = folders
        .map(|entry| name(entry.expect("a folder")))
        .collect();
    names.sort();
    let targets: Vec<_> = fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, targets);
}
