//! Slots that are limited in number, and given back when dropped.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pinhole_budget::{Bounds, Budget, Full, Owner, Taken, Ticket};
use pinhole_proto::key::PeerKey;
use tokio::sync::Notify;

/// A [`Budget`] that notifies the holders of evicted slots.
#[derive(Debug)]
pub(crate) struct Slots(Mutex<SlotTable>);

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
        Arc::new(Self(Mutex::new(SlotTable {
            budget: Budget::new(bounds),
            held: HashMap::new(),
        })))
    }

    /// Takes a slot for `owner`, which may evict others.
    pub(crate) fn take(self: &Arc<Self>, owner: Owner<PeerKey>) -> Result<Slot, Full> {
        let mut state = self.0.lock();
        let taken = state.budget.take(owner, 1)?;
        Ok(self.hold(&mut state, taken))
    }

    /// The same, evicting the oldest where there is no room.
    pub(crate) fn take_from_oldest(self: &Arc<Self>, owner: Owner<PeerKey>) -> Result<Slot, Full> {
        let mut state = self.0.lock();
        let taken = state.budget.take_from_oldest(owner, 1)?;
        Ok(self.hold(&mut state, taken))
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

    pub(crate) fn used(&self) -> u64 {
        self.0.lock().budget.used()
    }

    pub(crate) fn used_by(&self, key: PeerKey) -> u64 {
        self.0.lock().budget.used_by_key(key)
    }
}

impl Slot {
    /// Changes the owner of the slot.
    pub(crate) fn reassign(&self, owner: Owner<PeerKey>) -> Result<(), Full> {
        self.slots.0.lock().budget.reassign(self.ticket, owner)
    }

    /// Completes when the slot is evicted. Supports one waiter at a time.
    pub(crate) async fn evicted(&self) {
        if !self.is_evicted() {
            self.evicted.notified().await;
        }
    }

    pub(crate) fn is_evicted(&self) -> bool {
        !self.slots.0.lock().held.contains_key(&self.ticket)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.0.lock();
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
        assert_eq!((slots.used(), slots.0.lock().held.len()), (0, 0));
    }
}
