//! Whether the peer is still there.

use std::time::{Duration, Instant};

use pinhole_transfer::{ExchangeEvent, Party, Side, TransferError};
use tempfile::tempdir;

use crate::liar;
use crate::liar::MIB;
use crate::support::{Peer, noise, pair};

/// Longer than either side may be silent while files are under way.
const LONG: Duration = Duration::from_millis(2500);

#[tokio::test]
async fn both_sides_are_heard_while_files_are_under_way_though_nothing_moves() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let file = from.path().join("film");
    std::fs::write(&file, noise(64 * MIB, 1)).unwrap();
    let (mut alice, mut bob) = pair();
    let id = alice.send(&[file]).await;
    bob.accept_next(into.path()).await;
    bob.exchange.pause(id).unwrap();
    while !matches!(alice.event().await, ExchangeEvent::Paused { .. }) {}
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    while begun.elapsed() < 2 * LONG {
        let both = (alice.exchange.silence(), bob.exchange.silence());
        longest = longest.max(both.0).max(both.1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let now = (alice.exchange.silence(), bob.exchange.silence());
    assert!(longest < LONG, "silent for {longest:?}, {now:?}");
    bob.exchange.unpause(id).unwrap();
    alice.finished(id).await.unwrap();
    bob.finished(id).await.unwrap();
}

#[tokio::test]
async fn who_waits_in_vain_knows_for_how_long() {
    let (left, right) = tokio::io::duplex(1024);
    let alice = Peer::over(left, Side::Initiator);
    let begun = Instant::now();
    while alice.exchange.silence() < Duration::from_millis(300) {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(300));
    drop(right);
}

/// A transfer that goes on over another connection waits for that.
#[tokio::test]
async fn a_receiver_lets_go_although_the_way_broke_in_the_midst_of_a_chunk() {
    let into = tempdir().unwrap();
    let (mut liar, mut bob, id) = liar::accepted(&[2 * MIB], into.path()).await;
    liar.half_a_chunk(0, 0, &noise(MIB, 1)).await;
    while bob.exchange.silence() < Duration::from_millis(100) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bob.exchange.interrupt(id).unwrap();
    let ended = bob.finished_in(id, Duration::from_secs(10)).await;
    assert_eq!(ended, Err(TransferError::Interrupted(Party::Us)));
}
