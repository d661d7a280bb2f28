//! Measuring the network for a diagnosis: what the server answers on each of
//! its addresses, what it sees of fresh local ports, and whether it gets back in.
//!
//! It does not log in, so a login that exists stays.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::doctor::diagnosis::{
    Diagnosis, Measurements, Observation, PortMappingAnswer, ProbeAnswer, Probes, RouterOutside,
    ServerProbe,
};
use pinhole_proto::candidate::{Candidate, CandidateKind, LoopbackAddresses, is_other_address};
use pinhole_proto::key::PeerKey;
use pinhole_proto::tls::{self, ALPN_RENDEZVOUS, Expect, Identity};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::probes;
use crate::candidates::{InterfaceAddress, interface_addresses};
use crate::dial;
use crate::port_mapping::PortMapper;
use crate::rendezvous::WireError;
use crate::rendezvous::observe;
use crate::rendezvous::server::handshake;
use crate::server_address::ServerAddress;
use crate::socket::{AddressReuse, LocalPort};

/// The port that networks which forbid all others let through.
const HTTPS: u16 = 443;
/// Most addresses of the server in each family: two show whether a mapping
/// depends on the address.
const MAX_ADDRESSES: usize = 2;
/// The most observer ports of a server that are used.
const MAX_PORTS: usize = 4;
/// How many fresh local ports are observed.
const FRESH_PORTS: usize = 4;
/// How long one address may take to connect, and then to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);

/// What a diagnosis is to be made of.
#[derive(Debug)]
pub struct Examination {
    /// The server.
    pub server: ServerAddress,
    /// Its key as pinned, or [`Expect::AnyKey`].
    pub expect: Expect,
    /// Our key pair.
    pub identity: Identity,
    /// Whom to ask for a port mapping; `None` when that is switched off.
    pub port_mapper: Option<PortMapper>,
    /// See [`Measurements::proxy`].
    pub proxy: Option<String>,
}

impl Examination {
    /// Measures for a few seconds, and concludes.
    pub async fn run(self) -> Diagnosis {
        let mut measurements = Measurements {
            server: self.server.host_port(),
            unresolved: None,
            server_probes: Vec::new(),
            observations: Vec::new(),
            probes: None,
            own: own_addresses(),
            port_mapping: match self.port_mapper {
                None => PortMappingAnswer::SwitchedOff,
                Some(_) => PortMappingAnswer::NotAsked,
            },
            router_outside: RouterOutside::Unsaid,
            proxy: self.proxy,
        };
        let fingerprint = self.server.fingerprint().map(Expect::Fingerprint);
        let expect = fingerprint.unwrap_or(self.expect);
        let connector = connector_to(&self.identity, expect);
        let found = match (
            dial::lookup(self.server.host(), PROBE_TIMEOUT).await,
            connector,
        ) {
            (Ok(addresses), Ok(connector)) => Ok((addresses, connector)),
            (Err(reason), _) => Err(reason),
            (_, Err(error)) => Err(error.to_string()),
        };
        let (addresses, connector) = match found {
            Ok(found) => found,
            Err(reason) => {
                measurements.unresolved = Some(reason);
                return Diagnosis::of(measurements);
            }
        };
        let places = places(&addresses, &self.server.ports());
        let mut probed = probe_servers(&connector, &places).await;
        // From here on the server is who has answered, also at its other address.
        let key = probed.iter().find_map(|probed| probed.key);
        let pinned = key.map(|key| connector_to(&self.identity, Expect::Key(key)));
        let connector = pinned.and_then(Result::ok).unwrap_or(connector);
        let others = other_places(&probed);
        probed.extend(probe_servers(&connector, &others).await);
        forget_guess(&mut probed, &self.server.ports());
        let reached: Vec<SocketAddr> = probed
            .iter()
            .filter(|probed| matches!(probed.probe.answer, ProbeAnswer::Reached { .. }))
            .map(|probed| probed.probe.address)
            .collect();
        let mapper = self.port_mapper.filter(|_| is_beyond_router(&reached));
        let (observations, probes, asked) = tokio::join!(
            observe_all(&connector, &reached),
            connect_back(&connector, &probed),
            ask(mapper),
        );
        measurements.server_probes = probed.into_iter().map(|probed| probed.probe).collect();
        measurements.observations = observations;
        measurements.probes = probes;
        if let Some((answer, outside)) = asked {
            measurements.port_mapping = answer;
            measurements.router_outside = outside;
        }
        Diagnosis::of(measurements)
    }
}

