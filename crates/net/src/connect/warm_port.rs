//! Keeping a punch port ready while somebody may soon connect.
//!
//! A warm port costs the server two connections. Whoever is idle keeps none: the first
//! attempt then uses the port of the connection of the login, which the server sees
//! anyway. All other attempts, and those behind a NAT that maps each destination anew,
//! wait until a fresh port is observed.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use pinhole_proto::candidate::LoopbackAddresses;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::punch_port::{PunchPort, REPLACE_PAUSE, WhenObserving};
use crate::port_mapping::PortMapper;
use crate::rendezvous::server::Server;

/// Whether a port is kept ready for the next attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warmth {
    /// One is, with two connections to the server and perhaps a mapping of the router.
    Warm,
    /// None is. The next attempt shares the port of the connection of the login.
    Cold,
}

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortUse {
    /// The first round of an attempt to connect.
    FirstRound,
    /// A later round, or the search for a better path: ports of earlier rounds have not
    /// led there.
    LaterRound,
}

/// Somebody who waits for a port.
struct Request {
    port_use: PortUse,
    reply: oneshot::Sender<io::Result<PunchPort>>,
}

impl Request {
    /// A requester that has left meanwhile has no use for the port.
    fn answer(self, port: io::Result<PunchPort>) {
        drop(self.reply.send(port));
    }
}

/// Gives out punch ports, and keeps one ready while it is told to.
#[derive(Debug)]
pub(crate) struct WarmPort {
    requests: mpsc::Sender<Request>,
    warmth: watch::Sender<Warmth>,
    task: AbortHandle,
}

impl Drop for WarmPort {
    /// At once, also while a port is being prepared: its mapping is to be
    /// released before the program ends.
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl WarmPort {
    /// Begins to prepare a port if one is to be warm. Ends with the value.
    pub(crate) fn start(
        server: Arc<Server>,
        observing: WhenObserving,
        mapper: Option<PortMapper>,
        warmth: Warmth,
    ) -> Self {
        let (requests, receiver) = mpsc::channel(8);
        let (tell_warmth, told) = watch::channel(warmth);
        // A client on the server's own machine is not behind a router.
        let mapper = mapper.filter(|_| server.loopback() == LoopbackAddresses::Refused);
        let keeper = Keeper {
            server,
            observing,
            mapper,
            requests: receiver,
            warmth: told,
            login_port: Arc::new(Semaphore::new(1)),
            is_counted: false,
        };
        Self {
            requests,
            warmth: tell_warmth,
            task: tokio::spawn(keeper.run(warmth)).abort_handle(),
        }
    }

    /// From now on a port is kept ready, or none.
    pub(crate) fn set(&self, warmth: Warmth) {
        self.warmth.send_if_modified(|now| {
            let before = std::mem::replace(now, warmth);
            before != warmth
        });
    }

    /// Takes the port that is ready, or the next one that will be; another is
    /// prepared in its place.
    ///
    /// # Errors
    /// When no port can be bound.
    pub(crate) async fn take(&self, port_use: PortUse) -> io::Result<PunchPort> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let (reply, port) = oneshot::channel();
        let request = Request { port_use, reply };
        self.requests.send(request).await.map_err(|_| gone())?;
        port.await.map_err(|_| gone())?
    }
}

/// The task behind a [`WarmPort`]. Its methods return `None` once nobody can ask for a
/// port any more.
struct Keeper {
    server: Arc<Server>,
    observing: WhenObserving,
    mapper: Option<PortMapper>,
    requests: mpsc::Receiver<Request>,
    warmth: watch::Receiver<Warmth>,
    /// One attempt at a time uses the port of the login.
    login_port: Arc<Semaphore>,
    /// The NAT counts its ports up. Known of this network from now on.
    is_counted: bool,
}

impl Keeper {
    async fn run(mut self, begun: Warmth) {
        // It may have been told otherwise before its first step.
        let mut was_cold = begun == Warmth::Cold;
        loop {
            let warmth = *self.warmth.borrow_and_update();
            let changed = match warmth {
                Warmth::Warm => self.stay_warm(was_cold).await,
                Warmth::Cold => self.stay_cold().await,
            };
            was_cold = warmth == Warmth::Cold;
            if changed.is_none() {
                return;
            }
        }
    }

    /// Keeps nothing, until that changes.
    async fn stay_cold(&mut self) -> Option<()> {
        loop {
            tokio::select! {
                request = self.requests.recv() => {
                    if let Err(request) = self.lend_login_port(request?) {
                        let prepared = self.prepare().await;
                        let prepared = self.ready_to_predict(prepared, true).await;
                        request.answer(prepared);
                    }
                }
                changed = self.warmth.changed() => return changed.ok(),
            }
        }
    }

