//! An offer about to be taken.

use std::fmt;
use std::sync::Arc;

use crate::disk::store::Store;
use crate::event::{Party, TransferError};
use crate::transfer::Transfer;
use crate::transfer_table::TransferTable;

/// An offer whose place on the disk is ready. What an attempt before has left is
/// kept when this is dropped; that blocks.
pub struct Prepared {
    table: Arc<TransferTable>,
    transfer: Arc<Transfer>,
    store: Store,
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
        store: Store,
    ) -> Self {
        Self {
            table,
            transfer,
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
        self.table.connection.silence.restart();
        let transfer = Arc::clone(&self.transfer);
        let (selection, have) = (self.store.selection(), self.store.have());
        match self.table.begin_receiving(transfer, selection, have) {
            Ok((receiving, feeds)) => {
                let Self { table, store, .. } = self;
                tokio::spawn(table.receive(receiving, store, feeds));
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
