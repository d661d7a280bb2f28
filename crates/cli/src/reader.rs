//! Whoever reads standard output, for as long as somebody does.

/// Tells when nobody reads results any more, also while there are none.
pub(crate) struct Reader {
    #[cfg(unix)]
    pipe: Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>,
}

impl Reader {
    /// Of standard output. A file is always there.
    #[cfg(unix)]
    pub(crate) fn of_results() -> Self {
        use std::os::fd::AsFd as _;
        use tokio::io::{Interest, unix::AsyncFd};
        let pipe = std::io::stdout().as_fd().try_clone_to_owned();
        let watched = pipe.and_then(|pipe| AsyncFd::with_interest(pipe, Interest::ERROR));
        Self { pipe: watched.ok() }
    }

    /// Of standard output. That it is gone shows when something is written.
    #[cfg(not(unix))]
    pub(crate) const fn of_results() -> Self {
        Self {}
    }

    /// Returns when it is gone.
    pub(crate) async fn gone(&self) {
        #[cfg(unix)]
        if let Some(pipe) = &self.pipe {
            let gone = pipe.ready(tokio::io::Interest::ERROR).await;
            if gone.is_ok() {
                return;
            }
        }
        std::future::pending().await
    }
}
