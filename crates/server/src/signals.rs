//! The signals that the server obeys.

use std::io;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To end the server.
    End,
    /// To read the configuration again, if there is one; else to end the server.
    HangUp,
}

/// The signals, from the time at which this value is made.
#[cfg(unix)]
pub(crate) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// `None` if a hang-up is ignored: a server without a configuration to read again that
    /// was started to outlive its terminal (nohup).
    hang_up: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn listen(config: Option<&std::path::Path>) -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let hang_up = match config.is_none() && is_hang_up_ignored() {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up,
        })
    }

    pub(crate) async fn next(&mut self) -> Asked {
        let hang_up = &mut self.hang_up;
        let hung_up = async {
            match hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Who sends a hang-up and then ends the server sees the former obeyed.
            biased;
            _ = hung_up => Asked::HangUp,
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
        }
    }
}

/// Whether this process was started with SIGHUP ignored. Only Linux tells without unsafe
/// code.
#[cfg(unix)]
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The first bit is that of signal 1, SIGHUP.
    ignored.is_some_and(|mask| mask & 1 != 0)
}

/// The signals, from the time at which this value is made.
#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    #[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
    pub(crate) fn listen(_config: Option<&std::path::Path>) -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) async fn next(&mut self) -> Asked {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!("signals do not work, end this process by force: {error}");
            std::future::pending::<()>().await;
        }
        Asked::End
    }
}
