//! The records of a session against rustls's, in both roles: a peer that has the
//! right keys sends whatever it wants, and both take the same of it, and seal the
//! same.
//!
//! Everything that a handshake draws by chance is fixed, so that both ends under
//! test hold the same keys.

use std::sync::Arc;

use pinhole_tls::aead::{Algorithm, Key, NONCE_BYTES, TAG_BYTES};
use pinhole_tls::{Handshake, Opener, RecordError, Sealer, Step};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnectionData, Resumption, UnbufferedClientConnection};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
    SupportedKxGroup, ring as provider,
};
use rustls::kernel::KernelConnection;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{
    AlwaysResolvesServerRawPublicKeys, ServerConnectionData, UnbufferedServerConnection,
};
use rustls::sign::CertifiedKey;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, Connection, ConnectionTrafficSecrets, DigitallySignedStruct,
    Error, NamedGroup, ServerConfig, ServerConnection, SignatureScheme,
};

const DATA: u8 = 23;
const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
/// Records without data that either takes in a row.
const DATALESS_MAX: u32 = 32;

#[derive(Debug)]
struct Fixed;

impl SecureRandom for Fixed {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        buffer.fill(7);
        Ok(())
    }
}

impl SupportedKxGroup for Fixed {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(Self))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for Fixed {
    fn complete(self: Box<Self>, _: &[u8]) -> Result<SharedSecret, Error> {
        Ok(SharedSecret::from(&[5; 32][..]))
    }

    fn pub_key(&self) -> &[u8] {
        &[9; 32]
    }

    fn group(&self) -> NamedGroup {
        self.name()
    }
}

impl ServerCertVerifier for Fixed {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The configurations of both ends, with one of the three ciphers.
fn configs(cipher: u8) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    use provider::cipher_suite as suites;
    let suites = [
        suites::TLS13_AES_128_GCM_SHA256,
        suites::TLS13_AES_256_GCM_SHA384,
        suites::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![suites[usize::from(cipher) % suites.len()]],
        kx_groups: vec![&Fixed],
        secure_random: &Fixed,
        ..provider::default_provider()
    });
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("a version of the provider")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Fixed))
        .with_no_client_auth();
    let seed_document = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    let document = PrivatePkcs8KeyDer::from([&seed_document[..], &[3; 32]].concat());
    let key = provider::sign::any_eddsa_type(&document).expect("a key");
    let spki = key.public_key().expect("an Ed25519 key").to_vec();
    let certified = Arc::new(CertifiedKey::new(vec![spki.into()], key));
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("a version of the provider")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
    server.send_tls13_tickets = 0;
    server.enable_secret_extraction = true;
    client.resumption = Resumption::disabled();
    client.enable_sni = false;
    client.enable_secret_extraction = true;
    (Arc::new(client), Arc::new(server))
}

fn name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into())
}

/// What makes the peer's next key.
enum Keys {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

/// The peer, which seals what it wants.
struct Peer {
    keys: Keys,
    secrets: (u64, ConnectionTrafficSecrets),
}

impl Peer {
    fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        use ConnectionTrafficSecrets as Secrets;
        let (sequence, secrets) = &mut self.secrets;
        let (algorithm, key, iv) = match secrets {
            Secrets::Aes128Gcm { key, iv } => (Algorithm::Aes128Gcm, key, iv),
            Secrets::Aes256Gcm { key, iv } => (Algorithm::Aes256Gcm, key, iv),
            Secrets::Chacha20Poly1305 { key, iv } => (Algorithm::ChaCha20Poly1305, key, iv),
            _ => unreachable!("three ciphers"),
        };
        let key = Key::new(algorithm, key.as_ref()).expect("a key");
        let mut nonce: [u8; NONCE_BYTES] = iv.as_ref().try_into().expect("an IV");
        for (byte, of_sequence) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
            *byte ^= of_sequence;
        }
        *sequence += 1;
        let (last, content) = inner.split_last().expect("a type");
        let length = u16::try_from(inner.len() + TAG_BYTES).expect("a record");
        let [high, low] = length.to_be_bytes();
        let mut record = vec![DATA, 3, 3, high, low];
        let header = record.clone();
        key.seal(nonce, &header, (content, *last), &mut record)
            .expect("it fits");
        record
    }

    fn renew(&mut self) {
        let next = match &mut self.keys {
            Keys::Client(keys) => keys.update_tx_secret(),
            Keys::Server(keys) => keys.update_tx_secret(),
        };
        self.secrets = next.expect("another key");
    }
}

