//! Every message through the decoder: round trips in any pieces, and garbage,
//! truncation and oversize, which may only ever lead to an error.

use std::net::{IpAddr, SocketAddr};

use pinhole_proto::candidate::{Candidate, CandidateKind};
use pinhole_proto::credential::{CodeNumber, Credential};
use pinhole_proto::frame::{Decoder, FrameError, FrameKind, encode};
use pinhole_proto::key::{PeerKey, Signature};
use pinhole_proto::name::PeerName;
use pinhole_proto::node::NodePerson;
use pinhole_proto::recovery::{
    KeyHistory, LoginRecovery, RecoveryCertificate, RecoveryRequest, Revocation, SUCCESSIONS_MAX,
    Succession,
};
use pinhole_proto::rendezvous::{
    ClientMessage, Directory, HostSharing, IntroductionFailure, IntroductionId, PeerIdentity,
    ProbeToken, Reachability, Refusal, RefuseReason, RelayToken, Role, ServerMessage,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn name() -> impl Strategy<Value = PeerName> {
    let character = select(b"abcdefghijklmnopqrstuvwxyz0123456789._-".as_slice());
    vec(character, 3..=32).prop_filter_map("not a name", |bytes| {
        let text = String::from_utf8(bytes).ok()?;
        PeerName::try_from(text).ok()
    })
}

fn peer() -> impl Strategy<Value = PeerIdentity> {
    let key = any::<[u8; 32]>().prop_map(PeerKey::from_bytes);
    (name(), key).prop_map(|(name, key)| PeerIdentity { name, key })
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let kinds = select(vec![
        CandidateKind::Host,
        CandidateKind::ServerReflexive,
        CandidateKind::PortMapped,
        CandidateKind::Predicted,
    ]);
    let candidate = (kinds, address()).prop_map(|(kind, address)| Candidate { kind, address });
    vec(candidate, 0..=Candidate::MAX_PER_SIDE)
}

fn introduction() -> impl Strategy<Value = IntroductionId> {
    any::<[u8; 16]>().prop_map(IntroductionId::from_random)
}

fn token() -> impl Strategy<Value = RelayToken> {
    any::<[u8; 32]>().prop_map(RelayToken::from_random)
}

fn reachability() -> impl Strategy<Value = Reachability> {
    let sharing = select(vec![HostSharing::SameNetwork, HostSharing::Always]);
    (candidates(), sharing, any::<bool>()).prop_map(|(candidates, share_host, relay)| {
        Reachability {
            candidates,
            share_host,
            relay,
        }
    })
}

fn credential() -> impl Strategy<Value = Option<Credential>> {
    let text = "[A-Za-z0-9_-]{1,256}";
    option::of(text.prop_filter_map("not a credential", |text| text.parse().ok()))
}

fn code_number() -> impl Strategy<Value = CodeNumber> {
    let number = 1..=CodeNumber::MAX;
    number.prop_filter_map("not a number of a code", |number| number.try_into().ok())
}

fn key() -> impl Strategy<Value = PeerKey> {
    peer().prop_map(|peer| peer.key)
}

fn signature() -> impl Strategy<Value = Signature> {
    any::<[[u8; 32]; 2]>().prop_map(|halves| {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(halves.as_flattened());
        Signature::from_bytes(bytes)
    })
}

fn certificate() -> impl Strategy<Value = RecoveryCertificate> {
    let all = (key(), key(), signature());
    all.prop_map(|(key, recovery_key, signature)| RecoveryCertificate {
        key,
        recovery_key,
        signature,
    })
}

fn succession() -> impl Strategy<Value = Succession> {
    let all = (certificate(), key(), signature());
    all.prop_map(|(certificate, successor, signature)| Succession {
        certificate,
        successor,
        signature,
    })
}

fn revocation() -> impl Strategy<Value = Revocation> {
    let all = (key(), option::of(certificate()), signature());
    all.prop_map(|(key, certificate, signature)| Revocation {
        key,
        certificate,
        signature,
    })
}

fn key_history() -> impl Strategy<Value = KeyHistory> {
    let successions = vec(succession(), 0..=SUCCESSIONS_MAX);
    let all = (
        peer(),
        successions,
        option::of(revocation()),
        option::of(any::<i64>()),
    );
    all.prop_map(
        |(peer, successions, revocation, released_at_s)| KeyHistory {
            successions,
            revocation,
            released_at_s,
            ..KeyHistory::unknown(peer.name, peer.key)
        },
    )
}

fn login_with_recovery() -> impl Strategy<Value = ClientMessage> {
    let request = prop_oneof![
        key().prop_map(|recovery_key| RecoveryRequest::Find { recovery_key }),
        succession().prop_map(RecoveryRequest::Succeed),
        revocation().prop_map(RecoveryRequest::Revoke),
    ];
    let recovery = (option::of(certificate()), option::of(request));
    (name(), recovery).prop_map(|(name, (certificate, request))| ClientMessage::LogIn {
        version: 1,
        name,
        watch: Vec::new(),
        recovery: Some(Box::new(LoginRecovery {
            certificate,
            request,
        })),
    })
}

fn client_message() -> impl Strategy<Value = ClientMessage> {
    let introduce = (
        introduction(),
        any::<u8>(),
        name(),
        reachability(),
        credential(),
    );
    let answer = (introduction(), any::<u8>(), reachability());
    prop_oneof![
        (any::<u16>(), name(), vec(name(), 0..20)).prop_map(|(version, name, watch)| {
            ClientMessage::LogIn {
                version,
                name,
                watch,
                recovery: None,
            }
        }),
        login_with_recovery(),
        peer().prop_map(|PeerIdentity { name, key }| ClientMessage::KeyHistory { name, key }),
        vec(name(), 0..20).prop_map(|names| ClientMessage::Watch { names }),
        vec(name(), 0..20).prop_map(|names| ClientMessage::Unwatch { names }),
        Just(ClientMessage::Observe),
        token().prop_map(|token| ClientMessage::Relay { token }),
        any::<[u8; 16]>().prop_map(|bytes| ClientMessage::Probe {
            token: ProbeToken::from_random(bytes),
        }),
        introduce.prop_map(|(introduction, round, peer, reachability, credential)| {
            ClientMessage::Introduce {
                introduction,
                round,
                peer,
                reachability,
                credential,
            }
        }),
        answer.prop_map(
            |(introduction, round, reachability)| ClientMessage::Answer {
                introduction,
                round,
                reachability,
            }
        ),
        (introduction(), credential()).prop_map(|(introduction, credential)| {
            ClientMessage::Refuse {
                introduction,
                reason: RefuseReason::Credential,
                credential,
            }
        }),
        Just(ClientMessage::OpenCode),
        Just(ClientMessage::CloseCode),
        code_number().prop_map(|number| ClientMessage::FindCode { number }),
        any::<u64>().prop_map(|nonce| ClientMessage::Ping { nonce }),
        any::<u64>().prop_map(|nonce| ClientMessage::Pong { nonce }),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    select(vec![
        Refusal::NameTaken,
        Refusal::Replaced,
        Refusal::KeyRevoked,
        Refusal::Version,
        Refusal::Limited,
        Refusal::TooManyNames,
        Refusal::Unavailable,
        Refusal::Token,
        Refusal::RelayBytes,
        Refusal::RelayTime,
        Refusal::ShuttingDown,
        Refusal::Internal,
    ])
}

fn introduction_failure() -> impl Strategy<Value = IntroductionFailure> {
    select(vec![
        IntroductionFailure::Offline,
        IntroductionFailure::KeyMismatch,
        IntroductionFailure::TimedOut,
        IntroductionFailure::Limited,
        IntroductionFailure::Credential,
        IntroductionFailure::InvitationOver,
    ])
}

fn introduced() -> impl Strategy<Value = ServerMessage> {
    let role = select(vec![Role::Controlling, Role::Controlled]);
    let whom = (introduction(), any::<u8>(), peer(), role);
    let relay = (option::of(token()), vec(address(), 0..3));
    let how = (candidates(), relay, any::<u32>());
    (whom, how).prop_map(|(whom, how)| {
        let (introduction, round, peer, role) = whom;
        let (candidates, (relay, relay_addresses), start_in_ms) = how;
        ServerMessage::Introduced {
            introduction,
            round,
            peer,
            role,
            candidates,
            relay,
            relay_addresses,
            start_in_ms,
        }
    })
}

fn code_message() -> impl Strategy<Value = ServerMessage> {
    let found = (code_number(), option::of(peer()));
    prop_oneof![
        option::of(code_number()).prop_map(|number| ServerMessage::Code { number }),
        code_number().prop_map(|number| ServerMessage::CodeEnded { number }),
        found.prop_map(|(number, peer)| ServerMessage::CodeFound { number, peer }),
    ]
}

fn server_message() -> impl Strategy<Value = ServerMessage> {
    let logged_in = (address(), vec(any::<u16>(), 0..4));
    let directory = select(vec![Directory::Open, Directory::Closed]);
    let presence = (
        directory,
        vec(peer(), 0..20),
        vec(name(), 0..20),
        any::<bool>(),
    );
    let invitation = (introduction(), any::<u8>(), peer(), credential());
    let failed = (introduction(), introduction_failure(), credential());
    let observed = (
        address(),
        option::of(any::<IpAddr>()),
        vec(any::<u16>(), 0..4),
    );
    let probed = (option::of(any::<bool>()), option::of(any::<bool>()));
    prop_oneof![
        logged_in.prop_map(|(observed, observer_ports)| ServerMessage::LoggedIn {
            observed,
            observer_ports,
            relay: true,
            codes: true,
        }),
        refusal().prop_map(|reason| ServerMessage::Refused { reason }),
        certificate().prop_map(ServerMessage::RecoveryCertificate),
        key_history().prop_map(|history| ServerMessage::KeyHistory(Box::new(history))),
        observed.prop_map(
            |(address, other_address, observer_ports)| ServerMessage::Observed {
                address,
                other_address,
                observer_ports,
            }
        ),
        probed.prop_map(|(other_port, other_address)| ServerMessage::Probed {
            other_port,
            other_address,
        }),
        presence.prop_map(
            |(directory, online, offline, more)| ServerMessage::Presence {
                directory,
                online,
                offline,
                more,
            }
        ),
        invitation.prop_map(|(introduction, round, from, credential)| {
            ServerMessage::Invitation {
                introduction,
                round,
                from,
                credential,
            }
        }),
        introduced(),
        failed.prop_map(|(introduction, reason, credential)| {
            ServerMessage::IntroductionFailed {
                introduction,
                reason,
                credential,
            }
        }),
        code_message(),
        any::<u64>().prop_map(|nonce| ServerMessage::Ping { nonce }),
        any::<u64>().prop_map(|nonce| ServerMessage::Pong { nonce }),
        Just(ServerMessage::RelayPaired),
        peer().prop_map(|peer| ServerMessage::RelayEnded {
            peer: peer.key,
            reason: Refusal::RelayBytes,
        }),
    ]
}

/// Feeds `stream` in pieces of the given sizes, over and over, and takes all
/// messages.
fn decode_in_pieces(
    stream: &[u8],
    sizes: &[usize],
) -> Result<(Vec<ServerMessage>, Vec<u8>), FrameError> {
    let mut decoder = Decoder::new(FrameKind::Server);
    let mut messages = Vec::new();
    let mut rest = stream;
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        decoder.feed(piece);
        rest = behind;
        while let Some(message) = decoder.next_message()? {
            messages.push(message);
        }
    }
    Ok((messages, decoder.into_rest()))
}

proptest! {
    #[test]
    fn what_a_client_says_is_understood(message in client_message()) {
        let mut decoder = Decoder::new(FrameKind::Client);
        decoder.feed(&encode(FrameKind::Client, &message).unwrap());
        prop_assert_eq!(decoder.next_message().unwrap(), Some(message));
        prop_assert_eq!(decoder.next_message::<ClientMessage>().unwrap(), None);
    }

    #[test]
    fn messages_survive_any_cutting_and_leave_the_rest(
        messages in vec(server_message(), 1..6),
        sizes in vec(1..2000usize, 1..8),
        // Less than a header: what follows the last message is not looked at.
        rest in vec(any::<u8>(), 0..4),
    ) {
        let frames = messages.iter().map(|one| encode(FrameKind::Server, one).unwrap());
        let mut stream: Vec<u8> = frames.flatten().collect();
        stream.extend(&rest);
        let decoded = decode_in_pieces(&stream, &sizes).unwrap();
        prop_assert_eq!(decoded, (messages, rest));
    }

    #[test]
    fn a_truncated_message_is_waited_for(
        message in server_message(),
        cut in any::<prop::sample::Index>(),
    ) {
        let frame = encode(FrameKind::Server, &message).unwrap();
        let (begin, end) = frame.split_at(cut.index(frame.len()));
        let mut decoder = Decoder::new(FrameKind::Server);
        decoder.feed(begin);
        prop_assert_eq!(decoder.next_message::<ServerMessage>().unwrap(), None);
        decoder.feed(end);
        prop_assert_eq!(decoder.next_message().unwrap(), Some(message));
    }

    #[test]
    fn garbage_is_an_error_or_waits_for_more(garbage in vec(any::<u8>(), 0..3000)) {
        let mut decoder = Decoder::new(FrameKind::Client);
        decoder.feed(&garbage);
        let decoded = decoder.next_message::<ClientMessage>();
        prop_assert!(!matches!(decoded, Ok(Some(_))), "{:?}", decoded);
    }

    #[test]
    fn garbage_in_a_proper_frame_is_malformed(payload in vec(any::<u8>(), 0..3000)) {
        let length = u32::try_from(payload.len() + 1).unwrap();
        let mut decoder = Decoder::new(FrameKind::Client);
        decoder.feed(&length.to_be_bytes());
        decoder.feed(&[FrameKind::Client as u8]);
        decoder.feed(&payload);
        let decoded = decoder.next_message::<ClientMessage>();
        prop_assert!(matches!(decoded, Err(FrameError::Json(_))), "{:?}", decoded);
    }

    #[test]
    fn a_damaged_message_never_panics(
        message in server_message(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut frame = encode(FrameKind::Server, &message).unwrap();
        let at = at.index(frame.len());
        frame[at] = byte;
        // A digit can turn into another: only a panic would be wrong.
        let _ = decode_in_pieces(&frame, &[frame.len()]);
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_else_arrives(
        beyond in 1..=u32::MAX - 64 * 1024 - 1,
    ) {
        for (kind, limit) in [(FrameKind::Client, 16 * 1024), (FrameKind::Server, 64 * 1024)] {
            let length = limit + 1 + beyond;
            let mut decoder = Decoder::new(kind);
            decoder.feed(&length.to_be_bytes());
            let decoded = decoder.next_message::<ClientMessage>();
            let refused = matches!(
                decoded,
                Err(FrameError::Length { length_bytes }) if length_bytes == length
            );
            prop_assert!(refused, "{:?}", decoded);
        }
    }
}

#[test]
fn the_longest_frame_is_read_and_a_byte_more_is_not() {
    for kind in [FrameKind::Client, FrameKind::Server] {
        // JSON's quotes count.
        let longest = "x".repeat(kind.max_payload_bytes() - 2);
        let mut decoder = Decoder::new(kind);
        decoder.feed(&encode(kind, &longest).unwrap());
        assert_eq!(decoder.next_message().unwrap(), Some(longest.clone()));
        let refused = encode(kind, &(longest + "x"));
        assert!(matches!(refused, Err(FrameError::Length { .. })));
    }
}

#[test]
fn a_frame_without_or_of_another_kind_is_refused() {
    let decode = |bytes: &[u8]| {
        let mut decoder = Decoder::new(FrameKind::Client);
        decoder.feed(bytes);
        decoder.next_message::<ClientMessage>().unwrap_err()
    };
    let empty = decode(&[0, 0, 0, 0]);
    assert!(matches!(empty, FrameError::Length { length_bytes: 0 }));
    let unknown = decode(&[0, 0, 0, 9, 0x7f]);
    assert!(matches!(unknown, FrameError::UnknownKind(0x7f)));
    let other = decode(&[0, 0, 0, 9, 0x02]);
    assert!(matches!(
        other,
        FrameError::UnexpectedKind(FrameKind::Server)
    ));
}

#[test]
fn names_on_the_wire_are_checked() {
    for name in [
        "Bob",
        "b",
        "a/../b",
        "a b c",
        "\u{202e}bob",
        &"x".repeat(33),
    ] {
        let json = serde_json::json!({ "type": "log_in", "version": 1, "name": name });
        let mut decoder = Decoder::new(FrameKind::Client);
        decoder.feed(&encode(FrameKind::Client, &json).unwrap());
        let decoded = decoder.next_message::<ClientMessage>();
        assert!(matches!(decoded, Err(FrameError::Json(_))), "{name}");
    }
}

/// What a server reads of this JSON.
fn read_by_server(json: &serde_json::Value) -> Option<ClientMessage> {
    let mut decoder = Decoder::new(FrameKind::Client);
    decoder.feed(&encode(FrameKind::Client, json).ok()?);
    decoder.next_message().ok()?
}

#[test]
fn credentials_and_numbers_on_the_wire_are_checked() {
    let introduction = "a".repeat(26);
    let refuse = |credential: serde_json::Value| {
        serde_json::json!({
            "type": "refuse",
            "introduction": introduction,
            "reason": "credential",
            "credential": credential,
        })
    };
    for (credential, is_right) in [
        ("a".into(), true),
        ("x".repeat(256).into(), true),
        (serde_json::Value::Null, true),
        ("x".repeat(257).into(), false),
        ("".into(), false),
        ("YQ==".into(), false),
        ("a+b".into(), false),
        ("a b".into(), false),
        ("\u{202e}".into(), false),
        (7.into(), false),
        (vec!["a"].into(), false),
    ] {
        let read = read_by_server(&refuse(credential.clone()));
        assert_eq!(read.is_some(), is_right, "{credential}");
    }
    for (number, is_right) in [
        (serde_json::json!(1), true),
        (999.into(), true),
        (0.into(), false),
        (1_000.into(), false),
        ((-1).into(), false),
        (7.5.into(), false),
        ("7".into(), false),
        (serde_json::Value::Null, false),
    ] {
        let find = serde_json::json!({"type": "find_code", "number": number});
        let read = read_by_server(&find);
        assert_eq!(read.is_some(), is_right, "{number}");
    }
    // A message that has none is read without it, however it looks.
    let answered = serde_json::json!({
        "type": "pong",
        "nonce": 7,
        "credential": "x".repeat(1000),
    });
    assert_eq!(
        read_by_server(&answered),
        Some(ClientMessage::Pong { nonce: 7 })
    );
}

/// Versions without credentials and codes read what is said without them, and are read.
#[test]
fn without_credentials_and_codes_messages_are_as_they_were() {
    let key = PeerKey::from_bytes([7; 32]);
    let from = serde_json::json!({"name": "bob", "key": key});
    let introduction = "a".repeat(26);
    let reachability = serde_json::json!({
        "candidates": [],
        "share_host": "always",
        "relay": true,
    });
    let client = [
        serde_json::json!({
            "type": "introduce",
            "introduction": introduction,
            "round": 1,
            "peer": "bob",
            "reachability": reachability,
        }),
        serde_json::json!({
            "type": "refuse",
            "introduction": introduction,
            "reason": "busy",
        }),
    ];
    for json in client {
        let read: ClientMessage = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), json);
    }
    let server = [
        serde_json::json!({
            "type": "invitation",
            "introduction": introduction,
            "round": 1,
            "from": from,
        }),
        serde_json::json!({
            "type": "introduction_failed",
            "introduction": introduction,
            "reason": "offline",
        }),
    ];
    for json in server {
        let read: ServerMessage = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), json);
    }
    let person = serde_json::json!({"name": "bob", "key": key, "login": 7});
    let read: NodePerson = serde_json::from_value(person.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), person);
    let logged_in = serde_json::json!({
        "type": "logged_in",
        "observed": "198.51.100.1:5000",
        "observer_ports": [4747],
        "relay": true,
    });
    let read: ServerMessage = serde_json::from_value(logged_in).unwrap();
    let ServerMessage::LoggedIn { codes, .. } = read else {
        panic!("{read:?}");
    };
    assert!(!codes, "an older server knows no codes");
}