fn connector_to(identity: &Identity, expect: Expect) -> Result<TlsConnector, rustls::Error> {
    tls::client_config(identity, expect, ALPN_RENDEZVOUS).map(TlsConnector::from)
}

/// The addresses of this machine that mean something elsewhere.
fn own_addresses() -> Vec<IpAddr> {
    let interfaces = interface_addresses().unwrap_or_default();
    let mut own: Vec<IpAddr> = Vec::new();
    for ip in interfaces.iter().map(InterfaceAddress::ip) {
        let candidate = Candidate {
            kind: CandidateKind::Host,
            address: SocketAddr::new(ip, Candidate::MIN_PORT),
        };
        if candidate.admit(LoopbackAddresses::Refused).is_ok() && !own.contains(&ip) {
            own.push(ip);
        }
    }
    own
}

/// Where to knock first: the server's port, the next one (on which a server
/// observes, unless it tells otherwise), and HTTPS's.
fn places(addresses: &[SocketAddr], ports: &[u16]) -> Vec<SocketAddr> {
    let few = |is_ipv6| {
        let ips = addresses.iter().map(SocketAddr::ip);
        ips.filter(move |ip| ip.is_ipv6() == is_ipv6)
            .take(MAX_ADDRESSES)
    };
    let mut ports = ports.to_vec();
    ports.extend(ports.first().and_then(|port| port.checked_add(1)));
    if !ports.contains(&HTTPS) {
        ports.push(HTTPS);
    }
    let ips = few(false).chain(few(true));
    ips.flat_map(|ip| ports.iter().map(move |&port| SocketAddr::new(ip, port)))
        .collect()
}

/// Where to knock besides: on the ports that the server has told, and at the
/// addresses that it has told on the ports on which it was reached. No server may
/// aim us at a network of our own.
fn other_places(probed: &[ProbedServer]) -> Vec<SocketAddr> {
    let mut places: Vec<SocketAddr> = Vec::new();
    for ProbedServer {
        probe,
        other_address,
        ports,
        ..
    } in probed
    {
        let own = probe.address.ip();
        let other = other_address.filter(|&other| is_other_address(own, other));
        let on_ports = |ip| ports.iter().map(move |&port| SocketAddr::new(ip, port));
        let elsewhere = other.map(|other| SocketAddr::new(other, probe.address.port()));
        let all = on_ports(own).chain(elsewhere);
        for place in all.chain(other.into_iter().flat_map(on_ports)) {
            let is_known = probed.iter().any(|known| known.probe.address == place);
            if !is_known && !places.contains(&place) {
                places.push(place);
            }
        }
    }
    places
}

/// Where the server listens on other ports than was guessed, that it was not found
/// at the guessed one says nothing.
fn forget_guess(probed: &mut Vec<ProbedServer>, asked: &[u16]) {
    let told: Vec<u16> = probed.iter().flat_map(|it| it.ports.clone()).collect();
    if told.is_empty() {
        return;
    }
    probed.retain(|ProbedServer { probe, .. }| {
        let port = probe.address.port();
        let is_reached = matches!(probe.answer, ProbeAnswer::Reached { .. });
        is_reached || port == HTTPS || asked.contains(&port) || told.contains(&port)
    });
}

/// Has the server connect back, on IPv4, and from two addresses if it can.
async fn connect_back(connector: &TlsConnector, probed: &[ProbedServer]) -> Option<Probes> {
    let reached = probed.iter().filter(|probed| {
        let ServerProbe { address, answer } = &probed.probe;
        address.is_ipv4() && matches!(answer, ProbeAnswer::Reached { .. })
    });
    let best = reached.min_by_key(|probed| probed.other_address.is_none());
    probes::ask(connector, best?.probe.address).await
}

fn is_beyond_router(reached: &[SocketAddr]) -> bool {
    reached.iter().any(|server| !server.ip().is_loopback())
}

/// What came of probing.
#[derive(Debug)]
struct ProbedServer {
    probe: ServerProbe,
    /// The server's, where it was reached.
    key: Option<PeerKey>,
    /// Another address that the server told.
    other_address: Option<IpAddr>,
    /// The ports that it told.
    ports: Vec<u16>,
}

