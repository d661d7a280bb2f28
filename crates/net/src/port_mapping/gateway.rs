//! The router, and what each of the three protocols has it do.
//!
//! PCP (RFC 6887) and NAT-PMP (RFC 6886) are one datagram to the default
//! gateway and one back; `UPnP` (IGD) is a search by multicast and HTTP. All of
//! them are spoken by crates that check what comes back; what is asked for, in
//! which order and for how long is decided here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use crab_nat::{
    InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp, pcp,
};
use igd_next::aio::Gateway as Igd;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, PortMappingProtocol, SearchOptions};
use tokio::time::timeout;
use tracing::debug;

use super::{MappingProtocol, RouterOutside};

/// How long the router is asked to keep a mapping. One left behind by a crash
/// leads to a closed port for no longer.
const LIFETIME_S: u32 = 3_600;
/// A datagram to the router is repeated once: 0.75 s in all.
const DATAGRAMS: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 1,
    max_retry_timeout: None,
};
/// How much longer than a worse protocol a better one may take to answer.
const HEAD_START: Duration = Duration::from_millis(150);
/// How long a `UPnP` router may take to be found.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long anything else asked of a `UPnP` router may take.
const UPNP_TIMEOUT: Duration = Duration::from_secs(2);
/// What the list of mappings in the router's own pages shows.
const DESCRIPTION: &str = "Pinhole";

/// The network this machine is in, as far as port mapping goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    /// The router.
    pub(super) gateway: Ipv4Addr,
    /// Our address in front of it.
    pub(super) local: Ipv4Addr,
    /// Where `UPnP` routers listen for who searches them.
    pub(super) search: SocketAddr,
}

impl Network {
    /// The network of the default route; `None` without one. Blocks for about
    /// as long as a system call takes.
    pub(super) fn current() -> Option<Self> {
        let gateway = *netdev::get_default_gateway().ok()?.ipv4.first()?;
        // Connecting a datagram socket sends nothing, and chooses the address.
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((gateway, crab_nat::GATEWAY_PORT)).ok()?;
        let IpAddr::V4(local) = socket.local_addr().ok()?.ip() else {
            return None;
        };
        Some(Self {
            gateway,
            local,
            search: ([239, 255, 255, 250], 1900).into(),
        })
    }
}

/// What the router says of its own outside, whether it grants mappings or not.
pub(super) async fn outside(network: Network) -> RouterOutside {
    let gateway = network.gateway.into();
    let nat_pmp = natpmp::external_address(gateway, Some(DATAGRAMS));
    let upnp = async {
        let Some(Gateway::Upnp(_, gateway)) = search(network).await else {
            return None;
        };
        let external = timeout(UPNP_TIMEOUT, gateway.get_external_ip()).await;
        external.ok()?.ok()
    };
    match Box::pin(async { tokio::join!(nat_pmp, upnp) }).await {
        (Ok(ip), _) if !ip.is_unspecified() => RouterOutside::Address(ip.into()),
        (_, Some(ip)) if !ip.is_unspecified() => RouterOutside::Address(ip),
        (Err(natpmp::Failure::NetworkFailure), _) => RouterOutside::Unusable,
        _ => RouterOutside::Unsaid,
    }
}

/// A router that has granted a mapping before, and how.
#[derive(Debug, Clone)]
pub(super) enum Gateway {
    Pcp(Network),
    NatPmp(Network),
    Upnp(Network, Box<Igd<Tokio>>),
}

/// A port that the router has opened.
#[derive(Debug)]
pub(super) struct Mapping {
    /// Where it can be reached.
    pub(super) external: SocketAddr,
    /// How long, unless it is renewed.
    pub(super) lifetime: Duration,
    grant: Grant,
}

/// What it takes to renew and release a mapping.
#[derive(Debug)]
enum Grant {
    Datagram(PortMapping),
    Upnp {
        gateway: Box<Igd<Tokio>>,
        local: SocketAddr,
    },
}

