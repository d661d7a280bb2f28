//! A message that is being written.

use pinhole_client::{PeerIdentity, TEXT_BYTES_MAX};

/// More than can be sent is taken, so that it can be shortened, but not much.
pub(super) const LONGEST_CHARS: usize = 2 * TEXT_BYTES_MAX;

/// A message that is not sent yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Draft {
    pub(super) peer: PeerIdentity,
    pub(super) text: String,
    /// The keyboard has been put into the field.
    pub(super) focused: bool,
}

impl Draft {
    /// Begins with this text.
    pub(crate) fn to(peer: PeerIdentity, text: &str) -> Self {
        Self {
            peer,
            text: text.chars().take(LONGEST_CHARS).collect(),
            focused: false,
        }
    }

    /// The recipient.
    pub(crate) const fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// Whether the message is blank.
    pub(crate) fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }

    /// Appends the present text to an earlier draft.
    pub(crate) fn go_on_from(&mut self, before: Self) {
        let begun = std::mem::replace(&mut self.text, before.text);
        if !begun.is_empty() {
            self.text.push('\n');
            let room = LONGEST_CHARS.saturating_sub(self.text.chars().count());
            self.text.extend(begun.chars().take(room));
        }
    }

    /// Notes that another sheet covers it. Typing continues once that is gone.
    pub(crate) const fn lose_focus(&mut self) {
        self.focused = false;
    }
}