async fn probe_servers(connector: &TlsConnector, places: &[SocketAddr]) -> Vec<ProbedServer> {
    let mut probing = JoinSet::new();
    for (order, &address) in places.iter().enumerate() {
        let connector = connector.clone();
        probing.spawn(async move { (order, probe_server(&connector, address).await) });
    }
    let mut probed = probing.join_all().await;
    probed.sort_by_key(|(order, _)| *order);
    probed.into_iter().map(|(_, probed)| probed).collect()
}

async fn probe_server(connector: &TlsConnector, address: SocketAddr) -> ProbedServer {
    let began = Instant::now();
    let (mut key, mut other_address, mut ports) = (None, None, Vec::new());
    let answer = match timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await {
        Err(_) => ProbeAnswer::Silent,
        Ok(Err(error)) => not_connected(&error),
        Ok(Ok(tcp)) => {
            let connect_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let observed = async {
                let mut stream = handshake(connector, tcp).await?;
                let seen = observe::observe(&mut stream).await?;
                let key = tls::proven_key(stream.get_ref().1, ALPN_RENDEZVOUS).ok();
                Ok::<_, WireError>((key, seen))
            };
            match timeout(PROBE_TIMEOUT, observed).await {
                Ok(Ok((proven, seen))) => {
                    key = proven;
                    other_address = seen.other_address.map(|ip| ip.to_canonical());
                    ports = seen.observer_ports;
                    ports.truncate(MAX_PORTS);
                    ProbeAnswer::Reached { connect_ms }
                }
                Ok(Err(error)) => ProbeAnswer::NotTheServer {
                    reason: error.to_string(),
                },
                Err(_) => ProbeAnswer::NotTheServer {
                    reason: "it says nothing".to_owned(),
                },
            }
        }
    };
    ProbedServer {
        probe: ServerProbe { address, answer },
        key,
        other_address,
        ports,
    }
}

fn not_connected(error: &io::Error) -> ProbeAnswer {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ProbeAnswer::Refused,
        io::ErrorKind::PermissionDenied => ProbeAnswer::Forbidden,
        io::ErrorKind::TimedOut => ProbeAnswer::Silent,
        _ => ProbeAnswer::Failed {
            reason: error.to_string(),
        },
    }
}

/// Observes fresh local ports from every address of IPv4 that was reached, all
/// at once: what others do meanwhile shall not look like a pattern of the NAT.
/// Of IPv6, one is enough.
async fn observe_all(connector: &TlsConnector, reached: &[SocketAddr]) -> Vec<Observation> {
    let v4: Vec<SocketAddr> = reached
        .iter()
        .copied()
        .filter(SocketAddr::is_ipv4)
        .collect();
    let mut observing = JoinSet::new();
    for _ in 0..FRESH_PORTS {
        let bound = LocalPort::bind((Ipv4Addr::UNSPECIFIED, 0).into(), AddressReuse::On);
        let Ok(port) = bound.map(Arc::new) else { break };
        for &server in &v4 {
            observing.spawn(observe(connector.clone(), port.clone(), server));
        }
    }
    if let Some(&server) = reached.iter().find(|server| server.is_ipv6()) {
        let any = SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), 0);
        if let Ok(port) = LocalPort::bind(any, AddressReuse::On) {
            observing.spawn(observe(connector.clone(), Arc::new(port), server));
        }
    }
    let mut observations: Vec<_> = observing.join_all().await.into_iter().flatten().collect();
    observations.sort_by_key(|o: &Observation| (o.local, o.server));
    observations
}

async fn observe(
    connector: TlsConnector,
    port: Arc<LocalPort>,
    server: SocketAddr,
) -> Option<Observation> {
    let observed = async {
        let tcp = port.connect(server).await.ok()?;
        let local = tcp.local_addr().ok()?;
        let mut stream = handshake(&connector, tcp).await.ok()?;
        let seen = observe::observe(&mut stream).await.ok()?;
        Some(Observation {
            local,
            server,
            seen: seen.address,
        })
    };
    timeout(PROBE_TIMEOUT, observed).await.ok().flatten()
}

