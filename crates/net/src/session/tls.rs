//! TLS as a state machine over memory: rustls's unbuffered connections, which
//! open records where they lie and seal into the buffer that is sent.

use std::io;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, ServerConfig};

use pinhole_proto::key::PeerKey;
use pinhole_proto::tls;

/// Plaintext in one record (RFC 8446, 5.1).
const RECORD_BYTES: usize = 16 * 1024;
/// What a record has beyond its plaintext: header, content type and tag.
const RECORD_OVERHEAD_BYTES: usize = 5 + 1 + 16;
/// The most that goes before or without plaintext: a key update each way, or
/// an alert.
const CONTROL_BYTES: usize = 128;
/// The longest record (RFC 8446, 5.2).
pub(super) const LONGEST_RECORD_BYTES: usize = 5 + RECORD_BYTES + 256;

/// One end of a TLS connection, of either role.
pub(super) struct Tls {
    side: Side,
    /// Sealed already, to be sent before anything sealed later.
    queued: Vec<u8>,
    /// The peer has said that nothing more follows.
    pub(super) peer_closed: bool,
    failed: bool,
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

/// What is to be sealed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outgoing<'a> {
    Plaintext(&'a [u8]),
    CloseNotify,
}

impl Outgoing<'_> {
    /// The room that suffices for it, sealed.
    pub(super) const fn sealed_bytes(self) -> usize {
        let plain_bytes = match self {
            Self::Plaintext(plaintext) => plaintext.len(),
            Self::CloseNotify => 0,
        };
        let records = plain_bytes.div_ceil(RECORD_BYTES);
        plain_bytes + records * RECORD_OVERHEAD_BYTES + CONTROL_BYTES
    }
}

impl Tls {
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
            failed: false,
        }
    }

    /// Goes one step with what has arrived. Returns how many bytes of it are
    /// done with; plaintext goes to `opened`. After an error nothing more is
    /// opened or sealed, and the alert that tells the peer why is queued.
    pub(super) fn step(
        &mut self,
        arrived: &mut [u8],
        opened: impl FnMut(&[u8]),
    ) -> (usize, io::Result<Step>) {
        if self.failed {
            return (0, Err(io::ErrorKind::NotConnected.into()));
        }
        let (done_bytes, step) = self.process(arrived, opened);
        let step = step.and_then(|step| {
            let rest = arrived.get(done_bytes..).unwrap_or_default();
            let stopped = matches!(step, Step::Blocked | Step::Ready);
            if stopped && !self.is_handshaking() && has_record(rest) {
                let reason = "a message in pieces after the handshake";
                return Err(invalid(reason));
            }
            Ok(step)
        });
        if let Err(error) = &step {
            self.failed = true;
            if !is_told_by_peer(error) {
                // With the same bytes: see `has_record`.
                let _ = self.process(arrived, |_| ());
            }
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

    fn is_handshaking(&self) -> bool {
        match &self.side {
            Side::Client(c) => c.is_handshaking(),
            Side::Server(s) => s.is_handshaking(),
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

    /// Seals into `room`, which must have [`Outgoing::sealed_bytes`]. Returns
    /// how much of it was used. What is queued has to be sent before.
    pub(super) fn seal(&mut self, outgoing: Outgoing<'_>, room: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.step(&mut [], |_| ()).1? {
                Step::Again => {}
                Step::Ready => break,
                Step::Blocked | Step::Closed => return Err(io::ErrorKind::NotConnected.into()),
            }
        }
        match &mut self.side {
            Side::Client(c) => seal(c.process_tls_records(&mut []), outgoing, room),
            Side::Server(s) => seal(s.process_tls_records(&mut []), outgoing, room),
        }
    }

    /// Replaces the key that seals, and asks the peer to do the same.
    #[cfg(test)]
    pub(super) fn refresh_keys(&mut self) {
        fn refresh<Data>(status: UnbufferedStatus<'_, '_, Data>) {
            match status.state.unwrap() {
                ConnectionState::WriteTraffic(traffic) => traffic.refresh_traffic_keys().unwrap(),
                other => panic!("{other:?}"),
            }
        }
        match &mut self.side {
            Side::Client(c) => refresh(c.process_tls_records(&mut [])),
            Side::Server(s) => refresh(s.process_tls_records(&mut [])),
        }
    }
}

/// Whether there is a whole record that rustls did not open. It belongs to a
/// message over several records, with which rustls goes on only in this very
/// buffer: called with another, as for sealing, it would panic. No peer of ours
/// sends such a message after the handshake, which ends before anything is
/// sealed.
fn has_record(bytes: &[u8]) -> bool {
    bytes.split_first_chunk().is_some_and(|(header, rest)| {
        let [_, _, _, high, low]: [u8; 5] = *header;
        rest.len() >= usize::from(u16::from_be_bytes([high, low]))
    })
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

fn seal<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    outgoing: Outgoing<'_>,
    room: &mut [u8],
) -> io::Result<usize> {
    let ConnectionState::WriteTraffic(mut traffic) = status.state.map_err(invalid)? else {
        return Err(io::ErrorKind::NotConnected.into());
    };
    let sealed = match outgoing {
        Outgoing::Plaintext(plaintext) => traffic.encrypt(plaintext, room),
        Outgoing::CloseNotify => traffic.queue_close_notify(room),
    };
    sealed.map_err(|error| match error {
        EncryptError::EncryptExhausted => io::ErrorKind::NotConnected.into(),
        error => io::Error::other(error),
    })
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
