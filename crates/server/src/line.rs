//! Log output: each event is one line, whatever text clients have put into it.

use std::io::{self, Write};

/// Writes each event to standard error as one line of printable characters, so that text
/// from clients cannot pass for a line of the log or control a terminal.
pub(crate) struct OneLine;

impl Write for OneLine {
    /// Writes one event, which the formatter passes as one line.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = printable(&String::from_utf8_lossy(event));
        io::stderr().lock().write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn printable(event: &str) -> String {
    let line = event.strip_suffix('\n').unwrap_or(event);
    let mut printable = String::with_capacity(event.len());
    for c in line.chars() {
        match c {
            '"' | '\'' | '\\' => printable.push(c),
            c => printable.extend(c.escape_debug()),
        }
    }
    printable.push('\n');
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_and_controls_no_terminal() {
        let event = "name \"bøb\" it's a\\b\n  INFO forged\r\u{1b}[2J\u{9b}\u{202e}\u{2028}\n";
        let expected =
            "name \"bøb\" it's a\\b\\n  INFO forged\\r\\u{1b}[2J\\u{9b}\\u{202e}\\u{2028}\n";
        assert_eq!(printable(event), expected);
    }
}
