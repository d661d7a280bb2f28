use pinhole_proto::tls::{self as peer_tls, ALPN_PEER, Expect, Identity};
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use rustls::crypto::cipher::{AeadKey, Iv};

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
    let server = peer_tls::server_config(&bob, Expect::Key(alice.key()), ALPN_PEER).unwrap();
    [
        Handshake::client(client, peer_tls::server_name()).unwrap(),
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

/// Both ends of a connection, whose handshake went through memory.
fn ends() -> [(Opener, Sealer); 2] {
    let [mut client, mut server] = handshakes();
    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    while advance(&mut client, &mut to_client) != Step::Ready {
        to_server.extend(client.take_queued());
        advance(&mut server, &mut to_server);
        to_client.extend(server.take_queued());
    }
    to_server.extend(client.take_queued());
    assert_eq!(advance(&mut server, &mut to_server), Step::Ready);
    assert!(server.take_queued().is_empty() && to_server.is_empty());
    [client, server].map(|end| end.into_records().unwrap())
}

/// What waits to be sent, which is sent then.
fn take_sealed(sealer: &mut Sealer) -> Vec<u8> {
    let sealed = sealer.sealed().to_vec();
    sealer.sent(sealed.len());
    sealed
}

/// One record of a kind that an honest end does not send like this.
fn sealed(sealer: &mut Sealer, kind: u8, content: &[u8]) -> Vec<u8> {
    sealer.record(kind.into(), content).unwrap();
    take_sealed(sealer)
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

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
        prop_assert!(room.len() - before <= sealed_bytes(plaintext.len()));
        let (mut at, mut opened) = (before, 0);
        while let Some(record) = opener.open(&mut room[opened..], at - opened).unwrap() {
            at += record.record_bytes;
            opened += record.data_bytes;
        }
        prop_assert_eq!(at, room.len());
        prop_assert!(room[..opened] == plaintext);
    }

    #[test]
    fn whatever_arrives_is_refused_or_waited_for(
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
}

#[test]
fn a_record_in_pieces_is_waited_for() {
    let [(_, mut sealer), (mut opener, _)] = ends();
    let mut record = sealed(&mut sealer, DATA, b"whole");
    for end in 0..record.len() {
        assert!(opener.open(&mut record[..end], 0).unwrap().is_none());
    }
    let opened = opener.open(&mut record, 0).unwrap().unwrap();
    assert_eq!(&record[..opened.data_bytes], b"whole");
}

#[test]
fn padding_is_not_handed_out() {
    let [(_, mut sealer), (mut opener, _)] = ends();
    for content in [&b"padded"[..], b"", b"zeros at the end\0\0"] {
        // The type's own byte, then zeros and one of them as the type.
        let padded = [content, &[DATA], &[0; 99]].concat();
        let mut record = sealed(&mut sealer, 0, &padded);
        let opened = opener.open(&mut record, 0).unwrap().unwrap();
        assert_eq!(&record[..opened.data_bytes], content);
    }
}

#[test]
fn what_has_no_place_after_the_handshake_ends_the_connection_with_a_reason() {
    use RecordError::{Alert, Illegal, Malformed, TooLong, Unexpected};
    let long = vec![1; CONTENT_BYTES_MAX + 1];
    let renewed_and_more = [KEY_UPDATE, KEY_UPDATE].concat();
    let padded = [&[1, DATA][..], &[0; CONTENT_BYTES_MAX]].concat();
    let cases: [(u8, &[u8], RecordError); 19] = [
        (HANDSHAKE, &[], Unexpected),
        (HANDSHAKE, &KEY_UPDATE[..3], Unexpected),
        (HANDSHAKE, &KEY_UPDATE[..4], Unexpected),
        (HANDSHAKE, &renewed_and_more, Unexpected),
        (HANDSHAKE, &[24, 0, 0, 1, 2], Illegal),
        (HANDSHAKE, &[24, 0, 0, 0], Malformed),
        (HANDSHAKE, &[24, 0, 0, 2, 0, 0], Malformed),
        (HANDSHAKE, &[24, 0xff, 0xff, 0xff, 0], Unexpected),
        (HANDSHAKE, &[11, 0, 0, 0], Unexpected),
        (HANDSHAKE, &[4, 0, 0, 0], Unexpected),
        (ALERT, &[2, 80], Alert(AlertDescription::InternalError)),
        (ALERT, &[2, 90], Alert(AlertDescription::UserCanceled)),
        (ALERT, &[3, 0], Illegal),
        (ALERT, &[1], Malformed),
        (ALERT, &[], Unexpected),
        (20, &[1], Unexpected),
        (0, &[], Unexpected),
        (DATA, &long, TooLong),
        (0, &padded, TooLong),
    ];
    for (kind, content, expected) in cases {
        let [(mut told, mut sealer), (mut opener, mut answering)] = ends();
        let mut record = sealed(&mut sealer, kind, content);
        assert_eq!(error_of(opener.open(&mut record, 0)), expected);
        assert_eq!(answering.seal(b"more"), Err(SealError::Failed));
        let mut last = take_sealed(&mut answering);
        // Said once, whatever else is tried.
        assert_eq!(answering.seal(b"more"), Err(SealError::Failed));
        answering.close().unwrap();
        assert!(answering.sealed().is_empty());
        let told = told.open(&mut last, 0);
        match expected.alert() {
            Some(alert) => assert_eq!(error_of(told), Alert(alert)),
            None => assert!(told.unwrap().is_none()),
        }
    }
}

fn error_of(opened: Result<Option<Opened>, RecordError>) -> RecordError {
    opened.unwrap_err()
}

/// How many records of this kind are taken before one is refused, if each of them
/// is followed by one that brings so much data.
fn taken_between(kind: u8, content: &[u8], data: &[u8]) -> usize {
    const TRIES: usize = 10_000;
    let [(_, mut sealer), (mut opener, _)] = ends();
    for taken in 0..TRIES {
        let mut record = sealed(&mut sealer, kind, content);
        if kind == HANDSHAKE {
            let next = sealer.shared.lock().keys.next_to_seal().unwrap();
            sealer.cipher = Cipher::new(next).unwrap();
        }
        if let Err(error) = opener.open(&mut record, 0) {
            assert_eq!(error, RecordError::Unexpected);
            return taken;
        }
        if !data.is_empty() {
            let mut record = sealed(&mut sealer, DATA, data);
            opener.open(&mut record, 0).unwrap();
        }
    }
    TRIES
}

#[test]
fn records_without_data_are_not_taken_for_ever() {
    let in_a_row = ALLOWANCE_BYTES / DATALESS_BYTES;
    let kinds: [(u8, &[u8]); 3] = [(HANDSHAKE, &KEY_UPDATE), (ALERT, &[1, 90]), (DATA, b"")];
    for (kind, content) in kinds {
        assert_eq!(taken_between(kind, content, b""), in_a_row);
        // A byte earns next to nothing.
        assert!(taken_between(kind, content, b"x") <= in_a_row + 1);
        // Enough data earns another record, again and again.
        let enough = [7; DATALESS_BYTES];
        assert_eq!(taken_between(kind, content, &enough), 10_000);
    }
}

#[test]
fn an_empty_record_earns_nothing() {
    let [(_, mut sealer), (mut opener, _)] = ends();
    let mut refused_at = None;
    for number in 0..1000 {
        let (kind, content): (u8, &[u8]) = match number % 2 {
            0 => (ALERT, &[1, 90]),
            _ => (DATA, b""),
        };
        let mut record = sealed(&mut sealer, kind, content);
        if opener.open(&mut record, 0).is_err() {
            refused_at = Some(number);
            break;
        }
    }
    assert_eq!(refused_at, Some(ALLOWANCE_BYTES / DATALESS_BYTES));
}

/// What comes in one read with the last message of the handshake, whatever it is.
#[test]
fn what_stands_right_behind_the_handshake_is_not_lost() {
    const ASKS: [u8; 5] = [24, 0, 0, 1, 1];
    for in_one_read in [true, false] {
        let [mut client, mut server] = handshakes();
        let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
        while advance(&mut client, &mut to_client) != Step::Ready {
            to_server.extend(client.take_queued());
            advance(&mut server, &mut to_server);
            to_client.extend(server.take_queued());
        }
        to_server.extend(client.take_queued());
        let (mut client_opener, mut client_sealer) = client.into_records().unwrap();
        // A request for another key, data under that key, another, and the end.
        let mut behind = Vec::new();
        for data in [&b"one"[..], b"two"] {
            behind.extend(sealed(&mut client_sealer, HANDSHAKE, &ASKS));
            let next = client_sealer.shared.lock().keys.next_to_seal().unwrap();
            client_sealer.cipher = Cipher::new(next).unwrap();
            behind.extend(sealed(&mut client_sealer, DATA, data));
        }
        client_sealer.close().unwrap();
        behind.extend(take_sealed(&mut client_sealer));
        if in_one_read {
            to_server.extend_from_slice(&behind);
        }
        assert_eq!(advance(&mut server, &mut to_server), Step::Ready);
        assert!(server.take_queued().is_empty());
        let (mut opener, mut sealer) = server.into_records().unwrap();
        let mut room = if in_one_read { to_server } else { behind };
        let (mut at, mut opened) = (0, 0);
        while let Some(record) = opener.open(&mut room[opened..], at - opened).unwrap() {
            at += record.record_bytes;
            opened += record.data_bytes;
        }
        assert_eq!((at, &room[..opened]), (room.len(), &b"onetwo"[..]));
        assert!(opener.peer_closed());
        // The key is announced before the answer is sealed with it.
        sealer.seal(b"answer").unwrap();
        let mut answer = take_sealed(&mut sealer);
        let (mut at, mut opened) = (0, 0);
        while let Some(record) = client_opener
            .open(&mut answer[opened..], at - opened)
            .unwrap()
        {
            at += record.record_bytes;
            opened += record.data_bytes;
        }
        assert_eq!(&answer[..opened], b"answer");
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
fn a_header_is_believed_in_nothing() {
    let cases: [(&[u8], RecordError); 5] = [
        (b"GET / HTTP/1.1", RecordError::Unexpected),
        (&[21, 3, 3, 0, 2, 2, 80], RecordError::Unexpected),
        (&[23, 3, 3, 0xff, 0xff], RecordError::TooLong),
        (&[23, 3, 3, 0, 0], RecordError::Forged),
        (&[23, 3, 3, 0, 3, 1, 2, 3], RecordError::Forged),
    ];
    for (bytes, expected) in cases {
        let [_, (mut opener, _)] = ends();
        assert_eq!(error_of(opener.open(&mut bytes.to_vec(), 0)), expected);
    }
}

#[test]
fn what_other_libraries_send_besides_is_passed_over() {
    let [(mut client, _), (_, mut server)] = ends();
    // A ticket, with which a session could be resumed.
    let mut record = sealed(&mut server, HANDSHAKE, &[4, 0, 0, 2, 7, 7]);
    let opened = client.open(&mut record, 0).unwrap().unwrap();
    assert_eq!(opened.data_bytes, 0);
    let mut record = sealed(&mut server, ALERT, &[1, 90]);
    let opened = client.open(&mut record, 0).unwrap().unwrap();
    assert_eq!((opened.data_bytes, client.peer_closed), (0, false));
    server.close().unwrap();
    let mut record = take_sealed(&mut server);
    client.open(&mut record, 0).unwrap().unwrap();
    assert!(client.peer_closed());
}

/// rustls derives nothing else here; the sessions of the other tests have the
/// third cipher.
#[test]
fn every_cipher_opens_what_it_has_sealed() {
    let secrets = |algorithm: usize| {
        let (key, iv) = (AeadKey::from([7; 32]), Iv::from([1; NONCE_BYTES]));
        match algorithm {
            0 => ConnectionTrafficSecrets::Aes256Gcm { key, iv },
            _ => ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
        }
    };
    for algorithm in [0, 1] {
        let [(_, mut sealer), (mut opener, _)] = ends();
        sealer.cipher = Cipher::new((5, secrets(algorithm))).unwrap();
        opener.cipher = Cipher::new((5, secrets(algorithm))).unwrap();
        for _ in 0..3 {
            let mut record = sealed(&mut sealer, DATA, b"again");
            let opened = opener.open(&mut record, 0).unwrap().unwrap();
            assert_eq!(&record[..opened.data_bytes], b"again");
        }
    }
}

#[test]
fn a_key_is_replaced_before_it_has_sealed_too_much() {
    let [(_, mut sealer), (mut opener, _)] = ends();
    sealer.limit_keys_to(3);
    let plaintext = vec![9; 20 * CONTENT_BYTES_MAX];
    sealer.seal(&plaintext).unwrap();
    let mut room = take_sealed(&mut sealer);
    assert!(sealer.cipher.sequence <= 3);
    let (mut at, mut opened, mut records) = (0, 0, 0);
    while let Some(record) = opener.open(&mut room[opened..], at - opened).unwrap() {
        at += record.record_bytes;
        opened += record.data_bytes;
        records += 1;
    }
    assert!(room[..opened] == plaintext);
    // Of each four one says that another key follows.
    assert_eq!(records, 26);
}
