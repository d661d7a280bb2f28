//! The record layer of TLS 1.3 (RFC 8446, 5) for what follows the handshake.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, ExtractedSecrets, HandshakeType,
    SupportedCipherSuite,
};

use crate::aead::{Algorithm, Key, NONCE_BYTES, Refused, TAG_BYTES};

pub(crate) const HEADER_BYTES: usize = 5;
/// Plaintext in one record, without its type and padding (RFC 8446, 5.1).
const CONTENT_BYTES_MAX: usize = 1 << 14;
/// Ciphertext in one record (RFC 8446, 5.2).
const SEALED_BYTES_MAX: usize = CONTENT_BYTES_MAX + 256;
/// The longest record, with its header.
pub const LONGEST_RECORD_BYTES: usize = HEADER_BYTES + SEALED_BYTES_MAX;
/// What a record has beyond its content: header, type and tag.
const OVERHEAD_BYTES: usize = HEADER_BYTES + 1 + TAG_BYTES;
/// What a record that brings the reader nothing takes from [`ALLOWANCE_BYTES`].
/// Each byte of data gives one back. A record without data may cost a new key; one
/// for each KiB costs less than the data itself.
const DATALESS_BYTES: usize = 1024;
/// For so many records without data in a row as rustls takes, too.
const ALLOWANCE_BYTES: usize = 32 * DATALESS_BYTES;
/// `warning` and `fatal` (RFC 8446, 6).
const ALERT_LEVELS: [u8; 2] = [1, 2];

/// The room that suffices for this much plaintext, with a key update before it.
pub(crate) const fn sealed_bytes(plaintext_bytes: usize) -> usize {
    let records = plaintext_bytes.div_ceil(CONTENT_BYTES_MAX) + 1;
    plaintext_bytes + records * OVERHEAD_BYTES + KEY_UPDATE.len()
}

/// A key update that asks for none in return (RFC 8446, 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// Why a record is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Anybody may have sent them.
    #[error("bytes that were not sealed for this connection")]
    Forged,
    /// RFC 8446, 5.1 and 5.2.
    #[error("a record that is longer than TLS allows")]
    TooLong,
    /// Of another kind, in pieces, or one without data too many.
    #[error("a message that has no place after the handshake")]
    Unexpected,
    /// Of the wrong length.
    #[error("a message that TLS does not know")]
    Malformed,
    /// As RFC 8446 says.
    #[error("a message with a value that it must not have")]
    Illegal,
    /// With this reason.
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

/// Why nothing is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The opener has refused something, and the peer is told so.
    #[error("the connection has failed")]
    Failed,
    /// There is no such cipher here, or no next key.
    #[error("no key to seal with")]
    NoKey,
    /// The plaintext is not for this cipher.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// What makes the next keys, for either role.
