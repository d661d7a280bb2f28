use pinhole_proto::tls::{self as peer_tls, ALPN_PEER, Expect, Identity};
use proptest::prelude::*;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::{ClientConfig, ConnectionTrafficSecrets};

use super::*;
use crate::handshake::{Handshake, Step};

fn identity() -> Identity {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Identity::from_pkcs8(document.as_ref()).unwrap()
}

/// Both ends of a connection, client first, before their handshake.
fn handshakes() -> [Handshake; 2] {
    let [alice, bob] = [identity(), identity()];
    let client = peer_tls::client_config(&alice, Expect::Key(bob.key()), ALPN_PEER).unwrap();
    let mut client = ClientConfig::clone(&client);
    // A forger seals by itself.
    client.enable_secret_extraction = true;
    let server = peer_tls::server_config(&bob, Expect::Key(alice.key()), ALPN_PEER).unwrap();
    [
        Handshake::client(client.into(), peer_tls::server_name()).unwrap(),
        Handshake::server(server).unwrap(),
    ]
}

/// Goes on until more bytes are needed or it is done. What is left has arrived.
fn advance(end: &mut Handshake, arrived: &mut Vec<u8>) -> Step {
    loop {
        let (done_bytes, step) = end.step(arrived);
        arrived.drain(..done_bytes);
        match step.unwrap() {
            Step::Again => {}
            step => return step,
        }
    }
}

/// Both ends, client first, whose handshake went through memory. What the server
/// has still to hear is returned.
fn shake_hands() -> ([Handshake; 2], Vec<u8>) {
    let [mut client, mut server] = handshakes();
    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    while advance(&mut client, &mut to_client) != Step::Ready {
        to_server.extend(client.take_queued());
        advance(&mut server, &mut to_server);
        to_client.extend(server.take_queued());
    }
    to_server.extend(client.take_queued());
    ([client, server], to_server)
}

fn done([client, mut server]: [Handshake; 2], mut to_server: Vec<u8>) -> [Handshake; 2] {
    assert_eq!(advance(&mut server, &mut to_server), Step::Ready);
    assert!(server.take_queued().is_empty() && to_server.is_empty());
    [client, server]
}

fn ends() -> [(Opener, Sealer); 2] {
    let (hands, to_server) = shake_hands();
    done(hands, to_server).map(Handshake::into_records)
}

/// A client that seals arbitrary records, and the server that opens them.
fn beside_a_forger() -> (Forger, (Opener, Sealer)) {
    let (hands, to_server) = shake_hands();
    let [client, server] = done(hands, to_server);
    (Forger::new(client), server.into_records())
}

/// What waits to be sent, which is sent then.
fn take_sealed(sealer: &mut Sealer) -> Vec<u8> {
    let sealed = sealer.sealed().to_vec();
    sealer.sent(sealed.len());
    sealed
}

/// A peer that has the right keys.
struct Forger {
    keys: KernelConnection<ClientConnectionData>,
    to_seal: Direction,
    to_open: Direction,
}

struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
            panic!("another cipher");
        };
        let key = UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap();
        Self {
            key: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().unwrap(),
            sequence,
        }
    }

    /// RFC 8446, 5.3.
    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, of_sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of_sequence;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

impl Forger {
    fn new(client: Handshake) -> Self {
        let RustlsConnection::Client(client) = client.into_side() else {
            panic!("no client");
        };
        let (secrets, keys) = client.dangerous_into_kernel_connection().unwrap();
        Self {
            keys,
            to_seal: Direction::new(secrets.tx),
            to_open: Direction::new(secrets.rx),
        }
    }

