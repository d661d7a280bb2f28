//! Claims that say something about recovery, and what becomes of names over the days.

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::time::{Duration, Instant};

use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::recovery::{
    KeyHistory, RecoveryCertificate, RecoveryRequest, Revocation, Succession,
};
use pinhole_proto::rendezvous::Refusal;
use tracing::{error, info};

use super::review::{KEYS_OVERLAP_S, REVIEW};
use super::{KnownKey, NameClaim, NameWorker, OnlineName, owner};
use crate::inbox::{KeyNews, RegistrarInput};
use crate::names::{ClaimedName, NotedRecovery, day_of, now_s};

/// The names whose use is written together.
const USES: usize = 1_024;
/// How long a use may wait to be written.
const USES_INTERVAL: Duration = Duration::from_secs(60);

/// Recovery keys that are written after the claims that have brought them.
pub(super) type NewRecoveries = HashMap<PeerKey, NotedRecovery>;

/// Uses of names that are not written yet, and the days that have been seen to.
#[derive(Debug, Default)]
pub(super) struct NameUses {
    waiting: BTreeSet<PeerName>,
    written_at: Option<Instant>,
    /// The day on which those who are online were last asked for.
    asked_on: Option<i64>,
    /// The day on which names were last released.
    swept_on: Option<i64>,
}

impl NameWorker {
    /// Does what the claim asks for beside the name. Fails when the login ends with it.
    /// Returns whose the name is then.
    pub(super) async fn see_to_recovery(
        &mut self,
        now: Instant,
        claim: &NameClaim,
        owner: PeerKey,
        known: &mut ClaimedName,
    ) -> Result<PeerKey, Refusal> {
        match claim.request() {
            None => Ok(owner),
            Some(RecoveryRequest::Find { recovery_key }) => {
                Err(self.find(claim, recovery_key, known))
            }
            Some(RecoveryRequest::Revoke(revocation)) => {
                Err(self.revoke(claim, owner, &revocation, known).await)
            }
            // It was told before.
            Some(RecoveryRequest::Succeed(_)) if owner == claim.key => Ok(owner),
            Some(RecoveryRequest::Succeed(succession)) => {
                if !is_of_both(&succession, owner, claim.key)
                    || !counts(&claim.name, Some(&succession.certificate), known)?
                {
                    return Err(Refusal::NameTaken);
                }
                self.succeed(now, claim, &succession, known).await
            }
        }
    }

    fn find(&mut self, claim: &NameClaim, recovery_key: PeerKey, known: &ClaimedName) -> Refusal {
        match in_force(&claim.name, known) {
            Err(refusal) => return refusal,
            Ok(Some(certificate)) if certificate.recovery_key == recovery_key => {
                self.before_answer
                    .push(RegistrarInput::Key(KeyNews::Certificate {
                        session: claim.session,
                        certificate: Box::new(certificate),
                    }));
            }
            Ok(_) => {}
        }
        Refusal::NameTaken
    }

    async fn revoke(
        &mut self,
        claim: &NameClaim,
        owner: PeerKey,
        revocation: &Revocation,
        known: &ClaimedName,
    ) -> Refusal {
        let certificate = revocation.certificate.as_ref();
        match counts(&claim.name, certificate, known) {
            Ok(true) if revocation.key == owner && revocation.verify().is_ok() => {}
            Ok(_) => return Refusal::NameTaken,
            Err(refusal) => return refusal,
        }
        let at_s = now_s();
        let revoked = match self.names.revoke(revocation, at_s).await {
            Ok(()) => self.names.revocations_since(at_s).await,
            Err(error) => Err(error),
        };
        let Some(revoked) = self.note(revoked, "revoking a key") else {
            return self.refusal(Refusal::Internal);
        };
        info!(name = %claim.name, key = %owner.fingerprint(), "a key was revoked");
        let news = RegistrarInput::Key(KeyNews::Revoked(revoked));
        self.before_answer.push(news);
        Refusal::KeyRevoked
    }

    async fn succeed(
        &mut self,
        now: Instant,
        claim: &NameClaim,
        succession: &Succession,
        known: &mut ClaimedName,
    ) -> Result<PeerKey, Refusal> {
        // It costs as much as a new name.
        if !self.new_names.take(now, claim.address) {
            return Err(Refusal::Limited);
        }
        let bound = self.names.succeed(succession, now_s()).await;
        match self.note(bound, "binding a name to another key") {
            Some(true) => {}
            Some(false) => return Err(Refusal::NameTaken),
            None => return Err(self.refusal(Refusal::Internal)),
        }
        let former = succession.former();
        let news = KeyNews::Succeeded { key: former };
        self.before_answer.push(RegistrarInput::Key(news));
        let (former, key) = (former.fingerprint(), claim.key.fingerprint());
        info!(name = %claim.name, %former, %key, "a key has a successor");
        let claimed = [(claim.name.clone(), claim.key)];
        let after = self.names.look_up_claimed(&claimed).await;
        let after = self.note(after, "looking a name up");
        let after = after.and_then(|all| all.into_iter().next());
        *known = after.ok_or_else(|| self.refusal(Refusal::Internal))?;
        owner(claim, known.state).unwrap_or(Err(Refusal::NameTaken))
    }

