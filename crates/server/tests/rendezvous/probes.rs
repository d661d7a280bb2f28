//! Clients to which the server connects back.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pinhole_budget::Rate;
use pinhole_proto::frame::{FrameKind, encode};
use pinhole_proto::rendezvous::{ClientMessage, ProbeOrigin, ProbeToken, ServerMessage};
use pinhole_proto::tls::Identity;
use pinhole_server::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::timeout;

use super::client::{Client, identity};
use super::{PATIENCE, Server};

fn token() -> ProbeToken {
    ProbeToken::from_random([7; 16])
}

fn ask() -> ClientMessage {
    ClientMessage::Probe { token: token() }
}

const fn probed(other_port: Option<bool>, other_address: Option<bool>) -> ServerMessage {
    ServerMessage::Probed {
        other_port,
        other_address,
    }
}

/// Free, or the one of another socket that shares it.
fn socket(address: &str) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    #[cfg(unix)]
    socket.set_reuseport(true).unwrap();
    socket.bind(address.parse().unwrap()).unwrap();
    socket
}

/// An observation connection from a port that listens.
async fn observed(server: SocketAddr, identity: &Identity) -> (Client, TcpListener) {
    let socket_of_client = socket("127.0.0.1:0");
    let own = socket_of_client.local_addr().unwrap();
    let listener = socket(&own.to_string()).listen(8).unwrap();
    let tcp = socket_of_client.connect(server).await.unwrap();
    let mut client = Client::over(tcp, identity).await;
    client.say(&ClientMessage::Observe).await;
    client.hear().await;
    (client, listener)
}

/// Who connects next, and all that it says.
async fn next(listener: &TcpListener) -> (SocketAddr, Vec<u8>) {
    let (mut tcp, from) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let mut said = Vec::new();
    let read = timeout(PATIENCE, tcp.read_to_end(&mut said)).await;
    read.unwrap().unwrap();
    (from, said)
}

// Elsewhere, loopback has one address.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_client_is_probed_from_another_port_and_another_address() {
    let server = Server::start_at(&["127.0.0.1:0", "127.0.0.2:0"], Limits::default());
    let (mut client, listener) = observed(server.address(), &identity()).await;
    client.say(&ask()).await;
    let mut came = [next(&listener).await, next(&listener).await];
    came.sort_by_key(|(from, _)| from.ip());
    let [(port, port_said), (address, address_said)] = came;
    assert_eq!(port.ip(), server.address().ip());
    assert!(!server.addresses.contains(&port), "{port}");
    assert_eq!(port_said, ProbeOrigin::OtherPort.hello(token()));
    assert_eq!(address.ip(), IpAddr::from([127, 0, 0, 2]));
    assert_eq!(address_said, ProbeOrigin::OtherAddress.hello(token()));
    assert_eq!(client.hear().await, probed(Some(true), Some(true)));
    server.stop().await;
}

#[tokio::test]
async fn one_address_sends_one_probe_and_tells_that_nobody_answered() {
    let server = Server::default();
    let mut client = Client::begin(server.address(), &identity(), &ClientMessage::Observe).await;
    client.hear().await;
    client.say(&ask()).await;
    assert_eq!(client.hear().await, probed(Some(false), None));
    server.stop().await;
}

#[tokio::test]
async fn only_the_requesting_client_is_connected_to() {
    let server = Server::default();
    let bystander = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut client, listener) = observed(server.address(), &identity()).await;
    let address = bystander.local_addr().unwrap();
    let mut json = serde_json::to_value(ask()).unwrap();
    for field in ["address", "observed", "other_address", "server"] {
        json[field] = address.to_string().into();
    }
    let frame = encode(FrameKind::Client, &json).unwrap();
    client.stream.write_all(&frame).await.unwrap();
    client.stream.flush().await.unwrap();
    let (_, said) = next(&listener).await;
    assert_eq!(said, ProbeOrigin::OtherPort.hello(token()));
    assert_eq!(client.hear().await, probed(Some(true), None));
    // The server is done, so that whoever was to come has come.
    let own = TcpSocket::new_v4().unwrap().connect(address).await.unwrap();
    let (_, from) = bystander.accept().await.unwrap();
    assert_eq!(from, own.local_addr().unwrap());
    server.stop().await;
}

#[tokio::test]
async fn a_connection_asks_once_and_a_key_at_a_limited_rate() {
    let server = Server::start(Limits {
        probes_per_key: Rate {
            burst: 2,
            interval: Duration::from_secs(60),
        },
        ..Limits::default()
    });
    let alice = identity();
    for answer in [Some(true), Some(true), None, None] {
        let (mut client, _listener) = observed(server.address(), &alice).await;
        client.say(&ask()).await;
        assert_eq!(client.hear().await, probed(answer, None));
        client.say(&ask()).await;
        assert_eq!(client.hear_or_end().await, None);
    }
    let (mut bob, _listener) = observed(server.address(), &identity()).await;
    bob.say(&ask()).await;
    assert_eq!(bob.hear().await, probed(Some(true), None));
    server.stop().await;
}

#[tokio::test]
async fn only_an_observed_connection_may_ask() {
    let server = Server::default();
    let mut first = Client::begin(server.address(), &identity(), &ask()).await;
    assert_eq!(first.hear_or_end().await, None);
    let mut session = Client::log_in(server.address(), &identity(), "alice").await;
    session.say(&ask()).await;
    assert_eq!(session.hear_or_end().await, None);
    server.stop().await;
}
