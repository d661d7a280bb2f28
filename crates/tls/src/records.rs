//! The records after the handshake (RFC 8446, 5), which rustls encrypts and decrypts. The
//! two directions share its connection and lock it in turn.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ContentType, Error};

use crate::side::{RustlsConnection, queue};

pub(crate) const HEADER_BYTES: usize = 5;
/// Plaintext in one record, without its type and padding (RFC 8446, 5.1).
const CONTENT_BYTES_MAX: usize = 1 << 14;
/// Ciphertext in one record (RFC 8446, 5.2).
const SEALED_BYTES_MAX: usize = CONTENT_BYTES_MAX + 256;
/// The longest record, with its header.
pub const LONGEST_RECORD_BYTES: usize = HEADER_BYTES + SEALED_BYTES_MAX;
/// What a record has beyond its content: header, type and tag.
const OVERHEAD_BYTES: usize = HEADER_BYTES + 1 + 16;
/// The longest key update or alert, which may precede the plaintext or stand alone.
const CONTROL_BYTES: usize = 128;
/// What a record without data takes from [`ALLOWANCE_BYTES`]. Each byte of data gives one
/// back. A record without data may cost a new key; one for each KiB of data costs less
/// than the data itself. rustls also counts records without data, but some kinds of them
/// reset its count.
const DATALESS_BYTES: usize = 1024;
/// The allowance for as many records without data in a row as rustls accepts.
const ALLOWANCE_BYTES: usize = 32 * DATALESS_BYTES;

/// Why a record is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// An earlier one was refused.
    #[error(transparent)]
    Failed(#[from] SealError),
    /// There are too many records without data.
    #[error("too many records without data")]
    Dataless,
    /// The record was not encrypted for this connection, is out of place, or is an alert.
    #[error(transparent)]
    Tls(#[from] Error),
}

/// The opener has refused something, or the peer has ended the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection has failed")]
pub struct SealError;

/// A record that was opened.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// The length of the record.
    pub record_bytes: usize,
    /// The length of the plaintext for the reader, which is at the start of the buffer.
    pub data_bytes: usize,
}

struct TlsConnection {
    side: RustlsConnection,
    /// Encrypted bytes, to be sent before anything encrypted later.
    queued: Vec<u8>,
    /// The peer has closed its direction.
    peer_closed: bool,
    failed: bool,
}

/// Decrypts what arrives.
pub struct Opener {
    shared: Arc<Mutex<TlsConnection>>,
    peer_closed: bool,
    /// The rest of the allowance for records without data: see [`ALLOWANCE_BYTES`].
    allowance_bytes: usize,
}

/// Encrypts what is sent, and keeps it until it is sent.
pub struct Sealer {
    shared: Arc<Mutex<TlsConnection>>,
    /// Keeps the length of the longest content, because growing it again would clear it.
    room: Vec<u8>,
    sent_bytes: usize,
    sealed_bytes: usize,
    closed: bool,
}

pub(crate) fn directions(side: RustlsConnection) -> (Opener, Sealer) {
    let shared = Arc::new(Mutex::new(TlsConnection {
        side,
        queued: Vec::new(),
        peer_closed: false,
        failed: false,
    }));
    let opener = Opener {
        shared: Arc::clone(&shared),
        peer_closed: false,
        allowance_bytes: ALLOWANCE_BYTES,
    };
    let sealer = Sealer {
        shared,
        room: Vec::new(),
        sent_bytes: 0,
        sealed_bytes: 0,
        closed: false,
    };
    (opener, sealer)
}

/// The result of one step of rustls.
enum RecordStep {
    Again,
    /// This many bytes of plaintext were taken.
    Data(usize),
    Idle,
}

