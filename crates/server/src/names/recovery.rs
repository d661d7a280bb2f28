//! What is signed about keys: recovery certificates, successions and revocations. Whoever
//! calls has checked the signatures.

use std::time::Duration;

use pinhole_proto::key::{KeyTextError, PeerKey, Signature};
use pinhole_proto::name::PeerName;
use pinhole_proto::recovery::{
    KeyHistory, RecoveryCertificate, Revocation, SUCCESSIONS_MAX, Succession,
};
use pinhole_proto::registry::REVOKED_NAMES;
use rusqlite::{OptionalExtension as _, params};

use super::{Names, NamesError};

pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS recovery (
        key TEXT PRIMARY KEY NOT NULL,
        recovery_key TEXT NOT NULL,
        signature TEXT NOT NULL,
        next_recovery_key TEXT,
        next_signature TEXT,
        next_since_s INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS successions (
        key TEXT PRIMARY KEY NOT NULL,
        recovery_key TEXT NOT NULL,
        certificate TEXT NOT NULL,
        successor TEXT NOT NULL,
        signature TEXT NOT NULL,
        succeeded_at_s INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS revocations (
        key TEXT PRIMARY KEY NOT NULL,
        recovery_key TEXT,
        certificate TEXT,
        signature TEXT NOT NULL,
        revoked_at_s INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS revocations_by_time ON revocations (revoked_at_s);";

/// How long the recovery key before still counts instead of a new one. Whoever has stolen
/// a device can make it sign for another recovery key. The owner's words are good until
/// then.
pub const RECOVERY_DELAY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The recovery key of a key, and the one that is to take its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StoredRecovery {
    current: RecoveryCertificate,
    /// With the time at which it came.
    next: Option<(RecoveryCertificate, i64)>,
}

impl StoredRecovery {
    /// What is left once the delay of the next one is over.
    fn at(self, now_s: i64) -> Self {
        let delay_s = i64::try_from(RECOVERY_DELAY.as_secs()).unwrap_or(i64::MAX);
        match self.next {
            Some((next, since_s)) if now_s.saturating_sub(since_s) >= delay_s => Self {
                current: next,
                next: None,
            },
            _ => self,
        }
    }

    fn with(self, certificate: RecoveryCertificate, now_s: i64) -> Self {
        let is_same = |it: RecoveryCertificate| it.recovery_key == certificate.recovery_key;
        let next = match self.next {
            _ if is_same(self.current) => None,
            Some(next) if is_same(next.0) => Some(next),
            _ => Some((certificate, now_s)),
        };
        Self { next, ..self }
    }
}

/// A row of the table.
type RecoveryRow = (String, String, Option<String>, Option<String>, Option<i64>);

impl Names {
    /// The recovery key that may name the successor of `key`.
    ///
    /// # Errors
    /// When the table cannot be read, or holds something damaged.
    pub fn recovery_of(
        &self,
        key: PeerKey,
        now_s: i64,
    ) -> Result<Option<RecoveryCertificate>, NamesError> {
        let stored = self.stored_recovery(key)?;
        Ok(stored.map(|stored| stored.at(now_s).current))
    }

    fn stored_recovery(&self, key: PeerKey) -> Result<Option<StoredRecovery>, NamesError> {
        let row = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT recovery_key, signature, next_recovery_key, next_signature, next_since_s
                 FROM recovery WHERE key = ?1",
            )?;
            let row = statement.query_row([key.to_string()], |row| {
                let of = |index| row.get(index);
                Ok((of(0)?, of(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            });
            row.optional()
        };
        let row: Option<RecoveryRow> = row().map_err(|error| self.failed(error))?;
        let certificate = |recovery_key: &str, signature: &str| {
            Ok(RecoveryCertificate {
                key,
                recovery_key: recovery_key.parse()?,
                signature: signature.parse()?,
            })
        };
        let stored = row.map(
            |(recovery_key, signature, next_key, next_signature, since_s)| {
                let next = match (next_key, next_signature, since_s) {
                    (Some(key), Some(signature), Some(since_s)) => {
                        Some((certificate(&key, &signature)?, since_s))
                    }
                    _ => None,
                };
                let current = certificate(&recovery_key, &signature)?;
                Ok(StoredRecovery { current, next })
            },
        );
        stored.transpose().map_err(|error| self.damaged(error))
    }

    /// Notes a key's certificate: at once if it is the first, and as the one that counts
    /// after [`RECOVERY_DELAY`] if it is of another recovery key. Writes nothing if it is
    /// known.
    ///
    /// # Errors
    /// When the table cannot be read or written.
    pub fn note_certificate(
        &mut self,
        certificate: &RecoveryCertificate,
        now_s: i64,
    ) -> Result<(), NamesError> {
        let stored = self.stored_recovery(certificate.key)?;
        let wanted = match stored {
            Some(stored) => stored.at(now_s).with(*certificate, now_s),
            None => StoredRecovery {
                current: *certificate,
                next: None,
            },
        };
        if stored == Some(wanted) {
            return Ok(());
        }
        let next = wanted.next.as_ref();
        self.change(
            "INSERT INTO recovery VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (key) DO UPDATE SET recovery_key = excluded.recovery_key,
                signature = excluded.signature, next_recovery_key = excluded.next_recovery_key,
                next_signature = excluded.next_signature, next_since_s = excluded.next_since_s",
            params![
                wanted.current.key.to_string(),
                wanted.current.recovery_key.to_string(),
                wanted.current.signature.to_string(),
                next.map(|(it, _)| it.recovery_key.to_string()),
                next.map(|(it, _)| it.signature.to_string()),
                next.map(|(_, since_s)| since_s),
            ],
        )?;
        Ok(())
    }

    /// Binds every name of the former key to its successor, as of now. Returns false if
    /// another key has succeeded it before.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn succeed(&mut self, succession: &Succession, now_s: i64) -> Result<bool, NamesError> {
        let former = succession.former().to_string();
        let successor = succession.successor.to_string();
        let certificate = &succession.certificate;
        let bind = || {
            let transaction = self.connection.unchecked_transaction()?;
            let noted = transaction.execute(
                "INSERT INTO successions VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (key) DO NOTHING",
                params![
                    former,
                    certificate.recovery_key.to_string(),
                    certificate.signature.to_string(),
                    successor,
                    succession.signature.to_string(),
                    now_s,
                ],
            )?;
            if noted == 0 {
                return Ok(false);
            }
            transaction.execute(
                "UPDATE names SET key = ?2, registered_at_s = ?3 WHERE key = ?1",
                params![former, successor, now_s],
            )?;
            transaction.execute("DELETE FROM recovery WHERE key = ?1", [&former])?;
            transaction.commit()?;
            Ok(true)
        };
        bind().map_err(|error| self.failed(error))
    }

    /// Notes that a key is not to be believed any more. It keeps its names, so that nobody
    /// else gets them.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn revoke(&mut self, revocation: &Revocation, now_s: i64) -> Result<(), NamesError> {
        let certificate = revocation.certificate.as_ref();
        self.change(
            "INSERT INTO revocations VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (key) DO NOTHING",
            params![
                revocation.key.to_string(),
                certificate.map(|it| it.recovery_key.to_string()),
                certificate.map(|it| it.signature.to_string()),
                revocation.signature.to_string(),
                now_s,
            ],
        )?;
        Ok(())
    }

    /// Whether a key was revoked, or another one has taken its place.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn has_ended(&self, key: PeerKey) -> Result<bool, NamesError> {
        let ended = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT 1 FROM successions WHERE key = ?1
                 UNION ALL SELECT 1 FROM revocations WHERE key = ?1",
            )?;
            statement.exists([key.to_string()])
        };
        ended().map_err(|error| self.failed(error))
    }

    /// What has become of a key that was known under this name.
    ///
    /// # Errors
    /// When the table cannot be read, or holds something damaged.
    pub fn key_history(&self, name: &PeerName, key: PeerKey) -> Result<KeyHistory, NamesError> {
        let mut successions = Vec::new();
        let mut former = key;
        while successions.len() < SUCCESSIONS_MAX
            && let Some(next) = self.succession_of(former)?
        {
            former = next.successor;
            successions.push(next);
        }
        Ok(KeyHistory {
            successions,
            revocation: self.revocation_of(key)?,
            released_at_s: self.released_at_s(name, key)?,
            ..KeyHistory::unknown(name.clone(), key)
        })
    }

    fn succession_of(&self, key: PeerKey) -> Result<Option<Succession>, NamesError> {
        let row = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT recovery_key, certificate, successor, signature FROM successions
                 WHERE key = ?1",
            )?;
            let row = statement.query_row([key.to_string()], |row| {
                Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
            });
            row.optional()
        };
        let row: Option<[String; 4]> = row().map_err(|error| self.failed(error))?;
        let parsed = |[recovery_key, certificate, successor, signature]: [String; 4]| {
            Ok(Succession {
                certificate: RecoveryCertificate {
                    key,
                    recovery_key: recovery_key.parse()?,
                    signature: certificate.parse()?,
                },
                successor: successor.parse()?,
                signature: signature.parse()?,
            })
        };
        let parsed = row.map(parsed).transpose();
        parsed.map_err(|error| self.damaged(error))
    }

    fn revocation_of(&self, key: PeerKey) -> Result<Option<Revocation>, NamesError> {
        let row = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT recovery_key, certificate, signature FROM revocations WHERE key = ?1",
            )?;
            let row = statement.query_row([key.to_string()], |row| {
                Ok(StoredRevocation {
                    recovery_key: row.get(0)?,
                    certificate: row.get(1)?,
                    signature: row.get(2)?,
                })
            });
            row.optional()
        };
        let row = row().map_err(|error| self.failed(error))?;
        let parsed = row.map(|row| row.of(key)).transpose();
        parsed.map_err(|error| self.damaged(error))
    }

    /// The names of the keys that were revoked at this time or later, the latest first: at
    /// most as many as a server remembers.
    ///
    /// # Errors
    /// When the table cannot be read, or holds something damaged.
    pub fn revocations_since(
        &self,
        since_s: i64,
    ) -> Result<Vec<(PeerName, Revocation)>, NamesError> {
        let rows = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT name, key, recovery_key, certificate, signature
                 FROM revocations JOIN names USING (key)
                 WHERE revoked_at_s >= ?1 ORDER BY revoked_at_s DESC LIMIT ?2",
            )?;
            let most = i64::try_from(REVOKED_NAMES).unwrap_or(i64::MAX);
            let rows = statement.query_map([since_s, most], |row| {
                let stored = StoredRevocation {
                    recovery_key: row.get(2)?,
                    certificate: row.get(3)?,
                    signature: row.get(4)?,
                };
                Ok((row.get(0)?, row.get(1)?, stored))
            })?;
            rows.collect::<Result<Vec<(String, String, _)>, _>>()
        };
        let rows = rows().map_err(|error| self.failed(error))?;
        let parsed = rows.into_iter().filter_map(|(name, key, stored)| {
            let name = name.parse().ok()?;
            let revocation = key.parse().and_then(|key| stored.of(key));
            Some(revocation.map(|revocation| (name, revocation)))
        });
        let parsed: Result<Vec<_>, _> = parsed.collect();
        parsed.map_err(|error| self.damaged(error))
    }

    fn damaged(&self, source: KeyTextError) -> NamesError {
        NamesError::Key {
            path: self.path.clone(),
            source,
        }
    }
}

