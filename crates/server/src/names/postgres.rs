//! Names in PostgreSQL, shared by several servers.
//!
//! The unique index decides who has a name. Claims come in batches, and a batch costs a
//! fixed number of round trips. Every connection and statement has a time limit, and a
//! connection that has failed is replaced at the next use.

mod carry;
mod database;
mod editing;
mod expiry;
mod recovery;
mod schema;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pinhole_proto::key::{Fingerprint, PeerKey};
use pinhole_proto::name::PeerName;
use sqlx::PgConnection;

use super::{NameState, NamesError, now_s, parsed};

pub(super) use database::what;
pub use database::{Database, DatabaseError};

/// How long a statement of a login may take. A client waits ten seconds for its login,
/// and the server looks its name up again before that.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a statement about many names may take.
const BULK_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the names are counted, which reads all of an index.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);
/// The most keys that are read together.
const KEYS: i64 = 8_192;

const LOOK_UP: &str = "
    SELECT names.key, banned.name IS NOT NULL
    FROM unnest($1::text[]) WITH ORDINALITY AS asked (name, place)
    LEFT JOIN pinhole.names ON names.name = asked.name
    LEFT JOIN pinhole.banned ON banned.name = asked.name
    ORDER BY place";
/// In one order, so that servers that bind the same names do not wait for each other.
const BIND: &str = "
    INSERT INTO pinhole.names (name, key, registered_at_s)
    SELECT name, key, $3 FROM unnest($1::text[], $2::text[]) WITH ORDINALITY
        AS wanted (name, key, place)
    WHERE NOT EXISTS (SELECT FROM pinhole.banned WHERE banned.name = wanted.name)
    ORDER BY name COLLATE \"C\", place
    ON CONFLICT DO NOTHING";
const COUNTS_OF: &str = "
    SELECT key, count(*) FROM pinhole.names WHERE key = ANY ($1) GROUP BY key";
const REGISTERED_WITHIN: &str = "
    SELECT DISTINCT key FROM pinhole.names
    WHERE registered_at_s > $1 AND registered_at_s <= $2 AND key > $3
    ORDER BY key LIMIT $4";

/// The names of a database.
#[derive(Debug)]
pub struct PostgresNames {
    database: Database,
    /// `None` at first and after a failure.
    connection: Option<PgConnection>,
    count: u64,
    counted_at: Option<Instant>,
    /// The number of changes by operators, and of keys that have ended, when it was last
    /// looked at.
    seen_changes: Option<i64>,
}

impl PostgresNames {
    /// Makes the tables, unless they are there.
    ///
    /// # Errors
    /// When the database cannot be reached, or does not let this user make tables.
    pub async fn create(database: Database) -> Result<Self, NamesError> {
        let mut names = Self::of(database);
        let mut connection = names.take().await?;
        let made = schema::create(&mut connection);
        let version = names.bounded(BULK_TIMEOUT, made).await?;
        names.connection = Some(connection);
        names.opened(Some(version)).await
    }

    /// Uses tables that are there.
    ///
    /// # Errors
    /// When the database cannot be reached, or has no tables of Pinhole.
    pub async fn open(database: Database) -> Result<Self, NamesError> {
        let mut names = Self::of(database);
        let mut connection = names.take().await?;
        let found = schema::version(&mut connection);
        let version = names.bounded(STATEMENT_TIMEOUT, found).await?;
        names.connection = Some(connection);
        names.opened(version).await
    }

    const fn of(database: Database) -> Self {
        Self {
            database,
            connection: None,
            count: 0,
            counted_at: None,
            seen_changes: None,
        }
    }

    async fn opened(mut self, version: Option<i32>) -> Result<Self, NamesError> {
        let database = self.database.clone();
        let Some(version) = version else {
            return Err(NamesError::NoTables { database });
        };
        if version > schema::VERSION {
            return Err(NamesError::Version {
                place: database.to_string(),
                found: version.unsigned_abs(),
                known: schema::VERSION.unsigned_abs(),
            });
        }
        self.recount().await?;
        Ok(self)
    }

    /// The database.
    #[must_use]
    pub const fn database(&self) -> &Database {
        &self.database
    }

