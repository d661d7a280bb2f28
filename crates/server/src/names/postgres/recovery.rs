//! What is signed about keys, in PostgreSQL. What ends a key counts as a change by an
//! operator, so that other servers look at it.

use pinhole_proto::key::{KeyTextError, PeerKey};
use pinhole_proto::name::PeerName;
use pinhole_proto::recovery::{KeyHistory, Revocation, SUCCESSIONS_MAX, Succession};
use pinhole_proto::registry::REVOKED_NAMES;

use super::{BULK_TIMEOUT, PostgresNames, STATEMENT_TIMEOUT};
use crate::names::NamesError;
use crate::names::recovery::{
    ClaimedName, ClaimedRow, EndRow, NotedRecovery, RevokedRow, SuccessionRow, claimed, history,
    revoked,
};

pub(super) const TABLES: &str = "
    CREATE TABLE pinhole.recovery (
        key text COLLATE \"C\" PRIMARY KEY,
        recovery_key text NOT NULL,
        signature text NOT NULL,
        next_recovery_key text,
        next_signature text,
        next_since_s bigint
    );
    CREATE TABLE pinhole.successions (
        key text COLLATE \"C\" PRIMARY KEY,
        recovery_key text NOT NULL,
        certificate text NOT NULL,
        successor text COLLATE \"C\" NOT NULL,
        signature text NOT NULL,
        succeeded_at_s bigint NOT NULL
    );
    CREATE TABLE pinhole.revocations (
        key text COLLATE \"C\" PRIMARY KEY,
        recovery_key text,
        certificate text,
        signature text NOT NULL,
        revoked_at_s bigint NOT NULL
    );
    CREATE INDEX revocations_by_time ON pinhole.revocations (revoked_at_s);
";

const LOOK_UP_CLAIMED: &str = "
    SELECT names.key, banned.name IS NOT NULL,
        successions.key IS NOT NULL OR revocations.key IS NOT NULL,
        name_uses.used_on, recovery.key, recovery.recovery_key, recovery.signature,
        next_recovery_key, next_signature, next_since_s
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (name, key, place)
    LEFT JOIN pinhole.names ON names.name = asked.name
    LEFT JOIN pinhole.banned ON banned.name = asked.name
    LEFT JOIN pinhole.successions ON successions.key = asked.key
    LEFT JOIN pinhole.revocations ON revocations.key = asked.key
    LEFT JOIN pinhole.name_uses ON name_uses.name = asked.name
    LEFT JOIN pinhole.recovery ON recovery.key = coalesce(names.key, asked.key)
    ORDER BY place";
/// In one order, so that servers that note the same keys do not wait for each other.
const NOTE_RECOVERIES: &str = "
    INSERT INTO pinhole.recovery AS noted
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
        AS wanted (key)
    ORDER BY key COLLATE \"C\"
    ON CONFLICT (key) DO UPDATE SET recovery_key = excluded.recovery_key,
        signature = excluded.signature, next_recovery_key = excluded.next_recovery_key,
        next_signature = excluded.next_signature, next_since_s = excluded.next_since_s
    WHERE noted.recovery_key = excluded.recovery_key
        OR noted.next_recovery_key = excluded.recovery_key";
const SUCCEED: &str = "
    WITH noted AS (
            INSERT INTO pinhole.successions VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT DO NOTHING RETURNING key),
        bound AS (
            UPDATE pinhole.names SET key = $4, registered_at_s = $6
            WHERE key IN (SELECT key FROM noted)),
        forgotten AS (
            DELETE FROM pinhole.recovery WHERE key IN (SELECT key FROM noted)),
        counted AS (
            UPDATE pinhole.server SET changes = changes + 1
            WHERE EXISTS (SELECT FROM noted))
    SELECT key FROM noted";
const REVOKE: &str = "
    WITH counted AS (UPDATE pinhole.server SET changes = changes + 1)
    INSERT INTO pinhole.revocations VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
const SUCCESSIONS: &str = "
    WITH RECURSIVE chain AS (
        SELECT key, recovery_key, certificate, successor, signature, 1 AS place
        FROM pinhole.successions WHERE key = $1
        UNION ALL
        SELECT later.key, later.recovery_key, later.certificate, later.successor,
            later.signature, place + 1
        FROM chain JOIN pinhole.successions AS later ON later.key = chain.successor
        WHERE place < $2)
    SELECT key, recovery_key, certificate, successor, signature FROM chain ORDER BY place";
const END: &str = "
    SELECT recovery_key, certificate, signature, released_at_s
    FROM (SELECT $1 AS key, $2 AS name) AS asked
    LEFT JOIN pinhole.revocations ON revocations.key = asked.key
    LEFT JOIN pinhole.tombstones ON tombstones.name = asked.name AND tombstones.key = asked.key";
const REVOCATIONS_SINCE: &str = "
    SELECT name, key, recovery_key, certificate, signature
    FROM pinhole.revocations JOIN pinhole.names USING (key)
    WHERE revoked_at_s >= $1 ORDER BY revoked_at_s DESC LIMIT $2";

