//! Times and their quantiles, and pings that are measured beside everything else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::sleep;

use crate::person::{Person, address};

/// How many people ping at once, and how long each waits in between.
const PINGERS: usize = 8;
const PING_PAUSE: Duration = Duration::from_millis(20);

/// Durations that were measured.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn extend(&mut self, times: Self) {
        self.0.extend(times.0);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// So many percent of the times are no longer than this, in milliseconds. NaN without
    /// any time.
    pub(crate) fn percentile_ms(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let index = (last * percent + 50) / 100;
        let time = sorted.get(index);
        time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    /// p50, p99 and the longest, for a table.
    pub(crate) fn summary(&self) -> String {
        let [p50, p99, most] = [50, 99, 100].map(|percent| self.percentile_ms(percent));
        format!("p50 {p50:7.2}  p99 {p99:7.2}  max {most:8.2} ms")
    }
}

/// People who ping until they are asked for the times. They have a thread of their own,
/// so the rest of the generator delays them little.
pub(crate) struct Pingers {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Times>>,
}

impl Pingers {
    pub(crate) fn start(server: SocketAddr, block: u8) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build()?;
            runtime.block_on(ping(server, block, &ended))
        });
        Self { is_over, thread }
    }

    pub(crate) fn end(self) -> Result<Times> {
        self.is_over.store(true, Ordering::Relaxed);
        let times = self.thread.join();
        times.map_err(|_| anyhow!("the pinging thread failed"))?
    }
}

async fn ping(server: SocketAddr, block: u8, is_over: &Arc<AtomicBool>) -> Result<Times> {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..PINGERS {
        let person = Person::new(&format!("pinger-{block}-{number}"), address(block, number))?;
        let connected = person.log_in(server).await;
        let mut connection = connected.map_err(|error| anyhow!("a pinger is {error}"))?;
        let is_over = Arc::clone(is_over);
        tasks.spawn(async move {
            let mut times = Times::default();
            for nonce in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                times.push(connection.ping(nonce).await?);
                sleep(PING_PAUSE).await;
            }
            anyhow::Ok(times)
        });
    }
    let mut all = Times::default();
    while let Some(times) = tasks.join_next().await {
        all.extend(times??);
    }
    Ok(all)
}
