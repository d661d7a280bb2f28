//! Claims of names: which of them wait for the disk, and which are granted.

mod recovery;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pinhole_budget::{Full, Owner, SubnetRateLimiter};
use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::recovery::{LoginRecovery, RecoveryRequest};
use pinhole_proto::registry::SessionId;
use pinhole_proto::rendezvous::Refusal;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::error;

use crate::admission::{RATED, Regulars, newcomer};
use crate::caps::{CapWarnings, NAMES};
use crate::inbox::RegistrarInput;
use crate::limits::{Limits, NameLimits};
use crate::names::{Names, NamesError};
use crate::slots::{Slot, Slots};
use recovery::NameUses;

/// The length of the queue. It is longer than the number of claims that may wait, because
/// evicted claims stay in it until they are answered.
const QUEUE: usize = 4_096;
/// How many questions about former keys may wait. Many are asked when somebody whom many
/// know comes back with another key.
const QUESTIONS: usize = 1_024;
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
    pub(crate) recovery: Option<Box<LoginRecovery>>,
}

impl NameClaim {
    /// Whether it wants something of a name that has an owner, and not the name if it is
    /// free.
    fn asks_about_a_name(&self) -> bool {
        let request = self.recovery.as_ref().and_then(|it| it.request);
        matches!(
            request,
            Some(RecoveryRequest::Find { .. } | RecoveryRequest::Revoke(_))
        )
    }
}

/// A key that a session knows under a name, and asks about.
#[derive(Debug)]
pub(crate) struct KnownKey {
    pub(crate) session: SessionId,
    pub(crate) name: PeerName,
    pub(crate) key: PeerKey,
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
    Limit(NameLimits),
}

/// What comes to that thread next.
enum Work {
    Claim(NameClaim, Slot),
    Question(KnownKey),
    Task(NameTask),
    LookForChanges,
    End,
}

/// The queue to the thread that owns the names.
pub(crate) struct ClaimQueue {
    queue: mpsc::Sender<(NameClaim, Slot)>,
    questions: mpsc::Sender<KnownKey>,
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
    questions: mpsc::Receiver<KnownKey>,
    tasks: mpsc::Receiver<NameTask>,
    limits: NameLimits,
    warnings: CapWarnings,
    new_names: SubnetRateLimiter,
    regulars: Arc<Regulars>,
    regular_after: Duration,
    looked_at: Option<Instant>,
    changes_looked_at: Option<Instant>,
    uses: NameUses,
    /// Until when revoked keys were told, in seconds since 1970.
    revocations_told_s: i64,
    /// What the registrar has to hear before the answer to the present claim.
    before_answer: Vec<RegistrarInput>,
}

pub(crate) fn claims(
    names: Names,
    limits: &Limits,
    regulars: Arc<Regulars>,
) -> Result<(ClaimQueue, NameWorker), NamesError> {
    let (sender, queue) = mpsc::channel(QUEUE);
    let (question_sender, questions) = mpsc::channel(QUESTIONS);
    let (task_sender, tasks) = mpsc::channel(TASKS);
    let claims = ClaimQueue {
        queue: sender,
        questions: question_sender,
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
        questions,
        tasks,
        limits: NameLimits::from(limits),
        warnings: CapWarnings::new(NAMES),
        new_names: SubnetRateLimiter::new(limits.new_names_per_network, RATED),
        regulars,
        regular_after: limits.regular_after,
        looked_at: None,
        changes_looked_at: None,
        uses: NameUses::default(),
        revocations_told_s: i64::MIN,
        before_answer: Vec::new(),
    };
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

    /// Has a question about a former key answered. Fails when too many wait.
    pub(crate) fn ask_history(&self, known: KnownKey) -> Result<(), KnownKey> {
        let asked = self.questions.try_send(known);
        asked.map_err(TrySendError::into_inner)
    }

    /// Changes how many names there may be, and for how long.
    pub(crate) fn limit(&self, limits: NameLimits) {
        self.perform(NameTask::Limit(limits));
    }

    fn perform(&self, task: NameTask) {
        if self.tasks.try_send(task).is_err() {
            error!("the disk does not keep up with what an operator asks of the names");
        }
    }
}

impl NameWorker {
    /// Answers claims in the order in which they came, until the server stops.
    pub(crate) fn run(mut self, answers: &mpsc::Sender<RegistrarInput>) {
        let runtime = Handle::current();
        loop {
            let answer = match runtime.block_on(self.next()) {
                Work::Claim(claim, slot) => Some(self.answer(&claim, &slot)),
                Work::Question(known) => Some(self.history(known)),
                Work::Task(task) => self.perform(task),
                Work::LookForChanges => None,
                Work::End => return self.flush_uses(Instant::now()),
            };
            let before = std::mem::take(&mut self.before_answer);
            let now = Instant::now();
            self.write_uses(now);
            let changed = self.look_for_changes(now);
            let inputs = before.into_iter().chain(answer).chain(changed);
            for input in inputs.chain(self.begin_day()) {
                if answers.blocking_send(input).is_err() {
                    return;
                }
            }
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
            NameTask::Limit(limits) => {
                self.limits = limits;
                None
            }
        }
    }

