//! As much of a STUN server (RFC 5389, over TCP) as tells a client its public
//! address.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use pinhole_tests::lab::{Host, Lab};
use socket2::SockRef;

const PORT: u16 = 3478;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// On host S, until it is dropped.
pub(crate) struct Stun(TcpListener);

impl Stun {
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let bind = || TcpListener::bind((Lab::SERVER, PORT));
        let listener = lab.inside(Host::S, bind)?;
        let accepting = listener.try_clone()?;
        thread::spawn(move || {
            for stream in accepting.incoming() {
                // The end of its input ends it.
                let Ok(stream) = stream else { break };
                thread::spawn(move || answer(stream));
            }
        });
        Ok(Self(listener))
    }
}

impl Drop for Stun {
    fn drop(&mut self) {
        let _ = SockRef::from(&self.0).shutdown(Shutdown::Both);
    }
}

/// One binding request; then the connection stays until the client closes it.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let SocketAddr::V4(peer) = stream.peer_addr()? else {
        return Ok(());
    };
    let mut header = [0; 20];
    stream.read_exact(&mut header)?;
    let mut attributes = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]]))];
    stream.read_exact(&mut attributes)?;
    // A success, with 12 more bytes: XOR-MAPPED-ADDRESS of 8, IPv4.
    let mut response = vec![0x01, 0x01, 0, 12];
    response.extend_from_slice(&header[4..]);
    response.extend([0, 0x20, 0, 8, 0, 1]);
    let mapped = peer.port().to_be_bytes().into_iter();
    response.extend(mapped.zip(MAGIC_COOKIE).map(|(byte, mask)| byte ^ mask));
    let mapped = peer.ip().octets().into_iter();
    response.extend(mapped.zip(MAGIC_COOKIE).map(|(byte, mask)| byte ^ mask));
    stream.write_all(&response)?;
    stream.read(&mut header).map(drop)
}
