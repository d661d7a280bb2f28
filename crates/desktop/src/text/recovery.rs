//! Words about recovery.

pub(crate) const YOUR_WORDS: &str = "Your recovery words";
pub(crate) const WORDS_HELP: &str = "They bring your name back if this computer is lost. Write them down on paper: they are kept nowhere, and not shown again.";
pub(crate) const WRITTEN_DOWN: &str = "I have written them down";
pub(crate) const RECOVERY: &str = "Recovery words";
pub(crate) const NEW_WORDS: &str = "Make new words";
pub(crate) const HAS_WORDS: &str =
    "You have recovery words. New ones take the place of those before, on a server after 30 days.";
pub(crate) const HAS_NO_WORDS: &str =
    "There are none yet. Without them, your name is lost with this computer.";
pub(crate) const RECOVER: &str = "Recover your name";
pub(crate) const RECOVER_HELP: &str = "After a computer was lost, your recovery words bring your name back. People who know you are told that you have a new key.";
pub(crate) const WORDS_FIELD: &str = "Recovery words";
pub(crate) const TAKE_NAME_BACK: &str = "Take the name back";
pub(crate) const KEY_REVOKED: &str = "Key revoked, nothing is sent to it";
pub(crate) const NAME_RELEASED: &str = "Somebody else: the name was released";

/// A person we know has a signed new key.
pub(crate) fn key_succeeded(peer: &str) -> String {
    format!("{peer} has a new key, signed with {peer}'s recovery key.")
}

/// A person we know has revoked a key.
pub(crate) fn key_revoked(peer: &str) -> String {
    format!(
        "{peer} has revoked a key, because it may be in the wrong hands. Nothing is sent to it."
    )
}

/// The server has noted a revocation.
pub(crate) fn revoked(name: &str) -> String {
    format!("Nobody is to believe the key of {name} any more.")
}

/// Why a released name matters.
pub(crate) fn name_released(peer: &str) -> String {
    format!(
        "{peer}'s name was not used for so long that the server released it. Whoever has it now is somebody else, unless {peer} reads you the first of these fingerprints, by phone or in person."
    )
}