/// Goes on as far as it leads. Returns what is to be sent.
fn drive(
    mut process: impl FnMut(&mut [u8]) -> (usize, Option<Vec<u8>>, bool),
    mut arrived: Vec<u8>,
) -> Vec<u8> {
    let mut to_send = Vec::new();
    loop {
        let (done, encoded, goes_on) = process(&mut arrived);
        arrived.drain(..done);
        to_send.extend(encoded.unwrap_or_default());
        if !goes_on {
            return to_send;
        }
    }
}

fn progress<Data>(status: UnbufferedStatus<'_, '_, Data>) -> (usize, Option<Vec<u8>>, bool) {
    let UnbufferedStatus { discard, state } = status;
    match state.expect("an honest handshake") {
        ConnectionState::EncodeTlsData(mut data) => {
            let mut encoded = Vec::new();
            if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
                encoded.resize(size.required_size, 0);
            }
            data.encode(&mut encoded).expect("there is room");
            (discard, Some(encoded), true)
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            (discard, None, true)
        }
        _ => (discard, None, false),
    }
}

/// The two ends under test, which hold the same keys, and the peer of both.
struct Scene {
    ours: (Opener, Sealer),
    theirs: Connection,
    peer: Peer,
    is_client: bool,
}

/// Goes on until more bytes are needed. Returns what is to be sent.
fn advance(ours: &mut Handshake, arrived: &mut Vec<u8>) -> Vec<u8> {
    loop {
        let (done, step) = ours.step(arrived);
        arrived.drain(..done);
        if step.expect("an honest handshake") != Step::Again {
            return ours.take_queued();
        }
    }
}

fn feed(theirs: &mut Connection, arrived: &[u8]) -> Vec<u8> {
    let mut rest = arrived;
    while !rest.is_empty() {
        theirs.read_tls(&mut rest).expect("memory");
        theirs.process_new_packets().expect("an honest handshake");
    }
    sent_by(theirs)
}

fn sent_by(theirs: &mut Connection) -> Vec<u8> {
    let mut sent = Vec::new();
    while theirs.wants_write() {
        theirs.write_tls(&mut sent).expect("memory");
    }
    sent
}

impl Scene {
    /// With the client's end under test.
    fn of_client(cipher: u8) -> Self {
        let (client, server) = configs(cipher);
        let mut ours = Handshake::client(client.clone(), name()).expect("a client");
        let theirs = ClientConnection::new(client, name()).expect("a client");
        let mut theirs = Connection::from(theirs);
        let mut peer = UnbufferedServerConnection::new(server).expect("a server");
        let hello = advance(&mut ours, &mut Vec::new());
        assert_eq!(sent_by(&mut theirs), hello);
        let process = |bytes: &mut [u8]| progress(peer.process_tls_records(bytes));
        let answer = drive(process, hello);
        let finished = advance(&mut ours, &mut answer.clone());
        assert_eq!(feed(&mut theirs, &answer), finished);
        let process = |bytes: &mut [u8]| progress(peer.process_tls_records(bytes));
        drive(process, finished);
        let (secrets, keys) = peer.dangerous_into_kernel_connection().expect("done");
        Self {
            ours: ours.into_records().expect("done"),
            theirs,
            peer: Peer {
                keys: Keys::Server(keys),
                secrets: secrets.tx,
            },
            is_client: true,
        }
    }

