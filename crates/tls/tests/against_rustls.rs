//! The fuzzer's target for records, on random bytes every day.

#![allow(
    unreachable_pub,
    clippy::indexing_slicing,
    reason = "the target belongs to another crate, and fails by a panic"
)]

use proptest::prelude::*;

#[path = "../../../tests/fuzz/src/records.rs"]
mod records;

proptest! {
    #[test]
    fn whatever_a_peer_sends_rustls_takes_the_same_of_it(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        records::hold(&bytes);
    }
}