impl PostgresNames {
    pub(in crate::names) async fn look_up_claimed(
        &mut self,
        claims: &[(PeerName, PeerKey)],
    ) -> Result<Vec<ClaimedName>, NamesError> {
        let names: Vec<&str> = claims.iter().map(|(name, _)| name.as_str()).collect();
        let keys: Vec<String> = claims.iter().map(|(_, key)| key.to_string()).collect();
        let mut connection = self.take().await?;
        let rows = sqlx::query_as(LOOK_UP_CLAIMED).bind(names).bind(keys);
        let rows = rows.fetch_all(&mut connection);
        let rows: Vec<ClaimedRow> = self.bounded(STATEMENT_TIMEOUT, rows).await?;
        self.connection = Some(connection);
        Ok(rows.iter().map(claimed).collect())
    }

    pub(in crate::names) async fn note_recoveries(
        &mut self,
        noted: &[NotedRecovery],
    ) -> Result<(), NamesError> {
        let all = |text: fn(&NotedRecovery) -> String| noted.iter().map(text).collect::<Vec<_>>();
        let nexts =
            |text: fn(&NotedRecovery) -> Option<String>| noted.iter().map(text).collect::<Vec<_>>();
        let since: Vec<_> = noted
            .iter()
            .map(|it| it.next.map(|(_, at_s)| at_s))
            .collect();
        let mut connection = self.take().await?;
        let written = sqlx::query(NOTE_RECOVERIES)
            .bind(all(|it| it.current.key.to_string()))
            .bind(all(|it| it.current.recovery_key.to_string()))
            .bind(all(|it| it.current.signature.to_string()))
            .bind(nexts(|it| Some(it.next?.0.recovery_key.to_string())))
            .bind(nexts(|it| Some(it.next?.0.signature.to_string())))
            .bind(since);
        let written = self.bounded(STATEMENT_TIMEOUT, written.execute(&mut connection));
        written.await?;
        self.connection = Some(connection);
        Ok(())
    }

    pub(in crate::names) async fn succeed(
        &mut self,
        succession: &Succession,
        now_s: i64,
    ) -> Result<bool, NamesError> {
        let certificate = &succession.certificate;
        let mut connection = self.take().await?;
        let noted = sqlx::query(SUCCEED)
            .bind(succession.former().to_string())
            .bind(certificate.recovery_key.to_string())
            .bind(certificate.signature.to_string())
            .bind(succession.successor.to_string())
            .bind(succession.signature.to_string())
            .bind(now_s);
        let noted = self.bounded(STATEMENT_TIMEOUT, noted.fetch_optional(&mut connection));
        let noted = noted.await?;
        self.connection = Some(connection);
        Ok(noted.is_some())
    }

    pub(in crate::names) async fn revoke(
        &mut self,
        revocation: &Revocation,
        now_s: i64,
    ) -> Result<(), NamesError> {
        let certificate = revocation.certificate.as_ref();
        let mut connection = self.take().await?;
        let revoked = sqlx::query(REVOKE)
            .bind(revocation.key.to_string())
            .bind(certificate.map(|it| it.recovery_key.to_string()))
            .bind(certificate.map(|it| it.signature.to_string()))
            .bind(revocation.signature.to_string())
            .bind(now_s);
        let revoked = self.bounded(STATEMENT_TIMEOUT, revoked.execute(&mut connection));
        revoked.await?;
        self.connection = Some(connection);
        Ok(())
    }

    pub(in crate::names) async fn key_history(
        &mut self,
        name: &PeerName,
        key: PeerKey,
    ) -> Result<KeyHistory, NamesError> {
        let of = key.to_string();
        let most = i32::try_from(SUCCESSIONS_MAX).unwrap_or(i32::MAX);
        let mut connection = self.take().await?;
        let chain = sqlx::query_as(SUCCESSIONS).bind(&of).bind(most);
        let chain = self.bounded(STATEMENT_TIMEOUT, chain.fetch_all(&mut connection));
        let chain: Vec<SuccessionRow> = chain.await?;
        let end = sqlx::query_as(END).bind(&of).bind(name.as_str());
        let end = self.bounded(STATEMENT_TIMEOUT, end.fetch_one(&mut connection));
        let end: EndRow = end.await?;
        self.connection = Some(connection);
        history(name, key, chain, end).map_err(|error| self.damaged(error))
    }

    pub(in crate::names) async fn revocations_since(
        &mut self,
        since_s: i64,
    ) -> Result<Vec<(PeerName, Revocation)>, NamesError> {
        let most = i64::try_from(REVOKED_NAMES).unwrap_or(i64::MAX);
        let mut connection = self.take().await?;
        let rows = sqlx::query_as(REVOCATIONS_SINCE).bind(since_s).bind(most);
        let rows = self.bounded(BULK_TIMEOUT, rows.fetch_all(&mut connection));
        let rows: Vec<RevokedRow> = rows.await?;
        self.connection = Some(connection);
        let parsed: Result<Vec<_>, _> = rows.into_iter().filter_map(revoked).collect();
        parsed.map_err(|error| self.damaged(error))
    }

    fn damaged(&self, source: KeyTextError) -> NamesError {
        NamesError::Key {
            place: self.database.to_string(),
            source,
        }
    }
}
