//! The session: the one authenticated, encrypted connection between two peers.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pinhole_proto::agent::PathKind;
use pinhole_proto::key::PeerKey;
use pinhole_proto::rendezvous::{PeerIdentity, Role};
use pinhole_proto::tls::{self, ALPN_PEER, Expect, Identity};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::connect::Report;
use crate::relay::RelayStream;
use crate::socket;

/// Bytes asked of the kernel in one read. rustls alone asks for 4 KiB.
pub(crate) const READ_BUFFER_BYTES: usize = 256 * 1024;
/// Ciphertext that may wait for the kernel to take it.
const WRITE_BUFFER_BYTES: usize = 512 * 1024;

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
}

/// The bytes of a [`Session`]: TLS 1.3 over whatever path there is.
#[derive(Debug)]
pub struct SessionStream(Box<TlsStream<Transport>>);

/// A connection that may lead to the peer, not yet authenticated.
#[derive(Debug)]
pub(crate) enum Transport {
    Direct(BufReader<TcpStream>),
    Relayed(Box<RelayStream>),
}

impl Transport {
    pub(crate) fn direct(stream: TcpStream) -> io::Result<Self> {
        socket::tune(&stream)?;
        let buffered = BufReader::with_capacity(READ_BUFFER_BYTES, stream);
        Ok(Self::Direct(buffered))
    }

    pub(crate) fn local(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Direct(stream) => stream.get_ref().local_addr(),
            Self::Relayed(stream) => Ok(stream.local()),
        }
    }

    pub(crate) fn remote(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Direct(stream) => stream.get_ref().peer_addr(),
            Self::Relayed(stream) => Ok(stream.remote()),
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
) -> io::Result<SessionStream> {
    let expect = Expect::Key(peer);
    let stream = match role {
        Role::Controlling => {
            let config = tls::client_config(identity, expect, ALPN_PEER);
            let connector = TlsConnector::from(config.map_err(io::Error::other)?);
            let mut stream = connector.connect(tls::server_name(), transport).await?;
            let connection = stream.get_mut().1;
            connection.set_buffer_limit(Some(WRITE_BUFFER_BYTES));
            TlsStream::Client(stream)
        }
        Role::Controlled => {
            let config = tls::server_config(identity, expect, ALPN_PEER);
            let acceptor = TlsAcceptor::from(config.map_err(io::Error::other)?);
            let mut stream = acceptor.accept(transport).await?;
            let connection = stream.get_mut().1;
            connection.set_buffer_limit(Some(WRITE_BUFFER_BYTES));
            TlsStream::Server(stream)
        }
    };
    Ok(SessionStream(Box::new(stream)))
}

impl SessionStream {
    pub(crate) fn transport(&self) -> &Transport {
        self.0.get_ref().0
    }
}

impl AsyncRead for SessionStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(context, buffer))?;
        let ended = buffer.filled().len() == before && buffer.remaining() > 0;
        match (ended, self.0.get_mut().0) {
            (true, Transport::Relayed(relay)) => relay.poll_ended(context).map(Ok),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for SessionStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Relayed(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Relayed(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Relayed(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Direct(stream) => stream.is_write_vectored(),
            Self::Relayed(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_flush(context),
            Self::Relayed(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Relayed(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::identity::generate_identity;
    use crate::server::is_wrong_key;

    async fn pair() -> (Transport, Transport) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap());
        let (ours, theirs) = tokio::join!(ours, listener.accept());
        let transport = |stream| Transport::direct(stream).unwrap();
        (transport(ours.unwrap()), transport(theirs.unwrap().0))
    }

    #[tokio::test]
    async fn each_side_checks_the_other_s_key() {
        let [alice, bob, mallory] = [(); 3].map(|()| generate_identity().unwrap().0);
        let (a, b) = pair().await;
        let controlling = authenticate(a, Role::Controlling, &alice, bob.key());
        let controlled = authenticate(b, Role::Controlled, &bob, alice.key());
        let (at_alice, at_bob) = tokio::join!(controlling, controlled);
        let (mut at_alice, mut at_bob) = (at_alice.unwrap(), at_bob.unwrap());
        at_bob.write_all(b"first").await.unwrap();
        at_bob.shutdown().await.unwrap();
        let mut heard = Vec::new();
        at_alice.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"first");

        let (a, b) = pair().await;
        let controlling = authenticate(a, Role::Controlling, &alice, bob.key());
        let posing = authenticate(b, Role::Controlled, &mallory, alice.key());
        let error = tokio::join!(controlling, posing).0.unwrap_err();
        assert!(is_wrong_key(&error), "{error}");

        let (a, b) = pair().await;
        let posing = authenticate(a, Role::Controlling, &mallory, bob.key());
        let controlled = authenticate(b, Role::Controlled, &bob, alice.key());
        let error = tokio::join!(posing, controlled).1.unwrap_err();
        assert!(is_wrong_key(&error), "{error}");
    }
}
