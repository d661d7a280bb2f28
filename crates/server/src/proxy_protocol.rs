//! The real address of a client behind a proxy, from the PROXY protocol header (version 1
//! or 2) in front of everything else.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ppp::{HeaderResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// A proxy sends the header at once.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How many headers are awaited at once.
const PENDING: usize = 1_024;
/// The longest header of version 1, line end included.
const MAX_V1_BYTES: usize = 107;
/// The shortest of version 2, which says how much follows.
const V2_PREFIX_BYTES: usize = 16;
/// What may follow it: addresses, and a proxy's remarks.
const MAX_V2_REST_BYTES: usize = 1_024;

/// Why a proxied connection is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyHeaderError {
    #[error("too many connections whose PROXY header is awaited")]
    Busy,
    #[error("no PROXY header in time")]
    Slow,
    #[error("no PROXY header")]
    Missing,
    #[error("a PROXY header that is too long")]
    Long,
    #[error("a PROXY header without an IP address")]
    Address,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The proxies whose headers are trusted.
#[derive(Debug)]
pub(crate) struct TrustedProxies {
    addresses: Vec<IpAddr>,
    pending: Semaphore,
}

impl TrustedProxies {
    pub(crate) fn new(addresses: &[IpAddr]) -> Self {
        Self {
            addresses: addresses.iter().map(IpAddr::to_canonical).collect(),
            pending: Semaphore::new(PENDING),
        }
    }

    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address.to_canonical())
    }

    /// Reads the header. Returns the proxy's own address for a health check.
    pub(crate) async fn client(
        &self,
        tcp: &mut TcpStream,
        proxy: SocketAddr,
    ) -> Result<SocketAddr, ProxyHeaderError> {
        let _one_of_pending = self
            .pending
            .try_acquire()
            .map_err(|_| ProxyHeaderError::Busy)?;
        let header = timeout(TIMEOUT, read_header(tcp)).await;
        let header = header.map_err(|_| ProxyHeaderError::Slow)??;
        let client = source(&header)?.unwrap_or(proxy);
        Ok(SocketAddr::new(client.ip().to_canonical(), client.port()))
    }
}

/// Reads exactly the header.
async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, ProxyHeaderError> {
    let mut header = vec![stream.read_u8().await?];
    match header.first() {
        Some(b'P') => {
            while header.last() != Some(&b'\n') {
                if header.len() == MAX_V1_BYTES {
                    return Err(ProxyHeaderError::Long);
                }
                header.push(stream.read_u8().await?);
            }
        }
        Some(b'\r') => {
            header.resize(V2_PREFIX_BYTES, 0);
            let rest = header.get_mut(1..).unwrap_or_default();
            stream.read_exact(rest).await?;
            let [.., high, low] = header[..] else {
                return Err(ProxyHeaderError::Missing);
            };
            let rest_bytes = usize::from(u16::from_be_bytes([high, low]));
            if rest_bytes > MAX_V2_REST_BYTES {
                return Err(ProxyHeaderError::Long);
            }
            header.resize(V2_PREFIX_BYTES + rest_bytes, 0);
            let rest = header.get_mut(V2_PREFIX_BYTES..).unwrap_or_default();
            stream.read_exact(rest).await?;
        }
        _ => return Err(ProxyHeaderError::Missing),
    }
    Ok(header)
}

/// The client's address; `None` if the connection is the proxy's own.
fn source(header: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let of = |ip: IpAddr, port| Ok(Some(SocketAddr::new(ip, port)));
    match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => match header.addresses {
            v1::Addresses::Tcp4(it) => of(it.source_address.into(), it.source_port),
            v1::Addresses::Tcp6(it) => of(it.source_address.into(), it.source_port),
            v1::Addresses::Unknown => Ok(None),
        },
        HeaderResult::V2(Ok(header)) => match (header.command, header.addresses) {
            // Or the proxy does not know the address.
            (v2::Command::Local, _) | (_, v2::Addresses::Unspecified) => Ok(None),
            (v2::Command::Proxy, v2::Addresses::IPv4(it)) => {
                of(it.source_address.into(), it.source_port)
            }
            (v2::Command::Proxy, v2::Addresses::IPv6(it)) => {
                of(it.source_address.into(), it.source_port)
            }
            (v2::Command::Proxy, _) => Err(ProxyHeaderError::Address),
        },
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(ProxyHeaderError::Missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<(Option<SocketAddr>, Vec<u8>), ProxyHeaderError> {
        let mut rest = bytes;
        let header = read_header(&mut rest).await?;
        Ok((source(&header)?, rest.to_vec()))
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend(rest);
        header
    }

    const V4_REST: [u8; 12] = [198, 51, 100, 7, 203, 0, 113, 1, 0x13, 0x88, 0x12, 0x8b];

    #[tokio::test]
    async fn both_versions_tell_the_client_and_take_nothing_of_what_follows() {
        let v6_rest: Vec<u8> = [[0x20, 0x01, 0x0d, 0xb8]; 8].concat();
        let v6_rest = [&v6_rest[..], &[0x13, 0x88, 0x12, 0x8b]].concat();
        let with_remark = [&V4_REST[..], &[0x04, 0, 2, 7, 7]].concat();
        for (header, expected) in [
            (
                b"PROXY TCP4 198.51.100.7 203.0.113.1 5000 4747\r\n".to_vec(),
                Some("198.51.100.7:5000"),
            ),
            (
                b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 4747\r\n".to_vec(),
                Some("[2001:db8::7]:5000"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (v2(1, 0x11, &V4_REST), Some("198.51.100.7:5000")),
            (v2(1, 0x11, &with_remark), Some("198.51.100.7:5000")),
            (
                v2(1, 0x21, &v6_rest),
                Some("[2001:db8:2001:db8:2001:db8:2001:db8]:5000"),
            ),
            (v2(0, 0x00, &[]), None),
            (v2(1, 0x00, &[]), None),
        ] {
            let (client, rest) = read(&[&header[..], b"\x16\x03\x01"].concat())
                .await
                .unwrap();
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(client, expected, "{header:?}");
            assert_eq!(rest, b"\x16\x03\x01", "{header:?}");
        }
    }

    #[tokio::test]
    async fn malformed_headers_are_refused_at_once() {
        let long = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
        let mut long_v2 = v2(1, 0x11, &[]);
        long_v2[14..].copy_from_slice(&[0xff, 0xff]);
        for bytes in [
            &b"\x16\x03\x01"[..],
            b"PROXY TCP4 198.51.100.7 203.0.113.1 5000\r\n",
            b"PROXY TCP4 a b 1 2\r\n",
            b"PUT\n",
            &long,
            &long_v2,
            &v2(1, 0x31, &[0; 216]),
            &v2(1, 0x11, &V4_REST[..4]),
            b"\r\n\r\n\0\r\nQUIX\n\x21\x11\0\0",
        ] {
            assert!(read(bytes).await.is_err(), "{bytes:?}");
        }
    }
}
