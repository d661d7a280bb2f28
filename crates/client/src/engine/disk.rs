//! What transfers need of the disk. It runs beside the engine, because a disk may hang.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use pinhole_transfer::{
    AcceptError, AcceptOptions, DeclineReason, Destination, DestinationError, Exchange,
    ExchangeError, FileErrorKind, Manifest, PipeOutput, Prepared, ResumeState, Source, SourceError,
};
use tokio::task::spawn_blocking;
use tracing::warn;

use super::{Engine, Input};
use crate::failure::Failure;
use crate::model::TransferId;
use crate::offer;
use crate::state::{Arrived, Carrier, FileEffect, NotPrepared, PartialTransfer};

/// How many of the taken names are listed.
const EXISTING_NAMED: usize = 3;

/// What the tasks around files report.
#[derive(Debug)]
pub(crate) enum DiskInput {
    /// The list of files to be sent has been read.
    Listed {
        transfer: TransferId,
        outcome: Result<Source, SourceError>,
    },
    /// It is known how many names of an offer are taken.
    TakenNames {
        transfer: TransferId,
        existing: u32,
        /// The first of them.
        names: Vec<String>,
    },
    /// The disk is ready for an accepted offer, or is not to be.
    Prepared {
        transfer: TransferId,
        carrier: Carrier,
        folder: PathBuf,
        outcome: Result<Box<Prepared>, AcceptError>,
    },
    /// What was prepared in vain has let go of its files.
    LetGo { transfer: TransferId },
}

/// What is kept of files for transfers.
#[derive(Default)]
pub(super) struct Files {
    /// What was listed and waits for a session.
    sources: HashMap<TransferId, Source>,
    /// What the attempts at one transfer share.
    resumes: HashMap<TransferId, ResumeState>,
    /// What is ready and is to begin, or to be put away.
    prepared: HashMap<TransferId, (Carrier, Box<Prepared>)>,
    /// What is accepted goes here instead of onto the disk.
    output: Option<PipeOutput>,
}

impl Files {
    pub(super) fn new(output: Option<PipeOutput>) -> Self {
        Self {
            output,
            ..Self::default()
        }
    }

    pub(super) fn take_source(&mut self, transfer: TransferId) -> Option<(Source, ResumeState)> {
        let source = self.sources.remove(&transfer)?;
        Some((source, self.resume(transfer)))
    }

    fn resume(&mut self, transfer: TransferId) -> ResumeState {
        self.resumes.entry(transfer).or_default().clone()
    }
}

impl Engine {
    pub(super) fn run_file(&mut self, effect: FileEffect) {
        match effect {
            FileEffect::List { transfer, paths } => self.on_disk(move || DiskInput::Listed {
                transfer,
                outcome: Source::scan(&paths),
            }),
            FileEffect::Stream {
                transfer,
                name,
                input,
            } => self.handle_disk(DiskInput::Listed {
                transfer,
                outcome: Source::stream(name, input).map_err(SourceError::from),
            }),
            FileEffect::FindTakenNames { transfer, offer } => {
                self.find_taken_names(transfer, offer);
            }
            FileEffect::Prepare {
                transfer,
                carrier,
                folder,
                options,
            } => self.prepare(transfer, carrier, folder, options),
            FileEffect::Begin { transfer } => self.begin_receiving(transfer),
            FileEffect::PutAway {
                transfer,
                what_arrived,
            } => {
                if let Some((_, prepared)) = self.files.prepared.remove(&transfer) {
                    self.put_away(transfer, prepared, what_arrived);
                }
            }
            FileEffect::Discard(partial) => discard(partial),
            FileEffect::Release { transfer } => {
                self.files.sources.remove(&transfer);
                self.files.resumes.remove(&transfer);
                self.freed.note();
            }
        }
    }

    pub(super) fn handle_disk(&mut self, input: DiskInput) {
        let now = Instant::now();
        match input {
            DiskInput::Listed { transfer, outcome } => {
                let listed = match &outcome {
                    Ok(source) => Ok(offer::of_source(source)),
                    Err(error) => Err(error.to_string()),
                };
                let is_wanted = self.state.handle_listed(transfer, listed, now);
                if let Ok(source) = outcome
                    && is_wanted
                {
                    self.files.sources.insert(transfer, source);
                }
            }
            DiskInput::TakenNames {
                transfer,
                existing,
                names,
            } => self.state.handle_taken_names(transfer, existing, names),
            DiskInput::Prepared {
                transfer,
                carrier,
                folder,
                outcome,
            } => {
                let prepared = match outcome {
                    Ok(prepared) => {
                        self.files.prepared.insert(transfer, (carrier, prepared));
                        Ok(())
                    }
                    Err(error) => Err(not_prepared(&folder, &error)),
                };
                self.state.handle_prepared(transfer, carrier, prepared, now);
            }
            DiskInput::LetGo { transfer } => self.state.handle_let_go(transfer, now),
        }
    }

