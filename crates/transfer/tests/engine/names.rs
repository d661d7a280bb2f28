//! Hostile and awkward names: which are refused from the wire, what an honest
//! sender makes of them, what then stands on the disk, and how all of them are
//! shown. The rules are those of every system at once.

use pinhole_transfer::SafePath;
use pinhole_transfer::display::display_text;
use pinhole_transfer::path::PathError;
use pinhole_transfer::path::PathError::{
    Character, Device, Dots, Empty, Hidden, Part, TooLong, Trailing,
};

/// What becomes of a name.
struct Row {
    name: &'static str,
    /// Why it is refused when a peer offers it.
    refused: Option<PathError>,
    /// What it is on the receiver's disk when a file of this name is sent;
    /// `None` when there is no such file, or it is not sent.
    on_disk: Option<&'static str>,
    shown: Option<&'static str>,
}

/// Refused, and nothing that a file could be called, or would be sent as.
const fn path(name: &'static str, why: PathError) -> Row {
    Row {
        name,
        refused: Some(why),
        on_disk: None,
        shown: None,
    }
}

/// Refused, so that an honest sender changes it.
const fn changed(
    name: &'static str,
    why: PathError,
    on_disk: &'static str,
    shown: &'static str,
) -> Row {
    Row {
        name,
        refused: Some(why),
        on_disk: Some(on_disk),
        shown: Some(shown),
    }
}

/// Taken as it is, but not shown so.
const fn taken(name: &'static str, shown: &'static str) -> Row {
    Row {
        name,
        refused: None,
        on_disk: Some(name),
        shown: Some(shown),
    }
}

/// Taken and shown as it is.
const fn plain(name: &'static str) -> Row {
    taken(name, name)
}

