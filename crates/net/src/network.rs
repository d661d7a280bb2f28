//! Changes of this machine's networks, as events of the system.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
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

/// Whether this is an address of this machine at the moment.
#[must_use]
pub fn is_own_address(mut address: SocketAddr) -> bool {
    address.set_ip(address.ip().to_canonical());
    address.set_port(0);
    // Anything else that stands in the way says nothing about the address.
    let bound = UdpSocket::bind(address);
    !matches!(bound, Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_the_machine_s_own_addresses_are_its_own() {
        let is_own = |address: &str| is_own_address(address.parse().unwrap());
        assert!(is_own("127.0.0.1:4747"));
        assert!(is_own("[::ffff:127.0.0.1]:4747"));
        assert!(!is_own("192.0.2.77:4747"));
    }

    #[tokio::test]
    async fn the_first_word_is_what_there_is_and_then_there_is_silence() {
        let mut watch = NetworkWatch::new().unwrap();
        let first = timeout(Duration::from_secs(20), watch.changed()).await;
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(first.unwrap().unwrap().contains(&loopback));
    }
}