/// Why there is no mapping: for the log, and for nobody else.
#[derive(Debug, thiserror::Error)]
pub(super) enum MapError {
    #[error("{0}")]
    Datagram(#[from] crab_nat::MappingFailure),
    #[error("UPnP: {0}")]
    Upnp(String),
    #[error("the router granted something else than it was asked for")]
    Mismatch,
}

impl From<pcp::Failure> for MapError {
    fn from(failure: pcp::Failure) -> Self {
        Self::Datagram(failure.into())
    }
}

impl From<natpmp::Failure> for MapError {
    fn from(failure: natpmp::Failure) -> Self {
        Self::Datagram(failure.into())
    }
}

fn upnp_error(error: impl fmt::Display) -> MapError {
    MapError::Upnp(error.to_string())
}

impl Gateway {
    /// Asks in every language at once, and maps in the best that is answered:
    /// PCP, NAT-PMP, `UPnP`.
    pub(super) async fn discover(network: Network, port: NonZeroU16) -> Option<(Self, Mapping)> {
        let pcp = async {
            let pcp = Self::Pcp(network);
            granted(pcp.map(port).await).map(|mapping| (pcp, mapping))
        };
        let nat_pmp = async {
            let gateway = network.gateway.into();
            let external = natpmp::external_address(gateway, Some(DATAGRAMS)).await;
            external.ok().map(|_| Self::NatPmp(network))
        };
        let map = async |gateway: Self| {
            let mapping = granted(gateway.map(port).await)?;
            Some((gateway, mapping))
        };
        let by_datagram = prefer(pcp, nat_pmp, map);
        // Boxed, as all that may take kilobytes: a task of each port holds it.
        Box::pin(prefer(by_datagram, search(network), map)).await
    }

    /// Asks for a mapping of a local port, preferably to the same port outside.
    pub(super) async fn map(&self, port: NonZeroU16) -> Result<Mapping, MapError> {
        let options = PortMappingOptions {
            external_port: Some(port),
            lifetime_seconds: Some(LIFETIME_S),
            timeout_config: Some(DATAGRAMS),
        };
        match self {
            Self::Pcp(network) => {
                let request = pcp::BaseMapRequest::new(
                    network.gateway.into(),
                    network.local.into(),
                    InternetProtocol::Tcp,
                    port,
                );
                let granted = pcp::port_mapping(request, None, None, options).await?;
                let PortMappingType::Pcp { external_ip, .. } = granted.mapping_type() else {
                    return Err(MapError::Mismatch);
                };
                Ok(Mapping::by_datagram(granted, external_ip))
            }
            Self::NatPmp(network) => {
                let gateway = network.gateway.into();
                let external = natpmp::external_address(gateway, Some(DATAGRAMS)).await?;
                let granted =
                    natpmp::port_mapping(gateway, InternetProtocol::Tcp, port, options).await?;
                Ok(Mapping::by_datagram(granted, external.into()))
            }
            Self::Upnp(network, gateway) => {
                let local = SocketAddr::new(network.local.into(), port.get());
                let mapped = timeout(UPNP_TIMEOUT, Box::pin(map_by_upnp(gateway, local)));
                let external = mapped.await.map_err(upnp_error)??;
                Ok(Mapping {
                    external,
                    lifetime: Duration::from_secs(LIFETIME_S.into()),
                    grant: Grant::Upnp {
                        gateway: gateway.clone(),
                        local,
                    },
                })
            }
        }
    }
}

/// The mapping; why there is none goes to the log.
fn granted(mapped: Result<Mapping, MapError>) -> Option<Mapping> {
    mapped
        .inspect_err(|error| debug!(%error, "not mapped"))
        .ok()
}

/// What `better` leads to, or else what `probe` followed by `map` does. The
/// former has precedence for [`HEAD_START`] after the probe is answered, so that
/// one port is rarely mapped twice.
async fn prefer<P, T>(
    better: impl Future<Output = Option<T>>,
    probe: impl Future<Output = Option<P>>,
    map: impl AsyncFnOnce(P) -> Option<T>,
) -> Option<T> {
    tokio::pin!(better, probe);
    let answered = tokio::select! {
        found = &mut better => match found {
            Some(found) => return Some(found),
            None => return map(probe.await?).await,
        },
        answered = &mut probe => answered,
    };
    let Some(answered) = answered else {
        return better.await;
    };
    match timeout(HEAD_START, &mut better).await {
        Ok(Some(found)) => Some(found),
        Ok(None) => map(answered).await,
        Err(_) => match map(answered).await {
            Some(found) => Some(found),
            None => better.await,
        },
    }
}

impl Mapping {
    fn by_datagram(granted: PortMapping, external: IpAddr) -> Self {
        let external = SocketAddr::new(external.to_canonical(), granted.external_port().get());
        Self {
            external,
            lifetime: Duration::from_secs(granted.lifetime().into()),
            grant: Grant::Datagram(granted),
        }
    }

