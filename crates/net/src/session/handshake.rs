//! The TLS handshake as a state machine over memory: rustls's unbuffered
//! connections. The record layer takes over when it is done.

use std::io;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, ServerConfig};

use pinhole_proto::key::PeerKey;
use pinhole_proto::tls;

use super::record::{self, KeySchedule, Opener, Sealer};

/// One end of a TLS connection, of either role, while hands are shaken.
pub(super) struct Handshake {
    side: Side,
    /// To be sent.
    queued: Vec<u8>,
    /// The peer has said that nothing more follows.
    peer_closed: bool,
}

enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// Where the state machine stands after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There may be more to do with what is there.
    Again,
    /// Only more bytes from the peer lead on.
    Blocked,
    /// The handshake is done and every record that is there is opened.
    Ready,
    /// Both directions are closed.
    Closed,
}

impl Handshake {
    pub(super) fn client(config: Arc<ClientConfig>) -> io::Result<Self> {
        let client = UnbufferedClientConnection::new(config, tls::server_name());
        Ok(Self::new(Side::Client(client.map_err(io::Error::other)?)))
    }

    pub(super) fn server(config: Arc<ServerConfig>) -> io::Result<Self> {
        let server = UnbufferedServerConnection::new(config);
        Ok(Self::new(Side::Server(server.map_err(io::Error::other)?)))
    }

    const fn new(side: Side) -> Self {
        Self {
            side,
            queued: Vec::new(),
            peer_closed: false,
        }
    }

    /// Goes one step with what has arrived. Returns how many bytes of it are
    /// done with; plaintext goes to `opened`. After an error the handshake is
    /// over, and the alert that tells the peer why is queued.
    pub(super) fn step(
        &mut self,
        arrived: &mut [u8],
        opened: impl FnMut(&[u8]),
    ) -> (usize, io::Result<Step>) {
        let (done_bytes, step) = self.process(arrived, opened);
        if step.as_ref().is_err_and(|error| !is_told_by_peer(error)) {
            // With the same bytes: rustls goes on with a message over several
            // records only in the very buffer.
            let _ = self.process(arrived, |_| ());
        }
        (done_bytes, step)
    }

    fn process(
        &mut self,
        arrived: &mut [u8],
        opened: impl FnMut(&[u8]),
    ) -> (usize, io::Result<Step>) {
        let (queued, closed) = (&mut self.queued, &mut self.peer_closed);
        match &mut self.side {
            Side::Client(c) => step(c.process_tls_records(arrived), queued, closed, opened),
            Side::Server(s) => step(s.process_tls_records(arrived), queued, closed, opened),
        }
    }

    /// The key that the other end has proven, once the handshake is done.
    pub(super) fn peer_key(&self) -> Option<PeerKey> {
        tls::peer_key(match &self.side {
            Side::Client(c) => c.peer_certificates(),
            Side::Server(s) => s.peer_certificates(),
        })
    }

    /// What is to be sent regardless of plaintext: handshake and alerts.
    pub(super) fn take_queued(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.queued)
    }

    /// What follows the handshake, once it is done and what was queued is taken.
    pub(super) fn into_directions(self) -> io::Result<(Opener, Sealer)> {
        let (secrets, keys) = match self.side {
            Side::Client(client) => {
                let done = client.dangerous_into_kernel_connection();
                let (secrets, keys) = done.map_err(io::Error::other)?;
                (secrets, KeySchedule::Client(keys))
            }
            Side::Server(server) => {
                let done = server.dangerous_into_kernel_connection();
                let (secrets, keys) = done.map_err(io::Error::other)?;
                (secrets, KeySchedule::Server(keys))
            }
        };
        record::directions(secrets, keys, self.peer_closed)
    }
}

/// Whether the peer's alert is the error. No alert of ours answers it, and the
/// record that brought it is opened already: another look would take it for a
/// forged one.
fn is_told_by_peer(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|e| e.downcast_ref());
    matches!(inner, Some(rustls::Error::AlertReceived(_)))
}

fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    queued: &mut Vec<u8>,
    peer_closed: &mut bool,
    mut opened: impl FnMut(&[u8]),
) -> (usize, io::Result<Step>) {
    let UnbufferedStatus { mut discard, state } = status;
    let state = match state {
        Ok(state) => state,
        Err(error) => return (discard, Err(invalid(error))),
    };
    let step = match state {
        ConnectionState::ReadTraffic(mut traffic) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    opened(record.payload);
                }
                Some(Err(error)) => break Err(invalid(error)),
                None => break Ok(Step::Again),
            }
        },
        ConnectionState::EncodeTlsData(mut data) => {
            let start = queued.len();
            if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
                queued.resize(start + size.required_size, 0);
            }
            let room = queued.get_mut(start..).unwrap_or_default();
            data.encode(room).map(|_| Step::Again).map_err(invalid)
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Step::Again)
        }
        ConnectionState::PeerClosed => {
            *peer_closed = true;
            Ok(Step::Again)
        }
        ConnectionState::Closed => Ok(Step::Closed),
        ConnectionState::BlockedHandshake => Ok(Step::Blocked),
        ConnectionState::WriteTraffic(_) => Ok(Step::Ready),
        other => Err(invalid(format!("unexpected state {other:?}"))),
    };
    (discard, step)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