    /// How many names there were at most ten seconds ago.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The connection, or a new one. It has to be put back after use. One that has failed,
    /// or whose answer nobody waits for any more, is closed that way.
    async fn take(&mut self) -> Result<PgConnection, NamesError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.database.connect().await,
        }
    }

    async fn bounded<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = sqlx::Result<T>>,
    ) -> Result<T, NamesError> {
        self.database.bounded(limit, work).await
    }

    pub(super) async fn look_up(
        &mut self,
        names: &[PeerName],
    ) -> Result<Vec<NameState>, NamesError> {
        let names: Vec<&str> = names.iter().map(PeerName::as_str).collect();
        let mut connection = self.take().await?;
        let rows = sqlx::query_as(LOOK_UP).bind(names);
        let rows = rows.fetch_all(&mut connection);
        let rows: Vec<(Option<String>, bool)> = self.bounded(STATEMENT_TIMEOUT, rows).await?;
        self.connection = Some(connection);
        let states = rows
            .into_iter()
            .map(|(key, is_banned)| NameState::of(key, is_banned));
        Ok(states.collect())
    }

    pub(super) async fn bind(
        &mut self,
        wanted: &[(PeerName, PeerKey)],
    ) -> Result<Vec<NameState>, NamesError> {
        let names: Vec<PeerName> = wanted.iter().map(|(name, _)| name.clone()).collect();
        let texts: Vec<&str> = names.iter().map(PeerName::as_str).collect();
        let keys: Vec<String> = wanted.iter().map(|(_, key)| key.to_string()).collect();
        let mut connection = self.take().await?;
        let bound = sqlx::query(BIND).bind(texts).bind(keys).bind(now_s());
        let bound = self.bounded(STATEMENT_TIMEOUT, bound.execute(&mut connection));
        self.count += bound.await?.rows_affected();
        self.connection = Some(connection);
        // A statement of its own: only that sees what another server has bound meanwhile.
        self.look_up(&names).await
    }

    pub(super) async fn counts_of(
        &mut self,
        keys: &[PeerKey],
    ) -> Result<HashMap<PeerKey, u32>, NamesError> {
        let keys: Vec<String> = keys.iter().map(PeerKey::to_string).collect();
        let mut connection = self.take().await?;
        let rows = sqlx::query_as(COUNTS_OF).bind(keys);
        let rows = rows.fetch_all(&mut connection);
        let rows: Vec<(String, i64)> = self.bounded(STATEMENT_TIMEOUT, rows).await?;
        self.connection = Some(connection);
        let count = |(key, count): (String, i64)| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            Ok((parsed(&key, &self.database)?, count))
        };
        rows.into_iter().map(count).collect()
    }

    pub(super) async fn registered_within(
        &mut self,
        after_s: i64,
        until_s: i64,
    ) -> Result<Vec<PeerKey>, NamesError> {
        let mut keys = Vec::new();
        let mut last = String::new();
        loop {
            let mut connection = self.take().await?;
            let page = sqlx::query_scalar(REGISTERED_WITHIN)
                .bind(after_s)
                .bind(until_s);
            let page = page.bind(&last).bind(KEYS).fetch_all(&mut connection);
            let page: Vec<String> = self.bounded(BULK_TIMEOUT, page).await?;
            self.connection = Some(connection);
            for key in &page {
                keys.push(parsed(key, &self.database)?);
            }
            match page.into_iter().last() {
                Some(key) => last = key,
                None => return Ok(keys),
            }
        }
    }

    /// The key of the server that these names belong to, once that is noted.
    ///
    /// # Errors
    /// When the database cannot be read, or the note is damaged.
    pub(crate) async fn server(&mut self) -> Result<Option<Fingerprint>, NamesError> {
        let mut connection = self.take().await?;
        let noted = sqlx::query_scalar("SELECT fingerprint FROM pinhole.server");
        let noted = self.bounded(STATEMENT_TIMEOUT, noted.fetch_one(&mut connection));
        let noted: Option<String> = noted.await?;
        self.connection = Some(connection);
        noted.map(|text| parsed(&text, &self.database)).transpose()
    }

    /// Notes which server these names belong to. Returns whom they belong to then: the
    /// first server that says so keeps them.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub(crate) async fn belong_to(
        &mut self,
        server: Fingerprint,
    ) -> Result<Option<Fingerprint>, NamesError> {
        let sql = "UPDATE pinhole.server SET fingerprint = $1 WHERE fingerprint IS NULL";
        self.note_server(sql, server).await?;
        self.server().await
    }

    /// Notes that these names belong to this server, whomever they belonged to.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub(crate) async fn be_taken_over(&mut self, server: Fingerprint) -> Result<(), NamesError> {
        self.note_server("UPDATE pinhole.server SET fingerprint = $1", server)
            .await
    }

    async fn note_server(
        &mut self,
        sql: &'static str,
        server: Fingerprint,
    ) -> Result<(), NamesError> {
        let mut connection = self.take().await?;
        let noted = sqlx::query(sql).bind(server.to_string());
        let noted = self.bounded(STATEMENT_TIMEOUT, noted.execute(&mut connection));
        noted.await?;
        self.connection = Some(connection);
        Ok(())
    }

    pub(super) async fn check_readable(&mut self) -> Result<(), NamesError> {
        self.server().await.map(drop)
    }

    pub(super) async fn has_changed_elsewhere(&mut self) -> Result<bool, NamesError> {
        let mut connection = self.take().await?;
        let changes = sqlx::query_scalar("SELECT changes FROM pinhole.server");
        let changes = self.bounded(STATEMENT_TIMEOUT, changes.fetch_one(&mut connection));
        let changes: i64 = changes.await?;
        self.connection = Some(connection);
        let is_due = |at: Instant| at.elapsed() >= COUNT_INTERVAL;
        if self.counted_at.is_none_or(is_due) {
            self.recount().await?;
        }
        Ok(self.seen_changes.replace(changes) != Some(changes))
    }

    async fn recount(&mut self) -> Result<(), NamesError> {
        let mut connection = self.take().await?;
        let count = sqlx::query_scalar("SELECT count(*) FROM pinhole.names");
        let count = self.bounded(BULK_TIMEOUT, count.fetch_one(&mut connection));
        let count: i64 = count.await?;
        self.connection = Some(connection);
        self.count = u64::try_from(count).unwrap_or(0);
        self.counted_at = Some(Instant::now());
        Ok(())
    }
}
