//! Claims of names: which of them wait for the disk, and which are granted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pinhole_budget::{Full, Owner, SubnetRateLimiter};
use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::registry::SessionId;
use pinhole_proto::rendezvous::Refusal;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::error;

use crate::admission::{NamedKeys, RATED, newcomer};
use crate::caps::{CapWarnings, NAMES};
use crate::inbox::RegistrarInput;
use crate::limits::Limits;
use crate::names::{Names, NamesError};
use crate::slots::{Slot, Slots};

/// The length of the queue. It is longer than the number of claims that may wait, because
/// evicted claims stay in it until they are answered.
const QUEUE: usize = 32_768;
/// The most claims that are answered together. New names among them share one write.
const BATCH: usize = 256;
/// How many tasks may wait. Each comes once in a while.
const TASKS: usize = 16;
/// How often an operator's changes are looked for. SQLite tells other processes nothing
/// by itself, and looking reads a few bytes of the file.
const CHANGES_INTERVAL: Duration = Duration::from_secs(2);
/// The buckets for what a lookup takes: from 50 us to 13 s, by fours.
const LOOKUP_SECONDS_MIN: f64 = 0.000_05;
const LOOKUP_BUCKETS: u16 = 10;
/// How often new regulars are looked for.
const REGULARS_INTERVAL: Duration = Duration::from_secs(60);

/// A session's claim of a name.
#[derive(Debug)]
pub(crate) struct NameClaim {
    pub(crate) session: SessionId,
    pub(crate) name: PeerName,
    pub(crate) key: PeerKey,
    /// The client's address.
    pub(crate) address: IpAddr,
    pub(crate) is_known: bool,
}

/// A name by which a session is online.
#[derive(Debug)]
pub(crate) struct OnlineName {
    pub(crate) session: SessionId,
    pub(crate) name: PeerName,
    pub(crate) key: PeerKey,
}

/// What the thread that owns the names does beside answering claims.
enum NameTask {
    /// Finds those who have lost their names.
    Review(Vec<OnlineName>),
    /// Says whether the names can be read.
    Check(oneshot::Sender<bool>),
    /// Changes how many names there may be.
    Limit { names: u64, names_per_key: u32 },
}

/// What comes to that thread next.
enum Work {
    Claims,
    Task(NameTask),
    LookForChanges,
    End,
}

/// The queue to the thread that owns the names.
pub(crate) struct ClaimQueue {
    queue: mpsc::Sender<(NameClaim, Slot)>,
    tasks: mpsc::Sender<NameTask>,
    waiting: Arc<Slots>,
    /// How many names there are.
    pub(crate) count: Gauge,
    /// The seconds that lookups take.
    pub(crate) lookups: Histogram,
}

/// Decides on claims, in a thread of its own.
pub(crate) struct NameWorker {
    names: Names,
    count: Gauge,
    lookups: Histogram,
    queue: mpsc::Receiver<(NameClaim, Slot)>,
    tasks: mpsc::Receiver<NameTask>,
    names_per_key: u32,
    names_max: u64,
    warnings: CapWarnings,
    new_names: SubnetRateLimiter,
    named_keys: Arc<NamedKeys>,
    regular_after: Duration,
    looked_at: Option<Instant>,
    changes_looked_at: Option<Instant>,
}

pub(crate) fn claims(
    names: Names,
    limits: &Limits,
    named_keys: Arc<NamedKeys>,
) -> Result<(ClaimQueue, NameWorker), NamesError> {
    let (sender, queue) = mpsc::channel(QUEUE);
    let (task_sender, tasks) = mpsc::channel(TASKS);
    let claims = ClaimQueue {
        queue: sender,
        tasks: task_sender,
        waiting: Slots::new(limits.claims),
        count: Gauge::default(),
        lookups: Histogram::new(exponential_buckets(LOOKUP_SECONDS_MIN, 4.0, LOOKUP_BUCKETS)),
    };
    let mut name_worker = NameWorker {
        count: claims.count.clone(),
        lookups: claims.lookups.clone(),
        names,
        queue,
        tasks,
        names_per_key: limits.names_per_key,
        names_max: limits.names,
        warnings: CapWarnings::new(NAMES),
        new_names: SubnetRateLimiter::new(limits.new_names_per_network, RATED),
        named_keys,
        regular_after: limits.regular_after,
        looked_at: None,
        changes_looked_at: None,
    };
    name_worker.named_keys.insert(name_worker.names.keys()?);
    name_worker.note_regulars(Instant::now())?;
    name_worker.note_count();
    Ok((claims, name_worker))
}

