//! Reads frames from the connection. What a frame carries of files is read only when
//! somebody has said that it is due, and where it goes.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::connection::buffer::{Buffer, Pool};
use crate::connection::liveness::LivenessReader;
use crate::connection::{Connection, Ended};
use crate::event::Party;
use crate::protocol::frame::{
    self, BATCH_HEADER_BYTES, CHUNK_HEADER_BYTES, ChunkHeader, DigestItem, FRAME_HEADER_BYTES,
    FrameHeader, FrameKind,
};
use crate::protocol::message::{Message, TransferId};
use crate::rate_limit::SLICE_BYTES;

/// Buffers for what arrives, shared by all transfers: 6 MiB.
const RECEIVE_BUFFERS: usize = 6;

/// A frame, but for the bytes of files that it carries.
pub(crate) enum Received {
    Message(Message),
    /// One chunk; its data follows.
    Chunk {
        header: ChunkHeader,
        data_bytes: usize,
    },
    /// Whole files; they follow.
    Batch {
        transfer: TransferId,
        items_bytes: usize,
    },
    Digests {
        transfer: TransferId,
        items: Vec<DigestItem>,
    },
}

/// The reading half of the connection.
pub(crate) struct FrameReader<R> {
    stream: LivenessReader<R>,
    connection: Arc<Connection>,
    buffers: Pool,
    control: Vec<u8>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(stream: R, connection: Arc<Connection>) -> Self {
        let memory = connection.resources.buffers.clone();
        Self {
            stream: LivenessReader::new(stream, connection.silence.clone()),
            buffers: Pool::arriving(RECEIVE_BUFFERS, memory),
            connection,
            control: Vec::new(),
        }
    }

    /// The next frame. What is left of the one before must have been read.
    pub(crate) async fn next(&mut self) -> Result<Received, Ended> {
        let FrameHeader {
            kind,
            payload_bytes,
        } = FrameHeader::decode(self.bytes::<FRAME_HEADER_BYTES>().await?)?;
        Ok(match kind {
            FrameKind::Control => {
                let payload = self.payload(payload_bytes).await?;
                Received::Message(frame::decode_message(payload)?)
            }
            FrameKind::Chunk => Received::Chunk {
                header: ChunkHeader::decode(&self.bytes().await?),
                data_bytes: payload_bytes - CHUNK_HEADER_BYTES,
            },
            FrameKind::Batch => Received::Batch {
                transfer: self.transfer().await?,
                items_bytes: payload_bytes - BATCH_HEADER_BYTES,
            },
            FrameKind::Digests => Received::Digests {
                transfer: self.transfer().await?,
                items: frame::digest_items(
                    self.payload(payload_bytes - BATCH_HEADER_BYTES).await?,
                )?,
            },
        })
    }

    async fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    async fn transfer(&mut self) -> io::Result<TransferId> {
        let id = u32::from_be_bytes(self.bytes::<BATCH_HEADER_BYTES>().await?);
        Ok(TransferId::from_wire(id))
    }

    async fn payload(&mut self, bytes: usize) -> io::Result<&[u8]> {
        self.control.resize(bytes, 0);
        self.stream.read_exact(&mut self.control).await?;
        Ok(&self.control)
    }

    /// Waits for a buffer.
    pub(crate) async fn buffer(&mut self) -> Result<Buffer, Ended> {
        let buffer = self.buffers.take().await;
        buffer.ok_or(Ended::Closed(Party::Us))
    }

    /// Reads what a frame carries, as fast as may be. `count` hears of it as it comes:
    /// on a slow line a chunk takes seconds.
    pub(crate) async fn data(
        &mut self,
        mut buffer: Buffer,
        bytes: usize,
        count: impl Fn(u64),
    ) -> Result<Buffer, Ended> {
        let mut rest = buffer.data_mut().get_mut(..bytes).unwrap_or_default();
        let limit = &self.connection.resources.receive;
        while !rest.is_empty() {
            let most = match limit.is_set() {
                true => rest.len().min(SLICE_BYTES),
                false => rest.len(),
            };
            limit.pass(most).await;
            let (mut slice, behind) = rest.split_at_mut(most);
            while !slice.is_empty() {
                let read = self.stream.read(slice).await?;
                if read == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                count(read as u64);
                slice = slice.split_at_mut(read).1;
            }
            rest = behind;
        }
        Ok(buffer)
    }
}
