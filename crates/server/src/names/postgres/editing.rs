//! What operators see and change of the names in PostgreSQL, and how all of them come into
//! a database and out of it.
//!
//! Each change counts itself in the table `server`, in the same transaction. Servers look
//! at that number, so they miss no change, whatever was lost or restarted meanwhile.

use std::path::Path;

use pinhole_proto::key::{Fingerprint, PeerKey};
use pinhole_proto::name::PeerName;
use sqlx::{Connection as _, PgConnection, Postgres, Transaction};

use super::{BULK_TIMEOUT, PostgresNames, STATEMENT_TIMEOUT};
use crate::names::sqlite::SqliteNames;
use crate::names::{NameEntry, NamesError, PAGE, StoredEntry, now_s, parsed};

const ENTRIES_AFTER: &str = "
    SELECT known.name, names.key, registered_at_s, banned_at_s, revoked_at_s,
        coalesce(name_uses.used_on, tombstones.used_on), released_at_s
    FROM (
        (SELECT name FROM pinhole.names WHERE name > $1 ORDER BY name LIMIT $2)
        UNION
        (SELECT name FROM pinhole.banned WHERE name > $1 ORDER BY name LIMIT $2)
        UNION
        (SELECT name FROM pinhole.tombstones WHERE name > $1 ORDER BY name LIMIT $2)
        ORDER BY name LIMIT $2) AS known
    LEFT JOIN pinhole.names ON names.name = known.name
    LEFT JOIN pinhole.banned ON banned.name = known.name
    LEFT JOIN pinhole.name_uses ON name_uses.name = known.name
    LEFT JOIN pinhole.tombstones ON tombstones.name = known.name
    LEFT JOIN pinhole.revocations ON revocations.key = names.key
    ORDER BY known.name";
const ENTRY: &str = "
    SELECT known.name, names.key, registered_at_s, banned_at_s, revoked_at_s,
        coalesce(name_uses.used_on, tombstones.used_on), released_at_s
    FROM (SELECT $1 AS name) AS known
    LEFT JOIN pinhole.names ON names.name = known.name
    LEFT JOIN pinhole.banned ON banned.name = known.name
    LEFT JOIN pinhole.name_uses ON name_uses.name = known.name
    LEFT JOIN pinhole.tombstones ON tombstones.name = known.name
    LEFT JOIN pinhole.revocations ON revocations.key = names.key
    WHERE names.name IS NOT NULL OR banned.name IS NOT NULL OR tombstones.name IS NOT NULL";
const RELEASE: &str = "
    WITH released AS (DELETE FROM pinhole.names WHERE name = $1 RETURNING key),
        noted AS (UPDATE pinhole.server SET changes = changes + 1)
    SELECT key FROM released";
const BAN: &str = "
    WITH noted AS (UPDATE pinhole.server SET changes = changes + 1)
    INSERT INTO pinhole.banned (name, banned_at_s) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const UNBAN: &str = "
    WITH noted AS (UPDATE pinhole.server SET changes = changes + 1)
    DELETE FROM pinhole.banned WHERE name = $1";
const TRANSFER: &str = "
    WITH former AS (SELECT key FROM pinhole.names WHERE name = $1 FOR UPDATE),
        transferred AS (
            UPDATE pinhole.names SET key = $2, registered_at_s = $3 WHERE name = $1),
        noted AS (UPDATE pinhole.server SET changes = changes + 1)
    SELECT key FROM former";
const INSERT_NAMES: &str = "
    INSERT INTO pinhole.names (name, key, registered_at_s)
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])";
const INSERT_BANS: &str = "
    INSERT INTO pinhole.banned (name, banned_at_s)
    SELECT * FROM unnest($1::text[], $2::bigint[])";
/// Nobody binds a name while names are carried over.
const LOCK_NAMES: &str = "LOCK TABLE pinhole.names, pinhole.server IN SHARE ROW EXCLUSIVE MODE";
const HAS_ENTRIES: &str = "
    SELECT EXISTS (SELECT FROM pinhole.names) OR EXISTS (SELECT FROM pinhole.banned)
        OR EXISTS (SELECT FROM pinhole.successions) OR EXISTS (SELECT FROM pinhole.tombstones)";

impl PostgresNames {
    pub(in crate::names) async fn entries_after(
        &mut self,
        name: &str,
    ) -> Result<Vec<NameEntry>, NamesError> {
        let mut connection = self.take().await?;
        let entries = self.page_after(&mut connection, name).await?;
        self.connection = Some(connection);
        Ok(entries)
    }

    async fn page_after(
        &self,
        connection: &mut PgConnection,
        name: &str,
    ) -> Result<Vec<NameEntry>, NamesError> {
        let page = i64::try_from(PAGE).unwrap_or(i64::MAX);
        let rows = sqlx::query_as(ENTRIES_AFTER).bind(name).bind(page);
        let rows = self.bounded(BULK_TIMEOUT, rows.fetch_all(connection));
        let rows: Vec<StoredEntry> = rows.await?;
        rows.into_iter().map(|row| self.entry_of(row)).collect()
    }

    pub(in crate::names) async fn entry(
        &mut self,
        name: &PeerName,
    ) -> Result<Option<NameEntry>, NamesError> {
        let mut connection = self.take().await?;
        let row = sqlx::query_as(ENTRY).bind(name.as_str());
        let row = self.bounded(STATEMENT_TIMEOUT, row.fetch_optional(&mut connection));
        let row: Option<StoredEntry> = row.await?;
        self.connection = Some(connection);
        row.map(|row| self.entry_of(row)).transpose()
    }

