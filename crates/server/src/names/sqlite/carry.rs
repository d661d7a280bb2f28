//! How rows come out of a file of SQLite as JSON, and into it.

use super::SqliteNames;
use crate::names::carry::{Page, Table};
use crate::names::{NamesError, PAGE};

impl SqliteNames {
    /// The rows that come after this primary key, a bounded number of them.
    pub(in crate::names) fn rows_after(
        &self,
        table: &Table,
        last: &str,
    ) -> Result<Page, NamesError> {
        let (name, key) = (table.name, table.key());
        let fields = table.columns.iter().map(|it| format!("'{it}', {it}"));
        let fields = fields.collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT json_group_array(json_object({fields})), max({key})
             FROM (SELECT * FROM {name} WHERE {key} > ?1 ORDER BY {key} LIMIT {PAGE})"
        );
        let page = self
            .connection
            .query_row(&sql, [last], |row| row.try_into());
        page.map_err(|error| self.failed(error))
    }

    /// Adds rows that are not there.
    pub(in crate::names) fn insert_rows(
        &self,
        table: &Table,
        rows: &str,
    ) -> Result<(), NamesError> {
        let fields = table.columns.iter().map(|it| format!("value ->> '{it}'"));
        let fields = fields.collect::<Vec<_>>().join(", ");
        let sql = format!(
            "INSERT INTO {} SELECT {fields} FROM json_each(?1)",
            table.name
        );
        self.change(&sql, [rows]).map(drop)
    }
}
