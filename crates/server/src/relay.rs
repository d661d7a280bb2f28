//! The relay: passes bytes between two peers within the operator's limits.

mod direction;
#[cfg_attr(not(target_os = "linux"), path = "relay/no_pipe.rs")]
mod pipe;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pinhole_budget::{ByteRate, Full, Owner};
use pinhole_proto::key::PeerKey;
use pinhole_proto::registry::Inviter;
use pinhole_proto::rendezvous::Refusal;
use tokio::net::TcpStream;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::yield_now;
use tokio::time::{interval, sleep, sleep_until};
use tracing::info;

use crate::admission::newcomer;
use crate::caps::RELAY_PAIRS;
use crate::limits::RelayLimits;
use crate::quota::Quota;
use crate::slots::{Slot, Slots};
use direction::Direction;
use pipe::Pipes;

/// How often the log reports what was relayed.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Why a pair's connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CarryError {
    /// A side broke off, or both were silent for too long.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A limit was reached.
    #[error("{0}")]
    Limit(Refusal),
}

/// The pairs of one server, and their limits.
#[derive(Debug)]
pub(crate) struct RelayService {
    limits: Mutex<RelayLimits>,
    pairs: Arc<Slots>,
    quota: Quota,
    rate: Mutex<ByteRate>,
    pipes: Pipes,
    pub(crate) carried_bytes: AtomicU64,
    /// How many pairs there are.
    open: watch::Sender<u64>,
}

/// Counts a pair as long as it lives.
#[derive(Debug)]
struct OpenPair(watch::Sender<u64>);

impl OpenPair {
    fn count(open: &watch::Sender<u64>) -> Self {
        open.send_modify(|pairs| *pairs += 1);
        Self(open.clone())
    }
}

impl Drop for OpenPair {
    fn drop(&mut self) {
        self.0.send_modify(|pairs| *pairs -= 1);
    }
}

/// An admitted pair. Its slot is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct RelayPair {
    pub(crate) keys: [PeerKey; 2],
    inviter: Inviter,
    rate: Mutex<ByteRate>,
    /// Both directions take turns, so that a pair has one place in every queue.
    turn: AsyncMutex<()>,
    slot: Slot,
    _open: OpenPair,
}

impl RelayService {
    pub(crate) fn new(limits: RelayLimits) -> Self {
        Self {
            pairs: Slots::raised_by(RELAY_PAIRS, limits.pairs),
            quota: Quota::new(limits.bytes_per_day, limits.network_bytes_per_day),
            rate: Mutex::new(ByteRate::new(limits.total_bytes_per_second)),
            pipes: Pipes::new(limits.pipes),
            carried_bytes: AtomicU64::new(0),
            open: watch::Sender::new(0),
            limits: Mutex::new(limits),
        }
    }

    /// Changes the limits. Pairs that are there keep their own rate and time.
    pub(crate) fn set_limits(&self, limits: &RelayLimits) {
        self.pairs.set_bounds(limits.pairs);
        self.quota
            .set(limits.bytes_per_day, limits.network_bytes_per_day);
        *self.rate.lock() = ByteRate::new(limits.total_bytes_per_second);
        self.limits.lock().clone_from(limits);
    }

    /// Admits a pair, or says why not. It counts against the inviter, so that being
    /// invited costs nothing.
    pub(crate) fn admit(
        &self,
        keys: [PeerKey; 2],
        inviter: Inviter,
        is_known: bool,
    ) -> Result<RelayPair, Refusal> {
        if !self.quota.take(Instant::now(), keys, inviter, 0) {
            return Err(Refusal::RelayBytes);
        }
        let owner = Owner {
            is_known,
            ..newcomer(Some(inviter.key), inviter.address)
        };
        let slot = self.pairs.take(owner).map_err(|_: Full| Refusal::Limited)?;
        Ok(RelayPair {
            keys,
            inviter,
            rate: Mutex::new(ByteRate::new(self.limits.lock().bytes_per_second)),
            turn: AsyncMutex::default(),
            slot,
            _open: OpenPair::count(&self.open),
        })
    }

    /// How many pairs there are.
    pub(crate) fn open_pairs(&self) -> u64 {
        *self.open.borrow()
    }

