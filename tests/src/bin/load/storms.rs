//! Strangers who are no use to a server, at a steady rate and from many addresses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use pinhole_proto::rendezvous::ClientMessage;
use rustix::process::setpriority_process;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::person::{Person, address, connect_from};

/// The first block of addresses that strangers come from.
const STRANGERS: u8 = 64;
/// How many of them there are at once.
const AT_ONCE: usize = 12_000;
/// How long each of them stays.
const STAY: Duration = Duration::from_secs(6);
/// How often some of them begin.
const TICK: Duration = Duration::from_millis(10);
/// Keys among which those who finish a handshake choose.
const KEYS: usize = 64;
/// What makes the threads of strangers wait for those of the server: elsewhere, strangers
/// bring processors of their own.
const NICENESS: i32 = 5;

/// What a stranger does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Storm {
    /// Nothing: pings and newcomers are alone.
    Calm,
    /// Connects and says nothing.
    Silent,
    /// Says what is no TLS.
    Garbage,
    /// Begins a handshake and stops.
    HalfOpen,
    /// Finishes the handshake and leaves.
    Handshakes,
}

impl Storm {
    pub(crate) const ALL: [Self; 5] = [
        Self::Calm,
        Self::Silent,
        Self::Garbage,
        Self::HalfOpen,
        Self::Handshakes,
    ];
}

/// A storm that lasts until this is dropped.
pub(crate) struct Raging {
    runtime: Option<Runtime>,
    begun: Arc<AtomicU64>,
}

impl Drop for Raging {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Raging {
    /// How many strangers have come so far.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    pub(crate) fn start(storm: Storm, server: SocketAddr, per_second: usize) -> Result<Self> {
        let begun = Arc::new(AtomicU64::new(0));
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime
            .worker_threads(2)
            .on_thread_start(|| {
                // A thread that cannot be made nice takes a little more from the server.
                let _: Result<(), _> = setpriority_process(None, NICENESS);
            })
            .enable_all()
            .build()?;
        if storm != Storm::Calm {
            let people: Result<Vec<_>> = (0..KEYS)
                .map(|key| Person::new(&format!("stranger-{key}"), address(STRANGERS, key)))
                .collect();
            let strangers = Strangers {
                storm,
                server,
                people: people?,
            };
            runtime.spawn(come(Arc::new(strangers), per_second, Arc::clone(&begun)));
        }
        Ok(Self {
            runtime: Some(runtime),
            begun,
        })
    }
}

struct Strangers {
    storm: Storm,
    server: SocketAddr,
    people: Vec<Person>,
}

async fn come(strangers: Arc<Strangers>, per_second: usize, begun: Arc<AtomicU64>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let each_tick = per_second.div_ceil(100);
    let mut number = 0;
    loop {
        ticks.tick().await;
        for _ in 0..each_tick {
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                break;
            };
            number += 1;
            begun.fetch_add(1, Ordering::Relaxed);
            let strangers = Arc::clone(&strangers);
            tokio::spawn(async move {
                // Whatever the server does with a stranger is fine.
                let _: Result<Result<()>, _> = timeout(STAY, strangers.one(number)).await;
                drop(place);
            });
        }
    }
}

impl Strangers {
    async fn one(&self, number: usize) -> Result<()> {
        let from = address(STRANGERS, number);
        if self.storm == Storm::Handshakes {
            let key = self.people.get(number % KEYS);
            let person = key.ok_or_else(|| anyhow!("no key"))?.at(from);
            person.connect(self.server, &ClientMessage::Observe).await?;
            return Ok(());
        }
        let mut tcp = connect_from(from, self.server).await?;
        match self.storm {
            Storm::Garbage => tcp.write_all(&[0xa5; 64]).await?,
            Storm::HalfOpen => tcp.write_all(&client_hello()?).await?,
            Storm::Silent | Storm::Calm | Storm::Handshakes => {}
        }
        let mut answer = [0; 4_096];
        while tcp.read(&mut answer).await? > 0 {}
        Ok(())
    }
}

/// The beginning of a handshake as a client says it.
fn client_hello() -> Result<Vec<u8>> {
    use pinhole_proto::tls::server_name;
    use tokio_rustls::rustls::ClientConnection;
    static CONFIG: std::sync::OnceLock<Option<Person>> = std::sync::OnceLock::new();
    let person = CONFIG.get_or_init(|| Person::new("half-open", address(STRANGERS, 0)).ok());
    let person = person.as_ref().ok_or_else(|| anyhow!("no key"))?;
    let mut connection = ClientConnection::new(person.tls(), server_name())?;
    let mut hello = Vec::new();
    connection.write_tls(&mut hello)?;
    Ok(hello)
}