    /// How it was asked for.
    pub(super) fn protocol(&self) -> MappingProtocol {
        match &self.grant {
            Grant::Datagram(granted) => match granted.mapping_type() {
                PortMappingType::NatPmp => MappingProtocol::NatPmp,
                PortMappingType::Pcp { .. } => MappingProtocol::Pcp,
            },
            Grant::Upnp { .. } => MappingProtocol::Upnp,
        }
    }

    /// Asks for another lifetime. The external port may be another afterwards.
    pub(super) async fn renew(&mut self) -> Result<(), MapError> {
        match &mut self.grant {
            Grant::Datagram(granted) => {
                granted.renew().await?;
                let external_ip = match granted.mapping_type() {
                    PortMappingType::Pcp { external_ip, .. } => external_ip.to_canonical(),
                    PortMappingType::NatPmp => self.external.ip(),
                };
                self.external = SocketAddr::new(external_ip, granted.external_port().get());
                self.lifetime = Duration::from_secs(granted.lifetime().into());
                Ok(())
            }
            Grant::Upnp { gateway, local } => {
                let renewed = Box::pin(add_port(gateway, self.external.port(), *local));
                timeout(UPNP_TIMEOUT, renewed)
                    .await
                    .map_err(upnp_error)?
                    .map_err(upnp_error)
            }
        }
    }

    /// Has the router close the port again.
    pub(super) async fn release(self) -> Result<(), MapError> {
        match self.grant {
            Grant::Datagram(granted) => {
                let released = granted.try_drop().await;
                released.map_err(|(failure, _)| failure.into())
            }
            Grant::Upnp { gateway, .. } => {
                let port = self.external.port();
                let removed = Box::pin(gateway.remove_port(PortMappingProtocol::TCP, port));
                timeout(UPNP_TIMEOUT, removed)
                    .await
                    .map_err(upnp_error)?
                    .map_err(upnp_error)
            }
        }
    }
}

/// Finds a router that speaks `UPnP`.
async fn search(network: Network) -> Option<Gateway> {
    // Not all of its fields may be named, so that it has no literal.
    let mut options = SearchOptions::default();
    options.bind_addr = SocketAddr::new(network.local.into(), 0);
    options.broadcast_address = network.search;
    options.allowed_gateway_ips = vec![network.gateway.into()];
    match timeout(SEARCH_TIMEOUT, search_gateway(options)).await {
        Ok(Ok(found)) => Some(Gateway::Upnp(network, Box::new(found))),
        Ok(Err(error)) => {
            debug!(%error, "no UPnP router");
            None
        }
        Err(_) => None,
    }
}

async fn map_by_upnp(gateway: &Igd<Tokio>, local: SocketAddr) -> Result<SocketAddr, MapError> {
    // Each is an HTTP exchange with a slow machine: both at once.
    let (external, added) = tokio::join!(
        gateway.get_external_ip(),
        add_port(gateway, local.port(), local)
    );
    let port = match added {
        Ok(()) => local.port(),
        Err(AddPortError::PortInUse) => gateway
            .add_any_port(PortMappingProtocol::TCP, local, LIFETIME_S, DESCRIPTION)
            .await
            .map_err(upnp_error)?,
        // Routers that know only mappings without an end are not asked for
        // one: a crash would leave it for good.
        Err(error) => return Err(upnp_error(error)),
    };
    match external {
        Ok(ip) => Ok(SocketAddr::new(ip.to_canonical(), port)),
        Err(error) => {
            let _ = gateway.remove_port(PortMappingProtocol::TCP, port).await;
            Err(upnp_error(error))
        }
    }
}

async fn add_port(
    gateway: &Igd<Tokio>,
    external_port: u16,
    local: SocketAddr,
) -> Result<(), AddPortError> {
    let protocol = PortMappingProtocol::TCP;
    gateway
        .add_port(protocol, external_port, local, LIFETIME_S, DESCRIPTION)
        .await
}
