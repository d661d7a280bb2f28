//! Output for a terminal: what it can show, how lines are broken, and whether results are
//! still read.

use std::cell::OnceCell;
use std::io::{self, IsTerminal as _};

use console::{Term, measure_text_width};
use pinhole_client::{display_lines, is_hidden};

/// Indents each further row of a line that needs several rows, so that text from others
/// cannot begin a row of its own.
const INDENT: &str = "    ";
/// A terminal with fewer columns breaks lines itself.
const COLUMNS_MIN: usize = 20;

/// Where results go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Results {
    ToStdout,
    /// Standard output gets what is received.
    ToStderr,
}

impl Results {
    /// Where they go if standard output is for data, or is not.
    pub(crate) const fn beside_data(is_for_data: bool) -> Self {
        match is_for_data {
            true => Self::ToStderr,
            false => Self::ToStdout,
        }
    }

    fn are_seen(self) -> bool {
        match self {
            Self::ToStdout => io::stdout().is_terminal(),
            Self::ToStderr => io::stderr().is_terminal(),
        }
    }

    /// The width of the terminal that they go to.
    fn columns(self) -> Option<usize> {
        let term = match self {
            Self::ToStdout => Term::stdout(),
            Self::ToStderr => Term::stderr(),
        };
        self.are_seen().then(|| usize::from(term.size().1))
    }
}

/// How lines on standard error begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// With their text.
    Plain,
    /// With their level, as the journal of systemd reads it: `<6>`.
    WithLevels,
}

/// How much a line matters, with syslog's numbers.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Level {
    Error = 3,
    Warning = 4,
    Info = 6,
}

/// Writes results to standard output, unless that gets something else, and everything
/// else to standard error.
pub(super) struct Output {
    results: Results,
    /// The error of the first result that could not be written.
    lost: OnceCell<io::Error>,
    is_ascii: bool,
    lines: Lines,
}

impl Output {
    pub(super) fn of_process(results: Results, lines: Lines) -> Self {
        Self {
            results,
            lines,
            lost: OnceCell::new(),
            is_ascii: is_ascii(|name| std::env::var(name).ok()),
        }
    }

    /// Whether only ASCII can be shown.
    pub(super) const fn is_ascii(&self) -> bool {
        self.is_ascii
    }

    /// Why results are no longer written.
    pub(super) fn lost(&self) -> Option<&io::Error> {
        self.lost.get()
    }

    /// Whether a person sees the results at once.
    pub(super) fn results_are_seen(&self) -> bool {
        self.results.are_seen()
    }

    /// Writes a result of one line.
    pub(super) fn result(&self, text: &str) {
        let text = self.shown(text, self.results.columns(), INDENT);
        self.write(&text);
    }

    /// Writes a result that is copied or scanned as a whole: the terminal breaks its lines
    /// if it has to. Nothing in it is of anybody else.
    pub(super) fn whole(&self, text: &str) {
        self.write(text);
    }

    /// Whether a line of results may have so many columns.
    pub(super) fn has_columns(&self, columns: usize) -> bool {
        self.results.columns().is_none_or(|there| there >= columns)
    }

    /// Writes a result of several lines, with a gutter before each row.
    pub(super) fn lines(&self, text: &str, gutter: &str) {
        let columns = self.results.columns();
        let lines = display_lines(text);
        let lines = lines.split('\n').map(|line| {
            let line = format!("{gutter}{line}");
            self.shown(&line, columns, gutter)
        });
        self.write(&lines.collect::<Vec<_>>().join("\n"));
    }

    /// Writes a line of JSON.
    pub(super) fn json(&self, line: &str) {
        self.write(&without_hidden(line));
    }

    fn write(&self, text: &str) {
        if self.lost.get().is_some() {
            return;
        }
        let written = match self.results {
            Results::ToStdout => write_line(io::stdout().lock(), text),
            Results::ToStderr => write_line(io::stderr().lock(), text),
        };
        if let Err(error) = written {
            let _ = self.lost.set(error);
        }
    }

    /// Formats a line for standard error.
    pub(super) fn note(&self, text: &str) -> String {
        self.note_at(Level::Info, text)
    }

    /// The same for a line that matters more or less.
    pub(super) fn note_at(&self, level: Level, text: &str) -> String {
        match self.lines {
            Lines::Plain => {
                let columns = io::stderr().is_terminal().then(columns);
                self.shown(text, columns, INDENT)
            }
            Lines::WithLevels => format!("<{}>{}", level as u8, self.plain(text)),
        }
    }

    /// Replaces what the terminal cannot show.
    pub(super) fn plain(&self, text: &str) -> String {
        self.shown(text, None, "")
    }

    /// Formats text as one line: nothing in it moves the cursor or begins another line.
    fn shown(&self, text: &str, columns: Option<usize>, indent: &str) -> String {
        let line = display_lines(&text.replace('\n', "\\u{a}").replace('\r', "\\u{d}"));
        let line = if self.is_ascii { ascii(&line) } else { line };
        let indent = if self.is_ascii {
            ascii(indent)
        } else {
            indent.to_owned()
        };
        match columns {
            Some(columns) if columns >= COLUMNS_MIN => rows(&line, columns, &indent),
            _ => line,
        }
    }
}

fn columns() -> usize {
    usize::from(Term::stderr().size().1)
}

