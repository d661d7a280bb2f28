//! Text from a peer, made safe to show.

/// Most characters of a name shown; more lose their middle.
pub const DISPLAY_CHARS_MAX: usize = 120;
/// Characters kept from the end, so that the extension stays in sight.
const TAIL_CHARS: usize = 40;

/// `text` for people, in a terminal or a window: control, format and
/// bidirectional characters are written out as `\u{..}`, and the middle of a
/// long text is elided.
#[must_use]
pub fn display_text(text: &str) -> String {
    elided(escaped(text))
}

/// As [`display_text`], but for a text of several lines, whole. Tabs become
/// spaces.
#[must_use]
pub fn display_lines(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| escaped(&line.replace('\t', "    ")));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether a character is one of those that are written out where it stands alone.
#[must_use]
pub fn is_hidden(character: char) -> bool {
    needs_escape(character, None, None)
}

fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut previous = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if needs_escape(character, previous, characters.peek().copied()) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
        previous = Some(character);
    }
    shown
}

fn needs_escape(character: char, before: Option<char>, after: Option<char>) -> bool {
    let joins = |neighbour: Option<char>| neighbour.is_some_and(|other| !other.is_ascii());
    match character {
        // Joiners belong into emoji and into several scripts, not between
        // Latin letters.
        '\u{200C}' | '\u{200D}' => !(joins(before) && joins(after)),
        '\u{00AD}'
        | '\u{034F}'
        | '\u{0600}'..='\u{0605}'
        | '\u{061C}'
        | '\u{06DD}'
        | '\u{070F}'
        | '\u{0890}'..='\u{0891}'
        | '\u{08E2}'
        | '\u{115F}'..='\u{1160}'
        | '\u{17B4}'..='\u{17B5}'
        | '\u{180B}'..='\u{180F}'
        | '\u{200B}'..='\u{200F}'
        | '\u{2028}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}'
        | '\u{3164}'
        | '\u{FEFF}'
        | '\u{FFA0}'
        | '\u{FFF0}'..='\u{FFFB}'
        | '\u{110BD}'
        | '\u{110CD}'
        | '\u{13430}'..='\u{1343F}'
        | '\u{1BCA0}'..='\u{1BCA3}'
        | '\u{1D173}'..='\u{1D17A}'
        | '\u{E0000}'..='\u{E0FFF}' => true,
        other => other.is_control(),
    }
}

fn elided(text: String) -> String {
    let count = text.chars().count();
    if count <= DISPLAY_CHARS_MAX {
        return text;
    }
    let head = text.chars().take(DISPLAY_CHARS_MAX - TAIL_CHARS - 1);
    let tail = text.chars().skip(count - TAIL_CHARS);
    head.chain(['…']).chain(tail).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_and_tabs_stay_and_nothing_else_that_is_hidden() {
        assert_eq!(display_lines("a\tb\r\n\u{202E}c"), "a    b\n\\u{202e}c");
        let long = "x".repeat(500);
        assert_eq!(display_lines(&long), long);
    }

    #[test]
    fn what_moves_the_cursor_or_the_order_is_written_out() {
        for (text, shown) in [
            ("plain.txt", "plain.txt"),
            ("\u{1b}[2Jx", "\\u{1b}[2Jx"),
            ("photo\u{202E}gpj.exe", "photo\\u{202e}gpj.exe"),
            ("a\u{200B}b", "a\\u{200b}b"),
            ("a\u{200D}b", "a\\u{200d}b"),
            ("👨\u{200D}👩", "👨\u{200D}👩"),
            ("تقرير.pdf", "تقرير.pdf"),
            ("报告.pdf", "报告.pdf"),
        ] {
            assert_eq!(display_text(text), shown);
        }
    }

    #[test]
    fn a_long_name_keeps_its_extension() {
        let shown = display_text(&format!("{}.exe", "a".repeat(4096)));
        assert_eq!(shown.chars().count(), DISPLAY_CHARS_MAX);
        assert!(shown.contains('…') && shown.ends_with(".exe"), "{shown}");
    }

    proptest! {
        #[test]
        fn nothing_shown_is_a_control_character(text in any::<String>()) {
            let shown = display_text(&text);
            prop_assert!(shown.chars().count() <= DISPLAY_CHARS_MAX);
            prop_assert!(!shown.chars().any(char::is_control));
            let reorders = shown.contains(['\u{202E}', '\u{2066}', '\u{200B}']);
            prop_assert!(!reorders, "reorders");
        }
    }
}
