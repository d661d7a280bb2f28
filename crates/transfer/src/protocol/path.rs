//! Names from the wire are hostile. [`SafePath`] is the only path type a peer
//! can reach a disk through, and it is built only from validated names.
//!
//! The rules are those of every system at once, so that a folder received on
//! one can be passed on to another. The sending side makes honest names fit
//! with `fitting_name`; the receiving side only refuses.

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use crate::display::display_text;

/// Most bytes of one name, the least that common file systems allow.
pub const NAME_BYTES_MAX: usize = 255;
/// Most bytes of a whole path, separators included.
pub const PATH_BYTES_MAX: usize = 4096;
/// Most names in a path.
pub const PATH_DEPTH_MAX: usize = 256;
/// How the name of a file that is still being received ends.
pub const PART_SUFFIX: &str = ".pinhole-part";

/// Why a path from the wire was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// An empty path, a doubled, leading or trailing separator.
    #[error("a name is empty")]
    Empty,
    /// `.` or `..`.
    #[error("a name is . or ..")]
    Dots,
    /// A character no name may hold: separators, control characters, those
    /// Windows forbids, and characters that reorder text.
    #[error("a name holds the forbidden character {0:?}")]
    Character(char),
    /// Windows drops trailing dots and spaces, so the name would change.
    #[error("a name ends with a dot or a space")]
    Trailing,
    /// A device name on Windows, with or without an extension.
    #[error("a name is reserved for a device")]
    Device,
    /// A hidden name at the top level, where it could configure something.
    #[error("a top-level name starts with a dot")]
    Hidden,
    /// Ends like the temporary of a file being received.
    #[error("a name ends like an unfinished file")]
    Part,
    /// Longer than [`NAME_BYTES_MAX`], [`PATH_BYTES_MAX`] or [`PATH_DEPTH_MAX`].
    #[error("a name or the path is too long")]
    TooLong,
}

/// A relative path of validated names, separated by `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SafePath(Box<str>);

impl SafePath {
    /// The path if every name in it may be written on every system.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn parse(path: &str) -> Result<Self, PathError> {
        if path.len() > PATH_BYTES_MAX || path.split('/').count() > PATH_DEPTH_MAX {
            return Err(PathError::TooLong);
        }
        for name in path.split('/') {
            check_name(name)?;
        }
        if hidden_at(path).is_some() {
            return Err(PathError::Hidden);
        }
        Ok(Self(path.into()))
    }

    /// The path as it stands on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names from the top down.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// The path of the folder this is in; `None` at the top level.
    #[must_use]
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }

    /// The first name.
    #[must_use]
    pub fn top(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(top, _)| top)
    }

    /// Equal for two paths that some file system takes for the same.
    #[must_use]
    pub fn folded(&self) -> String {
        folded(&self.0)
    }

    /// The path for people: nothing in it moves the cursor or reorders text,
    /// and a long one loses its middle, never its extension.
    #[must_use]
    pub fn display_text(&self) -> String {
        display_text(&self.0)
    }
}

impl TryFrom<String> for SafePath {
    type Error = PathError;
    fn try_from(path: String) -> Result<Self, PathError> {
        Self::parse(&path)
    }
}

impl From<SafePath> for String {
    fn from(path: SafePath) -> Self {
        path.0.into()
    }
}

/// `text` as a file system that ignores case and normalisation sees it.
pub(crate) fn folded(text: &str) -> String {
    // Upper then lower case joins what one direction alone keeps apart: ß and
    // ss, the three sigmas, the dotless i.
    let upper: String = text.nfc().flat_map(char::to_uppercase).collect();
    upper
        .chars()
        .flat_map(char::to_lowercase)
        .collect::<String>()
        .nfc()
        .collect()
}

fn check_name(name: &str) -> Result<(), PathError> {
    match name {
        "" => return Err(PathError::Empty),
        "." | ".." => return Err(PathError::Dots),
        _ => {}
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(PathError::TooLong);
    }
    if let Some(character) = name.chars().find(|&character| is_forbidden(character)) {
        return Err(PathError::Character(character));
    }
    if name.ends_with(['.', ' ']) {
        return Err(PathError::Trailing);
    }
    if is_device(name) {
        return Err(PathError::Device);
    }
    if is_part(name) {
        return Err(PathError::Part);
    }
    Ok(())
}

/// Whether a name is that of a file still being received.
pub(crate) fn is_part(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(PART_SUFFIX)
}

fn is_forbidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|'
            // Line and paragraph separators; bidirectional embeddings,
            // overrides and isolates, which make `exe.txt` of `txt.exe`.
            | '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
        )
}

/// Where the dot stands that hides `name`: in front, but for characters that
/// Apple's older file system ignores.
fn hidden_at(name: &str) -> Option<usize> {
    let is_ignored = |character: char| matches!(character, '\u{200C}'..='\u{200F}' | '\u{206A}'..='\u{206F}' | '\u{FEFF}');
    let rest = name.trim_start_matches(is_ignored);
    rest.starts_with('.').then(|| name.len() - rest.len())
}

/// Windows opens a device for these, whatever the case and extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end_matches(' ');
    let stem = stem.to_uppercase();
    if matches!(
        stem.as_str(),
        "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" | "CLOCK$"
    ) {
        return true;
    }
    let Some(number) = stem.strip_prefix("COM").or(stem.strip_prefix("LPT")) else {
        return false;
    };
    let mut digits = number.chars();
    matches!(
        (digits.next(), digits.next()),
        (Some('0'..='9' | '¹' | '²' | '³'), None)
    )
}

