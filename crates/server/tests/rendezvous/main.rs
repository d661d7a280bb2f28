//! The server over loopback, seen by a small client of the test's own.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "only tests are here"
)]

mod administration;
mod binary;
mod client;
mod codes;
mod impostors;
mod introductions;
mod limits;
mod nodes;
mod operation;
mod probes;
mod proxies;
mod relay;
mod sessions;
#[cfg(target_os = "linux")]
mod strangers;

use std::net::SocketAddr;
use std::time::Duration;

use pinhole_server::{DataDir, Limits, ServeError, listener, run};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Nothing here takes so long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on two free ports of 127.0.0.1, in this process.
struct Server {
    addresses: Vec<SocketAddr>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), ServeError>>,
    _dir: TempDir,
}

impl Server {
    fn start(limits: Limits) -> Self {
        Self::start_at(&["127.0.0.1:0"], limits)
    }

    fn start_at(listen: &[&str], limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(dir.path()).unwrap();
        let listen: Vec<_> = listen.iter().map(|text| text.parse().unwrap()).collect();
        let listeners = listener::bind(&listen).unwrap();
        let addresses = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            stopped.await.unwrap();
        };
        let running = tokio::spawn(run(listeners, data_dir, limits, shutdown));
        Self {
            addresses,
            stop,
            running,
            _dir: dir,
        }
    }

    fn default() -> Self {
        Self::start(Limits::default())
    }

    fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Ends the server as a signal would, and waits until it has ended.
    async fn stop(self) {
        self.stop.send(()).unwrap();
        let ended = timeout(PATIENCE, self.running).await;
        ended.unwrap().unwrap().unwrap();
    }
}
