//! What is kept beside names and bans, on its way from one store to the other.

/// A table that both stores have, whose rows travel as JSON.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// The first is the primary key, a text.
    pub(super) columns: &'static [&'static str],
}

pub(super) const TABLES: &[Table] = &[
    Table {
        name: "recovery",
        columns: &[
            "key",
            "recovery_key",
            "signature",
            "next_recovery_key",
            "next_signature",
            "next_since_s",
        ],
    },
    Table {
        name: "successions",
        columns: &[
            "key",
            "recovery_key",
            "certificate",
            "successor",
            "signature",
            "succeeded_at_s",
        ],
    },
    Table {
        name: "revocations",
        columns: &[
            "key",
            "recovery_key",
            "certificate",
            "signature",
            "revoked_at_s",
        ],
    },
    Table {
        name: "name_uses",
        columns: &["name", "used_on"],
    },
    Table {
        name: "tombstones",
        columns: &["name", "key", "used_on", "released_at_s"],
    },
    Table {
        name: "sweeps",
        columns: &["swept", "day"],
    },
];

impl Table {
    /// The name of the primary key.
    pub(super) fn key(&self) -> &'static str {
        self.columns.first().copied().unwrap_or_default()
    }
}

/// Rows of a table as an array of JSON objects, and the last one's primary key.
pub(super) type Page = (String, Option<String>);