/// In a folder: at the top level less is allowed.
const ROWS: &[Row] = &[
    // Out of the folder.
    path("", Empty),
    path("/", Empty),
    path("/etc/passwd", Empty),
    path("//server/share", Empty),
    path("a//b", Empty),
    path("a/", Empty),
    path(".", Dots),
    path("..", Dots),
    path("../x", Dots),
    path("a/../../x", Dots),
    path("a/..", Dots),
    path("./a", Dots),
    path("a/./b", Dots),
    path("C:/x", Character(':')),
    path("a\\../x", Character('\\')),
    path("a /b", Trailing),
    path("a./b", Trailing),
    path("... /x", Trailing),
    path("a/Nul", Device),
    path("con/x", Device),
    path("a/x.pinhole-part", Part),
    path("a\0/b", Character('\0')),
    // Separators and drives of Windows.
    changed("\\", Character('\\'), "_", "\\"),
    changed("..\\x", Character('\\'), ".._x", "..\\x"),
    changed("a\\..\\..\\x", Character('\\'), "a_.._.._x", "a\\..\\..\\x"),
    changed(
        "\\\\server\\share\\x",
        Character('\\'),
        "__server_share_x",
        "\\\\server\\share\\x",
    ),
    changed("\\\\?\\C:\\x", Character('\\'), "____C__x", "\\\\?\\C:\\x"),
    changed(
        "\\\\.\\PhysicalDrive0",
        Character('\\'),
        "__._PhysicalDrive0",
        "\\\\.\\PhysicalDrive0",
    ),
    changed(
        "%SystemRoot%\\win.ini",
        Character('\\'),
        "%SystemRoot%_win.ini",
        "%SystemRoot%\\win.ini",
    ),
    changed("C:", Character(':'), "C_", "C:"),
    changed("C:\\x", Character(':'), "C__x", "C:\\x"),
    changed("c:x", Character(':'), "c_x", "c:x"),
    // Streams and wildcards of Windows.
    changed(
        "file.txt:stream",
        Character(':'),
        "file.txt_stream",
        "file.txt:stream",
    ),
    changed(
        "file.txt::$DATA",
        Character(':'),
        "file.txt__$DATA",
        "file.txt::$DATA",
    ),
    changed(
        "x:Zone.Identifier",
        Character(':'),
        "x_Zone.Identifier",
        "x:Zone.Identifier",
    ),
    changed("a*", Character('*'), "a_", "a*"),
    changed("a?", Character('?'), "a_", "a?"),
    changed("a<b", Character('<'), "a_b", "a<b"),
    changed("a>b", Character('>'), "a_b", "a>b"),
    changed("a|b", Character('|'), "a_b", "a|b"),
    changed("a\"b", Character('"'), "a_b", "a\"b"),
    // What ends or rewrites a line, or moves the cursor.
    path("a\0b", Character('\0')),
    changed("a\nb", Character('\n'), "a_b", "a\\u{a}b"),
    changed("a\rb", Character('\r'), "a_b", "a\\u{d}b"),
    changed("a\tb", Character('\t'), "a_b", "a\\u{9}b"),
    changed("\u{1b}[2J", Character('\u{1b}'), "_[2J", "\\u{1b}[2J"),
    changed(
        "\u{1b}]0;title\u{7}",
        Character('\u{1b}'),
        "_]0;title_",
        "\\u{1b}]0;title\\u{7}",
    ),
    changed(
        "\u{1b}]8;;http:x\u{1b}",
        Character('\u{1b}'),
        "_]8;;http_x_",
        "\\u{1b}]8;;http:x\\u{1b}",
    ),
    changed(
        "\u{1b}P+q544e\u{1b}",
        Character('\u{1b}'),
        "_P+q544e_",
        "\\u{1b}P+q544e\\u{1b}",
    ),
    changed("a\u{8}b", Character('\u{8}'), "a_b", "a\\u{8}b"),
    changed("a\u{c}b", Character('\u{c}'), "a_b", "a\\u{c}b"),
    changed("a\u{7f}", Character('\u{7f}'), "a_", "a\\u{7f}"),
    changed("a\u{9b}31m", Character('\u{9b}'), "a_31m", "a\\u{9b}31m"),
    changed("a\u{90}b", Character('\u{90}'), "a_b", "a\\u{90}b"),
    changed("a\u{85}b", Character('\u{85}'), "a_b", "a\\u{85}b"),
    changed("a\u{2028}b", Character('\u{2028}'), "a_b", "a\\u{2028}b"),
    changed("a\u{2029}b", Character('\u{2029}'), "a_b", "a\\u{2029}b"),
    // What reorders text.
    changed(
        "photo\u{202e}gpj.exe",
        Character('\u{202e}'),
        "photo_gpj.exe",
        "photo\\u{202e}gpj.exe",
    ),
    changed("a\u{202a}b", Character('\u{202a}'), "a_b", "a\\u{202a}b"),
    changed("a\u{202b}b", Character('\u{202b}'), "a_b", "a\\u{202b}b"),
    changed("a\u{202c}b", Character('\u{202c}'), "a_b", "a\\u{202c}b"),
    changed("a\u{202d}b", Character('\u{202d}'), "a_b", "a\\u{202d}b"),
    changed("a\u{2066}b", Character('\u{2066}'), "a_b", "a\\u{2066}b"),
    changed("a\u{2067}b", Character('\u{2067}'), "a_b", "a\\u{2067}b"),
    changed("a\u{2068}b", Character('\u{2068}'), "a_b", "a\\u{2068}b"),
    changed("a\u{2069}b", Character('\u{2069}'), "a_b", "a\\u{2069}b"),
    // Windows drops these, so that another file would be meant.
    changed("name.", Trailing, "name._", "name."),
    changed("name ", Trailing, "name _", "name "),
    changed("name. .", Trailing, "name. ._", "name. ."),
    changed("...", Trailing, "..._", "..."),
    changed(" ", Trailing, " _", " "),
    changed("name.txt...", Trailing, "name.txt..._", "name.txt..."),
    changed("setup.exe ", Trailing, "setup.exe _", "setup.exe "),
    // Devices of Windows, in every case and with every extension.
    changed("CON", Device, "_CON", "CON"),
    changed("con", Device, "_con", "con"),
    changed("PRN", Device, "_PRN", "PRN"),
    changed("AUX", Device, "_AUX", "AUX"),
    changed("aux.h", Device, "_aux.h", "aux.h"),
    changed("NUL", Device, "_NUL", "NUL"),
    changed("NUL.txt", Device, "_NUL.txt", "NUL.txt"),
    changed("nul.tar.gz", Device, "_nul.tar.gz", "nul.tar.gz"),
    changed("NUL .txt", Device, "_NUL .txt", "NUL .txt"),
    changed("Nul.", Trailing, "_Nul._", "Nul."),
    changed("COM1", Device, "_COM1", "COM1"),
    changed("com9.log", Device, "_com9.log", "com9.log"),
    changed("COM0", Device, "_COM0", "COM0"),
    changed("COM¹", Device, "_COM¹", "COM¹"),
    changed("COM².txt", Device, "_COM².txt", "COM².txt"),
    changed("com³", Device, "_com³", "com³"),
    changed("LPT1", Device, "_LPT1", "LPT1"),
    changed("lpt³", Device, "_lpt³", "lpt³"),
    changed("LPT9.x", Device, "_LPT9.x", "LPT9.x"),
    changed("CONIN$", Device, "_CONIN$", "CONIN$"),
    changed("conout$.txt", Device, "_conout$.txt", "conout$.txt"),
    changed("CLOCK$", Device, "_CLOCK$", "CLOCK$"),
    // Our own temporaries, which a sender leaves out.
    path("x.pinhole-part", Part),
    path("x.PINHOLE-PART", Part),
    path(".b.0123456789abcdef.pinhole-part", Part),
    path(".pinhole-part", Part),
    // Names that look dangerous and are only names.
    plain("-rf"),
    plain("--help"),
    plain("~"),
    plain("~root"),
    plain("$HOME"),
    plain("${IFS}"),
    plain("`id`"),
    plain("$(id)"),
    plain("a;b&c"),
    plain("a && b"),
    plain("100%"),
    plain("%n%s"),
    plain("%2e%2e%2fx"),
    plain("..%c0%afx"),
    plain("#1"),
    plain("!x"),
    plain("@echo"),
    plain("=1+1.csv"),
    plain("+x"),
    plain("'; DROP TABLE x"),
    plain("it's"),
    plain("[a]{b}"),
    plain("PROGRA~1"),
    plain("desktop.ini"),
    plain("autorun.inf"),
    plain("Thumbs.db"),
    plain("x.lnk"),
    plain("x.url"),
    plain("..a"),
    plain("a..b"),
    plain("....a"),
    plain(" leading"),
    plain(".git"),
    plain(".htaccess"),
    plain(".ssh"),
    plain("._fork"),
    plain("script"),
    plain("&lt;b&gt;"),
    plain("a∕b"),
    plain("a／b"),
    plain("a＼b"),
    plain("a․․"),
    // Nearly devices.
    plain("CONSOLE"),
    plain("COM10"),
    plain("COM"),
    plain("COM⁴"),
    plain("null"),
    plain("NULL.txt"),
    plain("auxiliary"),
    plain("lpt"),
    plain("_NUL"),
    plain("NUL_"),
    plain("CLOCK"),
    plain("LPT１"),
    // People write so.
    plain("report (final) v2.pdf"),
    plain("报告.txt"),
    plain("写真"),
    plain("تقرير.pdf"),
    plain("דוח.docx"),
    plain("отчёт.txt"),
    plain("한글.hwp"),
    plain("ไทย.txt"),
    plain("हिन्दी.txt"),
    plain("e\u{301}.txt"),
    plain("é.txt"),
    plain("İ"),
    plain("ß"),
    plain("ﬁ"),
    plain("👩\u{200d}👩\u{200d}👧 🎉.png"),
    plain("क्\u{200d}ष"),
    plain("می\u{200c}خواهم"),
    plain("☺\u{fe0f}"),
    // What is allowed and misleads is written out.
    taken("a\u{200e}b.txt", "a\\u{200e}b.txt"),
    taken("a\u{200f}b", "a\\u{200f}b"),
    taken("a\u{61c}b", "a\\u{61c}b"),
    taken("a\u{200b}b.txt", "a\\u{200b}b.txt"),
    taken("pay\u{200c}pal", "pay\\u{200c}pal"),
    taken("a\u{200d}b", "a\\u{200d}b"),
    taken("a\u{2060}b", "a\\u{2060}b"),
    taken("\u{feff}a.txt", "\\u{feff}a.txt"),
    taken("a\u{ad}b.txt", "a\\u{ad}b.txt"),
    taken("a\u{34f}b", "a\\u{34f}b"),
    taken("a\u{115f}b", "a\\u{115f}b"),
    taken("a\u{180e}b", "a\\u{180e}b"),
    taken("a\u{206a}b", "a\\u{206a}b"),
    taken("\u{3164}", "\\u{3164}"),
    taken("a\u{ffa0}", "a\\u{ffa0}"),
    taken("a\u{fff9}b", "a\\u{fff9}b"),
    taken("؀1", "\\u{600}1"),
    taken("\u{890}1", "\\u{890}1"),
    taken("\u{110bd}a", "\\u{110bd}a"),
    taken("\u{13430}", "\\u{13430}"),
    taken("a\u{1d173}", "a\\u{1d173}"),
    taken("a\u{e0041}b", "a\\u{e0041}b"),
    taken("葛\u{e0100}", "葛\\u{e0100}"),
    // Broad gaps do not hide an extension, for the ends stay in sight.
    plain("invoice.pdf\u{2003}\u{2003}\u{2003}.exe"),
    plain("invoice.pdf\u{3000}\u{3000}.exe"),
    plain("invoice.pdf\u{2800}\u{2800}.scr"),
];

