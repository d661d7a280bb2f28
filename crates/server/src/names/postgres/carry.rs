//! How rows come out of PostgreSQL as JSON, and into it.

use sqlx::{AssertSqlSafe, PgConnection};

use super::{BULK_TIMEOUT, PostgresNames};
use crate::names::carry::{Page, TABLES, Table};
use crate::names::sqlite::SqliteNames;
use crate::names::{NamesError, PAGE};

impl PostgresNames {
    /// Writes all rows beside names and bans to a new file of SQLite.
    pub(super) async fn copy_rows(
        &self,
        transaction: &mut PgConnection,
        copy: &SqliteNames,
    ) -> Result<(), NamesError> {
        for table in TABLES {
            let mut last = String::new();
            loop {
                let page = rows_after(transaction, table, &last);
                let (rows, end) = self.bounded(BULK_TIMEOUT, page).await?;
                copy.insert_rows(table, &rows)?;
                match end {
                    Some(end) => last = end,
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// Takes all rows beside names and bans from a file of SQLite.
    pub(super) async fn take_rows(
        &self,
        transaction: &mut PgConnection,
        source: &SqliteNames,
    ) -> Result<(), NamesError> {
        for table in TABLES {
            let mut last = String::new();
            loop {
                let (rows, end) = source.rows_after(table, &last)?;
                let inserted = insert_rows(transaction, table, &rows);
                self.bounded(BULK_TIMEOUT, inserted).await?;
                match end {
                    Some(end) => last = end,
                    None => break,
                }
            }
        }
        Ok(())
    }
}

async fn rows_after(
    connection: &mut PgConnection,
    table: &Table,
    last: &str,
) -> sqlx::Result<Page> {
    let (name, key) = (table.name, table.key());
    let sql = format!(
        "SELECT coalesce(json_agg(page), '[]')::text, max({key})
         FROM (SELECT * FROM pinhole.{name} WHERE {key} > $1 ORDER BY {key} LIMIT {PAGE}) AS page"
    );
    let page = sqlx::query_as(AssertSqlSafe(sql)).bind(last);
    page.fetch_one(connection).await
}

async fn insert_rows(connection: &mut PgConnection, table: &Table, rows: &str) -> sqlx::Result<()> {
    let name = table.name;
    let sql = format!(
        "INSERT INTO pinhole.{name}
         SELECT * FROM json_populate_recordset(NULL::pinhole.{name}, $1::json)"
    );
    let inserted = sqlx::query(AssertSqlSafe(sql)).bind(rows);
    inserted.execute(connection).await.map(drop)
}
