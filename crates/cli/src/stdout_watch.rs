//! Whether anyone still reads standard output.

use tokio::sync::oneshot;

/// Reports when the reader of standard output is gone, even while nothing is written.
pub(crate) struct StdoutWatch {
    gone: oneshot::Receiver<()>,
}

impl StdoutWatch {
    /// Starts watching.
    pub(crate) fn start() -> Self {
        let (sender, gone) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            if wait_until_gone() {
                // Without a receiver, nothing waits for the message.
                let _ = sender.send(());
            }
        });
        Self { gone }
    }

    /// Completes when the reader is gone.
    pub(crate) async fn gone(&mut self) {
        if (&mut self.gone).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Blocks until the reader of a pipe or socket is gone. Returns false if standard output
/// has no reader, as a file.
#[cfg(unix)]
fn wait_until_gone() -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let stdout = std::io::stdout();
    loop {
        // `poll` reports a closed other end even if it is not asked to.
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// A closed pipe shows when something is written to it.
#[cfg(not(unix))]
fn wait_until_gone() -> bool {
    false
}
