//! Claims of names: which of them wait for the disk or the database, and which are granted.

mod recovery;
mod review;

use std::collections::HashMap;
use std::mem;
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
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::{error, info};

use crate::admission::{NamedKeys, RATED, newcomer};
use crate::caps::{CapWarnings, NAMES};
use crate::inbox::RegistrarInput;
use crate::limits::{Limits, NameLimits};
use crate::names::{ClaimedName, NameState, Names, NamesError};
use crate::slots::{Slot, Slots};
use recovery::{NameUses, NewRecoveries};

/// The length of the queue. It is longer than the number of claims that may wait, because
/// evicted claims stay in it until they are answered.
const QUEUE: usize = 32_768;
/// The most claims that are answered together. New names among them share one write.
const BATCH: usize = 256;
/// How many questions about former keys may wait. Many are asked when somebody whom many
/// know comes back with another key.
const QUESTIONS: usize = 1_024;
/// How many tasks may wait. Each comes once in a while.
const TASKS: usize = 16;
/// How often an operator's changes are looked for, and whether the database answers.
/// SQLite tells other processes nothing by itself, PostgreSQL's messages may get lost, and
/// looking reads a few bytes.
const CHANGES_INTERVAL: Duration = Duration::from_secs(2);
/// The buckets for what a lookup takes: from 50 us to 13 s, by fours.
const LOOKUP_SECONDS_MIN: f64 = 0.000_05;
const LOOKUP_BUCKETS: u16 = 10;
/// How long a claim waits for a database that is away. With the last attempt, which takes
/// four seconds at most, this is within the ten seconds that clients wait.
const PATIENCE: Duration = Duration::from_secs(4);
/// The pause before a database that is away is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

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
    fn request(&self) -> Option<RecoveryRequest> {
        self.recovery.as_ref().and_then(|it| it.request)
    }

    /// Whether it wants something of a name that has an owner, and not the name if it is
    /// free.
    fn asks_about_a_name(&self) -> bool {
        matches!(
            self.request(),
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

/// A claim that is not answered yet.
struct WaitingClaim {
    claim: NameClaim,
    slot: Slot,
    since: Instant,
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
    Claims,
    Question(KnownKey),
    Task(NameTask),
    LookForChanges,
    End,
}

/// The queue to the thread that owns the names.
pub(crate) struct ClaimQueue {
    queue: mpsc::Sender<WaitingClaim>,
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
    queue: mpsc::Receiver<WaitingClaim>,
    questions: mpsc::Receiver<KnownKey>,
    tasks: mpsc::Receiver<NameTask>,
    limits: NameLimits,
    warnings: CapWarnings,
    new_names: SubnetRateLimiter,
    named_keys: Arc<NamedKeys>,
    regular_after: Duration,
    keys_looked_at: Option<Instant>,
    /// Until when the keys of names and the regulars are known, in seconds since 1970.
    named_until_s: i64,
    regular_until_s: i64,
    changes_looked_at: Option<Instant>,
    /// A review could not be completed.
    is_review_due: bool,
    /// The database did not answer the last time.
    is_out: bool,
    uses: NameUses,
    new_recoveries: NewRecoveries,
    /// Until when revoked keys were told, in seconds since 1970.
    revocations_told_s: i64,
    /// What the registrar has to hear before the answer to the present claim.
    before_answer: Vec<RegistrarInput>,
}

pub(crate) async fn claims(
    names: Names,
    limits: &Limits,
    named_keys: Arc<NamedKeys>,
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
        named_keys,
        regular_after: limits.regular_after,
        keys_looked_at: None,
        named_until_s: i64::MIN,
        regular_until_s: i64::MIN,
        changes_looked_at: None,
        is_review_due: false,
        is_out: false,
        uses: NameUses::default(),
        new_recoveries: NewRecoveries::default(),
        revocations_told_s: i64::MIN,
        before_answer: Vec::new(),
    };
    name_worker.note_keys(Instant::now()).await?;
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
        let since = Instant::now();
        let waiting = WaitingClaim { claim, slot, since };
        self.queue.try_send(waiting).map_err(|_| {
            error!("the names do not keep up with the logins");
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
            error!("the names do not keep up with what an operator asks of them");
        }
    }
}

/// Nobody takes answers any more.
struct ServerEnded;

async fn send(
    answers: &mpsc::Sender<RegistrarInput>,
    inputs: impl IntoIterator<Item = RegistrarInput>,
) -> Result<(), ServerEnded> {
    for input in inputs {
        answers.send(input).await.map_err(|_| ServerEnded)?;
    }
    Ok(())
}

/// The answer to a claim of a name that is not free.
fn owner(claim: &NameClaim, state: NameState) -> Option<Result<PeerKey, Refusal>> {
    match state {
        NameState::Free => None,
        NameState::Bound(key) => Some(Ok(key)),
        NameState::Banned => Some(Err(Refusal::NameTaken)),
        NameState::Damaged => {
            error!("the stored key of {} is damaged", claim.name);
            Some(Err(Refusal::Internal))
        }
    }
}

impl NameWorker {
    /// Answers claims until the server stops. SQLite blocks the thread in which this runs.
    pub(crate) async fn run(mut self, answers: &mpsc::Sender<RegistrarInput>) {
        tokio::select! {
            // A server that stops does not wait for a database.
            () = answers.closed() => {}
            () = self.work(answers) => {}
        }
    }

    async fn work(&mut self, answers: &mpsc::Sender<RegistrarInput>) {
        let mut waiting = Vec::new();
        loop {
            let answered = match self.next(&mut waiting).await {
                Work::Claims => self.answer(answers, mem::take(&mut waiting)).await,
                Work::Question(known) => send(answers, [self.history(known).await]).await,
                Work::Task(task) => send(answers, self.perform(task).await).await,
                Work::LookForChanges => Ok(()),
                Work::End => return self.flush_uses(Instant::now()).await,
            };
            let now = Instant::now();
            self.write_uses(now).await;
            let changed = self.look_for_changes(now).await;
            let changed = changed.into_iter().chain(self.begin_day());
            if answered.is_err() || send(answers, changed).await.is_err() {
                return;
            }
        }
    }

    async fn next(&mut self, waiting: &mut Vec<WaitingClaim>) -> Work {
        tokio::select! {
            biased;
            Some(task) = self.tasks.recv() => Work::Task(task),
            Some(known) = self.questions.recv() => Work::Question(known),
            claims = self.queue.recv_many(waiting, BATCH) => match claims {
                0 => Work::End,
                _ => Work::Claims,
            },
            () = sleep(CHANGES_INTERVAL) => Work::LookForChanges,
        }
    }

    async fn perform(&mut self, task: NameTask) -> Option<RegistrarInput> {
        match task {
            NameTask::Review(online) => self.review(&online).await,
            NameTask::Check(reply) => {
                let readable = self.names.check_readable().await;
                let is_readable = readable.is_ok();
                self.note(readable, "checking the names");
                // Whoever asked may have given up.
                let _: Result<(), _> = reply.send(is_readable);
                None
            }
            NameTask::Limit(limits) => {
                self.limits = limits;
                None
            }
        }
    }

    /// Notes whether the database answers, and logs an error. An outage is logged once.
    fn note<T>(&mut self, done: Result<T, NamesError>, doing: &str) -> Option<T> {
        match done {
            Ok(done) => {
                if mem::take(&mut self.is_out) {
                    info!("the database of the names can be reached again");
                }
                Some(done)
            }
            Err(error) if error.is_outage() => {
                if !mem::replace(&mut self.is_out, true) {
                    error!("{doing}: {error}. Until then logins are refused");
                }
                None
            }
            Err(error) => {
                error!("{doing}: {error}");
                None
            }
        }
    }

    /// Answers the claims of known names first, then the others after a write that they
    /// share.
    async fn answer(
        &mut self,
        answers: &mpsc::Sender<RegistrarInput>,
        mut waiting: Vec<WaitingClaim>,
    ) -> Result<(), ServerEnded> {
        let begin = Instant::now();
        self.note_keys_if_due(begin).await;
        let known = loop {
            waiting = self.turn_away(answers, waiting).await?;
            if waiting.is_empty() {
                return Ok(());
            }
            let claims = waiting.iter().map(|it| &it.claim);
            let claims: Vec<_> = claims.map(|it| (it.name.clone(), it.key)).collect();
            let known = self.names.look_up_claimed(&claims).await;
            match self.note(known, "looking names up") {
                Some(known) => break known,
                None if self.is_out => sleep(RETRY_PAUSE).await,
                None => {
                    let refused = waiting.iter().map(|it| {
                        let owner = Err(Refusal::Internal);
                        self.decided(begin, &it.claim, owner)
                    });
                    return send(answers, refused).await;
                }
            }
        };
        let mut new = Vec::new();
        for (it, mut known) in waiting.into_iter().zip(known) {
            match self.decide(begin, &it.claim, &mut known).await {
                None => new.push((it, known)),
                Some(owner) => {
                    self.note_login(&it.claim, owner, &known);
                    let answer = self.decided(begin, &it.claim, owner);
                    let before = mem::take(&mut self.before_answer);
                    send(answers, before.into_iter().chain([answer])).await?;
                }
            }
        }
        let claims: Vec<_> = new.iter().map(|(it, _)| &it.claim).collect();
        let owners = self.bind(begin, &claims).await;
        for ((it, known), owner) in new.iter().zip(owners) {
            self.note_login(&it.claim, owner, known);
            send(answers, [self.decided(begin, &it.claim, owner)]).await?;
        }
        self.write_recoveries().await;
        self.note_count();
        Ok(())
    }

    /// The answer to a claim of a name that is not free, or that wants no free one.
    async fn decide(
        &mut self,
        now: Instant,
        claim: &NameClaim,
        known: &mut ClaimedName,
    ) -> Option<Result<PeerKey, Refusal>> {
        let asks = claim.asks_about_a_name();
        if known.has_ended && !asks && known.state != NameState::Banned {
            return Some(Err(Refusal::KeyRevoked));
        }
        match owner(claim, known.state) {
            Some(Ok(owner)) => Some(self.see_to_recovery(now, claim, owner, known).await),
            None if asks => Some(Err(Refusal::NameTaken)),
            decided => decided,
        }
    }

    /// Refuses claims that are evicted, and those that have waited for long enough for a
    /// database that is away. Returns the others.
    async fn turn_away(
        &mut self,
        answers: &mpsc::Sender<RegistrarInput>,
        waiting: Vec<WaitingClaim>,
    ) -> Result<Vec<WaitingClaim>, ServerEnded> {
        let mut left = Vec::new();
        for it in waiting {
            let is_over = self.is_out && it.since.elapsed() >= PATIENCE;
            let refusal = match (it.slot.is_evicted(), is_over) {
                (true, _) => Refusal::Limited,
                (false, true) => Refusal::Unavailable,
                (false, false) => {
                    left.push(it);
                    continue;
                }
            };
            let answer = self.decided(it.since, &it.claim, Err(refusal));
            send(answers, [answer]).await?;
        }
        Ok(left)
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

    /// Decides on claims of names that were free, in one write.
    async fn bind(&mut self, now: Instant, claims: &[&NameClaim]) -> Vec<Result<PeerKey, Refusal>> {
        if claims.is_empty() {
            return Vec::new();
        }
        let keys: Vec<_> = claims.iter().map(|claim| claim.key).collect();
        let counts = self.names.counts_of(&keys).await;
        let Some(mut counts) = self.note(counts, "counting names") else {
            return vec![Err(self.refusal(Refusal::Internal)); claims.len()];
        };
        let mut wanted = Vec::new();
        // A name that is claimed twice is decided once.
        let mut places = HashMap::new();
        let admitted: Vec<Result<usize, Refusal>> = claims
            .iter()
            .map(|claim| {
                if let Some(&place) = places.get(&claim.name) {
                    return Ok(place);
                }
                let held = counts.entry(claim.key).or_default();
                self.admit(now, claim, *held, wanted.len() as u64)?;
                *held += 1;
                places.insert(&claim.name, wanted.len());
                wanted.push((claim.name.clone(), claim.key));
                Ok(wanted.len() - 1)
            })
            .collect();
        let bound = match wanted.is_empty() {
            true => Ok(Vec::new()),
            false => self.names.bind(&wanted).await,
        };
        let bound = self.note(bound, "registering names").unwrap_or_default();
        let refusal = self.refusal(Refusal::NoNewNames);
        let decided = admitted.into_iter().zip(claims).map(|(place, claim)| {
            let state = bound.get(place?).ok_or(refusal)?;
            // Nobody has a name that was released while it was registered.
            owner(claim, *state).unwrap_or(Err(Refusal::Internal))
        });
        decided.collect()
    }

    /// Why a claim is refused after a failure: for this reason, unless the database is
    /// away.
    const fn refusal(&self, otherwise: Refusal) -> Refusal {
        match self.is_out {
            true => Refusal::Unavailable,
            false => otherwise,
        }
    }

    /// Whether a key that has `held` names may have another, when `new` others are about
    /// to be registered.
    fn admit(
        &mut self,
        now: Instant,
        claim: &NameClaim,
        held: u32,
        new: u64,
    ) -> Result<(), Refusal> {
        if held >= self.limits.names_per_key {
            self.warnings.met(Full::Key);
            return Err(Refusal::TooManyNames);
        }
        if !self.new_names.take(now, claim.address) {
            return Err(Refusal::Limited);
        }
        if self.names.count() + new >= self.limits.names {
            self.warnings.met(Full::Total);
            return Err(Refusal::NoNewNames);
        }
        Ok(())
    }

    fn note_count(&self) {
        self.count
            .set(i64::try_from(self.names.count()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use pinhole_budget::{Bounds, Rate, SubnetBounds};

    use super::*;
    use crate::admission::Tenure;
    use crate::names::SqliteNames;

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

    async fn with(limits: &Limits) -> (ClaimQueue, NameWorker, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let names = SqliteNames::create(&dir.path().join("names.sqlite")).unwrap();
        let claims = claims(Names::Sqlite(names), limits, Arc::default());
        let (claims, name_worker) = claims.await.unwrap();
        (claims, name_worker, dir)
    }

    async fn decide(
        name_worker: &mut NameWorker,
        now: Instant,
        claim: NameClaim,
    ) -> Result<PeerKey, Refusal> {
        let claimed = [(claim.name.clone(), claim.key)];
        let mut known = name_worker.names.look_up_claimed(&claimed).await.unwrap();
        match name_worker.decide(now, &claim, &mut known[0]).await {
            Some(owner) => owner,
            None => name_worker.bind(now, &[&claim]).await[0],
        }
    }

    #[tokio::test]
    async fn claims_of_one_network_leave_room_for_others() {
        let (claims, mut name_worker, _dir) = with(&Limits {
            claims: Bounds {
                total: 3,
                reserved: 0,
                per_key: 9,
                per_subnet: SubnetBounds::uniform(2),
            },
            ..Limits::default()
        })
        .await;
        let ask = |address| claims.ask(claim("alice", 1, address));
        assert_eq!(ask("2001:db8::1"), Ok(()));
        assert_eq!(ask("2001:db8::2"), Ok(()));
        assert_eq!(ask("2001:db8::3"), Err(Refusal::Limited));
        assert_eq!(ask("198.51.100.1"), Ok(()));
        assert_eq!(ask("203.0.113.1"), Ok(()), "instead of the second");
        let mut next = || name_worker.queue.try_recv().unwrap().slot.is_evicted();
        assert_eq!([next(), next(), next()], [false, true, false]);
        assert_eq!(ask("2001:db8::3"), Ok(()));
    }

    type Answers = Vec<(u64, Result<PeerKey, Refusal>)>;

    /// What comes of claims that wait at once, in the order of the answers.
    async fn answered(limits: &Limits, all: Vec<NameClaim>) -> (Answers, Arc<NamedKeys>) {
        let (claims, name_worker, _dir) = with(limits).await;
        let named_keys = Arc::clone(&name_worker.named_keys);
        for claim in all {
            assert_eq!(claims.ask(claim), Ok(()));
        }
        drop(claims);
        let (answers, mut answered) = mpsc::channel(QUEUE);
        name_worker.run(&answers).await;
        drop(answers);
        let mut owners = Vec::new();
        while let Some(answer) = answered.recv().await {
            match answer {
                RegistrarInput::Claimed { session, owner } => owners.push((session.0, owner)),
                // Nothing has been reviewed before.
                RegistrarInput::NamesChanged => {}
                other => panic!("{other:?}"),
            }
        }
        (owners, named_keys)
    }

    #[tokio::test]
    async fn a_storm_of_logins_from_one_address_waits_and_nobody_is_refused() {
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
        let (owners, named_keys) = answered(&limits, all.collect()).await;
        let own = PeerKey::from_bytes([1; 32]);
        let expected: Vec<_> = people.map(|number| (number, Ok(own))).collect();
        assert_eq!(owners, expected);
        assert_eq!(named_keys.tenure(own), Some(Tenure::Named));
    }

    #[tokio::test]
    async fn one_name_that_two_keys_claim_at_once_is_the_first_s() {
        let all = [1, 2].map(|key| claim("alice", key, "198.51.100.1"));
        let (owners, named_keys) = answered(&Limits::default(), all.into()).await;
        let first = PeerKey::from_bytes([1; 32]);
        assert_eq!(owners, [(0, Ok(first)), (0, Ok(first))]);
        assert_eq!(named_keys.tenure(PeerKey::from_bytes([2; 32])), None);
    }

    #[tokio::test]
    async fn a_key_is_a_regular_s_once_its_name_is_old_enough() {
        let (_claims, mut name_worker, _dir) = with(&Limits::default()).await;
        let now = Instant::now();
        let alice = claim("alice", 1, "198.51.100.1");
        decide(&mut name_worker, now, alice).await.unwrap();
        name_worker.note_keys(now + HOUR).await.unwrap();
        let keys = Arc::clone(&name_worker.named_keys);
        assert_ne!(
            keys.tenure(PeerKey::from_bytes([1; 32])),
            Some(Tenure::Regular)
        );
        name_worker.regular_after = Duration::ZERO;
        name_worker.note_keys(now + 2 * HOUR).await.unwrap();
        assert_eq!(
            keys.tenure(PeerKey::from_bytes([1; 32])),
            Some(Tenure::Regular)
        );
    }

    #[tokio::test]
    async fn a_full_server_keeps_its_names_and_takes_no_new_ones() {
        let (_claims, mut name_worker, _dir) = with(&Limits {
            names: 1,
            ..Limits::default()
        })
        .await;
        let mut decide = async |name, key| {
            let claim = claim(name, key, "198.51.100.1");
            decide(&mut name_worker, Instant::now(), claim).await
        };
        let own = PeerKey::from_bytes([1; 32]);
        assert_eq!(decide("alice", 1).await, Ok(own));
        assert_eq!(decide("bob", 2).await, Err(Refusal::NoNewNames));
        assert_eq!(decide("alice", 1).await, Ok(own));
    }

    #[tokio::test]
    async fn new_names_of_an_address_are_limited_and_old_ones_are_kept() {
        let (_claims, mut name_worker, _dir) = with(&Limits {
            new_names_per_network: Rate {
                burst: 2,
                interval: HOUR,
            },
            ..Limits::default()
        })
        .await;
        let now = Instant::now();
        let mut decide = async |now, name, key, address| {
            let claim = claim(name, key, address);
            let owner = decide(&mut name_worker, now, claim).await;
            owner.map(|owner| owner == PeerKey::from_bytes([key; 32]))
        };
        let (home, elsewhere) = ("198.51.100.1", "198.51.100.2");
        assert_eq!(decide(now, "alice", 1, home).await, Ok(true));
        assert_eq!(decide(now, "bob", 2, home).await, Ok(true));
        assert_eq!(decide(now, "carol", 3, home).await, Err(Refusal::Limited));
        assert_eq!(decide(now, "alice", 1, home).await, Ok(true));
        assert_eq!(decide(now, "bob", 3, home).await, Ok(false));
        assert_eq!(decide(now, "carol", 3, elsewhere).await, Ok(true));
        assert_eq!(decide(now + HOUR, "dave", 4, home).await, Ok(true));
    }

    #[tokio::test]
    async fn a_key_has_a_limit_of_names() {
        let (_claims, mut name_worker, _dir) = with(&Limits {
            names_per_key: 2,
            ..Limits::default()
        })
        .await;
        let mut decide = async |name, key| {
            let claim = claim(name, key, "198.51.100.1");
            decide(&mut name_worker, Instant::now(), claim).await
        };
        let own = PeerKey::from_bytes([1; 32]);
        assert_eq!(decide("alice", 1).await, Ok(own));
        assert_eq!(decide("alice-phone", 1).await, Ok(own));
        assert_eq!(decide("alice-work", 1).await, Err(Refusal::TooManyNames));
        assert_eq!(decide("alice", 1).await, Ok(own));
        assert!(decide("alice-work", 2).await.is_ok());
    }
}
