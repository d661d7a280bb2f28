//! Claims that say something about recovery, and what becomes of names over the days.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::recovery::{
    KeyHistory, RecoveryCertificate, RecoveryRequest, Revocation, Succession,
};
use pinhole_proto::rendezvous::Refusal;
use tracing::{error, info};

use super::{KnownKey, NameClaim, NameWorker};
use crate::inbox::{KeyNews, RegistrarInput};
use crate::names::{NamesError, day_of, now_s};

/// The names whose use is written together.
const USES: usize = 1_024;
/// How long a use may wait to be written.
const USES_INTERVAL: Duration = Duration::from_secs(60);

/// Uses of names that are not written yet, and the days that have been seen to.
#[derive(Debug, Default)]
pub(super) struct NameUses {
    waiting: BTreeSet<PeerName>,
    written_at: Option<Instant>,
    /// The day on which those who are online were last asked for.
    asked_on: Option<i64>,
}

impl NameWorker {
    /// Does what the claim asks for beside the name. Fails when the login ends with it.
    pub(super) fn see_to_recovery(
        &mut self,
        now: Instant,
        claim: &NameClaim,
        owner: PeerKey,
    ) -> Result<(), Refusal> {
        let Some(request) = claim.recovery.as_ref().and_then(|it| it.request) else {
            return Ok(());
        };
        match request {
            RecoveryRequest::Find { recovery_key } => self.find(claim, owner, recovery_key),
            RecoveryRequest::Revoke(revocation) => self.revoke(claim, owner, &revocation),
            // It was told before.
            RecoveryRequest::Succeed(_) if owner == claim.key => Ok(()),
            RecoveryRequest::Succeed(succession) => self.succeed(now, claim, owner, &succession),
        }
    }

    fn find(
        &mut self,
        claim: &NameClaim,
        owner: PeerKey,
        recovery_key: PeerKey,
    ) -> Result<(), Refusal> {
        let found = self.names.recovery_of(owner, now_s());
        let found = found.map_err(|error| unreadable(&claim.name, &error))?;
        if let Some(certificate) = found.filter(|it| it.recovery_key == recovery_key) {
            self.before_answer
                .push(RegistrarInput::Key(KeyNews::Certificate {
                    session: claim.session,
                    certificate: Box::new(certificate),
                }));
        }
        Err(Refusal::NameTaken)
    }

    fn revoke(
        &mut self,
        claim: &NameClaim,
        owner: PeerKey,
        revocation: &Revocation,
    ) -> Result<(), Refusal> {
        let at_s = now_s();
        let certificate = revocation.certificate.as_ref();
        if revocation.key != owner
            || revocation.verify().is_err()
            || !self.counts(&claim.name, certificate, at_s)?
        {
            return Err(Refusal::NameTaken);
        }
        let failed = |error: NamesError| unreadable(&claim.name, &error);
        self.names.revoke(revocation, at_s).map_err(failed)?;
        let revoked = self.names.revocations_since(at_s).map_err(failed)?;
        info!(name = %claim.name, key = %owner.fingerprint(), "a key was revoked");
        let news = RegistrarInput::Key(KeyNews::Revoked(revoked));
        self.before_answer.push(news);
        Err(Refusal::KeyRevoked)
    }

    fn succeed(
        &mut self,
        now: Instant,
        claim: &NameClaim,
        owner: PeerKey,
        succession: &Succession,
    ) -> Result<(), Refusal> {
        let at_s = now_s();
        let is_of_both = succession.former() == owner && succession.successor == claim.key;
        if !is_of_both
            || succession.verify().is_err()
            || !self.counts(&claim.name, Some(&succession.certificate), at_s)?
        {
            return Err(Refusal::NameTaken);
        }
        // It costs as much as a new name.
        if !self.new_names.take(now, claim.address) {
            return Err(Refusal::Limited);
        }
        let bound = self.names.succeed(succession, at_s);
        if !bound.map_err(|error| unreadable(&claim.name, &error))? {
            return Err(Refusal::NameTaken);
        }
        let (former, key) = (owner.fingerprint(), claim.key.fingerprint());
        info!(name = %claim.name, %former, %key, "a key has a successor");
        let news = KeyNews::Succeeded { key: owner };
        self.before_answer.push(RegistrarInput::Key(news));
        Ok(())
    }

