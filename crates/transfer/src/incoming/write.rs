//! The second stage: writes what is verified to temporaries.

use std::{
    io::{self, Write},
    sync::mpsc,
};

use super::{Incoming, Stopped, Verified, Written};
use crate::{
    manifest::Entry,
    store::{Folders, Part, Store},
};

pub(super) struct WriteStage<'a> {
    incoming: &'a Incoming,
    store: &'a Store,
    written: mpsc::SyncSender<Written>,
    folders: Folders,
    /// The file whose chunks are arriving.
    open: Option<Part>,
    /// A file that failed here, while the rest of it still arrives.
    given_up: Option<u32>,
}

impl<'a> WriteStage<'a> {
    pub(super) fn new(
        incoming: &'a Incoming,
        store: &'a Store,
        written: mpsc::SyncSender<Written>,
    ) -> Self {
        Self {
            incoming,
            store,
            written,
            folders: Folders::default(),
            open: None,
            given_up: None,
        }
    }

    pub(super) fn run(mut self, verified: &mpsc::Receiver<Verified>) -> Result<(), Stopped> {
        for piece in verified {
            self.incoming.check_stopped()?;
            match piece {
                Verified::Chunk {
                    entry,
                    buffer,
                    data_bytes,
                } => {
                    let data = buffer.data().get(..data_bytes).unwrap_or_default();
                    self.chunk(entry, data)?;
                }
                Verified::Batch { items, buffer } => {
                    for item in items {
                        let data = buffer.data().get(item.data).unwrap_or_default();
                        self.chunk(item.entry, data)?;
                        self.end(item.entry)?;
                    }
                }
                Verified::End { entry } => self.end(entry)?,
                Verified::Failed { entry, error } => {
                    self.open = None;
                    if self.given_up != Some(entry) {
                        self.incoming.tell_failed(entry, error);
                        self.hand_on(Written::Failed)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn chunk(&mut self, entry: u32, data: &[u8]) -> Result<(), Stopped> {
        if self.given_up == Some(entry) {
            return Ok(());
        }
        match self.append(entry, data) {
            Ok(()) => Ok(()),
            Err(error) => self.give_up(entry, error),
        }
    }

    fn append(&mut self, entry: u32, data: &[u8]) -> io::Result<()> {
        let mut part = self.part(entry)?;
        part.file.write_all(data)?;
        self.open = Some(part);
        self.incoming.flight.add_bytes(data.len() as u64);
        Ok(())
    }

    fn end(&mut self, entry: u32) -> Result<(), Stopped> {
        if self.given_up == Some(entry) {
            return Ok(());
        }
        match self.complete(entry) {
            Ok(part) => self.hand_on(Written::Part { entry, part }),
            Err(error) => self.give_up(entry, error),
        }
    }

    fn complete(&mut self, entry: u32) -> io::Result<Part> {
        let part = self.part(entry)?;
        let offered = self.incoming.manifest.entry(entry);
        part.set_time(offered.and_then(Entry::modified_ns))?;
        Ok(part)
    }

    /// The file that is open; a new one where nothing of it has come.
    fn part(&mut self, entry: u32) -> io::Result<Part> {
        match self.open.take() {
            Some(part) => Ok(part),
            None => self
                .store
                .create(&mut self.folders, self.incoming.path(entry)?),
        }
    }

    fn give_up(&mut self, entry: u32, error: io::Error) -> Result<(), Stopped> {
        self.given_up = Some(entry);
        self.incoming.file_failed(entry, error)?;
        self.hand_on(Written::Failed)
    }

    fn hand_on(&self, written: Written) -> Result<(), Stopped> {
        self.written.send(written).map_err(|_| Stopped)
    }
}