    /// Keeps a port ready, until that changes. After cold times the port of the login
    /// serves whoever comes before the first one is ready.
    async fn stay_warm(&mut self, mut was_cold: bool) -> Option<()> {
        let mut waiting: Option<Request> = None;
        loop {
            let mut prepared = match std::mem::take(&mut was_cold) {
                true => self.prepare_and_lend(&mut waiting).await,
                false => self.prepare().await,
            };
            let is_awaited = waiting.is_some();
            let request = match (waiting.take(), &mut prepared) {
                (Some(request), _) => Some(request),
                (None, Ok(port)) => tokio::select! {
                    request = self.requests.recv() => Some(request?),
                    () = port.lost() => None,
                    changed = self.warmth.changed() => {
                        self.learn_from(port);
                        return changed.ok();
                    }
                },
                (None, Err(_)) => None,
            };
            if let Some(request) = request {
                let prepared = self.ready_to_predict(prepared, is_awaited).await;
                request.answer(prepared);
                // Preparing the next one would use up the ports that are predicted.
                if !self.is_counted {
                    continue;
                }
            }
            // No caller waits, so there is no hurry until one does.
            tokio::select! {
                request = self.requests.recv() => waiting = Some(request?),
                changed = self.warmth.changed() => return changed.ok(),
                () = sleep(REPLACE_PAUSE) => {}
            }
        }
    }

    async fn prepare(&self) -> io::Result<PunchPort> {
        PunchPort::prepare(&self.server, &self.observing, self.mapper.as_ref()).await
    }

    /// The same. Meanwhile the port of the login serves whoever may have it.
    async fn prepare_and_lend(&mut self, waiting: &mut Option<Request>) -> io::Result<PunchPort> {
        let (server, observing) = (self.server.clone(), self.observing.clone());
        let mapper = self.mapper.clone();
        let preparing = PunchPort::prepare(&server, &observing, mapper.as_ref());
        let mut preparing = pin!(preparing);
        loop {
            tokio::select! {
                prepared = &mut preparing => return prepared,
                Some(request) = self.requests.recv(), if waiting.is_none() => {
                    *waiting = self.lend_login_port(request).err();
                }
            }
        }
    }

    /// Gives the port of the login to who asks, or the request back. A NAT that counts
    /// maps each destination anew, so that what the server sees says nothing.
    fn lend_login_port(&self, request: Request) -> Result<(), Request> {
        if request.port_use != PortUse::FirstRound || self.is_counted {
            return Err(request);
        }
        let permit = self.login_port.clone().try_acquire_owned().ok();
        let port =
            permit.and_then(|permit| PunchPort::of_login(&self.server, &self.observing, permit));
        match port {
            Some(port) => request.answer(Ok(port)),
            None => return Err(request),
        }
        Ok(())
    }

    fn learn_from(&mut self, port: &PunchPort) {
        self.is_counted |= port.is_counted(self.observing.borrow().as_ref());
    }

