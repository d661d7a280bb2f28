//! Whether a transfer goes on: who wants it to stop for a while, and why it ends early.

use std::sync::OnceLock;

use parking_lot::{Condvar, Mutex};

use crate::event::{Party, TransferError};
use crate::progress::Paused;

/// What both sides and the threads of a transfer use to hold it up or to end it.
#[derive(Debug, Default)]
pub(crate) struct Control {
    paused: Mutex<Paused>,
    stopped: OnceLock<TransferError>,
    /// Wakes whoever waits while it is paused.
    changed: Condvar,
}

impl Control {
    /// Notes that this party wants the sender to stop, or does not any more.
    /// Returns whether that is news.
    pub(crate) fn pause(&self, party: Party, is_paused: bool) -> bool {
        let mut paused = self.paused.lock();
        let by = match party {
            Party::Us => &mut paused.by_us,
            Party::Peer => &mut paused.by_peer,
        };
        let is_news = std::mem::replace(by, is_paused) != is_paused;
        drop(paused);
        self.changed.notify_all();
        is_news
    }

    /// Which sides have paused the sender.
    pub(crate) fn paused(&self) -> Paused {
        *self.paused.lock()
    }

    /// Returns when the sender may go on, or the transfer was stopped. Blocks.
    pub(crate) fn wait_while_paused(&self) {
        let mut paused = self.paused.lock();
        while *paused != Paused::default() && self.stopped().is_none() {
            self.changed.wait(&mut paused);
        }
    }

    /// Ends the transfer early. Only the first reason counts.
    pub(crate) fn stop(&self, reason: TransferError) {
        let _ = self.stopped.set(reason);
        // Under the lock: whoever is about to wait has seen it or is woken.
        let _paused = self.paused.lock();
        self.changed.notify_all();
    }

    /// Why the transfer ends early, if it does.
    pub(crate) fn stopped(&self) -> Option<&TransferError> {
        self.stopped.get()
    }

    /// Whether what is unfinished serves a later attempt: always, but when
    /// somebody wants it gone or the sender was caught lying.
    pub(crate) fn keeps_parts(&self) -> bool {
        !matches!(
            self.stopped(),
            Some(
                TransferError::Cancelled(_)
                    | TransferError::Verification(_)
                    | TransferError::Violation(_)
            )
        )
    }

    /// Whether nothing that has come is of interest any more. After a lost connection
    /// it is still worth keeping.
    pub(crate) fn drops_data(&self) -> bool {
        !matches!(
            self.stopped(),
            None | Some(TransferError::ConnectionLost | TransferError::Interrupted(_))
        )
    }
}
