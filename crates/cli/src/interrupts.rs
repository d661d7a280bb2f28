//! Signals that end the program.

/// Who asks the program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// The user, by Ctrl-C.
    User,
    /// The system or a service manager.
    System,
}

/// Listens for signals from its creation on, so that none between two calls is lost.
pub(crate) struct Interrupts {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    /// The terminal is gone. `None` where the process was started to survive that
    /// (`nohup`).
    #[cfg(unix)]
    hangup: Option<tokio::signal::unix::Signal>,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
}

impl Interrupts {
    #[cfg(unix)]
    pub(crate) fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let hangup = match survives_hangup() {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
        })
    }

    #[cfg(windows)]
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: tokio::signal::windows::ctrl_c()?,
        })
    }

    /// Waits for the next signal.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) -> Interrupt {
        let hung_up = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Interrupt::User,
            _ = self.terminate.recv() => Interrupt::System,
            _ = hung_up => Interrupt::System,
        }
    }

    /// Returns at the next one.
    #[cfg(windows)]
    pub(crate) async fn next(&mut self) -> Interrupt {
        self.interrupt.recv().await;
        Interrupt::User
    }
}

/// Whether the process was started with SIGHUP ignored. Where the system does not tell,
/// it was not.
#[cfg(unix)]
fn survives_hangup() -> bool {
    /// The lowest bit is of the signal with number 1, which is SIGHUP.
    const HANGUP_BIT: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & HANGUP_BIT != 0)
}
