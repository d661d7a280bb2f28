//! The session: one authenticated, encrypted stream of bytes between two peers,
//! over one connection at a time.

mod live;
mod migration;
#[cfg(test)]
mod tests;
mod tls_stream;
mod transport;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use pinhole_proto::agent::PathKind;
use pinhole_proto::hello::Hello;
use pinhole_proto::key::PeerKey;
use pinhole_proto::rendezvous::{IntroductionId, PeerIdentity, Role};
use pinhole_proto::tls::{self as peer_tls, ALPN_PEER, Expect, Identity};
use pinhole_tls::{Handshake, Step};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::report::Report;
use tls_stream::{Arrived, SealedStream};

pub(crate) use live::LiveSession;
pub use live::{LiveSessions, SessionHandle, SessionPath};
pub use migration::{SessionReader, SessionStream, SessionWriter};
pub(crate) use transport::Transport;
use transport::{TransportReader, TransportWriter};

/// An authenticated, encrypted connection to one peer.
#[derive(Debug)]
pub struct Session {
    /// The bytes. Flush what must arrive; shut it down to end it cleanly.
    pub stream: SessionStream,
    /// The other side. It has proven the key in the TLS handshake.
    pub peer: PeerIdentity,
    /// How the connection reaches the peer, to begin with.
    pub path: PathKind,
    /// This end of the first TCP connection.
    pub local: SocketAddr,
    /// The other end of the first TCP connection: the peer's, or the relay's.
    pub remote: SocketAddr,
    /// From the wish to connect (or the invitation's acceptance) until now.
    pub elapsed: Duration,
    /// What was tried on the way here, and what each answered.
    pub report: Report,
    /// Where the session is from now on.
    pub handle: SessionHandle,
}

/// A transport whose other end has proven the key expected.
#[derive(Debug)]
pub(crate) struct Authenticated {
    pub(crate) stream: SealedStream,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

impl Authenticated {
    /// Controlled side: waits for the word that this connection is selected,
    /// and what for.
    pub(crate) async fn hear_hello(&mut self) -> io::Result<Hello> {
        let mut bytes = [0; Hello::BYTES];
        self.stream.read_exact(&mut bytes).await?;
        Hello::decode(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    /// Controlling side: says that this connection is selected, and what for.
    pub(crate) async fn say_hello(&mut self, hello: &Hello) -> io::Result<()> {
        self.stream.write_all(&hello.encode()).await
    }

    /// A session that begins on this connection.
    pub(crate) fn into_session(
        self,
        name: IntroductionId,
        role: Role,
        peer: PeerIdentity,
        path: SessionPath,
        elapsed: Duration,
    ) -> Session {
        let (stream, migrator) = migration::stream(self.stream.into_inner());
        let SessionPath {
            kind,
            local,
            remote,
            ref report,
        } = path;
        let report = report.clone();
        let live = LiveSession::new(name, role, peer.clone(), migrator, path);
        Session {
            stream,
            peer,
            path: kind,
            local,
            remote,
            elapsed,
            report,
            handle: SessionHandle(live),
        }
    }

    /// The path of this connection.
    pub(crate) fn path(&self, kind: PathKind, report: Report) -> SessionPath {
        SessionPath {
            kind,
            local: self.local,
            remote: self.remote,
            report,
        }
    }
}

/// Proves our key and has the other end prove that it holds `peer`'s. The
/// controlling side speaks first.
pub(crate) async fn authenticate(
    transport: Transport,
    role: Role,
    identity: &Identity,
    peer: PeerKey,
) -> io::Result<Authenticated> {
    let proven = authenticate_expecting(transport, role, identity, Expect::Key(peer)).await?;
    Ok(proven.1)
}

/// As [`authenticate`], with whomever may be at the other end. Returns the key
/// that was proven, too.
pub(crate) async fn authenticate_expecting(
    transport: Transport,
    role: Role,
    identity: &Identity,
    expect: Expect,
) -> io::Result<(PeerKey, Authenticated)> {
    let mut handshake = match role {
        Role::Controlling => {
            let config = peer_tls::client_config(identity, expect, ALPN_PEER);
            config.and_then(|config| Handshake::client(config, peer_tls::server_name()))
        }
        Role::Controlled => {
            let config = peer_tls::server_config(identity, expect, ALPN_PEER);
            config.and_then(Handshake::server)
        }
    }
    .map_err(io::Error::other)?;
    let (local, remote) = transport.addresses()?;
    let (mut reader, mut writer) = transport.into_split();
    let mut arrived = Arrived::default();
    match shake_hands(&mut handshake, &mut reader, &mut writer, &mut arrived).await {
        Ok(key) => {
            let authenticated = Authenticated {
                stream: tls_stream::stream(handshake.into_records(), (reader, writer), arrived),
                local,
                remote,
            };
            Ok((key, authenticated))
        }
        Err(error) => {
            // The alert that tells the other end why is a courtesy.
            let _ = writer.write_all(&handshake.take_queued()).await;
            let _ = writer.shutdown().await;
            Err(error)
        }
    }
}

/// Runs the handshake; returns the key that was proven. What the peer sent right
/// behind it has arrived.
async fn shake_hands(
    handshake: &mut Handshake,
    reader: &mut TransportReader,
    writer: &mut TransportWriter,
    arrived: &mut Arrived,
) -> io::Result<PeerKey> {
    loop {
        let (done_bytes, step) = handshake.step(arrived.sealed());
        arrived.consume(done_bytes);
        let step = step.map_err(invalid)?;
        if step == Step::Again {
            continue;
        }
        writer.write_all(&handshake.take_queued()).await?;
        writer.flush().await?;
        if step == Step::Ready {
            return peer_tls::proven_key(handshake.connection(), ALPN_PEER).map_err(invalid);
        }
        let count = reader.read(arrived.room()).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        arrived.add(count);
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
