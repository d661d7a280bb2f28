//! Log output: each event is one line, whatever text clients have put into it.

use std::io::{self, Write};

use clap::ValueEnum;
use tracing::error;
use tracing_subscriber::EnvFilter;

/// The level without an option or `RUST_LOG`: each login, refusal and end, and no more.
const LEVEL: &str = "info";

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Time, level and message, then fields.
    Text,
    /// An object for each event.
    Json,
}

/// Changes the level of the log while it is written.
pub(crate) struct LogLevel(Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error>>);

impl LogLevel {
    pub(crate) fn set(&self, level: Option<&str>) {
        if let Err(error) = (self.0)(filter(level)) {
            error!("the level of the log stays as it was: {error}");
        }
    }
}

/// Starts the log.
pub(crate) fn start(format: LogFormat, level: Option<&str>) -> LogLevel {
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_ansi(false)
        .with_writer(move || OneLine(format));
    match format {
        LogFormat::Text => {
            let log = log.with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            LogLevel(Box::new(move |filter| handle.reload(filter)))
        }
        LogFormat::Json => {
            let log = log.json().flatten_event(true).with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            LogLevel(Box::new(move |filter| handle.reload(filter)))
        }
    }
}

fn filter(level: Option<&str>) -> EnvFilter {
    match level {
        Some(level) => EnvFilter::new(level),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LEVEL)),
    }
}

/// A level, or several by target, as the log takes it.
pub(crate) fn parse_level(text: &str) -> Result<String, String> {
    let filter = EnvFilter::builder().parse(text);
    let filter = filter.map_err(|error| error.to_string())?;
    // A target without a level is a valid filter, and never what was meant.
    match text.is_empty() || filter.max_level_hint().is_none() {
        true => Err("it is error, warn, info, debug or trace".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// Writes each event to standard error as one line of printable characters, so that text
/// from clients cannot pass for a line of the log or control a terminal.
struct OneLine(LogFormat);

impl Write for OneLine {
    /// Writes one event, which the formatter passes as one line.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = printable(self.0, &String::from_utf8_lossy(event));
        io::stderr().lock().write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn printable(format: LogFormat, event: &str) -> String {
    let line = event.strip_suffix('\n').unwrap_or(event);
    let mut printable = String::with_capacity(event.len());
    for c in line.chars() {
        match c {
            '"' | '\'' | '\\' => printable.push(c),
            c if format == LogFormat::Json => escape_in_json(c, &mut printable),
            c => printable.extend(c.escape_debug()),
        }
    }
    printable.push('\n');
    printable
}

/// Writes a character as it is, or escaped as JSON does if it cannot be printed. Outside of
/// texts JSON has none of those.
fn escape_in_json(c: char, printable: &mut String) {
    if c.escape_debug().len() == 1 {
        return printable.push(c);
    }
    for unit in c.encode_utf16(&mut [0; 2]) {
        printable.push_str(&format!("\\u{unit:04x}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_and_controls_no_terminal() {
        let event = "name \"bøb\" it's a\\b\n  INFO forged\r\u{1b}[2J\u{9b}\u{202e}\u{2028}\n";
        let expected =
            "name \"bøb\" it's a\\b\\n  INFO forged\\r\\u{1b}[2J\\u{9b}\\u{202e}\\u{2028}\n";
        assert_eq!(printable(LogFormat::Text, event), expected);
    }

    #[test]
    fn an_event_in_json_stays_one_line_and_says_the_same() {
        let text = "b\u{f8}b \"it's\" a\\b\n\r\u{1b}[2J\u{9b}\u{202e}\u{2028}\u{e0001}";
        let event = serde_json::json!({ "name": text }).to_string() + "\n";
        let line = printable(LogFormat::Json, &event);
        let inner = line.strip_suffix('\n').unwrap();
        assert!(
            inner
                .chars()
                .all(|c| c == '"' || c == '\'' || c == '\\' || c.escape_debug().len() == 1)
        );
        let read: serde_json::Value = serde_json::from_str(inner).unwrap();
        assert_eq!(read["name"], text);
    }

    #[test]
    fn a_level_is_one_that_the_log_knows() {
        for level in [
            "warn",
            "debug",
            "pinhole_server=debug",
            "warn,pinhole_server::relay=info",
        ] {
            assert_eq!(parse_level(level).as_deref(), Ok(level));
        }
        for wrong in ["", "a=b"] {
            assert!(parse_level(wrong).is_err(), "{wrong}");
        }
    }
}