    /// One record.
    fn sealed(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut inner = [content, &[kind]].concat();
        let [high, low] = u16::try_from(inner.len() + 16).unwrap().to_be_bytes();
        let header = [DATA, 3, 3, high, low];
        let nonce = self.to_seal.nonce();
        let tag = self
            .to_seal
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(header), &mut inner)
            .unwrap();
        [&header, inner.as_slice(), tag.as_ref()].concat()
    }

    /// A message that says that another key follows, under the one before.
    fn renewed(&mut self, message: &[u8]) -> Vec<u8> {
        let record = self.sealed(HANDSHAKE, message);
        self.to_seal = Direction::new(self.keys.update_tx_secret().unwrap());
        record
    }

    /// Kind and content of each record.
    fn opened(&mut self, mut records: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut opened = Vec::new();
        while let Some((header, rest)) = records.split_first_chunk::<HEADER_BYTES>() {
            let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
            let (sealed, rest) = rest.split_at(length);
            let (mut sealed, nonce) = (sealed.to_vec(), self.to_open.nonce());
            let aad = Aad::from(header);
            let inner = self.to_open.key.open_in_place(nonce, aad, &mut sealed);
            let (kind, content) = inner.unwrap().split_last().unwrap();
            opened.push((*kind, content.to_vec()));
            if *kind == HANDSHAKE {
                self.to_open = Direction::new(self.keys.update_rx_secret().unwrap());
            }
            records = rest;
        }
        opened
    }
}