    /// Whether this recovery key may speak for the key that has certified it: it is the
    /// one that was noted, or there is none. A key that signs for itself may.
    fn counts(
        &self,
        name: &PeerName,
        certificate: Option<&RecoveryCertificate>,
        at_s: i64,
    ) -> Result<bool, Refusal> {
        let Some(certificate) = certificate else {
            return Ok(true);
        };
        let noted = self.names.recovery_of(certificate.key, at_s);
        let noted = noted.map_err(|error| unreadable(name, &error))?;
        Ok(noted.is_none_or(|noted| noted.recovery_key == certificate.recovery_key))
    }

    /// The name is its claimant's: notes the certificate and the use.
    pub(super) fn note_login(&mut self, claim: &NameClaim) -> Result<(), NamesError> {
        let certificate = claim.recovery.as_ref().and_then(|it| it.certificate);
        if let Some(certificate) = certificate.filter(|it| it.key == claim.key) {
            self.note_certificate(&certificate)?;
        }
        self.note_use(&claim.name)
    }

    fn note_certificate(&mut self, certificate: &RecoveryCertificate) -> Result<(), NamesError> {
        let now_s = now_s();
        let noted = self.names.recovery_of(certificate.key, now_s)?;
        // What is noted was checked.
        if noted == Some(*certificate) || certificate.verify().is_ok() {
            self.names.note_certificate(certificate, now_s)?;
        }
        Ok(())
    }

    fn note_use(&mut self, name: &PeerName) -> Result<(), NamesError> {
        let today = day_of(now_s());
        if self.names.used_on(name)?.is_none_or(|day| day < today) {
            self.uses.waiting.insert(name.clone());
        }
        Ok(())
    }

    /// Writes the uses that have waited for long enough. What cannot be written is lost:
    /// there will be another use before a year is over.
    pub(super) fn write_uses(&mut self, now: Instant) {
        let written_at = *self.uses.written_at.get_or_insert(now);
        let has_waited = now.saturating_duration_since(written_at) >= USES_INTERVAL;
        if has_waited || self.uses.waiting.len() >= USES {
            self.flush_uses(now);
        }
    }

    pub(super) fn flush_uses(&mut self, now: Instant) {
        self.uses.written_at = Some(now);
        let waiting = std::mem::take(&mut self.uses.waiting);
        if waiting.is_empty() {
            return;
        }
        if let Err(error) = self.names.note_uses(&waiting, day_of(now_s())) {
            error!("when names were used is not noted: {error:#}");
        }
    }

    /// On a new day, has those reviewed who are online: [`NameWorker::end_day`] follows.
    pub(super) fn begin_day(&mut self) -> Option<RegistrarInput> {
        let today = day_of(now_s());
        let is_new = self.uses.asked_on.replace(today) != Some(today);
        is_new.then_some(RegistrarInput::NamesChanged)
    }

    /// These names are online. Releases names that nobody uses, once a day.
    pub(super) fn end_day<'a>(&mut self, online: impl Iterator<Item = &'a PeerName>) {
        for name in online {
            if let Err(error) = self.note_use(name) {
                return error!("looking up when {name} was used: {error:#}");
            }
        }
        self.flush_uses(Instant::now());
        match self.names.sweep(now_s(), self.limits.expire) {
            Ok(0) => {}
            Ok(names) => info!(names, "released names that nobody has used"),
            Err(error) => error!("releasing names that nobody uses: {error:#}"),
        }
    }

    /// The keys that another process has revoked lately, or, at the start, all of them.
    pub(super) fn revoked_elsewhere(&mut self) -> Option<RegistrarInput> {
        // Several may be revoked in one second, before and after this is asked.
        let since_s = self.revocations_told_s.saturating_sub(1);
        let now_s = now_s();
        match self.names.revocations_since(since_s) {
            Ok(revoked) => {
                self.revocations_told_s = now_s;
                let is_news = !revoked.is_empty();
                is_news.then_some(RegistrarInput::Key(KeyNews::Revoked(revoked)))
            }
            Err(error) => {
                error!("looking for revoked keys: {error:#}");
                None
            }
        }
    }

    pub(super) fn history(&self, known: KnownKey) -> RegistrarInput {
        let KnownKey { session, name, key } = known;
        let history = self.names.key_history(&name, key).unwrap_or_else(|error| {
            unreadable(&name, &error);
            KeyHistory::unknown(name, key)
        });
        RegistrarInput::Key(KeyNews::History {
            session,
            history: Box::new(history),
        })
    }
}

