//! Words about strangers and contacts.

use pinhole_client::OfferView;

use super::{count, size};

pub(crate) const STRANGERS_HELP: &str = "Nothing from them is saved or shown before you allow it.";
pub(crate) const WANTS_TO_CONNECT: &str = "Wants to connect. Once allowed, they have to try again.";
pub(crate) const A_MESSAGE: &str = "Wants to send a message";
pub(crate) const LOOK_SHORT: &str = "Look";
pub(crate) const ALLOW: &str = "Allow";
pub(crate) const BLOCK: &str = "Block";
pub(crate) const BLOCK_HELP: &str = "Blocked people see you offline.";
pub(crate) const UNBLOCK: &str = "Unblock";
pub(crate) const DECLINE_ALL: &str = "Decline all";
pub(crate) const DECIDE_LATER_BUTTON: &str = "Decide later";
pub(crate) const ESC_DECIDES_LATER: &str = "Press Esc to decide later.";
pub(crate) const SHOW_WORDS: &str = "Show the message";
pub(crate) const CONTACTS: &str = "Contacts";
pub(crate) const CONTACTS_HELP: &str = "People you have sent to, accepted something from, or trusted. A removed contact is a stranger again.";
pub(crate) const NO_CONTACTS: &str = "Nobody yet.";
pub(crate) const BLOCKED: &str = "Blocked";
pub(crate) const NOBODY_BLOCKED: &str = "Nobody.";
pub(crate) const REMOVE: &str = "Remove";
pub(crate) const REMOVE_FOR_GOOD: &str = "Remove for good";
pub(crate) const CONTACTS_AND_BLOCKED: &str = "Contacts…";
pub(crate) const PEOPLE_UNKNOWN: &str = "People I do not know";
pub(crate) const STRANGERS_RELAY: &str = "reach me over the relay, which hides my address";
pub(crate) const STRANGERS_DIRECT: &str = "reach me directly, and learn my address";
pub(crate) const STRANGERS_ASK: &str = "have to ask before they can connect";

/// The heading of the question about strangers.
pub(crate) fn strangers(people: usize) -> String {
    match people {
        1 => "Somebody you do not know wants to reach you".to_owned(),
        n => format!("{n} people you do not know want to reach you"),
    }
}

/// What a stranger offers.
pub(crate) fn offered(offer: &OfferView) -> String {
    let count = count(offer.files, offer.folders);
    let size = size((!offer.stream).then_some(offer.bytes));
    format!("Wants to send {count}, {size}")
}

/// How much a stranger offers.
pub(crate) fn several_offers(offers: usize) -> String {
    format!("Wants to send {offers} times")
}

/// The question about a stranger's message.
pub(crate) fn wants_to_write(peer: &str) -> String {
    format!("{peer} wants to send you a message")
}

/// The accessible name of a button that shows an offer.
pub(crate) fn look_at(peer: &str) -> String {
    format!("Look at what {peer} offers")
}

/// The accessible name of a button that allows a peer to connect.
pub(crate) fn allow(peer: &str) -> String {
    format!("Allow {peer} to connect")
}

/// The accessible name of a button that blocks a peer.
pub(crate) fn block(peer: &str) -> String {
    format!("Block {peer}")
}

/// The accessible name of a button that unblocks a peer.
pub(crate) fn unblock(peer: &str) -> String {
    format!("Unblock {peer}")
}

/// The accessible name of a button that removes a contact.
pub(crate) fn remove(peer: &str) -> String {
    format!("Remove {peer}")
}
