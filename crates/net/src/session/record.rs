//! The record layer of TLS 1.3 (RFC 8446, 5) for what follows the handshake.
//! rustls makes the handshake and derives the keys; its own record layer copies
//! each byte twice to seal it and once to open it. This one leaves it to the
//! cipher, which copies it once at most.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, ExtractedSecrets, HandshakeType,
    SupportedCipherSuite,
};

use crate::aead::{Algorithm, Key, NONCE_BYTES, TAG_BYTES};

const HEADER_BYTES: usize = 5;
/// Plaintext in one record, without its type and padding (RFC 8446, 5.1).
const CONTENT_BYTES_MAX: usize = 1 << 14;
/// Ciphertext in one record (RFC 8446, 5.2).
const SEALED_BYTES_MAX: usize = CONTENT_BYTES_MAX + 256;
/// The longest record.
pub(super) const LONGEST_BYTES: usize = HEADER_BYTES + SEALED_BYTES_MAX;
/// What a record has beyond its content: header, type and tag.
const OVERHEAD_BYTES: usize = HEADER_BYTES + 1 + TAG_BYTES;
/// Records in a row that bring the reader nothing: as many as rustls takes.
const DATALESS_RECORDS_MAX: u8 = 32;
/// `warning` and `fatal` (RFC 8446, 6), of which TLS 1.3 makes no use.
const ALERT_LEVELS: [u8; 2] = [1, 2];

/// The room that suffices for this much plaintext, with a key update before it.
pub(super) const fn sealed_bytes(plaintext_bytes: usize) -> usize {
    let records = plaintext_bytes.div_ceil(CONTENT_BYTES_MAX) + 1;
    plaintext_bytes + records * OVERHEAD_BYTES + KEY_UPDATE.len()
}

/// A key update that asks for none in return (RFC 8446, 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// Why a record is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("bytes that were not sealed for this connection")]
    Forged,
    #[error("a record that is longer than TLS allows")]
    TooLong,
    #[error("a message that has no place after the handshake")]
    Unexpected,
    #[error("a message that TLS does not know")]
    Malformed,
    #[error("a message with a value that it must not have")]
    Illegal,
    #[error("the peer has ended the connection: {0:?}")]
    Alert(AlertDescription),
}

impl RecordError {
    /// What the peer is told.
    const fn alert(self) -> Option<AlertDescription> {
        match self {
            Self::Forged => Some(AlertDescription::BadRecordMac),
            Self::TooLong => Some(AlertDescription::RecordOverflow),
            Self::Unexpected => Some(AlertDescription::UnexpectedMessage),
            Self::Malformed => Some(AlertDescription::DecodeError),
            Self::Illegal => Some(AlertDescription::IllegalParameter),
            Self::Alert(_) => None,
        }
    }
}

impl From<RecordError> for io::Error {
    fn from(error: RecordError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// What makes the next keys, for either role.
pub(super) enum KeySchedule {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl KeySchedule {
    fn next_to_seal(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Client(keys) => keys.update_tx_secret(),
            Self::Server(keys) => keys.update_tx_secret(),
        }
    }

    fn next_to_open(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Client(keys) => keys.update_rx_secret(),
            Self::Server(keys) => keys.update_rx_secret(),
        }
    }

    /// Records that one key may seal.
    fn limit(&self) -> u64 {
        let suite = match self {
            Self::Client(keys) => keys.negotiated_cipher_suite(),
            Self::Server(keys) => keys.negotiated_cipher_suite(),
        };
        match suite {
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
        }
    }
}

/// What the two directions have to tell each other.
struct Shared {
    keys: KeySchedule,
    /// The peer has asked for another key.
    key_update_due: bool,
    /// Nothing more is sealed but the alert that tells the peer why.
    failed: Option<RecordError>,
}

#[derive(Clone)]
struct SharedState(Arc<Mutex<Shared>>);

impl SharedState {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The two directions of a connection whose handshake is done.
pub(super) fn directions(
    secrets: ExtractedSecrets,
    keys: KeySchedule,
    peer_closed: bool,
) -> io::Result<(Opener, Sealer)> {
    let limit = keys.limit();
    let shared = SharedState(Arc::new(Mutex::new(Shared {
        keys,
        key_update_due: false,
        failed: None,
    })));
    let opener = Opener {
        cipher: Cipher::new(secrets.rx)?,
        shared: shared.clone(),
        peer_closed,
        dataless_records: 0,
    };
    let sealer = Sealer {
        cipher: Cipher::new(secrets.tx)?,
        shared,
        limit,
        closed: false,
    };
    Ok((opener, sealer))
}

/// One key, and the number of the next record under it.
struct Cipher {
    key: Key,
    iv: [u8; NONCE_BYTES],
    sequence: u64,
}

impl Cipher {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> io::Result<Self> {
        use ConnectionTrafficSecrets as Secrets;
        let (algorithm, key, iv) = match &secrets {
            Secrets::Aes128Gcm { key, iv } => (Algorithm::Aes128Gcm, key, iv),
            Secrets::Aes256Gcm { key, iv } => (Algorithm::Aes256Gcm, key, iv),
            Secrets::Chacha20Poly1305 { key, iv } => (Algorithm::ChaCha20Poly1305, key, iv),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(Self {
            key: Key::new(algorithm, key.as_ref()).map_err(io::Error::other)?,
            iv: iv.as_ref().try_into().map_err(io::Error::other)?,
            sequence,
        })
    }

