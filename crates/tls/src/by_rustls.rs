//! rustls's own records behind the same two types, for the benchmark to compare
//! with. The two halves share the connection, and wait for each other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::Error;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};

use crate::handshake::Side;
use crate::records::{HEADER_BYTES, Opened, RecordError, SealError, sealed_bytes};

/// The most that goes before plaintext or without any: a key update, or an alert.
const CONTROL_BYTES: usize = 128;

struct Connection {
    side: Side,
    /// Sealed already, to be sent before anything sealed later.
    queued: Vec<u8>,
    peer_closed: bool,
    failed: bool,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Connection>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens what arrives.
pub struct Opener {
    shared: Shared,
    peer_closed: bool,
}

/// Seals what is sent, and keeps it until it is sent.
pub struct Sealer {
    shared: Shared,
    /// As long as the longest yet, for a longer one would have to be cleared first.
    room: Vec<u8>,
    sent_bytes: usize,
    sealed_bytes: usize,
    closed: bool,
}

pub(crate) fn directions(side: Side) -> (Opener, Sealer) {
    let shared = Shared(Arc::new(Mutex::new(Connection {
        side,
        queued: Vec::new(),
        peer_closed: false,
        failed: false,
    })));
    let opener = Opener {
        shared: shared.clone(),
        peer_closed: false,
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

/// What rustls made of some bytes.
enum Progress {
    Again,
    /// So much plaintext was taken.
    Data(usize),
    Idle,
}

impl Connection {
    /// Goes one step. Returns how many bytes of `arrived` are done with; plaintext,
    /// which rustls has kept since the step before, goes to `room`.
    fn step(&mut self, arrived: &mut [u8], room: &mut [u8]) -> (usize, Result<Progress, Error>) {
        match &mut self.side {
            Side::Client(c) => {
                let status = c.process_tls_records(arrived);
                step(status, room, &mut self.queued, &mut self.peer_closed)
            }
            Side::Server(s) => {
                let status = s.process_tls_records(arrived);
                step(status, room, &mut self.queued, &mut self.peer_closed)
            }
        }
    }

    /// Opens the one record that `record` is. rustls keeps the plaintext at first,
    /// so that it can be taken to where the record lies.
    fn open(&mut self, room: &mut [u8], record: usize) -> Result<usize, Error> {
        let in_pieces = || Error::General("a message over several records".into());
        let (mut done, mut opened) = (record, 0);
        loop {
            let arrived = room.get_mut(done..).unwrap_or_default();
            let all_bytes = arrived.len();
            let (done_bytes, progress) = self.step(arrived, &mut []);
            done += done_bytes;
            match progress? {
                Progress::Data(_) => {
                    let (_, taken) = self.step(&mut [], room.get_mut(opened..).unwrap_or_default());
                    if let Progress::Data(count) = taken? {
                        opened += count;
                    }
                }
                Progress::Again => {}
                Progress::Idle if all_bytes > done_bytes && !self.peer_closed => {
                    return Err(in_pieces());
                }
                Progress::Idle => return Ok(opened),
            }
        }
    }

    fn fail(&mut self, error: &Error) -> RecordError {
        self.failed = true;
        // The alert that tells the peer why.
        if !matches!(error, Error::AlertReceived(_)) {
            let _ = self.step(&mut [], &mut []);
        }
        match error {
            Error::AlertReceived(alert) => RecordError::Alert(*alert),
            Error::DecryptError => RecordError::Forged,
            Error::PeerSentOversizedRecord => RecordError::TooLong,
            _ => RecordError::Unexpected,
        }
    }
}

fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    room: &mut [u8],
    queued: &mut Vec<u8>,
    peer_closed: &mut bool,
) -> (usize, Result<Progress, Error>) {
    let UnbufferedStatus { discard, state } = status;
    let progress = match state {
        Ok(ConnectionState::ReadTraffic(_)) if room.is_empty() => Ok(Progress::Data(0)),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => match traffic.next_record() {
            Some(Ok(record)) => {
                let count = record.payload.len();
                let room = room.get_mut(..count).unwrap_or_default();
                room.copy_from_slice(record.payload);
                Ok(Progress::Data(count))
            }
            Some(Err(error)) => Err(error),
            None => Ok(Progress::Again),
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let start = queued.len();
            if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
                queued.resize(start + size.required_size, 0);
            }
            let encoded = data.encode(queued.get_mut(start..).unwrap_or_default());
            encoded
                .map(|_| Progress::Again)
                .map_err(|error| Error::General(error.to_string()))
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Progress::Again)
        }
        Ok(ConnectionState::PeerClosed) => {
            *peer_closed = true;
            Ok(Progress::Again)
        }
        Ok(_) => Ok(Progress::Idle),
        Err(error) => Err(error),
    };
    (discard, progress)
}

impl Opener {
    /// As that of our records.
    ///
    /// # Errors
    /// As those of our records.
    pub fn open(&mut self, room: &mut [u8], record: usize) -> Result<Option<Opened>, RecordError> {
        let arrived = room.get(record..).unwrap_or_default();
        let Some([.., high, low]) = arrived.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let record_bytes = HEADER_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
        let Some(room) = room.get_mut(..record + record_bytes) else {
            return Ok(None);
        };
        let mut connection = self.shared.lock();
        if connection.failed {
            return Err(RecordError::Unexpected);
        }
        let opened = connection.open(room, record);
        self.peer_closed = connection.peer_closed;
        let data_bytes = opened.map_err(|error| connection.fail(&error))?;
        Ok(Some(Opened {
            record_bytes,
            data_bytes,
        }))
    }

    /// As that of our records.
    #[must_use]
    pub const fn peer_closed(&self) -> bool {
        self.peer_closed
    }
}

impl Sealer {
    /// As that of our records.
    ///
    /// # Errors
    /// As those of our records.
    pub fn seal(&mut self, plaintext: &[u8]) -> Result<(), SealError> {
        self.encrypt(Some(plaintext))
    }

    /// As that of our records.
    ///
    /// # Errors
    /// As those of our records.
    pub fn close(&mut self) -> Result<(), SealError> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        self.encrypt(None)
    }

    fn encrypt(&mut self, plaintext: Option<&[u8]>) -> Result<(), SealError> {
        let mut connection = self.shared.lock();
        while !connection.failed {
            match connection.step(&mut [], &mut []).1 {
                Ok(Progress::Again) => {}
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
            return Err(SealError::Failed);
        }
        let sealed = match &mut connection.side {
            Side::Client(c) => encrypt(c.process_tls_records(&mut []), plaintext, room),
            Side::Server(s) => encrypt(s.process_tls_records(&mut []), plaintext, room),
        };
        self.sealed_bytes += sealed.ok_or(SealError::Failed)?;
        Ok(())
    }

    /// As that of our records.
    #[must_use]
    pub fn sealed(&self) -> &[u8] {
        let sealed = self.room.get(self.sent_bytes..self.sealed_bytes);
        sealed.unwrap_or_default()
    }

    /// As that of our records.
    pub fn sent(&mut self, count: usize) {
        self.sent_bytes += count;
        if self.sent_bytes >= self.sealed_bytes {
            (self.sent_bytes, self.sealed_bytes) = (0, 0);
        }
    }
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
