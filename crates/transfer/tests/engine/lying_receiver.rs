//! A receiver that lies: about what it has, compared, skipped, lost, and has on
//! its disk. What it is sent stays ours; it is told off.

use std::path::PathBuf;

use pinhole_transfer::frame::FrameKind;
use pinhole_transfer::{ExchangeError, ExchangeEvent, Party, TransferError};
use tempfile::tempdir;

use crate::liar::{MIB, pair};
use crate::support::noise;

const ACCEPT: &str = r#"{"type":"accept","transfer":1}"#;

fn have(files: &str) -> String {
    format!(r#"{{"type":"have","transfer":1,"files":{files}}}"#)
}

fn skip(runs: &str) -> String {
    format!(r#"{{"type":"skip","transfer":1,"entries":{runs}}}"#)
}

fn compared(entry: u32, chunks: u32, differing: &str) -> String {
    format!(
        r#"{{"type":"compared","transfer":1,"entry":{entry},"chunks":{chunks},"differing":{differing}}}"#
    )
}

fn durable(entries: u32) -> String {
    format!(r#"{{"type":"durable","transfer":1,"entries":{entries}}}"#)
}

fn failed(entry: u32) -> String {
    format!(r#"{{"type":"file_failed","transfer":1,"entry":{entry},"trouble":"io"}}"#)
}

fn accept() -> String {
    ACCEPT.to_owned()
}

/// What is said about two files of two chunks, and what is wrong with the last
/// of it.
fn lies() -> Vec<(&'static str, Vec<String>)> {
    vec![
        ("durable before the answer", vec![durable(1)]),
        ("durable beyond the end", vec![accept(), durable(3)]),
        ("everything durable at once", vec![accept(), durable(2)]),
        ("accepted twice", vec![accept(), accept()]),
        (
            "declined after it was accepted",
            vec![
                accept(),
                r#"{"type":"decline","transfer":1,"reason":"busy"}"#.to_owned(),
            ],
        ),
        ("a failure before the answer", vec![failed(0)]),
        ("a failure of no file", vec![accept(), failed(9)]),
        (
            "a failure of a file that is not wanted",
            vec![skip("[[0,1]]"), accept(), failed(0)],
        ),
        ("skipping no file", vec![skip("[[5,1]]")]),
        ("skipping nothing", vec![skip("[[0,0]]")]),
        ("skipping beyond the end", vec![skip("[[1,2]]")]),
        ("skipping for ever", vec![skip("[[1,4294967295]]")]),
        ("skipping twice", vec![skip("[[0,1],[0,1]]")]),
        ("skipping after the answer", vec![accept(), skip("[[0,1]]")]),
        (
            "a pause before the answer",
            vec![r#"{"type":"pause","transfer":1,"paused":true}"#.to_owned()],
        ),
        (
            "about a transfer that never was",
            vec![ACCEPT.replace(":1}", ":3}")],
        ),
        (
            "the end of a file of ours",
            vec![
                accept(),
                format!(
                    r#"{{"type":"file_end","transfer":1,"entry":0,"root":"{}"}}"#,
                    "0".repeat(64)
                ),
            ],
        ),
    ]
}

/// The same about what is here already.
fn lies_of_resuming() -> Vec<(&'static str, Vec<String>)> {
    let two = || have("[[0,2]]");
    vec![
        ("having no file", vec![have("[[2,1]]")]),
        ("having no chunk", vec![have("[[0,0]]")]),
        ("having more than there is", vec![have("[[0,3]]")]),
        ("having twice", vec![have("[[0,1],[0,2]]")]),
        ("having backwards", vec![have("[[1,1]]"), have("[[0,1]]")]),
        ("having after the answer", vec![accept(), two()]),
        (
            "compared before the answer",
            vec![two(), compared(0, 1, "[]")],
        ),
        (
            "compared what was never there",
            vec![accept(), compared(0, 1, "[]")],
        ),
        (
            "compared no file",
            vec![two(), accept(), compared(7, 1, "[]")],
        ),
        (
            "compared nothing",
            vec![two(), accept(), compared(0, 0, "[]")],
        ),
        (
            "compared too much",
            vec![two(), accept(), compared(0, 3, "[]")],
        ),
        (
            "compared twice",
            vec![two(), accept(), compared(0, 1, "[]"), compared(0, 1, "[]")],
        ),
        (
            "a difference beyond what was compared",
            vec![two(), accept(), compared(0, 1, "[[1,1]]")],
        ),
        (
            "a difference that was compared before",
            vec![
                two(),
                accept(),
                compared(0, 1, "[]"),
                compared(0, 2, "[[0,1]]"),
            ],
        ),
        (
            "an empty difference",
            vec![two(), accept(), compared(0, 2, "[[0,0]]")],
        ),
        (
            "a difference without end",
            vec![two(), accept(), compared(0, 2, "[[1,4294967295]]")],
        ),
        (
            "the same difference twice",
            vec![two(), accept(), compared(0, 2, "[[0,1],[0,1]]")],
        ),
    ]
}

#[tokio::test]
async fn what_cannot_be_ends_the_connection() {
    let from = tempdir().unwrap();
    let paths = ["a", "b"].map(|name| from.path().join(name));
    for path in &paths {
        std::fs::write(path, noise(2 * MIB, 5)).unwrap();
    }
    for (what, said) in [lies(), lies_of_resuming()].concat() {
        assert_found_out(&paths, what, said).await;
    }
}

/// The same about two small files, all of which is here before the answer.
#[tokio::test]
async fn what_cannot_be_although_the_files_came_along_ends_the_connection() {
    let from = tempdir().unwrap();
    let paths = ["a", "b"].map(|name| from.path().join(name));
    for path in &paths {
        std::fs::write(path, "content").unwrap();
    }
    let lies = [
        ("durable before the answer", vec![durable(2)]),
        ("a failure before the answer", vec![failed(0)]),
        (
            "a pause before the answer",
            vec![r#"{"type":"pause","transfer":1,"paused":true}"#.to_owned()],
        ),
        ("having what came along", vec![have("[[0,1]]")]),
        (
            "compared what came along",
            vec![accept(), compared(0, 1, "[]")],
        ),
        ("durable beyond the end", vec![accept(), durable(3)]),
        (
            "a failure of a file that is not wanted",
            vec![skip("[[0,1]]"), accept(), failed(0)],
        ),
        ("accepted twice", vec![accept(), accept()]),
    ];
    for (what, said) in lies {
        assert_found_out(&paths, what, said).await;
    }
}

/// Is offered these files, says that, and must be told off.
async fn assert_found_out(paths: &[PathBuf], what: &str, said: Vec<String>) {
    let (mut liar, mut bob) = pair();
    let id = bob.send(paths).await;
    assert_eq!(liar.hear().await["type"], "offer");
    assert_eq!(liar.hear().await["type"], "entries");
    for message in said {
        liar.json(&message).await;
    }
    // Nobody reads what bob may still send; it fits the stream.
    let outcome = loop {
        match bob.event().await {
            ExchangeEvent::Finished { id: of, outcome } if of == id => break outcome,
            ExchangeEvent::Accepted { .. } => {}
            other => panic!("{what}: {other:?}"),
        }
    };
    let lied = Err(TransferError::Violation(Party::Peer));
    assert_eq!(outcome, lied, "{what}");
    let reason = bob.closed().await;
    assert!(
        matches!(reason, Some(ExchangeError::Violation(_))),
        "{what}: {reason:?}"
    );
}

/// It may be at the comparison still, and would take its end for a lie.
#[tokio::test]
async fn a_file_that_the_receiver_gave_up_is_not_ended_as_if_it_were_whole() {
    let from = tempdir().unwrap();
    let paths = [from.path().join("a")];
    std::fs::write(&paths[0], noise(2 * MIB + 1, 5)).unwrap();
    let (mut liar, bob) = pair();
    bob.send(&paths).await;
    assert_eq!(liar.hear().await["type"], "offer");
    assert_eq!(liar.hear().await["type"], "entries");
    assert_eq!(liar.hear_kind().await, FrameKind::Chunk, "ahead");
    liar.json(&have("[[0,2]]")).await;
    liar.json(ACCEPT).await;
    // Begun, but for what is not compared yet.
    while liar.hear_kind().await != FrameKind::Chunk {}
    liar.json(&failed(0)).await;
    let said = loop {
        match liar.hear().await["type"].take() {
            alive if alive == "alive" => {}
            said => break said,
        }
    };
    assert_eq!(said, "file_failed");
}
