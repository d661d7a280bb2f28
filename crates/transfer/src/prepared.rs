//! An offer about to be taken.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::event::{Party, TransferError};
use crate::protocol::selection::Selection;
use crate::receive::Place;
use crate::transfer::Transfer;
use crate::transfer_table::TransferTable;

/// An offer whose place is ready. What an attempt before has left is
/// kept when this is dropped; that blocks.
pub struct Prepared {
    table: Arc<TransferTable>,
    transfer: Arc<Transfer>,
    /// All of it goes into a pipe; a folder knows what is wanted.
    all: Arc<Selection>,
    place: Place,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("transfer", &self.transfer)
            .finish_non_exhaustive()
    }
}

impl Prepared {
    pub(crate) const fn new(
        table: Arc<TransferTable>,
        transfer: Arc<Transfer>,
        all: Arc<Selection>,
        place: Place,
    ) -> Self {
        Self {
            table,
            transfer,
            all,
            place,
        }
    }

    /// Takes the offer and tells the peer, within a tokio runtime. Never waits;
    /// every event of the transfer comes later.
    ///
    /// # Errors
    /// The offer is over, and this comes back, to be dropped where that may take
    /// its time.
    pub fn begin(self) -> Result<(), Box<Self>> {
        self.table.connection.silence.restart();
        let transfer = Arc::clone(&self.transfer);
        let nothing = BTreeMap::new();
        let (selection, have) = match &self.place {
            Place::Folder(store) => (store.selection(), store.have()),
            Place::Pipe(_) => (&self.all, &nothing),
        };
        match self.table.begin_receiving(transfer, selection, have) {
            Ok((receiving, feeds)) => {
                let Self { table, place, .. } = self;
                tokio::spawn(table.receive(receiving, place, feeds));
                Ok(())
            }
            Err(_) => Err(Box::new(self)),
        }
    }

    /// Removes what attempts have left unfinished. Blocks.
    pub fn discard(self) {
        self.transfer
            .control
            .stop(TransferError::Cancelled(Party::Us));
    }
}
