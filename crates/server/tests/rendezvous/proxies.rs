//! Behind a proxy that speaks the PROXY protocol, and behind one that does not.

use std::net::{IpAddr, SocketAddr};

use pinhole_proto::rendezvous::{ClientMessage, ServerMessage};
use pinhole_server::{Control, DataDir, Limits, ServerConfig, listener, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::client::{Client, identity};
use super::{PATIENCE, Server};

fn behind(proxies: &[IpAddr], limits: Limits) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(dir.path()).unwrap();
    let listeners = listener::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let addresses = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
    let (stop, stopped) = oneshot::channel();
    let (control, controls) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        stopped.await.unwrap();
        control.send(Control::Stop).await.unwrap();
    });
    let config = ServerConfig {
        limits,
        proxies: proxies.to_vec(),
        ..ServerConfig::default()
    };
    let running = tokio::spawn(serve(listeners, data_dir, config, controls));
    Server {
        addresses,
        stop,
        running,
        _dir: dir,
    }
}

async fn passed_on(server: &Server, header: &[u8]) -> TcpStream {
    let mut tcp = TcpStream::connect(server.address()).await.unwrap();
    tcp.write_all(header).await.unwrap();
    tcp
}

fn v2(client: SocketAddr) -> Vec<u8> {
    let IpAddr::V4(ip) = client.ip() else {
        panic!("IPv4 here");
    };
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(ip.octets());
    header.extend([203, 0, 113, 1]);
    header.extend(client.port().to_be_bytes());
    header.extend(4747_u16.to_be_bytes());
    header
}

async fn observed(tcp: TcpStream) -> SocketAddr {
    let mut client = Client::over(tcp, &identity()).await;
    client.say(&ClientMessage::Observe).await;
    match client.hear().await {
        ServerMessage::Observed { address, .. } => address,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_proxy_header_gives_the_client_s_address() {
    let server = behind(&[[127, 0, 0, 1].into()], Limits::default());
    let client = SocketAddr::from(([198, 51, 100, 7], 5000));
    let v1 = b"PROXY TCP4 198.51.100.7 203.0.113.1 5000 4747\r\n";
    assert_eq!(observed(passed_on(&server, v1).await).await, client);
    assert_eq!(
        observed(passed_on(&server, &v2(client)).await).await,
        client
    );
    // A header in pieces, as a network may deliver it.
    let mut tcp = passed_on(&server, &v1[..9]).await;
    tcp.write_all(&v1[9..]).await.unwrap();
    assert_eq!(observed(tcp).await, client);
    server.stop().await;
}

#[tokio::test]
async fn a_proxy_without_a_header_is_not_served() {
    let server = behind(&[[127, 0, 0, 1].into()], Limits::default());
    for bytes in [&b"\x16\x03\x01\x02\0\x01"[..], b"PROXY TCP4 \r\n", b""] {
        let mut tcp = passed_on(&server, bytes).await;
        let mut byte = [0];
        let read = timeout(PATIENCE, tcp.read(&mut byte)).await.unwrap();
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_header_from_another_address_is_not_trusted() {
    let server = behind(&[[127, 9, 9, 9].into()], Limits::default());
    let header = b"PROXY TCP4 198.51.100.7 203.0.113.1 5000 4747\r\n";
    let mut tcp = passed_on(&server, header).await;
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, tcp.read_to_end(&mut rest)).await.unwrap();
    assert!(read.is_err() || !rest.windows(8).any(|it| it == b"observed"));
    let own = TcpStream::connect(server.address()).await.unwrap();
    let expected = own.local_addr().unwrap();
    assert_eq!(observed(own).await, expected);
    server.stop().await;
}

#[tokio::test]
async fn clients_of_a_proxy_have_budgets_of_their_own() {
    let mut limits = Limits::default();
    limits.connections.per_subnet = pinhole_budget::SubnetBounds::uniform(1);
    let server = behind(&[[127, 0, 0, 1].into()], limits);
    let mut held = Vec::new();
    for number in 1..=3 {
        let from = SocketAddr::from(([198, 51, 100, number], 5000));
        let mut client = Client::over(passed_on(&server, &v2(from)).await, &identity()).await;
        client.say(&ClientMessage::Observe).await;
        let told = client.hear().await;
        assert!(matches!(told, ServerMessage::Observed { .. }), "{told:?}");
        held.push(client);
    }
    server.stop().await;
}

/// Everybody at one private address.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_tells_nothing_is_told_to_the_operator_once() {
    use super::binary::{ANY_PORT, Process};
    let dir = tempfile::tempdir().unwrap();
    let arguments = [&ANY_PORT[..], &["--proxy-protocol", "127.0.0.1"]].concat();
    let mut server = Process::spawn(dir.path(), &arguments);
    let (addresses, _) = server.listening();
    // This stands for an address that the server sees by itself.
    let header = b"PROXY TCP4 172.17.0.1 172.17.0.2 5000 4747\r\n";
    let mut held = Vec::new();
    for name in ["alice", "bob", "carol"] {
        let mut tcp = TcpStream::connect(addresses[0]).await.unwrap();
        tcp.write_all(header).await.unwrap();
        let mut client = Client::over(tcp, &identity()).await;
        client.say(&super::client::log_in(name)).await;
        assert!(matches!(
            client.hear().await,
            ServerMessage::LoggedIn { .. }
        ));
        held.push(client);
    }
    let log = server.log();
    let warned = log
        .lines()
        .filter(|line| line.contains("--proxy-protocol 172.17.0.1"));
    assert_eq!(warned.count(), 1, "{log}");
}