    /// Notes the certificate and the use if the name is its claimant's.
    pub(super) fn note_login(
        &mut self,
        claim: &NameClaim,
        owner: Result<PeerKey, Refusal>,
        known: &ClaimedName,
    ) {
        if owner != Ok(claim.key) {
            return;
        }
        let now_s = now_s();
        if known.used_on.is_none_or(|day| day < day_of(now_s)) {
            self.uses.waiting.insert(claim.name.clone());
        }
        let certificate = claim.recovery.as_ref().and_then(|it| it.certificate);
        let Some(certificate) = certificate.filter(|it| it.key == claim.key) else {
            return;
        };
        let Ok(stored) = known.recovery.as_ref() else {
            return error!("the stored recovery key of {} is damaged", claim.name);
        };
        let before = self.new_recoveries.get(&claim.key).copied().or(*stored);
        let noted = match before {
            Some(before) => before.with(certificate, now_s),
            None => NotedRecovery::first(certificate),
        };
        if before != Some(noted) && certificate.verify().is_ok() {
            self.new_recoveries.insert(claim.key, noted);
        }
    }

    /// Writes the recovery keys that logins have brought. What cannot be written comes
    /// with the next login.
    pub(super) async fn write_recoveries(&mut self) {
        let noted: Vec<_> = mem::take(&mut self.new_recoveries).into_values().collect();
        if !noted.is_empty() {
            let written = self.names.note_recoveries(&noted).await;
            self.note(written, "noting recovery keys");
        }
    }

    /// Writes the uses that have waited for long enough. What cannot be written is lost:
    /// there will be another use before a year is over.
    pub(super) async fn write_uses(&mut self, now: Instant) {
        let written_at = *self.uses.written_at.get_or_insert(now);
        let has_waited = now.saturating_duration_since(written_at) >= USES_INTERVAL;
        if has_waited || self.uses.waiting.len() >= USES {
            self.flush_uses(now).await;
        }
    }

    pub(super) async fn flush_uses(&mut self, now: Instant) {
        self.uses.written_at = Some(now);
        let waiting: Vec<_> = mem::take(&mut self.uses.waiting).into_iter().collect();
        if !waiting.is_empty() {
            let written = self.names.note_uses(&waiting, day_of(now_s())).await;
            self.note(written, "noting when names were used");
        }
    }

    /// On a new day, has those reviewed who are online: [`NameWorker::end_day`] follows.
    pub(super) fn begin_day(&mut self) -> Option<RegistrarInput> {
        let today = day_of(now_s());
        let is_new = self.uses.asked_on.replace(today) != Some(today);
        is_new.then_some(RegistrarInput::NamesChanged)
    }

    /// These people are online, and have used their names. Releases names that nobody
    /// uses, once a day.
    pub(super) async fn end_day(&mut self, online: &[OnlineName]) {
        let today = day_of(now_s());
        if self.uses.swept_on.replace(today) == Some(today) {
            return;
        }
        self.flush_uses(Instant::now()).await;
        for page in online.chunks(REVIEW) {
            let used: Vec<_> = page.iter().map(|it| it.name.clone()).collect();
            let noted = self.names.note_uses(&used, today).await;
            if self.note(noted, "noting when names were used").is_none() {
                return;
            }
        }
        let released = self.names.sweep(now_s(), self.limits.expire).await;
        match self.note(released, "releasing names that nobody uses") {
            None | Some(0) => {}
            Some(names) => info!(names, "released names that nobody has used"),
        }
    }

    /// The keys that another process has revoked lately, or, at the start, all of them.
    pub(super) async fn revoked_elsewhere(&mut self) -> Option<RegistrarInput> {
        // Another server's clock may be behind.
        let since_s = self.revocations_told_s.saturating_sub(KEYS_OVERLAP_S);
        let now_s = now_s();
        let revoked = self.names.revocations_since(since_s).await;
        match self.note(revoked, "looking for revoked keys") {
            Some(revoked) => {
                self.revocations_told_s = now_s;
                let is_news = !revoked.is_empty();
                is_news.then_some(RegistrarInput::Key(KeyNews::Revoked(revoked)))
            }
            None => {
                self.is_review_due = true;
                None
            }
        }
    }

