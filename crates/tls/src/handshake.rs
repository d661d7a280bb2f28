//! The handshake as a state machine over memory: rustls's unbuffered connections.

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, ServerConfig};

use crate::records::{self, HEADER_BYTES, Opener, Sealer};
use crate::side::{RustlsConnection, queue};

/// One end of a TLS connection during the handshake, client or server.
///
/// rustls gets one record at a time and none behind the handshake. Those belong to the
/// [`Opener`], which counts and places them.
pub struct Handshake {
    side: RustlsConnection,
    /// Bytes to be sent.
    queued: Vec<u8>,
    /// How many bytes of whole records rustls has seen and needs again, in the same
    /// buffer, because the message in them continues in the next record.
    begun_bytes: usize,
}

/// The state of the handshake after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// More may be possible with the bytes at hand.
    Again,
    /// More bytes from the peer are needed.
    Blocked,
    /// The handshake is done. The remaining bytes belong to the [`Opener`].
    Ready,
}

impl Handshake {
    /// The side that speaks first.
    ///
    /// # Errors
    /// The configuration is of no use.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        let client = UnbufferedClientConnection::new(config, name)?;
        Ok(Self::new(RustlsConnection::Client(client)))
    }

    /// The side that answers.
    ///
    /// # Errors
    /// The configuration is of no use.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let server = UnbufferedServerConnection::new(config)?;
        Ok(Self::new(RustlsConnection::Server(server)))
    }

    const fn new(side: RustlsConnection) -> Self {
        Self {
            side,
            queued: Vec::new(),
            begun_bytes: 0,
        }
    }

    /// What rustls knows about the connection: the peer's key, the protocol.
    #[must_use]
    pub fn connection(&self) -> &CommonState {
        &self.side
    }

    /// Takes one step with the bytes that have arrived. Returns how many of them are
    /// consumed, which have to be left out the next time. After an error the handshake is
    /// over, and the alert for the peer is queued.
    pub fn step(&mut self, arrived: &mut [u8]) -> (usize, Result<Step, Error>) {
        let shown_bytes = self.shown_bytes(arrived);
        let is_more = arrived.len() > shown_bytes;
        let shown = arrived.get_mut(..shown_bytes).unwrap_or_default();
        let (done_bytes, step) = self.process(shown);
        if step.is_err() && self.side.wants_write() {
            // The alert, before any look at what has arrived.
            let _ = self.process(&mut []);
        }
        self.begun_bytes = self.begun_bytes.saturating_sub(done_bytes);
        if is_more && matches!(step, Ok(Step::Blocked)) {
            self.begun_bytes = shown_bytes - done_bytes;
            return (done_bytes, Ok(Step::Again));
        }
        (done_bytes, step)
    }

    /// How many bytes rustls may see: those that it needs again, and the record behind
    /// them, as far as it has arrived.
    fn shown_bytes(&self, arrived: &[u8]) -> usize {
        if !self.connection().is_handshaking() {
            return self.begun_bytes;
        }
        let behind = arrived.get(self.begun_bytes..).unwrap_or_default();
        let record_bytes = match behind.first_chunk::<HEADER_BYTES>() {
            Some([.., high, low]) => HEADER_BYTES + usize::from(u16::from_be_bytes([*high, *low])),
            None => behind.len(),
        };
        self.begun_bytes + record_bytes.min(behind.len())
    }

    fn process(&mut self, shown: &mut [u8]) -> (usize, Result<Step, Error>) {
        match &mut self.side {
            RustlsConnection::Client(c) => step(c.process_tls_records(shown), &mut self.queued),
            RustlsConnection::Server(s) => step(s.process_tls_records(shown), &mut self.queued),
        }
    }

    /// Takes the bytes to be sent.
    pub fn take_queued(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.queued)
    }

    #[cfg(test)]
    pub(crate) fn into_side(self) -> RustlsConnection {
        self.side
    }

    /// The two directions of the connection, once the handshake is done and what
    /// was queued is taken.
    #[must_use]
    pub fn into_records(self) -> (Opener, Sealer) {
        records::directions(self.side)
    }
}

fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    queued: &mut Vec<u8>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { discard, state } = status;
    let step = match state {
        Ok(ConnectionState::EncodeTlsData(data)) => queue(data, queued).map(|()| Step::Again),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Blocked),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Ready),
        Ok(other) => Err(Error::General(format!("unexpected state {other:?}"))),
        Err(error) => Err(error),
    };
    (discard, step)
}