    /// With the server's end under test.
    fn of_server(cipher: u8) -> Self {
        let (client, server) = configs(cipher);
        let mut ours = Handshake::server(server.clone()).expect("a server");
        let theirs = ServerConnection::new(server).expect("a server");
        let mut theirs = Connection::from(theirs);
        let mut peer = UnbufferedClientConnection::new(client, name()).expect("a client");
        let process = |bytes: &mut [u8]| progress(peer.process_tls_records(bytes));
        let hello = drive(process, Vec::new());
        let answer = advance(&mut ours, &mut hello.clone());
        assert_eq!(feed(&mut theirs, &hello), answer);
        let process = |bytes: &mut [u8]| progress(peer.process_tls_records(bytes));
        let finished = drive(process, answer);
        assert!(advance(&mut ours, &mut finished.clone()).is_empty());
        assert!(feed(&mut theirs, &finished).is_empty());
        let (secrets, keys) = peer.dangerous_into_kernel_connection().expect("done");
        Self {
            ours: ours.into_records().expect("done"),
            theirs,
            peer: Peer {
                keys: Keys::Client(keys),
                secrets: secrets.tx,
            },
            is_client: false,
        }
    }
}

/// What came of one record.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Taken { data: Vec<u8>, closed: bool },
    Refused,
}

impl Scene {
    fn by_ours(&mut self, record: &[u8]) -> (Outcome, Option<RecordError>) {
        let (mut room, mut data, mut at) = (record.to_vec(), Vec::new(), 0);
        while !self.ours.0.peer_closed() {
            match self.ours.0.open(&mut room[at..], 0) {
                Ok(Some(opened)) => {
                    data.extend_from_slice(&room[at..][..opened.data_bytes]);
                    at += opened.record_bytes;
                }
                Ok(None) => break,
                Err(error) => return (Outcome::Refused, Some(error)),
            }
        }
        let closed = self.ours.0.peer_closed();
        (Outcome::Taken { data, closed }, None)
    }

    fn by_theirs(&mut self, record: &[u8]) -> Outcome {
        let (mut rest, mut data, mut closed) = (record, Vec::new(), false);
        while !rest.is_empty() && !closed {
            if self.theirs.read_tls(&mut rest).is_err() {
                return Outcome::Refused;
            }
            let Ok(state) = self.theirs.process_new_packets() else {
                return Outcome::Refused;
            };
            let start = data.len();
            data.resize(start + state.plaintext_bytes_to_read(), 0);
            let read = std::io::Read::read_exact(&mut self.theirs.reader(), &mut data[start..]);
            read.expect("what there is to read");
            closed = state.peer_has_closed();
        }
        Outcome::Taken { data, closed }
    }

    /// Both get one record. Returns whether the connection goes on.
    fn hear(&mut self, record: &[u8], said: &Said) -> bool {
        let (ours, error) = self.by_ours(record);
        let theirs = self.by_theirs(record);
        match (&ours, &theirs) {
            (Outcome::Refused, Outcome::Taken { .. }) => {
                // Ours takes no message in pieces, none but the last of a record,
                // and counts all records without data alike.
                let is_stricter = said.kind == HANDSHAKE || said.dataless > DATALESS_MAX;
                let is_unexpected = error == Some(RecordError::Unexpected);
                // rustls takes an alert that is not sealed, as long as nothing was.
                let is_unsealed = !said.is_sealed && said.kind == ALERT;
                assert!(
                    is_unexpected && (is_stricter || is_unsealed),
                    "{said:?}: {error:?}"
                );
            }
            (Outcome::Taken { .. }, Outcome::Refused) => {
                // Ours does not read tickets, and counts cancellations as it does
                // all records without data.
                let is_ticket = said.kind == HANDSHAKE && self.is_client;
                assert!(is_ticket || said.kind == ALERT, "{said:?}: {theirs:?}");
            }
            _ => assert_eq!(ours, theirs, "{said:?}"),
        }
        let goes_on = |outcome| matches!(outcome, Outcome::Taken { closed: false, .. });
        goes_on(ours) && goes_on(theirs)
    }