impl ClaimQueue {
    /// Queues the claim, unless too many wait already.
    pub(crate) fn ask(&self, claim: NameClaim) -> Result<(), Refusal> {
        let owner = Owner {
            is_known: claim.is_known,
            ..newcomer(Some(claim.key), claim.address)
        };
        let slot = self.waiting.take(owner).map_err(|_| Refusal::Limited)?;
        self.queue.try_send((claim, slot)).map_err(|_| {
            error!("the disk does not keep up with the logins");
            Refusal::Internal
        })
    }

    /// Has these names looked up again. Those who have lost theirs come back as
    /// [`RegistrarInput::NamesLost`].
    pub(crate) fn review(&self, online: Vec<OnlineName>) {
        self.perform(NameTask::Review(online));
    }

    /// Answers whether the names can be read.
    pub(crate) fn check(&self, reply: oneshot::Sender<bool>) {
        self.perform(NameTask::Check(reply));
    }

    /// Changes how many names there may be.
    pub(crate) fn limit(&self, names: u64, names_per_key: u32) {
        self.perform(NameTask::Limit {
            names,
            names_per_key,
        });
    }

    fn perform(&self, task: NameTask) {
        if self.tasks.try_send(task).is_err() {
            error!("the disk does not keep up with what an operator asks of the names");
        }
    }
}

/// Nobody takes answers any more.
struct ServerEnded;

fn send(
    answers: &mpsc::Sender<RegistrarInput>,
    inputs: impl IntoIterator<Item = RegistrarInput>,
) -> Result<(), ServerEnded> {
    for input in inputs {
        answers.blocking_send(input).map_err(|_| ServerEnded)?;
    }
    Ok(())
}

impl NameWorker {
    /// Answers claims until the server stops.
    pub(crate) fn run(mut self, answers: &mpsc::Sender<RegistrarInput>) {
        let runtime = Handle::current();
        let mut waiting = Vec::new();
        loop {
            let answered = match runtime.block_on(self.next(&mut waiting)) {
                Work::Claims => self.answer(answers, waiting.drain(..)),
                Work::Task(task) => send(answers, self.perform(task)),
                Work::LookForChanges => Ok(()),
                Work::End => return,
            };
            let changed = self.look_for_changes(Instant::now());
            if answered.and_then(|()| send(answers, changed)).is_err() {
                return;
            }
        }
    }

    async fn next(&mut self, waiting: &mut Vec<(NameClaim, Slot)>) -> Work {
        tokio::select! {
            biased;
            Some(task) = self.tasks.recv() => Work::Task(task),
            claims = self.queue.recv_many(waiting, BATCH) => match claims {
                0 => Work::End,
                _ => Work::Claims,
            },
            () = sleep(CHANGES_INTERVAL) => Work::LookForChanges,
        }
    }

    fn perform(&mut self, task: NameTask) -> Option<RegistrarInput> {
        match task {
            NameTask::Review(online) => self.review(online),
            NameTask::Check(reply) => {
                let readable = self.names.check_readable();
                if let Err(error) = &readable {
                    error!("checking the names: {error:#}");
                }
                // Whoever asked may have given up.
                let _: Result<(), _> = reply.send(readable.is_ok());
                None
            }
            NameTask::Limit {
                names,
                names_per_key,
            } => {
                (self.names_max, self.names_per_key) = (names, names_per_key);
                None
            }
        }
    }

