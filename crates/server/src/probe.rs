//! Connecting back to a client that asks for it, so that it learns whom its NAT
//! lets in.
//!
//! The only address dialled is the one from which the asker's own connection
//! comes, which its TCP and TLS handshakes have proven: nobody can aim a probe at
//! somebody else. Each is one connection attempt of a few seconds, and costs the
//! asker more than the server.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pinhole_proto::candidate::{Candidate, CandidateKind};
use pinhole_proto::key::PeerKey;
use pinhole_proto::rendezvous::{ProbeOrigin, ProbeToken, ServerMessage};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::debug;

use crate::admission::{Cap, Network, Permit, network};
use crate::limits::Limits;

const MINUTE: Duration = Duration::from_secs(60);

/// Who asks to be probed, and what at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    pub(crate) key: PeerKey,
    /// From where its connection comes.
    pub(crate) observed: SocketAddr,
    /// To which address of the server it came.
    pub(crate) came_to: IpAddr,
    /// The server's other address of that family, if it has one.
    pub(crate) other_address: Option<IpAddr>,
}

/// Sends probes, within limits.
#[derive(Debug)]
pub(crate) struct Prober {
    timeout: Duration,
    per_key: usize,
    per_address: usize,
    this_minute: Mutex<Minute>,
    at_once: Arc<Semaphore>,
    pending: Arc<Cap<PeerKey>>,
}

/// What was asked for since a minute began; forgotten with it, so that there is
/// never more of it than connections that authenticate within a minute.
#[derive(Debug)]
struct Minute {
    since: Instant,
    by_key: HashMap<PeerKey, usize>,
    by_address: HashMap<Network, usize>,
}

/// Held while probes are under way.
struct Admitted {
    _one_of_all: OwnedSemaphorePermit,
    _one_of_key: Permit<PeerKey>,
}

impl Prober {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            timeout: limits.probe_timeout,
            per_key: limits.probes_per_key,
            per_address: limits.probes_per_address,
            this_minute: Mutex::new(Minute::beginning(Instant::now())),
            at_once: Arc::new(Semaphore::new(limits.probes)),
            pending: Cap::new(1),
        }
    }

    /// Connects to the asker from another port and from the other address, says
    /// which is which, hangs up, and returns what came of it.
    pub(crate) async fn probe(&self, asker: Asker, token: ProbeToken) -> ServerMessage {
        let Some(_admitted) = self.admit(Instant::now(), asker) else {
            debug!(observed = %asker.observed, "no probe: too many, or not there");
            return ServerMessage::Probed {
                other_port: None,
                other_address: None,
            };
        };
        let from = async |ip: IpAddr, origin: ProbeOrigin| {
            reach(ip, asker.observed, &origin.hello(token), self.timeout).await
        };
        let from_other_address = async {
            let ip = asker.other_address?;
            from(ip, ProbeOrigin::OtherAddress).await
        };
        let from_other_port = from(asker.came_to, ProbeOrigin::OtherPort);
        let (other_port, other_address) = tokio::join!(from_other_port, from_other_address);
        ServerMessage::Probed {
            other_port,
            other_address,
        }
    }

    fn admit(&self, now: Instant, asker: Asker) -> Option<Admitted> {
        if !may_be_dialled(asker.observed) {
            return None;
        }
        let admitted = Admitted {
            _one_of_all: self.at_once.clone().try_acquire_owned().ok()?,
            _one_of_key: self.pending.take(asker.key)?,
        };
        let mut minute = self
            .this_minute
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(minute.since) >= MINUTE {
            *minute = Minute::beginning(now);
        }
        let address = network(asker.observed.ip());
        let granted = count(&mut minute.by_address, address, self.per_address)
            && count(&mut minute.by_key, asker.key, self.per_key);
        granted.then_some(admitted)
    }
}

impl Minute {
    fn beginning(since: Instant) -> Self {
        Self {
            since,
            by_key: HashMap::new(),
            by_address: HashMap::new(),
        }
    }
}

/// Counts one more, unless there were as many as may be.
fn count<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K, most: usize) -> bool {
    let count = counts.entry(key).or_default();
    let granted = *count < most;
    *count += usize::from(granted);
    granted
}

