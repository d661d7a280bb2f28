//! The relay: passes bytes between two peers, as far as the operator allows.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pinhole_proto::key::PeerKey;
use pinhole_proto::rendezvous::Refusal;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{interval, sleep};
use tracing::info;

use crate::admission::{Cap, Network, Permit, network};
use crate::limits::RelayLimits;
use crate::quota::Quota;
use crate::throttle::Throttle;

/// One read, so also the most that waits for the slower side, and one turn at
/// a limited speed.
const BUFFER_BYTES: usize = 64 * 1024;
/// Between two lines in the log about what was carried.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Why a pair is carried no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CarryError {
    /// A side broke off, or both were silent for too long.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A limit was reached.
    #[error("{0}")]
    Limit(Refusal),
}

/// All pairs of one server, and what they may take.
#[derive(Debug)]
pub(crate) struct Relay {
    limits: RelayLimits,
    pairs: Arc<Semaphore>,
    by_key: Arc<Cap<PeerKey>>,
    by_address: Arc<Cap<Network>>,
    quota: Quota,
    total: Throttle,
    carried_bytes: AtomicU64,
}

/// One side of a pair.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side {
    pub(crate) key: PeerKey,
    pub(crate) address: IpAddr,
}

/// Two peers that may meet. Their place is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) keys: [PeerKey; 2],
    throttle: Throttle,
    /// Both directions take turns, so that a pair has one place in every queue.
    turn: Mutex<()>,
    _one_of_all: OwnedSemaphorePermit,
    _of_keys: [Permit<PeerKey>; 2],
    _of_addresses: [Permit<Network>; 2],
}

impl Relay {
    pub(crate) fn new(limits: RelayLimits) -> Self {
        Self {
            pairs: Arc::new(Semaphore::new(limits.pairs)),
            by_key: Cap::new(limits.pairs_per_key),
            by_address: Cap::new(limits.pairs_per_address),
            quota: Quota::new(limits.bytes_per_day),
            total: Throttle::new(limits.total_bytes_per_second),
            carried_bytes: AtomicU64::new(0),
            limits,
        }
    }

    /// Room for these two to meet, or why there is none.
    pub(crate) fn admit(&self, sides: [Side; 2]) -> Result<Pair, Refusal> {
        let keys = sides.map(|side| side.key);
        if !self.quota.take(Instant::now(), keys, 0) {
            return Err(Refusal::RelayBytes);
        }
        let room = || {
            let [a, b] = sides;
            let of_address = |side: Side| self.by_address.take(network(side.address));
            Some(Pair {
                keys,
                throttle: Throttle::new(self.limits.bytes_per_second),
                turn: Mutex::default(),
                _one_of_all: self.pairs.clone().try_acquire_owned().ok()?,
                _of_keys: [self.by_key.take(a.key)?, self.by_key.take(b.key)?],
                _of_addresses: [of_address(a)?, of_address(b)?],
            })
        };
        room().ok_or(Refusal::Limited)
    }

    /// Carries bytes both ways until both sides have ended theirs. A side that
    /// ends its own direction can still receive.
    ///
    /// # Errors
    /// When a side breaks off, nothing was carried for long, or a limit is
    /// reached.
    pub(crate) async fn carry<A, B>(&self, pair: &Pair, a: A, b: B) -> Result<(), CarryError>
    where
        A: AsyncRead + AsyncWrite,
        B: AsyncRead + AsyncWrite,
    {
        let (a_reader, a_writer) = split(a);
        let (b_reader, b_writer) = split(b);
        let carried_bytes = AtomicU64::new(0);
        let both = async {
            tokio::try_join!(
                self.copy(pair, a_reader, b_writer, &carried_bytes),
                self.copy(pair, b_reader, a_writer, &carried_bytes),
            )
        };
        tokio::select! {
            ended = both => ended.map(|((), ())| ()),
            () = idle(&carried_bytes, self.limits.idle_timeout) => {
                Err(CarryError::Io(io::ErrorKind::TimedOut.into()))
            }
            () = over(self.limits.time) => Err(CarryError::Limit(Refusal::RelayTime)),
        }
    }