    /// The nonce of the next record (RFC 8446, 5.3).
    fn nonce(&mut self) -> [u8; NONCE_BYTES] {
        let mut nonce = self.iv;
        let counted = nonce.iter_mut().skip(NONCE_BYTES - size_of::<u64>());
        for (byte, of_sequence) in counted.zip(self.sequence.to_be_bytes()) {
            *byte ^= of_sequence;
        }
        // No key comes near the end: `Sealer::limit`.
        self.sequence += 1;
        nonce
    }
}

/// Seals what is sent.
pub(super) struct Sealer {
    cipher: Cipher,
    shared: SharedState,
    /// Records after which the key is replaced (RFC 8446, 5.5).
    limit: u64,
    /// The last that is sent is sealed.
    closed: bool,
}

impl Sealer {
    /// Seals `plaintext` behind what is in `sealed`; after an error of the opener
    /// what tells the peer why instead, which has to be sent all the same.
    pub(super) fn seal(&mut self, plaintext: &[u8], sealed: &mut Vec<u8>) -> io::Result<()> {
        let (failed, key_update_due) = {
            let mut shared = self.shared.lock();
            let due = std::mem::take(&mut shared.key_update_due);
            (shared.failed.is_some(), due)
        };
        if failed {
            self.close(sealed)?;
            return Err(io::ErrorKind::NotConnected.into());
        }
        sealed.reserve(sealed_bytes(plaintext.len()));
        if key_update_due {
            self.renew(sealed)?;
        }
        for content in plaintext.chunks(CONTENT_BYTES_MAX) {
            if self.cipher.sequence >= self.limit {
                self.renew(sealed)?;
            }
            self.record(ContentType::ApplicationData, content, sealed)?;
        }
        Ok(())
    }

    /// Seals the last that is sent: that nothing follows, or why.
    pub(super) fn close(&mut self, sealed: &mut Vec<u8>) -> io::Result<()> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        let [warning, fatal] = ALERT_LEVELS;
        let failed = self.shared.lock().failed;
        let alert = match failed.map(RecordError::alert) {
            None => [warning, AlertDescription::CloseNotify.into()],
            Some(Some(alert)) => [fatal, alert.into()],
            Some(None) => return Ok(()),
        };
        self.record(ContentType::Alert, &alert, sealed)
    }

    /// Goes on with another key.
    fn renew(&mut self, sealed: &mut Vec<u8>) -> io::Result<()> {
        self.record(ContentType::Handshake, &KEY_UPDATE, sealed)?;
        let next = self.shared.lock().keys.next_to_seal();
        self.cipher = Cipher::new(next.map_err(io::Error::other)?)?;
        Ok(())
    }

    fn record(
        &mut self,
        kind: ContentType,
        content: &[u8],
        sealed: &mut Vec<u8>,
    ) -> io::Result<()> {
        let length = u16::try_from(content.len() + 1 + TAG_BYTES).map_err(io::Error::other)?;
        let [high, low] = length.to_be_bytes();
        let header = [ContentType::ApplicationData.into(), 3, 3, high, low];
        sealed.extend_from_slice(&header);
        let (nonce, key) = (self.cipher.nonce(), &self.cipher.key);
        key.seal(nonce, &header, (content, kind.into()), sealed)
            .map_err(io::Error::other)
    }

    /// Has the key replaced after this many records.
    #[cfg(test)]
    pub(super) const fn limit_to(&mut self, records: u64) {
        self.limit = records;
    }
}

/// Opens what arrives.
pub(super) struct Opener {
    cipher: Cipher,
    shared: SharedState,
    /// The peer has said that nothing more follows.
    pub(super) peer_closed: bool,
    /// Without a record between them that brought data.
    dataless_records: u8,
}

/// A record that was opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened {
    /// The length of the record.
    pub(super) record_bytes: usize,
    /// Of the plaintext for the reader, which lies at the start of the room.
    pub(super) data_bytes: usize,
}

impl Opener {
    /// Opens the record that begins at `record` in `room`, and has its plaintext
    /// at the start of the room. `None` while it is not there as a whole. After
    /// an error nothing more may be opened.
    pub(super) fn open(&mut self, room: &mut [u8], record: usize) -> io::Result<Option<Opened>> {
        let opened = self.try_open(room, record);
        if let Err(error) = opened {
            self.shared.lock().failed = Some(error);
        }
        Ok(opened?)
    }

