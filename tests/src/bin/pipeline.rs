//! The same work as Pinhole's with nothing around it: the rate that a transfer
//! can at best reach on this machine.
//!
//! ```text
//! pipeline receive ADDRESS:PORT INTO      # one file, then ends
//! pipeline send ADDRESS:PORT FILE         # prints MB/s until all is written
//! ```
//!
//! Blocking threads pass buffers of 1 MiB on: read, BLAKE3,
//! AES-128-GCM by `ring` in records of 16 KiB, TCP, open in place,
//! BLAKE3, write. The key is a constant: this measures, it does not protect.

#![allow(
    clippy::indexing_slicing,
    reason = "what is measured wrongly may as well panic"
)]

use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use pinhole_transfer::digest::Digest;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

const CHUNK_BYTES: usize = 1 << 20;
const RECORD_BYTES: usize = 16 << 10;
/// What a record is longer by: a byte that tells its kind, and the tag.
const OVERHEAD_BYTES: usize = 1 + 16;
const SEALED_BYTES: usize = CHUNK_BYTES / RECORD_BYTES * (RECORD_BYTES + OVERHEAD_BYTES);
const PAGE_BYTES: usize = 4096;
/// Buffers on each side.
const BUFFERS: usize = 6;

/// Room for a sealed chunk that starts on a page.
struct PipelineBuffer {
    bytes: Vec<u8>,
    start: usize,
    /// Plaintext.
    length: usize,
    digest: [u8; 32],
}

impl PipelineBuffer {
    fn new() -> Self {
        let bytes = vec![0; SEALED_BYTES + PAGE_BYTES];
        let start = PAGE_BYTES - bytes.as_ptr().addr() % PAGE_BYTES;
        Self {
            bytes,
            start,
            length: 0,
            digest: [0; 32],
        }
    }

    fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..SEALED_BYTES]
    }

    fn plaintext(&mut self) -> &mut [u8] {
        let length = self.length;
        &mut self.room()[..length]
    }
}

/// The free buffers of one side, and those on their way between two stages.
type Flow = (SyncSender<PipelineBuffer>, Receiver<PipelineBuffer>);

fn flow(filled: usize) -> Flow {
    let (sender, receiver) = mpsc::sync_channel(BUFFERS);
    for _ in 0..filled {
        sender.send(PipelineBuffer::new()).expect("there is room");
    }
    (sender, receiver)
}

struct Cipher {
    key: LessSafeKey,
    sequence: u64,
}

impl Cipher {
    fn new() -> Self {
        let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).expect("16 bytes are a key");
        let key = LessSafeKey::new(key);
        Self { key, sequence: 0 }
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[4..].copy_from_slice(&self.sequence.to_be_bytes());
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&mut self, plaintext: &[u8], sealed: &mut Vec<u8>) -> Result<()> {
        for record in plaintext.chunks(RECORD_BYTES) {
            let start = sealed.len();
            sealed.extend_from_slice(record);
            sealed.push(0);
            let nonce = self.nonce();
            let inner = &mut sealed[start..];
            let tag = self
                .key
                .seal_in_place_separate_tag(nonce, Aad::empty(), inner);
            let tag = tag.map_err(|_| anyhow!("a record is not sealed"))?;
            sealed.extend_from_slice(tag.as_ref());
        }
        Ok(())
    }

    /// Opens the records that fill `room`, and has their plaintext at its start.
    fn open(&mut self, room: &mut [u8]) -> Result<()> {
        let (mut start, mut opened) = (0, 0);
        while start < room.len() {
            let end = room.len().min(start + RECORD_BYTES + OVERHEAD_BYTES);
            let (nonce, record) = (self.nonce(), &mut room[opened..end]);
            let sealed = start - opened..;
            let plaintext = self.key.open_within(nonce, Aad::empty(), record, sealed);
            let plaintext = plaintext.map_err(|_| anyhow!("a record is not opened"))?;
            opened += plaintext.len() - 1;
            start = end;
        }
        Ok(())
    }
}

/// The length on the wire of a sealed chunk.
const fn sealed_bytes(length: usize) -> usize {
    length + length.div_ceil(RECORD_BYTES) * OVERHEAD_BYTES
}

