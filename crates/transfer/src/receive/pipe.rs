//! A single file into a pipe: each chunk is written once it is verified, in order, and
//! nothing is kept.

use std::io::{self, Write};
use std::sync::mpsc as std_mpsc;
use std::thread::Builder;

use super::arrival::Arrival;
use super::compare::Comparisons;
use super::{Batch, Chunk, Feeds, HASHED, Receiving, Stopped, Verified};
use crate::event::{Summary, TransferError};
use crate::protocol::file_error::FileErrorKind;

/// Where the bytes go, and what that is called.
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) end: Box<dyn Write + Send>,
}

impl Receiving {
    /// Receives everything into `output` and returns when all is written, or when the
    /// transfer was stopped. Blocks.
    pub(super) fn run_into(&self, output: Output, feeds: Feeds) -> Result<Summary, TransferError> {
        let received = self.receive_into(output, feeds);
        match (self.transfer.control.stopped(), received) {
            (None, Ok(summary)) => {
                self.transfer.settle(self.manifest().end());
                self.acknowledge(self.manifest().count());
                Ok(Summary {
                    digest: self.transfer.digests.digest(),
                    ..summary
                })
            }
            (Some(reason), _) => Err(reason.clone()),
            (None, Err(Stopped)) => Err(TransferError::ConnectionLost),
        }
    }

    fn receive_into(&self, output: Output, feeds: Feeds) -> Result<Summary, Stopped> {
        // Nothing is compared, because nothing was here before.
        let comparisons = &Comparisons::default();
        let (to_verify, hashed) = std_mpsc::sync_channel(HASHED);
        std::thread::scope(|scope| {
            let hashing = Builder::new().name("pinhole-hash".to_owned());
            let hashing = hashing.spawn_scoped(scope, move || {
                self.hash(feeds.held, feeds.work, &to_verify);
            });
            if let Err(error) = hashing {
                self.pipe_failed(&output.name, &error);
                return Err(Stopped);
            }
            // Moved in here, so that the hashing stage ends with it.
            self.write_into(output, self.verify(hashed.into_iter(), comparisons))
        })
    }

    fn write_into(
        &self,
        mut output: Output,
        verified: impl Iterator<Item = Verified>,
    ) -> Result<Summary, Stopped> {
        let mut arrival = Arrival::new(self);
        for piece in verified {
            self.check_stopped()?;
            match piece {
                Verified::Chunk(Chunk { place, buffer, .. }) => {
                    let data = buffer.data().get(..place.length_bytes());
                    self.write(&mut output, &mut arrival, data.unwrap_or_default())?;
                }
                Verified::Batch(Batch { items, buffer }) => {
                    // There is one file.
                    let item = items.into_iter().next().ok_or(Stopped)?;
                    let data = buffer.data().get(item.data).unwrap_or_default();
                    self.write(&mut output, &mut arrival, data)?;
                    self.transfer.progress.add_bytes(data.len() as u64);
                    return self.written(output, Summary::default());
                }
                Verified::End { .. } | Verified::Changed { .. } => {
                    arrival.say();
                    return self.written(output, Summary::default());
                }
                Verified::Failed { entry, error } => {
                    self.tell_failed(entry, error);
                    let summary = Summary {
                        failed_files: 1,
                        ..Summary::default()
                    };
                    return self.written(output, summary);
                }
            }
        }
        Err(Stopped)
    }

    fn write(
        &self,
        output: &mut Output,
        arrival: &mut Arrival<'_>,
        data: &[u8],
    ) -> Result<(), Stopped> {
        let mut rest = data;
        while !rest.is_empty() {
            // Piece by piece, so that what is counted was taken.
            let taken = match output.end.write(rest) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other,
            };
            match taken {
                Ok(bytes) => {
                    arrival.add(bytes);
                    rest = rest.get(bytes..).unwrap_or_default();
                }
                Err(error) => {
                    self.pipe_failed(&output.name, &error);
                    return Err(Stopped);
                }
            }
        }
        Ok(())
    }

    /// The file has come to its end.
    fn written(&self, mut output: Output, summary: Summary) -> Result<Summary, Stopped> {
        if let Err(error) = output.end.flush() {
            self.pipe_failed(&output.name, &error);
            return Err(Stopped);
        }
        let is_whole = summary.failed_files == 0;
        self.transfer.progress.set_files(1);
        Ok(Summary {
            files: u32::from(is_whole),
            bytes: match is_whole {
                true => self.transfer.arrived_bytes(),
                false => 0,
            },
            ..summary
        })
    }

    fn pipe_failed(&self, name: &str, error: &io::Error) {
        self.place_failed(TransferError::LocalFile {
            path: name.to_owned(),
            trouble: FileErrorKind::of(error),
            detail: FileErrorKind::detail_of(error),
        });
    }
}
