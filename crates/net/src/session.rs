//! The session: the one authenticated, encrypted connection between two peers.

mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod transport;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use pinhole_proto::agent::PathKind;
use pinhole_proto::key::PeerKey;
use pinhole_proto::rendezvous::{PeerIdentity, Role};
use pinhole_proto::tls::{self as peer_tls, ALPN_PEER, Expect, Identity};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::connect::Report;
use crate::port_mapping::PortMapping;
use stream::Ciphertext;
use tls::{Step, Tls};

pub use stream::{SessionReader, SessionStream, SessionWriter};
pub(crate) use transport::Transport;
use transport::{TransportReader, TransportWriter};

/// Bytes asked of the kernel in one read.
pub(crate) const READ_BUFFER_BYTES: usize = 256 * 1024;

/// An authenticated, encrypted connection to one peer.
#[derive(Debug)]
pub struct Session {
    /// The bytes. Flush what must arrive; shut it down to end it cleanly.
    pub stream: SessionStream,
    /// Who is at the other end: the key was proven in the TLS handshake.
    pub peer: PeerIdentity,
    /// How the connection reaches the peer.
    pub path: PathKind,
    /// This end of the TCP connection.
    pub local: SocketAddr,
    /// The other end of the TCP connection: the peer's, or the relay's.
    pub remote: SocketAddr,
    /// From the wish to connect (or the invitation's acceptance) until now.
    pub elapsed: Duration,
    /// What was tried on the way here, and what each answered.
    pub report: Report,
    /// The router's mapping of the port that the session uses, if there is one:
    /// to be kept as long as the session.
    pub mapping: Option<PortMapping>,
}

/// A transport whose other end has proven the key expected.
#[derive(Debug)]
pub(crate) struct Authenticated {
    pub(crate) stream: SessionStream,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// Proves our key and has the other end prove that it holds `peer`'s. The
/// controlling side speaks first.
pub(crate) async fn authenticate(
    transport: Transport,
    role: Role,
    identity: &Identity,
    peer: PeerKey,
) -> io::Result<Authenticated> {
    let expect = Expect::Key(peer);
    let mut tls = match role {
        Role::Controlling => {
            let config = peer_tls::client_config(identity, expect, ALPN_PEER);
            Tls::client(config.map_err(io::Error::other)?)?
        }
        Role::Controlled => {
            let config = peer_tls::server_config(identity, expect, ALPN_PEER);
            Tls::server(config.map_err(io::Error::other)?)?
        }
    };
    let (local, remote) = transport.addresses()?;
    let (mut reader, mut writer) = transport.into_split();
    let mut ciphertext = Ciphertext::for_reading();
    match shake_hands(&mut tls, &mut reader, &mut writer, &mut ciphertext).await {
        Ok(plaintext) => Ok(Authenticated {
            stream: SessionStream::new(tls, (reader, writer), ciphertext, plaintext),
            local,
            remote,
        }),
        Err(error) => {
            // The alert that tells the other end why is a courtesy.
            let _ = writer.write_all(&tls.take_queued()).await;
            let _ = writer.shutdown().await;
            Err(error)
        }
    }
}

/// Runs the handshake. Returns what the peer sent right behind it, as far as it
/// is opened already.
async fn shake_hands(
    tls: &mut Tls,
    reader: &mut TransportReader,
    writer: &mut TransportWriter,
    ciphertext: &mut Ciphertext,
) -> io::Result<Vec<u8>> {
    let mut plaintext = Vec::new();
    loop {
        let opened = |opened: &[u8]| plaintext.extend_from_slice(opened);
        let (done_bytes, step) = tls.step(ciphertext.filled(), opened);
        ciphertext.consume(done_bytes);
        let step = step?;
        if step == Step::Again {
            continue;
        }
        writer.write_all(&tls.take_queued()).await?;
        writer.flush().await?;
        match step {
            Step::Ready => return Ok(plaintext),
            Step::Again | Step::Blocked => {}
            Step::Closed => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        let count = reader.read(ciphertext.room()).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        ciphertext.add(count);
    }
}
