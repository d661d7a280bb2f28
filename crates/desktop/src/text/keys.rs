//! Words about keys and their fingerprints.

pub(crate) const TRUST_SERVER: &str = "Log in with the new key";
pub(crate) const SERVER_KEY_HELP: &str = "A server has a new key after it was set up anew, but also when somebody poses as it. Ask whoever runs it to read you its fingerprint, and go on only if it is the first of these.";
pub(crate) const NEW_FINGERPRINT: &str = "The fingerprint now";
pub(crate) const OLD_FINGERPRINT: &str = "The fingerprint until now";
pub(crate) const TRUST: &str = "Trust the new key";
pub(crate) const DO_NOT_TRUST: &str = "Not now";

/// Why a changed key matters.
pub(crate) fn key_changed(peer: &str) -> String {
    format!(
        "{peer} has another key than last time. That is so after a new installation or on a new computer, but also when somebody else uses the name. Ask {peer}, by phone or in person, to read you their fingerprint, and trust the new key only if it is the first of these."
    )
}

/// The heading of the decision on a changed key.
pub(crate) fn is_this_still(peer: &str) -> String {
    format!("Is this still {peer}?")
}

/// A fingerprint in groups of four, to be read aloud.
pub(crate) fn grouped(fingerprint: &str) -> String {
    let chars: Vec<char> = fingerprint.chars().collect();
    chars
        .chunks(4)
        .map(|group| group.iter().collect::<String>())
        .collect::<Vec<_>>()
        .join(" ")
}
