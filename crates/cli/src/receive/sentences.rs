//! The words of questions about offers.

use pinhole_client::{Existing, OfferView, TransferView};

use crate::display;

/// The question about an offer.
pub(super) fn question(transfer: &TransferView) -> String {
    let (offer, peer) = (&transfer.offer, &transfer.peer.name);
    if transfer.is_text {
        return format!("Show what {peer} says? [y/N/b]");
    }
    let block = if transfer.stranger { "/b" } else { "" };
    let size = display::size(offer);
    let what = display::count(offer.files, offer.folders);
    let numbers = match offer.top_level.len() {
        0 | 1 => "",
        2 => ", or the number of one",
        _ => ", or numbers: 1,3-5",
    };
    let taken = if offer.existing > 0 { "/s/r" } else { "" };
    format!("Accept {what}, {size} from {peer}? [y/N{taken}{block}{numbers}]")
}

/// The possible answers.
pub(super) fn hint(offer: &OfferView) -> String {
    let taken = if offer.existing > 0 { ", s, r" } else { "" };
    match offer.top_level.len() {
        0 | 1 => format!("Answer y, n{taken}, or b to block them."),
        items => {
            format!("Answer y, n{taken}, some of the numbers 1 to {items}, or b to block them.")
        }
    }
}

/// Names that are taken, and what can be done about them.
pub(super) fn what_exists(offer: &OfferView, existing: Existing) -> String {
    let named = offer.existing_names.join(", ");
    let more = u64::from(offer.existing).saturating_sub(offer.existing_names.len() as u64);
    let names = match (offer.existing, more) {
        (1, _) => format!("{named} is here already"),
        (_, 0) => format!("{named} are here already"),
        (_, more) => format!("{named} and {more} more are here already"),
    };
    let yes = match existing {
        Existing::Rename => "gives the new one a number",
        Existing::Skip => "skips the new one",
        Existing::Replace => "replaces the old one",
    };
    format!("{names}: y {yes}, s skips the new one, r replaces the old one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_names_are_listed() {
        let offer = |existing, names: &[&str]| OfferView {
            existing,
            existing_names: names.iter().map(|&name| name.to_owned()).collect(),
            ..OfferView::default()
        };
        for (offer, begin) in [
            (offer(1, &["a"]), "a is here already: y gives"),
            (offer(2, &["a", "b"]), "a, b are here already: y gives"),
            (offer(9, &["a", "b"]), "a, b and 7 more are here already: y"),
        ] {
            let said = what_exists(&offer, Existing::Rename);
            assert!(said.starts_with(begin), "{said}");
        }
    }
}
