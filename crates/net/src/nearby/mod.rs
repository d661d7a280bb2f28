//! The LAN without a server: peers find each other by DNS-SD over multicast
//! (RFC 6762 and 6763).
//!
//! An announcement is a hint and nothing more. Whoever is dialled has to prove
//! the key announced; the names are claims, and each side makes its own in the
//! session, so that nobody can announce another's key under a wrong name.
//! Nothing is dialled, and nobody is answered, beyond the networks to which
//! this machine is directly connected.
//!
//! | module | what it holds |
//! |---|---|
//! | `discovery` | announcing and browsing, and the bounded table of who is there |
//! | `visitors` | the listener, for those who dial us |
//! | `dial` | dialling who is there |
//! | `hello` | what both sides say first |
//! | `multicast` | whether what this machine says there is heard at all |
//! | `networks` | which addresses are on a directly connected network |

mod dial;
mod discovery;
mod hello;
mod multicast;
mod networks;
#[cfg(test)]
mod tests;
mod visitors;

use std::io;
use std::sync::Arc;

use pinhole_proto::credential::Credential;
use pinhole_proto::name::PeerName;
use pinhole_proto::rendezvous::PeerIdentity;
use pinhole_proto::tls::Identity;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::connect::ConnectError;
use crate::known::KnownKeys;
use crate::session::Session;
use discovery::Discovery;
use networks::Scope;

use visitors::VisitorListener;

pub use multicast::{Multicast, examine_multicast};
pub use visitors::Visitor;

/// Events that may wait for the caller.
const EVENTS: usize = 64;

/// How to be on the LAN.
#[derive(Debug, Clone)]
pub struct NearbyConfig {
    /// Our key pair.
    pub identity: Identity,
    /// The name that we give ourselves.
    pub name: PeerName,
    /// Whether others may find us. Without it nothing is announced and nobody
    /// can connect to us; others are looked for all the same.
    pub announces: bool,
    /// For whom places are kept free when strangers come in crowds.
    pub known: KnownKeys,
}

/// What happens on the LAN.
#[derive(Debug)]
pub enum NearbyEvent {
    /// Who is there from now on, by key; never ourselves, at most 256. Names
    /// are what the announcements say.
    Peers(Vec<PeerIdentity>),
    /// Somebody has connected, and waits to be admitted or refused.
    Visitor(Visitor),
}

/// Being on the LAN. Ends with the last clone, or by [`Nearby::end`].
#[derive(Debug, Clone)]
pub struct Nearby {
    state: Arc<NearbyState>,
}

#[derive(Debug)]
struct NearbyState {
    identity: Identity,
    name: PeerName,
    scope: Scope,
    port: Option<u16>,
    discovery: Discovery,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for NearbyState {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Nearby {
    /// Begins to look for others and, if wanted, to be found. The events have
    /// to be received as long as this is used.
    ///
    /// # Errors
    /// When the system gives no socket or no thread.
    pub fn start(config: NearbyConfig) -> io::Result<(Self, mpsc::Receiver<NearbyEvent>)> {
        Self::start_in(config, Scope::LAN)
    }

    fn start_in(
        config: NearbyConfig,
        scope: Scope,
    ) -> io::Result<(Self, mpsc::Receiver<NearbyEvent>)> {
        let (events, receiver) = mpsc::channel(EVENTS);
        let listener = config.announces.then(visitors::listen).transpose()?;
        let port = match &listener {
            Some(listener) => Some(listener.local_addr()?.port()),
            None => None,
        };
        let us = PeerIdentity {
            name: config.name.clone(),
            key: config.identity.key(),
        };
        let (discovery, search) = Discovery::start(&us, port, scope, config.known.clone())?;
        let mut tasks = vec![tokio::spawn(search.run(events.clone()))];
        if let Some(listener) = listener {
            let visitor_listener = VisitorListener {
                listener,
                identity: config.identity.clone(),
                known: config.known,
                scope,
                events,
            };
            tasks.push(tokio::spawn(visitor_listener.receive()));
        }
        let state = NearbyState {
            identity: config.identity,
            name: config.name,
            scope,
            port,
            discovery,
            tasks,
        };
        Ok((
            Self {
                state: Arc::new(state),
            },
            receiver,
        ))
    }

    /// The name that we give ourselves.
    #[must_use]
    pub fn name(&self) -> &PeerName {
        &self.state.name
    }

    /// The TCP port at which others reach us, if we are announced.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.state.port
    }

    /// Connects to a peer that is there. With `name`, the peer has to give
    /// itself this name; whoever knows from elsewhere whose key it is asks for
    /// none. The peer is shown `credential` before it decides whether to let us in.
    ///
    /// # Errors
    /// Says exactly what stood in the way; `peer` is whom to name there.
    pub async fn connect(
        &self,
        peer: PeerIdentity,
        name: Option<PeerName>,
        credential: Option<Credential>,
    ) -> Result<Session, ConnectError> {
        let own = &*self.state;
        // An announcement tells the addresses of one interface and family. Held until
        // the end: those of the others may come later, and are asked for.
        let _asking = own.discovery.ask(peer.key);
        let dial = dial::Dial {
            identity: &own.identity,
            name: &own.name,
            credential: credential.as_ref(),
            scope: own.scope,
        };
        let outcome = Box::pin(dial.any_of(own.discovery.table(), &peer, name.as_ref())).await;
        if outcome.is_err() {
            self.state.discovery.doubt(peer.key);
        }
        outcome
    }

    /// Says goodbye, so that others need not find out by themselves.
    pub async fn end(&self) {
        for task in &self.state.tasks {
            task.abort();
        }
        self.state.discovery.end().await;
    }
}
