//! What unanswered offers may take in memory, whoever makes them.

use pinhole_transfer::{DeclineReason, ExchangeEvent, OfferBudget, Resources, TransferError};
use tempfile::tempdir;

use crate::liar::{Liar, MIB, pair_of};
use crate::support::Peer;

/// As many as one offer may have.
const ENTRIES: usize = 250_000;

fn resources() -> (Resources, OfferBudget) {
    let resources = Resources::default();
    let offers = resources.offers.clone();
    (resources, offers)
}

/// Offers so many empty files.
async fn offer_many(liar: &mut Liar, transfer: u32, entries: usize) {
    liar.json(&format!(
        r#"{{"type":"offer","transfer":{transfer},"entries":{entries},"total_bytes":0}}"#
    ))
    .await;
    for first in (0..entries).step_by(2000) {
        let page = (first..entries.min(first + 2000))
            .map(|number| format!(r#"{{"file":{{"path":"{number}","size_bytes":0}}}}"#));
        let page = Vec::from_iter(page).join(",");
        liar.json(&format!(
            r#"{{"type":"entries","transfer":{transfer},"entries":[{page}]}}"#
        ))
        .await;
    }
}

async fn is_declined_as_busy(liar: &mut Liar) -> bool {
    let said = liar.hear().await;
    (&said["type"], &said["reason"]) == (&"decline".into(), &"busy".into())
}

async fn offered(bob: &mut Peer) -> pinhole_transfer::TransferId {
    bob.offered().await.0
}

/// One may offer as much as there may be, but not twice, and what it took is given
/// back with the answer, or with the connection.
#[tokio::test(flavor = "multi_thread")]
async fn two_of_the_largest_offers_do_not_wait_side_by_side() {
    let (resources, offers) = resources();
    let (mut liar, mut bob) = pair_of([7; 32], resources);
    offer_many(&mut liar, 0, ENTRIES).await;
    let first = offered(&mut bob).await;
    let used = offers.used_bytes();
    assert!(used >= 30 * MIB as u64, "{used}");
    offer_many(&mut liar, 2, ENTRIES).await;
    assert!(is_declined_as_busy(&mut liar).await);
    assert!(offers.used_bytes() <= 48 * MIB as u64);
    bob.exchange
        .decline(first, DeclineReason::Declined)
        .unwrap();
    assert_eq!(offers.used_bytes(), 0);
    assert_eq!(liar.hear().await["type"], "decline");
    offer_many(&mut liar, 4, 1000).await;
    offered(&mut bob).await;
    assert_ne!(offers.used_bytes(), 0);
    drop(liar);
    bob.closed().await;
    assert_eq!(offers.used_bytes(), 0);
}

/// Whoever takes most gives way to whoever asks for less, and keeps nobody out.
#[tokio::test(flavor = "multi_thread")]
async fn the_heaviest_stranger_gives_way_to_others() {
    let (resources, offers) = resources();
    let (mut heavy, mut at_heavy) = pair_of([1; 32], resources.clone());
    offer_many(&mut heavy, 0, ENTRIES).await;
    let id = offered(&mut at_heavy).await;
    let (mut light, mut at_light) = pair_of([2; 32], resources.clone());
    offer_many(&mut light, 0, 200_000).await;
    offered(&mut at_light).await;
    assert!(is_declined_as_busy(&mut heavy).await);
    let gave_way = Err(TransferError::GaveWay);
    assert_eq!(at_heavy.finished(id).await, gave_way);
    // Not the other way about.
    offer_many(&mut heavy, 2, ENTRIES).await;
    assert!(is_declined_as_busy(&mut heavy).await);
    assert!(offers.used_bytes() <= 48 * MIB as u64);
    let into = tempdir().unwrap();
    drop((heavy, light));
    at_heavy.closed().await;
    at_light.closed().await;
    assert_eq!(offers.used_bytes(), 0, "{:?}", into.path());
}

/// What those hold who are known is not a stranger's, and the other way about.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_leave_room_for_those_who_are_known() {
    let (resources, _) = resources();
    let mut strangers = Vec::new();
    for key in 1..=40 {
        let (mut liar, mut bob) = pair_of([key; 32], resources.clone());
        // A first chunk that is held counts, too.
        liar.offer_chunk(0, &[2 * MIB]).await;
        let _ = bob.event().await;
        strangers.push((liar, bob));
    }
    let (mut liar, mut bob) = pair_of([99; 32], resources.clone());
    bob.exchange.set_known();
    offer_many(&mut liar, 0, 200_000).await;
    let event = bob.event().await;
    assert!(matches!(event, ExchangeEvent::Offered { .. }), "{event:?}");
}

/// An offer that is being taken does not give way.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_does_not_count() {
    let into = tempdir().unwrap();
    let (resources, offers) = resources();
    let (mut liar, mut bob) = pair_of([1; 32], resources);
    liar.offer(&[3 * MIB]).await;
    bob.accept_next(into.path()).await;
    assert_eq!(liar.hear().await["type"], "accept");
    assert_eq!(offers.used_bytes(), 0);
}