    /// Answers the claims of known names first, then the others after a write that they
    /// share.
    fn answer(
        &mut self,
        answers: &mpsc::Sender<RegistrarInput>,
        claims: impl Iterator<Item = (NameClaim, Slot)>,
    ) -> Result<(), ServerEnded> {
        let begin = Instant::now();
        if let Err(error) = self.note_regulars(begin) {
            error!("looking for regulars: {error:#}");
        }
        let mut new = Vec::new();
        for (claim, slot) in claims {
            let owner = match slot.is_evicted() {
                true => Err(Refusal::Limited),
                false => self.look_up(&claim),
            };
            match owner {
                Ok(None) => new.push((claim, slot)),
                Ok(Some(owner)) => send(answers, [self.decided(begin, &claim, Ok(owner))])?,
                Err(refusal) => send(answers, [self.decided(begin, &claim, Err(refusal))])?,
            }
        }
        let claims: Vec<_> = new.iter().map(|(claim, _)| claim).collect();
        let owners = self.bind(begin, &claims);
        for (claim, owner) in claims.into_iter().zip(owners) {
            send(answers, [self.decided(begin, claim, owner)])?;
        }
        self.note_count();
        Ok(())
    }

    /// The answer to a claim, which is counted.
    fn decided(
        &self,
        begin: Instant,
        claim: &NameClaim,
        owner: Result<PeerKey, Refusal>,
    ) -> RegistrarInput {
        if owner == Ok(claim.key) {
            self.named_keys.insert([claim.key]);
        }
        self.lookups.observe(begin.elapsed().as_secs_f64());
        let session = claim.session;
        RegistrarInput::Claimed { session, owner }
    }

    /// The key that the name is bound to, or `None` if it is free.
    fn look_up(&self, claim: &NameClaim) -> Result<Option<PeerKey>, Refusal> {
        let look_up = || match self.names.is_banned(&claim.name)? {
            true => Ok(Err(Refusal::NameTaken)),
            false => self.names.owner(&claim.name).map(Ok),
        };
        look_up().unwrap_or_else(|error: NamesError| {
            error!("looking {} up: {error:#}", claim.name);
            Err(Refusal::Internal)
        })
    }

    /// Decides on claims of names that were free, in one write.
    fn bind(&mut self, now: Instant, claims: &[&NameClaim]) -> Vec<Result<PeerKey, Refusal>> {
        if claims.is_empty() {
            return Vec::new();
        }
        let begun = self.names.begin();
        let decided = begun.and_then(|()| {
            let owners = claims.iter().map(|claim| self.decide(now, claim)).collect();
            self.names.commit()?;
            Ok(owners)
        });
        decided.unwrap_or_else(|error| {
            error!("{} names cannot be registered: {error:#}", claims.len());
            vec![Err(Refusal::NoNewNames); claims.len()]
        })
    }

    fn note_count(&self) {
        self.count
            .set(i64::try_from(self.names.count()).unwrap_or(i64::MAX));
    }

    /// Says so if an operator has changed the names.
    fn look_for_changes(&mut self, now: Instant) -> Option<RegistrarInput> {
        let is_due = |at: Instant| now.saturating_duration_since(at) >= CHANGES_INTERVAL;
        if !self.changes_looked_at.is_none_or(is_due) {
            return None;
        }
        self.changes_looked_at = Some(now);
        let changed = self.names.has_changed_elsewhere();
        let changed = changed.unwrap_or_else(|error| {
            error!("looking for changed names: {error:#}");
            false
        });
        self.note_count();
        changed.then_some(RegistrarInput::NamesChanged)
    }

    /// Those of `online` whose name is banned, free or another key's.
    fn review(&self, online: Vec<OnlineName>) -> Option<RegistrarInput> {
        let has_lost = |it: &OnlineName| {
            let is_theirs = || {
                let owner = self.names.owner(&it.name)?;
                Ok(owner == Some(it.key) && !self.names.is_banned(&it.name)?)
            };
            is_theirs().map(|is_theirs: bool| !is_theirs)
        };
        let mut sessions = Vec::new();
        for it in online {
            match has_lost(&it) {
                Ok(true) => sessions.push(it.session),
                Ok(false) => {}
                Err::<_, NamesError>(error) => {
                    error!("reviewing {}: {error:#}", it.name);
                    break;
                }
            }
        }
        (!sessions.is_empty()).then_some(RegistrarInput::NamesLost { sessions })
    }