    /// Both seal the same.
    fn say(&mut self, plaintext: &[u8]) {
        self.ours.1.seal(plaintext).expect("nothing was refused");
        let ours = self.ours.1.sealed().to_vec();
        self.ours.1.sent(ours.len());
        std::io::Write::write_all(&mut self.theirs.writer(), plaintext).expect("memory");
        assert!(ours == sent_by(&mut self.theirs), "sealed another way");
    }
}

/// What the peer has said, as far as the rules ask for it.
#[derive(Debug, Default)]
struct Said {
    /// Of the last record, inside.
    kind: u8,
    is_sealed: bool,
    /// Records without data, less one for each KiB of data.
    dataless: u32,
}

impl Said {
    /// What is in the record that was sealed from this: its kind and content.
    fn note<'a>(&mut self, inner: &'a [u8]) -> &'a [u8] {
        let end = inner.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        let content = &inner[..end];
        (self.kind, self.is_sealed) = (inner[end], true);
        if self.kind == DATA && !content.is_empty() {
            let earned = u32::try_from(content.len() / 1024).expect("a record");
            self.dataless = self.dataless.saturating_sub(earned);
        } else {
            self.dataless += 1;
        }
        content
    }
}

/// A role, a cipher, and what the peer does.
pub fn hold(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let first = choices.byte();
    let mut scene = match first & 1 {
        0 => Scene::of_client(first >> 1),
        _ => Scene::of_server(first >> 1),
    };
    let mut said = Said::default();
    while choices.are_left() {
        let what = choices.byte();
        if what % 8 == 7 {
            let length = choices.length();
            scene.say(&vec![what; length.max(1)]);
            continue;
        }
        let record = peer_record(&mut scene.peer, what, &mut choices, &mut said);
        if !scene.hear(&record, &said) {
            return;
        }
    }
}

/// The next record of the peer.
fn peer_record(peer: &mut Peer, what: u8, choices: &mut Choices<'_>, said: &mut Said) -> Vec<u8> {
    let (kind, content) = match what % 8 {
        1 => (HANDSHAKE, vec![24, 0, 0, 1, choices.byte() % 3]),
        2 => (ALERT, vec![1 + what / 8 % 2, choices.byte()]),
        3 => (HANDSHAKE, choices.bytes()),
        4 => (choices.byte(), choices.bytes()),
        5 => {
            (said.kind, said.is_sealed) = (choices.byte(), false);
            let content = choices.bytes();
            let length = u8::try_from(content.len()).expect("a few bytes");
            return [&[said.kind, 3, 3, 0, length][..], &content].concat();
        }
        _ => (DATA, vec![what; choices.length()]),
    };
    let padding = vec![0; usize::from(what >> 6) * 5];
    let inner = [&content, &[kind][..], &padding].concat();
    let content = said.note(&inner);
    let mut record = peer.seal(&inner);
    if said.kind == HANDSHAKE && matches!(content, [24, 0, 0, 1, _]) {
        peer.renew();
    }
    if what % 8 == 6 {
        // Behind the header, of which rustls looks only at the length.
        let place = 5 + usize::from(choices.byte()) % (record.len() - 5);
        record[place] ^= 1 << (what >> 5);
    }
    record
}

/// Bytes as a source of decisions; zeroes when they are used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    const fn are_left(&self) -> bool {
        !self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let (&byte, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        byte
    }

    /// Mostly short; the longest is all that fits into a record.
    fn length(&mut self) -> usize {
        match self.byte() {
            255 => 1 << 14,
            byte @ 240.. => usize::from(byte - 239) * 1000,
            byte => usize::from(byte),
        }
    }

    /// A few that come next.
    fn bytes(&mut self) -> Vec<u8> {
        (0..self.byte() % 16).map(|_| self.byte()).collect()
    }
}