/// A revocation as it is stored.
struct StoredRevocation {
    recovery_key: Option<String>,
    certificate: Option<String>,
    signature: String,
}

impl StoredRevocation {
    fn of(self, key: PeerKey) -> Result<Revocation, KeyTextError> {
        let certificate = match (self.recovery_key, self.certificate) {
            (Some(recovery_key), Some(signature)) => Some(RecoveryCertificate {
                key,
                recovery_key: recovery_key.parse()?,
                signature: signature.parse()?,
            }),
            _ => None,
        };
        let signature: Signature = self.signature.parse()?;
        Ok(Revocation {
            key,
            certificate,
            signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 60 * 60;

    fn key(number: u8) -> PeerKey {
        PeerKey::from_bytes([number; 32])
    }

    fn name(text: &str) -> PeerName {
        text.parse().unwrap()
    }

    /// What is stored is not checked here, so that any signature will do.
    fn certificate(of: u8, recovery: u8) -> RecoveryCertificate {
        RecoveryCertificate {
            key: key(of),
            recovery_key: key(recovery),
            signature: Signature::from_bytes([of; 64]),
        }
    }

    fn succession(former: u8, successor: u8) -> Succession {
        Succession {
            certificate: certificate(former, 100),
            successor: key(successor),
            signature: Signature::from_bytes([successor; 64]),
        }
    }

    fn names() -> (Names, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let mut names = Names::create(&dir.path().join("names.sqlite")).unwrap();
        names.claim(&name("bob"), key(2)).unwrap();
        names.claim(&name("bob-phone"), key(2)).unwrap();
        (names, dir)
    }

    #[test]
    fn another_recovery_key_counts_after_a_delay() {
        let (mut names, _dir) = names();
        let in_force = |names: &Names, day| {
            let found = names.recovery_of(key(2), day * DAY).unwrap();
            found.map(|it| it.recovery_key)
        };
        assert_eq!(in_force(&names, 0), None);
        names.note_certificate(&certificate(2, 100), 0).unwrap();
        assert_eq!(in_force(&names, 0), Some(key(100)));
        let stolen = certificate(2, 101);
        names.note_certificate(&stolen, DAY).unwrap();
        names.note_certificate(&stolen, 29 * DAY).unwrap();
        assert_eq!(in_force(&names, 30), Some(key(100)));
        assert_eq!(in_force(&names, 31), Some(key(101)));
        // Its owner logs in before that.
        names
            .note_certificate(&certificate(2, 100), 20 * DAY)
            .unwrap();
        assert_eq!(in_force(&names, 31), Some(key(100)));
        names.note_certificate(&stolen, 40 * DAY).unwrap();
        names.note_certificate(&stolen, 70 * DAY).unwrap();
        names
            .note_certificate(&certificate(2, 102), 71 * DAY)
            .unwrap();
        assert_eq!(in_force(&names, 72), Some(key(101)));
        assert_eq!(in_force(&names, 101), Some(key(102)));
    }

    #[test]
    fn a_successor_has_every_name_of_the_former_key() {
        let (mut names, _dir) = names();
        names.note_certificate(&certificate(2, 100), 0).unwrap();
        assert!(names.succeed(&succession(2, 3), 7).unwrap());
        for text in ["bob", "bob-phone"] {
            assert_eq!(names.owner(&name(text)).unwrap(), Some(key(3)));
        }
        assert!(names.has_ended(key(2)).unwrap() && !names.has_ended(key(3)).unwrap());
        assert_eq!(names.recovery_of(key(2), 7).unwrap(), None);
        assert!(!names.succeed(&succession(2, 4), 8).unwrap(), "only once");
        assert_eq!(names.owner(&name("bob")).unwrap(), Some(key(3)));
    }

    #[test]
    fn a_history_leads_from_the_known_key_to_the_present_one_within_bounds() {
        let (mut names, _dir) = names();
        for number in 2..20 {
            assert!(names.succeed(&succession(number, number + 1), 7).unwrap());
        }
        let history = |number| names.key_history(&name("bob"), key(number)).unwrap();
        let successors = |number| {
            let successions = history(number).successions;
            successions
                .iter()
                .map(|it| it.successor)
                .collect::<Vec<_>>()
        };
        assert_eq!(successors(2), Vec::from_iter((3..11).map(key)));
        assert_eq!(successors(18), [key(19), key(20)]);
        assert_eq!(history(18).successions[0], succession(18, 19));
        assert_eq!(history(20), KeyHistory::unknown(name("bob"), key(20)));
    }

    #[test]
    fn a_revoked_key_keeps_its_names_and_is_found_with_them() {
        let (mut names, _dir) = names();
        let own = Revocation {
            key: key(2),
            certificate: None,
            signature: Signature::from_bytes([9; 64]),
        };
        names.revoke(&own, 7).unwrap();
        assert!(names.has_ended(key(2)).unwrap());
        assert_eq!(names.owner(&name("bob")).unwrap(), Some(key(2)));
        let mut found = names.revocations_since(7).unwrap();
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        assert_eq!(found, [(name("bob"), own), (name("bob-phone"), own)]);
        assert_eq!(names.revocations_since(8).unwrap(), []);
        let history = names.key_history(&name("bob"), key(2)).unwrap();
        assert_eq!(history.revocation, Some(own));
        let by_words = Revocation {
            certificate: Some(certificate(2, 100)),
            ..own
        };
        names.revoke(&by_words, 8).unwrap();
        let history = names.key_history(&name("bob"), key(2)).unwrap();
        assert_eq!(history.revocation, Some(own), "once is enough");
    }

    #[test]
    fn a_revocation_by_words_is_read_back() {
        let (mut names, _dir) = names();
        let by_words = Revocation {
            key: key(2),
            certificate: Some(certificate(2, 100)),
            signature: Signature::from_bytes([9; 64]),
        };
        names.revoke(&by_words, 7).unwrap();
        let history = names.key_history(&name("bob"), key(2)).unwrap();
        assert_eq!(history.revocation, Some(by_words));
    }
}