    /// Completes when there is no pair.
    pub(crate) async fn drained(&self) {
        let mut open = self.open.subscribe();
        // The sender lives as long as this service.
        drop(open.wait_for(|&pairs| pairs == 0).await);
    }

    /// Carries bytes both ways until both sides have ended theirs. A side that
    /// ends its own direction can still receive.
    ///
    /// # Errors
    /// When a side breaks off, nothing was carried for long, or a limit is
    /// reached.
    pub(crate) async fn carry(
        &self,
        pair: &RelayPair,
        [a, b]: &mut [TcpStream; 2],
    ) -> Result<(), CarryError> {
        let (a_reader, a_writer) = a.split();
        let (b_reader, b_writer) = b.split();
        let carried_bytes = AtomicU64::new(0);
        let (idle_timeout, time) = {
            let limits = self.limits.lock();
            (limits.idle_timeout, limits.time)
        };
        let both = async {
            tokio::try_join!(
                self.carry_one_way(
                    pair,
                    Direction::new(a_reader, b_writer, &self.pipes),
                    &carried_bytes
                ),
                self.carry_one_way(
                    pair,
                    Direction::new(b_reader, a_writer, &self.pipes),
                    &carried_bytes
                ),
            )
        };
        tokio::select! {
            ended = both => ended.map(|((), ())| ()),
            () = idle(&carried_bytes, idle_timeout) => {
                Err(CarryError::Io(io::ErrorKind::TimedOut.into()))
            }
            () = over(time) => Err(CarryError::Limit(Refusal::RelayTime)),
            () = pair.slot.evicted() => Err(CarryError::Limit(Refusal::Limited)),
        }
    }

    async fn carry_one_way(
        &self,
        pair: &RelayPair,
        mut direction: Direction<'_>,
        carried_bytes: &AtomicU64,
    ) -> Result<(), CarryError> {
        loop {
            let taken = direction.take_in().await?;
            if taken == 0 {
                return Ok(direction.end().await?);
            }
            let bytes = taken as u64;
            let now = Instant::now();
            if !self.quota.take(now, pair.keys, pair.inviter, bytes) {
                return Err(CarryError::Limit(Refusal::RelayBytes));
            }
            let turn = pair.turn.lock().await;
            pass(&pair.rate, bytes).await;
            pass(&self.rate, bytes).await;
            drop(turn);
            direction.pass_on().await?;
            carried_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.carried_bytes.fetch_add(bytes, Ordering::Relaxed);
            // A fast pair would otherwise go on for a long time before others have their
            // turn.
            yield_now().await;
        }
    }

    /// Logs what was relayed, when there is something new.
    pub(crate) async fn report(&self) {
        let mut ticks = interval(REPORT_INTERVAL);
        let mut last = (0, 0);
        loop {
            ticks.tick().await;
            let now = (
                self.pairs.used(),
                self.carried_bytes.load(Ordering::Relaxed),
            );
            if now != last {
                info!(pairs = now.0, bytes = now.1, "relayed since the start");
                last = now;
            }
        }
    }
}

