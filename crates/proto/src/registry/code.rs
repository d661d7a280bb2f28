//! Codes: the numbers under which people can be found who do not say a name.
//!
//! A session has at most one, for [`CODE_LIFETIME`]. Whoever finds it learns the name and the
//! key of its owner, and can ask to be introduced. Everything else is between the two.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pinhole_budget::{
    Bounds, Budget, Owner, Rate, RateLimiter, SubnetBounds, SubnetRateLimiter, Ticket,
};

use crate::credential::CodeNumber;
use crate::key::PeerKey;
use crate::rendezvous::{PeerIdentity, RelayToken, ServerMessage};

use super::{RATED, Registry, SessionId, Timer};

/// How long a code can be found.
pub const CODE_LIFETIME: Duration = Duration::from_secs(600);
/// How often one key may open codes and look for them.
pub const CODES_OF_KEY: Rate = Rate {
    burst: 10,
    interval: Duration::from_secs(6),
};
/// How often all newcomers of one network may.
pub const CODES_OF_NETWORK: Rate = Rate {
    burst: 40,
    interval: Duration::from_millis(1_500),
};
/// Codes that are open at one node.
pub const OPEN_CODES: Bounds = Bounds {
    total: CodeNumber::MAX as u64,
    reserved: 249,
    per_key: 4,
    per_subnet: SubnetBounds::uniform(64),
};
/// How often a question that was over the rate is tried again. More often would use up what
/// the key may ask where only its network has asked too much.
const FIND_INTERVAL: Duration = CODES_OF_KEY.interval;

/// The codes that are open at this node.
#[derive(Debug)]
pub(super) struct Codes {
    open: BTreeMap<CodeNumber, OpenCode>,
    held: Budget<PeerKey>,
    uses_of_keys: RateLimiter<PeerKey>,
    uses_of_networks: SubnetRateLimiter,
}

#[derive(Debug)]
struct OpenCode {
    session: SessionId,
    ticket: Ticket,
    ends_at: Instant,
}

/// What one session does with codes.
#[derive(Debug, Default)]
pub(super) struct CodeUse {
    /// The code that it has opened.
    pub(super) open: Option<CodeNumber>,
    /// The code that it looks for.
    sought: Option<CodeNumber>,
}

impl Codes {
    pub(super) fn new() -> Self {
        Self {
            open: BTreeMap::new(),
            held: Budget::new(OPEN_CODES),
            uses_of_keys: RateLimiter::new(CODES_OF_KEY, RATED),
            uses_of_networks: SubnetRateLimiter::new(CODES_OF_NETWORK, RATED),
        }
    }

    fn may_use(&mut self, now: Instant, owner: &Owner<PeerKey>) -> bool {
        let (Some(key), Some(address)) = (owner.key, owner.address) else {
            return false;
        };
        self.uses_of_keys.take(now, key)
            && (owner.is_known || self.uses_of_networks.take(now, address))
    }

    fn session_with(&self, ticket: Ticket) -> Option<SessionId> {
        let open = self.open.values().find(|it| it.ticket == ticket);
        open.map(|it| it.session)
    }

    /// The code is over. Returns when it would have been.
    fn end(&mut self, number: CodeNumber) -> Option<Instant> {
        let ended = self.open.remove(&number)?;
        self.held.give_back(ended.ticket);
        Some(ended.ends_at)
    }

    #[cfg(test)]
    pub(super) fn owners(&self) -> Vec<(CodeNumber, SessionId)> {
        let open = self.open.iter();
        open.map(|(&number, it)| (number, it.session)).collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.held.used() == 0
    }
}

