//! Changes of this machine's networks, as events of the system.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use if_watch::IfEvent;
use if_watch::tokio::IfWatcher;
use tokio::time::timeout;

/// A network that comes or goes brings several events; they count as one when
/// they are no farther apart.
const SETTLE: Duration = Duration::from_millis(300);

/// Tells when addresses come and go. Costs nothing while none do.
#[derive(Debug)]
pub struct NetworkWatch {
    watcher: IfWatcher,
    known: BTreeSet<IpAddr>,
}

impl NetworkWatch {
    /// Begins to watch. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            watcher: IfWatcher::new()?,
            known: BTreeSet::new(),
        })
    }

    /// Waits until the addresses of this machine are others than they were, and
    /// tells them. The first time, those of the beginning. Link-local addresses
    /// do not count.
    ///
    /// # Errors
    /// When the system does not tell any more.
    pub async fn changed(&mut self) -> io::Result<Vec<IpAddr>> {
        loop {
            let before = self.known.clone();
            self.event().await?;
            while let Ok(event) = timeout(SETTLE, self.event()).await {
                event?;
            }
            if self.known != before {
                return Ok(self.known.iter().copied().collect());
            }
        }
    }

    async fn event(&mut self) -> io::Result<()> {
        let event = poll_fn(|context| self.watcher.poll_if_event(context)).await?;
        let counts = |ip: &IpAddr| match ip {
            IpAddr::V4(v4) => !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        };
        match event {
            IfEvent::Up(network) if counts(&network.addr()) => {
                self.known.insert(network.addr());
            }
            IfEvent::Down(network) => {
                self.known.remove(&network.addr());
            }
            IfEvent::Up(_) => {}
        }
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_word_is_what_there_is_and_then_there_is_silence() {
        let mut watch = NetworkWatch::new().unwrap();
        let first = timeout(Duration::from_secs(20), watch.changed()).await;
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(first.unwrap().unwrap().contains(&loopback));
    }
}
