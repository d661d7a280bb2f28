//! Control messages on their way to the writer.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::protocol::message::Message;
use crate::protocol::violation::Violation;

/// Most answers that wait while the peer asks for more. An honest one waits for
/// some, and takes them.
pub(crate) const ANSWERS_WAITING_MAX: usize = 4096;

/// Control messages waiting for the connection. Of what this side has to say it
/// never holds more than a few messages a transfer and one for each file that
/// failed or is compared: acknowledgements are cumulative, so that a newer one
/// takes the place of an older. What the peer has asked for is counted.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    pub(crate) filled: Notify,
}

#[derive(Default)]
struct Waiting {
    /// Each with whether it is an answer.
    messages: VecDeque<(Message, bool)>,
    answers: usize,
}

impl Outbox {
    pub(crate) fn push(&self, message: Message) {
        let mut waiting = self.waiting.lock();
        // It goes to the end: whoever hears it must have heard before of every failure
        // that it covers.
        waiting
            .messages
            .retain(|(other, is_answer)| *is_answer || !replaces(&message, other));
        waiting.messages.push_back((message, false));
        drop(waiting);
        self.filled.notify_one();
    }

    /// As [`Outbox::push`], for what the peer has asked for.
    ///
    /// # Errors
    /// The peer asks for more answers than it takes. Then it is not said.
    pub(crate) fn push_answer(&self, message: Message) -> Result<(), Violation> {
        let mut waiting = self.waiting.lock();
        if waiting.answers >= ANSWERS_WAITING_MAX {
            return Err(Violation::Flood);
        }
        waiting.messages.push_back((message, true));
        waiting.answers += 1;
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    pub(crate) fn pop(&self) -> Option<Message> {
        let mut waiting = self.waiting.lock();
        let (message, is_answer) = waiting.messages.pop_front()?;
        waiting.answers -= usize::from(is_answer);
        Some(message)
    }
}

/// Whether a message says all that an earlier one says.
fn replaces(message: &Message, other: &Message) -> bool {
    match (message, other) {
        (Message::Durable { transfer, .. }, Message::Durable { transfer: of, .. })
        | (Message::Arrived { transfer, .. }, Message::Arrived { transfer: of, .. }) => {
            transfer == of
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::file_error::FileErrorKind;
    use crate::protocol::index::EntryIndex;
    use crate::protocol::message::TransferId;

    #[test]
    fn acknowledgements_do_not_pile_up() {
        let outbox = Outbox::default();
        let durable = |id, entries| Message::Durable {
            transfer: TransferId::from_wire(id),
            entries,
        };
        for entries in 0..1000 {
            outbox.push(durable(0, entries));
            outbox.push(durable(1, entries + 1));
        }
        assert_eq!(outbox.pop(), Some(durable(0, 999)));
        assert_eq!(outbox.pop(), Some(durable(1, 1000)));
        assert_eq!(outbox.pop(), None);
    }

    #[test]
    fn a_failure_is_never_overtaken_by_its_acknowledgement() {
        let outbox = Outbox::default();
        let transfer = TransferId::from_wire(0);
        let failed = Message::FileFailed {
            transfer,
            entry: EntryIndex::new(3),
            trouble: FileErrorKind::Io,
        };
        outbox.push(Message::Durable {
            transfer,
            entries: 3,
        });
        outbox.push(failed.clone());
        outbox.push(Message::Durable {
            transfer,
            entries: 5,
        });
        assert_eq!(outbox.pop(), Some(failed));
        assert_eq!(
            outbox.pop(),
            Some(Message::Durable {
                transfer,
                entries: 5
            })
        );
    }
}