/// `name`, changed as little as needed to be allowed; `top_level` names also
/// lose a leading dot. The sending side's counterpart of the refusals.
pub(crate) fn fitting_name(name: &str, top_level: bool) -> String {
    let allowed: String = name
        .chars()
        .map(|character| {
            if is_forbidden(character) {
                '_'
            } else {
                character
            }
        })
        .collect();
    let fitting = with_allowed_ends(allowed.clone(), top_level);
    if fitting.len() <= NAME_BYTES_MAX {
        return fitting;
    }
    // Room for what is put in front and behind.
    let shorter = with_suffix(&allowed, NAME_BYTES_MAX - 2, "");
    with_allowed_ends(shorter, top_level)
}

/// At most one byte longer in front, and one behind.
fn with_allowed_ends(mut fitting: String, top_level: bool) -> String {
    if fitting.is_empty() || fitting.ends_with(['.', ' ']) || is_part(&fitting) {
        fitting.push('_');
    }
    if is_device(&fitting) {
        fitting.insert(0, '_');
    }
    if let Some(dot) = hidden_at(&fitting).filter(|_| top_level) {
        fitting.replace_range(dot..=dot, "_");
    }
    fitting
}

/// `report.pdf` as `report (2).pdf`, at most [`NAME_BYTES_MAX`] long.
pub(crate) fn numbered(name: &str, number: u32) -> String {
    numbered_within(name, number, NAME_BYTES_MAX)
}

/// The same, at most `bytes_max` long.
pub(crate) fn numbered_within(name: &str, number: u32, bytes_max: usize) -> String {
    with_suffix(name, bytes_max, &format!(" ({number})"))
}

/// Puts `suffix` between stem and extension, shortening the stem to fit.
fn with_suffix(name: &str, bytes_max: usize, suffix: &str) -> String {
    const EXTENSION_BYTES_MAX: usize = 32;
    let (stem, extension) = match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= EXTENSION_BYTES_MAX => name.split_at(dot),
        _ => (name, ""),
    };
    let room = bytes_max.saturating_sub(suffix.len() + extension.len());
    format!("{}{suffix}{extension}", shortened(stem, room))
}

/// At most `bytes` of `text`, cut between characters and never behind a space
/// or dot when something was cut.
pub(crate) fn shortened(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    text.get(..text.floor_char_boundary(bytes))
        .unwrap_or_default()
        .trim_end_matches(['.', ' '])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_taken_name_is_numbered_before_the_extension() {
        assert_eq!(numbered("report.pdf", 1), "report (1).pdf");
        assert_eq!(numbered("report", 12), "report (12)");
        assert_eq!(numbered(".hidden", 1), ".hidden (1)");
        let long = numbered(&format!("{}.pdf", "é".repeat(125)), 3);
        assert!(
            long.len() <= NAME_BYTES_MAX && long.ends_with("é (3).pdf"),
            "{long}"
        );
    }

    #[test]
    fn an_honest_name_is_changed_as_little_as_needed() {
        for (name, fitting) in [
            ("who? what?.txt", "who_ what_.txt"),
            ("C:\\x", "C__x"),
            ("end.", "end._"),
            ("NUL.txt", "_NUL.txt"),
            ("", "_"),
            ("..", "_._"),
            ("写真.jpg", "写真.jpg"),
            (".bashrc", "_bashrc"),
            (&format!("CON{}x", " ".repeat(300)), "_CON"),
            (&" ".repeat(300), "_"),
        ] {
            assert_eq!(fitting_name(name, true), fitting);
        }
        assert_eq!(fitting_name(".git", false), ".git");
    }

    #[test]
    fn folding_joins_what_a_file_system_joins() {
        for (left, right) in [("A", "a"), ("é", "e\u{301}"), ("ß", "SS"), ("ΣΑΣ", "σας")] {
            assert_eq!(folded(left), folded(right), "{left} {right}");
        }
        assert_ne!(folded("a"), folded("b"));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_stays_below(path in "[a./\\\\: \u{202E}\u{0}-]{0,12}") {
            if let Ok(path) = SafePath::parse(&path) {
                for name in path.names() {
                    prop_assert!(!name.is_empty() && name != "." && name != "..");
                    prop_assert!(!name.contains(['/', '\\', ':', '\0']));
                }
            }
        }

        #[test]
        fn a_fitted_name_is_always_accepted(name in any::<String>()) {
            let fitting = fitting_name(&name, true);
            prop_assert!(SafePath::parse(&fitting).is_ok(), "{fitting:?}");
        }

        #[test]
        fn a_long_fitted_name_is_always_accepted(
            start in "(CON|com1|[.] ?|é|x)",
            middle in 240usize..270,
            end in "(|[.]|[.]{40}| |[.]txt|[.]pinhole-part|\\.{2} )",
        ) {
            let name = format!("{start}.{}{end}", "x".repeat(middle));
            for top_level in [false, true] {
                let fitting = fitting_name(&name, top_level);
                let path = if top_level { fitting.clone() } else { format!("top/{fitting}") };
                prop_assert!(SafePath::parse(&path).is_ok(), "{fitting:?}");
            }
        }

        #[test]
        fn a_numbered_name_is_always_accepted(name in any::<String>(), number in 1u32..9999) {
            let name = numbered(&fitting_name(&name, true), number);
            prop_assert!(SafePath::parse(&name).is_ok(), "{name:?}");
        }
    }
}
