//! A TCP connection that hands out one TLS record at a time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The header of a record (RFC 8446, section 5.1): its type, a version, and the length of
/// what follows.
const HEADER_BYTES: usize = 5;

/// A TCP connection of which no read goes beyond the end of a TLS record. So nothing that
/// follows the last record is lost in the buffers of the TLS session, and the connection
/// can go on without TLS.
#[derive(Debug)]
pub(crate) struct RecordStream {
    tcp: TcpStream,
    header: [u8; HEADER_BYTES],
    /// How much of the header has been read.
    header_bytes: usize,
    /// What is to come of the record.
    left_bytes: usize,
}

impl RecordStream {
    /// The connection, at the beginning of a record.
    pub(crate) const fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            header: [0; HEADER_BYTES],
            header_bytes: 0,
            left_bytes: 0,
        }
    }

    /// The connection, as far as it has been read.
    pub(crate) fn into_tcp(self) -> TcpStream {
        self.tcp
    }

    /// How much may be read at once.
    const fn room(&self) -> usize {
        match self.left_bytes {
            0 => HEADER_BYTES - self.header_bytes,
            left => left,
        }
    }

    fn passed(&mut self, bytes: &[u8]) {
        if self.left_bytes > 0 {
            self.left_bytes -= bytes.len();
            return;
        }
        let header = self.header.iter_mut().skip(self.header_bytes);
        for (place, &byte) in header.zip(bytes) {
            *place = byte;
        }
        self.header_bytes += bytes.len();
        if self.header_bytes == HEADER_BYTES {
            let [_, _, _, high, low] = self.header;
            self.left_bytes = u16::from_be_bytes([high, low]).into();
            self.header_bytes = 0;
        }
    }
}

impl AsyncRead for RecordStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let room = stream.room().min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(&mut stream.tcp).poll_read(context, &mut part))?;
        let count = part.filled().len();
        stream.passed(part.filled());
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RecordStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn no_read_goes_beyond_a_record_however_it_arrives() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap());
        let (tcp, accepted) = tokio::join!(tcp, listener.accept());
        let (mut sender, _) = accepted.unwrap();
        let records: [&[u8]; 3] = [
            b"\x17\x03\x03\x00\x04four",
            b"\x15\x03\x03\x00\x00",
            b"rest",
        ];
        sender.set_nodelay(true).unwrap();
        let whole = records.concat();
        let send = tokio::spawn(async move {
            for piece in whole.chunks(3) {
                sender.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut stream = RecordStream::new(tcp.unwrap());
        let mut buffer = vec![0; 1024];
        let mut heard = Vec::new();
        while heard.len() < records[0].len() + records[1].len() {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0);
            heard.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(heard, records[..2].concat());
        let mut rest = Vec::new();
        let mut tcp = stream.into_tcp();
        tcp.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, records[2]);
        send.await.unwrap();
    }
}
