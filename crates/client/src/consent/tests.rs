use pinhole_transfer::manifest::ManifestBuilder;

use super::*;

const STANDINGS: [Standing; 6] = [
    Standing::Blocked,
    Standing::Revoked,
    Standing::Changed,
    Standing::Stranger,
    Standing::Chosen,
    Standing::Contact,
];

fn policy(accept: AcceptPolicy, strangers: Strangers, path: PathPolicy) -> Policy {
    Policy::of(&Settings {
        accept,
        strangers,
        path,
        unasked_bytes_max: Some(100),
        ..Settings::default()
    })
}

fn accepting(accept: AcceptPolicy) -> Policy {
    policy(accept, Strangers::Relay, PathPolicy::Auto)
}

#[test]
fn files_are_taken_unasked_only_with_a_standing_yes() {
    use Answer::{Ask, Refuse, Take};
    let table = [
        (AcceptPolicy::Ask, 1, [Refuse, Refuse, Ask, Ask, Ask, Ask]),
        (
            AcceptPolicy::Contacts,
            1,
            [Refuse, Refuse, Ask, Ask, Ask, Take],
        ),
        (
            AcceptPolicy::All,
            1,
            [Refuse, Refuse, Ask, Take, Take, Take],
        ),
        (
            AcceptPolicy::All,
            100,
            [Refuse, Refuse, Ask, Take, Take, Take],
        ),
        (AcceptPolicy::All, 101, [Refuse, Refuse, Ask, Ask, Ask, Ask]),
        (
            AcceptPolicy::Contacts,
            101,
            [Refuse, Refuse, Ask, Ask, Ask, Ask],
        ),
    ];
    for (accept, bytes, expected) in table {
        let answers = STANDINGS.map(|standing| accepting(accept).offer(standing, Some(bytes)));
        assert_eq!(answers, expected, "{accept:?} {bytes}");
    }
}

#[test]
fn what_nobody_knows_the_size_of_is_not_within_a_limit() {
    use Answer::{Ask, Refuse, Take};
    let of_stream = |policy: Policy| STANDINGS.map(|standing| policy.offer(standing, None));
    let limited = accepting(AcceptPolicy::All);
    assert_eq!(of_stream(limited), [Refuse, Refuse, Ask, Ask, Ask, Ask]);
    let unlimited = Policy {
        unasked_bytes_max: None,
        ..limited
    };
    assert_eq!(
        of_stream(unlimited),
        [Refuse, Refuse, Ask, Take, Take, Take]
    );
}

#[test]
fn words_of_strangers_are_a_question() {
    use Answer::{Ask, Refuse, Take};
    let table = [
        (AcceptPolicy::Ask, [Refuse, Refuse, Ask, Ask, Take, Take]),
        (
            AcceptPolicy::Contacts,
            [Refuse, Refuse, Ask, Ask, Take, Take],
        ),
        (AcceptPolicy::All, [Refuse, Refuse, Ask, Take, Take, Take]),
    ];
    for (accept, expected) in table {
        let answers = STANDINGS.map(|standing| accepting(accept).words(standing));
        assert_eq!(answers, expected, "{accept:?}");
    }
}

#[test]
fn a_stranger_learns_no_address() {
    use AcceptPolicy as A;
    use PathPolicy::{Auto, DirectOnly, RelayOnly};
    use Strangers as S;
    let ask = Invited::Refuse(RefuseReason::NeedsPermission);
    let over = Invited::Answer;
    let (any, relayed) = (over(Auto), over(RelayOnly));
    // Accepting, strangers, paths; with a relay and without.
    let table = [
        (A::Ask, S::Relay, Auto, relayed, ask),
        (A::Contacts, S::Relay, Auto, relayed, ask),
        (A::All, S::Relay, Auto, any, any),
        (A::Ask, S::Relay, DirectOnly, ask, ask),
        (A::Ask, S::Relay, RelayOnly, relayed, ask),
        (A::All, S::Relay, RelayOnly, relayed, relayed),
        (A::Ask, S::Direct, Auto, any, any),
        (A::Ask, S::Direct, RelayOnly, relayed, relayed),
        (A::Ask, S::Ask, Auto, ask, ask),
        (A::All, S::Ask, Auto, ask, ask),
        (A::All, S::Ask, RelayOnly, ask, ask),
    ];
    for (accept, strangers, path, with_relay, without) in table {
        let policy = policy(accept, strangers, path);
        let said = format!("{accept:?} {strangers:?} {path:?}");
        let stranger = |has_relay| policy.invitation(Standing::Stranger, has_relay, false);
        assert_eq!([true, false].map(stranger), [with_relay, without], "{said}");
        for has_relay in [true, false] {
            let invited = |standing, is_allowed| policy.invitation(standing, has_relay, is_allowed);
            assert_eq!(invited(Standing::Stranger, true), over(path), "{said}");
            for standing in [Standing::Chosen, Standing::Contact] {
                assert_eq!(invited(standing, false), over(path), "{said}");
            }
            for is_allowed in [true, false] {
                let refused = [Standing::Blocked, Standing::Revoked, Standing::Changed];
                let refused = refused.map(|it| invited(it, is_allowed));
                let mismatch = RefuseReason::KeyMismatch;
                let reasons = [RefuseReason::Unavailable, mismatch, mismatch];
                assert_eq!(refused, reasons.map(Invited::Refuse), "{said}");
            }
        }
    }
}

