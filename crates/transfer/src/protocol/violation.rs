//! What a peer can do that no honest peer does. Any of it ends the connection.

use crate::protocol::frame::FrameError;
use crate::protocol::index::{ChunkIndex, EntryIndex};
use crate::protocol::manifest::ManifestError;
use crate::protocol::message::TransferId;

/// A breach of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The bytes are no frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The offer is not one.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A transfer that was never offered, or by the wrong side.
    #[error("no such transfer: {0}")]
    Transfer(TransferId),
    /// A text above [`crate::protocol::message::TEXT_BYTES_MAX`].
    #[error("a text of {0} bytes")]
    Text(usize),
    /// Asks for more answers than it takes.
    #[error("answers are not taken")]
    Flood,
    /// A message that does not belong into this state.
    #[error("unexpected {0}")]
    State(&'static str),
    /// A file that does not exist or is not due.
    #[error("entry {0} is not due")]
    Entry(EntryIndex),
    /// A chunk that does not exist, is not due, or has the wrong length.
    #[error("chunk {index} of entry {entry} is not due")]
    Chunk {
        /// The file's place in the manifest.
        entry: EntryIndex,
        /// The chunk's place in the file.
        index: ChunkIndex,
    },
    /// A stream that ends elsewhere than where its chunks did.
    #[error("a stream of {0} bytes has other chunks")]
    StreamSize(u64),
    /// Says that more of a stream has arrived than was sent, or less than before.
    #[error("{0} bytes of a stream cannot have arrived")]
    Arrived(u64),
    /// Claims to have, or to have compared, what cannot be.
    #[error("{chunks} chunks of entry {entry} cannot be there")]
    Have {
        /// The file's place in the manifest.
        entry: EntryIndex,
        /// How many chunks.
        chunks: u32,
    },
    /// Acknowledges what was not sent, or takes back what was acknowledged.
    #[error("{0} durable entries cannot be")]
    Durable(u32),
}