/// Opens what is in `room` from `start` on, and has the plaintext at its start.
fn open_all(opener: &mut Opener, room: &mut [u8], start: usize) -> (usize, usize) {
    let (mut at, mut opened) = (start, 0);
    while let Some(record) = opener.open(&mut room[opened..], at - opened).unwrap() {
        at += record.record_bytes;
        opened += record.data_bytes;
    }
    (at, opened)
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
/// RFC 8446, 4.6.3: that asks for none in return, and that asks for one.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_ASKED: [u8; 5] = [24, 0, 0, 1, 1];
/// RFC 8446, 4.6.1.
const TICKET: [u8; 19] = [4, 0, 0, 15, 0, 0, 0, 9, 0, 0, 0, 1, 1, 7, 0, 1, 7, 0, 0];
const USER_CANCELED: [u8; 2] = [1, 90];

proptest! {
    #[test]
    fn plaintext_comes_back_wherever_its_record_lies(
        plaintext in prop::collection::vec(any::<u8>(), 0..40_000),
        before in 0..3000_usize,
    ) {
        let [(_, mut sealer), (mut opener, _)] = ends();
        sealer.seal(&plaintext).unwrap();
        let mut room = vec![0; before];
        room.extend(take_sealed(&mut sealer));
        let (at, opened) = open_all(&mut opener, &mut room, before);
        prop_assert_eq!(at, room.len());
        prop_assert!(room[..opened] == plaintext);
    }

    #[test]
    fn every_input_is_refused_or_waited_for(
        mut room in prop::collection::vec(any::<u8>(), 0..300),
        looks_sealed: bool,
        at in 0..300_usize,
    ) {
        let [_, (mut opener, _)] = ends();
        if let Some(kind) = room.get_mut(at) && looks_sealed {
            *kind = DATA;
        }
        prop_assert!(!matches!(opener.open(&mut room, at), Ok(Some(_))));
    }

    #[test]
    fn every_sealed_record_is_opened_or_ends_the_connection(
        records in prop::collection::vec(
            (0..30_u8, prop::collection::vec(any::<u8>(), 0..40)),
            0..40,
        ),
    ) {
        let (mut forger, (mut opener, mut sealer)) = beside_a_forger();
        for (kind, content) in records {
            let mut record = forger.sealed(kind, &content);
            match opener.open(&mut record, 0) {
                Ok(Some(opened)) if kind == DATA => {
                    prop_assert_eq!(&record[..opened.data_bytes], &content);
                }
                Ok(opened) => prop_assert_eq!(opened.unwrap().data_bytes, 0),
                Err(_) => {
                    prop_assert!(opener.open(&mut record, 0).is_err());
                    prop_assert_eq!(sealer.seal(b"more"), Err(SealError));
                    break;
                }
            }
        }
    }
}

#[test]
fn a_record_in_pieces_is_waited_for() {
    let (mut forger, (mut opener, _)) = beside_a_forger();
    let mut record = forger.sealed(DATA, b"whole");
    for end in 0..record.len() {
        assert!(opener.open(&mut record[..end], 0).unwrap().is_none());
    }
    let opened = opener.open(&mut record, 0).unwrap().unwrap();
    assert_eq!(&record[..opened.data_bytes], b"whole");
}

#[test]
fn padding_is_not_handed_out() {
    let (mut forger, (mut opener, _)) = beside_a_forger();
    for content in [&b"padded"[..], b"", b"zeros at the end\0\0"] {
        // The type's own byte, then zeros and one of them as the type.
        let padded = [content, &[DATA], &[0; 99]].concat();
        let mut record = forger.sealed(0, &padded);
        let opened = opener.open(&mut record, 0).unwrap().unwrap();
        assert_eq!(&record[..opened.data_bytes], content);
    }
}

#[test]
fn misplaced_messages_after_the_handshake_end_the_connection_with_an_alert() {
    let long = vec![1; CONTENT_BYTES_MAX + 1];
    let renewed_and_more = [KEY_UPDATE, KEY_UPDATE].concat();
    let padded = [&[1, DATA][..], &[0; CONTENT_BYTES_MAX]].concat();
    let cases: [(u8, &[u8]); 15] = [
        (HANDSHAKE, &[]),
        (HANDSHAKE, &KEY_UPDATE[..3]),
        (HANDSHAKE, &KEY_UPDATE[..4]),
        (HANDSHAKE, &renewed_and_more),
        (HANDSHAKE, &[24, 0, 0, 1, 2]),
        (HANDSHAKE, &[24, 0, 0, 0]),
        (HANDSHAKE, &[24, 0, 0, 2, 0, 0]),
        (HANDSHAKE, &[24, 0xff, 0xff, 0xff, 0]),
        (HANDSHAKE, &[11, 0, 0, 0]),
        (HANDSHAKE, &TICKET),
        (ALERT, &[1]),
        (20, &[1]),
        (0, &[]),
        (DATA, &long),
        (0, &padded),
    ];
    for (kind, content) in cases {
        let (mut forger, (mut opener, mut sealer)) = beside_a_forger();
        let mut record = forger.sealed(kind, content);
        let error = opener.open(&mut record, 0).unwrap_err();
        assert!(matches!(error, RecordError::Tls(_)), "{kind} {content:?}");
        assert_eq!(sealer.seal(b"more"), Err(SealError));
        // Not of all that it refuses does rustls tell the peer.
        let told = forger.opened(&take_sealed(&mut sealer));
        let is_fatal = |(kind, alert): &(u8, Vec<u8>)| (*kind, alert[0]) == (ALERT, 2);
        assert!(told.len() <= 1 && told.iter().all(is_fatal), "{told:?}");
        // Sent once.
        assert_eq!(sealer.seal(b"more"), Err(SealError));
        assert!(sealer.sealed().is_empty());
    }
}

#[test]
fn the_peers_alert_is_the_error_and_is_not_answered() {
    let (mut forger, (mut opener, mut sealer)) = beside_a_forger();
    let mut record = forger.sealed(ALERT, &[2, 80]);
    let told = Error::AlertReceived(rustls::AlertDescription::InternalError);
    assert_eq!(
        opener.open(&mut record, 0).unwrap_err(),
        RecordError::Tls(told)
    );
    assert_eq!(sealer.seal(b"more"), Err(SealError));
    assert!(sealer.sealed().is_empty());
}

/// How many records of this kind are taken before one is refused, if each of them
/// is followed by one that brings so much data.
fn taken_between(kind: u8, content: &[u8], data: Option<&[u8]>) -> usize {
    const TRIES: usize = 10_000;
    let (mut forger, (mut opener, _)) = beside_a_forger();
    for taken in 0..TRIES {
        let mut record = match kind {
            HANDSHAKE => forger.renewed(content),
            _ => forger.sealed(kind, content),
        };
        if opener.open(&mut record, 0).is_err() {
            return taken;
        }
        if let Some(data) = data {
            let mut record = forger.sealed(DATA, data);
            if opener.open(&mut record, 0).is_err() {
                return taken;
            }
        }
    }
    TRIES
}

#[test]
fn records_without_data_are_not_taken_for_ever() {
    let in_a_row = ALLOWANCE_BYTES / DATALESS_BYTES;
    let kinds: [(u8, &[u8]); 4] = [
        (HANDSHAKE, &KEY_UPDATE),
        (HANDSHAKE, &KEY_UPDATE_ASKED),
        (ALERT, &USER_CANCELED),
        (DATA, b""),
    ];
    for (kind, content) in kinds {
        assert!(taken_between(kind, content, None) <= in_a_row);
        // An empty one earns nothing, and a byte next to nothing.
        assert!(taken_between(kind, content, Some(b"")) <= in_a_row / 2);
        assert!(taken_between(kind, content, Some(b"x")) <= in_a_row + 1);
        if kind == ALERT {
            // rustls takes four in all.
            continue;
        }
        // Enough data earns another record, again and again.
        let enough = [7; DATALESS_BYTES];
        assert_eq!(taken_between(kind, content, Some(&enough)), 10_000);
    }
}

/// Bytes of any kind that arrive in one read with the last message of the handshake.
#[test]
fn data_right_behind_the_handshake_is_not_lost() {
    for in_one_read in [true, false] {
        let ([client, mut server], mut to_server) = shake_hands();
        let mut forger = Forger::new(client);
        // A request for another key, data under that key, another, and the end.
        let mut behind = Vec::new();
        for data in [&b"one"[..], b"two"] {
            behind.extend(forger.renewed(&KEY_UPDATE_ASKED));
            behind.extend(forger.sealed(DATA, data));
        }
        behind.extend(forger.sealed(ALERT, &[1, 0]));
        if in_one_read {
            to_server.extend_from_slice(&behind);
        }
        assert_eq!(advance(&mut server, &mut to_server), Step::Ready);
        assert!(server.take_queued().is_empty());
        let (mut opener, mut sealer) = server.into_records();
        let mut room = if in_one_read { to_server } else { behind };
        let all_bytes = room.len();
        let (at, opened) = open_all(&mut opener, &mut room, 0);
        assert_eq!((at, &room[..opened]), (all_bytes, &b"onetwo"[..]));
        assert!(opener.peer_closed());
        // The key is announced before the answer is sealed with it.
        sealer.seal(b"answer").unwrap();
        let answer = forger.opened(&take_sealed(&mut sealer));
        let kinds: Vec<_> = answer.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [HANDSHAKE, DATA]);
        assert_eq!(answer[1].1, b"answer");
    }
}

