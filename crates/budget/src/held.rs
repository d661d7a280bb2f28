//! Things that are held for others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use crate::subnet::{Subnet, subnets};

/// What may be held at once. The cost of a thing is 1, or its size.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// In all.
    pub total: u64,
    /// The part of the total that only known keys may use.
    pub reserved: u64,
    /// For one key, known or not.
    pub per_key: u64,
    /// For the networks of keys that are not known.
    pub per_subnet: SubnetBounds,
}

/// What one network may hold. The IPv4 /24 has no bound of its own: a provider's
/// customers share it. It is what gives way first when the budget is full.
#[derive(Debug, Clone, Copy)]
pub struct SubnetBounds {
    /// One IPv4 address.
    pub ipv4: u64,
    /// One IPv6 /64.
    pub ipv6_64: u64,
    /// One IPv6 /56.
    pub ipv6_56: u64,
    /// One IPv6 /48.
    pub ipv6_48: u64,
}

impl SubnetBounds {
    /// No bound but the total.
    pub const UNBOUNDED: Self = Self::uniform(u64::MAX);

    /// The same for every network.
    #[must_use]
    pub const fn uniform(most: u64) -> Self {
        Self {
            ipv4: most,
            ipv6_64: most,
            ipv6_56: most,
            ipv6_48: most,
        }
    }

    const fn of(&self, subnet: Subnet) -> u64 {
        match subnet.prefix_bits() {
            32 => self.ipv4,
            64 => self.ipv6_64,
            56 => self.ipv6_56,
            48 => self.ipv6_48,
            _ => u64::MAX,
        }
    }
}

/// The key and network that something counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<K> {
    /// The key, once it is proven.
    pub key: Option<K>,
    /// The address; `None` where it is unknown, as over a relay.
    pub address: Option<IpAddr>,
    /// Whether the key is known (a contact, or a key that is logged in). It may then use
    /// the reserve, does not count against its network, and is never evicted.
    pub is_known: bool,
}

impl<K> Owner<K> {
    /// A key that is not known, at an unknown address.
    #[must_use]
    pub const fn stranger(key: K) -> Self {
        Self {
            key: Some(key),
            address: None,
            is_known: false,
        }
    }
}

/// A handle to one thing that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// A granted request.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what has given way has to be ended"]
pub struct Taken {
    /// To be given back in the end.
    pub ticket: Ticket,
    /// What was evicted for it. These tickets are no longer held.
    pub evicted: Vec<Ticket>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The key holds as much as one may.
    #[error("this key holds as much as one key may")]
    Key,
    /// The network holds as much as one may.
    #[error("{0} holds as much as one network may")]
    Subnet(Subnet),
    /// The budget is full, and nobody holds a larger part than the one who asks.
    #[error("as much is held as may be in all")]
    Total,
}

/// A group of newcomers that are evicted together: those of the widest network, or of one
/// key if its address is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Group<K> {
    Subnet(Subnet),
    Key(K),
    Nobody,
}

/// A group by its weight and its oldest ticket.
type Weighed<K> = (u64, Reverse<Ticket>, Group<K>);

fn weighed<K>(weight: u64, tickets: &BTreeSet<Ticket>, group: Group<K>) -> Option<Weighed<K>> {
    let oldest = tickets.first()?;
    Some((weight, Reverse(*oldest), group))
}

#[derive(Debug)]
struct HeldItem<K> {
    owner: Owner<K>,
    cost: u64,
}

/// Counts what is held, against keys and networks.
///
/// ```
/// use pinhole_budget::{Bounds, Budget, Full, Owner, SubnetBounds};
///
/// let mut sessions = Budget::new(Bounds {
///     total: 256,
///     reserved: 64,
///     per_key: 2,
///     per_subnet: SubnetBounds::UNBOUNDED,
/// });
/// let alice = Owner::stranger("the key of alice");
/// let first = sessions.take(alice, 1)?;
/// let second = sessions.take(alice, 1)?;
/// assert!(first.evicted.is_empty() && second.evicted.is_empty());
/// assert_eq!(sessions.take(alice, 1), Err(Full::Key));
///
/// sessions.give_back(first.ticket);
/// assert_eq!(sessions.used(), 1);
/// # Ok::<(), Full>(())
/// ```
#[derive(Debug)]
pub struct Budget<K> {
    bounds: Bounds,
    next_ticket: u64,
    used: u64,
    held: HashMap<Ticket, HeldItem<K>>,
    by_key: HashMap<K, u64>,
    by_subnet: HashMap<Subnet, u64>,
    groups: BTreeMap<Group<K>, (u64, BTreeSet<Ticket>)>,
    /// The lightest first, and of the same weight those whose oldest is the latest.
    by_weight: BTreeSet<Weighed<K>>,
}