    /// Returns the key that the name is bound to, after binding it if it is free.
    fn decide(&mut self, now: Instant, claim: &NameClaim) -> Result<PeerKey, Refusal> {
        let NameClaim { name, key, .. } = claim;
        let unreadable = |error: NamesError| {
            error!("looking {name} up: {error:#}");
            Refusal::Internal
        };
        if let Some(owner) = self.names.owner(name).map_err(unreadable)? {
            return Ok(owner);
        }
        if self.names.count_of(*key).map_err(unreadable)? >= self.names_per_key {
            self.warnings.met(Full::Key);
            return Err(Refusal::TooManyNames);
        }
        if !self.new_names.take(now, claim.address) {
            return Err(Refusal::Limited);
        }
        if self.names.count() >= self.names_max {
            self.warnings.met(Full::Total);
            return Err(Refusal::NoNewNames);
        }
        self.names.claim(name, *key).map_err(|error| {
            error!("{name} cannot be registered: {error:#}");
            Refusal::NoNewNames
        })
    }

    /// Notes keys whose names have become old enough as regulars.
    fn note_regulars(&mut self, now: Instant) -> Result<(), NamesError> {
        let is_due = |at: Instant| now.saturating_duration_since(at) >= REGULARS_INTERVAL;
        if self.looked_at.is_none_or(is_due) {
            self.looked_at = Some(now);
            let keys = self.names.new_regulars(self.regular_after)?;
            self.named_keys.insert_regulars(keys);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pinhole_budget::{Bounds, Rate, SubnetBounds};

    use super::*;
    use crate::admission::Tenure;

    const HOUR: Duration = Duration::from_secs(3600);

    fn claim(name: &str, key: u8, address: &str) -> NameClaim {
        NameClaim {
            session: SessionId(0),
            name: name.parse().unwrap(),
            key: PeerKey::from_bytes([key; 32]),
            address: address.parse().unwrap(),
            is_known: false,
        }
    }

    fn with(limits: &Limits) -> (ClaimQueue, NameWorker, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let names = Names::create(&dir.path().join("names.sqlite")).unwrap();
        let (claims, name_worker) = claims(names, limits, Arc::default()).unwrap();
        (claims, name_worker, dir)
    }

    #[test]
    fn claims_of_one_network_leave_room_for_others() {
        let (claims, mut name_worker, _dir) = with(&Limits {
            claims: Bounds {
                total: 3,
                reserved: 0,
                per_key: 9,
                per_subnet: SubnetBounds::uniform(2),
            },
            ..Limits::default()
        });
        let ask = |address| claims.ask(claim("alice", 1, address));
        assert_eq!(ask("2001:db8::1"), Ok(()));
        assert_eq!(ask("2001:db8::2"), Ok(()));
        assert_eq!(ask("2001:db8::3"), Err(Refusal::Limited));
        assert_eq!(ask("198.51.100.1"), Ok(()));
        assert_eq!(ask("203.0.113.1"), Ok(()), "instead of the second");
        let mut next = || name_worker.queue.try_recv().unwrap().1.is_evicted();
        assert_eq!([next(), next(), next()], [false, true, false]);
        assert_eq!(ask("2001:db8::3"), Ok(()));
    }

    type Answers = Vec<(u64, Result<PeerKey, Refusal>)>;

    /// What comes of claims that wait at once, in the order of the answers.
    fn answered(limits: &Limits, all: Vec<NameClaim>) -> (Answers, Arc<NamedKeys>) {
        let (claims, name_worker, _dir) = with(limits);
        let named_keys = Arc::clone(&name_worker.named_keys);
        for claim in all {
            assert_eq!(claims.ask(claim), Ok(()));
        }
        drop(claims);
        let (answers, mut answered) = mpsc::channel(QUEUE);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        name_worker.run(&answers);
        drop(answers);
        let mut owners = Vec::new();
        while let Some(answer) = answered.blocking_recv() {
            match answer {
                RegistrarInput::Claimed { session, owner } => owners.push((session.0, owner)),
                // Nothing has been reviewed before.
                RegistrarInput::NamesChanged => {}
                other => panic!("{other:?}"),
            }
        }
        (owners, named_keys)
    }

    #[test]
    fn a_storm_of_logins_from_one_address_waits_and_nobody_is_refused() {
        let people = 0..5_000;
        let limits = Limits {
            new_names_per_network: Rate {
                burst: 5_000,
                interval: HOUR,
            },
            names_per_key: u32::MAX,
            claims: Bounds {
                per_key: u64::MAX,
                ..Limits::default().claims
            },
            ..Limits::default()
        };
        let all = people.clone().map(|number| NameClaim {
            session: SessionId(number),
            ..claim(&format!("person-{number}"), 1, "198.51.100.1")
        });
        let (owners, named_keys) = answered(&limits, all.collect());
        let own = PeerKey::from_bytes([1; 32]);
        let expected: Vec<_> = people.map(|number| (number, Ok(own))).collect();
        assert_eq!(owners, expected);
        assert_eq!(named_keys.tenure(own), Some(Tenure::Named));
    }

    #[test]
    fn one_name_that_two_keys_claim_at_once_is_the_first_s() {
        let all = [1, 2].map(|key| claim("alice", key, "198.51.100.1"));
        let (owners, named_keys) = answered(&Limits::default(), all.into());
        let first = PeerKey::from_bytes([1; 32]);
        assert_eq!(owners, [(0, Ok(first)), (0, Ok(first))]);
        assert_eq!(named_keys.tenure(PeerKey::from_bytes([2; 32])), None);
    }

    #[test]
    fn a_key_is_a_regular_s_once_its_name_is_old_enough() {
        let (_claims, mut name_worker, _dir) = with(&Limits::default());
        let now = Instant::now();
        name_worker
            .decide(now, &claim("alice", 1, "198.51.100.1"))
            .unwrap();
        name_worker.note_regulars(now + HOUR).unwrap();
        let keys = Arc::clone(&name_worker.named_keys);
        assert_ne!(
            keys.tenure(PeerKey::from_bytes([1; 32])),
            Some(Tenure::Regular)
        );
        name_worker.regular_after = Duration::ZERO;
        name_worker.note_regulars(now + 2 * HOUR).unwrap();
        assert_eq!(
            keys.tenure(PeerKey::from_bytes([1; 32])),
            Some(Tenure::Regular)
        );
    }

    #[test]
    fn a_full_server_keeps_its_names_and_takes_no_new_ones() {
        let (_claims, mut name_worker, _dir) = with(&Limits {
            names: 1,
            ..Limits::default()
        });
        let mut decide = |name, key| {
            let claim = claim(name, key, "198.51.100.1");
            name_worker.decide(Instant::now(), &claim)
        };
        let own = PeerKey::from_bytes([1; 32]);
        assert_eq!(decide("alice", 1), Ok(own));
        assert_eq!(decide("bob", 2), Err(Refusal::NoNewNames));
        assert_eq!(decide("alice", 1), Ok(own));
    }

    #[test]
    fn new_names_of_an_address_are_limited_and_old_ones_are_kept() {
        let (_claims, mut name_worker, _dir) = with(&Limits {
            new_names_per_network: Rate {
                burst: 2,
                interval: HOUR,
            },
            ..Limits::default()
        });
        let now = Instant::now();
        let mut decide = |now, name, key, address| {
            let owner = name_worker.decide(now, &claim(name, key, address));
            owner.map(|owner| owner == PeerKey::from_bytes([key; 32]))
        };
        let (home, elsewhere) = ("198.51.100.1", "198.51.100.2");
        assert_eq!(decide(now, "alice", 1, home), Ok(true));
        assert_eq!(decide(now, "bob", 2, home), Ok(true));
        assert_eq!(decide(now, "carol", 3, home), Err(Refusal::Limited));
        assert_eq!(decide(now, "alice", 1, home), Ok(true));
        assert_eq!(decide(now, "bob", 3, home), Ok(false));
        assert_eq!(decide(now, "carol", 3, elsewhere), Ok(true));
        assert_eq!(decide(now + HOUR, "dave", 4, home), Ok(true));
    }

    #[test]
    fn a_key_has_a_limit_of_names() {
        let (_claims, mut name_worker, _dir) = with(&Limits {
            names_per_key: 2,
            ..Limits::default()
        });
        let mut decide = |name, key| {
            let claim = claim(name, key, "198.51.100.1");
            name_worker.decide(Instant::now(), &claim)
        };
        let own = PeerKey::from_bytes([1; 32]);
        assert_eq!(decide("alice", 1), Ok(own));
        assert_eq!(decide("alice-phone", 1), Ok(own));
        assert_eq!(decide("alice-work", 1), Err(Refusal::TooManyNames));
        assert_eq!(decide("alice", 1), Ok(own));
        assert!(decide("alice-work", 2).is_ok());
    }
}
