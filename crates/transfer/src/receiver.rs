//! The receiving side of one transfer as a state machine without I/O. Files
//! come in the order of the manifest, each from its first chunk to its last,
//! so one cursor says of everything that arrives whether it is due. It is
//! asked before a byte of the data is read.

use std::sync::Arc;

use crate::{
    lengths::{CHUNK_BYTES, ChunkPlace},
    manifest::{Entry, Manifest},
    violation::Violation,
};

/// See the module.
#[derive(Debug)]
pub struct Receiver {
    manifest: Arc<Manifest>,
    /// The file that is due; the count of entries when none is.
    entry: u32,
    /// The chunk of it that is due.
    chunk: u32,
}

impl Receiver {
    /// A transfer that was accepted whole.
    #[must_use]
    pub fn new(manifest: Arc<Manifest>) -> Self {
        let entry = manifest.next_file(0);
        Self {
            manifest,
            entry,
            chunk: 0,
        }
    }

    /// Whether every file has come to its end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.entry == self.manifest.count()
    }

    /// A chunk of `data_bytes` is about to come. Returns where it goes.
    ///
    /// # Errors
    /// It is not the one that is due, or not as long as it must be.
    pub fn chunk(
        &mut self,
        entry: u32,
        index: u32,
        data_bytes: usize,
    ) -> Result<ChunkPlace, Violation> {
        self.check_due(entry)?;
        let lengths = self.manifest.lengths(entry);
        let place = lengths.and_then(|lengths| lengths.place(index));
        match place {
            Some(place) if index == self.chunk && place.length_bytes() == data_bytes => {
                self.chunk += 1;
                Ok(place)
            }
            _ => Err(Violation::Chunk { entry, index }),
        }
    }

    /// A whole small file of `data_bytes` has come in a batch.
    ///
    /// # Errors
    /// It is not the one that is due, or not as long as it must be.
    pub fn small_file(&mut self, entry: u32, data_bytes: usize) -> Result<(), Violation> {
        self.check_due(entry)?;
        let declared = self.manifest.entry(entry).and_then(Entry::file_size_bytes);
        let fits = declared == u64::try_from(data_bytes).ok() && data_bytes <= CHUNK_BYTES as usize;
        if self.chunk != 0 || !fits {
            return Err(Violation::Chunk { entry, index: 0 });
        }
        self.advance();
        Ok(())
    }

    /// The sender says that all chunks of a file were sent.
    ///
    /// # Errors
    /// The file is not due or misses chunks.
    pub fn file_end(&mut self, entry: u32) -> Result<(), Violation> {
        self.check_due(entry)?;
        let chunks = self
            .manifest
            .lengths(entry)
            .map(crate::lengths::Lengths::chunks);
        if chunks != Some(self.chunk) {
            return Err(Violation::Chunk {
                entry,
                index: self.chunk,
            });
        }
        self.advance();
        Ok(())
    }

    /// The sender gives up a file, begun or not.
    ///
    /// # Errors
    /// The file is not due.
    pub fn file_failed(&mut self, entry: u32) -> Result<(), Violation> {
        self.check_due(entry)?;
        self.advance();
        Ok(())
    }

    fn check_due(&self, entry: u32) -> Result<(), Violation> {
        if entry != self.entry || self.is_complete() {
            return Err(Violation::Entry(entry));
        }
        Ok(())
    }

    fn advance(&mut self) {
        self.chunk = 0;
        self.entry = self.manifest.next_file(self.entry + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ManifestBuilder;

    const MIB: usize = CHUNK_BYTES as usize;

    /// 0: a folder, 1: a file of 2 MiB + 5, 2: a file of 7 bytes, 3: an empty
    /// file.
    fn receiver() -> Receiver {
        let mut builder = ManifestBuilder::default();
        for entry in [
            r#"{"folder":{"path":"d"}}"#,
            r#"{"file":{"path":"d/1","size_bytes":2097157}}"#,
            r#"{"file":{"path":"d/2","size_bytes":7}}"#,
            r#"{"file":{"path":"d/3","size_bytes":0}}"#,
        ] {
            builder.push(serde_json::from_str(entry).unwrap()).unwrap();
        }
        Receiver::new(Arc::new(builder.build()))
    }

    #[test]
    fn everything_in_order_completes() {
        let mut receiver = receiver();
        for (index, data_bytes) in [(0, MIB), (1, MIB), (2, 5)] {
            let place = receiver.chunk(1, index, data_bytes).unwrap();
            assert_eq!(place.offset_bytes(), u64::from(index) * MIB as u64);
        }
        receiver.file_end(1).unwrap();
        receiver.small_file(2, 7).unwrap();
        assert!(!receiver.is_complete());
        receiver.file_end(3).unwrap();
        assert!(receiver.is_complete());
        assert_eq!(receiver.file_end(4), Err(Violation::Entry(4)));
    }

    #[test]
    fn a_file_may_be_given_up_at_any_point() {
        let mut receiver = receiver();
        receiver.chunk(1, 0, MIB).unwrap();
        receiver.file_failed(1).unwrap();
        receiver.file_failed(2).unwrap();
        receiver.small_file(3, 0).unwrap();
        assert!(receiver.is_complete());
    }

    #[test]
    fn a_lying_sender_is_caught_before_its_data_is_read() {
        fn at<T>(entry: u32, index: u32) -> Result<T, Violation> {
            Err(Violation::Chunk { entry, index })
        }
        // What is sent first, what is sent then, and the answer.
        assert_eq!(receiver().chunk(1, 1, MIB), at(1, 1), "a gap");
        assert_eq!(receiver().chunk(1, 0, 5), at(1, 0), "too short");
        assert_eq!(receiver().chunk(1, 0, MIB + 1), at(1, 0), "too long");
        assert_eq!(receiver().chunk(1, 3, 1), at(1, 3), "beyond the end");
        assert_eq!(
            receiver().chunk(1, u32::MAX, MIB),
            at(1, u32::MAX),
            "far beyond"
        );
        assert_eq!(
            receiver().chunk(2, 0, 7),
            Err(Violation::Entry(2)),
            "not due"
        );
        assert_eq!(
            receiver().chunk(0, 0, 1),
            Err(Violation::Entry(0)),
            "a folder"
        );
        assert_eq!(
            receiver().chunk(99, 0, 1),
            Err(Violation::Entry(99)),
            "unknown"
        );
        assert_eq!(receiver().small_file(1, 7), at(1, 0), "wrong size");
        assert_eq!(receiver().file_end(1), at(1, 0), "no chunks");
        assert_eq!(
            receiver().file_failed(2),
            Err(Violation::Entry(2)),
            "not due"
        );

        let mut receiver = receiver();
        receiver.chunk(1, 0, MIB).unwrap();
        assert_eq!(receiver.chunk(1, 0, MIB), at(1, 0), "twice");
        assert_eq!(
            receiver.small_file(1, 2_097_157),
            at(1, 0),
            "begun as chunks"
        );
    }
}