    fn entry_of(&self, stored: StoredEntry) -> Result<NameEntry, NamesError> {
        NameEntry::of(stored, self.database())
    }

    pub(in crate::names) async fn release(
        &mut self,
        name: &PeerName,
    ) -> Result<Option<PeerKey>, NamesError> {
        let mut connection = self.take().await?;
        let key = sqlx::query_scalar(RELEASE).bind(name.as_str());
        let key = self.bounded(STATEMENT_TIMEOUT, key.fetch_optional(&mut connection));
        let key: Option<String> = key.await?;
        self.connection = Some(connection);
        key.map(|text| parsed(&text, self.database())).transpose()
    }

    pub(in crate::names) async fn ban(&mut self, name: &PeerName) -> Result<bool, NamesError> {
        let mut connection = self.take().await?;
        let banned = sqlx::query(BAN).bind(name.as_str()).bind(now_s());
        let banned = self.bounded(STATEMENT_TIMEOUT, banned.execute(&mut connection));
        let banned = banned.await?.rows_affected();
        self.connection = Some(connection);
        Ok(banned > 0)
    }

    pub(in crate::names) async fn unban(&mut self, name: &PeerName) -> Result<bool, NamesError> {
        let mut connection = self.take().await?;
        let lifted = sqlx::query(UNBAN).bind(name.as_str());
        let lifted = self.bounded(STATEMENT_TIMEOUT, lifted.execute(&mut connection));
        let lifted = lifted.await?.rows_affected();
        self.connection = Some(connection);
        Ok(lifted > 0)
    }

    pub(in crate::names) async fn transfer(
        &mut self,
        name: &PeerName,
        key: PeerKey,
    ) -> Result<Option<PeerKey>, NamesError> {
        let mut connection = self.take().await?;
        let former = sqlx::query_scalar(TRANSFER).bind(name.as_str());
        let former = former.bind(key.to_string()).bind(now_s());
        let former = self.bounded(STATEMENT_TIMEOUT, former.fetch_optional(&mut connection));
        let former: Option<String> = former.await?;
        self.connection = Some(connection);
        former
            .map(|text| parsed(&text, self.database()))
            .transpose()
    }

    /// Writes everything, as it is at one moment, to a new file of SQLite.
    pub(in crate::names) async fn copy_to(&mut self, copy: &Path) -> Result<(), NamesError> {
        let mut names = SqliteNames::create(copy)?;
        if let Some(server) = self.server().await? {
            names.belong_to(server)?;
        }
        let mut connection = self.take().await?;
        let begin = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY");
        let mut transaction = self.bounded(STATEMENT_TIMEOUT, begin).await?;
        let mut last = String::new();
        loop {
            let entries = self.page_after(&mut transaction, &last).await?;
            names.insert(&entries)?;
            match entries.into_iter().last() {
                Some(entry) => last = entry.name,
                None => break,
            }
        }
        self.copy_rows(&mut transaction, &names).await?;
        self.bounded(STATEMENT_TIMEOUT, transaction.commit())
            .await?;
        self.count = names.count();
        self.connection = Some(connection);
        Ok(())
    }

    /// Takes everything from a file of SQLite, and the server's key, or nothing.
    ///
    /// # Errors
    /// When the database cannot be written, or is not empty.
    pub(crate) async fn take_over(
        &mut self,
        source: &SqliteNames,
        server: Fingerprint,
    ) -> Result<(), NamesError> {
        let mut connection = self.take().await?;
        let mut transaction = self.bounded(STATEMENT_TIMEOUT, connection.begin()).await?;
        let locked = sqlx::query(LOCK_NAMES).execute(&mut *transaction);
        self.bounded(BULK_TIMEOUT, locked).await?;
        let has_entries = sqlx::query_scalar(HAS_ENTRIES).fetch_one(&mut *transaction);
        if self.bounded(BULK_TIMEOUT, has_entries).await? {
            let database = self.database().clone();
            return Err(NamesError::NotEmpty { database });
        }
        let mut last = String::new();
        loop {
            let entries = source.entries_after(&last)?;
            let inserted = insert(&mut transaction, &entries);
            self.bounded(BULK_TIMEOUT, inserted).await?;
            match entries.into_iter().last() {
                Some(entry) => last = entry.name,
                None => break,
            }
        }
        self.take_rows(&mut transaction, source).await?;
        let noted = sqlx::query("UPDATE pinhole.server SET fingerprint = $1");
        let noted = noted.bind(server.to_string()).execute(&mut *transaction);
        self.bounded(STATEMENT_TIMEOUT, noted).await?;
        self.bounded(BULK_TIMEOUT, transaction.commit()).await?;
        self.connection = Some(connection);
        self.recount().await
    }
}

async fn insert(
    transaction: &mut Transaction<'_, Postgres>,
    entries: &[NameEntry],
) -> sqlx::Result<()> {
    let (mut names, mut keys, mut times) = (Vec::new(), Vec::new(), Vec::new());
    let (mut banned, mut banned_at) = (Vec::new(), Vec::new());
    for entry in entries {
        if let (Some(key), Some(at_s)) = (entry.key, entry.registered_at_s) {
            names.push(entry.name.as_str());
            keys.push(key.to_string());
            times.push(at_s);
        }
        if let Some(at_s) = entry.banned_at_s {
            banned.push(entry.name.as_str());
            banned_at.push(at_s);
        }
    }
    let named = sqlx::query(INSERT_NAMES).bind(names).bind(keys).bind(times);
    named.execute(&mut **transaction).await?;
    let bans = sqlx::query(INSERT_BANS).bind(banned).bind(banned_at);
    bans.execute(&mut **transaction).await?;
    Ok(())
}
