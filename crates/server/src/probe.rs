//! Connecting back to a client on its request, so that it learns which sources its NAT
//! lets in.
//!
//! The only address dialled is that of the client's own connection, which its TCP and TLS
//! handshakes have proven, so a probe cannot be aimed at anyone else. Each is one
//! connection attempt of a few seconds, and costs the client more than the server.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pinhole_budget::{RateLimiter, SubnetRateLimiter};
use pinhole_proto::candidate::{Candidate, CandidateKind, LoopbackAddresses};
use pinhole_proto::key::PeerKey;
use pinhole_proto::rendezvous::{ProbeOrigin, ProbeToken, ServerMessage};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tracing::debug;

use crate::admission::{RATED, newcomer};
use crate::limits::Limits;
use crate::slots::{Slot, Slots};

/// A client that asks to be probed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProbeRequest {
    pub(crate) key: PeerKey,
    /// The client's address.
    pub(crate) observed: SocketAddr,
    /// The server's address that the client has connected to.
    pub(crate) came_to: IpAddr,
    /// The server's other address of that family, if it has one.
    pub(crate) other_address: Option<IpAddr>,
    /// Whether it came through a proxy. A probe would come from another address than the
    /// proxy, and tell the client nothing.
    pub(crate) is_proxied: bool,
}

/// Sends probes, within limits.
#[derive(Debug)]
pub(crate) struct Prober {
    timeout: Duration,
    at_once: Arc<Slots>,
    rates: Mutex<ProbeRates>,
}

#[derive(Debug)]
struct ProbeRates {
    of_keys: RateLimiter<PeerKey>,
    of_networks: SubnetRateLimiter,
}

impl Prober {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            timeout: limits.probe_timeout,
            at_once: Slots::new(limits.probes),
            rates: Mutex::new(ProbeRates {
                of_keys: RateLimiter::new(limits.probes_per_key, RATED),
                of_networks: SubnetRateLimiter::new(limits.probes_per_network, RATED),
            }),
        }
    }

    /// Connects to the client from another port and from the other address, identifies
    /// each connection, and returns the results.
    pub(crate) async fn probe(&self, request: ProbeRequest, token: ProbeToken) -> ServerMessage {
        let none = ServerMessage::Probed {
            other_port: None,
            other_address: None,
        };
        let Some(slot) = self.admit(Instant::now(), request) else {
            debug!("no probe: too many, or not there");
            return none;
        };
        let from = async |ip: IpAddr, origin: ProbeOrigin| {
            reach(ip, request.observed, &origin.hello(token), self.timeout).await
        };
        let from_other_address = async {
            let ip = request.other_address?;
            from(ip, ProbeOrigin::OtherAddress).await
        };
        let from_other_port = from(request.came_to, ProbeOrigin::OtherPort);
        let both = async { tokio::join!(from_other_port, from_other_address) };
        tokio::select! {
            (other_port, other_address) = both => ServerMessage::Probed {
                other_port,
                other_address,
            },
            () = slot.evicted() => none,
        }
    }

    fn admit(&self, now: Instant, request: ProbeRequest) -> Option<Slot> {
        if request.is_proxied || !may_be_dialled(request.observed) {
            return None;
        }
        let (key, address) = (request.key, request.observed.ip());
        let slot = self.at_once.take(newcomer(Some(key), address)).ok()?;
        let mut rates = self.rates.lock();
        let is_granted = rates.of_keys.take(now, key) && rates.of_networks.take(now, address);
        is_granted.then_some(slot)
    }
}

/// Loopback is only seen from the server's own machine.
fn may_be_dialled(observed: SocketAddr) -> bool {
    let candidate = Candidate {
        kind: CandidateKind::ServerReflexive,
        address: observed,
    };
    candidate
        .admit(LoopbackAddresses::seen_at(observed.ip()))
        .is_ok()
}

/// Whether the client accepts a connection; `None` if this machine could not try.
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
        // The operator's firewall, or no route from this address.
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

/// A socket bound to a free port of this address.
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
    use pinhole_budget::Rate;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn request(key: u8, observed: &str) -> ProbeRequest {
        ProbeRequest {
            key: PeerKey::from_bytes([key; 32]),
            observed: observed.parse().unwrap(),
            came_to: "203.0.113.1".parse().unwrap(),
            other_address: None,
            is_proxied: false,
        }
    }

    fn prober() -> Prober {
        let mut limits = Limits::default();
        limits.probes.total = 5;
        let rate = |burst| Rate {
            burst,
            interval: MINUTE,
        };
        (limits.probes_per_key, limits.probes_per_network) = (rate(2), rate(3));
        Prober::new(&limits)
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
            let admitted = prober.admit(Instant::now(), request(1, observed));
            assert!(admitted.is_none(), "{observed}");
        }
        let others = ["198.51.100.7:1024", "127.0.0.1:5000", "[2001:db8::1]:5000"];
        for (key, observed) in (1..).zip(others) {
            let admitted = prober.admit(Instant::now(), request(key, observed));
            assert!(admitted.is_some(), "{observed}");
        }
        let proxied = ProbeRequest {
            is_proxied: true,
            ..request(9, "198.51.100.9:5000")
        };
        assert!(prober.admit(Instant::now(), proxied).is_none());
    }

    #[test]
    fn a_key_and_a_network_have_a_rate_of_probes() {
        let prober = prober();
        let now = Instant::now();
        let is_granted = |now, key, observed| prober.admit(now, request(key, observed)).is_some();
        let (home, elsewhere) = ("198.51.100.7:5000", "198.51.100.8:5000");
        assert!(is_granted(now, 1, home));
        assert!(is_granted(now, 1, home));
        assert!(!is_granted(now, 1, home), "of the key");
        assert!(!is_granted(now, 1, elsewhere), "of the key");
        assert!(is_granted(now, 2, home));
        assert!(!is_granted(now, 2, home), "of the network");
        assert!(is_granted(now, 3, elsewhere));
        assert!(is_granted(now + MINUTE, 1, home));
    }

    #[test]
    fn probes_at_once_are_limited_by_key_and_network() {
        let prober = prober();
        let now = Instant::now();
        let first = prober.admit(now, request(0, "198.51.100.9:5000"));
        assert!(first.is_some());
        assert!(prober.admit(now, request(0, "198.51.100.8:5000")).is_none());
        let others: Vec<_> = (1..=5)
            .map(|n| prober.admit(now, request(n, &format!("198.51.100.{n}:5000"))))
            .collect();
        let granted = others.iter().filter(|admitted| admitted.is_some()).count();
        assert_eq!(granted, 4);
        drop(first);
        assert!(prober.admit(now, request(9, "198.51.100.7:5000")).is_some());
    }
}
