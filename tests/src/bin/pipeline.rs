//! The same work as Pinhole's with nothing around it: the rate that a transfer
//! can at best reach on this machine.
//!
//! ```text
//! pipeline receive ADDRESS:PORT INTO      # one file, then ends
//! pipeline send ADDRESS:PORT FILE         # prints MB/s until all is written
//! ```
//!
//! Blocking threads pass buffers of 1 MiB on: read, SHA-256 as Pinhole's chunks, AES-128-GCM in
//! place in records of 16 KiB, TCP, open in place, SHA-256, write. The key is a
//! constant: this measures, it does not protect.

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

use anyhow::{Context, Result, bail, ensure};
use pinhole_transfer::merkle::Digest;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

const CHUNK_BYTES: usize = 1 << 20;
const RECORD_BYTES: usize = 16 << 10;
const TAG_BYTES: usize = 16;
const SEALED_BYTES: usize = CHUNK_BYTES / RECORD_BYTES * (RECORD_BYTES + TAG_BYTES);
const PAGE_BYTES: usize = 4096;
/// Buffers on each side.
const BUFFERS: usize = 6;

/// Room for a sealed chunk that starts on a page.
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    /// Plaintext.
    length: usize,
    digest: [u8; 32],
}

impl Buffer {
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
type Flow = (SyncSender<Buffer>, Receiver<Buffer>);

fn flow(filled: usize) -> Flow {
    let (sender, receiver) = mpsc::sync_channel(BUFFERS);
    for _ in 0..filled {
        sender.send(Buffer::new()).expect("there is room");
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
        Self {
            key: LessSafeKey::new(key),
            sequence: 0,
        }
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.sequence.to_be_bytes());
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// Seals each record where it lies; the tags follow the chunk.
    fn seal(&mut self, buffer: &mut Buffer) {
        let length = buffer.length;
        let (plaintext, tags) = buffer.room().split_at_mut(length);
        let records = plaintext.chunks_mut(RECORD_BYTES);
        for (record, room) in records.zip(tags.chunks_mut(TAG_BYTES)) {
            let nonce = self.nonce();
            let tag = self
                .key
                .seal_in_place_separate_tag(nonce, Aad::empty(), record);
            room.copy_from_slice(tag.expect("not too long").as_ref());
        }
    }

    fn open(&mut self, buffer: &mut Buffer) -> Result<()> {
        let length = buffer.length;
        let (plaintext, tags) = buffer.room().split_at_mut(length);
        let records = plaintext.chunks_mut(RECORD_BYTES);
        for (record, tag) in records.zip(tags.chunks(TAG_BYTES)) {
            let tag = Tag::try_from(tag).ok().context("no tag")?;
            let nonce = self.nonce();
            let opened = self
                .key
                .open_in_place_separate_tag(nonce, Aad::empty(), tag, record, 0..);
            ensure!(opened.is_ok(), "a record does not open");
        }
        Ok(())
    }
}

/// The length on the wire of a sealed chunk.
const fn sealed_bytes(length: usize) -> usize {
    length + length.div_ceil(RECORD_BYTES) * TAG_BYTES
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
                buffer.digest = *Digest::of_chunk(buffer.plaintext()).as_bytes();
                hashed.send(buffer)?;
            }
            Ok(())
        });
        let mut cipher = Cipher::new();
        for mut buffer in to_send {
            let length = u32::try_from(buffer.length)?;
            stream.write_all(&length.to_be_bytes())?;
            stream.write_all(&buffer.digest)?;
            cipher.seal(&mut buffer);
            let sealed_bytes = sealed_bytes(buffer.length);
            stream.write_all(&buffer.room()[..sealed_bytes])?;
            let _ = free.send(buffer);
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
                let digest: [u8; 32] = *Digest::of_chunk(buffer.plaintext()).as_bytes();
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
            stream.read_exact(&mut buffer.room()[..sealed_bytes])?;
            cipher.open(&mut buffer)?;
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
