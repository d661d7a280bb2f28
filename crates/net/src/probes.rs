//! Having the server connect back to a port of this machine, which shows whom
//! the NAT or a firewall in front of it lets in (RFC 5780, section 4.4, by TCP).
//!
//! The port is one of its own: nobody ever reaches it, so that whatever a NAT
//! makes of the server's knocking spoils no port of use.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use pinhole_proto::diagnosis::Probes;
use pinhole_proto::rendezvous::{ClientMessage, ProbeOrigin, ProbeToken, ServerMessage};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::debug;

use crate::measure::observe_over;
use crate::socket::{AddressReuse, LocalPort};
use crate::wire::{self, WireError};

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
    let (mut stream, _) = observe_over(connector, tcp).await?;
    let token = arrivals.token;
    wire::write_message(&mut stream, &ClientMessage::Probe { token }).await?;
    let answer = tokio::select! {
        answer = answer(&mut stream) => answer?,
        never = arrivals.take() => match never {},
    };
    let is_missing = |arrivals: &Arrivals| {
        let missing = |answered, arrived| answered == Some(true) && !arrived;
        missing(answer.other_port, arrivals.other_port)
            || missing(answer.other_address, arrivals.other_address)
    };
    // The server's word is ahead of its probes at times.
    let rest = async {
        while is_missing(&arrivals) {
            arrivals.take_one().await;
        }
    };
    let _: Result<(), _> = timeout(ARRIVAL_TIMEOUT, rest).await;
    Ok(Probes {
        other_port: answer.other_port.map(|_| arrivals.other_port),
        other_address: answer.other_address.map(|_| arrivals.other_address),
    })
}
