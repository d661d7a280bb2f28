//! Lists of files as text: from the clipboard, and from drops.

use std::path::{Path, PathBuf};

use pinhole_client::display_text;

use crate::text;

/// The most lines of a pasted list. Longer texts are something else.
const MOST_LINES: usize = 10_000;
/// The most lines of a drop that are read.
const MOST_DROPPED: usize = 200_000;

/// The files named by pasted text: one absolute path or `file:` URI (RFC 8089)
/// a line, as in `text/uri-list` (RFC 2483). Empty when the text is anything else.
pub(crate) fn paths(text: &str) -> Vec<PathBuf> {
    let lines = lines(text.as_bytes());
    // GNOME's file manager puts the operation before the files.
    let lines = lines.filter(|line| !matches!(*line, b"copy" | b"x-special/nautilus-clipboard"));
    lines
        .take(MOST_LINES)
        .map(path)
        .collect::<Option<Vec<_>>>()
        .unwrap_or_default()
}

/// A dropped list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DroppedFiles {
    /// The existing files.
    pub(crate) paths: Vec<PathBuf>,
    /// What cannot be sent, each with the reason.
    pub(crate) refused: Vec<String>,
}

/// Reads a dropped list (`text/uri-list`). A line that names no file does not affect the
/// others. Accesses the file system, so it does not belong on the window's thread.
#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "read by the system")
)]
pub(crate) fn dropped(list: &[u8]) -> DroppedFiles {
    let mut dropped = DroppedFiles::default();
    let mut lines = lines(list);
    for line in lines.by_ref().take(MOST_DROPPED) {
        let shown = || display_text(&String::from_utf8_lossy(line));
        match path(line) {
            None => dropped.refused.push(text::not_a_file(&shown())),
            Some(path) => match path.symlink_metadata() {
                Ok(_) => dropped.paths.push(path),
                Err(error) => {
                    let reason = text::reason(&error);
                    let shown = display_text(&path.to_string_lossy());
                    dropped.refused.push(text::not_readable(&shown, &reason));
                }
            },
        }
    }
    match lines.count() {
        0 => {}
        more => dropped.refused.push(text::too_many_dropped(more)),
    }
    dropped
}

/// Splits text into lines with any line end, without blanks and comments.
fn lines(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| matches!(byte, b'\r' | b'\n' | 0))
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
}

fn path(line: &[u8]) -> Option<PathBuf> {
    let scheme = line.get(..5)?;
    if scheme.eq_ignore_ascii_case(b"file:") {
        let rest = line.get(5..)?;
        let path = match rest.strip_prefix(b"//") {
            // The host, if any, is this one; a file elsewhere cannot be read here.
            Some(rest) => {
                let slash = rest.iter().position(|&byte| byte == b'/')?;
                let (host, path) = rest.split_at_checked(slash)?;
                is_here(host).then_some(path)?
            }
            None => rest,
        };
        return path.starts_with(b"/").then(|| unescape(path))?;
    }
    let path = line.strip_prefix(b"\"").unwrap_or(line);
    let path = path.strip_suffix(b"\"").unwrap_or(path);
    let path = from_bytes(path.to_owned())?;
    Path::new(&path).is_absolute().then_some(path)
}

/// Whether a URI's host is this machine.
fn is_here(host: &[u8]) -> bool {
    if host.is_empty() || host.eq_ignore_ascii_case(b"localhost") {
        return true;
    }
    // Some programs write the machine's own name there.
    let own = std::fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
    own.trim_ascii().eq_ignore_ascii_case(host)
}

/// Undoes percent-encoding (RFC 3986); `None` when it is not well-formed.
fn unescape(path: &[u8]) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.iter();
    while let Some(&byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(*rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            plain => plain,
        };
        bytes.push(byte);
    }
    (!bytes.contains(&0)).then(|| from_bytes(bytes))?
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps, reason = "elsewhere there may be none")]
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
        let pasted = "# comment\r\nfile:///home/a/b%20c.txt\r\nfile://localhost/d%E8%89%BE\n/plain/path\nfile:/one/slash\nFILE:///UPPER\n";
        let expected: Vec<PathBuf> = [
            "/home/a/b c.txt",
            "/d艾",
            "/plain/path",
            "/one/slash",
            "/UPPER",
        ]
        .map(PathBuf::from)
        .into();
        assert_eq!(paths(pasted), expected);
        for prose in [
            "",
            "hello",
            "see /etc/passwd",
            "/a\nand b",
            "file:///bad%2",
            "file:///nul%00",
            "file://elsewhere/x",
            "file:relative",
            "https://example.org/x",
            "relative/path",
        ] {
            assert!(paths(prose).is_empty(), "{prose:?}");
        }
    }
}