    async fn copy(
        &self,
        pair: &Pair,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        carried_bytes: &AtomicU64,
    ) -> Result<(), CarryError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                return Ok(to.shutdown().await?);
            }
            if !self.quota.take(Instant::now(), pair.keys, read as u64) {
                return Err(CarryError::Limit(Refusal::RelayBytes));
            }
            let turn = pair.turn.lock().await;
            pair.throttle.pass(read).await;
            self.total.pass(read).await;
            drop(turn);
            to.write_all(buffer.get(..read).unwrap_or_default()).await?;
            to.flush().await?;
            carried_bytes.fetch_add(read as u64, Ordering::Relaxed);
            self.carried_bytes.fetch_add(read as u64, Ordering::Relaxed);
        }
    }

    /// Tells the operator what was carried, whenever there is something new.
    pub(crate) async fn report(&self) {
        let mut ticks = interval(REPORT_INTERVAL);
        let mut last = (0, 0);
        loop {
            ticks.tick().await;
            let pairs = self.limits.pairs - self.pairs.available_permits();
            let now = (pairs, self.carried_bytes.load(Ordering::Relaxed));
            if now != last {
                info!(pairs = now.0, bytes = now.1, "relayed since the start");
                last = now;
            }
        }
    }
}

/// Returns when a pair has lasted as long as it may.
async fn over(limit: Option<Duration>) {
    match limit {
        Some(limit) => sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// Returns when nothing was carried for a whole `limit`.
async fn idle(carried_bytes: &AtomicU64, limit: Duration) {
    let mut before = None;
    loop {
        let now = carried_bytes.load(Ordering::Relaxed);
        if before == Some(now) {
            return;
        }
        before = Some(now);
        sleep(limit).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::*;

    fn side(number: u8) -> Side {
        Side {
            key: PeerKey::from_bytes([number; 32]),
            address: [192, 0, 2, number].into(),
        }
    }

    fn relay(change: impl FnOnce(&mut RelayLimits)) -> Arc<Relay> {
        let mut limits = RelayLimits::default();
        change(&mut limits);
        Arc::new(Relay::new(limits))
    }

    type Carried = JoinHandle<Result<(), CarryError>>;

    /// The ends of two peers that meet.
    fn meet(relay: &Arc<Relay>, sides: [u8; 2]) -> (DuplexStream, DuplexStream, Carried) {
        let (alice, a) = duplex(BUFFER_BYTES);
        let (bob, b) = duplex(BUFFER_BYTES);
        let pair = relay.admit(sides.map(side)).unwrap();
        let relay = relay.clone();
        let carried = tokio::spawn(async move { relay.carry(&pair, a, b).await });
        (alice, bob, carried)
    }

    #[tokio::test]
    async fn one_direction_can_end_before_the_other() {
        let (mut alice, mut bob, carried) = meet(&relay(|_| ()), [1, 2]);
        alice.write_all(b"question").await.unwrap();
        alice.shutdown().await.unwrap();
        let mut question = Vec::new();
        bob.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        bob.write_all(b"answer").await.unwrap();
        bob.shutdown().await.unwrap();
        let mut answer = Vec::new();
        alice.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
        carried.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn silence_ends_a_relay_and_traffic_does_not() {
        let limit = Duration::from_secs(1);
        let relay = relay(|limits| limits.idle_timeout = limit);
        let (mut alice, mut bob, carried) = meet(&relay, [1, 2]);
        let begin = Instant::now();
        let mut byte = [0];
        while begin.elapsed() < limit * 5 / 2 {
            alice.write_all(b"x").await.unwrap();
            bob.read_exact(&mut byte).await.unwrap();
        }
        assert!(!carried.is_finished());
        let ended = carried.await.unwrap().unwrap_err();
        assert!(matches!(ended, CarryError::Io(_)), "{ended}");
    }

    #[tokio::test]
    async fn a_side_that_breaks_off_ends_both() {
        let (alice, mut bob, carried) = meet(&relay(|_| ()), [1, 2]);
        drop(alice);
        let mut nothing = Vec::new();
        bob.read_to_end(&mut nothing).await.unwrap();
        assert!(nothing.is_empty());
        drop(bob);
        carried.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_pair_ends_with_its_time() {
        let limit = Duration::from_millis(200);
        let begin = Instant::now();
        let relay = relay(|limits| limits.time = Some(limit));
        let (_alice, _bob, carried) = meet(&relay, [1, 2]);
        let ended = carried.await.unwrap().unwrap_err();
        let is_time = matches!(ended, CarryError::Limit(Refusal::RelayTime));
        assert!(is_time && begin.elapsed() >= limit, "{ended}");
    }

    #[tokio::test]
    async fn a_day_s_bytes_are_counted_both_ways_and_over_every_meeting() {
        let relay = relay(|limits| limits.bytes_per_day = Some(1_000));
        for _ in 0..2 {
            let (mut alice, mut bob, carried) = meet(&relay, [1, 2]);
            let mut bytes = [0; 250];
            alice.write_all(&bytes).await.unwrap();
            bob.read_exact(&mut bytes).await.unwrap();
            bob.write_all(&bytes).await.unwrap();
            alice.read_exact(&mut bytes).await.unwrap();
            carried.abort();
        }
        let refused = relay.admit([side(2), side(1)]).unwrap_err();
        assert_eq!(refused, Refusal::RelayBytes);
        let (mut alice, mut bob, carried) = meet(&relay, [1, 3]);
        alice.write_all(&[0; 1_001]).await.unwrap();
        let mut nothing = Vec::new();
        bob.read_to_end(&mut nothing).await.unwrap();
        assert!(nothing.is_empty());
        let ended = carried.await.unwrap().unwrap_err();
        assert!(matches!(ended, CarryError::Limit(Refusal::RelayBytes)));
    }

    #[test]
    fn pairs_are_counted_by_key_by_address_and_in_all() {
        let relay = relay(|limits| {
            (limits.pairs, limits.pairs_per_key, limits.pairs_per_address) = (3, 2, 2);
        });
        let of = |a, b| relay.admit([side(a), side(b)]);
        let one = of(1, 2).unwrap();
        let two = of(1, 3).unwrap();
        assert_eq!(
            of(1, 4).unwrap_err(),
            Refusal::Limited,
            "a third of one key"
        );
        let same_house = Side {
            key: side(9).key,
            ..side(1)
        };
        let refused = relay.admit([same_house, side(4)]).unwrap_err();
        assert_eq!(refused, Refusal::Limited, "a third of one address");
        let three = of(4, 5).unwrap();
        assert_eq!(of(6, 7).unwrap_err(), Refusal::Limited, "a fourth of all");
        drop((one, two, three));
        of(1, 2).unwrap();
    }

    /// Bytes that went through each of the pairs within a second. In the first
    /// both sides send, in the others one does.
    async fn shares(relay: &Arc<Relay>, pairs: u8) -> Vec<u64> {
        let mut counts = Vec::new();
        for number in 0..pairs {
            let (alice, bob, _) = meet(relay, [number * 2, number * 2 + 1]);
            let count = Arc::new(AtomicU64::new(0));
            let (alice_reader, alice_writer) = split(alice);
            let (bob_reader, bob_writer) = split(bob);
            tokio::spawn(pour(alice_writer));
            tokio::spawn(drain(bob_reader, count.clone()));
            if number == 0 {
                tokio::spawn(pour(bob_writer));
                tokio::spawn(drain(alice_reader, count.clone()));
            }
            counts.push(count);
        }
        sleep(Duration::from_secs(1)).await;
        counts.iter().map(|c| c.load(Ordering::Relaxed)).collect()
    }

    async fn pour(mut to: impl AsyncWrite + Unpin) {
        while to.write_all(&[0; BUFFER_BYTES]).await.is_ok() {}
    }

    async fn drain(mut from: impl AsyncRead + Unpin, count: Arc<AtomicU64>) {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            count.fetch_add(read as u64, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn all_pairs_share_the_speed_of_the_server_evenly() {
        let limit = 8_000_000;
        let relay = relay(|limits| limits.total_bytes_per_second = Some(limit));
        let shares = shares(&relay, 4).await;
        let total: u64 = shares.iter().sum();
        // What may be caught up after a pause, and what waits at the other end.
        let most = limit * 11 / 10 + 4 * 3 * BUFFER_BYTES as u64;
        assert!((limit / 2..most).contains(&total), "{shares:?}");
        let fair = total / 4;
        assert!(
            shares.iter().all(|&share| share > fair * 3 / 4),
            "{shares:?}"
        );
    }

    #[tokio::test]
    async fn a_pair_is_no_faster_than_one_may_be() {
        let limit = 1_000_000;
        let relay = relay(|limits| limits.bytes_per_second = Some(limit));
        let shares = shares(&relay, 2).await;
        let most = limit * 11 / 10 + 3 * BUFFER_BYTES as u64;
        let fits = |share: &u64| (limit / 2..most).contains(share);
        assert!(shares.iter().all(fits), "{shares:?}");
    }
}
