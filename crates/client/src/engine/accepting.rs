//! Taking an offer. What the disk has to do with it runs beside the engine, for a
//! disk may hang; [`Taken`](super::transfers::TransferInput::Taken) tells of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pinhole_transfer::{
    AcceptError, AcceptOptions, DeclineReason, Destination, DestinationError, Existing,
    FileErrorKind, Prepared, ResumeState,
};
use tokio::task::spawn_blocking;

use super::cleanup::Holder;
use super::transfers::{Carrier, TransferInput};
use super::{Engine, Input};
use crate::consent::Yes;
use crate::event::Event;
use crate::failure::Failure;
use crate::snapshot::{Stage, TransferId};

/// What the user wants with an offer: where to, what not, and what to do with what
/// is there.
pub(super) type Chosen = (Option<PathBuf>, BTreeSet<u32>, Option<Existing>);

impl Engine {
    /// There is a yes to an offer, or to words.
    pub(super) async fn accept(&mut self, id: TransferId, chosen: Chosen, yes: Yes) {
        if self.awaiting_decision(id).is_none() {
            return;
        }
        let is_text = self.transfers.get(&id).is_some_and(|t| t.is_text);
        if is_text {
            return self.show_text(id, yes).await;
        }
        let (into, unwanted, existing) = chosen;
        let settings = self.in_force();
        let folder = into.unwrap_or_else(|| super::download_folder(&self.profile, &settings));
        let choices = AcceptOptions {
            unwanted,
            existing: existing.unwrap_or(settings.existing),
            keeps_executable: settings.keeps_executable,
        };
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.yes = Some(yes);
            transfer.folder = Some(folder);
            transfer.choices = choices;
            transfer.stage = Stage::Preparing;
        }
        // Before the peer can hear of it, and look for a direct path.
        self.note_yes(id, yes).await;
        self.take(id);
    }

    /// Takes the offer that carries a transfer, into its folder.
    pub(super) fn take(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return;
        };
        let (Some(carried), Some(folder)) = (transfer.carried.clone(), transfer.folder.clone())
        else {
            return;
        };
        transfer.is_taking = true;
        let (inputs, choices) = (self.inputs.clone(), transfer.choices.clone());
        let resume = transfer.resume.clone();
        tokio::spawn(async move {
            let outcome = prepare(&carried, folder, choices, &resume).await;
            let taken = TransferInput::Taken {
                transfer: id,
                carried,
                outcome,
            };
            // The queue closes when the engine ends; then nobody needs this.
            let _ = inputs.send(Input::Transfer(taken)).await;
        });
    }

    /// The place on the disk is ready, or cannot be. Meanwhile the offer may have
    /// ended, or another may continue the transfer.
    pub(super) async fn taken(
        &mut self,
        id: TransferId,
        carried: Carrier,
        outcome: Result<Box<Prepared>, AcceptError>,
    ) {
        let transfer = self.transfers.get(&id);
        let is_wanted = transfer.is_some_and(|t| {
            let current = t.carried.as_ref();
            !t.stage.is_final() && current.is_some_and(|c| c.is(carried.session, carried.id))
        });
        let outcome = match outcome {
            Ok(prepared) if is_wanted => match prepared.begin() {
                Ok(()) => return self.begin_receiving(id).await,
                Err(over) => return self.let_go(id, carried, over),
            },
            Ok(prepared) => return self.let_go(id, carried, prepared),
            Err(error) => error,
        };
        if let Some(left) = self.leftovers.remove(&Holder::Taking(id)) {
            self.discard(left);
        }
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return;
        };
        transfer.is_taking = false;
        if !is_wanted {
            if transfer.reoffered.is_some() {
                self.take_again(id);
            }
            return;
        }
        match outcome {
            AcceptError::Destination(error) => self.refuse(id, &carried, &error).await,
            AcceptError::Exchange(error) => self.lose(id, &error.to_string()).await,
        }
    }

    async fn begin_receiving(&mut self, id: TransferId) {
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.is_taking = false;
        }
        self.begin(id);
        if let Some(yes) = self.transfers.get(&id).and_then(|t| t.yes) {
            self.note_yes(id, yes).await;
        }
        let carried = self.transfers.get(&id).and_then(|t| t.carried.as_ref());
        if let Some(session) = carried.map(|carried| carried.session) {
            self.improve_at_once(session);
        }
        self.publish();
        self.emit(Event::Started { transfer: id }).await;
    }

    /// Puts away what was prepared in vain, and says so when it is done: until then
    /// another attempt would find everything in use.
    fn let_go(&mut self, id: TransferId, carried: Carrier, prepared: Box<Prepared>) {
        let left = self.leftovers.remove(&Holder::Taking(id));
        self.on_disk(move || {
            match left {
                Some(_) => prepared.discard(),
                None => drop(prepared),
            }
            TransferInput::Taken {
                transfer: id,
                carried,
                outcome: Err(pinhole_transfer::ExchangeError::UnknownTransfer.into()),
            }
        });
    }

    /// The folder does not serve.
    async fn refuse(&mut self, id: TransferId, carried: &Carrier, error: &DestinationError) {
        let reason = match error.trouble() {
            FileErrorKind::DiskFull | FileErrorKind::Quota | FileErrorKind::TooManyFiles => {
                DeclineReason::NoSpace
            }
            _ => DeclineReason::NotWritable,
        };
        let _ = carried.exchange.decline(carried.id, reason);
        let folder = self.transfers.get(&id).and_then(|t| t.folder.clone());
        let folder = folder.unwrap_or_default();
        let failure = not_opened(&folder, error);
        self.finish(id, Err(failure)).await;
    }

    pub(super) async fn decline(&mut self, id: TransferId) {
        self.turn_down(id, DeclineReason::Declined).await;
    }

    /// Turns down what waits for the user. What the user has not turned down stays on
    /// the list.
    pub(super) async fn turn_down(&mut self, id: TransferId, reason: DeclineReason) {
        let Some(carried) = self.awaiting_decision(id) else {
            return;
        };
        let _ = carried.exchange.decline(carried.id, reason);
        if reason == DeclineReason::Declined {
            self.transfers.remove(&id);
            return self.note_idleness(carried.session);
        }
        let detail = "Too much waits for an answer, so this was turned down.";
        let failure = Failure::NotPossible {
            detail: detail.to_owned(),
        };
        self.finish(id, Err(failure)).await;
    }

    /// The offer behind `id`, if it still waits for the user.
    fn awaiting_decision(&self, id: TransferId) -> Option<Carrier> {
        let transfer = self.transfers.get(&id)?;
        matches!(transfer.stage, Stage::AwaitingDecision).then(|| transfer.carried.clone())?
    }

    /// Runs what the disk has to do where it may take its time.
    pub(super) fn on_disk(&self, work: impl FnOnce() -> TransferInput + Send + 'static) {
        let inputs = self.inputs.clone();
        spawn_blocking(move || {
            // The queue closes when the engine ends; then nobody needs this.
            let _ = inputs.blocking_send(Input::Transfer(work()));
        });
    }
}