/// What would configure something where the user receives into.
const HIDDEN: &[(&str, &str)] = &[
    (".bashrc", "_bashrc"),
    (".ssh", "_ssh"),
    (".DS_Store", "_DS_Store"),
    ("..a", "_.a"),
    // A file system of Apple's ignores what stands before the dot.
    ("\u{200c}.profile", "\u{200c}_profile"),
    ("\u{feff}.profile", "\u{feff}_profile"),
];

#[test]
fn hostile_names_are_refused_on_every_system() {
    for Row { name, refused, .. } in ROWS {
        let below = format!("folder/{name}");
        let json = serde_json::to_string(&below).unwrap();
        let from_wire: Result<SafePath, _> = serde_json::from_str(&json);
        match refused {
            Some(why) => {
                let at_top = SafePath::parse(name).unwrap_err();
                assert_eq!(at_top, *why, "{name:?}");
                assert_eq!(from_wire.unwrap_err().to_string(), why.to_string());
                let below = SafePath::parse(&below);
                assert_eq!(below, Err(*why), "below a folder: {name:?}");
            }
            None => assert_eq!(from_wire.unwrap().as_str(), below),
        }
    }
}

#[test]
fn names_are_shown_for_what_they_are() {
    for Row { name, shown, .. } in ROWS {
        if let Some(shown) = shown {
            assert_eq!(display_text(name), *shown, "{name:?}");
        }
    }
}

