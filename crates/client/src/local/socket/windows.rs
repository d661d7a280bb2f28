//! A named pipe for its owner alone. Its name is drawn at random and stands in a file of
//! the profile, so that nobody else can have a pipe of that name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use interprocess::local_socket::tokio::prelude::*;
use interprocess::local_socket::{GenericNamespaced, ListenerOptions, Name};
use interprocess::os::windows::local_socket::ListenerOptionsExt as _;
use interprocess::os::windows::security_descriptor::SecurityDescriptor;
use pinhole_net::random_entropy;
use pinhole_storage::{Durability, replace};
use widestring::u16cstr;

use crate::store::SOCKET_FILE;

pub(in crate::local) type Stream = LocalSocketStream;

/// The pipe of the process that holds the profile. The file goes when this is dropped.
#[derive(Debug)]
pub(in crate::local) struct Listener {
    listener: LocalSocketListener,
    path: PathBuf,
}

impl Listener {
    /// Only for whoever holds the profile.
    pub(in crate::local) fn bind(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SOCKET_FILE);
        let drawn = HEXLOWER.encode(&random_entropy().map_err(io::Error::other)?);
        // Everything to its owner, and nothing to anybody else.
        let owner_only = SecurityDescriptor::deserialize(u16cstr!("D:P(A;;GA;;;OW)"))?;
        let listener = ListenerOptions::new()
            .name(name(&drawn)?)
            .security_descriptor(owner_only)
            .create_tokio()?;
        replace(&path, drawn.as_bytes(), Durability::Fast)?;
        Ok(Self { listener, path })
    }

    pub(in crate::local) async fn accept(&mut self) -> io::Result<Stream> {
        self.listener.accept().await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The next holder writes another name over one that stays.
        let _ = fs::remove_file(&self.path);
    }
}

/// Connects to whoever holds the profile.
pub(in crate::local) async fn connect(folder: &Path) -> io::Result<Stream> {
    let drawn = fs::read_to_string(folder.join(SOCKET_FILE))?;
    Stream::connect(name(&drawn)?).await
}

/// Whether the other end is a process of the same user: nobody else can open the pipe, or
/// knows its name.
pub(in crate::local) const fn is_same_user(_stream: &Stream) -> io::Result<bool> {
    Ok(true)
}

fn name(drawn: &str) -> io::Result<Name<'static>> {
    format!("pinhole-{drawn}").to_ns_name::<GenericNamespaced>()
}