fn unreadable(name: &PeerName, error: &NamesError) -> Refusal {
    error!("looking {name} up: {error:#}");
    Refusal::Internal
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

    use super::*;
    use crate::limits::Limits;
    use crate::name_claims::claims;
    use crate::names::Names;

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
        fn new() -> Self {
            Self::with(&Limits::default())
        }

        fn with(limits: &Limits) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let names = Names::create(&dir.path().join("names.sqlite")).unwrap();
            let (_, worker) = claims(names, limits, Arc::default()).unwrap();
            let bob = identity();
            let certificate = RecoveryCertificate::sign(&bob, words(1).key());
            let mut server = Self {
                worker,
                certificate,
                bob,
                _dir: dir,
            };
            let key = server.bob.key();
            assert_eq!(server.log_in(key, Some(certificate), None).0, Ok(key));
            server
        }

        fn log_in(
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
            let owner = self.worker.decide(Instant::now(), &claim);
            (owner, std::mem::take(&mut self.worker.before_answer))
        }

        fn ask(&mut self, key: PeerKey, request: RecoveryRequest) -> Decided {
            self.log_in(key, None, Some(request))
        }

        fn succeed(&mut self, succession: Succession) -> Result<PeerKey, Refusal> {
            let request = RecoveryRequest::Succeed(succession);
            self.ask(succession.successor, request).0
        }
    }

    #[test]
    fn the_words_find_the_certificate_and_others_do_not() {
        let mut server = Server::new();
        let find = |number| RecoveryRequest::Find {
            recovery_key: words(number).key(),
        };
        let (refused, found) = server.ask(identity().key(), find(1));
        assert_eq!(refused, Err(Refusal::NameTaken));
        let [RegistrarInput::Key(KeyNews::Certificate { certificate, .. })] = &*found else {
            panic!("{found:?}");
        };
        assert_eq!(**certificate, server.certificate);
        let (refused, found) = server.ask(identity().key(), find(2));
        assert!(refused == Err(Refusal::NameTaken) && found.is_empty());
    }

    #[test]
    fn looking_for_a_name_that_nobody_has_registers_nothing() {
        let mut server = Server::new();
        server
            .worker
            .names
            .release(&"bob".parse().unwrap())
            .unwrap();
        let revoke = RecoveryRequest::Revoke(Revocation::sign(&server.bob));
        let find = RecoveryRequest::Find {
            recovery_key: words(1).key(),
        };
        for request in [find, revoke] {
            let (refused, _) = server.ask(identity().key(), request);
            assert_eq!(refused, Err(Refusal::NameTaken));
        }
        assert_eq!(server.worker.names.count(), 0);
    }

    #[test]
    fn the_name_goes_to_the_successor_and_the_former_key_is_refused() {
        let mut server = Server::new();
        let (former, next) = (server.bob.key(), identity());
        let succession = Succession::sign(&words(1), server.certificate, next.key());
        let certificate = RecoveryCertificate::sign(&next, words(1).key());
        let request = Some(RecoveryRequest::Succeed(succession));
        let (owner, news) = server.log_in(next.key(), Some(certificate), request);
        assert_eq!(owner, Ok(next.key()));
        let ended = |news: &RegistrarInput| matches!(news, RegistrarInput::Key(KeyNews::Succeeded { key }) if *key == former);
        assert!(news.iter().all(ended) && news.len() == 1, "{news:?}");
        let noted = server.worker.names.recovery_of(next.key(), now_s());
        assert_eq!(noted.unwrap(), Some(certificate), "the words stay good");
        let (refused, _) = server.log_in(former, Some(server.certificate), None);
        assert_eq!(refused, Err(Refusal::KeyRevoked));
        assert_eq!(server.succeed(succession), Ok(next.key()), "and once more");
        let known = KnownKey {
            session: SessionId(2),
            name: "bob".parse().unwrap(),
            key: former,
        };
        let RegistrarInput::Key(KeyNews::History { history, .. }) = server.worker.history(known)
        else {
            panic!("no history");
        };
        assert_eq!(history.present_key(), next.key());
    }

    #[test]
    fn nobody_succeeds_without_the_words_or_with_an_old_statement() {
        let mut server = Server::new();
        let (next, thief) = (identity(), identity());
        let taken = Err(Refusal::NameTaken);
        let by_others = Succession::sign(&words(2), server.certificate, thief.key());
        assert_eq!(server.succeed(by_others), taken);
        // The thief has the device, and words of its own.
        let stolen = RecoveryCertificate::sign(&server.bob, words(2).key());
        let by_thief = Succession::sign(&words(2), stolen, thief.key());
        let key = server.bob.key();
        assert_eq!(server.log_in(key, Some(stolen), None).0, Ok(key));
        assert_eq!(server.succeed(by_thief), taken);
        let succession = Succession::sign(&words(1), server.certificate, next.key());
        let of_another = RecoveryRequest::Succeed(succession);
        assert_eq!(
            server.ask(thief.key(), of_another).0,
            taken,
            "of another key"
        );
        assert_eq!(server.succeed(succession), Ok(next.key()));
        let certificate = RecoveryCertificate::sign(&next, words(1).key());
        let third = identity();
        let again = Succession::sign(&words(1), certificate, third.key());
        assert_eq!(server.succeed(again), Ok(third.key()));
        // The first one is about a key that has the name no more.
        assert_eq!(server.succeed(succession), Err(Refusal::KeyRevoked));
        let replayed = Succession::sign(&words(1), server.certificate, thief.key());
        assert_eq!(server.succeed(replayed), taken);
    }

    #[test]
    fn successors_are_limited_as_new_names_are() {
        let mut server = Server::with(&Limits {
            new_names_per_network: Rate {
                burst: 1,
                interval: Duration::from_secs(3600),
            },
            ..Limits::default()
        });
        let next = identity().key();
        let succession = Succession::sign(&words(1), server.certificate, next);
        assert_eq!(server.succeed(succession), Err(Refusal::Limited));
    }

    #[test]
    fn a_revoked_key_is_refused_and_its_name_stays_for_a_successor() {
        let mut server = Server::new();
        let key = server.bob.key();
        let by_others = Revocation {
            key,
            ..Revocation::sign(&identity())
        };
        let forged = RecoveryRequest::Revoke(by_others);
        assert_eq!(server.ask(key, forged).0, Err(Refusal::NameTaken));
        let stolen = RecoveryCertificate::sign(&server.bob, words(2).key());
        let of_thief = RecoveryRequest::Revoke(Revocation::sign_with(&words(2), stolen));
        assert_eq!(server.ask(key, of_thief).0, Err(Refusal::NameTaken));
        let revocation = Revocation::sign_with(&words(1), server.certificate);
        let revoke = RecoveryRequest::Revoke(revocation);
        let (refused, news) = server.ask(identity().key(), revoke);
        assert_eq!(refused, Err(Refusal::KeyRevoked));
        let [RegistrarInput::Key(KeyNews::Revoked(names))] = &*news else {
            panic!("{news:?}");
        };
        assert_eq!(*names, [("bob".parse().unwrap(), revocation)]);
        assert_eq!(server.log_in(key, None, None).0, Err(Refusal::KeyRevoked));
        let recovery_key = words(1).key();
        let (_, found) = server.ask(key, RecoveryRequest::Find { recovery_key });
        assert_eq!(
            found.len(),
            1,
            "whoever has it still can look for the words"
        );
        let stranger = identity().key();
        assert_eq!(
            server.log_in(stranger, None, None).0,
            Ok(key),
            "it is not free"
        );
        let next = identity().key();
        let succession = Succession::sign(&words(1), server.certificate, next);
        assert_eq!(server.succeed(succession), Ok(next));
    }

    #[test]
    fn a_use_is_written_once_a_day_and_together_with_others() {
        let mut server = Server::new();
        let name = "bob".parse().unwrap();
        let used_on = |server: &Server| server.worker.names.used_on(&name).unwrap();
        let now = Instant::now();
        server.worker.write_uses(now);
        assert_eq!(used_on(&server), None, "it waits for others");
        server.worker.write_uses(now + USES_INTERVAL);
        assert_eq!(used_on(&server), Some(day_of(now_s())));
        let key = server.bob.key();
        assert_eq!(server.log_in(key, None, None).0, Ok(key));
        assert!(server.worker.uses.waiting.is_empty(), "it is noted already");
    }

    #[test]
    fn whoever_is_online_has_used_the_name_when_names_are_released() {
        let mut server = Server::new();
        let alice = "alice".parse().unwrap();
        let worker = &mut server.worker;
        worker.names.claim(&alice, identity().key()).unwrap();
        let bob: PeerName = "bob".parse().unwrap();
        let today = day_of(now_s());
        worker.names.note_uses([&alice, &bob], today - 400).unwrap();
        worker.uses.waiting.clear();
        assert!(worker.begin_day().is_some() && worker.begin_day().is_none());
        worker.end_day([&bob].into_iter());
        assert!(worker.names.owner(&bob).unwrap().is_some());
        assert_eq!(worker.names.owner(&alice).unwrap(), None);
        let entry = worker.names.entry(&alice).unwrap().unwrap();
        assert!(entry.key.is_none() && entry.released_at_s.is_some());
        assert_eq!(entry.used_on, Some(today - 400));
    }
}