    /// Behind a NAT that counts, a port that was observed twice just now: old
    /// observations say nothing about the next ports.
    async fn ready_to_predict(
        &mut self,
        prepared: io::Result<PunchPort>,
        is_fresh: bool,
    ) -> io::Result<PunchPort> {
        let port = prepared?;
        self.learn_from(&port);
        if !self.is_counted {
            return Ok(port);
        }
        if is_fresh || port.is_once_observed() {
            port.observed_twice().await;
            return Ok(port);
        }
        PunchPort::prepare_to_predict(&self.server, &self.observing, self.mapper.as_ref()).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pinhole_proto::tls::Expect;
    use pinhole_server::{DataDir, Limits, listener};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;
    use crate::candidates::ReachablePort;
    use crate::connect::punch_port::Observing;
    use crate::identity::generate_identity;
    use crate::rendezvous::server::{Persistence, Reached};
    use crate::report::MappingBehaviour;

    const PATIENCE: Duration = Duration::from_secs(20);

    struct Observers {
        server: Arc<Server>,
        observing: Observing,
        stop: oneshot::Sender<()>,
        _control: TcpStream,
        _data: tempfile::TempDir,
    }

    impl Observers {
        fn keep(&self, warmth: Warmth) -> WarmPort {
            let observing = watch::channel(Some(self.observing.clone())).1;
            WarmPort::start(self.server.clone(), observing, None, warmth)
        }

        fn keeper(&self) -> (Keeper, mpsc::Sender<Request>) {
            let (requests, receiver) = mpsc::channel(1);
            let keeper = Keeper {
                server: self.server.clone(),
                observing: watch::channel(Some(self.observing.clone())).1,
                mapper: None,
                requests: receiver,
                warmth: watch::channel(Warmth::Cold).1,
                login_port: Arc::new(Semaphore::new(1)),
                is_counted: false,
            };
            (keeper, requests)
        }
    }

    async fn observers() -> Observers {
        let data = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(data.path()).unwrap();
        let listeners = listener::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let ports: Vec<u16> = listeners.iter().map(port).collect();
        assert_eq!(ports.len(), 2);
        let (stop, stopping) = oneshot::channel();
        tokio::spawn(async move {
            let stopping = async { drop(stopping.await) };
            pinhole_server::run(listeners, data_dir, Limits::default(), stopping).await
        });
        let identity = generate_identity().unwrap().0;
        let address = format!("127.0.0.1:{}", ports[0]).parse().unwrap();
        let reached =
            Server::reach(&address, None, Expect::AnyKey, &identity, Persistence::Once).await;
        let Reached { server, tcp, port } = reached.unwrap();
        Observers {
            server: Arc::new(server),
            observing: Observing {
                control: tcp.local_addr().unwrap(),
                control_port: port,
                other_port: Some(ports[1]),
            },
            stop,
            _control: tcp,
            _data: data,
        }
    }

    async fn taken(warm: &WarmPort, port_use: PortUse) -> PunchPort {
        timeout(PATIENCE, warm.take(port_use))
            .await
            .unwrap()
            .unwrap()
    }

    fn v4(port: &PunchPort) -> ReachablePort {
        let reachable = port.reachable();
        reachable.into_iter().find(|r| !r.is_ipv6).unwrap()
    }

    #[tokio::test]
    async fn a_port_is_seen_where_it_is_and_no_attempt_gets_another_s() {
        let observers = observers().await;
        let warm = observers.keep(Warmth::Warm);
        let mut ports = Vec::new();
        for _ in 0..3 {
            let port = taken(&warm, PortUse::FirstRound).await;
            let seen = v4(&port).observed.unwrap();
            assert_eq!(seen, ([127, 0, 0, 1], v4(&port).port).into());
            let mut observed = port.families[0].observed.subscribe();
            let twice = observed.wait_for(|observed| observed.len() == 2);
            timeout(PATIENCE, twice).await.unwrap().unwrap();
            assert_eq!(port.mapping(), MappingBehaviour::Stable);
            ports.push(port);
        }
        let distinct: std::collections::BTreeSet<u16> =
            ports.iter().map(|port| v4(port).port).collect();
        assert_eq!(distinct.len(), ports.len());
    }

    #[tokio::test]
    async fn a_port_is_lost_with_its_observers_and_the_next_does_without() {
        let observers = observers().await;
        let warm = observers.keep(Warmth::Warm);
        let mut port = taken(&warm, PortUse::FirstRound).await;
        observers.stop.send(()).unwrap();
        timeout(PATIENCE, port.lost()).await.expect("not noticed");
        let unobserved = async {
            loop {
                let port = warm.take(PortUse::FirstRound).await.unwrap();
                if v4(&port).observed.is_none() {
                    return port;
                }
            }
        };
        let port = timeout(PATIENCE, unobserved).await.unwrap();
        assert_eq!(port.mapping(), MappingBehaviour::Unknown);
        assert!(port.listen().iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn whoever_is_idle_has_the_port_of_the_login_and_no_other() {
        let observers = observers().await;
        let warm = observers.keep(Warmth::Cold);
        let login = observers.observing.control;
        let first = taken(&warm, PortUse::FirstRound).await;
        assert!(first.is_shared_with_login());
        assert_eq!(v4(&first).observed, Some(login));
        assert_eq!(v4(&first).port, login.port());
        assert!(first.listen().iter().all(Result::is_ok));
        // It serves one attempt at a time, and no further round.
        let second = taken(&warm, PortUse::FirstRound).await;
        assert_ne!(v4(&second).port, login.port());
        drop((first, second));
        let further = taken(&warm, PortUse::LaterRound).await;
        assert_ne!(v4(&further).port, login.port());
        assert!(v4(&further).observed.is_some());
        let again = taken(&warm, PortUse::FirstRound).await;
        assert!(again.is_shared_with_login());
        let mut observed = again.families[0].observed.subscribe();
        let twice = observed.wait_for(|observed| observed.len() == 2);
        timeout(PATIENCE, twice).await.unwrap().unwrap();
        assert_eq!(again.mapping(), MappingBehaviour::Stable);
    }

    #[tokio::test]
    async fn a_port_is_kept_from_the_first_sign_of_life_to_the_last() {
        let observers = observers().await;
        let warm = observers.keep(Warmth::Cold);
        warm.set(Warmth::Warm);
        // Nobody waits for it to be ready.
        let until = async |is_shared: bool| {
            while taken(&warm, PortUse::FirstRound)
                .await
                .is_shared_with_login()
                != is_shared
            {
                tokio::task::yield_now().await;
            }
        };
        let first = taken(&warm, PortUse::FirstRound).await;
        assert!(first.is_shared_with_login());
        timeout(PATIENCE, until(false)).await.expect("never warm");
        warm.set(Warmth::Cold);
        drop(first);
        timeout(PATIENCE, until(true)).await.expect("never cold");
    }

    #[tokio::test]
    async fn behind_a_nat_that_counts_the_port_of_the_login_says_nothing() {
        let observers = observers().await;
        let (mut keeper, _requests) = observers.keeper();
        keeper.is_counted = true;
        let (reply, _port) = oneshot::channel();
        let port_use = PortUse::FirstRound;
        let request = Request { port_use, reply };
        assert!(keeper.lend_login_port(request).is_err());
        keeper.is_counted = false;
        let (reply, _port) = oneshot::channel();
        let request = Request { port_use, reply };
        assert!(keeper.lend_login_port(request).is_ok());
    }
}