/// On a disk that takes all of these names.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_an_honest_sender_has_gets_a_name_that_every_system_takes() {
    use crate::support::{names, pair, transfer};
    use std::fs;

    let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let top = from.path().join("top");
    for (number, row) in ROWS.iter().enumerate() {
        let folder = top.join(number.to_string());
        fs::create_dir_all(&folder).unwrap();
        // A path of several names, or none at all, is no file's name.
        if row.on_disk.is_some() || row.refused == Some(Part) && !row.name.contains('/') {
            fs::write(folder.join(row.name), row.name).unwrap();
        }
    }
    for (name, _) in HIDDEN {
        fs::write(from.path().join(name), name).unwrap();
    }
    let (mut alice, mut bob) = pair();
    let mut paths: Vec<_> = HIDDEN
        .iter()
        .map(|(name, _)| from.path().join(name))
        .collect();
    paths.push(top);
    transfer(&mut alice, &mut bob, &paths, into.path()).await;
    for (number, row) in ROWS.iter().enumerate() {
        let folder = into.path().join("top").join(number.to_string());
        let there: Vec<_> = row.on_disk.into_iter().collect();
        assert_eq!(names(&folder), there, "{:?}", row.name);
        for name in there {
            let content = fs::read_to_string(folder.join(name)).unwrap();
            assert_eq!(content, row.name);
            assert!(SafePath::parse(&format!("folder/{name}")).is_ok());
        }
    }
    for (name, on_disk) in HIDDEN {
        assert_eq!(SafePath::parse(name), Err(Hidden), "{name:?}");
        let content = fs::read_to_string(into.path().join(on_disk));
        assert_eq!(content.unwrap(), *name);
    }
    let all = names(into.path()).into_iter();
    let at_top = all.filter(|path| !path.contains('/')).count();
    assert_eq!(at_top, HIDDEN.len() + 1);
}

/// Names that some file system takes for one arrive as two.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn names_that_collide_elsewhere_arrive_apart() {
    use crate::support::{names, pair, transfer};
    use std::fs;

    const PAIRS: &[(&str, &str, &str)] = &[
        ("A", "a", "a (1)"),
        ("FILE.TXT", "file.txt", "file (1).txt"),
        ("e\u{301}", "é", "é (1)"),
        ("SS", "ß", "ß (1)"),
        ("fi", "ﬁ", "ﬁ (1)"),
        ("K", "\u{212a}", "\u{212a} (1)"),
        ("s", "ſ", "ſ (1)"),
        ("ΣΑΣ", "σας", "σας (1)"),
        ("Å", "\u{212b}", "\u{212b} (1)"),
        ("a?", "a_", "a_ (1)"),
        ("NUL", "_NUL", "_NUL (1)"),
        ("x.", "x._", "x (1)._"),
    ];
    let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let top = from.path().join("top");
    for (number, (one, other, _)) in PAIRS.iter().enumerate() {
        let folder = top.join(number.to_string());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(one), "one").unwrap();
        fs::write(folder.join(other), "other").unwrap();
    }
    let (mut alice, mut bob) = pair();
    transfer(&mut alice, &mut bob, &[top], into.path()).await;
    for (number, (one, other, second)) in PAIRS.iter().enumerate() {
        let folder = into.path().join("top").join(number.to_string());
        let there = names(&folder);
        assert_eq!(there.len(), 2, "{one:?} {other:?}: {there:?}");
        assert!(there.iter().any(|name| name == second), "{there:?}");
    }
}

#[test]
fn what_is_no_text_is_no_name() {
    for json in [
        &br#""\ud800""#[..],
        br#""a\udc00b""#,
        b"\"a\xffb\"",
        b"\"a\xc0\xafb\"",
        b"\"a\xed\xa0\x80\"",
        b"\"a\nb\"",
        b"[\"a\"]",
        b"null",
        b"1",
    ] {
        let path: Result<SafePath, _> = serde_json::from_slice(json);
        assert!(path.is_err(), "{}", String::from_utf8_lossy(json));
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
