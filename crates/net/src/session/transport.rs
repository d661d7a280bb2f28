//! What a session's ciphertext travels over.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

#[cfg(target_os = "linux")]
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::socket;

/// A connection that may lead to the peer, not yet authenticated.
#[derive(Debug)]
pub(crate) enum Transport {
    Direct(TcpStream),
    Relayed(TcpStream),
}

/// What arrives over a [`Transport`].
#[derive(Debug)]
pub(super) enum TransportReader {
    Direct(OwnedReadHalf),
    Relayed(OwnedReadHalf),
}

/// What leaves over a [`Transport`].
#[derive(Debug)]
pub(super) enum TransportWriter {
    Direct(OwnedWriteHalf),
    Relayed(OwnedWriteHalf),
}

impl Transport {
    pub(crate) fn direct(stream: TcpStream) -> io::Result<Self> {
        socket::tune(&stream)?;
        #[cfg(target_os = "linux")]
        widen(&stream)?;
        Ok(Self::Direct(stream))
    }

    /// This end's address and the other's.
    pub(super) fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        match self {
            Self::Direct(stream) | Self::Relayed(stream) => {
                Ok((stream.local_addr()?, stream.peer_addr()?))
            }
        }
    }

    pub(super) fn into_split(self) -> (TransportReader, TransportWriter) {
        match self {
            Self::Direct(stream) => {
                let (reader, writer) = stream.into_split();
                let reader = TransportReader::Direct(reader);
                (reader, TransportWriter::Direct(writer))
            }
            Self::Relayed(stream) => {
                let (reader, writer) = stream.into_split();
                let reader = TransportReader::Relayed(reader);
                (reader, TransportWriter::Relayed(writer))
            }
        }
    }
}

/// Lets more be under way than the kernel lets by itself, if it may be asked to,
/// and less wait to be sent.
#[cfg(target_os = "linux")]
fn widen(stream: &TcpStream) -> io::Result<()> {
    // What was sent but not acknowledged stays in the buffer, which the kernel
    // grows to 4 MiB by itself: at 100 ms there and back, a third of a gigabit.
    const GROWN_BYTES: usize = 4 << 20;
    const ASKED_BYTES: usize = 16 << 20;
    // A control message passes all files but those that wait here already.
    const UNSENT_BYTES: u32 = 1 << 20;
    let socket = SockRef::from(stream);
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    // Asking ends the growth, and many kernels grant less than it would reach:
    // another socket finds out.
    let trial = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    trial.set_send_buffer_size(ASKED_BYTES)?;
    if trial.send_buffer_size()? > GROWN_BYTES {
        socket.set_send_buffer_size(ASKED_BYTES)?;
    }
    Ok(())
}

impl TransportReader {
    /// Reads; a connection that ends is an error.
    pub(super) fn poll_some(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(self).poll_read(context, buffer))?;
        Poll::Ready(match buffer.filled().len() {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        })
    }

    /// Waits for the relay to end its direction too, once the peer has ended
    /// the session inside. A socket that is closed while bytes arrive is reset by the
    /// kernel, and what we have sent last would be lost on its way to the relay.
    pub(super) fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut ignored = [0; 64];
        let mut ignored = ReadBuf::new(&mut ignored);
        match self {
            Self::Direct(_) => Poll::Ready(()),
            Self::Relayed(stream) => {
                let ended = Pin::new(stream).poll_read(context, &mut ignored);
                ended.map(drop)
            }
        }
    }
}

impl AsyncRead for TransportReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) | Self::Relayed(stream) => {
                Pin::new(stream).poll_read(context, buffer)
            }
        }
    }
}

impl AsyncWrite for TransportWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Direct(stream) | Self::Relayed(stream) => {
                Pin::new(stream).poll_write(context, bytes)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) | Self::Relayed(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) | Self::Relayed(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_never_gets_less_room_than_it_had() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap());
        let stream = stream.await.unwrap();
        let before_bytes = SockRef::from(&stream).send_buffer_size().unwrap();
        let Transport::Direct(stream) = Transport::direct(stream).unwrap() else {
            panic!("relayed");
        };
        let socket = SockRef::from(&stream);
        assert!(socket.send_buffer_size().unwrap() >= before_bytes);
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), 1 << 20);
    }
}
