//! What somebody else does to a part or a journal, between two attempts or during one,
//! never reaches a file under its name.

use std::fs;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use pinhole_transfer::FileErrorKind;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::tempdir;

use crate::liar::{MIB, accepted};
use crate::resume::{broken_off, completed, parts};
use crate::support::noise;

const SIZE: usize = 9 * MIB + 5;
const PRECIOUS: &[u8] = b"the user's";

/// What is done to the part or the journal at a path; the second path is that of
/// another file of the user's.
type Harm = fn(&Path, &Path);

fn pipe(at: &Path) {
    mknodat(CWD, at, FileType::Fifo, Mode::RWXU, 0).unwrap();
}

fn append(at: &Path, bytes: usize) {
    let mut file = File::options().append(true).open(at).unwrap();
    file.write_all(&noise(bytes, 5)).unwrap();
}

const HARMS: &[(&str, Harm)] = &[
    ("longer than its file", |at, _| append(at, 12 * MIB)),
    ("whole, and one byte more", |at, _| {
        let mut file = File::create(at).unwrap();
        file.write_all(&noise(SIZE, 1)).unwrap();
        file.write_all(b"x").unwrap();
    }),
    ("whole, but other", |at, _| {
        fs::write(at, noise(SIZE, 8)).unwrap();
    }),
    ("cut short", |at, _| {
        File::options()
            .write(true)
            .open(at)
            .unwrap()
            .set_len(MIB as u64 + 1)
            .unwrap();
    }),
    ("empty", |at, _| fs::write(at, "").unwrap()),
    ("written into, with its time kept", |at, _| {
        let mut file = File::options().write(true).open(at).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.seek(SeekFrom::Start(MIB as u64 + 3)).unwrap();
        file.write_all(b"other").unwrap();
        file.set_modified(modified).unwrap();
    }),
    ("gone", |at, _| fs::remove_file(at).unwrap()),
    ("a link", |at, precious| {
        fs::remove_file(at).unwrap();
        symlink(precious, at).unwrap();
    }),
    ("another name of a file", |at, precious| {
        fs::remove_file(at).unwrap();
        fs::hard_link(precious, at).unwrap();
    }),
    ("a pipe", |at, _| {
        fs::remove_file(at).unwrap();
        pipe(at);
    }),
    ("a folder", |at, _| {
        fs::remove_file(at).unwrap();
        fs::create_dir(at).unwrap();
    }),
    ("garbage", |at, _| {
        fs::write(at, noise(3 * MIB, 6)).unwrap();
    }),
    ("garbage behind a beginning", |at, _| append(at, 3 * MIB)),
    ("one line without an end", |at, _| {
        fs::write(at, vec![b'"'; 3 * MIB]).unwrap();
    }),
];

/// The part, or the journal, that an attempt has left.
fn left(into: &Path, is_journal: bool) -> PathBuf {
    let parts = parts(into);
    // A journal has no name of a file in its own.
    let found = parts
        .iter()
        .find(|it| it.starts_with(".large") != is_journal);
    into.join(found.unwrap_or_else(|| panic!("not in {parts:?}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_has_the_size_and_the_content_that_were_sent() {
    for is_journal in [false, true] {
        for (harm, does) in HARMS {
            let what = format!("{harm} (journal: {is_journal})");
            let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
            let precious = into.path().join("mine");
            // Of what is finished a journal tells.
            let paths = ["first", "large"].map(|name| from.path().join(name));
            fs::write(&paths[0], noise(2 * MIB, 2)).unwrap();
            fs::write(&paths[1], noise(SIZE, 1)).unwrap();
            fs::write(&precious, PRECIOUS).unwrap();
            broken_off(&paths, into.path(), 8 * MIB).await;
            does(&left(into.path(), is_journal), &precious);

            let (sent, received, _) = completed(&paths, into.path()).await;
            assert_eq!((sent.files, received.files), (2, 2), "{what}");
            let arrived = fs::read(into.path().join("large")).unwrap();
            assert_eq!(arrived.len(), SIZE, "{what}");
            assert!(arrived == noise(SIZE, 1), "{what}");
            assert_eq!(fs::read(&precious).unwrap(), PRECIOUS, "{what}");
        }
    }
}

/// With parts that this process remembers, nothing is believed that may have changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_grows_while_it_is_received_is_cut_to_its_file() {
    let into = tempdir().unwrap();
    let data = [noise(MIB, 1), noise(5, 2)];
    let (mut liar, mut bob, id) = accepted(&[MIB + 5], into.path()).await;
    liar.chunk_of(0, 0, 0, &data[0]).await;
    liar.caught_up(&mut bob).await;
    append(&part_of(into.path(), MIB).await, 2 * MIB);
    liar.chunk_of(0, 0, 1, &data[1]).await;
    liar.end(0, &[&data[0], &data[1]]).await;
    assert_eq!(bob.finished(id).await.unwrap().files, 1);
    let arrived = fs::read(into.path().join("0")).unwrap();
    assert!(arrived == data.concat(), "{} bytes", arrived.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_in_the_place_of_a_part_gets_no_name_and_stays() {
    let into = tempdir().unwrap();
    let data = [noise(MIB, 1), noise(5, 2)];
    let (mut liar, mut bob, id) = accepted(&[MIB + 5], into.path()).await;
    liar.chunk_of(0, 0, 0, &data[0]).await;
    liar.caught_up(&mut bob).await;
    let part = part_of(into.path(), MIB).await;
    fs::rename(&part, into.path().join("moved away")).unwrap();
    fs::write(&part, PRECIOUS).unwrap();
    liar.chunk_of(0, 0, 1, &data[1]).await;
    liar.end(0, &[&data[0], &data[1]]).await;
    let summary = bob.finished(id).await.unwrap();
    assert_eq!((summary.files, summary.failed_files), (0, 1));
    assert_eq!(bob.failed[0].1.trouble(), FileErrorKind::Io);
    assert_eq!(fs::read(&part).unwrap(), PRECIOUS);
    assert!(!into.path().join("0").exists());
}

/// The part, once so much of it is written.
async fn part_of(into: &Path, bytes: usize) -> PathBuf {
    loop {
        let parts = parts(into);
        let part = parts.iter().find(|it| it.starts_with(".0."));
        if let Some(part) = part.map(|part| into.join(part))
            && fs::metadata(&part).unwrap().len() >= bytes as u64
        {
            return part;
        }
        tokio::task::yield_now().await;
    }
}
