//! Having the server connect back to a port of this machine, which shows whom
//! the NAT or a firewall in front of it lets in (RFC 5780, section 4.4, by TCP).
//!
//! The port is one of its own: nobody ever reaches it, so that whatever a NAT
//! makes of the server's knocking spoils no port of use.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::doctor::diagnosis::Probes;
use pinhole_proto::rendezvous::{ClientMessage, ProbeOrigin, ProbeToken, ServerMessage};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tracing::debug;

use crate::rendezvous::observe;
use crate::rendezvous::server::handshake;
use crate::rendezvous::wire::{self, WireError};
use crate::socket::{AddressReuse, LocalPort};

/// How long all of it may take: to connect and be observed, and until the server
/// has given up.
const PROBE_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a probe that somebody answered may take to be heard.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections that may be under way; the probes are two, the others strangers.
const MAX_READING: usize = 8;

/// Asks the server at this IPv4 address. `None` when it does not answer as one
/// that knows how.
pub(crate) async fn ask(connector: &TlsConnector, server: SocketAddr) -> Option<Probes> {
    match timeout(PROBE_TIMEOUT, probes(connector, server)).await {
        Ok(Ok(probes)) => Some(probes),
        Ok(Err(error)) => {
            debug!(%error, "the filtering is not measured");
            None
        }
        Err(_) => {
            debug!("the filtering is not measured in time");
            None
        }
    }
}

async fn probes(connector: &TlsConnector, server: SocketAddr) -> Result<Probes, WireError> {
    let port = LocalPort::bind((Ipv4Addr::UNSPECIFIED, 0).into(), AddressReuse::On)?;
    let mut arrivals = Arrivals::at(port.listen()?)?;
    let tcp = port.connect(server).await?;
    let mut stream = handshake(connector, tcp).await?;
    observe::observe(&mut stream).await?;
    let token = arrivals.token;
    wire::write_message(&mut stream, &ClientMessage::Probe { token }).await?;
    let mut decoder = wire::server_decoder();
    let answer = loop {
        tokio::select! {
            answer = wire::read_message(&mut stream, &mut decoder) => break answer?,
            arrived = arrivals.next() => arrived?,
        }
    };
    let ServerMessage::Probed {
        other_port,
        other_address,
    } = answer
    else {
        return Err(WireError::Unexpected);
    };
    // The server's word is ahead of its probes at times.
    let rest = async {
        while (other_port == Some(true) && !arrivals.other_port)
            || (other_address == Some(true) && !arrivals.other_address)
        {
            arrivals.next().await?;
        }
        Ok(())
    };
    timeout(ARRIVAL_TIMEOUT, rest)
        .await
        .unwrap_or(Ok::<_, io::Error>(()))?;
    Ok(Probes {
        other_port: other_port.map(|_| arrivals.other_port),
        other_address: other_address.map(|_| arrivals.other_address),
    })
}

/// The connections that come to the port.
struct Arrivals {
    listener: TcpListener,
    token: ProbeToken,
    reading: JoinSet<Option<ProbeOrigin>>,
    other_port: bool,
    other_address: bool,
}

impl Arrivals {
    /// At this listener, with a token that nobody knows yet.
    fn at(listener: TcpListener) -> io::Result<Self> {
        let mut token = [0; ProbeToken::BYTES];
        let filled = SystemRandom::new().fill(&mut token);
        filled.map_err(|_| io::Error::other("no random numbers"))?;
        Ok(Self {
            listener,
            token: ProbeToken::from_random(token),
            reading: JoinSet::new(),
            other_port: false,
            other_address: false,
        })
    }

    /// Takes the next connection, or what one has said. Loses nothing when it is
    /// dropped.
    async fn next(&mut self) -> io::Result<()> {
        let token = self.token;
        tokio::select! {
            accepted = self.listener.accept(), if self.reading.len() < MAX_READING => {
                let (tcp, _) = accepted?;
                self.reading.spawn(origin(tcp, token));
            }
            Some(read) = self.reading.join_next() => match read {
                Ok(Some(ProbeOrigin::OtherPort)) => self.other_port = true,
                Ok(Some(ProbeOrigin::OtherAddress)) => self.other_address = true,
                // A stranger.
                Ok(None) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// Which probe this is, if it is one.
async fn origin(mut tcp: TcpStream, token: ProbeToken) -> Option<ProbeOrigin> {
    let mut hello = [0; ProbeOrigin::HELLO_BYTES];
    let read = timeout(ARRIVAL_TIMEOUT, tcp.read_exact(&mut hello)).await;
    read.ok()?.ok()?;
    ProbeOrigin::of_hello(&hello, token)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn strangers_are_told_from_probes_and_hold_nobody_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut arrivals = Arrivals::at(listener).unwrap();
        let say = |hello: Vec<u8>| async move {
            let mut tcp = TcpStream::connect(address).await.unwrap();
            tcp.write_all(&hello).await.unwrap();
            tcp
        };
        let mut other_token = *arrivals.token.as_bytes();
        other_token[0] ^= 1;
        let other_token = ProbeToken::from_random(other_token);
        let mut neither = ProbeOrigin::OtherPort.hello(arrivals.token);
        neither[ProbeToken::BYTES] = 3;
        let strangers = [
            Vec::new(),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            ProbeOrigin::OtherPort.hello(other_token).to_vec(),
            neither.to_vec(),
        ];
        let mut open = Vec::new();
        for hello in strangers {
            open.push(say(hello).await);
        }
        for _ in 0..open.len() * 2 {
            arrivals.next().await.unwrap();
        }
        assert!(!arrivals.other_port && !arrivals.other_address);
        open.push(say(ProbeOrigin::OtherAddress.hello(arrivals.token).to_vec()).await);
        let came = async {
            while !arrivals.other_address {
                arrivals.next().await.unwrap();
            }
        };
        timeout(Duration::from_secs(20), came)
            .await
            .expect("not heard");
        assert!(!arrivals.other_port);
    }
}
