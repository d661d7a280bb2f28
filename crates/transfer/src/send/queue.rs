//! Queues frames for the connection, and keeps account of them.

use super::{Outgoing, Sent, Stopped};
use crate::connection::Frame;
use crate::protocol::digest::{Digest, Tree};
use crate::protocol::file_error::FileError;
use crate::protocol::frame;
use crate::protocol::index::{ChunkIndex, EntryIndex};
use crate::protocol::message::Message;

/// Data that was read, hashed and framed.
pub(super) enum Piece {
    Chunk {
        entry: EntryIndex,
        index: ChunkIndex,
        digest: Digest,
        frame: Frame,
    },
    Batch {
        /// Each file's place and root.
        files: Vec<(EntryIndex, Digest)>,
        frame: Frame,
        file_bytes: usize,
    },
    End {
        entry: EntryIndex,
        /// Over the chunks that the receiver had.
        tree: Tree,
    },
    Failed {
        entry: EntryIndex,
        error: FileError,
    },
    /// A chunk of a stream.
    Streamed {
        digest: Digest,
        /// The root if it stays the only one.
        only: Option<Digest>,
        frame: Frame,
    },
    StreamEnd {
        entry: EntryIndex,
        size_bytes: u64,
    },
    /// The stream could not be read to its end.
    Broken(FileError),
}

/// The way to the connection of one transfer.
pub(super) struct Queue<'a, T> {
    outgoing: &'a Outgoing,
    is_early: bool,
    /// Hears of each file before the receiver can.
    tell: T,
    /// Over the chunks of the open file that the receiver did not have.
    pub(super) tree: Option<Tree>,
}

impl<'a, T: FnMut(Sent)> Queue<'a, T> {
    /// For the files of an offer that was accepted.
    pub(super) const fn new(outgoing: &'a Outgoing, tell: T) -> Self {
        Self {
            outgoing,
            is_early: false,
            tell,
            tree: None,
        }
    }

    /// For what travels before the answer.
    pub(super) fn early(outgoing: &'a Outgoing, tell: T) -> Self {
        let mut queue = Self::new(outgoing, tell);
        queue.is_early = true;
        queue
    }

    /// Waits for the connection.
    pub(super) fn put(&mut self, piece: Piece) -> Result<(), Stopped> {
        let Outgoing { transfer, have, .. } = self.outgoing;
        self.outgoing.check_stopped()?;
        match piece {
            Piece::Chunk {
                entry,
                index,
                digest,
                frame,
            } => {
                if have.get(&entry).is_none_or(|have| index.get() >= *have) {
                    let tree = self.tree.get_or_insert_with(|| Tree::starting_at(index));
                    tree.push(digest);
                }
                let file_bytes = frame.data_bytes();
                self.outgoing.queue(frame, file_bytes, self.is_early)
            }
            Piece::Batch {
                files,
                frame,
                file_bytes,
            } => {
                for (entry, root) in files {
                    transfer.digests.add_root(entry, root);
                    (self.tell)(Sent::File(entry));
                }
                // What travels whole before the answer counts once it is durable.
                let file_bytes = if self.is_early { 0 } else { file_bytes };
                self.outgoing.queue(frame, file_bytes, self.is_early)
            }
            Piece::End {
                entry,
                tree: mut whole,
            } => {
                whole.append(self.tree.take().unwrap_or_default());
                let root = whole.root();
                transfer.digests.add_root(entry, root);
                (self.tell)(Sent::File(entry));
                self.say(&Message::FileEnd {
                    transfer: transfer.id,
                    entry,
                    root,
                })
            }
            Piece::Failed { entry, error } => {
                self.tree = None;
                let trouble = error.trouble();
                (self.tell)(match self.is_early {
                    true => Sent::FailedEarly(entry, error),
                    false => Sent::Failed(entry, error),
                });
                self.say(&Message::FileFailed {
                    transfer: transfer.id,
                    entry,
                    trouble,
                })
            }
            Piece::Streamed { .. } | Piece::StreamEnd { .. } | Piece::Broken(_) => {
                self.put_stream(piece)
            }
        }
    }

    fn put_stream(&mut self, piece: Piece) -> Result<(), Stopped> {
        let transfer = &self.outgoing.transfer;
        match piece {
            Piece::Streamed {
                digest,
                only,
                frame,
            } => {
                let tree = self.tree.get_or_insert_default();
                tree.push(digest);
                if let Some(only) = only {
                    tree.set_only(only);
                }
                (self.tell)(Sent::Streamed(frame.data_bytes() as u64));
                // Its bytes count once they have arrived.
                self.outgoing.queue(frame, 0, false)
            }
            Piece::StreamEnd { entry, size_bytes } => {
                let root = self.tree.take().unwrap_or_default().root();
                transfer.digests.add_root(entry, root);
                (self.tell)(Sent::File(entry));
                self.say(&Message::StreamEnd {
                    transfer: transfer.id,
                    size_bytes,
                    root,
                })
            }
            Piece::Broken(error) => {
                (self.tell)(Sent::Broken(error));
                Err(Stopped)
            }
            _ => Ok(()),
        }
    }

    fn say(&self, message: &Message) -> Result<(), Stopped> {
        let encoded = frame::encode_message(message).map_err(|_| Stopped)?;
        self.outgoing
            .queue(Frame::Message(encoded), 0, self.is_early)
    }
}