/// Returns when `bytes` may pass.
async fn pass(rate: &Mutex<ByteRate>, bytes: u64) {
    let due = rate.lock().reserve(Instant::now(), bytes);
    if let Some(due) = due {
        sleep_until(due.into()).await;
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
    use pinhole_budget::{Bounds, SubnetBounds};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
    use tokio::task::JoinHandle;

    use super::direction::STEP_BYTES;
    use super::*;

    fn inviter(number: u8) -> Inviter {
        Inviter {
            key: PeerKey::from_bytes([number; 32]),
            address: [192, 0, 2, number].into(),
        }
    }

    /// These two, invited by the first.
    fn admit(relay: &RelayService, sides: [u8; 2]) -> Result<RelayPair, Refusal> {
        relay.admit(
            sides.map(|side| inviter(side).key),
            inviter(sides[0]),
            false,
        )
    }

    fn relay(change: impl FnOnce(&mut RelayLimits)) -> Arc<RelayService> {
        let mut limits = RelayLimits::default();
        change(&mut limits);
        Arc::new(RelayService::new(limits))
    }

    type Carried = JoinHandle<Result<(), CarryError>>;

    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        (ours.unwrap(), theirs.unwrap().0)
    }

    /// The ends of two peers that meet.
    async fn meet(relay: &Arc<RelayService>, sides: [u8; 2]) -> (TcpStream, TcpStream, Carried) {
        let ((alice, a), (bob, b)) = (connected().await, connected().await);
        let pair = admit(relay, sides).unwrap();
        let relay = relay.clone();
        let carried = tokio::spawn(async move { relay.carry(&pair, &mut [a, b]).await });
        (alice, bob, carried)
    }

    #[tokio::test]
    async fn one_direction_can_end_before_the_other() {
        let (mut alice, mut bob, carried) = meet(&relay(|_| ()), [1, 2]).await;
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
    async fn floods_both_ways_arrive_whole_and_are_counted() {
        const BYTES: usize = 10_000_001;
        let relay = relay(|limits| {
            limits.bytes_per_second = None;
            limits.total_bytes_per_second = None;
        });
        let (alice, bob, carried) = meet(&relay, [1, 2]).await;
        let sent: Arc<Vec<u8>> = Arc::new((0..=250).cycle().take(BYTES).collect());
        let mut receiving = Vec::new();
        for side in [alice, bob] {
            let (mut from, mut to) = side.into_split();
            let sent = Arc::clone(&sent);
            tokio::spawn(async move {
                to.write_all(&sent).await.unwrap();
                to.shutdown().await.unwrap();
            });
            receiving.push(tokio::spawn(async move {
                let mut received = Vec::new();
                from.read_to_end(&mut received).await.unwrap();
                received
            }));
        }
        for received in receiving {
            assert!(received.await.unwrap() == *sent, "other bytes have arrived");
        }
        carried.await.unwrap().unwrap();
        assert_eq!(
            relay.carried_bytes.load(Ordering::Relaxed),
            BYTES as u64 * 2
        );
    }

    #[tokio::test]
    async fn a_flood_ends_at_the_day_s_bytes() {
        const MOST: u64 = 1_000_000;
        let relay = relay(|limits| limits.bytes_per_day = Some(MOST));
        let (alice, mut bob, carried) = meet(&relay, [1, 2]).await;
        let (_kept, writer) = alice.into_split();
        tokio::spawn(pour(writer));
        let mut received = Vec::new();
        bob.read_to_end(&mut received).await.unwrap();
        let ended = carried.await.unwrap().unwrap_err();
        assert!(matches!(ended, CarryError::Limit(Refusal::RelayBytes)));
        let last = MOST - 2 * STEP_BYTES as u64..=MOST;
        assert!(
            last.contains(&(received.len() as u64)),
            "{}",
            received.len()
        );
    }

    #[tokio::test]
    async fn silence_ends_a_relay_and_traffic_does_not() {
        let limit = Duration::from_secs(1);
        let relay = relay(|limits| limits.idle_timeout = limit);
        let (mut alice, mut bob, carried) = meet(&relay, [1, 2]).await;
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
        let (alice, mut bob, carried) = meet(&relay(|_| ()), [1, 2]).await;
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
        let (_alice, _bob, carried) = meet(&relay, [1, 2]).await;
        let ended = carried.await.unwrap().unwrap_err();
        let is_time = matches!(ended, CarryError::Limit(Refusal::RelayTime));
        assert!(is_time && begin.elapsed() >= limit, "{ended}");
    }

    #[tokio::test]
    async fn a_day_s_bytes_are_counted_both_ways_and_over_every_meeting() {
        let relay = relay(|limits| limits.bytes_per_day = Some(1_000));
        for _ in 0..2 {
            let (mut alice, mut bob, carried) = meet(&relay, [1, 2]).await;
            let mut bytes = [0; 250];
            alice.write_all(&bytes).await.unwrap();
            bob.read_exact(&mut bytes).await.unwrap();
            bob.write_all(&bytes).await.unwrap();
            alice.read_exact(&mut bytes).await.unwrap();
            carried.abort();
        }
        let refused = admit(&relay, [2, 1]).unwrap_err();
        assert_eq!(refused, Refusal::RelayBytes);
        let (mut alice, mut bob, carried) = meet(&relay, [1, 3]).await;
        alice.write_all(&[0; 1_001]).await.unwrap();
        let mut nothing = Vec::new();
        bob.read_to_end(&mut nothing).await.unwrap();
        assert!(nothing.is_empty());
        let ended = carried.await.unwrap().unwrap_err();
        assert!(matches!(ended, CarryError::Limit(Refusal::RelayBytes)));
    }

    #[test]
    fn pairs_count_against_the_inviter() {
        let relay = relay(|limits| {
            limits.pairs = Bounds {
                total: 4,
                reserved: 1,
                per_key: 2,
                per_subnet: SubnetBounds::uniform(2),
            };
        });
        let of = |a, b| admit(&relay, [a, b]);
        let held = [of(1, 2).unwrap(), of(1, 3).unwrap()];
        assert_eq!(of(1, 4).unwrap_err(), Refusal::Limited, "of one key");
        let same_house = Inviter {
            key: inviter(9).key,
            ..inviter(1)
        };
        let refused = relay.admit([inviter(9).key, inviter(4).key], same_house, false);
        assert_eq!(refused.unwrap_err(), Refusal::Limited, "of one address");
        let of_the_invited = of(2, 1).unwrap();
        let third = of(7, 2).unwrap();
        assert!(held[1].slot.is_evicted(), "who has most gives way");
        let full = of(8, 2).unwrap_err();
        assert_eq!(full, Refusal::Limited, "nobody gives way to an equal");
        let keys = [6, 2].map(|number| inviter(number).key);
        let known = relay.admit(keys, inviter(6), true).unwrap();
        drop((held, of_the_invited, third, known));
        of(1, 2).unwrap();
    }

    #[test]
    fn new_keys_of_one_network_share_its_quota() {
        let relay = relay(|limits| {
            limits.bytes_per_day = Some(100);
            limits.network_bytes_per_day = Some(250);
        });
        let carry = |keys: [u8; 2], from: &str, bytes| {
            let who = Inviter {
                address: from.parse().unwrap(),
                ..inviter(keys[0])
            };
            let keys = keys.map(|number| inviter(number).key);
            relay.quota.take(Instant::now(), keys, who, bytes)
        };
        assert!(carry([1, 2], "2001:db8::1", 100));
        assert!(!carry([1, 2], "2001:db8::1", 1), "of the pair");
        assert!(carry([3, 4], "2001:db8:0:1::1", 100));
        assert!(!carry([5, 6], "2001:db8:0:2::1", 100), "of the home");
        assert!(carry([5, 6], "2001:db8:0:2::1", 50));
        assert!(
            carry([2, 5], "198.51.100.1", 100),
            "the invited have theirs"
        );
        assert!(carry([1, 6], "198.51.100.2", 100));
        assert!(
            !carry([1, 7], "198.51.100.3", 100),
            "of the key, wherever it is"
        );
    }

    /// Bytes that went through each of the pairs within a second. In the first
    /// both sides send, in the others one does.
    async fn shares(relay: &Arc<RelayService>, pairs: u8) -> Vec<u64> {
        let mut counts = Vec::new();
        for number in 0..pairs {
            let (alice, bob, _) = meet(relay, [number * 2, number * 2 + 1]).await;
            let count = Arc::new(AtomicU64::new(0));
            let (alice_reader, alice_writer) = alice.into_split();
            let (bob_reader, bob_writer) = bob.into_split();
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

    async fn pour(mut to: OwnedWriteHalf) {
        while to.write_all(&[0; STEP_BYTES]).await.is_ok() {}
    }

    async fn drain(mut from: OwnedReadHalf, count: Arc<AtomicU64>) {
        let mut buffer = vec![0; STEP_BYTES];
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
        let most = limit * 11 / 10 + 4 * 3 * STEP_BYTES as u64;
        assert!((limit / 2..most).contains(&total), "{shares:?}");
        let fair = total / 4;
        assert!(
            shares.iter().all(|&share| share > fair * 3 / 4),
            "{shares:?}"
        );
    }

    #[tokio::test]
    async fn a_pair_keeps_its_rate_limit() {
        let limit = 1_000_000;
        let relay = relay(|limits| limits.bytes_per_second = Some(limit));
        let shares = shares(&relay, 2).await;
        let most = limit * 11 / 10 + 3 * STEP_BYTES as u64;
        let fits = |share: &u64| (limit / 2..most).contains(share);
        assert!(shares.iter().all(fits), "{shares:?}");
    }
}
