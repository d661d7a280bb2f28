//! What is signed about keys, in SQLite.

use pinhole_proto::key::{KeyTextError, PeerKey};
use pinhole_proto::name::PeerName;
use pinhole_proto::recovery::{KeyHistory, Revocation, SUCCESSIONS_MAX, Succession};
use pinhole_proto::registry::REVOKED_NAMES;
use rusqlite::params;

use super::SqliteNames;
use crate::names::NamesError;
use crate::names::recovery::{ClaimedName, NotedRecovery, claimed, history, revoked};

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

const LOOK_UP_CLAIMED: &str = "
    SELECT names.key,
        EXISTS (SELECT 1 FROM banned WHERE banned.name = asked.name),
        EXISTS (SELECT 1 FROM successions WHERE successions.key = asked.key)
            OR EXISTS (SELECT 1 FROM revocations WHERE revocations.key = asked.key),
        used_on, recovery.key, recovery_key, signature, next_recovery_key, next_signature,
        next_since_s
    FROM (SELECT ?1 AS name, ?2 AS key) AS asked
    LEFT JOIN names ON names.name = asked.name
    LEFT JOIN name_uses ON name_uses.name = asked.name
    LEFT JOIN recovery ON recovery.key = coalesce(names.key, asked.key)";
const NOTE_RECOVERY: &str = "
    INSERT INTO recovery VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (key) DO UPDATE SET recovery_key = excluded.recovery_key,
        signature = excluded.signature, next_recovery_key = excluded.next_recovery_key,
        next_signature = excluded.next_signature, next_since_s = excluded.next_since_s
    WHERE recovery.recovery_key = excluded.recovery_key
        OR recovery.next_recovery_key = excluded.recovery_key";
const SUCCESSIONS: &str = "
    WITH RECURSIVE chain AS (
        SELECT key, recovery_key, certificate, successor, signature, 1 AS place
        FROM successions WHERE key = ?1
        UNION ALL
        SELECT later.key, later.recovery_key, later.certificate, later.successor,
            later.signature, place + 1
        FROM chain JOIN successions AS later ON later.key = chain.successor WHERE place < ?2)
    SELECT key, recovery_key, certificate, successor, signature FROM chain ORDER BY place";
const END: &str = "
    SELECT recovery_key, certificate, signature, released_at_s
    FROM (SELECT ?1 AS key, ?2 AS name) AS asked
    LEFT JOIN revocations ON revocations.key = asked.key
    LEFT JOIN tombstones ON tombstones.name = asked.name AND tombstones.key = asked.key";
const REVOCATIONS_SINCE: &str = "
    SELECT name, key, recovery_key, certificate, signature
    FROM revocations JOIN names USING (key)
    WHERE revoked_at_s >= ?1 ORDER BY revoked_at_s DESC LIMIT ?2";

impl SqliteNames {
    pub(in crate::names) fn look_up_claimed(
        &self,
        claims: &[(PeerName, PeerKey)],
    ) -> Result<Vec<ClaimedName>, NamesError> {
        let rows = || {
            let mut statement = self.connection.prepare_cached(LOOK_UP_CLAIMED)?;
            let rows = claims.iter().map(|(name, key)| {
                let values = params![name.as_str(), key.to_string()];
                statement.query_row(values, |row| row.try_into().map(|row| claimed(&row)))
            });
            rows.collect::<rusqlite::Result<_>>()
        };
        rows().map_err(|error| self.failed(error))
    }

    pub(in crate::names) fn note_recoveries(
        &self,
        noted: &[NotedRecovery],
    ) -> Result<(), NamesError> {
        self.write(|transaction| {
            let mut statement = transaction.prepare_cached(NOTE_RECOVERY)?;
            for NotedRecovery { current, next } in noted {
                let next = next.as_ref();
                statement.execute(params![
                    current.key.to_string(),
                    current.recovery_key.to_string(),
                    current.signature.to_string(),
                    next.map(|(it, _)| it.recovery_key.to_string()),
                    next.map(|(it, _)| it.signature.to_string()),
                    next.map(|(_, since_s)| since_s),
                ])?;
            }
            Ok(())
        })
    }

    pub(in crate::names) fn succeed(
        &self,
        succession: &Succession,
        now_s: i64,
    ) -> Result<bool, NamesError> {
        let former = succession.former().to_string();
        let successor = succession.successor.to_string();
        let certificate = &succession.certificate;
        self.write(|transaction| {
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
            Ok(true)
        })
    }

    pub(in crate::names) fn revoke(
        &self,
        revocation: &Revocation,
        now_s: i64,
    ) -> Result<(), NamesError> {
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

    pub(in crate::names) fn key_history(
        &self,
        name: &PeerName,
        key: PeerKey,
    ) -> Result<KeyHistory, NamesError> {
        let of = key.to_string();
        let read = || {
            let mut chain = self.connection.prepare_cached(SUCCESSIONS)?;
            let most = i64::try_from(SUCCESSIONS_MAX).unwrap_or(i64::MAX);
            let successions = chain.query_map(params![of, most], |row| row.try_into())?;
            let successions = successions.collect::<rusqlite::Result<_>>()?;
            let mut end = self.connection.prepare_cached(END)?;
            let end = end.query_row([&*of, name.as_str()], |row| row.try_into())?;
            Ok((successions, end))
        };
        let (successions, end) = read().map_err(|error| self.failed(error))?;
        let parsed = history(name, key, successions, end);
        parsed.map_err(|error| self.damaged(error))
    }

    pub(in crate::names) fn revocations_since(
        &self,
        since_s: i64,
    ) -> Result<Vec<(PeerName, Revocation)>, NamesError> {
        let rows = || {
            let mut statement = self.connection.prepare_cached(REVOCATIONS_SINCE)?;
            let most = i64::try_from(REVOKED_NAMES).unwrap_or(i64::MAX);
            let rows = statement.query_map([since_s, most], |row| row.try_into())?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let rows = rows().map_err(|error| self.failed(error))?;
        let parsed: Result<Vec<_>, _> = rows.into_iter().filter_map(revoked).collect();
        parsed.map_err(|error| self.damaged(error))
    }

    fn damaged(&self, source: KeyTextError) -> NamesError {
        NamesError::Key {
            place: self.path.display().to_string(),
            source,
        }
    }
}