impl TlsConnection {
    /// Takes one step. Returns how many bytes of `arrived` are consumed. Plaintext that
    /// rustls has kept since the step before goes to `room`.
    fn step(&mut self, arrived: &mut [u8], room: &mut [u8]) -> (usize, Result<RecordStep, Error>) {
        match &mut self.side {
            RustlsConnection::Client(c) => {
                let status = c.process_tls_records(arrived);
                step(status, room, &mut self.queued, &mut self.peer_closed)
            }
            RustlsConnection::Server(s) => {
                let status = s.process_tls_records(arrived);
                step(status, room, &mut self.queued, &mut self.peer_closed)
            }
        }
    }

    /// Opens the one record in `record`. rustls keeps the plaintext at first, so that it
    /// can then be written over the record.
    fn open(&mut self, room: &mut [u8], record: usize) -> Result<usize, Error> {
        let in_pieces = || Error::General("a record that is no whole message".into());
        let (mut done, mut opened) = (record, 0);
        loop {
            let arrived = room.get_mut(done..).unwrap_or_default();
            let all_bytes = arrived.len();
            let (done_bytes, progress) = self.step(arrived, &mut []);
            done += done_bytes;
            match progress? {
                RecordStep::Data(_) => {
                    let (_, taken) = self.step(&mut [], room.get_mut(opened..).unwrap_or_default());
                    if let RecordStep::Data(count) = taken? {
                        opened += count;
                    }
                }
                RecordStep::Again => {}
                RecordStep::Idle if all_bytes > done_bytes && !self.peer_closed => {
                    return Err(in_pieces());
                }
                RecordStep::Idle => return Ok(opened),
            }
        }
    }

    /// Queues the alert for the peer, if there is one. rustls must get no more bytes
    /// after that: it panics when half a message that it has seen is missing.
    fn fail(&mut self) {
        self.failed = true;
        if self.side.wants_write() {
            let _ = self.step(&mut [], &mut []);
        }
    }
}

fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    room: &mut [u8],
    queued: &mut Vec<u8>,
    peer_closed: &mut bool,
) -> (usize, Result<RecordStep, Error>) {
    let UnbufferedStatus { discard, state } = status;
    let progress = match state {
        Ok(ConnectionState::ReadTraffic(_)) if room.is_empty() => Ok(RecordStep::Data(0)),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => match traffic.next_record() {
            Some(Ok(record)) => {
                let count = record.payload.len();
                let room = room.get_mut(..count).unwrap_or_default();
                room.copy_from_slice(record.payload);
                Ok(RecordStep::Data(count))
            }
            Some(Err(error)) => Err(error),
            None => Ok(RecordStep::Again),
        },
        Ok(ConnectionState::EncodeTlsData(data)) => queue(data, queued).map(|()| RecordStep::Again),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(RecordStep::Again)
        }
        Ok(ConnectionState::PeerClosed) => {
            *peer_closed = true;
            Ok(RecordStep::Again)
        }
        Ok(_) => Ok(RecordStep::Idle),
        Err(error) => Err(error),
    };
    (discard, progress)
}

impl Opener {
    /// Opens the record that begins at `record` in `room`, and writes its plaintext to
    /// the start of `room`. Returns `None` until the whole record has arrived. After an
    /// error nothing more may be opened.
    ///
    /// # Errors
    /// The record is refused. The sealer tells the peer.
    pub fn open(&mut self, room: &mut [u8], record: usize) -> Result<Option<Opened>, RecordError> {
        let arrived = room.get(record..).unwrap_or_default();
        let Some([kind, _, _, high, low]) = arrived.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let sealed_bytes = usize::from(u16::from_be_bytes([*high, *low]));
        let record_bytes = match (ContentType::from(*kind), sealed_bytes) {
            (ContentType::ApplicationData, 0..=SEALED_BYTES_MAX) => HEADER_BYTES + sealed_bytes,
            // Its header is enough to refuse it.
            _ => HEADER_BYTES,
        };
        let Some(room) = room.get_mut(..record + record_bytes) else {
            return Ok(None);
        };
        let mut connection = self.shared.lock();
        if connection.failed {
            return Err(SealError.into());
        }
        let opened = connection.open(room, record);
        let data_bytes = opened.inspect_err(|_| connection.fail())?;
        self.peer_closed = connection.peer_closed;
        if data_bytes == 0 && !self.peer_closed {
            let left_bytes = self.allowance_bytes.checked_sub(DATALESS_BYTES);
            connection.failed = left_bytes.is_none();
            self.allowance_bytes = left_bytes.ok_or(RecordError::Dataless)?;
        }
        let allowance_bytes = self.allowance_bytes + data_bytes;
        self.allowance_bytes = allowance_bytes.min(ALLOWANCE_BYTES);
        Ok(Some(Opened {
            record_bytes,
            data_bytes,
        }))
    }

