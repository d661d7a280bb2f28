//! Warm binding: a local port whose public address is known before anyone
//! wants to connect.
//!
//! A punch port is a fresh local port of each address family from which
//! connections to the server's two ports are open. The server tells the public
//! address it sees each of them come from; as long as they are open, the NAT
//! keeps the port's mapping. One attempt to connect consumes the port, because
//! a second one from it to the same peer would collide with the first.
//!
//! The port of the connection of the login can serve as one, too. It costs nothing, so
//! it is the one that whoever is idle has.

use std::future::{pending, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use pinhole_proto::candidate::predict;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::debug;

use crate::candidates::ReachablePort;
use crate::port_mapping::{PortMapper, PortMapping};
use crate::rendezvous::WireError;
use crate::rendezvous::observe;
use crate::rendezvous::server::{Server, ServerStream};
use crate::report::MappingBehaviour;
use crate::socket::{self, LocalPort};

/// How long an observation may take.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(3);
/// How much longer an address family may take once the other one is known.
const OTHER_FAMILY_TIMEOUT: Duration = Duration::from_millis(100);
/// How long the server's other port has when a prediction needs it.
const OTHER_PORT_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause before a port that was lost, or could not be observed, is replaced.
pub(super) const REPLACE_PAUSE: Duration = Duration::from_secs(5);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct PunchPort {
    pub(super) families: Vec<Family>,
    /// What the router is asked for; absent when it is not to be asked.
    mapping: Option<PortMapping>,
    /// The first observation of each family: the server is silent on them.
    observers: Vec<ServerStream>,
    /// Those from the server's other port. Each ends with its connection.
    second_observers: JoinSet<()>,
    /// Present when the connection of the login comes from this port, too.
    shared_with_login: Option<OwnedSemaphorePermit>,
}

/// What the login tells of observations.
#[derive(Debug, Clone)]
pub(crate) struct Observing {
    /// From where the server sees the connection of the login itself.
    pub(crate) control: SocketAddr,
    /// The local port of that connection, unless it goes through a proxy.
    pub(crate) control_port: Option<Arc<LocalPort>>,
    /// The other port on which the server observes, if it has one: two observations
    /// show whether the mapping depends on the destination.
    pub(crate) other_port: Option<u16>,
}

/// `None` until the login is answered.
pub(super) type WhenObserving = watch::Receiver<Option<Observing>>;

/// The port of one address family.
#[derive(Debug)]
pub(super) struct Family {
    port: Arc<LocalPort>,
    /// What the server saw, one address for each observation. The second one
    /// may come when the port is in use already.
    pub(super) observed: Arc<watch::Sender<Vec<SocketAddr>>>,
}

impl PunchPort {
    /// Takes a fresh local port and has it observed. Ports that the server
    /// cannot observe serve nevertheless, by their host addresses.
    ///
    /// # Errors
    /// When no port of either family can be bound.
    pub(super) async fn prepare(
        server: &Arc<Server>,
        observing: &WhenObserving,
        mapper: Option<&PortMapper>,
    ) -> io::Result<Self> {
        let (v4, v6) = (LocalPort::bind_any(false), LocalPort::bind_any(true));
        let families: Vec<Family> = match (v4, v6) {
            (Err(error), Err(_)) => return Err(error),
            (v4, v6) => [v4, v6].into_iter().flatten().map(Family::new).collect(),
        };
        let v4_port = families.iter().map(|family| family.port.address());
        let v4_port = v4_port.filter(SocketAddr::is_ipv4).map(|a| a.port()).next();
        let mut punch_port = Self {
            mapping: mapper
                .zip(v4_port)
                .and_then(|(mapper, port)| mapper.keep(port)),
            families,
            observers: Vec::new(),
            second_observers: JoinSet::new(),
            shared_with_login: None,
        };
        punch_port.observe(server, observing).await;
        Ok(punch_port)
    }

    /// The port of the connection of the login, and a fresh one of the other family. The
    /// server has seen the first already, and the connection keeps its mapping, so nobody
    /// waits for it. `None` when there is no such port.
    pub(super) fn of_login(
        server: &Arc<Server>,
        observing: &WhenObserving,
        permit: OwnedSemaphorePermit,
    ) -> Option<Self> {
        let told = observing.borrow().clone()?;
        let port = told.control_port?;
        let is_ipv6 = port.address().is_ipv6();
        let seen = Family {
            port,
            observed: Arc::new(watch::Sender::new(vec![told.control])),
        };
        let other = LocalPort::bind_any(!is_ipv6).ok().map(Family::new);
        let mut punch_port = Self {
            mapping: None,
            families: std::iter::once(seen).chain(other).collect(),
            observers: Vec::new(),
            second_observers: JoinSet::new(),
            shared_with_login: Some(permit),
        };
        if let (Some(ip), Some(seen)) = (server.ip(is_ipv6), punch_port.families.first()) {
            let (server, port) = (server.clone(), seen.port.clone());
            let (observing, observed) = (observing.clone(), seen.observed.clone());
            punch_port.second_observers.spawn(async move {
                observe_second(&server, &port, ip, observing, &observed).await;
            });
        }
        Some(punch_port)
    }

    /// Whether the connection of the login comes from this port. No other one leads to
    /// the server's first port then.
    pub(crate) const fn is_shared_with_login(&self) -> bool {
        self.shared_with_login.is_some()
    }

    /// As [`PunchPort::prepare`], and waits for the second observation: a NAT
    /// that counts its ports up is predicted from what it did just now.
    pub(super) async fn prepare_to_predict(
        server: &Arc<Server>,
        observing: &WhenObserving,
        mapper: Option<&PortMapper>,
    ) -> io::Result<Self> {
        let port = Self::prepare(server, observing, mapper).await?;
        port.observed_twice().await;
        Ok(port)
    }

    pub(super) async fn observed_twice(&self) {
        if let Some(v4) = self.v4() {
            let mut observed = v4.observed.subscribe();
            let twice = observed.wait_for(|observed| observed.len() >= 2);
            // Late is as good as never: the counter has gone on.
            let _ = timeout(OTHER_PORT_TIMEOUT, twice).await;
        }
    }

    /// Whether the second observation is still to come.
    pub(super) fn is_once_observed(&self) -> bool {
        self.v4().is_some_and(|v4| v4.observed.borrow().len() == 1)
    }

    /// Whether the NAT counts its ports up, as far as two observations of this one
    /// tell, or the only one beside that of the login.
    pub(super) fn is_counted(&self, told: Option<&Observing>) -> bool {
        let Some(v4) = self.v4() else {
            return false;
        };
        match (v4.observed.borrow().as_slice(), told) {
            ([one], Some(told)) if told.other_port.is_some() => {
                let is_kept = one.port() == v4.port.address().port();
                !is_kept && !predict(told.control, *one).is_empty()
            }
            _ => !v4.predicted().is_empty(),
        }
    }

    /// Has each family observed once; the second observation goes on alone.
    async fn observe(&mut self, server: &Arc<Server>, observing: &WhenObserving) {
        let mut first = JoinSet::new();
        for family in &self.families {
            let Some(ip) = server.ip(family.port.address().is_ipv6()) else {
                continue;
            };
            let (server_, port, observed) = (server.clone(), &family.port, &family.observed);
            let from = SocketAddr::new(ip, server.port());
            let (port_, observed_) = (port.clone(), observed.clone());
            first.spawn(async move { observe(&server_, &port_, from, &observed_).await });
            let (server, port, observed) = (server.clone(), port.clone(), observed.clone());
            let observing = observing.clone();
            self.second_observers.spawn(async move {
                observe_second(&server, &port, ip, observing, &observed).await;
            });
        }
        let mut deadline = Instant::now() + OBSERVE_TIMEOUT;
        while let Ok(Some(done)) = timeout_at(deadline, first.join_next()).await {
            match done {
                Ok(Ok(stream)) => {
                    self.observers.push(stream);
                    deadline = deadline.min(Instant::now() + OTHER_FAMILY_TIMEOUT);
                }
                Ok(Err(error)) => debug!(%error, "no observation"),
                Err(_) => {}
            }
        }
    }

    /// Where a peer may reach this port.
    pub(crate) fn reachable(&self) -> Vec<ReachablePort> {
        let reachable = |family: &Family| ReachablePort {
            port: family.port.address().port(),
            is_ipv6: family.port.address().is_ipv6(),
            observed: family.observed.borrow().first().copied(),
            predicted: family.predicted(),
            mapped: self.mapped().filter(|_| family.port.address().is_ipv4()),
        };
        self.families.iter().map(reachable).collect()
    }

    /// A connection to the server that can be used for something else now: it
    /// still keeps the port's mapping.
    pub(crate) fn take_observer(&mut self) -> Option<ServerStream> {
        self.observers.pop()
    }

    /// Where the router forwards connections to this port from, by now.
    fn mapped(&self) -> Option<SocketAddr> {
        self.mapping.as_ref().and_then(PortMapping::external)
    }

    /// The mapping, for the session that came of this port to keep.
    pub(crate) fn take_mapping(&mut self) -> Option<PortMapping> {
        self.mapping
            .take()
            .filter(|mapping| mapping.external().is_some())
    }

    /// What the NAT does with the IPv4 port; IPv6 has no NAT to speak of.
    pub(crate) fn mapping(&self) -> MappingBehaviour {
        let Some(v4) = self.v4() else {
            return MappingBehaviour::Unknown;
        };
        match v4.observed.borrow().as_slice() {
            [one, other, ..] if one == other => MappingBehaviour::Stable,
            [_, _, ..] => MappingBehaviour::Varies,
            _ => MappingBehaviour::Unknown,
        }
    }

    /// A listener on the port of each family.
    pub(crate) fn listen(&self) -> Vec<io::Result<TcpListener>> {
        self.families.iter().map(|f| f.port.listen()).collect()
    }

    /// The port from which `remote` can be dialled.
    pub(crate) fn towards(&self, remote: SocketAddr) -> Option<Arc<LocalPort>> {
        let fits = |f: &&Family| f.port.address().is_ipv6() == remote.is_ipv6();
        self.families.iter().find(fits).map(|f| f.port.clone())
    }

    fn v4(&self) -> Option<&Family> {
        let mut families = self.families.iter();
        families.find(|family| family.port.address().is_ipv4())
    }

    /// Returns when the port is worth replacing: one of the connections that
    /// keep its mapping is gone, or there was none.
    pub(super) async fn lost(&mut self) {
        if self.families.iter().all(|f| f.observed.borrow().is_empty()) {
            return sleep(REPLACE_PAUSE).await;
        }
        let mut first: Vec<_> = self.observers.iter_mut().map(until_closed).collect();
        let one_of_first = poll_fn(|context| {
            let mut closed = first.iter_mut().map(|one| one.as_mut().poll(context));
            match closed.any(|polled| polled.is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        });
        tokio::select! {
            () = one_of_first => {}
            _ = self.second_observers.join_next(), if !self.second_observers.is_empty() => {}
        }
    }
}

impl Family {
    fn new(port: LocalPort) -> Self {
        Self {
            port: Arc::new(port),
            observed: Arc::default(),
        }
    }

    /// Where the NAT will most likely put the next connections.
    fn predicted(&self) -> Vec<SocketAddr> {
        match self.observed.borrow().as_slice() {
            [one, other, ..] => predict(*one, *other),
            _ => Vec::new(),
        }
    }
}

/// Has the server at `from` tell the public address of `port`.
async fn observe(
    server: &Server,
    port: &LocalPort,
    from: SocketAddr,
    observed: &watch::Sender<Vec<SocketAddr>>,
) -> Result<ServerStream, WireError> {
    let tcp = port.connect(from).await?;
    socket::tune(&tcp)?;
    let mut stream = server.secure_for_relay(tcp).await?;
    let seen = observe::observe(&mut stream).await?;
    observed.send_modify(|observed| observed.push(seen.address));
    Ok(stream)
}

/// Observes from the server's second port, as soon as that is known. Ends when
/// the connection does, and never when there is none: the port is as good
/// without.
async fn observe_second(
    server: &Server,
    port: &LocalPort,
    ip: IpAddr,
    mut observing: WhenObserving,
    observed: &watch::Sender<Vec<SocketAddr>>,
) {
    let answered = observing.wait_for(Option::is_some).await;
    let other_port = answered.ok().and_then(|told| told.as_ref()?.other_port);
    if let Some(server_port) = other_port {
        let from = SocketAddr::new(ip, server_port);
        let observing = timeout(OBSERVE_TIMEOUT, observe(server, port, from, observed));
        match observing.await {
            Ok(Ok(mut stream)) => return until_closed(&mut stream).await,
            Ok(Err(error)) => debug!(%error, "no second observation"),
            Err(_) => debug!("no second observation in time"),
        }
    }
    pending::<()>().await;
}

/// Holds a connection until the other end closes it.
fn until_closed(stream: &mut ServerStream) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
    Box::pin(async {
        let mut ignored = [0; 64];
        while matches!(stream.read(&mut ignored).await, Ok(1..)) {}
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::socket::AddressReuse;

    /// A port of this machine that the server saw there.
    fn seen(observed: impl Fn(u16) -> Vec<u16>) -> PunchPort {
        let port = LocalPort::bind((Ipv4Addr::LOCALHOST, 0).into(), AddressReuse::On).unwrap();
        let observed = observed(port.address().port()).into_iter();
        let family = Family::new(port);
        family.observed.send_replace(observed.map(public).collect());
        PunchPort {
            families: vec![family],
            mapping: None,
            observers: Vec::new(),
            second_observers: JoinSet::new(),
            shared_with_login: None,
        }
    }

    fn public(port: u16) -> SocketAddr {
        ([203, 0, 113, 9], port).into()
    }

    #[test]
    fn one_observation_near_that_of_the_login_shows_a_nat_that_counts() {
        let told = |control| {
            Some(Observing {
                control: public(control),
                control_port: None,
                other_port: Some(1),
            })
        };
        let is_counted = |observed: &[u16], told: Option<Observing>| {
            seen(|_| observed.to_vec()).is_counted(told.as_ref())
        };
        assert!(is_counted(&[1001], told(1000)));
        assert!(!is_counted(&[1001], told(30_000)), "drawn at random");
        assert!(
            !is_counted(&[1001], None),
            "no second observation will come"
        );
        assert!(!is_counted(&[], told(1000)));
        assert!(is_counted(&[2001, 2002], told(1000)), "a while later");
        assert!(!is_counted(&[1001, 1001], told(1000)), "two say more");
        // By chance: the local port was near.
        let kept = seen(|own| vec![own]);
        let own = kept.v4().unwrap().port.address().port();
        assert!(!kept.is_counted(told(own - 1).as_ref()));
    }

    #[test]
    fn a_nat_that_shows_each_server_another_port_is_told_as_such() {
        let port = seen(|_| vec![1000, 1001]);
        assert_eq!(port.mapping(), MappingBehaviour::Varies);
        assert_eq!(port.reachable()[0].predicted.len(), 8);
    }
}
