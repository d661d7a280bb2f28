use pinhole_net::ServerAddress;

use super::*;

const END: u64 = 1_800_000_000;
const KEY: &str = "aeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaq";

fn alice() -> PeerIdentity {
    PeerIdentity {
        name: "alice".parse().unwrap(),
        key: PeerKey::from_bytes([1; 32]),
    }
}

fn fingerprint() -> String {
    PeerKey::from_bytes([2; 32]).fingerprint().to_string()
}

fn server(place: &str) -> ServerAddress {
    format!("{place}#{}", fingerprint()).parse().unwrap()
}

fn pass() -> Pass {
    Pass {
        secret: Secret::from_bytes([3; 16]),
        ends_at_s: END,
    }
}

fn link(place: &str) -> InvitationLink {
    InvitationLink::at_server(alice(), server(place), pass()).unwrap()
}

fn parsed(text: &str) -> Result<InvitationLink, LinkError> {
    text.parse()
}

/// The test vectors of PROTOCOL.md.
#[test]
fn links_are_as_the_protocol_says() {
    assert_eq!(KEY, PeerKey::from_bytes([1; 32]).to_string());
    let nearby = InvitationLink::nearby(alice());
    assert_eq!(nearby.to_string(), format!("pinhole://join/alice.{KEY}/1"));
    let expected = format!(
        "pinhole://join/example.org:4747%23{}/alice.{KEY}/1.1800000000.ambqgaydambqgaydambqgaydam",
        fingerprint()
    );
    assert_eq!(link("example.org:4747").to_string(), expected);
}

#[test]
fn what_is_written_is_read() {
    for place in [
        "example.org",
        "example.org:4747",
        "10.0.0.1:1",
        "[2001:db8::1]:4747",
        "a.example.org:1,b.example.org:2,[::1]",
        "x_y.example.org",
    ] {
        let link = link(place);
        for written in [
            link.to_string(),
            link.to_string().to_uppercase(),
            link.to_string().replace("%23", "#"),
            link.for_qr_code(),
        ] {
            assert_eq!(parsed(&written).as_ref(), Ok(&link), "{written}");
        }
        assert_eq!(link.server(), Some(&server(place)));
        assert_eq!(link.pass(), Some(pass()));
        assert_eq!(link.ends_at_s(), Some(END));
    }
    let dotted = PeerIdentity {
        name: "a.b_c-d.e".parse().unwrap(),
        ..alice()
    };
    let nearby = InvitationLink::nearby(dotted);
    assert_eq!(parsed(&nearby.to_string()), Ok(nearby.clone()));
    assert_eq!(parsed(&nearby.for_qr_code()), Ok(nearby.clone()));
    assert!(nearby.server().is_none() && nearby.pass().is_none());
    let open = format!(
        "pinhole://join/example.org%23{}/alice.{KEY}/1",
        fingerprint()
    );
    let open = parsed(&open).unwrap();
    assert!(open.server().is_some() && open.pass().is_none());
}

#[test]
fn a_qr_code_needs_only_the_cheap_characters() {
    let cheap =
        |it: char| it.is_ascii_digit() || it.is_ascii_uppercase() || " $%*+-./:".contains(it);
    let text = link("a_b.example.org:1").for_qr_code();
    assert!(text.chars().all(cheap), "{text}");
}

#[test]
fn a_shell_takes_a_link_as_one_word() {
    let text = link("a.example.org:1,[::1]:2").to_string();
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "-._~:,/%".contains(it);
    assert!(text.chars().all(is_plain), "{text}");
}

#[test]
fn a_secret_is_never_logged() {
    let text = format!("{:?}", link("example.org"));
    assert!(!text.contains(&pass().secret.to_string()), "{text}");
}

#[test]
fn a_link_is_never_too_long() {
    let places = ["a-rather-long-name-of-a-host.in.some.domain.example.org:4747"; 8];
    let long = InvitationLink::at_server(alice(), server(&places.join(",")), pass());
    assert_eq!(long, Err(LinkError::Length));
    let bare: ServerAddress = "example.org".parse().unwrap();
    let bare = InvitationLink::at_server(alice(), bare, pass());
    assert_eq!(bare, Err(LinkError::ServerKey));
}

const DAMAGED: &str = "incomplete or damaged";

fn beginning_with(rest: &str) -> String {
    format!("pinhole://join/{rest}")
}

