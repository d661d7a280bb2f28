//! Logs, which go to standard error when `PINHOLE_LOG` asks for them. Everything that a
//! user needs to know is part of the output.

use std::fmt;
use std::io::IsTerminal as _;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer, format};
use tracing_subscriber::registry::LookupSpan;

use crate::report::Lines;

pub(crate) fn init(lines: Lines) {
    let filter = EnvFilter::try_from_env("PINHOLE_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr);
    match lines {
        Lines::Plain => subscriber.init(),
        // The journal has times of its own.
        Lines::WithLevels => subscriber
            .event_format(WithLevel(format().with_level(false).without_time()))
            .init(),
    }
}

/// A format with the level before each line, as the journal of systemd reads it.
struct WithLevel<F>(F);

impl<S, N, F> FormatEvent<S, N> for WithLevel<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        write!(writer, "<{level}>")?;
        self.0.format_event(ctx, writer, event)
    }
}