    pub(super) async fn history(&mut self, known: KnownKey) -> RegistrarInput {
        let KnownKey { session, name, key } = known;
        let history = self.names.key_history(&name, key).await;
        let history = self.note(history, "looking for a former key");
        let history = history.unwrap_or_else(|| KeyHistory::unknown(name, key));
        RegistrarInput::Key(KeyNews::History {
            session,
            history: Box::new(history),
        })
    }
}

/// Whether the succession is a valid one from one key to the other.
fn is_of_both(succession: &Succession, former: PeerKey, successor: PeerKey) -> bool {
    succession.former() == former
        && succession.successor == successor
        && succession.verify().is_ok()
}

/// Whether this recovery key may speak for the key of the name, which has certified it: it
/// is the one that was noted, or there is none. A key that signs for itself may.
fn counts(
    name: &PeerName,
    certificate: Option<&RecoveryCertificate>,
    known: &ClaimedName,
) -> Result<bool, Refusal> {
    let Some(certificate) = certificate else {
        return Ok(true);
    };
    let noted = in_force(name, known)?;
    Ok(noted.is_none_or(|noted| noted.recovery_key == certificate.recovery_key))
}

/// The certificate that counts for the key of the name.
fn in_force(name: &PeerName, known: &ClaimedName) -> Result<Option<RecoveryCertificate>, Refusal> {
    match &known.recovery {
        Ok(noted) => Ok(noted.map(|noted| noted.in_force(now_s()))),
        Err(error) => {
            error!("the stored recovery key of {name} is damaged: {error}");
            Err(Refusal::Internal)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pinhole_budget::Rate;
    use pinhole_proto::recovery::{LoginRecovery, RecoveryKey};
    use pinhole_proto::registry::SessionId;
    use pinhole_proto::tls::Identity;
    use ring::rand::SystemRandom;
    use ring::signature::Ed25519KeyPair;
    use tokio::sync::mpsc;

    use super::*;
    use crate::admission::newcomer;
    use crate::limits::Limits;
    use crate::name_claims::{WaitingClaim, claims};
    use crate::names::{Names, SqliteNames};
    use crate::slots::Slots;

    fn identity() -> Identity {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Identity::from_pkcs8(document.as_ref()).unwrap()
    }

    fn words(number: u8) -> RecoveryKey {
        RecoveryKey::from_entropy(&[number; RecoveryKey::ENTROPY_BYTES]).unwrap()
    }

    /// A server on which bob has logged in with a certificate for the first words.
    struct Server {
        worker: NameWorker,
        bob: Identity,
        certificate: RecoveryCertificate,
        _dir: tempfile::TempDir,
    }

    type Decided = (Result<PeerKey, Refusal>, Vec<RegistrarInput>);

    impl Server {
        async fn new() -> Self {
            Self::with(&Limits::default()).await
        }

        async fn with(limits: &Limits) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let names = SqliteNames::create(&dir.path().join("names.sqlite")).unwrap();
            let claims = claims(Names::Sqlite(names), limits, Arc::default());
            let (_, worker) = claims.await.unwrap();
            let bob = identity();
            let certificate = RecoveryCertificate::sign(&bob, words(1).key());
            let mut server = Self {
                worker,
                certificate,
                bob,
                _dir: dir,
            };
            let key = server.bob.key();
            let owner = server.log_in(key, Some(certificate), None).await.0;
            assert_eq!(owner, Ok(key));
            server
        }

        async fn log_in(
            &mut self,
            key: PeerKey,
            certificate: Option<RecoveryCertificate>,
            request: Option<RecoveryRequest>,
        ) -> Decided {
            let recovery = LoginRecovery {
                certificate,
                request,
            };
            let claim = NameClaim {
                session: SessionId(1),
                name: "bob".parse().unwrap(),
                key,
                address: "198.51.100.1".parse().unwrap(),
                is_known: false,
                recovery: Some(Box::new(recovery)),
            };
            let (answers, mut answered) = mpsc::channel(8);
            let slot = Slots::new(Limits::default().claims).take(newcomer(None, claim.address));
            let waiting = WaitingClaim {
                claim,
                slot: slot.unwrap(),
                since: Instant::now(),
            };
            let done = self.worker.answer(&answers, vec![waiting]).await;
            assert!(done.is_ok());
            drop(answers);
            let mut news = Vec::new();
            loop {
                match answered.recv().await.unwrap() {
                    RegistrarInput::Claimed { owner, .. } => return (owner, news),
                    other => news.push(other),
                }
            }
        }

        async fn ask(&mut self, key: PeerKey, request: RecoveryRequest) -> Decided {
            self.log_in(key, None, Some(request)).await
        }

        async fn succeed(&mut self, succession: Succession) -> Result<PeerKey, Refusal> {
            let request = RecoveryRequest::Succeed(succession);
            self.ask(succession.successor, request).await.0
        }
    }

    #[tokio::test]
    async fn the_words_find_the_certificate_and_others_do_not() {
        let mut server = Server::new().await;
        let find = |number| RecoveryRequest::Find {
            recovery_key: words(number).key(),
        };
        let (refused, found) = server.ask(identity().key(), find(1)).await;
        assert_eq!(refused, Err(Refusal::NameTaken));
        let [RegistrarInput::Key(KeyNews::Certificate { certificate, .. })] = &*found else {
            panic!("{found:?}");
        };
        assert_eq!(**certificate, server.certificate);
        let (refused, found) = server.ask(identity().key(), find(2)).await;
        assert!(refused == Err(Refusal::NameTaken) && found.is_empty());
    }

    #[tokio::test]
    async fn looking_for_a_name_that_nobody_has_registers_nothing() {
        let mut server = Server::new().await;
        let bob = "bob".parse().unwrap();
        server.worker.names.release(&bob).await.unwrap();
        let revoke = RecoveryRequest::Revoke(Revocation::sign(&server.bob));
        let find = RecoveryRequest::Find {
            recovery_key: words(1).key(),
        };
        for request in [find, revoke] {
            let (refused, _) = server.ask(identity().key(), request).await;
            assert_eq!(refused, Err(Refusal::NameTaken));
        }
        assert_eq!(server.worker.names.count(), 0);
    }

    #[tokio::test]
    async fn the_name_goes_to_the_successor_and_the_former_key_is_refused() {
        let mut server = Server::new().await;
        let (former, next) = (server.bob.key(), identity());
        let succession = Succession::sign(&words(1), server.certificate, next.key());
        let certificate = RecoveryCertificate::sign(&next, words(1).key());
        let request = Some(RecoveryRequest::Succeed(succession));
        let (owner, news) = server.log_in(next.key(), Some(certificate), request).await;
        assert_eq!(owner, Ok(next.key()));
        let ended = |news: &RegistrarInput| matches!(news, RegistrarInput::Key(KeyNews::Succeeded { key }) if *key == former);
        assert!(news.iter().all(ended) && news.len() == 1, "{news:?}");
        let bob = [("bob".parse().unwrap(), next.key())];
        let known = server.worker.names.look_up_claimed(&bob).await.unwrap();
        let noted = in_force(&bob[0].0, &known[0]);
        assert_eq!(noted, Ok(Some(certificate)), "the words stay good");
        let (refused, _) = server.log_in(former, Some(server.certificate), None).await;
        assert_eq!(refused, Err(Refusal::KeyRevoked));
        assert_eq!(
            server.succeed(succession).await,
            Ok(next.key()),
            "and once more"
        );
        let known = KnownKey {
            session: SessionId(2),
            name: "bob".parse().unwrap(),
            key: former,
        };
        let RegistrarInput::Key(KeyNews::History { history, .. }) =
            server.worker.history(known).await
        else {
            panic!("no history");
        };
        assert_eq!(history.present_key(), next.key());
    }

    #[tokio::test]
    async fn nobody_succeeds_without_the_words_or_with_an_old_statement() {
        let mut server = Server::new().await;
        let (next, thief) = (identity(), identity());
        let taken = Err(Refusal::NameTaken);
        let by_others = Succession::sign(&words(2), server.certificate, thief.key());
        assert_eq!(server.succeed(by_others).await, taken);
        // The thief has the device, and words of its own.
        let stolen = RecoveryCertificate::sign(&server.bob, words(2).key());
        let by_thief = Succession::sign(&words(2), stolen, thief.key());
        let key = server.bob.key();
        assert_eq!(server.log_in(key, Some(stolen), None).await.0, Ok(key));
        assert_eq!(server.succeed(by_thief).await, taken);
        let succession = Succession::sign(&words(1), server.certificate, next.key());
        let of_another = RecoveryRequest::Succeed(succession);
        assert_eq!(
            server.ask(thief.key(), of_another).await.0,
            taken,
            "of another key"
        );
        assert_eq!(server.succeed(succession).await, Ok(next.key()));
        let certificate = RecoveryCertificate::sign(&next, words(1).key());
        let third = identity();
        let again = Succession::sign(&words(1), certificate, third.key());
        assert_eq!(server.succeed(again).await, Ok(third.key()));
        // The first one is about a key that has the name no more.
        assert_eq!(server.succeed(succession).await, Err(Refusal::KeyRevoked));
        let replayed = Succession::sign(&words(1), server.certificate, thief.key());
        assert_eq!(server.succeed(replayed).await, taken);
    }

    #[tokio::test]
    async fn successors_are_limited_as_new_names_are() {
        let mut server = Server::with(&Limits {
            new_names_per_network: Rate {
                burst: 1,
                interval: Duration::from_secs(3600),
            },
            ..Limits::default()
        })
        .await;
        let next = identity().key();
        let succession = Succession::sign(&words(1), server.certificate, next);
        assert_eq!(server.succeed(succession).await, Err(Refusal::Limited));
    }

    #[tokio::test]
    async fn a_revoked_key_is_refused_and_its_name_stays_for_a_successor() {
        let mut server = Server::new().await;
        let key = server.bob.key();
        let by_others = Revocation {
            key,
            ..Revocation::sign(&identity())
        };
        let forged = RecoveryRequest::Revoke(by_others);
        assert_eq!(server.ask(key, forged).await.0, Err(Refusal::NameTaken));
        let stolen = RecoveryCertificate::sign(&server.bob, words(2).key());
        let of_thief = RecoveryRequest::Revoke(Revocation::sign_with(&words(2), stolen));
        assert_eq!(server.ask(key, of_thief).await.0, Err(Refusal::NameTaken));
        let revocation = Revocation::sign_with(&words(1), server.certificate);
        let revoke = RecoveryRequest::Revoke(revocation);
        let (refused, news) = server.ask(identity().key(), revoke).await;
        assert_eq!(refused, Err(Refusal::KeyRevoked));
        let [RegistrarInput::Key(KeyNews::Revoked(names))] = &*news else {
            panic!("{news:?}");
        };
        assert_eq!(*names, [("bob".parse().unwrap(), revocation)]);
        assert_eq!(
            server.log_in(key, None, None).await.0,
            Err(Refusal::KeyRevoked)
        );
        let recovery_key = words(1).key();
        let (_, found) = server
            .ask(key, RecoveryRequest::Find { recovery_key })
            .await;
        assert_eq!(
            found.len(),
            1,
            "whoever has it still can look for the words"
        );
        let stranger = identity().key();
        assert_eq!(
            server.log_in(stranger, None, None).await.0,
            Ok(key),
            "it is not free"
        );
        let next = identity().key();
        let succession = Succession::sign(&words(1), server.certificate, next);
        assert_eq!(server.succeed(succession).await, Ok(next));
    }

    #[tokio::test]
    async fn a_use_is_written_once_a_day_and_together_with_others() {
        let mut server = Server::new().await;
        let name = "bob".parse().unwrap();
        let used_on = async |server: &mut Server| {
            let entry = server.worker.names.entry(&name).await.unwrap();
            entry.unwrap().used_on
        };
        let now = Instant::now();
        server.worker.write_uses(now).await;
        assert_eq!(used_on(&mut server).await, None, "it waits for others");
        server.worker.write_uses(now + USES_INTERVAL).await;
        assert_eq!(used_on(&mut server).await, Some(day_of(now_s())));
        let key = server.bob.key();
        assert_eq!(server.log_in(key, None, None).await.0, Ok(key));
        assert!(server.worker.uses.waiting.is_empty(), "it is noted already");
    }

    #[tokio::test]
    async fn whoever_is_online_has_used_the_name_when_names_are_released() {
        let mut server = Server::new().await;
        let [alice, bob]: [PeerName; 2] = ["alice", "bob"].map(|it| it.parse().unwrap());
        let worker = &mut server.worker;
        let wanted = [(alice.clone(), identity().key())];
        worker.names.bind(&wanted).await.unwrap();
        let (today, both) = (day_of(now_s()), [alice.clone(), bob.clone()]);
        worker.names.note_uses(&both, today - 400).await.unwrap();
        worker.uses.waiting.clear();
        assert!(worker.begin_day().is_some() && worker.begin_day().is_none());
        let online = OnlineName {
            session: SessionId(1),
            name: bob.clone(),
            key: server.bob.key(),
        };
        worker.end_day(&[online]).await;
        let entry = worker.names.entry(&bob).await.unwrap().unwrap();
        assert!(entry.key.is_some());
        let entry = worker.names.entry(&alice).await.unwrap().unwrap();
        assert!(entry.key.is_none() && entry.released_at_s.is_some());
        assert_eq!(entry.used_on, Some(today - 400));
    }
}