    async fn next(&mut self) -> Work {
        tokio::select! {
            biased;
            Some(task) = self.tasks.recv() => Work::Task(task),
            Some(known) = self.questions.recv() => Work::Question(known),
            claim = self.queue.recv() => match claim {
                Some((claim, slot)) => Work::Claim(claim, slot),
                None => Work::End,
            },
            () = sleep(CHANGES_INTERVAL) => Work::LookForChanges,
        }
    }

    fn answer(&mut self, claim: &NameClaim, slot: &Slot) -> RegistrarInput {
        let begin = Instant::now();
        let owner = match slot.is_evicted() {
            true => Err(Refusal::Limited),
            false => self.decide(begin, claim),
        };
        self.lookups.observe(begin.elapsed().as_secs_f64());
        self.note_count();
        let session = claim.session;
        RegistrarInput::Claimed { session, owner }
    }

    fn note_count(&self) {
        self.count
            .set(i64::try_from(self.names.count()).unwrap_or(i64::MAX));
    }

    /// Says so if an operator has changed the names, and which keys were revoked.
    fn look_for_changes(&mut self, now: Instant) -> Vec<RegistrarInput> {
        let is_due = |at: Instant| now.saturating_duration_since(at) >= CHANGES_INTERVAL;
        if !self.changes_looked_at.is_none_or(is_due) {
            return Vec::new();
        }
        self.changes_looked_at = Some(now);
        let changed = self.names.has_changed_elsewhere();
        let changed = changed.unwrap_or_else(|error| {
            error!("looking for changed names: {error:#}");
            false
        });
        self.note_count();
        if !changed {
            return Vec::new();
        }
        let revoked = self.revoked_elsewhere();
        revoked
            .into_iter()
            .chain([RegistrarInput::NamesChanged])
            .collect()
    }

    /// Those of `online` whose name is banned, free or another key's.
    fn review(&mut self, online: Vec<OnlineName>) -> Option<RegistrarInput> {
        self.end_day(online.iter().map(|it| &it.name));
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
        let owner = self.owner_for(now, claim)?;
        if owner == claim.key
            && let Err(error) = self.note_login(claim)
        {
            error!("noting the login of {}: {error:#}", claim.name);
        }
        Ok(owner)
    }

    fn owner_for(&mut self, now: Instant, claim: &NameClaim) -> Result<PeerKey, Refusal> {
        let NameClaim { name, key, .. } = claim;
        let unreadable = |error: NamesError| {
            error!("looking {name} up: {error:#}");
            Refusal::Internal
        };
        self.note_regulars(now).map_err(unreadable)?;
        if self.names.is_banned(name).map_err(unreadable)? {
            return Err(Refusal::NameTaken);
        }
        if !claim.asks_about_a_name() && self.names.has_ended(*key).map_err(unreadable)? {
            return Err(Refusal::KeyRevoked);
        }
        if let Some(owner) = self.names.owner(name).map_err(unreadable)? {
            self.see_to_recovery(now, claim, owner)?;
            return self
                .names
                .owner(name)
                .map_err(unreadable)?
                .ok_or(Refusal::Internal);
        }
        if claim.asks_about_a_name() {
            return Err(Refusal::NameTaken);
        }
        if self.names.count_of(*key).map_err(unreadable)? >= self.limits.names_per_key {
            self.warnings.met(Full::Key);
            return Err(Refusal::TooManyNames);
        }
        if !self.new_names.take(now, claim.address) {
            return Err(Refusal::Limited);
        }
        if self.names.count() >= self.limits.names {
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
            self.regulars.insert(keys);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pinhole_budget::{Bounds, Rate, SubnetBounds};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn claim(name: &str, key: u8, address: &str) -> NameClaim {
        NameClaim {
            session: SessionId(0),
            name: name.parse().unwrap(),
            key: PeerKey::from_bytes([key; 32]),
            address: address.parse().unwrap(),
            is_known: false,
            recovery: None,
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

    #[test]
    fn a_key_is_a_regular_s_once_its_name_is_old_enough() {
        let (_claims, mut name_worker, _dir) = with(&Limits::default());
        let now = Instant::now();
        name_worker
            .decide(now, &claim("alice", 1, "198.51.100.1"))
            .unwrap();
        name_worker.note_regulars(now + HOUR).unwrap();
        let regulars = Arc::clone(&name_worker.regulars);
        assert!(!regulars.contains(PeerKey::from_bytes([1; 32])));
        name_worker.regular_after = Duration::ZERO;
        name_worker.note_regulars(now + 2 * HOUR).unwrap();
        assert!(regulars.contains(PeerKey::from_bytes([1; 32])));
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
