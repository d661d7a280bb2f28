//! Files in the clipboard: what a file manager's "Copy" leaves there as text.

use std::path::{Path, PathBuf};

/// More pasted lines than this are not a list of files that somebody copied.
const MOST_LINES: usize = 10_000;

/// The files named by pasted text: one absolute path or `file:` URI (RFC 8089)
/// a line, as in `text/uri-list` (RFC 2483). Empty when the text is anything else.
pub(crate) fn paths(text: &str) -> Vec<PathBuf> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    // GNOME's file manager puts what is to be done before the files.
    let lines = lines.filter(|line| !matches!(*line, "copy" | "x-special/nautilus-clipboard"));
    lines
        .take(MOST_LINES)
        .map(path)
        .collect::<Option<Vec<_>>>()
        .unwrap_or_default()
}

fn path(line: &str) -> Option<PathBuf> {
    if let Some(rest) = line.strip_prefix("file://") {
        // The host, if any, is this one; a file elsewhere cannot be read here.
        let path = rest.strip_prefix("localhost").unwrap_or(rest);
        return path.starts_with('/').then(|| unescape(path))?;
    }
    let path = Path::new(line.trim_matches('"'));
    path.is_absolute().then(|| path.to_owned())
}

/// Undoes percent-encoding (RFC 3986); `None` when it is not well-formed.
fn unescape(path: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            plain => plain,
        };
        bytes.push(byte);
    }
    from_bytes(bytes)
}

#[cfg(unix)]
fn from_bytes(bytes: Vec<u8>) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    Some(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn from_bytes(bytes: Vec<u8>) -> Option<PathBuf> {
    // `/C:/folder/file` stands for `C:\folder\file`.
    let text = String::from_utf8(bytes).ok()?;
    Some(PathBuf::from(text.trim_start_matches('/')))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn paths_and_uris_are_files_and_prose_is_not() {
        let pasted =
            "# comment\r\nfile:///home/a/b%20c.txt\r\nfile://localhost/d%E8%89%BE\n/plain/path\n";
        let expected: Vec<PathBuf> = ["/home/a/b c.txt", "/d艾", "/plain/path"]
            .map(PathBuf::from)
            .into();
        assert_eq!(paths(pasted), expected);
        for prose in [
            "",
            "hello",
            "see /etc/passwd",
            "/a\nand b",
            "file:///bad%2",
            "file://elsewhere/x",
            "https://example.org/x",
            "relative/path",
        ] {
            assert!(paths(prose).is_empty(), "{prose:?}");
        }
    }
}
