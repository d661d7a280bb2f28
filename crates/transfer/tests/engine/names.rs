//! Hostile and awkward names: which are refused, and how the others are shown.

use pinhole_transfer::{
    SafePath,
    path::PathError::{self, Character, Device, Dots, Empty, Hidden, Part, TooLong, Trailing},
};

/// What a peer may put into an offer, and why it is refused.
const REFUSED: &[(&str, PathError)] = &[
    // Out of the folder.
    ("", Empty),
    ("/", Empty),
    ("/etc/passwd", Empty),
    ("//server/share", Empty),
    ("a//b", Empty),
    ("a/", Empty),
    (".", Dots),
    ("..", Dots),
    ("../x", Dots),
    ("a/../../x", Dots),
    ("a/..", Dots),
    ("./a", Dots),
    ("a/./b", Dots),
    ("\\", Character('\\')),
    ("..\\x", Character('\\')),
    ("a\\..\\..\\x", Character('\\')),
    ("\\\\server\\share\\x", Character('\\')),
    ("\\\\?\\C:\\x", Character('\\')),
    ("C:", Character(':')),
    ("C:\\x", Character(':')),
    ("C:/x", Character(':')),
    ("c:x", Character(':')),
    // Streams and wildcards of Windows.
    ("file.txt:stream", Character(':')),
    ("file.txt::$DATA", Character(':')),
    ("a*", Character('*')),
    ("a?", Character('?')),
    ("a<b", Character('<')),
    ("a>b", Character('>')),
    ("a|b", Character('|')),
    ("a\"b", Character('"')),
    // What ends or rewrites a line.
    ("a\0b", Character('\0')),
    ("a\nb", Character('\n')),
    ("a\rb", Character('\r')),
    ("a\tb", Character('\t')),
    ("\u{1b}[2J", Character('\u{1b}')),
    ("\u{1b}]0;title\u{7}", Character('\u{1b}')),
    ("a\u{7f}", Character('\u{7f}')),
    ("a\u{9b}31m", Character('\u{9b}')),
    ("a\u{85}b", Character('\u{85}')),
    ("a\u{2028}b", Character('\u{2028}')),
    ("a\u{2029}b", Character('\u{2029}')),
    // What reorders text.
    ("photo\u{202E}gpj.exe", Character('\u{202E}')),
    ("a\u{202A}b", Character('\u{202A}')),
    ("a\u{202B}b", Character('\u{202B}')),
    ("a\u{202C}b", Character('\u{202C}')),
    ("a\u{202D}b", Character('\u{202D}')),
    ("a\u{2066}b", Character('\u{2066}')),
    ("a\u{2067}b", Character('\u{2067}')),
    ("a\u{2069}b", Character('\u{2069}')),
    // Windows drops these, so that another file would be meant.
    ("name.", Trailing),
    ("name ", Trailing),
    ("name. .", Trailing),
    ("...", Trailing),
    (" ", Trailing),
    ("a /b", Trailing),
    ("a./b", Trailing),
    // Devices.
    ("CON", Device),
    ("con", Device),
    ("PRN", Device),
    ("AUX", Device),
    ("NUL", Device),
    ("NUL.txt", Device),
    ("nul.tar.gz", Device),
    ("NUL .txt", Device),
    ("a/Nul", Device),
    ("COM1", Device),
    ("com9.log", Device),
    ("COM0", Device),
    ("COM¹", Device),
    ("COM².txt", Device),
    ("LPT1", Device),
    ("lpt³", Device),
    ("CONIN$", Device),
    ("CONOUT$", Device),
    ("CLOCK$", Device),
    // What configures something.
    (".bashrc", Hidden),
    (".ssh/authorized_keys", Hidden),
    (".config/autostart/x.desktop", Hidden),
    // Our own temporaries.
    ("a/.b.0123456789abcdef.pinhole-part", Part),
    ("x.PINHOLE-PART", Part),
];

/// What an honest peer may well offer.
const TAKEN: &[&str] = &[
    "a",
    "a/b/c",
    "report (final) v2.pdf",
    "报告.txt",
    "写真/海.jpg",
    "تقرير.pdf",
    "דוח.docx",
    "отчёт.txt",
    "👩\u{200D}👩\u{200D}👧 🎉.png",
    "e\u{301}.txt",
    "a/.git/config",
    "a/.hidden",
    "..a",
    "a..b",
    " leading",
    "-rf",
    "~",
    "$HOME",
    "`id`",
    "a;b&c",
    "100%",
    "#1",
    "CONSOLE",
    "COM10",
    "COM",
    "null",
    "NULL.txt",
    "auxiliary",
    "lpt",
    "[brackets]{braces}",
    "it's",
    "=1+1.csv",
    "@echo",
    "desktop.ini",
    "PROGRA~1",
    "%2e%2e%2fx",
    "a\u{200E}b",
];

#[test]
fn hostile_names_are_refused_on_every_system() {
    for (path, error) in REFUSED {
        // The table of hidden names is about the first name only.
        assert_eq!(SafePath::parse(path).unwrap_err(), *error, "{path:?}");
        if *error != Hidden && !path.is_empty() {
            let below = SafePath::parse(&format!("folder/{path}")).unwrap_err();
            assert_eq!(below, *error, "below a folder: {path:?}");
        }
        let json = serde_json::to_string(path).unwrap();
        assert!(
            serde_json::from_str::<SafePath>(&json).is_err(),
            "from the wire: {path:?}"
        );
    }
}

#[test]
fn honest_names_are_taken_as_they_are() {
    for path in TAKEN.iter().filter(|path| !path.starts_with("..")) {
        assert_eq!(SafePath::parse(path).unwrap().as_str(), *path);
    }
    for path in TAKEN {
        let below = format!("folder/{path}");
        assert_eq!(SafePath::parse(&below).unwrap().as_str(), below);
    }
}

#[test]
fn lengths_are_limited() {
    let name = |bytes| "n".repeat(bytes);
    assert!(SafePath::parse(&name(255)).is_ok());
    assert_eq!(SafePath::parse(&name(256)), Err(TooLong));
    assert_eq!(SafePath::parse(&"报".repeat(86)), Err(TooLong));
    assert!(SafePath::parse(&vec!["d"; 256].join("/")).is_ok());
    assert_eq!(SafePath::parse(&vec!["d"; 257].join("/")), Err(TooLong));
    assert!(SafePath::parse(&vec![name(255); 16].join("/")).is_ok());
    assert_eq!(
        SafePath::parse(&vec![name(255); 17].join("/")),
        Err(TooLong)
    );
}

#[test]
fn what_is_allowed_but_misleading_is_shown_for_what_it_is() {
    for (path, shown) in [
        ("a\u{200E}b.txt", "a\\u{200e}b.txt"),
        ("a\u{200B}b.txt", "a\\u{200b}b.txt"),
        ("a\u{FEFF}b.txt", "a\\u{feff}b.txt"),
        ("a\u{AD}b.txt", "a\\u{ad}b.txt"),
        ("folder/报告.txt", "folder/报告.txt"),
        ("👩\u{200D}👧.png", "👩\u{200D}👧.png"),
    ] {
        assert_eq!(SafePath::parse(path).unwrap().display_text(), shown);
    }
}
