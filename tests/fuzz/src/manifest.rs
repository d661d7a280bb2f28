//! Names and offers: what is taken stays below the folder, is told apart by
//! every file system, and can be shown.

use std::collections::BTreeMap;

use pinhole_transfer::{
    Entry, SafePath,
    display::{DISPLAY_CHARS_MAX, display_text},
    manifest::ManifestBuilder,
};

/// One path a line; the first byte says what it is.
pub fn hold(bytes: &[u8]) {
    let mut builder = ManifestBuilder::default();
    let mut has_stream = false;
    let mut taken: BTreeMap<String, (SafePath, bool)> = BTreeMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let (kind, path) = line.split_first().unwrap_or((&0, &[]));
        let text = String::from_utf8_lossy(path);
        check_shown(&display_text(&text));
        let Ok(path) = SafePath::parse(&text) else {
            continue;
        };
        check_path(&path, &text);
        let is_folder = kind % 2 == 1;
        let (of, modified_ns) = (path.clone(), None);
        let entry = match is_folder {
            true => Entry::Folder { path, modified_ns },
            false if *kind == b'~' => Entry::Stream { path },
            false => Entry::File {
                path,
                size_bytes: u64::from(*kind) << 40,
                modified_ns,
                executable: false,
            },
        };
        let is_stream = matches!(entry, Entry::Stream { .. });
        if builder.push(entry).is_ok() {
            assert!(!has_stream, "something stands beside a stream");
            assert!(!is_stream || builder.count() == 1);
            has_stream = is_stream;
            if let Some(parent) = of.parent() {
                let same =
                    |(path, is_folder): &(SafePath, bool)| path.as_str() == parent && *is_folder;
                assert!(taken.values().any(same), "{of:?} has no folder");
            }
            let before = taken.insert(of.folded(), (of, is_folder));
            assert!(before.is_none(), "{before:?} is named twice");
        } else {
            // As in an exchange, which ends here.
            break;
        }
    }
    assert_eq!(builder.count(), taken.len());
}

fn check_path(path: &SafePath, text: &str) {
    assert_eq!(path.as_str(), text);
    assert!(!text.starts_with(['/', '.']));
    for name in path.names() {
        assert!(!matches!(name, "" | "." | ".."), "{text:?}");
        assert!(name.len() <= 255 && !name.ends_with(['.', ' ']), "{text:?}");
        let is_bad = |character: char| character.is_control() || r#"\:*?"<>|"#.contains(character);
        assert!(!name.contains(is_bad), "{text:?}");
    }
    let names: Vec<_> = path.names().collect();
    assert_eq!(names.join("/"), text);
    assert_eq!(
        (names.first(), names.last()),
        (Some(&path.top()), Some(&path.name()))
    );
}

fn check_shown(shown: &str) {
    assert!(shown.chars().count() <= DISPLAY_CHARS_MAX);
    let is_bad = |character: char| {
        character.is_control()
            || matches!(character, '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
    };
    assert!(!shown.contains(is_bad), "{shown:?}");
}
