//! Whom the user knows.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use pinhole_proto::key::PeerKey;

/// The keys for which something is kept free when strangers take all the rest: the
/// user's contacts. Clones share it; whoever keeps the contacts sets it whenever
/// they change, and it is read at each use.
#[derive(Debug, Clone, Default)]
pub struct KnownKeys(Arc<Mutex<HashSet<PeerKey>>>);

impl KnownKeys {
    /// From now on these, and no others.
    pub fn set(&self, keys: impl IntoIterator<Item = PeerKey>) {
        let keys = keys.into_iter().collect();
        *self.lock() = keys;
    }

    pub(crate) fn contains(&self, key: PeerKey) -> bool {
        self.lock().contains(&key)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<PeerKey>> {
        self.0.lock()
    }
}
