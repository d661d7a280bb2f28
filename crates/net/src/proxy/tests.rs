use super::*;

fn proxy(text: &str) -> Proxy {
    text.parse().unwrap()
}

#[test]
fn a_proxy_is_read_as_people_write_it_and_shown_without_its_password() {
    for (text, shown, authorization) in [
        (
            "http://proxy.example:3128",
            "http://proxy.example:3128",
            None,
        ),
        (
            "HTTP://proxy.example:3128/",
            "http://proxy.example:3128",
            None,
        ),
        ("proxy.example:3128", "http://proxy.example:3128", None),
        ("http://proxy.example", "http://proxy.example:80", None),
        (
            "http://[2001:db8::1]:8080",
            "http://[2001:db8::1]:8080",
            None,
        ),
        ("http://[2001:db8::1]", "http://[2001:db8::1]:80", None),
        // RFC 7617, section 2.
        (
            "http://Aladdin:open%20sesame@192.0.2.1:8080",
            "http://192.0.2.1:8080",
            Some("QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ),
        ("http://me@proxy:1", "http://proxy:1", Some("bWU6")),
        ("http://a:p@ss@proxy:1", "http://proxy:1", Some("YTpwQHNz")),
        (
            "http://a:%C3%A4%3a%40@proxy:1",
            "http://proxy:1",
            Some("YTrDpDpA"),
        ),
    ] {
        let proxy = proxy(text);
        assert_eq!(proxy.to_string(), shown, "{text}");
        assert_eq!(format!("{proxy:?}"), format!("Proxy({shown})"));
        let request = proxy.request("2001:db8::5", 443);
        let authorization = authorization
            .map(|a| format!("Proxy-Authorization: Basic {a}\r\n"))
            .unwrap_or_default();
        let expected = format!(
            "CONNECT [2001:db8::5]:443 HTTP/1.1\r\nHost: [2001:db8::5]:443\r\n{authorization}\r\n"
        );
        assert_eq!(request, expected, "{text}");
        assert_eq!(self::proxy(&proxy.url()), proxy, "{text}");
    }
}

#[test]
fn what_is_no_proxy_is_told() {
    use ProxyTextError::{Credentials, Place, Scheme};
    for (text, error) in [
        ("", Place),
        ("http://", Place),
        ("http://proxy:", Place),
        ("http://proxy:0", Place),
        ("http://proxy:65536", Place),
        ("http://proxy:80/path", Place),
        ("http://pro xy:80", Place),
        ("http://pro\r\nxy:80", Place),
        ("2001:db8::1:80", Place),
        ("http://[proxy]:80", Place),
        ("https://proxy:443", Scheme),
        ("socks5://proxy:1080", Scheme),
        ("http://a:%@proxy:1", Credentials),
        ("http://a:%4@proxy:1", Credentials),
        ("http://a:%zz@proxy:1", Credentials),
        ("http://a:%ff@proxy:1", Credentials),
        ("http://a%3Ab:c@proxy:1", Credentials),
        ("http://a:b%0d%0aHost: x@proxy:1", Credentials),
    ] {
        assert_eq!(text.parse::<Proxy>(), Err(error), "{text:?}");
    }
}

#[test]
fn a_choice_is_kept_as_it_is_typed() {
    for text in ["", "none", "http://proxy:3128", "http://a:b%40c@proxy:3128"] {
        let choice: ProxyChoice = text.parse().unwrap();
        assert_eq!(choice.to_text(), text);
        assert!(!format!("{choice:?}").contains("b%40c"));
        assert!(!format!("{choice:?}").contains("b@c"));
    }
}

/// The proxy of an environment with these variables.
fn found(host: &str, variables: &[(&str, &str)]) -> Option<String> {
    let value = |name: &str| {
        let mut all = variables.iter();
        all.find(|v| v.0 == name).map(|v| v.1.to_owned())
    };
    from_environment(host, value).map(|proxy| proxy.to_string())
}

#[test]
fn the_environment_names_a_proxy_as_it_does_to_curl() {
    let (a, b) = ("http://a:1", "http://b:2");
    let host = "example.org";
    for (variables, expected) in [
        (&[][..], None),
        (&[("http_proxy", a), ("HTTP_PROXY", a)], None),
        (&[("https_proxy", a)], Some(a)),
        (&[("HTTPS_PROXY", a)], Some(a)),
        (&[("all_proxy", a)], Some(a)),
        (&[("ALL_PROXY", a)], Some(a)),
        (&[("https_proxy", a), ("HTTPS_PROXY", b)], Some(a)),
        (&[("HTTPS_PROXY", a), ("all_proxy", b)], Some(a)),
        (&[("https_proxy", ""), ("HTTPS_PROXY", b)], Some(b)),
        (&[("https_proxy", "a:1")], Some(a)),
        (&[("https_proxy", "socks5://a:1")], None),
        (&[("https_proxy", a), ("no_proxy", "other.org")], Some(a)),
        (&[("https_proxy", a), ("no_proxy", "example.org")], None),
        (&[("https_proxy", a), ("NO_PROXY", "example.org")], None),
        (
            &[
                ("https_proxy", a),
                ("no_proxy", "x"),
                ("NO_PROXY", "example.org"),
            ],
            Some(a),
        ),
    ] {
        assert_eq!(found(host, variables).as_deref(), expected, "{variables:?}");
    }
    for local in ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1"] {
        assert_eq!(found(local, &[("https_proxy", a)]), None, "{local}");
    }
}

#[test]
fn no_proxy_excepts_what_it_names() {
    for (host, no_proxy, excepted) in [
        ("example.org", "*", true),
        ("192.0.2.1", "*", true),
        ("example.org", "a.net, example.org", true),
        ("example.org", "a.net example.org", true),
        ("EXAMPLE.org.", "example.ORG", true),
        ("example.org", ".example.org", true),
        ("meet.example.org", "example.org", true),
        ("meet.example.org", ".example.org", true),
        ("notexample.org", "example.org", false),
        ("example.org", "meet.example.org", false),
        ("example.org", "org", true),
        ("example.org", "", false),
        ("example.org", ".", false),
        ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.10", "192.0.2.1", false),
        ("192.0.2.1", "2.1", false),
        ("192.0.2.77", "192.0.2.0/24", true),
        ("192.0.3.77", "192.0.2.0/24", false),
        ("192.0.2.77", "0.0.0.0/0", true),
        ("192.0.2.77", "192.0.2.0/x", false),
        ("2001:db8::1", "2001:db8::1", true),
        ("2001:db8::1", "[2001:db8::1]", true),
        ("2001:db8::2", "2001:db8::/32", true),
        ("2001:db9::2", "2001:db8::/32", false),
        ("192.0.2.1", "2001:db8::/32", false),
    ] {
        assert_eq!(is_excepted(host, no_proxy), excepted, "{host} {no_proxy:?}");
    }
}

#[test]
fn each_answer_of_a_proxy_says_what_to_do() {
    const NOT_HTTP: &str = "not answer as an HTTP proxy";
    let bare = proxy("http://proxy:1");
    let known = proxy("http://me:secret@proxy:1");
    for (proxy, answer, expected) in [
        (&bare, "HTTP/1.1 200 OK", None),
        (&bare, "HTTP/1.0 200 Connection established\r\nVia: x", None),
        (&bare, "HTTP/1.1 204", None),
        (
            &bare,
            "HTTP/1.1 407 Authenticate",
            Some("give it as http://USER"),
        ),
        (
            &known,
            "HTTP/1.1 407 Authenticate",
            Some("does not accept the user"),
        ),
        (
            &known,
            "HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nproxy-authenticate: Negotiate",
            Some("another kind of authentication than a password (NTLM, Negotiate)"),
        ),
        (
            &bare,
            "HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Basic realm=\"x\"",
            Some("give it as http://USER"),
        ),
        (
            &known,
            "HTTP/1.1 407 No\r\nno header\r\nProxy-Authenticate: NTLM",
            Some("another kind of authentication than a password (NTLM)"),
        ),
        (
            &bare,
            "HTTP/1.1 403 Forbidden",
            Some("connect to port 4747; a server that listens on port 443"),
        ),
        (
            &bare,
            "HTTP/1.1 405 Not allowed",
            Some("connect to port 4747"),
        ),
        (
            &bare,
            "HTTP/1.1 502 Bad\tGateway",
            Some("server: 502 BadGateway"),
        ),
        (&bare, "HTTP/1.1 301 Moved", Some("301 Moved")),
        (&bare, "HTTP/1.1 502 Bad\x1b[31m Gateway", Some(NOT_HTTP)),
        (&bare, "HTTP/2 200 OK", Some(NOT_HTTP)),
        (&bare, "SSH-2.0-OpenSSH_9", Some(NOT_HTTP)),
        (&bare, "", Some(NOT_HTTP)),
    ] {
        let head = format!("{answer}\r\n\r\n");
        let judged = proxy
            .judge(head.as_bytes(), 4747)
            .err()
            .map(|e| e.to_string());
        match (&judged, expected) {
            (None, None) => {}
            (Some(error), Some(words)) => assert!(error.contains(words), "{answer}: {error}"),
            _ => panic!("{answer}: {judged:?}"),
        }
        assert!(!judged.unwrap_or_default().contains("secret"));
    }
}