impl Registry {
    /// A session wants to be found under a number.
    pub(super) fn open_code(&mut self, now: Instant, id: SessionId, random: RelayToken) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        if session.code.open.is_some() {
            return self.close(id, None);
        }
        let owner = session.owner();
        let number = self.give_out_number(now, id, owner, random);
        self.send(id, ServerMessage::Code { number });
    }

    fn give_out_number(
        &mut self,
        now: Instant,
        id: SessionId,
        owner: Owner<PeerKey>,
        random: RelayToken,
    ) -> Option<CodeNumber> {
        if !self.codes.may_use(now, &owner) {
            return None;
        }
        let taken = self.codes.held.take(owner, 1).ok()?;
        for ticket in taken.evicted {
            if let Some(evicted) = self.codes.session_with(ticket) {
                self.end_code(evicted);
            }
        }
        let Some(number) = self.free_number(random) else {
            self.codes.held.give_back(taken.ticket);
            return None;
        };
        let session = self.sessions.get_mut(&id)?;
        session.code.open = Some(number);
        let name = session.identity.name.clone();
        let ends_at = now + CODE_LIFETIME;
        let open = OpenCode {
            session: id,
            ticket: taken.ticket,
            ends_at,
        };
        self.codes.open.insert(number, open);
        self.timers.insert((ends_at, Timer::Code(id)));
        self.note_change_for_nodes(name);
        Some(number)
    }

    /// One of the numbers that nobody has, here or as far as is known elsewhere.
    fn free_number(&self, random: RelayToken) -> Option<CodeNumber> {
        let is_free = |number: &CodeNumber| {
            !self.codes.open.contains_key(number) && !self.cluster.has_code(*number)
        };
        let free: Vec<_> = CodeNumber::all().filter(is_free).collect();
        let (first, _) = random.as_bytes().split_first_chunk()?;
        let drawn = u64::from_be_bytes(*first).checked_rem(free.len() as u64)?;
        free.get(usize::try_from(drawn).ok()?).copied()
    }

    /// A session does not want to be found any more. Its code may have ended before.
    pub(super) fn close_code(&mut self, id: SessionId) {
        self.take_code(id);
    }

    /// The time of a session's code may be over.
    pub(super) fn expire_code(&mut self, now: Instant, id: SessionId) {
        let number = self.sessions.get(&id).and_then(|it| it.code.open);
        let open = number.and_then(|it| self.codes.open.get(&it));
        if open.is_some_and(|it| it.ends_at <= now) {
            self.end_code(id);
        }
    }

    fn end_code(&mut self, id: SessionId) {
        if let Some(number) = self.take_code(id) {
            self.send(id, ServerMessage::CodeEnded { number });
        }
    }

    fn take_code(&mut self, id: SessionId) -> Option<CodeNumber> {
        let session = self.sessions.get_mut(&id)?;
        let number = session.code.open.take()?;
        let name = session.identity.name.clone();
        self.forget_code(id, number);
        self.note_change_for_nodes(name);
        Some(number)
    }

    pub(super) fn forget_code(&mut self, id: SessionId, number: CodeNumber) {
        if let Some(ends_at) = self.codes.end(number) {
            self.timers.remove(&(ends_at, Timer::Code(id)));
        }
    }

    /// A session asks whose code this is. It waits for the answer before it asks again.
    pub(super) fn find_code(&mut self, now: Instant, id: SessionId, number: CodeNumber) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if session.code.sought.replace(number).is_some() {
            return self.close(id, None);
        }
        self.find_sought(now, id);
    }

    /// Answers a session that looks for a code, or later if the rate does not allow it yet.
    pub(super) fn find_sought(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(number) = session.code.sought else {
            return;
        };
        if !self.codes.may_use(now, &session.owner()) {
            self.timers
                .insert((now + FIND_INTERVAL, Timer::FindCode(id)));
            return;
        }
        session.code.sought = None;
        let own = session.identity.clone();
        let peer = self.owner_of_code(number).filter(|peer| *peer != own);
        self.send(id, ServerMessage::CodeFound { number, peer });
    }

    /// Whose code this is. Nodes that have not heard of each other may give out one number
    /// twice: then it leads to nobody, rather than to somebody else.
    fn owner_of_code(&self, number: CodeNumber) -> Option<PeerIdentity> {
        let here = self.codes.open.get(&number);
        let here = here.and_then(|it| self.sessions.get(&it.session));
        let here = here.map(|session| session.identity.clone());
        let elsewhere = self.cluster.owners_of_code(number);
        // An introduction would not lead to a login that is older than one here.
        let elsewhere = elsewhere.filter(|it| !self.online.contains_key(&it.name));
        let mut owners = here.into_iter().chain(elsewhere);
        let owner = owners.next()?;
        owners.next().is_none().then_some(owner)
    }
}
