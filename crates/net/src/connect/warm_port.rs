//! Keeping a punch port ready for the next attempt to connect.

use std::io;
use std::sync::Arc;

use pinhole_proto::candidate::LoopbackAddresses;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::punch_port::{PunchPort, REPLACE_PAUSE, WhenObserving};
use crate::port_mapping::PortMapper;
use crate::rendezvous::server::Server;

type Request = oneshot::Sender<io::Result<PunchPort>>;

/// Keeps one punch port ready for the next attempt.
#[derive(Debug)]
pub(crate) struct WarmPort {
    requests: mpsc::Sender<Request>,
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
    /// Begins to prepare a port. Ends with the value.
    pub(crate) fn start(
        server: Arc<Server>,
        observing: WhenObserving,
        mapper: Option<PortMapper>,
    ) -> Self {
        let (requests, receiver) = mpsc::channel(8);
        // A client on the server's own machine is not behind a router.
        let mapper = mapper.filter(|_| server.loopback() == LoopbackAddresses::Refused);
        let task = tokio::spawn(async move {
            keep_warm(&server, &observing, mapper.as_ref(), receiver).await;
        });
        Self {
            requests,
            task: task.abort_handle(),
        }
    }

    /// Takes the port that is ready, or the next one that will be; another is
    /// prepared in its place.
    ///
    /// # Errors
    /// When no port can be bound.
    pub(crate) async fn take(&self) -> io::Result<PunchPort> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let (request, port) = oneshot::channel();
        self.requests.send(request).await.map_err(|_| gone())?;
        port.await.map_err(|_| gone())?
    }
}

async fn keep_warm(
    server: &Arc<Server>,
    observing: &WhenObserving,
    mapper: Option<&PortMapper>,
    mut requests: mpsc::Receiver<Request>,
) {
    let mut waiting: Option<Request> = None;
    // Known of this network from now on.
    let mut is_counted = false;
    loop {
        let is_awaited = waiting.is_some();
        let mut prepared = PunchPort::prepare(server, observing, mapper).await;
        let request = match (waiting.take(), &mut prepared) {
            (Some(request), _) => Some(request),
            (None, Ok(port)) => tokio::select! {
                request = requests.recv() => match request {
                    None => return,
                    request => request,
                },
                () = port.lost() => None,
            },
            (None, Err(_)) => None,
        };
        if let Some(request) = request {
            let told = *observing.borrow();
            is_counted |= prepared.as_ref().is_ok_and(|port| port.is_counted(told));
            // Old observations say nothing about the next ports.
            match &prepared {
                Ok(port) if is_counted && (is_awaited || port.is_once_observed()) => {
                    port.observed_twice().await;
                }
                Ok(_) if is_counted => {
                    prepared = PunchPort::prepare_to_predict(server, observing, mapper).await;
                }
                _ => {}
            }
            // A requester that has left meanwhile has no use for it: the port
            // is as fresh as the next one would be, but rarely so.
            let _ = request.send(prepared);
            // Preparing the next one would use up the ports that are predicted.
            if !is_counted {
                continue;
            }
        }
        // No caller waits, so there is no hurry until one does.
        waiting = match timeout(REPLACE_PAUSE, requests.recv()).await {
            Ok(None) => return,
            Ok(request) => request,
            Err(_) => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pinhole_proto::tls::Expect;
    use pinhole_server::{DataDir, Limits, listener};
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use super::*;
    use crate::candidates::ReachablePort;
    use crate::connect::punch_port::Observing;
    use crate::identity::generate_identity;
    use crate::report::MappingBehaviour;

    const PATIENCE: Duration = Duration::from_secs(20);

    struct Observers {
        server: Arc<Server>,
        ports: Vec<u16>,
        stop: oneshot::Sender<()>,
        _data: tempfile::TempDir,
    }

    impl Observers {
        fn warm(&self) -> WarmPort {
            let observing = Observing {
                control: ([127, 0, 0, 1], 1).into(),
                other_port: self.ports[1],
            };
            let observing = watch::channel(Some(observing)).1;
            WarmPort::start(self.server.clone(), observing, None)
        }
    }

    async fn observers() -> Observers {
        let data = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(data.path()).unwrap();
        let listeners = listener::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let ports: Vec<u16> = listeners.iter().map(port).collect();
        let (stop, stopping) = oneshot::channel();
        tokio::spawn(async move {
            let stopping = async { drop(stopping.await) };
            pinhole_server::run(listeners, data_dir, Limits::default(), stopping).await
        });
        let identity = generate_identity().unwrap().0;
        let address = format!("127.0.0.1:{}", ports[0]).parse().unwrap();
        let connected = Server::connect(&address, Expect::AnyKey, &identity).await;
        Observers {
            server: Arc::new(connected.unwrap().0),
            ports,
            stop,
            _data: data,
        }
    }

    fn v4(port: &PunchPort) -> ReachablePort {
        let reachable = port.reachable();
        reachable.into_iter().find(|r| !r.is_ipv6).unwrap()
    }

    #[tokio::test]
    async fn a_port_is_seen_where_it_is_and_no_attempt_gets_another_s() {
        let observers = observers().await;
        assert_eq!(observers.ports.len(), 2);
        let warm = observers.warm();
        let mut taken = Vec::new();
        for _ in 0..3 {
            let port = timeout(PATIENCE, warm.take()).await.unwrap().unwrap();
            let seen = v4(&port).observed.unwrap();
            assert_eq!(seen, ([127, 0, 0, 1], v4(&port).port).into());
            let mut observed = port.families[0].observed.subscribe();
            let twice = observed.wait_for(|observed| observed.len() == 2);
            timeout(PATIENCE, twice).await.unwrap().unwrap();
            assert_eq!(port.mapping(), MappingBehaviour::Stable);
            taken.push(port);
        }
        let distinct: std::collections::BTreeSet<u16> =
            taken.iter().map(|port| v4(port).port).collect();
        assert_eq!(distinct.len(), taken.len());
    }

    #[tokio::test]
    async fn a_port_is_lost_with_its_observers_and_the_next_does_without() {
        let observers = observers().await;
        let warm = observers.warm();
        let mut port = timeout(PATIENCE, warm.take()).await.unwrap().unwrap();
        observers.stop.send(()).unwrap();
        timeout(PATIENCE, port.lost()).await.expect("not noticed");
        let unobserved = async {
            loop {
                let port = warm.take().await.unwrap();
                if v4(&port).observed.is_none() {
                    return port;
                }
            }
        };
        let port = timeout(PATIENCE, unobserved).await.unwrap();
        assert_eq!(port.mapping(), MappingBehaviour::Unknown);
        assert!(port.listen().iter().all(Result::is_ok));
    }
}
