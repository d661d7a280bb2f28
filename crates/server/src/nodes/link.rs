//! One link between two nodes.

use std::io;
use std::time::Duration;

use pinhole_proto::frame::{Decoder, FrameError, FrameKind, encode};
use pinhole_proto::node::{NODE_VERSION, NodeMessage};
use pinhole_proto::rendezvous::NodeId;
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsStream;

use crate::backlog::SharedFrame;
use crate::context::{ConnectionError, read_message};
use crate::inbox::{NodeEvent, NodeLink, RegistrarInput};

/// How many frames may wait for a node. A node further behind loses its link, and fetches
/// what it has missed over the next one.
const OUTGOING_FRAMES: usize = 4_096;
/// Frames that wait are written together up to this many bytes.
const WRITE_BYTES: usize = 64 * 1024;
const WRITE_TIMEOUT: Duration = Duration::from_secs(4);

/// Why there is no link to a node any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Read(#[from] ConnectionError),
    #[error("it did not answer in time")]
    Slow,
    #[error("it was closed")]
    Closed,
    #[error("it did not begin as a node does")]
    Unexpected,
    #[error("it speaks version {0} of the messages between nodes, and this one {NODE_VERSION}")]
    Version(u16),
}

/// A connection to another node that has proven the server's key.
pub(super) struct Link {
    stream: TlsStream<TcpStream>,
    decoder: Decoder,
    node: NodeId,
}

impl Link {
    /// Exchanges the first messages.
    pub(super) async fn open(
        mut stream: TlsStream<TcpStream>,
        own: NodeId,
    ) -> Result<Self, LinkError> {
        let hello = NodeMessage::Hello {
            version: NODE_VERSION,
            node: own,
        };
        stream.write_all(&encode(FrameKind::Node, &hello)?).await?;
        stream.flush().await?;
        let mut decoder = Decoder::new(FrameKind::Node);
        let first = read_message(&mut stream, &mut decoder).await?;
        let (first, _) = first.ok_or(LinkError::Closed)?;
        match first {
            NodeMessage::Hello { version, .. } if version != NODE_VERSION => {
                Err(LinkError::Version(version))
            }
            NodeMessage::Hello { node, .. } => Ok(Self {
                stream,
                decoder,
                node,
            }),
            _ => Err(LinkError::Unexpected),
        }
    }

    /// The other side.
    pub(super) const fn node(&self) -> NodeId {
        self.node
    }

    /// Passes messages on between the registrar and the node until either ends it. The
    /// number tells the link from earlier ones of the same node.
    pub(super) async fn carry(
        self,
        number: u64,
        registrar: &mpsc::Sender<RegistrarInput>,
    ) -> Result<(), LinkError> {
        let Self {
            stream,
            mut decoder,
            node,
        } = self;
        let (outgoing, mut frames) = mpsc::channel(OUTGOING_FRAMES);
        let link = NodeLink { node, number };
        let event = NodeEvent::Linked { outgoing };
        let linked = RegistrarInput::Node { link, event };
        if registrar.send(linked).await.is_err() {
            return Ok(());
        }
        let (mut reader, mut writer) = split(stream);
        let ended = tokio::select! {
            ended = read(&mut reader, &mut decoder, link, registrar) => ended,
            ended = write(&mut writer, &mut frames) => ended,
        };
        let event = NodeEvent::Unlinked;
        let unlinked = RegistrarInput::Node { link, event };
        // The registrar is gone only when it has forgotten all nodes.
        let _: Result<(), _> = registrar.send(unlinked).await;
        ended
    }
}

async fn read(
    reader: &mut ReadHalf<TlsStream<TcpStream>>,
    decoder: &mut Decoder,
    link: NodeLink,
    registrar: &mpsc::Sender<RegistrarInput>,
) -> Result<(), LinkError> {
    while let Some((message, _)) = read_message(reader, decoder).await? {
        let event = NodeEvent::Message(Box::new(message));
        let input = RegistrarInput::Node { link, event };
        if registrar.send(input).await.is_err() {
            return Ok(());
        }
    }
    Err(LinkError::Closed)
}

/// Ends when the registrar gives the link up.
async fn write(
    writer: &mut WriteHalf<TlsStream<TcpStream>>,
    frames: &mut mpsc::Receiver<SharedFrame>,
) -> Result<(), LinkError> {
    let mut waiting = Vec::new();
    while let Some(first) = frames.recv().await {
        waiting.clear();
        waiting.extend_from_slice(&first);
        while waiting.len() < WRITE_BYTES
            && let Ok(next) = frames.try_recv()
        {
            waiting.extend_from_slice(&next);
        }
        let write = async {
            writer.write_all(&waiting).await?;
            writer.flush().await
        };
        timeout(WRITE_TIMEOUT, write)
            .await
            .map_err(|_| LinkError::Slow)??;
    }
    Ok(())
}
