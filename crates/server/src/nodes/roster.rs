//! How nodes find each other: each notes in the database where it is, again and again.
//!
//! The links do not depend on it. A node that does not reach the database keeps the links
//! that it has, and those that it knows of are linked to again.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use pinhole_proto::registry::NODES;
use pinhole_proto::rendezvous::NodeId;
use ring::rand::{SecureRandom as _, SystemRandom};
use sqlx::PgConnection;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::{KnownNode, NodeConfig};
use crate::names::{Database, NamesError};

/// How often a node notes that it is there and reads who else is.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);
const NOTE_TIMEOUT: Duration = Duration::from_secs(2);
/// Nodes that have noted nothing for longer than 10 s are not read, and their rows go after
/// an hour.
const NOTE: &str = "
    WITH noted AS (
        INSERT INTO pinhole.nodes (id, address, seen_at) VALUES ($1, $2, now())
        ON CONFLICT (id) DO UPDATE SET address = excluded.address, seen_at = excluded.seen_at
    ), forgotten AS (
        DELETE FROM pinhole.nodes WHERE seen_at < now() - interval '1 hour'
    )
    SELECT id, address FROM pinhole.nodes
    WHERE id <> $1 AND seen_at > now() - interval '10 s'
    ORDER BY seen_at DESC LIMIT $3";

/// Notes where a node is, and tells who else is there.
#[derive(Debug)]
pub struct Roster {
    database: Database,
    own: KnownNode,
    known: watch::Sender<Vec<KnownNode>>,
}

/// Why a server cannot be one node of several.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It cannot listen for the others.
    #[error("cannot listen on {address} (--node)")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// The system has no randomness to draw an id from.
    #[error("the system's random numbers are not available")]
    Random,
}

impl Roster {
    /// Makes this server a node of those that share the database. It listens for the others
    /// at `address`, of which the port may be 0. The roster has to be kept ([`Roster::keep`])
    /// beside the server.
    ///
    /// # Errors
    /// Any [`JoinError`].
    pub async fn join(
        database: Database,
        address: SocketAddr,
        relay_addresses: Vec<SocketAddr>,
    ) -> Result<(NodeConfig, Self), JoinError> {
        let listen_error = |source| JoinError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let mut id = [0; NodeId::BYTES];
        let drawn = SystemRandom::new().fill(&mut id);
        drawn.map_err(|_| JoinError::Random)?;
        let id = NodeId::from_random(id);
        let (sender, known) = watch::channel(Vec::new());
        let roster = Self {
            database,
            own: KnownNode { id, address },
            known: sender,
        };
        let config = NodeConfig {
            id,
            listener,
            relay_addresses,
            known,
        };
        Ok((config, roster))
    }

    /// Keeps the roster up to date as long as it is polled.
    pub async fn keep(self) -> Infallible {
        let mut ticks = interval(NOTE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connection = None;
        let mut is_away = false;
        loop {
            ticks.tick().await;
            match self.note(connection.take()).await {
                Ok((used, known)) => {
                    if is_away {
                        info!("nodes are found again");
                    }
                    (connection, is_away) = (Some(used), false);
                    self.tell(known);
                }
                Err(error) if !is_away => {
                    is_away = true;
                    warn!("new nodes are not found at the moment: {error}");
                }
                Err(_) => {}
            }
        }
    }

    fn tell(&self, known: Vec<KnownNode>) {
        self.known.send_if_modified(|last| {
            let is_new = *last != known;
            *last = known;
            is_new
        });
    }

    async fn note(
        &self,
        connection: Option<PgConnection>,
    ) -> Result<(PgConnection, Vec<KnownNode>), NamesError> {
        let mut connection = match connection {
            Some(connection) => connection,
            None => self.database.connect().await?,
        };
        let note = sqlx::query_as(NOTE)
            .bind(String::from(self.own.id))
            .bind(self.own.address.to_string())
            .bind(i64::try_from(NODES).unwrap_or(i64::MAX))
            .fetch_all(&mut connection);
        let rows: Vec<(String, String)> = self.database.bounded(NOTE_TIMEOUT, note).await?;
        let mut known: Vec<_> = rows.into_iter().filter_map(known_node).collect();
        known.sort_by_key(|node| node.id);
        Ok((connection, known))
    }
}

/// A row that another version wrote in another form is left out.
fn known_node((id, address): (String, String)) -> Option<KnownNode> {
    Some(KnownNode {
        id: id.try_into().ok()?,
        address: address.parse().ok()?,
    })
}
