//! How transfers end early, and all of them with the exchange.

use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;

use super::{OpenIncoming, OpenTransfers, TransferTable};
use crate::connection::Ended;
use crate::event::{ExchangeError, ExchangeEvent, Party, TransferError};
use crate::protocol::message::{CancelReason, DeclineReason, Message, TransferId};

impl TransferTable {
    /// Ends a transfer of either direction early, or words. An accepted one of the peer
    /// ends when its pipeline has cleaned up behind it; any other at once. Of
    /// one that was only announced nobody has heard. Never waits.
    pub(crate) fn stop(
        self: &Arc<Self>,
        id: TransferId,
        reason: TransferError,
    ) -> Result<(), ExchangeError> {
        self.stop_one(&mut self.open(), id, reason)
    }

    /// As [`TransferTable::stop`], and tells the peer. Under one lock: when it hears of
    /// an offer that this side has made since, it has heard of the end before.
    pub(crate) fn cancel(
        self: &Arc<Self>,
        id: TransferId,
        error: TransferError,
        reason: CancelReason,
    ) -> Result<(), ExchangeError> {
        let mut open = self.open();
        self.stop_one(&mut open, id, error)?;
        self.connection.say(Message::Cancel {
            transfer: id,
            reason,
        });
        Ok(())
    }

    fn stop_one(
        self: &Arc<Self>,
        open: &mut OpenTransfers,
        id: TransferId,
        reason: TransferError,
    ) -> Result<(), ExchangeError> {
        let mut error = reason.clone();
        if let Some(outgoing) = open.outgoing.remove(&id) {
            outgoing.note_sent();
            error = outgoing.broken(error);
            outgoing.transfer.control.stop(reason);
        } else if !open.texts.remove(&id) {
            match open.incoming.get(&id) {
                Some(OpenIncoming::Receiving { inlet, .. }) => {
                    inlet.stop(reason);
                    return Ok(());
                }
                Some(OpenIncoming::Offered { .. }) => open.incoming.remove(&id),
                Some(OpenIncoming::Announced(_)) => {
                    open.incoming.remove(&id);
                    return Ok(());
                }
                None => return Err(ExchangeError::UnknownTransfer),
            };
        }
        let outcome = Err(error);
        self.tell(open, ExchangeEvent::Finished { id, outcome });
        Ok(())
    }

    /// Declines an offer unasked: others need the room. One that is about to be taken
    /// stays.
    pub(crate) fn give_way(self: &Arc<Self>, id: TransferId) {
        let mut open = self.open();
        let is_offered = match open.incoming.get(&id) {
            Some(OpenIncoming::Announced(_)) => false,
            Some(OpenIncoming::Offered {
                is_preparing: false,
                ..
            }) => true,
            _ => return,
        };
        open.incoming.remove(&id);
        let decline = Message::Decline {
            transfer: id,
            reason: DeclineReason::Busy,
        };
        // Where so many answers wait that this finds no room nobody takes them.
        let _ = self.connection.outbox.push_answer(decline);
        if is_offered {
            let outcome = Err(TransferError::GaveWay);
            self.tell(&mut open, ExchangeEvent::Finished { id, outcome });
        }
    }

    /// Tells the application, which may be who ends the transfer: if it had to
    /// wait for room it would wait for itself. What has no room goes behind what
    /// waits for some already.
    fn tell(self: &Arc<Self>, open: &mut OpenTransfers, event: ExchangeEvent) {
        // When the application has dropped its end, nobody wants to know.
        let Err(TrySendError::Full(event)) = self.connection.events.try_send(event) else {
            return;
        };
        open.untold += 1;
        let table = Arc::clone(self);
        tokio::spawn(async move {
            table.connection.emit(event).await;
            table.open().untold -= 1;
            table.landed.notify_one();
        });
    }

    /// Ends everything, and returns when it has ended and the application was
    /// told.
    pub(crate) async fn end_all(self: &Arc<Self>, ended: &Ended) {
        let reason = match ended {
            Ended::Closed(party) => TransferError::Interrupted(*party),
            Ended::Lost(_) => TransferError::ConnectionLost,
            Ended::Violation(_) => TransferError::Violation(Party::Peer),
            Ended::Reported(_) => TransferError::Violation(Party::Us),
        };
        let ids: Vec<_> = {
            let mut open = self.open();
            open.is_over = true;
            open.outgoing
                .keys()
                .chain(open.incoming.keys())
                .chain(&open.texts)
                .copied()
                .collect()
        };
        for id in ids {
            // One that has ended meanwhile is as good.
            let _ = self.stop(id, reason.clone());
        }
        loop {
            let landed = self.landed.notified();
            {
                let open = self.open();
                if open.incoming.is_empty() && open.untold == 0 {
                    return;
                }
            }
            landed.await;
        }
    }
}