pub(crate) enum KeySchedule {
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
pub(crate) fn directions(
    secrets: ExtractedSecrets,
    keys: KeySchedule,
) -> Result<(Opener, Sealer), rustls::Error> {
    let cipher = |secrets| {
        let cipher = Cipher::new(secrets);
        cipher.ok_or_else(|| rustls::Error::General("a cipher that is not here".into()))
    };
    let limit = keys.limit();
    let shared = SharedState(Arc::new(Mutex::new(Shared {
        keys,
        key_update_due: false,
        failed: None,
    })));
    let opener = Opener {
        cipher: cipher(secrets.rx)?,
        shared: shared.clone(),
        peer_closed: false,
        allowance_bytes: ALLOWANCE_BYTES,
    };
    let sealer = Sealer {
        cipher: cipher(secrets.tx)?,
        shared,
        limit,
        sealed: Vec::new(),
        sent_bytes: 0,
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
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Option<Self> {
        use ConnectionTrafficSecrets as Secrets;
        let (algorithm, key, iv) = match &secrets {
            Secrets::Aes128Gcm { key, iv } => (Algorithm::Aes128Gcm, key, iv),
            Secrets::Aes256Gcm { key, iv } => (Algorithm::Aes256Gcm, key, iv),
            Secrets::Chacha20Poly1305 { key, iv } => (Algorithm::ChaCha20Poly1305, key, iv),
            _ => return None,
        };
        Some(Self {
            key: Key::new(algorithm, key.as_ref()).ok()?,
            iv: iv.as_ref().try_into().ok()?,
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

/// Seals what is sent, and keeps it until it is sent.
pub struct Sealer {
    cipher: Cipher,
    shared: SharedState,
    /// Records after which the key is replaced (RFC 8446, 5.5).
    limit: u64,
    /// What is sealed.
    sealed: Vec<u8>,
    /// So much of it is sent.
    sent_bytes: usize,
    /// The last that is sent is sealed.
    closed: bool,
}

impl Sealer {
    /// Seals `plaintext` behind what waits to be sent; after an error of the opener
    /// what tells the peer why instead, which has to be sent all the same.
    ///
    /// # Errors
    /// The opener has refused something, or the cipher the plaintext.
    pub fn seal(&mut self, plaintext: &[u8]) -> Result<(), SealError> {
        let (failed, key_update_due) = {
            let mut shared = self.shared.lock();
            let due = std::mem::take(&mut shared.key_update_due);
            (shared.failed.is_some(), due)
        };
        if failed {
            self.close()?;
            return Err(SealError::Failed);
        }
        self.sealed.reserve(sealed_bytes(plaintext.len()));
        if key_update_due {
            self.renew()?;
        }
        for content in plaintext.chunks(CONTENT_BYTES_MAX) {
            if self.cipher.sequence >= self.limit {
                self.renew()?;
            }
            self.record(ContentType::ApplicationData, content)?;
        }
        Ok(())
    }

    /// What waits to be sent.
    #[must_use]
    pub fn sealed(&self) -> &[u8] {
        self.sealed.get(self.sent_bytes..).unwrap_or_default()
    }

    /// So much of it is sent.
    pub fn sent(&mut self, count: usize) {
        self.sent_bytes += count;
        if self.sent_bytes >= self.sealed.len() {
            self.sealed.clear();
            self.sent_bytes = 0;
        }
    }

    /// Seals the last that is sent: that nothing follows, or why.
    ///
    /// # Errors
    /// The cipher refuses.
    pub fn close(&mut self) -> Result<(), SealError> {
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
        self.record(ContentType::Alert, &alert)
    }

    /// Has keys replaced after so many records, if that is sooner than they must be.
    pub fn limit_keys_to(&mut self, records: u64) {
        self.limit = self.limit.min(records);
    }

    /// Goes on with another key.
    fn renew(&mut self) -> Result<(), SealError> {
        self.record(ContentType::Handshake, &KEY_UPDATE)?;
        let next = self.shared.lock().keys.next_to_seal();
        self.cipher = next.ok().and_then(Cipher::new).ok_or(SealError::NoKey)?;
        Ok(())
    }

    fn record(&mut self, kind: ContentType, content: &[u8]) -> Result<(), SealError> {
        let length = u16::try_from(content.len() + 1 + TAG_BYTES).map_err(|_| Refused)?;
        let [high, low] = length.to_be_bytes();
        let header = [ContentType::ApplicationData.into(), 3, 3, high, low];
        self.sealed.extend_from_slice(&header);
        let (nonce, key) = (self.cipher.nonce(), &self.cipher.key);
        key.seal(nonce, &header, (content, kind.into()), &mut self.sealed)?;
        Ok(())
    }
}

/// Opens what arrives.
pub struct Opener {
    cipher: Cipher,
    shared: SharedState,
    /// The peer has said that nothing more follows.
    peer_closed: bool,
    /// What is left for records without data: see [`ALLOWANCE_BYTES`].
    allowance_bytes: usize,
}

/// A record that was opened.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// The length of the record.
    pub record_bytes: usize,
    /// Of the plaintext for the reader, which lies at the start of the room.
    pub data_bytes: usize,
}

impl Opener {
    /// Opens the record that begins at `record` in `room`, and has its plaintext
    /// at the start of the room. `None` while it is not there as a whole. After
    /// an error nothing more may be opened.
    ///
    /// # Errors
    /// It is none that may come here. The sealer tells the peer.
    pub fn open(&mut self, room: &mut [u8], record: usize) -> Result<Option<Opened>, RecordError> {
        self.try_open(room, record)
            .inspect_err(|error| self.shared.lock().failed = Some(*error))
    }

    /// Whether the peer has said that nothing more follows.
    #[must_use]
    pub const fn peer_closed(&self) -> bool {
        self.peer_closed
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
            Some(ContentType::ApplicationData) if !content.is_empty() => {
                let allowance_bytes = self.allowance_bytes + content.len();
                self.allowance_bytes = allowance_bytes.min(ALLOWANCE_BYTES);
                return Ok(content.len());
            }
            Some(ContentType::ApplicationData) => {}
            Some(ContentType::Alert) => self.take_alert(content)?,
            Some(ContentType::Handshake) => self.take_messages(content)?,
            _ => return Err(RecordError::Unexpected),
        }
        let left_bytes = self.allowance_bytes.checked_sub(DATALESS_BYTES);
        self.allowance_bytes = left_bytes.ok_or(RecordError::Unexpected)?;
        Ok(0)
    }

    fn take_alert(&mut self, content: &[u8]) -> Result<(), RecordError> {
        let (level, alert) = match *content {
            [level, alert] if ALERT_LEVELS.contains(&level) => (level, alert.into()),
            [_, _] => return Err(RecordError::Illegal),
            [] => return Err(RecordError::Unexpected),
            _ => return Err(RecordError::Malformed),
        };
        let [warning, _] = ALERT_LEVELS;
        match alert {
            AlertDescription::CloseNotify => self.peer_closed = true,
            // A close_notify follows (RFC 8446, 6.1).
            AlertDescription::UserCanceled if level == warning => {}
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
                let next = next.ok().and_then(Cipher::new);
                self.cipher = next.ok_or(RecordError::Unexpected)?;
                Ok(())
            }
            // Ours sends none. No session is ever resumed.
            (HandshakeType::NewSessionTicket, KeySchedule::Client(_)) => Ok(()),
            _ => Err(RecordError::Unexpected),
        }
    }
}
