//! Slots that are limited in number, and given back when dropped.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pinhole_budget::{Bounds, Budget, Full, Owner, Taken, Ticket};
use pinhole_proto::key::PeerKey;
use tokio::sync::Notify;

use crate::caps::{CapOptions, CapWarnings};

/// A [`Budget`] that notifies the holders of evicted slots.
#[derive(Debug)]
pub(crate) struct Slots {
    table: Mutex<SlotTable>,
    warnings: Option<CapWarnings>,
}

#[derive(Debug)]
struct SlotTable {
    budget: Budget<PeerKey>,
    held: HashMap<Ticket, Arc<Notify>>,
}

/// One slot, held until this value is dropped or evicted.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    ticket: Ticket,
    evicted: Arc<Notify>,
}

impl Slots {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self::with(bounds, None))
    }

    /// Slots whose bounds these options raise, which the operator is told when one is met.
    pub(crate) fn raised_by(options: CapOptions, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self::with(bounds, Some(CapWarnings::new(options))))
    }

    fn with(bounds: Bounds, warnings: Option<CapWarnings>) -> Self {
        Self {
            table: Mutex::new(SlotTable {
                budget: Budget::new(bounds),
                held: HashMap::new(),
            }),
            warnings,
        }
    }

    /// Takes a slot for `owner`, which may evict others.
    pub(crate) fn take(self: &Arc<Self>, owner: Owner<PeerKey>) -> Result<Slot, Full> {
        let mut state = self.table.lock();
        let taken = state.budget.take(owner, 1);
        self.warn(&taken);
        Ok(self.hold(&mut state, taken?))
    }

    /// The same, evicting the oldest where there is no room.
    pub(crate) fn take_from_oldest(self: &Arc<Self>, owner: Owner<PeerKey>) -> Result<Slot, Full> {
        let mut state = self.table.lock();
        let taken = state.budget.take_from_oldest(owner, 1);
        self.warn(&taken);
        Ok(self.hold(&mut state, taken?))
    }

    fn warn(&self, taken: &Result<Taken, Full>) {
        let met = match taken {
            Ok(taken) if taken.evicted.is_empty() => None,
            Ok(_) => Some(Full::Total),
            Err(full) => Some(*full),
        };
        if let (Some(warnings), Some(full)) = (&self.warnings, met) {
            warnings.met(full);
        }
    }

    fn hold(self: &Arc<Self>, state: &mut SlotTable, taken: Taken) -> Slot {
        for gone in taken.evicted {
            if let Some(evicted) = state.held.remove(&gone) {
                evicted.notify_one();
            }
        }
        let evicted = Arc::new(Notify::new());
        state.held.insert(taken.ticket, Arc::clone(&evicted));
        Slot {
            slots: Arc::clone(self),
            ticket: taken.ticket,
            evicted,
        }
    }

    /// Changes the bounds for what is taken from now on.
    pub(crate) fn set_bounds(&self, bounds: Bounds) {
        self.table.lock().budget.set_bounds(bounds);
    }

    pub(crate) fn used(&self) -> u64 {
        self.table.lock().budget.used()
    }

    pub(crate) fn used_by(&self, key: PeerKey) -> u64 {
        self.table.lock().budget.used_by_key(key)
    }
}

impl Slot {
    /// Changes the owner of the slot.
    pub(crate) fn reassign(&self, owner: Owner<PeerKey>) -> Result<(), Full> {
        self.slots.table.lock().budget.reassign(self.ticket, owner)
    }

    /// Completes when the slot is evicted. Supports one waiter at a time.
    pub(crate) async fn evicted(&self) {
        if !self.is_evicted() {
            self.evicted.notified().await;
        }
    }

    pub(crate) fn is_evicted(&self) -> bool {
        !self.slots.table.lock().held.contains_key(&self.ticket)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.table.lock();
        state.held.remove(&self.ticket);
        state.budget.give_back(self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use pinhole_budget::SubnetBounds;

    use super::*;

    fn owner(address: &str) -> Owner<PeerKey> {
        Owner {
            key: None,
            address: Some(address.parse().unwrap()),
            is_known: false,
        }
    }

    #[tokio::test]
    async fn an_evicted_holder_is_told_and_a_dropped_slot_is_free() {
        let slots = Slots::new(Bounds {
            total: 2,
            reserved: 0,
            per_key: 2,
            per_subnet: SubnetBounds::UNBOUNDED,
        });
        let crowd = [(); 2].map(|()| slots.take(owner("198.51.100.1")).unwrap());
        let other = slots.take(owner("203.0.113.1")).unwrap();
        crowd[1].evicted().await;
        assert!(crowd[1].is_evicted() && !crowd[0].is_evicted() && !other.is_evicted());
        drop(crowd);
        assert_eq!(slots.used(), 1);
        drop(other);
        assert_eq!((slots.used(), slots.table.lock().held.len()), (0, 0));
    }
}