impl<K: Copy + Ord + Hash> Budget<K> {
    /// An empty budget.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            next_ticket: 0,
            used: 0,
            held: HashMap::new(),
            by_key: HashMap::new(),
            by_subnet: HashMap::new(),
            groups: BTreeMap::new(),
            by_weight: BTreeSet::new(),
        }
    }

    /// Changes the bounds. What is held beyond them stays until it is given back.
    pub const fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// How much is held in all.
    #[must_use]
    pub const fn used(&self) -> u64 {
        self.used
    }

    /// How much this key holds.
    #[must_use]
    pub fn used_by_key(&self, key: K) -> u64 {
        self.by_key.get(&key).copied().unwrap_or(0)
    }

    /// Counts something for `owner`. When the budget is full, the heaviest newcomers are
    /// evicted, their latest first, as long as they hold more than `owner` would.
    ///
    /// # Errors
    /// Says which bound was met; then nothing has changed.
    pub fn take(&mut self, owner: Owner<K>, cost: u64) -> Result<Taken, Full> {
        self.check_owner(&owner, cost)?;
        let evicted = self.make_room(&owner, cost)?;
        for ticket in &evicted {
            self.give_back(*ticket);
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.count(ticket, owner, cost);
        Ok(Taken { ticket, evicted })
    }

    /// Like [`take`](Self::take), but where that would refuse for the sake of a network or
    /// of the total, the oldest newcomer of the network, or of those networks that hold
    /// most, is evicted instead. Right for things that honest owners give back soon: what
    /// is old is most likely held for nothing.
    ///
    /// # Errors
    /// Says which bound was met, if nobody can be evicted for it.
    pub fn take_from_oldest(&mut self, owner: Owner<K>, cost: u64) -> Result<Taken, Full> {
        let mut evicted = Vec::new();
        loop {
            let full = match self.take(owner, cost) {
                Ok(taken) => {
                    evicted.extend(taken.evicted);
                    let ticket = taken.ticket;
                    return Ok(Taken { ticket, evicted });
                }
                Err(full) => full,
            };
            let oldest = self.oldest(&owner, full).ok_or(full)?;
            self.give_back(oldest);
            evicted.push(oldest);
        }
    }

    /// The newcomer that is evicted for `owner` where this is full.
    fn oldest(&self, owner: &Owner<K>, full: Full) -> Option<Ticket> {
        match full {
            Full::Key => None,
            Full::Total => {
                let (_, Reverse(oldest), _) = self.by_weight.last()?;
                Some(*oldest)
            }
            Full::Subnet(subnet) => {
                let (_, tickets) = self.groups.get(&group(owner))?;
                let is_inside = |ticket: &&Ticket| {
                    let address = self.held.get(ticket).and_then(|held| held.owner.address);
                    address.is_some_and(|it| subnets(it).contains(&subnet))
                };
                tickets.iter().find(is_inside).copied()
            }
        }
    }

    /// Gives a ticket back. A ticket that was evicted is ignored.
    pub fn give_back(&mut self, ticket: Ticket) {
        let Some(HeldItem { owner, cost }) = self.held.remove(&ticket) else {
            return;
        };
        self.used -= cost;
        if let Some(key) = owner.key {
            subtract(&mut self.by_key, &key, cost);
        }
        if owner.is_known {
            return;
        }
        for subnet in owner.address.into_iter().flat_map(subnets) {
            subtract(&mut self.by_subnet, &subnet, cost);
        }
        let group = group(&owner);
        let (mut weight, mut tickets) = self.groups.remove(&group).unwrap_or_default();
        if let Some(before) = weighed(weight, &tickets, group) {
            self.by_weight.remove(&before);
        }
        weight -= cost;
        tickets.remove(&ticket);
        if let Some(after) = weighed(weight, &tickets, group) {
            self.by_weight.insert(after);
            self.groups.insert(group, (weight, tickets));
        }
    }

    /// Changes the owner of a ticket, after a key was proven or became known.
    ///
    /// # Errors
    /// The new key holds as much as one may; then nothing has changed.
    pub fn reassign(&mut self, ticket: Ticket, owner: Owner<K>) -> Result<(), Full> {
        let Some(held) = self.held.get(&ticket) else {
            return Ok(());
        };
        let cost = held.cost;
        let is_same_key = held.owner.key == owner.key;
        if let Some(key) = owner.key.filter(|_| !is_same_key)
            && self.used_by_key(key).saturating_add(cost) > self.bounds.per_key
        {
            return Err(Full::Key);
        }
        self.give_back(ticket);
        self.count(ticket, owner, cost);
        Ok(())
    }

    /// Whether [`Budget::take`] would count this now.
    ///
    /// # Errors
    /// Says which bound would be met.
    pub fn has_room(&self, owner: &Owner<K>, cost: u64) -> Result<(), Full> {
        self.check_owner(owner, cost)?;
        self.make_room(owner, cost).map(drop)
    }

    fn check_owner(&self, owner: &Owner<K>, cost: u64) -> Result<(), Full> {
        let exceeds = |used: u64, most: u64| used.saturating_add(cost) > most;
        if let Some(key) = owner.key
            && exceeds(self.used_by_key(key), self.bounds.per_key)
        {
            return Err(Full::Key);
        }
        if owner.is_known {
            return Ok(());
        }
        let over = |subnet: &Subnet| {
            let used = self.by_subnet.get(subnet).copied().unwrap_or(0);
            exceeds(used, self.bounds.per_subnet.of(*subnet))
        };
        let mut all = owner.address.into_iter().flat_map(subnets);
        all.find(over).map_or(Ok(()), |it| Err(Full::Subnet(it)))
    }

    /// The tickets to be evicted for `owner`.
    fn make_room(&self, owner: &Owner<K>, cost: u64) -> Result<Vec<Ticket>, Full> {
        let reserved = if owner.is_known {
            0
        } else {
            self.bounds.reserved
        };
        let room = self.bounds.total.saturating_sub(reserved);
        if cost > room {
            return Err(Full::Total);
        }
        let mut excess = (self.used + cost).saturating_sub(room);
        let mut evicted = Vec::new();
        let own_group = (!owner.is_known).then(|| group(owner));
        let own_weight = own_group.and_then(|it| Some(self.groups.get(&it)?.0));
        let own_weight = own_weight.unwrap_or(0).saturating_add(cost);
        for (weight, _, group) in self.by_weight.iter().rev() {
            if excess == 0 {
                break;
            }
            // Newcomers are evicted down to what `owner` would hold; known keys may evict
            // anything outside the reserve. Within the group of `owner` the heavier
            // address is evicted.
            let mut spare = match owner.is_known {
                true => *weight,
                false if Some(*group) == own_group => self.heavier_neighbours(owner, cost),
                false => weight.saturating_sub(own_weight),
            };
            let Some((_, tickets)) = self.groups.get(group).filter(|_| spare > 0) else {
                break;
            };
            for ticket in self.heaviest_first(tickets) {
                let cost = self.held.get(&ticket).map_or(0, |held| held.cost);
                if excess == 0 || spare == 0 {
                    break;
                }
                excess = excess.saturating_sub(cost);
                spare = spare.saturating_sub(cost);
                evicted.push(ticket);
            }
        }
        if excess > 0 {
            return Err(Full::Total);
        }
        Ok(evicted)
    }

    /// How much more the heaviest of the narrowest networks in the owner's group holds
    /// than the owner's network would.
    fn heavier_neighbours(&self, owner: &Owner<K>, cost: u64) -> u64 {
        let narrowest = |address| subnets(address).first().copied();
        let weight = |subnet: Subnet| self.by_subnet.get(&subnet).copied().unwrap_or(0);
        let own = owner.address.and_then(narrowest).map_or(0, weight);
        let tickets = self.groups.get(&group(owner)).map(|(_, tickets)| tickets);
        let owners = tickets
            .into_iter()
            .flatten()
            .filter_map(|it| self.held.get(it));
        let addresses = owners.filter_map(|held| held.owner.address);
        let heaviest = addresses.filter_map(narrowest).map(weight).max();
        heaviest
            .unwrap_or(0)
            .saturating_sub(own.saturating_add(cost))
    }

    /// The tickets of one group in the order of eviction: those of the heaviest narrow
    /// network first, and the latest first.
    fn heaviest_first(&self, tickets: &BTreeSet<Ticket>) -> Vec<Ticket> {
        let weight = |ticket: &Ticket| {
            let owner = self.held.get(ticket).map(|held| held.owner);
            let subnet = owner.and_then(|owner| subnets(owner.address?).first().copied());
            subnet.and_then(|subnet| self.by_subnet.get(&subnet).copied())
        };
        let mut all: Vec<_> = tickets
            .iter()
            .map(|ticket| (weight(ticket), *ticket))
            .collect();
        all.sort_unstable_by(|one, other| other.cmp(one));
        all.into_iter().map(|(_, ticket)| ticket).collect()
    }

    fn count(&mut self, ticket: Ticket, owner: Owner<K>, cost: u64) {
        self.used += cost;
        if let Some(key) = owner.key {
            *self.by_key.entry(key).or_default() += cost;
        }
        self.held.insert(ticket, HeldItem { owner, cost });
        if owner.is_known {
            return;
        }
        for subnet in owner.address.into_iter().flat_map(subnets) {
            *self.by_subnet.entry(subnet).or_default() += cost;
        }
        let group = group(&owner);
        let (weight, tickets) = self.groups.entry(group).or_default();
        if let Some(before) = weighed(*weight, tickets, group) {
            self.by_weight.remove(&before);
        }
        *weight += cost;
        tickets.insert(ticket);
        self.by_weight.extend(weighed(*weight, tickets, group));
    }
}

fn group<K: Copy>(owner: &Owner<K>) -> Group<K> {
    let widest = owner.address.and_then(|it| subnets(it).last().copied());
    match (widest, owner.key) {
        (Some(subnet), _) => Group::Subnet(subnet),
        (None, Some(key)) => Group::Key(key),
        (None, None) => Group::Nobody,
    }
}

fn subtract<K: Eq + Hash>(counts: &mut HashMap<K, u64>, key: &K, cost: u64) {
    if let Some(count) = counts.get_mut(key) {
        *count -= cost;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