fn send(mut stream: TcpStream, mut file: File) -> Result<()> {
    let size_bytes = file.metadata()?.len();
    let begin = Instant::now();
    let (free, taken) = flow(BUFFERS);
    let ((read, to_hash), (hashed, to_send)) = (flow(0), flow(0));
    stream.write_all(&size_bytes.to_be_bytes())?;
    thread::scope(|scope| -> Result<()> {
        scope.spawn(move || -> Result<()> {
            let mut left = size_bytes;
            while left > 0 {
                let mut buffer = taken.recv()?;
                buffer.length = usize::try_from(left)?.min(CHUNK_BYTES);
                file.read_exact(buffer.plaintext())?;
                left -= buffer.length as u64;
                read.send(buffer)?;
            }
            Ok(())
        });
        scope.spawn(move || -> Result<()> {
            for mut buffer in to_hash {
                buffer.digest = *Digest::of_file(buffer.plaintext()).as_bytes();
                hashed.send(buffer)?;
            }
            Ok(())
        });
        let mut cipher = Cipher::new();
        let mut sealed = Vec::with_capacity(SEALED_BYTES);
        for mut buffer in to_send {
            let length = u32::try_from(buffer.length)?;
            stream.write_all(&length.to_be_bytes())?;
            stream.write_all(&buffer.digest)?;
            sealed.clear();
            cipher.seal(buffer.plaintext(), &mut sealed)?;
            let _ = free.send(buffer);
            stream.write_all(&sealed)?;
        }
        Ok(())
    })?;
    let mut done = [0];
    stream.read_exact(&mut done).context("not received")?;
    let rate = size_bytes as f64 / 1e6 / begin.elapsed().as_secs_f64();
    println!("{rate:.0}");
    Ok(())
}

fn receive(mut stream: TcpStream, mut file: File) -> Result<()> {
    let (free, taken) = flow(BUFFERS);
    let ((received, to_hash), (hashed, to_write)) = (flow(0), flow(0));
    let mut size_bytes = [0; 8];
    stream.read_exact(&mut size_bytes)?;
    let size_bytes = u64::from_be_bytes(size_bytes);
    let mut answering = stream.try_clone()?;
    thread::scope(|scope| -> Result<()> {
        let verifying = scope.spawn(move || -> Result<()> {
            for mut buffer in to_hash {
                let digest: [u8; 32] = *Digest::of_file(buffer.plaintext()).as_bytes();
                ensure!(digest == buffer.digest, "a chunk differs");
                hashed.send(buffer)?;
            }
            Ok(())
        });
        let writing = scope.spawn(move || -> io::Result<()> {
            for mut buffer in to_write {
                file.write_all(buffer.plaintext())?;
                let _ = free.send(buffer);
            }
            file.sync_all()
        });
        let mut cipher = Cipher::new();
        let mut left = size_bytes;
        while left > 0 {
            let mut buffer = taken.recv()?;
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            stream.read_exact(&mut buffer.digest)?;
            buffer.length = usize::try_from(u32::from_be_bytes(length))?;
            ensure!(buffer.length <= CHUNK_BYTES, "too long");
            let sealed_bytes = sealed_bytes(buffer.length);
            let sealed = &mut buffer.room()[..sealed_bytes];
            stream.read_exact(sealed)?;
            cipher.open(sealed)?;
            left -= buffer.length as u64;
            received.send(buffer)?;
        }
        drop(received);
        verifying.join().expect("does not panic")?;
        writing.join().expect("does not panic")?;
        answering.write_all(&[1])?;
        Ok(())
    })
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [mode, address, path] = arguments.as_slice() else {
        bail!("pipeline send|receive ADDRESS:PORT FILE");
    };
    let tune = |stream: TcpStream| stream.set_nodelay(true).map(|()| stream);
    match mode.as_str() {
        "send" => send(tune(TcpStream::connect(address)?)?, File::open(path)?),
        "receive" => {
            let listener = TcpListener::bind(address)?;
            println!("listening");
            receive(tune(listener.accept()?.0)?, File::create(path)?)
        }
        _ => bail!("send or receive"),
    }
}
