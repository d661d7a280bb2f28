//! Introductions, and pairs that send through the relay.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use pinhole_proto::rendezvous::{
    ClientMessage, HostSharing, IntroductionId, Reachability, RelayToken, ServerMessage,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::person::{Connection, Person, address};
use crate::server::Server;

/// The block of addresses of those who are introduced.
const PAIRS: u8 = 128;
/// After this, all nodes know who is logged in.
const PRESENCE: Duration = Duration::from_secs(1);
const BUFFER_BYTES: usize = 64 * 1024;

/// Two people who are logged in, at different nodes if there are some.
pub(crate) struct Pair {
    people: [Person; 2],
    connections: [Connection; 2],
    nodes: [SocketAddr; 2],
    number: usize,
    introductions: u64,
}

fn relay_only() -> Reachability {
    Reachability {
        candidates: Vec::new(),
        share_host: HostSharing::SameNetwork,
        relay: true,
    }
}

impl Pair {
    async fn log_in(server: &Server<'_>, number: usize) -> Result<Self> {
        let person = |role: &str, side: usize| {
            let from = address(PAIRS, number * 2 + side);
            Person::new(&format!("{role}-{number}"), from)
        };
        let people = [person("alice", 0)?, person("bob", 1)?];
        let nodes = [number, number + 1].map(|number| server.address_for(number));
        let [alice, bob] = &people;
        let late = |error| anyhow!("one of a pair is {error}");
        let connections = [
            alice.log_in(nodes[0]).await.map_err(late)?,
            bob.log_in(nodes[1]).await.map_err(late)?,
        ];
        Ok(Self {
            people,
            connections,
            nodes,
            number,
            introductions: 0,
        })
    }

    /// Introduces the two once. Returns the token with which they meet at the relay, which
    /// is at the inviter's node.
    pub(crate) async fn introduce(&mut self) -> Result<RelayToken> {
        self.introductions += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(self.number as u64).to_be_bytes());
        id[8..].copy_from_slice(&self.introductions.to_be_bytes());
        let introduction = IntroductionId::from_random(id);
        let [alice, bob] = &mut self.connections;
        let introduce = ClientMessage::Introduce {
            introduction,
            round: 1,
            peer: self.people[1].name.clone(),
            reachability: relay_only(),
            credential: None,
        };
        alice.say(&introduce).await?;
        let is_invited = |message: &ServerMessage| {
            matches!(message, ServerMessage::Invitation { .. }).then_some(())
        };
        bob.hear_of(is_invited).await?;
        let answer = ClientMessage::Answer {
            introduction,
            round: 1,
            reachability: relay_only(),
        };
        bob.say(&answer).await?;
        let introduced = |message: &ServerMessage| match message {
            ServerMessage::Introduced { relay, .. } => Some(Ok(*relay)),
            ServerMessage::IntroductionFailed { reason, .. } => Some(Err(*reason)),
            _ => None,
        };
        let failed = |reason| anyhow!("not introduced: {reason:?}");
        bob.hear_of(introduced).await?.map_err(failed)?;
        let token = alice.hear_of(introduced).await?.map_err(failed)?;
        token.context("the server offers no relay")
    }

    /// The two ends of the pair's relay.
    async fn meet(&mut self) -> Result<[TcpStream; 2]> {
        let token = self.introduce().await?;
        let relay = ClientMessage::Relay { token };
        let [alice, bob] = &self.people;
        let [node, _] = self.nodes;
        let ends = [
            alice.connect(node, &relay).await?,
            bob.connect(node, &relay).await?,
        ];
        let [a, b] = ends;
        Ok([a.meet().await?, b.meet().await?])
    }
}

/// Pairs of these numbers.
pub(crate) async fn log_in(server: &Server<'_>, numbers: Range<usize>) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for number in numbers {
        pairs.push(Pair::log_in(server, number).await?);
    }
    // The other nodes hear of them.
    sleep(PRESENCE).await;
    Ok(pairs)
}

/// What each pair received.
pub(crate) struct Poured {
    bytes: Vec<u64>,
    time: Duration,
}

impl Poured {
    /// A line that says what was carried for so much CPU time.
    pub(crate) fn summary(&self, cpu_s: f64) -> Result<String> {
        let total = self.total() as f64;
        anyhow::ensure!(total > 0.0, "nothing was carried");
        Ok(format!(
            "{:5} pairs  {:6.0} MB/s  {:6.3} CPU s/GB  fairness {:.3}",
            self.bytes.len(),
            total / 1e6 / self.time.as_secs_f64(),
            cpu_s / (total / 1e9),
            self.fairness()
        ))
    }

    fn total(&self) -> u64 {
        self.bytes.iter().sum()
    }

    /// Jain's index: 1 when all pairs got the same.
    fn fairness(&self) -> f64 {
        let squares: f64 = self.bytes.iter().map(|&it| (it as f64).powi(2)).sum();
        (self.total() as f64).powi(2) / (self.bytes.len() as f64 * squares)
    }
}

/// Pairs at the relay. They stay logged in.
pub(crate) struct Relayed {
    ends: Vec<[TcpStream; 2]>,
    logged_in: JoinSet<()>,
}

impl Relayed {
    pub(crate) async fn meet(server: &Server<'_>, pairs: usize) -> Result<Self> {
        let mut ends = Vec::new();
        let mut logged_in = JoinSet::new();
        for mut pair in log_in(server, 0..pairs).await? {
            ends.push(pair.meet().await?);
            for mut connection in pair.connections {
                logged_in.spawn(async move { connection.stay().await });
            }
        }
        Ok(Self { ends, logged_in })
    }

    /// Pairs whose bytes something else carries.
    pub(crate) fn between(ends: Vec<[TcpStream; 2]>) -> Self {
        let logged_in = JoinSet::new();
        Self { ends, logged_in }
    }

    /// Each pair sends one way as fast as it can for so long.
    pub(crate) async fn pour(mut self, time: Duration) -> Poured {
        let mut tasks = JoinSet::new();
        let mut counts = Vec::new();
        for [mut from, mut to] in self.ends.drain(..) {
            let count = Arc::new(AtomicU64::new(0));
            counts.push(Arc::clone(&count));
            tasks.spawn(async move {
                let bytes = vec![0x5a; BUFFER_BYTES];
                while from.write_all(&bytes).await.is_ok() {}
            });
            tasks.spawn(async move {
                let mut buffer = vec![0; BUFFER_BYTES];
                while let Ok(read @ 1..) = to.read(&mut buffer).await {
                    count.fetch_add(read as u64, Ordering::Relaxed);
                }
            });
        }
        let begin = Instant::now();
        sleep(time).await;
        let bytes = counts.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        let time = begin.elapsed();
        tasks.shutdown().await;
        self.logged_in.shutdown().await;
        Poured { bytes, time }
    }
}
