//! An offer about to be taken, and attempts that nobody goes on with.

use std::fmt;
use std::sync::Arc;

use crate::accept_options::AcceptOptions;
use crate::disk::destination::{Destination, DestinationError};
use crate::disk::digest_cache::DigestCache;
use crate::disk::store::Store;
use crate::event::{Party, TransferError};
use crate::exchange::receive;
use crate::flight::Flight;
use crate::protocol::manifest::Manifest;
use crate::protocol::message::{Side, TransferId};
use crate::resume::ResumeState;
use crate::transfer_table::TransferTable;

/// An offer whose place on the disk is ready. What an attempt before has left is
/// kept when this is dropped; that blocks.
pub struct Prepared {
    shared: Arc<TransferTable>,
    flight: Arc<Flight>,
    store: Store,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("flight", &self.flight)
            .finish_non_exhaustive()
    }
}

impl Prepared {
    pub(crate) const fn new(shared: Arc<TransferTable>, flight: Arc<Flight>, store: Store) -> Self {
        Self {
            shared,
            flight,
            store,
        }
    }

    /// Takes the offer and tells the peer, within a tokio runtime. Never waits;
    /// every event of the transfer comes later.
    ///
    /// # Errors
    /// The offer is over, and this comes back, to be dropped where that may take
    /// its time.
    pub fn begin(self) -> Result<(), Box<Self>> {
        self.shared.link.silence.restart();
        let flight = Arc::clone(&self.flight);
        let (selection, have) = (self.store.selection(), self.store.have());
        match self.shared.begin_receiving(flight, selection, have) {
            Ok((incoming, feeds)) => {
                let Self { shared, store, .. } = self;
                tokio::spawn(receive(shared, incoming, store, feeds));
                Ok(())
            }
            Err(_) => Err(Box::new(self)),
        }
    }

    /// Removes what attempts have left unfinished. Blocks.
    pub fn discard(self) {
        self.flight.stop(TransferError::Cancelled(Party::Us));
    }
}

impl Destination {
    /// Removes what attempts at an offer of this owner have left unfinished here, when
    /// none is under way. Blocks.
    ///
    /// # Errors
    /// The folder does not let itself be looked through.
    pub fn discard(
        self,
        offer: Arc<Manifest>,
        choices: &AcceptOptions,
        owner: [u8; 32],
    ) -> Result<(), DestinationError> {
        let nobodys = TransferId::first(Side::Initiator);
        let flight = Arc::new(Flight::new(
            nobodys,
            &offer,
            DigestCache::default(),
            owner,
            ResumeState::default(),
        ));
        flight.stop(TransferError::Cancelled(Party::Us));
        // What it finds goes with it.
        Store::prepare(self, offer, choices, flight).map(drop)
    }
}
