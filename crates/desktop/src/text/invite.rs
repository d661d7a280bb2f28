//! Words about links and codes.

use pinhole_client::Uses;

pub(crate) const INVITE: &str = "Invite…";
pub(crate) const INVITE_TITLE: &str = "Invite somebody";
pub(crate) const INVITE_HELP: &str = "Whoever opens the link meets you here, and you are contacts from then on. Nobody is asked anything, so give it only to whom you mean.";
pub(crate) const GOOD: &str = "It is good";
pub(crate) const FOR_ONE: &str = "for the first who uses it";
pub(crate) const FOR_MANY: &str = "for everybody who has it";
pub(crate) const LASTS: &str = "And can be used";
pub(crate) const AN_HOUR: &str = "for an hour";
pub(crate) const A_DAY: &str = "for a day";
pub(crate) const A_WEEK: &str = "for a week";
pub(crate) const MAKE_LINK: &str = "Make the link";
pub(crate) const COPY_LINK: &str = "Copy link";
pub(crate) const DONE: &str = "Done";
pub(crate) const QR_CODE: &str = "The link as a QR code";
pub(crate) const NEARBY_LINK: &str = "You use no server, so it serves on your own network alone.";

pub(crate) const JOIN: &str = "Join…";
pub(crate) const JOIN_BY: &str = "I have an invitation or a code";
pub(crate) const JOIN_TITLE: &str = "Somebody elsewhere?";
pub(crate) const JOIN_FIELD: &str = "Paste an invitation or a code";
pub(crate) const JOIN_HINT: &str = "pinhole://join/…  or  7-acid-zoo";
pub(crate) const JOIN_NOW: &str = "Join";
pub(crate) const CODE_NEEDS_SERVER: &str = "A code needs the server, through which the two of you find each other. Type its address on the first screen.";

pub(crate) const BY_CODE: &str = "To somebody else, by a code…";
pub(crate) const CODE_TITLE: &str = "Say this code to one person";
pub(crate) const CODE_HELP: &str = "They type it in under “Join”, or run: pinhole receive CODE. It is good once, for ten minutes. Your files go to whoever says it right.";
pub(crate) const CODE_WAITS: &str = "Asking the server for a number…";

/// What a link does.
pub(crate) const fn lets_in(uses: Uses) -> &'static str {
    match uses {
        Uses::Once => FOR_ONE,
        Uses::Many => FOR_MANY,
    }
}

/// We have joined somebody.
pub(crate) fn joined(peer: &str, is_told: bool) -> String {
    match is_told {
        true => format!("You and {peer} are contacts now."),
        false => {
            format!("{peer} is your contact now, and learns of you when you both are online.")
        }
    }
}

/// Somebody has joined us.
pub(crate) fn welcomed(peer: &str) -> String {
    format!("{peer} has joined you and is your contact now.")
}

/// An invitation or a code cannot be read.
pub(crate) fn not_usable(reason: &str) -> String {
    format!("That cannot be used: {reason}.")
}