    fn try_open(&mut self, room: &mut [u8], record: usize) -> Result<Option<Opened>, RecordError> {
        let arrived = room.get(record..).and_then(|bytes| bytes.first_chunk());
        let Some(header @ [kind, _, _, high, low]) = arrived.copied() else {
            return Ok(None);
        };
        if ContentType::from(kind) != ContentType::ApplicationData {
            return Err(RecordError::Unexpected);
        }
        let sealed_bytes = usize::from(u16::from_be_bytes([high, low]));
        if sealed_bytes > SEALED_BYTES_MAX {
            return Err(RecordError::TooLong);
        }
        let record_bytes = HEADER_BYTES + sealed_bytes;
        let Some(room) = room.get_mut(..record + record_bytes) else {
            return Ok(None);
        };
        let (nonce, key) = (self.cipher.nonce(), &self.cipher.key);
        let sealed = record + HEADER_BYTES..;
        let inner = key.open_within(nonce, &header, room, sealed);
        let data_bytes = self.take(inner.map_err(|_| RecordError::Forged)?)?;
        Ok(Some(Opened {
            record_bytes,
            data_bytes,
        }))
    }

    /// Looks at what was sealed: the content, its type, and zeros (RFC 8446,
    /// 5.2). Returns how much of it is for the reader.
    fn take(&mut self, inner: &[u8]) -> Result<usize, RecordError> {
        if inner.len() > CONTENT_BYTES_MAX + 1 {
            return Err(RecordError::TooLong);
        }
        let end = inner.iter().rposition(|byte| *byte != 0);
        let end = end.ok_or(RecordError::Unexpected)?;
        let (content, behind) = inner.split_at(end);
        match behind.first().map(|kind| ContentType::from(*kind)) {
            Some(ContentType::ApplicationData) => {
                self.dataless_records = 0;
                return Ok(content.len());
            }
            Some(ContentType::Alert) => self.take_alert(content)?,
            Some(ContentType::Handshake) => self.take_messages(content)?,
            _ => return Err(RecordError::Unexpected),
        }
        self.dataless_records += 1;
        match self.dataless_records {
            ..=DATALESS_RECORDS_MAX => Ok(0),
            _ => Err(RecordError::Unexpected),
        }
    }

    fn take_alert(&mut self, content: &[u8]) -> Result<(), RecordError> {
        let alert = match *content {
            [_, alert] => alert,
            [] => return Err(RecordError::Unexpected),
            _ => return Err(RecordError::Malformed),
        };
        match AlertDescription::from(alert) {
            AlertDescription::CloseNotify => self.peer_closed = true,
            // A close_notify follows (RFC 8446, 6.1).
            AlertDescription::UserCanceled => {}
            alert => return Err(RecordError::Alert(alert)),
        }
        Ok(())
    }

    /// Whole messages only: none that may come here is longer than a record.
    fn take_messages(&mut self, mut content: &[u8]) -> Result<(), RecordError> {
        loop {
            let Some(([kind, length @ ..], behind)) = content.split_first_chunk::<4>() else {
                return Err(RecordError::Unexpected);
            };
            let [high, middle, low] = *length;
            let length = u32::from_be_bytes([0, high, middle, low]);
            let length = usize::try_from(length).map_err(|_| RecordError::Unexpected)?;
            let (body, rest) = behind
                .split_at_checked(length)
                .ok_or(RecordError::Unexpected)?;
            self.take_message(HandshakeType::from(*kind), body, rest)?;
            if rest.is_empty() {
                return Ok(());
            }
            content = rest;
        }
    }

    fn take_message(
        &mut self,
        kind: HandshakeType,
        body: &[u8],
        rest: &[u8],
    ) -> Result<(), RecordError> {
        let mut shared = self.shared.lock();
        match (kind, &shared.keys) {
            // What follows a new key is sealed with it.
            (HandshakeType::KeyUpdate, _) if rest.is_empty() => {
                shared.key_update_due |= match *body {
                    [asked @ (0 | 1)] => asked == 1,
                    [_] => return Err(RecordError::Illegal),
                    _ => return Err(RecordError::Malformed),
                };
                let next = shared.keys.next_to_open();
                let next = next.ok().and_then(|next| Cipher::new(next).ok());
                self.cipher = next.ok_or(RecordError::Unexpected)?;
                Ok(())
            }
            // Ours sends none. No session is ever resumed.
            (HandshakeType::NewSessionTicket, KeySchedule::Client(_)) => Ok(()),
            _ => Err(RecordError::Unexpected),
        }
    }
}