/// Links with something around them, or with another beginning or version.
fn hostile_outside() -> Vec<(String, &'static str)> {
    let good = link("example.org:4747").to_string();
    vec![
        (String::new(), "begins with pinhole://join/"),
        ("pinhole://join".to_owned(), "begins with pinhole://join/"),
        (beginning_with(""), DAMAGED),
        (beginning_with("/"), DAMAGED),
        (beginning_with("//"), DAMAGED),
        (good.replace("pinhole:", "https:"), "begins with"),
        (good.replace("join", "send"), "begins with"),
        (good.replace("//join", "//user@join"), "a character that no"),
        (good.replace("//join", "join"), "begins with"),
        (format!("x{good}"), "begins with"),
        (format!(" {good}"), "a character that no"),
        (format!("{good}\n"), "a character that no"),
        (format!("{good}\0"), "a character that no"),
        (format!("{good}\u{202e}"), "a character that no"),
        (format!("{good}?x=1"), "a character that no"),
        (format!("{good}&x"), "a character that no"),
        (format!("{good};reboot"), "a character that no"),
        (format!("{good}/"), DAMAGED),
        (format!("{good}/alice.{KEY}"), DAMAGED),
        (format!("{good}{}", "a".repeat(512)), "longer than any"),
        (good.replace("/1.", "/2."), "newer Pinhole"),
        (
            good.replace("/1.", "/99999999999999999999."),
            "newer Pinhole",
        ),
        (good.replace("/1.", "/x."), DAMAGED),
        (good.replace("/1.", "/-1."), DAMAGED),
    ]
}

/// Links with a server that is none, or is written wrongly.
fn hostile_servers() -> Vec<(String, &'static str)> {
    let good = link("example.org:4747").to_string();
    let print = fingerprint();
    let no_server = "server in it is none";
    vec![
        (good.replace("%23", "%2"), "damaged at a %"),
        (good.replace("%23", "%zz"), "damaged at a %"),
        (good.replace("%23", "%"), "damaged at a %"),
        (good.replace("%23", "%00"), "damaged at a %"),
        (good.replace("%23", "%20"), "damaged at a %"),
        (good.replace("%23", "%ff"), "damaged at a %"),
        (good.replace("%23", "%2523"), no_server),
        (good.replace("%23", "%2f"), no_server),
        (
            good.replace(&format!("%23{print}"), ""),
            "which key its server has",
        ),
        (good.replace(&print, &print[1..]), no_server),
        (good.replace("4747", "0"), no_server),
        (good.replace("4747", "65536"), no_server),
        (good.replace("example.org", ""), no_server),
        (good.replace("example.org", "[::1"), no_server),
    ]
}

/// Links with a person, a secret or an end that is none.
fn hostile_people() -> Vec<(String, &'static str)> {
    let server = format!("example.org:4747%23{}", fingerprint());
    let of = |rest: String| beginning_with(&format!("{server}/{rest}"));
    let person = format!("alice.{KEY}");
    let weak = "a".repeat(52);
    let secret = pass().secret.to_string();
    vec![
        (of(format!("{KEY}/1")), DAMAGED),
        (of(format!("al.{KEY}/1")), "name in it is none"),
        (of(format!("al%2fice.{KEY}/1")), "name in it is none"),
        (of("alice./1".to_owned()), "key in it is none"),
        (of(format!("alice.{}/1", &KEY[1..])), "key in it is none"),
        (of(format!("alice.{}b/1", &KEY[1..])), "key in it is none"),
        (of(format!("alice.{weak}/1")), "key in it is none"),
        (of(format!("{person}/1.{END}")), DAMAGED),
        (of(format!("{person}/1.{END}.")), "secret is incomplete"),
        (
            of(format!("{person}/1.{END}.{}", &secret[1..])),
            "secret is incomplete",
        ),
        (of(format!("{person}/1.{END}.{secret}.x")), DAMAGED),
        (of(format!("{person}/1..{secret}")), "until when"),
        (of(format!("{person}/1.-1.{secret}")), "until when"),
        (of(format!("{person}/1.%2b1.{secret}")), "until when"),
        (
            of(format!("{person}/1.999999999999.{secret}")),
            "until when",
        ),
        (
            beginning_with(&format!("{person}/1.{END}.{secret}")),
            "names no server",
        ),
    ]
}

#[test]
fn hostile_links_are_refused_in_words() {
    let hostile = [hostile_outside(), hostile_servers(), hostile_people()].concat();
    assert!(hostile.len() >= 40, "{}", hostile.len());
    for (text, said) in hostile {
        match parsed(&text) {
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains(said), "{text:?}: {error}");
            }
            Ok(link) => panic!("{text:?} is {link}"),
        }
    }
}

#[test]
fn a_link_that_was_cut_is_no_other_link() {
    let good = link("example.org:4747").to_string();
    for length in 0..good.len() {
        let cut = &good[..length];
        // What is left may be an invitation without its secret, and nothing else.
        if let Ok(link) = parsed(cut) {
            assert!(link.pass().is_none() && link.inviter() == &alice(), "{cut}");
        }
    }
}