fn write_line(mut out: impl io::Write, text: &str) -> io::Result<()> {
    writeln!(out, "{text}")?;
    out.flush()
}

/// Whether the user's locale has only ASCII. Where none is set, as in many containers,
/// the terminal outside shows UTF-8.
fn is_ascii(variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name: &&str| variable(name).filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set);
    let locale = locale.map(|locale| locale.to_ascii_lowercase());
    locale.is_some_and(|locale| !locale.contains("utf-8") && !locale.contains("utf8"))
}

/// Writes text in ASCII.
fn ascii(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '✓' => shown.push_str("ok:"),
            '…' => shown.push_str("..."),
            '→' => shown.push_str("->"),
            '·' => shown.push('-'),
            '│' => shown.push('|'),
            '×' => shown.push('x'),
            '’' => shown.push('\''),
            other if other.is_ascii() => shown.push(other),
            other => shown.extend(other.escape_unicode()),
        }
    }
    shown
}

/// Breaks a line into rows, between words where possible.
fn rows(line: &str, columns: usize, indent: &str) -> String {
    let mut rows = String::new();
    let mut used = 0;
    let indent_width = measure_text_width(indent);
    for word in line.split_inclusive(' ') {
        let width = measure_text_width(word.trim_end_matches(' '));
        if used > indent_width && used + width > columns {
            rows.truncate(rows.trim_end_matches(' ').len());
            rows.push('\n');
            rows.push_str(indent);
            used = indent_width;
        }
        for character in word.chars() {
            let width = measure_text_width(character.encode_utf8(&mut [0; 4]));
            if used + width > columns && character != ' ' {
                rows.push('\n');
                rows.push_str(indent);
                used = indent_width;
            }
            rows.push(character);
            used += width;
        }
    }
    rows
}

/// Escapes characters in JSON that a terminal would obey instead of showing. Outside
/// ASCII they can only be in strings.
fn without_hidden(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        if is_hidden(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(is_ascii: bool) -> Output {
        Output {
            results: Results::ToStdout,
            lost: OnceCell::new(),
            is_ascii,
            lines: Lines::Plain,
        }
    }

    #[test]
    fn a_locale_without_utf8_is_for_ascii() {
        for (set, expected) in [
            (vec![], false),
            (vec![("LANG", "de_DE.UTF-8")], false),
            (vec![("LANG", "C")], true),
            (vec![("LANG", "C"), ("LC_ALL", "C.utf8")], false),
            (vec![("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")], true),
            (vec![("LANG", "de_DE.UTF-8"), ("LC_CTYPE", "POSIX")], true),
            (vec![("LANG", "de_DE.UTF-8"), ("LC_ALL", "")], false),
            (vec![("LC_ALL", "de_DE.ISO-8859-1")], true),
        ] {
            let variable = |name: &str| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(is_ascii(variable), expected, "{set:?}");
        }
    }

    #[test]
    fn characters_outside_the_locale_are_escaped() {
        let shown = |text| output(true).shown(text, None, "");
        assert_eq!(shown("✓ f to bob… 猫"), "ok: f to bob... \\u{732b}");
        assert_eq!(output(false).shown("✓ 猫", None, ""), "✓ 猫");
    }

    #[test]
    fn a_journal_is_told_the_level_of_each_line() {
        let output = Output {
            lines: Lines::WithLevels,
            ..output(false)
        };
        assert_eq!(output.note("<3>x"), "<6><3>x");
        assert_eq!(output.note_at(Level::Error, "a\n<6>b"), "<3>a\\u{a}<6>b");
    }

    #[test]
    fn a_line_stays_one_line() {
        let shown = |text| output(false).shown(text, None, "");
        assert_eq!(shown("a\nbob writes:"), "a\\u{a}bob writes:");
        assert_eq!(shown("a\r\nb"), "a\\u{d}\\u{a}b");
        assert_eq!(
            shown("\u{1b}[2J\u{9b}x\u{202e}"),
            "\\u{1b}[2J\\u{9b}x\\u{202e}"
        );
    }

    #[test]
    fn every_further_row_is_indented() {
        let words = format!("{} {}", "word ".repeat(9), "x".repeat(50));
        let shown = output(false).shown(&words, Some(20), "│ ");
        let mut lines = shown.lines();
        assert_eq!(lines.next(), Some("word word word word"));
        assert!(lines.clone().all(|line| line.starts_with("│ ")), "{shown}");
        assert!(
            shown.lines().all(|line| measure_text_width(line) <= 20),
            "{shown}"
        );
        assert_eq!(shown.matches('x').count(), 50);
        let wide = output(false).shown(&"猫".repeat(30), Some(20), INDENT);
        assert!(
            wide.lines().all(|line| measure_text_width(line) <= 20),
            "{wide}"
        );
        assert_eq!(wide.matches('猫').count(), 30);
        assert_eq!(
            output(false).shown("four words in five", Some(5), INDENT),
            "four words in five"
        );
    }

    #[test]
    fn json_output_moves_no_cursor() {
        let name = "k\u{9b}2J\u{202e}猫\u{e0001}\u{7f}";
        let json = serde_json::to_string(name).unwrap();
        let safe = without_hidden(&json);
        assert_eq!(safe, r#""k\u009b2J\u202e猫\udb40\udc01\u007f""#);
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), name);
    }
}
