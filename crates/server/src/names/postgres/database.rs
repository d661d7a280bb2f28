//! Where the database is, and how it is reached.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::time::timeout;

use crate::names::NamesError;

/// How long a new connection may take until it can be used.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// What PostgreSQL itself does after the limits here are over: it stops waiting for locks
/// and ends statements, whose askers are gone. It plans a statement each time, because it
/// would keep a plan that it made for few names, and read all names by it when they are
/// many.
const SESSION: &str = "SET lock_timeout = '2s'; SET statement_timeout = '60s'; \
                       SET idle_in_transaction_session_timeout = '60s'; \
                       SET plan_cache_mode = force_custom_plan";
/// The kinds of errors that pass by themselves or with a change at PostgreSQL: no
/// connection, no login, no such database, too many clients, a standby, a deadlock, a
/// time limit, a shutdown.
const OUTAGES: &[&str] = &["08", "28", "3D", "53300", "25006", "40", "55P03", "57"];

/// A PostgreSQL database. It is shown without its password.
#[derive(Clone)]
pub struct Database {
    options: Arc<PgConnectOptions>,
    shown: Arc<str>,
}

/// Why a text is no [`Database`]. It does not repeat the text, which may have a password.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It does not begin like one.
    #[error("--database is a URL such as postgres://user@db.example.org/pinhole")]
    Scheme,
    /// Something later is wrong.
    #[error("--database is no URL of a PostgreSQL database: {0}")]
    Url(String),
}

impl FromStr for Database {
    type Err = DatabaseError;

    fn from_str(url: &str) -> Result<Self, DatabaseError> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(DatabaseError::Scheme);
        }
        let options = url.parse::<PgConnectOptions>();
        let options = options.map_err(|error| DatabaseError::Url(error.to_string()))?;
        let name = options.get_database().unwrap_or(options.get_username());
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let shown = format!("the database {name} at {host}").into();
        let options = options.application_name("pinhole-server");
        Ok(Self {
            options: Arc::new(options.disable_statement_logging()),
            shown,
        })
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Database {
    /// A connection to the primary, with limits of time on PostgreSQL's side.
    pub(crate) async fn connect(&self) -> Result<PgConnection, NamesError> {
        // For `verify-ca`, sqlx takes the provider of the process, and two are built in.
        if CryptoProvider::get_default().is_none() {
            // Another thread may have been faster, with the same one.
            drop(ring::default_provider().install_default());
        }
        let connect = async {
            let mut connection = PgConnection::connect_with(&self.options).await?;
            sqlx::raw_sql(SESSION).execute(&mut connection).await?;
            let is_standby = sqlx::query_scalar("SELECT pg_is_in_recovery()");
            match is_standby.fetch_one(&mut connection).await? {
                false => Ok(connection),
                // It may have missed the latest names, and takes no new ones.
                true => {
                    let why = "it is a standby, not the primary";
                    Err(io::Error::other(why).into())
                }
            }
        };
        self.bounded(CONNECT_TIMEOUT, connect).await
    }

    /// Waits for an answer of the database for this long.
    pub(crate) async fn bounded<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = sqlx::Result<T>>,
    ) -> Result<T, NamesError> {
        let done = timeout(limit, work).await;
        let too_late = |_| {
            let why = format!("no answer in {} s", limit.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, why).into())
        };
        done.unwrap_or_else(too_late)
            .map_err(|reason| self.failed(reason))
    }

    fn failed(&self, reason: sqlx::Error) -> NamesError {
        let database = self.clone();
        let code = reason
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        let is_outage = match code {
            Some(code) => OUTAGES.iter().any(|outage| code.starts_with(outage)),
            None => matches!(
                reason,
                sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_)
            ),
        };
        match is_outage {
            true => NamesError::Unreachable { database, reason },
            false => NamesError::Refused { database, reason },
        }
    }
}

/// PostgreSQL's word, without the line of its source.
pub(in crate::names) fn what(reason: &sqlx::Error) -> String {
    match reason.as_database_error() {
        Some(error) => error.message().to_owned(),
        None => reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_shown_without_its_password() {
        let url = "postgres://anna:secret@db.example.org:5433/people?sslmode=require";
        let database: Database = url.parse().unwrap();
        let shown = format!("{database} {database:?}");
        assert!(shown.contains("people at db.example.org:5433"), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn what_is_no_url_of_postgresql_is_refused_without_being_repeated() {
        for wrong in [
            "mysql://anna:secret@db/people",
            "anna:secret@db",
            "postgres://anna:secret@db:port/people",
            "postgres://anna:secret@db/people?sslmode=secret",
        ] {
            let error = wrong.parse::<Database>().unwrap_err().to_string();
            assert!(error.contains("--database"), "{error}");
            assert!(!error.contains("anna:secret"), "{error}");
        }
    }
}