#[test]
fn only_a_user_who_has_looked_pins_a_key() {
    assert!(Yes::User.pins() && !Yes::Standing.pins());
    let changed = Acquaintance::KeyChanged { pinned: key(1) };
    let table = [
        (Acquaintance::New, Standing::Stranger, false),
        (
            Acquaintance::Known { contact: false },
            Standing::Chosen,
            true,
        ),
        (
            Acquaintance::Known { contact: true },
            Standing::Contact,
            true,
        ),
        (changed, Standing::Changed, false),
        (Acquaintance::Revoked, Standing::Revoked, false),
    ];
    for (acquaintance, standing, is_chosen) in table {
        assert_eq!(Standing::of(acquaintance, false), standing);
        assert_eq!(standing.is_chosen(), is_chosen);
        assert_eq!(Standing::of(acquaintance, true), Standing::Blocked);
    }
}

fn key(byte: u8) -> PeerKey {
    PeerKey::from_bytes([byte; 32])
}

fn offer(paths: &[&str], size_bytes: u64) -> Manifest {
    let mut builder = ManifestBuilder::default();
    for path in paths {
        let entry = format!(r#"{{"file":{{"path":"{path}","size_bytes":{size_bytes}}}}}"#);
        builder.push(serde_json::from_str(&entry).unwrap()).unwrap();
    }
    builder.build()
}

fn delivery(peer: u8, paths: &[&str], size_bytes: u64, content: &[u8]) -> Delivery {
    Delivery {
        peer: key(peer),
        listing: offer(paths, size_bytes).listing(),
        content: Digest::of_file(content),
    }
}

#[test]
fn an_offer_is_what_was_accepted_by_key_paths_and_sizes() {
    let accepted = offer(&["a", "b"], 7);
    let table = [
        (1, offer(&["a", "b"], 7), true),
        (2, offer(&["a", "b"], 7), false),
        (1, offer(&["a", "b"], 8), false),
        (1, offer(&["a", "c"], 7), false),
        (1, offer(&["a"], 7), false),
        (1, offer(&["a", "b", "c"], 7), false),
        (1, offer(&["b", "a"], 7), false),
    ];
    for (peer, offered, expected) in table {
        let is_it = is_accepted((key(1), &accepted), (key(peer), &offered));
        assert_eq!(is_it, expected, "{peer} {offered:?}");
    }
}

#[test]
fn a_delivery_is_known_by_all_of_it_and_for_a_fixed_time() {
    let begin = Instant::now();
    let said = delivery(1, &["a", "b"], 7, b"content");
    let mut deliveries = Deliveries::default();
    deliveries.add(said, begin);
    let end = begin + DELIVERY_REMEMBERED;
    let just_before = end.checked_sub(Duration::from_nanos(1)).unwrap();
    // Asking does not make it last.
    for now in [begin, just_before, just_before] {
        assert!(deliveries.has(said, now));
    }
    assert!(!deliveries.has(said, end));
    for other in [
        delivery(2, &["a", "b"], 7, b"content"),
        delivery(1, &["a", "b"], 7, b"other content"),
        delivery(1, &["a", "b"], 8, b"content"),
        delivery(1, &["a", "c"], 7, b"content"),
        delivery(1, &["a"], 7, b"content"),
        delivery(1, &["a", "b", "c"], 7, b"content"),
    ] {
        assert!(!deliveries.has(other, begin), "{other:?}");
    }
    deliveries.add(delivery(3, &["c"], 1, b"later"), end);
    assert_eq!(deliveries.0.len(), 1, "what is old is forgotten");
}

#[test]
fn one_key_s_deliveries_do_not_push_out_those_of_others() {
    let now = Instant::now();
    let mut deliveries = Deliveries::default();
    let numbered = |peer, number: u32| delivery(peer, &["a"], 1, &number.to_be_bytes());
    deliveries.add(numbered(1, 0), now);
    for number in 0..1000 {
        deliveries.add(numbered(2, number), now);
    }
    assert!(deliveries.has(numbered(1, 0), now));
    let kept = (0..1000).filter(|&number| deliveries.has(numbered(2, number), now));
    assert_eq!(Vec::from_iter(kept), Vec::from_iter(968..1000));
    for peer in 3..=255 {
        for number in 0..2 {
            deliveries.add(numbered(peer, number), now);
        }
    }
    assert_eq!(deliveries.0.len(), DELIVERIES_MAX);
}