/// Loopback is only ever seen from the server's own machine.
fn may_be_dialled(observed: SocketAddr) -> bool {
    let candidate = Candidate {
        kind: CandidateKind::ServerReflexive,
        address: observed,
    };
    candidate.admit(observed.ip().is_loopback()).is_ok()
}

/// Whether somebody answers there; `None` when this machine did not ask.
async fn reach(from: IpAddr, to: SocketAddr, hello: &[u8], limit: Duration) -> Option<bool> {
    let socket = match bound(from) {
        Ok(socket) => socket,
        Err(error) => {
            debug!(%from, "no probe: {error}");
            return None;
        }
    };
    let said = async {
        let mut tcp: TcpStream = socket.connect(to).await?;
        tcp.write_all(hello).await?;
        tcp.shutdown().await
    };
    match timeout(limit, said).await {
        Ok(Ok(())) => Some(true),
        // The operator's firewall, or no way there from this address.
        Ok(Err(error)) if is_our_own(&error) => {
            debug!(%from, %to, "no probe: {error}");
            None
        }
        Ok(Err(_)) | Err(_) => Some(false),
    }
}

fn is_our_own(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    matches!(
        error.kind(),
        AddrInUse | AddrNotAvailable | PermissionDenied
    )
}

/// Bound to a free port of this address, which is no port that listens.
fn bound(from: IpAddr) -> io::Result<TcpSocket> {
    let socket = match from {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(SocketAddr::new(from, 0))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(key: u8, observed: &str) -> Asker {
        Asker {
            key: PeerKey::from_bytes([key; 32]),
            observed: observed.parse().unwrap(),
            came_to: "203.0.113.1".parse().unwrap(),
            other_address: None,
        }
    }

    fn prober() -> Prober {
        Prober::new(&Limits {
            probes: 5,
            probes_per_key: 2,
            probes_per_address: 3,
            ..Limits::default()
        })
    }

    #[test]
    fn no_address_is_dialled_that_no_candidate_may_have() {
        let prober = prober();
        for observed in [
            "198.51.100.7:1023",
            "169.254.169.254:5000",
            "224.0.0.1:5000",
            "0.0.0.0:5000",
            "[64:ff9b::a00:1]:5000",
        ] {
            let admitted = prober.admit(Instant::now(), asker(1, observed));
            assert!(admitted.is_none(), "{observed}");
        }
        let others = ["198.51.100.7:1024", "127.0.0.1:5000", "[2001:db8::1]:5000"];
        for (key, observed) in (1..).zip(others) {
            let admitted = prober.admit(Instant::now(), asker(key, observed));
            assert!(admitted.is_some(), "{observed}");
        }
    }

    #[test]
    fn a_key_and_an_address_have_so_many_a_minute() {
        let prober = prober();
        let now = Instant::now();
        let is_granted = |now, key, observed| prober.admit(now, asker(key, observed)).is_some();
        let (home, elsewhere) = ("198.51.100.7:5000", "198.51.100.8:5000");
        assert!(is_granted(now, 1, home));
        assert!(is_granted(now, 1, home));
        assert!(!is_granted(now, 1, home), "of the key");
        assert!(!is_granted(now, 1, elsewhere), "of the key");
        assert!(!is_granted(now, 2, home), "of the address");
        assert!(is_granted(now, 2, elsewhere));
        assert!(is_granted(now + MINUTE, 1, home));
    }

    #[test]
    fn one_of_a_key_and_few_of_all_are_under_way() {
        let prober = prober();
        let now = Instant::now();
        let first = prober.admit(now, asker(0, "198.51.100.9:5000"));
        assert!(first.is_some());
        assert!(prober.admit(now, asker(0, "198.51.100.8:5000")).is_none());
        let others: Vec<_> = (1..=5)
            .map(|n| prober.admit(now, asker(n, &format!("198.51.100.{n}:5000"))))
            .collect();
        let granted = others.iter().filter(|admitted| admitted.is_some()).count();
        assert_eq!(granted, 4);
        drop(first);
        assert!(prober.admit(now, asker(9, "198.51.100.7:5000")).is_some());
    }
}