    /// Finds out which names are taken in the download folder.
    fn find_taken_names(&self, transfer: TransferId, offer: Arc<Manifest>) {
        let folder = self.state.download_folder();
        self.on_disk(move || {
            let folder = Destination::open(&folder).ok();
            let existing = folder.map_or_else(Vec::new, |it| it.existing(&offer));
            let names = existing.iter().take(EXISTING_NAMED);
            DiskInput::TakenNames {
                transfer,
                existing: u32::try_from(existing.len()).unwrap_or(u32::MAX),
                names: names.map(|path| path.display_text()).collect(),
            }
        });
    }

    fn prepare(
        &mut self,
        transfer: TransferId,
        carrier: Carrier,
        folder: PathBuf,
        options: AcceptOptions,
    ) {
        let live = self.sessions.get(&carrier.session);
        let exchange = live.map(|live| live.exchange.clone());
        let (resume, output) = (self.files.resume(transfer), self.files.output.clone());
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let outcome = match (exchange, output) {
                (Some(exchange), Some(output)) => {
                    exchange.prepare_pipe(carrier.id, &output).map(Box::new)
                }
                (Some(exchange), None) => {
                    let destination = open(folder.clone()).await;
                    prepare(&exchange, carrier, destination, (options, &resume)).await
                }
                (None, _) => Err(ExchangeError::Closed.into()),
            };
            let prepared = DiskInput::Prepared {
                transfer,
                carrier,
                folder,
                outcome,
            };
            // The queue closes when the engine ends; then nobody needs this.
            let _ = inputs.send(Input::Disk(prepared)).await;
        });
    }

    fn begin_receiving(&mut self, transfer: TransferId) {
        let Some((carrier, prepared)) = self.files.prepared.remove(&transfer) else {
            return;
        };
        match prepared.begin() {
            Ok(()) => {
                let title = self.title_of_wanted(carrier);
                self.state.handle_begun(transfer, title, Instant::now());
                self.sample_progress();
            }
            // The offer has ended meanwhile.
            Err(over) => self.put_away(transfer, over, Arrived::Kept),
        }
    }

    /// Puts away what was prepared in vain, and says so when it is done: until then
    /// another attempt would find everything in use.
    fn put_away(&self, transfer: TransferId, prepared: Box<Prepared>, what_arrived: Arrived) {
        self.on_disk(move || {
            match what_arrived {
                Arrived::Removed => prepared.discard(),
                Arrived::Kept => drop(prepared),
            }
            DiskInput::LetGo { transfer }
        });
    }

    /// Runs what the disk has to do where it may take its time.
    fn on_disk(&self, work: impl FnOnce() -> DiskInput + Send + 'static) {
        let inputs = self.inputs.clone();
        spawn_blocking(move || {
            // The queue closes when the engine ends; then nobody needs this.
            let _ = inputs.blocking_send(Input::Disk(work()));
        });
    }
}

async fn prepare(
    exchange: &Exchange,
    carrier: Carrier,
    destination: Result<Destination, AcceptError>,
    (options, resume): (AcceptOptions, &ResumeState),
) -> Result<Box<Prepared>, AcceptError> {
    let prepared = exchange.prepare(carrier.id, destination?, options, resume);
    prepared.await.map(Box::new)
}

/// The folder at this path, made if there is none.
async fn open(folder: PathBuf) -> Result<Destination, AcceptError> {
    let opened = spawn_blocking(move || make_and_open(&folder)).await;
    Ok(opened.map_err(|_| ExchangeError::Closed)??)
}

fn discard(partial: PartialTransfer) {
    spawn_blocking(move || {
        let PartialTransfer {
            offer,
            folder,
            options,
            owner,
        } = partial;
        let folder = Destination::open(&folder);
        let discarded = folder.and_then(|it| it.discard(offer, &options, owner));
        if let Err(error) = discarded {
            warn!(%error, "what was cancelled stays behind");
        }
    });
}

fn not_prepared(folder: &Path, error: &AcceptError) -> NotPrepared {
    let error = match error {
        AcceptError::Destination(error) => error,
        AcceptError::Exchange(error) => return NotPrepared::Over(error.to_string()),
        AcceptError::NotOneFile => return not_passed_on(DeclineReason::OnlyOneFile, error),
        AcceptError::PipeInUse => return not_passed_on(DeclineReason::Busy, error),
    };
    let reason = match error.trouble() {
        FileErrorKind::DiskFull | FileErrorKind::Quota | FileErrorKind::TooManyFiles => {
            DeclineReason::NoSpace
        }
        _ => DeclineReason::NotWritable,
    };
    let failure = not_opened(folder, error);
    NotPrepared::Place { reason, failure }
}

fn not_passed_on(reason: DeclineReason, error: &AcceptError) -> NotPrepared {
    let detail = format!("It was declined: {error}.");
    NotPrepared::Place {
        reason,
        failure: Failure::NotPossible { detail },
    }
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
