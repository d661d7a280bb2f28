//! Claims of names: which may wait for the disk, and which are granted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::registry::SessionId;
use pinhole_proto::rendezvous::Refusal;
use tokio::sync::mpsc;
use tracing::{debug, error};

use crate::admission::{Cap, Network, Permit, network};
use crate::limits::Limits;
use crate::pace::Pace;
use crate::registrar::Input;
use crate::storage::{Names, StorageError};

/// Claims that may wait for the disk; further logins are turned away.
const WAITING: usize = 1024;

/// What a session asks for.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) session: SessionId,
    pub(crate) name: PeerName,
    pub(crate) key: PeerKey,
    /// From where.
    pub(crate) address: IpAddr,
}

/// The way to the thread that owns the names.
pub(crate) struct Claims {
    waiting: mpsc::Sender<(Claim, Permit<Network>)>,
    by_address: Arc<Cap<Network>>,
}

/// Decides on claims, on a thread of its own.
pub(crate) struct Clerk {
    names: Names,
    waiting: mpsc::Receiver<(Claim, Permit<Network>)>,
    names_per_key: u32,
    new_names: Pace<Network>,
}

pub(crate) fn claims(names: Names, limits: &Limits) -> (Claims, Clerk) {
    let (sender, waiting) = mpsc::channel(WAITING);
    let claims = Claims {
        waiting: sender,
        by_address: Cap::new(limits.claims_per_address),
    };
    let clerk = Clerk {
        names,
        waiting,
        names_per_key: limits.names_per_key,
        new_names: Pace::new(limits.new_names_per_address),
    };
    (claims, clerk)
}

impl Claims {
    /// Has the claim wait for its answer, unless too many do already.
    pub(crate) fn ask(&self, claim: Claim) -> Result<(), Refusal> {
        let one_of_address = self.by_address.take(network(claim.address));
        let one_of_address = one_of_address.ok_or(Refusal::Limited)?;
        let sent = self.waiting.try_send((claim, one_of_address));
        sent.map_err(|_| {
            error!("the disk does not keep up with the logins");
            Refusal::Internal
        })
    }
}

impl Clerk {
    /// Answers claims, in the order in which they came, until nobody can make
    /// any more.
    pub(crate) fn run(mut self, answers: &mpsc::Sender<Input>) {
        while let Some((claim, _one_of_address)) = self.waiting.blocking_recv() {
            let session = claim.session;
            let owner = self.decide(Instant::now(), &claim);
            if answers
                .blocking_send(Input::Claimed { session, owner })
                .is_err()
            {
                return;
            }
        }
    }

    /// The key the name is bound to, now if it was not before.
    fn decide(&mut self, now: Instant, claim: &Claim) -> Result<PeerKey, Refusal> {
        let Claim { name, key, .. } = claim;
        let failed = |error: StorageError| {
            error!("claiming {name}: {error}");
            Refusal::Internal
        };
        if let Some(owner) = self.names.owner(name).map_err(failed)? {
            return Ok(owner);
        }
        if self.names.count_of(*key).map_err(failed)? >= self.names_per_key {
            return Err(Refusal::TooManyNames);
        }
        let network = network(claim.address);
        if !self.new_names.take(now, network) {
            debug!(%network, "too many new names");
            return Err(Refusal::Limited);
        }
        self.names.claim(name, *key).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::Rate;

    const HOUR: Duration = Duration::from_secs(3600);

    fn claim(name: &str, key: u8, address: &str) -> Claim {
        Claim {
            session: SessionId(0),
            name: name.parse().unwrap(),
            key: PeerKey::from_bytes([key; 32]),
            address: address.parse().unwrap(),
        }
    }

    fn with(limits: &Limits) -> (Claims, Clerk, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let names = Names::open(&dir.path().join("names.sqlite")).unwrap();
        let (claims, clerk) = claims(names, limits);
        (claims, clerk, dir)
    }

    #[test]
    fn few_of_one_address_wait_and_leave_room_for_others() {
        let (claims, mut clerk, _dir) = with(&Limits {
            claims_per_address: 2,
            ..Limits::default()
        });
        let ask = |address| claims.ask(claim("alice", 1, address));
        assert_eq!(ask("2001:db8::1"), Ok(()));
        assert_eq!(ask("2001:db8::2"), Ok(()));
        assert_eq!(ask("2001:db8::3"), Err(Refusal::Limited));
        assert_eq!(ask("198.51.100.1"), Ok(()));
        drop(clerk.waiting.try_recv().unwrap());
        assert_eq!(ask("2001:db8::3"), Ok(()));
    }

    #[test]
    fn an_address_gets_so_many_new_names_and_keeps_its_old_ones() {
        let (_claims, mut clerk, _dir) = with(&Limits {
            new_names_per_address: Rate {
                at_once: 2,
                interval: HOUR,
            },
            ..Limits::default()
        });
        let now = Instant::now();
        let mut decide = |now, name, key, address| {
            let owner = clerk.decide(now, &claim(name, key, address));
            owner.map(|owner| owner == PeerKey::from_bytes([key; 32]))
        };
        let (home, elsewhere) = ("198.51.100.1", "198.51.100.2");
        assert_eq!(decide(now, "alice", 1, home), Ok(true));
        assert_eq!(decide(now, "bob", 2, home), Ok(true));
        assert_eq!(decide(now, "carol", 3, home), Err(Refusal::Limited));
        assert_eq!(decide(now, "alice", 1, home), Ok(true));
        assert_eq!(decide(now, "bob", 3, home), Ok(false));
        assert_eq!(decide(now, "carol", 3, elsewhere), Ok(true));
        assert_eq!(decide(now + HOUR, "dave", 4, home), Ok(true));
    }

    #[test]
    fn a_key_has_so_many_names_and_no_more() {
        let (_claims, mut clerk, _dir) = with(&Limits {
            names_per_key: 2,
            ..Limits::default()
        });
        let mut decide = |name, key| {
            let claim = claim(name, key, "198.51.100.1");
            clerk.decide(Instant::now(), &claim)
        };
        let own = PeerKey::from_bytes([1; 32]);
        assert_eq!(decide("alice", 1), Ok(own));
        assert_eq!(decide("alice-phone", 1), Ok(own));
        assert_eq!(decide("alice-work", 1), Err(Refusal::TooManyNames));
        assert_eq!(decide("alice", 1), Ok(own));
        assert!(decide("alice-work", 2).is_ok());
    }
}
