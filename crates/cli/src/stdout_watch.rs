//! Whoever reads standard output, for as long as somebody does.

use tokio::sync::oneshot;

/// Tells when nobody reads results any more, also while there are none.
pub(crate) struct StdoutWatch {
    gone: oneshot::Receiver<()>,
}

impl StdoutWatch {
    /// Of standard output.
    pub(crate) fn start() -> Self {
        let (sender, gone) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            if wait_until_gone() {
                // Without a receiver nobody waits for it.
                let _ = sender.send(());
            }
        });
        Self { gone }
    }

    /// Returns when it is gone.
    pub(crate) async fn gone(&mut self) {
        if (&mut self.gone).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Waits for the end of whoever reads a pipe or a socket; a file has none. Returns
/// whether it came.
#[cfg(unix)]
fn wait_until_gone() -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let stdout = std::io::stdout();
    loop {
        // That the other end is gone is told whether it is asked for or not.
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// It shows when something is written.
#[cfg(not(unix))]
fn wait_until_gone() -> bool {
    false
}
