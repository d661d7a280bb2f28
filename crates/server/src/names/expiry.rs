//! When names were last used, and what becomes of those that nobody uses.

use std::time::Duration;

use pinhole_proto::name::PeerName;

use super::{Names, NamesError};

const DAY_S: i64 = 24 * 60 * 60;
/// How long is remembered whose a released name was.
pub const TOMBSTONE_LIFETIME: Duration = Duration::from_secs(365 * DAY_S as u64);

/// The number of the day, counted from 1970-01-01.
#[must_use]
pub const fn day_of(at_s: i64) -> i64 {
    at_s.div_euclid(DAY_S)
}

/// The first second of a day.
#[must_use]
pub const fn start_of(day: i64) -> i64 {
    day.saturating_mul(DAY_S)
}

/// The first day that is not too long ago for a name to be kept.
pub(super) fn oldest_use(now_s: i64, expire: Duration) -> i64 {
    let days = i64::try_from(expire.as_secs()).unwrap_or(i64::MAX) / DAY_S;
    day_of(now_s).saturating_sub(days)
}

/// Tombstones from before this time, in seconds since 1970, are forgotten.
pub(super) fn oldest_tombstone_s(now_s: i64) -> i64 {
    let lifetime_s = i64::try_from(TOMBSTONE_LIFETIME.as_secs()).unwrap_or(i64::MAX);
    now_s.saturating_sub(lifetime_s)
}

/// How many days since the last sweep do not count, because nobody could use a name then:
/// no server ran, or a wrong clock has skipped them.
pub(super) fn missed_days(last: Option<i64>, today: i64) -> i64 {
    last.map_or(0, |last| {
        today.saturating_sub(last).saturating_sub(1).max(0)
    })
}

impl Names {
    /// Notes that these names were used on a day, in one write.
    ///
    /// # Errors
    /// See the type.
    pub async fn note_uses(&mut self, names: &[PeerName], day: i64) -> Result<(), NamesError> {
        match self {
            Self::Sqlite(it) => it.note_uses(names, day),
            Self::Postgres(it) => it.note_uses(names, day).await,
        }
    }

    /// Once a day, on whichever server is the first: releases the names that were not used
    /// for longer than `expire`, and forgets what nobody needs any more. Returns how many
    /// names were released. Those who are online have to be noted before.
    ///
    /// # Errors
    /// See the type.
    pub async fn sweep(&mut self, now_s: i64, expire: Option<Duration>) -> Result<u64, NamesError> {
        match self {
            Self::Sqlite(it) => it.sweep(now_s, expire),
            Self::Postgres(it) => it.sweep(now_s, expire).await,
        }
    }
}
