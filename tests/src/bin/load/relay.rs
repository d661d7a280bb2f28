//! Introductions, and pairs that send through the relay.

use std::net::SocketAddr;
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

/// The block of addresses of those who are introduced.
const PAIRS: u8 = 128;
const BUFFER_BYTES: usize = 64 * 1024;

/// Two people who are logged in.
pub(crate) struct Pair {
    people: [Person; 2],
    connections: [Connection; 2],
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
    pub(crate) async fn log_in(server: SocketAddr, number: usize) -> Result<Self> {
        let person = |role: &str, side: usize| {
            let from = address(PAIRS, number * 2 + side);
            Person::new(&format!("{role}-{number}"), from)
        };
        let people = [person("alice", 0)?, person("bob", 1)?];
        let [alice, bob] = &people;
        let late = |error| anyhow!("one of a pair is {error}");
        let connections = [
            alice.log_in(server).await.map_err(late)?,
            bob.log_in(server).await.map_err(late)?,
        ];
        Ok(Self {
            people,
            connections,
            number,
            introductions: 0,
        })
    }

    /// Introduces the two once. Returns the token with which they meet at the relay.
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
    async fn meet(&mut self, server: SocketAddr) -> Result<[TcpStream; 2]> {
        let token = self.introduce().await?;
        let relay = ClientMessage::Relay { token };
        let [alice, bob] = &self.people;
        let ends = [
            alice.connect(server, &relay).await?,
            bob.connect(server, &relay).await?,
        ];
        let [a, b] = ends;
        Ok([a.meet().await?, b.meet().await?])
    }
}

/// What each pair received.
pub(crate) struct Poured {
    pub(crate) bytes: Vec<u64>,
    pub(crate) time: Duration,
}

impl Poured {
    pub(crate) fn total(&self) -> u64 {
        self.bytes.iter().sum()
    }

    /// Jain's index: 1 when all pairs got the same.
    pub(crate) fn fairness(&self) -> f64 {
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
    pub(crate) async fn meet(server: SocketAddr, pairs: usize) -> Result<Self> {
        let mut ends = Vec::new();
        let mut logged_in = JoinSet::new();
        for number in 0..pairs {
            let mut pair = Pair::log_in(server, number).await?;
            ends.push(pair.meet(server).await?);
            for mut connection in pair.connections {
                logged_in.spawn(async move { connection.stay().await });
            }
        }
        Ok(Self { ends, logged_in })
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
