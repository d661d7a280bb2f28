use pinhole_proto::tls::{self as peer_tls, ALPN_PEER, Expect};
use proptest::prelude::*;
use rustls::crypto::cipher::{AeadKey, Iv};

use super::super::handshake::{Handshake, Step};
use super::*;
use crate::identity::generate_identity;

/// Both ends of a connection, whose handshake went through memory.
fn ends() -> [(Opener, Sealer); 2] {
    let [alice, bob] = [(); 2].map(|()| generate_identity().unwrap().0);
    let client = peer_tls::client_config(&alice, Expect::Key(bob.key()), ALPN_PEER).unwrap();
    let server = peer_tls::server_config(&bob, Expect::Key(alice.key()), ALPN_PEER).unwrap();
    let mut ends = [
        Handshake::client(client).unwrap(),
        Handshake::server(server).unwrap(),
    ];
    let mut arrived = [Vec::new(), Vec::new()];
    let mut ready = [false; 2];
    while ready != [true; 2] {
        for side in [0, 1] {
            loop {
                let (done_bytes, step) = ends[side].step(&mut arrived[side], |_| ());
                arrived[side].drain(..done_bytes);
                match step.unwrap() {
                    Step::Again => {}
                    Step::Closed => panic!("closed"),
                    step => {
                        ready[side] = step == Step::Ready;
                        break;
                    }
                }
            }
            let queued = ends[side].take_queued();
            arrived[1 - side].extend(queued);
        }
    }
    ends.map(|end| end.into_directions().unwrap())
}

/// One record of a kind that an honest end does not send like this.
fn sealed(sealer: &mut Sealer, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    sealer.record(kind.into(), content, &mut sealed).unwrap();
    sealed
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
        let mut room = vec![0; before];
        sealer.seal(&plaintext, &mut room).unwrap();
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
    let cases: [(u8, &[u8], RecordError); 17] = [
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
        let mut last = Vec::new();
        let refused = answering.seal(b"more", &mut last).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotConnected);
        // Said once, whatever else is tried.
        let said_bytes = last.len();
        answering.seal(b"more", &mut last).unwrap_err();
        answering.close(&mut last).unwrap();
        assert_eq!(last.len(), said_bytes);
        let told = told.open(&mut last, 0);
        match expected.alert() {
            Some(alert) => assert_eq!(error_of(told), Alert(alert)),
            None => assert!(told.unwrap().is_none()),
        }
    }
}

fn error_of(opened: io::Result<Option<Opened>>) -> RecordError {
    let error = opened.unwrap_err();
    *error.get_ref().unwrap().downcast_ref().unwrap()
}

#[test]
fn records_without_data_are_not_taken_for_ever() {
    let update: (u8, &[u8]) = (HANDSHAKE, &KEY_UPDATE);
    for (kind, content) in [update, (ALERT, &[1, 90])] {
        let [(_, mut sealer), (mut opener, _)] = ends();
        let mut say = |kind, content: &[u8]| {
            let mut record = sealed(&mut sealer, kind, content);
            if kind == HANDSHAKE {
                let next = sealer.shared.lock().keys.next_to_seal().unwrap();
                sealer.cipher = Cipher::new(next).unwrap();
            }
            opener.open(&mut record, 0)
        };
        for _ in 0..2 {
            for _ in 0..DATALESS_RECORDS_MAX {
                say(kind, content).unwrap();
            }
            say(DATA, b"data").unwrap();
        }
        for _ in 0..DATALESS_RECORDS_MAX {
            say(kind, content).unwrap();
        }
        assert_eq!(error_of(say(kind, content)), RecordError::Unexpected);
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
    let mut record = Vec::new();
    server.close(&mut record).unwrap();
    client.open(&mut record, 0).unwrap().unwrap();
    assert!(client.peer_closed);
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
    sealer.limit_to(3);
    let plaintext = vec![9; 20 * CONTENT_BYTES_MAX];
    let mut room = Vec::new();
    sealer.seal(&plaintext, &mut room).unwrap();
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
