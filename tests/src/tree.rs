//! Folders full of files: made, and compared.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

/// What is at one path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// An empty or full folder.
    Folder,
    /// A file.
    File {
        /// Of its content.
        size_bytes: u64,
        /// Of its content.
        sha256: Vec<u8>,
        /// Whole seconds since 1970: what every file system can keep.
        modified_s: u64,
    },
}

impl Node {
    /// Of a file's content; nothing for a folder.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        match self {
            Self::Folder => 0,
            Self::File { size_bytes, .. } => *size_bytes,
        }
    }
}

/// Everything under a folder, by its path in it.
///
/// # Errors
/// When something cannot be read.
pub fn read(folder: &Path) -> io::Result<BTreeMap<String, Node>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(current) = waiting.pop() {
        for entry in fs::read_dir(current)? {
            let path = entry?.path();
            let inner = path.strip_prefix(folder).map_err(io::Error::other)?;
            let name = inner.to_string_lossy().into_owned();
            if path.is_dir() {
                found.insert(name, Node::Folder);
                waiting.push(path);
            } else {
                found.insert(name, file(&path)?);
            }
        }
    }
    Ok(found)
}

fn file(path: &Path) -> io::Result<Node> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    let since = metadata.modified()?.duration_since(SystemTime::UNIX_EPOCH);
    let modified_s = since.map_err(io::Error::other)?.as_secs();
    Ok(Node::File {
        size_bytes: metadata.len(),
        sha256: digest(&mut file)?,
        modified_s,
    })
}

/// SHA-256 of all that can still be read.
///
/// # Errors
/// When reading fails.
pub fn digest(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hash.finalize().to_vec()),
            len => hash.update(&buffer[..len]),
        }
    }
}

/// Writes a file of that size whose content nobody can compress or guess from
/// another part of it, a year old.
///
/// # Errors
/// When writing fails.
pub fn write_file(path: &Path, size_bytes: u64, seed: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut left = size_bytes;
    // xorshift64; its state must not be zero.
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut block = Vec::with_capacity(1 << 20);
    while left > 0 {
        block.clear();
        let len = left.min(1 << 20);
        while (block.len() as u64) < len {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend_from_slice(&state.to_le_bytes());
        }
        block.truncate(usize::try_from(len).map_err(io::Error::other)?);
        file.write_all(&block)?;
        left -= len;
    }
    file.set_modified(SystemTime::now() - Duration::from_secs(365 * 24 * 3600))
}