    /// Whether the peer has closed its direction.
    #[must_use]
    pub const fn peer_closed(&self) -> bool {
        self.peer_closed
    }
}

impl Sealer {
    /// Encrypts `plaintext` and appends it to what waits to be sent. After an error of
    /// the opener, it appends the alert for the peer instead, which has to be sent as
    /// well.
    ///
    /// # Errors
    /// The opener has refused something.
    pub fn seal(&mut self, plaintext: &[u8]) -> Result<(), SealError> {
        self.encrypt(Some(plaintext))
    }

    /// Encrypts the end of the connection: that nothing follows, or the alert that says
    /// why.
    ///
    /// # Errors
    /// The opener has refused something. What waits still has to be sent.
    pub fn close(&mut self) -> Result<(), SealError> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        self.encrypt(None)
    }

    /// What waits to be sent.
    #[must_use]
    pub fn sealed(&self) -> &[u8] {
        let sealed = self.room.get(self.sent_bytes..self.sealed_bytes);
        sealed.unwrap_or_default()
    }

    /// Notes that `count` bytes have been sent.
    pub fn sent(&mut self, count: usize) {
        self.sent_bytes += count;
        if self.sent_bytes >= self.sealed_bytes {
            (self.sent_bytes, self.sealed_bytes) = (0, 0);
        }
    }

    fn encrypt(&mut self, plaintext: Option<&[u8]>) -> Result<(), SealError> {
        let mut connection = self.shared.lock();
        while !connection.failed {
            match connection.step(&mut [], &mut []).1 {
                Ok(RecordStep::Again) => {}
                Ok(_) => break,
                Err(_) => connection.failed = true,
            }
        }
        let start = self.sealed_bytes;
        let queued = std::mem::take(&mut connection.queued);
        let wanted_bytes = sealed_bytes(plaintext.map_or(0, <[u8]>::len)) + CONTROL_BYTES;
        let end = start + queued.len() + wanted_bytes;
        if self.room.len() < end {
            self.room.resize(end, 0);
        }
        let room = self.room.get_mut(start..).unwrap_or_default();
        let (before, room) = room.split_at_mut(queued.len());
        before.copy_from_slice(&queued);
        self.sealed_bytes += queued.len();
        if connection.failed {
            return Err(SealError);
        }
        let sealed = match &mut connection.side {
            RustlsConnection::Client(c) => encrypt(c.process_tls_records(&mut []), plaintext, room),
            RustlsConnection::Server(s) => encrypt(s.process_tls_records(&mut []), plaintext, room),
        };
        self.sealed_bytes += sealed.ok_or(SealError)?;
        Ok(())
    }
}

/// The space that this much plaintext needs when it is encrypted.
const fn sealed_bytes(plaintext_bytes: usize) -> usize {
    let records = plaintext_bytes.div_ceil(CONTENT_BYTES_MAX);
    plaintext_bytes + records * OVERHEAD_BYTES
}

fn encrypt<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plaintext: Option<&[u8]>,
    room: &mut [u8],
) -> Option<usize> {
    let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state else {
        return None;
    };
    match plaintext {
        Some(plaintext) => traffic.encrypt(plaintext, room).ok(),
        None => traffic.queue_close_notify(room).ok(),
    }
}