/// What the router grants, and what it says its outside is; `None` when there is
/// nobody to ask, or no reason to.
async fn ask(mapper: Option<PortMapper>) -> Option<(PortMappingAnswer, RouterOutside)> {
    let mapper = mapper?;
    let port = LocalPort::bind((Ipv4Addr::UNSPECIFIED, 0).into(), AddressReuse::On).ok()?;
    Some(match mapper.examine(port.address().port()).await {
        Some(grant) => (
            PortMappingAnswer::Granted(grant),
            RouterOutside::Address(grant.external.ip()),
        ),
        None => (PortMappingAnswer::NotGranted, mapper.outside().await),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_knocks_at_two_addresses_of_each_family_and_at_https() {
        let addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"]
            .map(|ip| SocketAddr::new(ip.parse().unwrap(), 0));
        let texts = |port| -> Vec<String> {
            let places = places(&addresses, port);
            places.iter().map(ToString::to_string).collect()
        };
        let two_of_v4_one_of_v6 = [
            "192.0.2.1:4747",
            "192.0.2.1:4748",
            "192.0.2.1:443",
            "192.0.2.2:4747",
            "192.0.2.2:4748",
            "192.0.2.2:443",
            "[2001:db8::1]:4747",
            "[2001:db8::1]:4748",
            "[2001:db8::1]:443",
        ];
        assert_eq!(texts(&[4747]), two_of_v4_one_of_v6);
        assert_eq!(texts(&[443]).len(), 6);
        assert_eq!(texts(&[u16::MAX]).len(), 6);
    }

    fn probed(at: &str, other_address: Option<&str>) -> ProbedServer {
        ProbedServer {
            probe: ServerProbe {
                address: at.parse().unwrap(),
                answer: ProbeAnswer::Reached { connect_ms: 50 },
            },
            key: None,
            other_address: other_address.map(|ip| ip.parse().unwrap()),
            ports: Vec::new(),
        }
    }

    #[test]
    fn the_ports_that_the_server_tells_count_instead_of_the_guess() {
        let mut all = vec![
            ProbedServer {
                ports: vec![4747, 9000],
                ..probed("203.0.113.1:4747", Some("203.0.113.2"))
            },
            probed("203.0.113.1:4748", None),
        ];
        all[1].probe.answer = ProbeAnswer::Refused;
        let places = other_places(&all);
        let places: Vec<_> = places.iter().map(ToString::to_string).collect();
        assert_eq!(
            places,
            ["203.0.113.1:9000", "203.0.113.2:4747", "203.0.113.2:9000"]
        );
        forget_guess(&mut all, &[4747]);
        assert_eq!(all.len(), 1);
        all[0].ports.clear();
        all.push(probed("203.0.113.1:4748", None));
        all[1].probe.answer = ProbeAnswer::Refused;
        forget_guess(&mut all, &[4747]);
        assert_eq!(all.len(), 2, "an older server tells none");
    }

    /// Where to knock after a server at the first address has told the second.
    fn told(at: &str, other_address: &str) -> Vec<String> {
        let known = probed("203.0.113.3:4747", None);
        let places = other_places(&[known, probed(at, Some(other_address))]);
        places.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_server_s_other_address_is_tried_where_it_may_be_one() {
        assert_eq!(told("203.0.113.1:443", "203.0.113.2"), ["203.0.113.2:443"]);
        assert_eq!(told("127.0.0.1:4747", "127.0.0.2"), ["127.0.0.2:4747"]);
        assert_eq!(told("[2001:db8::1]:4747", "2001:db8::2").len(), 1);
        let refused = [
            ("203.0.113.1:4747", "192.168.1.1"),
            ("203.0.113.1:4747", "127.0.0.1"),
            ("203.0.113.1:4747", "169.254.169.254"),
            ("203.0.113.1:4747", "224.0.0.1"),
            ("203.0.113.1:4747", "2001:db8::2"),
            ("[2001:db8::1]:4747", "64:ff9b::a00:1"),
            // Known already.
            ("203.0.113.1:4747", "203.0.113.3"),
        ];
        for (at, other) in refused {
            assert_eq!(told(at, other), [""; 0], "{at} {other}");
        }
    }

    #[test]
    fn what_the_system_says_is_told_apart() {
        let answer = |kind: io::ErrorKind| not_connected(&kind.into());
        assert_eq!(
            answer(io::ErrorKind::ConnectionRefused),
            ProbeAnswer::Refused
        );
        assert_eq!(
            answer(io::ErrorKind::PermissionDenied),
            ProbeAnswer::Forbidden
        );
        assert_eq!(answer(io::ErrorKind::TimedOut), ProbeAnswer::Silent);
        let other = answer(io::ErrorKind::NetworkUnreachable);
        assert!(matches!(other, ProbeAnswer::Failed { .. }));
    }
}
