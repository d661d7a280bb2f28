//! What all offers that wait for an answer may take together, on whatever
//! connections. When it is full, the newcomer whose offers take most gives way.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use pinhole_budget::{Bounds, Budget, Full, Owner, SubnetBounds, Taken, Ticket};

use crate::protocol::manifest::Entry;

const MIB: u64 = 1024 * 1024;
/// What an entry takes beside its path, in the list of the offer and in that of the
/// paths that were named.
const ENTRY_BYTES: u64 = 128;
/// And its path, as far as it is counted before it has come.
const PATH_BYTES: u64 = 64;
/// What an offer takes beside its entries.
const OFFER_BYTES: u64 = 1024;
/// Of longer paths so much is counted ahead of what has come: each step is a ticket.
const STEP_BYTES: u64 = 256 * 1024;

/// The bounds of what unanswered offers take in memory. The largest offer that there
/// may be takes less than 48 MiB, which one newcomer can have as long as no other
/// wants room.
const BOUNDS: Bounds = Bounds {
    total: 80 * MIB,
    reserved: 32 * MIB,
    per_key: 48 * MIB,
    per_subnet: SubnetBounds::UNBOUNDED,
};

/// Whose exchange it is: what the peer is counted by, and after whom what it leaves
/// unfinished is named. Nothing here looks into it.
pub type PeerOwner = Owner<[u8; 32]>;

/// Counts what the unanswered offers of all peers take. Clones are the same.
#[derive(Clone)]
pub struct OfferBudget(Arc<Mutex<State>>);

struct State {
    budget: Budget<[u8; 32]>,
    holders: HashMap<Ticket, GiveWay>,
}

/// Declines an offer unasked. Nothing may be locked.
pub(crate) type GiveWay = Arc<dyn Fn() + Send + Sync>;

impl Default for OfferBudget {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            budget: Budget::new(BOUNDS),
            holders: HashMap::new(),
        })))
    }
}

impl fmt::Debug for OfferBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used_bytes = self.used_bytes();
        f.debug_struct("OfferBudget")
            .field("used_bytes", &used_bytes)
            .finish_non_exhaustive()
    }
}

impl OfferBudget {
    /// How many bytes of memory all unanswered offers take.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().budget.used()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

/// What one offer takes. Given back when it is dropped.
pub(crate) struct OfferRoom {
    offers: OfferBudget,
    give_way: GiveWay,
    tickets: Vec<Ticket>,
    used_bytes: u64,
    counted_bytes: u64,
}

impl OfferRoom {
    /// The memory of an offer of which nothing has come yet.
    pub(crate) const fn new(offers: OfferBudget, give_way: GiveWay) -> Self {
        Self {
            offers,
            give_way,
            tickets: Vec::new(),
            used_bytes: 0,
            counted_bytes: 0,
        }
    }

    /// The offer is announced. Returns which others have to give way, once nothing
    /// is locked.
    pub(crate) fn announce(
        &mut self,
        owner: PeerOwner,
        early_bytes: u32,
        entries: u32,
    ) -> Result<Vec<GiveWay>, Full> {
        // Counted at once, so that a larger offer is not taken for a smaller one
        // while its entries are still coming.
        let ahead_bytes = (ENTRY_BYTES + PATH_BYTES) * u64::from(entries);
        self.grow(owner, OFFER_BYTES + u64::from(early_bytes), ahead_bytes)
    }

    /// More entries have come. Returns as [`OfferRoom::announce`].
    pub(crate) fn add(&mut self, owner: PeerOwner, page: &[Entry]) -> Result<Vec<GiveWay>, Full> {
        let paths = page.iter().map(|entry| entry.path().as_str().len() as u64);
        let bytes = paths.map(|bytes| ENTRY_BYTES + bytes).sum();
        self.grow(owner, bytes, STEP_BYTES)
    }

    /// Counts `bytes` more, and so many ahead if it has to count at all.
    fn grow(
        &mut self,
        owner: PeerOwner,
        bytes: u64,
        ahead_bytes: u64,
    ) -> Result<Vec<GiveWay>, Full> {
        self.used_bytes += bytes;
        if self.used_bytes <= self.counted_bytes {
            return Ok(Vec::new());
        }
        let step_bytes = self.used_bytes - self.counted_bytes + ahead_bytes;
        let mut state = self.offers.state();
        let Taken { ticket, evicted } = state.budget.take(owner, step_bytes)?;
        let evicted = evicted.iter().filter_map(|it| state.holders.remove(it));
        let evicted = evicted.collect();
        state.holders.insert(ticket, Arc::clone(&self.give_way));
        drop(state);
        self.tickets.push(ticket);
        self.counted_bytes += step_bytes;
        Ok(evicted)
    }
}

impl Drop for OfferRoom {
    fn drop(&mut self) {
        let mut state = self.offers.state();
        for ticket in self.tickets.drain(..) {
            state.budget.give_back(ticket);
            state.holders.remove(&ticket);
        }
    }
}
