//! Dialling a peer at the addresses that were announced for it.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pinhole_proto::agent::PathKind;
use pinhole_proto::credential::Credential;
use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::rendezvous::{IntroductionId, PeerIdentity, RefuseReason, Role};
use pinhole_proto::tls::{Expect, Identity, wrong_key};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::discovery::{LATE_ADDRESSES, Table};
use super::hello::{self, Introduction};
use super::networks::{Networks, Scope};
use crate::connect::ConnectError;
use crate::report::{Answer, PathAttempt, Report};
use crate::session::{Authenticated, Session, SessionPath, Transport, authenticate_expecting};

/// How long a machine on the LAN has to accept a connection.
const TCP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it then has to prove its key and to say its name.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Most addresses dialled for one peer: anybody can announce any number.
const DIALS_MAX: usize = 32;

/// Which side dials, and how far it is.
pub(super) struct Dial<'a> {
    pub(super) identity: &'a Identity,
    pub(super) name: &'a PeerName,
    /// What the peer is shown.
    pub(super) credential: Option<&'a Credential>,
    pub(super) scope: Scope,
}

/// Why one address did not lead to the peer.
enum Failed {
    Unreached(io::Error),
    /// Somebody who does not hold the key.
    Stranger,
    Lost(io::Error),
    /// The peer itself turned us down.
    Refused(RefuseReason),
}

/// The name that the peer gives itself, and the connection.
type Dialled = Result<(PeerName, Authenticated), Failed>;

impl Dial<'_> {
    /// Dials every address that is known or becomes known; the first that proves the
    /// peer's key decides.
    pub(super) async fn any_of(
        &self,
        mut table: watch::Receiver<Table>,
        peer: &PeerIdentity,
        name: Option<&PeerName>,
    ) -> Result<Session, ConnectError> {
        let since = Instant::now();
        let mut dialled = HashSet::new();
        let mut dials = JoinSet::new();
        let mut report = Report::default();
        loop {
            let addresses = table.borrow_and_update().addresses(peer.key);
            let networks = Networks::now(self.scope).map_err(ConnectError::LocalPort)?;
            for address in addresses {
                let Some(address) = networks.admit_to_dial(address) else {
                    debug!(%address, "announced, but not on a network of ours");
                    continue;
                };
                if dialled.len() < DIALS_MAX && dialled.insert(address) {
                    dials.spawn(self.dial(address, peer.key));
                }
            }
            let ended = tokio::select! {
                Some(ended) = dials.join_next() => ended,
                // Only while somebody announces.
                Ok(()) = table.changed() => continue,
                () = sleep_until(since + LATE_ADDRESSES), if dials.is_empty() => break,
            };
            // One that panicked has said nothing.
            let Ok((address, outcome)) = ended else {
                continue;
            };
            let way = PathAttempt::Dialled(address);
            let answer = match outcome {
                Ok((said, _)) if name.is_some_and(|announced| *announced != said) => {
                    let peer = peer.name.clone();
                    return Err(ConnectError::OtherName { peer, said });
                }
                Ok((_, up)) => {
                    report.answered(1, way, Answer::Selected);
                    let (peer, role) = (peer.clone(), Role::Controlling);
                    return Ok(session(peer, role, up, since, report));
                }
                Err(Failed::Refused(reason)) => {
                    let peer = peer.name.clone();
                    return Err(ConnectError::Refused { peer, reason });
                }
                Err(Failed::Unreached(error)) => Answer::Error(error.to_string()),
                Err(Failed::Lost(error)) => Answer::Lost(error.to_string()),
                Err(Failed::Stranger) => Answer::Stranger,
            };
            report.answered(1, way, answer);
        }
        let (name, expected) = (peer.name.clone(), peer.key);
        Err(if report.met_stranger() {
            ConnectError::WrongPeerKey {
                peer: name,
                expected,
                found: None,
            }
        } else {
            ConnectError::NoPath { peer: name, report }
        })
    }

    /// Dials one address, and has whoever is there prove the key.
    fn dial(
        &self,
        address: SocketAddr,
        key: PeerKey,
    ) -> impl Future<Output = (SocketAddr, Dialled)> + Send + 'static {
        let identity = self.identity.clone();
        let us = Introduction {
            name: self.name.clone(),
            credential: self.credential.cloned(),
        };
        async move {
            let outcome = dial(address, &identity, &us, Expect::Key(key)).await;
            (address, outcome)
        }
    }
}

/// A session on the LAN that has just come up.
pub(super) fn session(
    peer: PeerIdentity,
    role: Role,
    up: Authenticated,
    since: Instant,
    report: Report,
) -> Session {
    // One socket serves both families, and shows IPv4 as mapped IPv6.
    let canonical = |address: SocketAddr| match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), address.port()),
        IpAddr::V6(_) => address,
    };
    let path = SessionPath {
        kind: PathKind::Lan,
        local: canonical(up.local),
        remote: canonical(up.remote),
        report,
    };
    // It has no name, for there is no better path to which it could be moved.
    let name = IntroductionId::from_random([0; IntroductionId::BYTES]);
    up.into_session(name, role, peer, path, since.elapsed())
}

async fn dial(
    address: SocketAddr,
    identity: &Identity,
    us: &Introduction,
    expect: Expect,
) -> Dialled {
    let connected = timeout(TCP_TIMEOUT, TcpStream::connect(address)).await;
    let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let transport = stream.and_then(Transport::direct);
    let transport = transport.map_err(Failed::Unreached)?;
    let greeting = greet(transport, identity, us, expect);
    let greeted = timeout(HELLO_TIMEOUT, greeting).await;
    greeted.unwrap_or_else(|_| Err(Failed::Lost(io::ErrorKind::TimedOut.into())))
}

async fn greet(
    transport: Transport,
    identity: &Identity,
    us: &Introduction,
    expect: Expect,
) -> Dialled {
    let proven = authenticate_expecting(transport, Role::Controlling, identity, expect).await;
    let (_, mut up) = proven.map_err(|error| {
        if wrong_key(&error).is_some() {
            Failed::Stranger
        } else {
            Failed::Lost(error)
        }
    })?;
    us.say(&mut up.stream).await.map_err(Failed::Lost)?;
    match hello::hear_answer(&mut up.stream).await {
        Ok(Ok(said)) => Ok((said, up)),
        Ok(Err(reason)) => Err(Failed::Refused(reason)),
        Err(error) => Err(Failed::Lost(error)),
    }
}