async fn prepare(
    carried: &Carrier,
    folder: PathBuf,
    choices: AcceptOptions,
    resume: &ResumeState,
) -> Result<Box<Prepared>, AcceptError> {
    let destination = open(folder).await?;
    let exchange = &carried.exchange;
    let prepared = exchange.prepare(carried.id, destination, choices, resume);
    prepared.await.map(Box::new)
}

/// The folder at this path, made if there is none.
pub(super) async fn open(folder: PathBuf) -> Result<Destination, AcceptError> {
    let opened = spawn_blocking(move || make_and_open(&folder)).await;
    Ok(opened.map_err(|_| pinhole_transfer::ExchangeError::Closed)??)
}

/// The folder to receive into, made if need be. Blocks.
pub(crate) fn make_and_open(folder: &Path) -> Result<Destination, DestinationError> {
    // A folder that cannot be made cannot be opened either, which says why.
    let _ = std::fs::create_dir_all(folder);
    Destination::open(folder)
}

/// Why a folder cannot be received into.
pub(crate) fn not_opened(folder: &Path, error: &DestinationError) -> Failure {
    let detail = match error {
        DestinationError::Folder { .. } => format!("Cannot receive into {error}."),
        DestinationError::NoSpace { .. } => {
            format!("Cannot receive into {}: {error}.", folder.display())
        }
    };
    Failure::LocalFiles { detail }
}
