//! What all connections share: their resources, and how they are written to and ended.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pinhole_budget::Full;
use pinhole_proto::frame::{Decoder, FrameError};
use pinhole_proto::rendezvous::{Refusal, ServerMessage};
use pinhole_proto::tls::Unproven;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::info;

use crate::admission::{AdmissionControl, ConnectionSlot};
use crate::backlog::{Backlogs, encoded};
use crate::inbox::{RegistrarInput, TlsStream};
use crate::limits::Limits;
use crate::log::ClientLog;
use crate::metrics::Metrics;
use crate::probe::Prober;
use crate::proxy_protocol::TrustedProxies;
use crate::relay::RelayService;
use crate::turns::Turns;

/// Longer than most messages. An idle connection holds this buffer.
const READ_BYTES: usize = 512;

/// How far a server has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// Only relayed pairs go on.
    Draining,
    /// Everything ends.
    Ending,
}

/// What all connections share.
pub(crate) struct Context {
    pub(crate) tls: TlsAcceptor,
    /// What handshakes compute is done in turns.
    pub(crate) turns: Turns,
    /// As they were at the start.
    pub(crate) limits: Limits,
    pub(crate) admission: Arc<AdmissionControl>,
    pub(crate) prober: Prober,
    pub(crate) relay: Arc<RelayService>,
    pub(crate) registrar: mpsc::Sender<RegistrarInput>,
    pub(crate) log: Arc<ClientLog>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) proxies: TrustedProxies,
    pub(crate) backlogs: Backlogs,
    pub(crate) phase: watch::Receiver<Phase>,
    /// The number of the next connection that needs one.
    pub(crate) next_id: AtomicU64,
}

impl Context {
    pub(crate) fn fresh_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Logs that a connection had no place before its handshake, unless there have been
    /// too many such lines.
    pub(crate) fn note_refused(&self, observed: SocketAddr, full: Full) {
        if self.log.admits(observed.ip()) {
            let (reason, observed) = (self.log.reason(full), self.log.shown(observed));
            info!(
                observed,
                "connection refused before its handshake: {reason}"
            );
        }
    }

    /// Completes when the server goes down.
    pub(crate) async fn stopped(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Completes at the given phase, or a later one.
    pub(crate) async fn reached(&self, phase: Phase) {
        let mut current = self.phase.clone();
        // An error says that the sender is gone: the server is, too.
        drop(current.wait_for(|&current| current >= phase).await);
    }

    /// Completes when a connection has to end through no fault of its client. Returns the
    /// reason.
    pub(crate) async fn cut_off(&self, connection: &ConnectionSlot) -> Refusal {
        tokio::select! {
            () = self.stopped() => Refusal::ShuttingDown,
            () = connection.evicted() => Refusal::Limited,
        }
    }
}

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("did not authenticate in time")]
    Slow,
    #[error("does not read")]
    DoesNotRead,
    #[error("{0}")]
    Unproven(#[from] Unproven),
    #[error("closed before its first message")]
    Empty,
    #[error("began with {0}, which is no beginning")]
    FirstMessage(&'static str),
    #[error("sent more than it may")]
    Unexpected,
    #[error("cut off: {0}")]
    CutOff(Refusal),
}

/// The next message, with the number of bytes that were read for it. `None` when the
/// other end hung up between two.
pub(crate) async fn read_message<M: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    decoder: &mut Decoder,
) -> Result<Option<(M, u64)>, ConnectionError> {
    let mut buffer = [0; READ_BYTES];
    let mut bytes = 0;
    loop {
        if let Some(message) = decoder.next_message()? {
            return Ok(Some((message, bytes)));
        }
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(None);
        }
        bytes += read as u64;
        decoder.feed(buffer.get(..read).unwrap_or_default());
    }
}

pub(crate) async fn write_frame(
    context: &Context,
    stream: &mut (impl AsyncWrite + Unpin),
    frame: &[u8],
) -> Result<(), ConnectionError> {
    let write = async {
        stream.write_all(frame).await?;
        stream.flush().await
    };
    let written = timeout(context.limits.write_timeout, write).await;
    Ok(written.map_err(|_| ConnectionError::DoesNotRead)??)
}

pub(crate) async fn write_message(
    context: &Context,
    stream: &mut TlsStream,
    message: &ServerMessage,
) -> Result<(), ConnectionError> {
    match encoded(message) {
        Some(frame) => write_frame(context, stream, &frame).await,
        None => Ok(()),
    }
}

pub(crate) async fn refuse(
    context: &Context,
    mut stream: TlsStream,
    reason: Refusal,
) -> Result<(), ConnectionError> {
    context.metrics.refused(reason);
    write_message(context, &mut stream, &ServerMessage::Refused { reason }).await?;
    stream.shutdown().await?;
    linger(context, &mut stream).await;
    Ok(())
}

/// Reads until the client hangs up. Closing with unread bytes would reset the connection,
/// and could lose the last message.
pub(crate) async fn linger(context: &Context, stream: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = [0; READ_BYTES];
    let drain = async { while matches!(stream.read(&mut buffer).await, Ok(1..)) {} };
    // Either way the connection ends now.
    let _: Result<(), _> = timeout(context.limits.linger_timeout, drain).await;
}

pub(crate) async fn tell(context: &Context, input: RegistrarInput) -> Result<(), ConnectionError> {
    let told = context.registrar.send(input).await;
    told.map_err(|_| ConnectionError::CutOff(Refusal::ShuttingDown))
}
