//! Dialling a peer at the addresses that were announced for it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pinhole_proto::agent::PathKind;
use pinhole_proto::name::PeerName;
use pinhole_proto::rendezvous::{IntroductionId, PeerIdentity, Role};
use pinhole_proto::tls::{Expect, Identity};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::hello;
use super::networks::{Networks, Scope};
use crate::connect::{Answer, ConnectError, Report, Way};
use crate::server::is_wrong_key;
use crate::session::{Authenticated, Session, SessionPath, Transport, authenticate_expecting};

/// How long a machine on the LAN has to accept a connection.
const TCP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it then has to prove its key and to say its name.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Who dials, and how far.
pub(super) struct Dial<'a> {
    pub(super) identity: &'a Identity,
    pub(super) name: &'a PeerName,
    pub(super) scope: Scope,
}

/// Why one address did not lead to the peer.
enum Failed {
    Unreached(io::Error),
    /// Somebody who does not hold the key.
    Stranger,
    Lost(io::Error),
    /// The peer itself turned us down.
    Refused,
}

impl Dial<'_> {
    /// Dials all of them at once; the first that proves the peer's key is it.
    pub(super) async fn any_of(
        &self,
        addresses: &[SocketAddr],
        peer: &PeerIdentity,
        name: Option<&PeerName>,
    ) -> Result<Session, ConnectError> {
        let since = Instant::now();
        let networks = Networks::now(self.scope).map_err(ConnectError::LocalPort)?;
        let mut dials = JoinSet::new();
        for &address in addresses {
            let Some(address) = networks.admit_to_dial(address) else {
                debug!(%address, "announced, but not on a network of ours");
                continue;
            };
            let (identity, own_name) = (self.identity.clone(), self.name.clone());
            let key = peer.key;
            dials.spawn(async move {
                let outcome = dial(address, &identity, &own_name, Expect::Key(key)).await;
                (address, outcome)
            });
        }
        let mut report = Report::default();
        let mut refused = false;
        while let Some(dialled) = dials.join_next().await {
            let Ok((address, outcome)) = dialled else {
                continue;
            };
            let way = Way::Dialled(address);
            let answer = match outcome {
                Ok((said, up)) => {
                    if let Some(announced) = name.filter(|&announced| *announced != said) {
                        let peer = announced.clone();
                        return Err(ConnectError::OtherName { peer, said });
                    }
                    report.answered(1, way, Answer::Selected);
                    let (peer, role) = (peer.clone(), Role::Controlling);
                    return Ok(session(peer, role, up, since, report));
                }
                Err(Failed::Unreached(error)) => Answer::Error(error.to_string()),
                Err(Failed::Lost(error)) => Answer::Lost(error.to_string()),
                Err(Failed::Stranger) => Answer::Stranger,
                Err(Failed::Refused) => {
                    refused = true;
                    Answer::Lost("refused".to_owned())
                }
            };
            report.answered(1, way, answer);
        }
        let (name, expected) = (peer.name.clone(), peer.key);
        Err(if refused {
            ConnectError::Refused { peer: name }
        } else if report.met_stranger() {
            ConnectError::WrongPeerKey {
                peer: name,
                expected,
                found: None,
            }
        } else {
            ConnectError::NoPath { peer: name, report }
        })
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
    name: &PeerName,
    expect: Expect,
) -> Result<(PeerName, Authenticated), Failed> {
    let connected = timeout(TCP_TIMEOUT, TcpStream::connect(address)).await;
    let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let transport = stream.and_then(Transport::direct);
    let transport = transport.map_err(Failed::Unreached)?;
    let greeting = greet(transport, identity, name, expect);
    let greeted = timeout(HELLO_TIMEOUT, greeting).await;
    greeted.unwrap_or_else(|_| Err(Failed::Lost(io::ErrorKind::TimedOut.into())))
}

async fn greet(
    transport: Transport,
    identity: &Identity,
    name: &PeerName,
    expect: Expect,
) -> Result<(PeerName, Authenticated), Failed> {
    let proven = authenticate_expecting(transport, Role::Controlling, identity, expect).await;
    let (_, mut up) = proven.map_err(|error| {
        if is_wrong_key(&error) {
            Failed::Stranger
        } else {
            Failed::Lost(error)
        }
    })?;
    hello::say(&mut up.stream, name)
        .await
        .map_err(Failed::Lost)?;
    match hello::hear(&mut up.stream).await {
        Ok(said) => Ok((said, up)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Failed::Refused),
        Err(error) => Err(Failed::Lost(error)),
    }
}