/// However small the pieces are, or however many come at once.
#[test]
fn a_handshake_in_pieces_is_a_handshake() {
    for piece_bytes in [1, 7, 100] {
        let [mut client, mut server] = handshakes();
        let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
        let mut step = [Step::Blocked; 2];
        while step != [Step::Ready; 2] {
            step[0] = advance(&mut client, &mut to_client);
            for piece in client.take_queued().chunks(piece_bytes) {
                to_server.extend_from_slice(piece);
                step[1] = advance(&mut server, &mut to_server);
            }
            for piece in server.take_queued().chunks(piece_bytes) {
                to_client.extend_from_slice(piece);
                step[0] = advance(&mut client, &mut to_client);
            }
        }
    }
}

#[test]
fn a_record_header_is_not_trusted() {
    let cases: [&[u8]; 5] = [
        b"GET / HTTP/1.1",
        &[21, 3, 3, 0, 2, 2, 80],
        &[23, 3, 3, 0xff, 0xff],
        &[23, 3, 3, 0, 0],
        &[23, 3, 3, 0, 3, 1, 2, 3],
    ];
    for bytes in cases {
        let [_, (mut opener, _)] = ends();
        let error = opener.open(&mut bytes.to_vec(), 0).unwrap_err();
        assert!(matches!(error, RecordError::Tls(_)));
        assert!(!matches!(error, RecordError::Tls(Error::AlertReceived(_))));
    }
}

#[test]
fn the_end_is_sent_once_and_received() {
    let [(mut opener, _), (_, mut sealer)] = ends();
    sealer.seal(b"last").unwrap();
    sealer.close().unwrap();
    sealer.close().unwrap();
    let mut room = take_sealed(&mut sealer);
    let all_bytes = room.len();
    let mut behind = room.clone();
    let opened = opener.open(&mut room, 0).unwrap().unwrap();
    assert!(!opener.peer_closed());
    let end = &mut behind[opened.record_bytes..];
    let last = opener.open(end, 0).unwrap().unwrap();
    assert!(opener.peer_closed());
    assert_eq!(opened.record_bytes + last.record_bytes, all_bytes);
}
