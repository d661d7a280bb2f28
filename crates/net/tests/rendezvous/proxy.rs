//! Where a proxy is the only way out.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pinhole_net::{
    Answer, ConnectError, Connector, HostSharing, KnownKeys, LogInError, PathAttempt, PathKind,
    PathPolicy, ProxyChoice, ServerConnectError,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::scene::{Client, Server, connect, connect_config, exchange, identity};

/// A name that only the proxy knows.
const HOST: &str = "pinhole.invalid";

/// A proxy that knows where `HOST` is, asks for a password, and forbids all
/// ports but some.
struct Proxy {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// Connections to the server, from these addresses.
    connected_from: Vec<SocketAddr>,
    /// Turned away for want of the password.
    unauthenticated: usize,
    /// What becomes of those who come from now on.
    stalls: Option<Stall>,
}

#[derive(Clone, Copy)]
enum Stall {
    /// They are not answered.
    Silence,
    /// They are told that they are connected, and are not.
    EmptyPromise,
}

impl Proxy {
    /// `ports` maps those that may be asked for to those that are meant.
    async fn start(ports: impl Into<HashMap<u16, u16>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let (ports, seen_) = (Arc::new(ports.into()), seen.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (ports, seen) = (ports.clone(), seen_.clone());
                tokio::spawn(async move { serve(client, &ports, &seen).await });
            }
        });
        Self { address, seen }
    }

    fn choice(&self, credentials: &str) -> ProxyChoice {
        format!("http://{credentials}{}", self.address)
            .parse()
            .unwrap()
    }
}

async fn serve(
    mut client: TcpStream,
    ports: &HashMap<u16, u16>,
    seen: &Mutex<Seen>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(client.read_u8().await?);
    }
    let request = String::from_utf8(request).unwrap();
    // alice:open sesame
    if !request.contains("\r\nProxy-Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWU=\r\n") {
        seen.lock().unwrap().unauthenticated += 1;
        let answer =
            b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\nwho are you?";
        return client.write_all(answer).await;
    }
    let stalls = seen.lock().unwrap().stalls;
    if let Some(stall) = stalls {
        if let Stall::EmptyPromise = stall {
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        }
        // Until they give up.
        return tokio::io::copy(&mut client, &mut tokio::io::sink())
            .await
            .map(drop);
    }
    let target = request.strip_prefix(&format!("CONNECT {HOST}:")).unwrap();
    let port: u16 = target.split_once(' ').unwrap().0.parse().unwrap();
    let Some(&port) = ports.get(&port) else {
        return client.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
    };
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    let from = server.local_addr()?;
    seen.lock().unwrap().connected_from.push(from);
    client
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

const CREDENTIALS: &str = "alice:open%20sesame@";

async fn client(
    server: &Server,
    name: &str,
    path: PathPolicy,
    port: Option<u16>,
    proxy: ProxyChoice,
) -> Result<Client, LogInError> {
    let identity = identity();
    let mut log_in = server.log_in(name, &identity);
    let fingerprint = server.key.fingerprint();
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    log_in.server = format!("{HOST}{port}#{fingerprint}").parse().unwrap();
    log_in.proxy = proxy;
    let (connector, logged_in, events) = Connector::log_in(log_in, connect_config(path)).await?;
    Ok(Client {
        connector,
        logged_in,
        events,
        known: KnownKeys::default(),
        key: identity.key(),
    })
}

#[tokio::test]
async fn all_that_goes_to_the_server_goes_through_the_proxy() {
    let server = Server::start();
    let port = server.port();
    let proxy = Proxy::start([(port, port)]).await;
    let at = |name| {
        let proxy = proxy.choice(CREDENTIALS);
        client(&server, name, PathPolicy::RelayOnly, Some(port), proxy)
    };
    let alice = at("alice").await.unwrap();
    let mut bob = at("bob").await.unwrap();
    let (at_alice, at_bob) = connect(&alice, &mut bob).await;
    let (at_alice, at_bob) = (at_alice.unwrap(), at_bob.unwrap());
    assert_eq!(
        (at_alice.path, at_bob.path),
        (PathKind::Relay, PathKind::Relay)
    );
    assert_eq!(at_alice.remote, proxy.address);
    exchange(at_alice, at_bob, 5_000_000).await;
    let seen = proxy.seen.lock().unwrap();
    // Two logins and two sides of a relay.
    assert_eq!(seen.connected_from.len(), 4);
    assert_eq!(seen.unauthenticated, 0);
    assert!(seen.connected_from.contains(&alice.logged_in.observed));
}

#[tokio::test]
async fn a_proxy_that_makes_no_second_tunnel_is_told_by_its_name_and_soon() {
    let server = Server::start();
    let port = server.port();
    let proxy = Proxy::start([(port, port)]).await;
    let choice = proxy.choice(CREDENTIALS);
    let policy = PathPolicy::RelayOnly;
    let alice = client(&server, "alice", policy, Some(port), choice).await;
    let alice = alice.unwrap();
    let mut bob = Client::with_path(&server, "bob", policy).await;
    for stall in [Stall::Silence, Stall::EmptyPromise] {
        proxy.seen.lock().unwrap().stalls = Some(stall);
        let began = Instant::now();
        let (name, key) = (bob.name(), bob.key);
        let connecting = alice
            .connector
            .connect(name, key, HostSharing::Always, None);
        let connector = bob.connector.clone();
        let accepting = async {
            let invitation = bob.invitation().await;
            // Whatever becomes of it.
            drop(tokio::spawn(async move {
                let accepted = connector.accept(invitation, HostSharing::Always, policy);
                accepted.await.map(drop)
            }));
        };
        let (connected, ()) = tokio::join!(connecting, accepting);
        let error = connected.unwrap_err();
        assert!(matches!(error, ConnectError::Proxy { .. }), "{error}");
        let said = error.to_string();
        assert!(
            said.contains(&format!("http://{}", proxy.address)),
            "{said}"
        );
        assert!(!said.contains("sesame"), "{said}");
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "{:?}",
            began.elapsed()
        );
    }
}

#[tokio::test]
async fn the_proxy_s_address_is_never_a_candidate() {
    let server = Server::start();
    let port = server.port();
    let proxy = Proxy::start([(port, port)]).await;
    let choice = proxy.choice(CREDENTIALS);
    let alice = client(&server, "alice", PathPolicy::Auto, Some(port), choice);
    let alice = alice.await.unwrap();
    let mut bob = Client::new(&server, "bob").await;
    let (at_alice, at_bob) = connect(&alice, &mut bob).await;
    let (at_alice, at_bob) = (at_alice.unwrap(), at_bob.unwrap());
    // Bob, whose server is on loopback, would dial it there.
    for tried in &at_bob.report.tried {
        if let PathAttempt::Dialled(address) = tried.way {
            assert!(!address.ip().is_loopback(), "{}", at_bob.report);
        }
    }
    let chosen = |answer: &Answer| *answer == Answer::Selected;
    assert!(at_alice.report.tried.iter().any(|t| chosen(&t.answer)));
    exchange(at_alice, at_bob, 100_000).await;
}

#[tokio::test]
async fn without_a_port_in_its_address_the_server_is_found_at_that_of_https() {
    let server = Server::start();
    let proxy = Proxy::start([(443, server.port())]).await;
    let alice = client(
        &server,
        "alice",
        PathPolicy::Auto,
        None,
        proxy.choice(CREDENTIALS),
    );
    assert_eq!(alice.await.unwrap().logged_in.server_key, server.key);
}

#[tokio::test]
async fn what_the_proxy_does_not_allow_is_told_without_the_password() {
    let server = Server::start();
    let proxy = Proxy::start([(443, 443)]).await;
    for (credentials, words) in [
        ("", "asks for a user name and a password"),
        (
            "alice:sesame@",
            "does not accept the user name and password",
        ),
        (CREDENTIALS, "does not let anybody connect to port 4747"),
    ] {
        let choice = proxy.choice(credentials);
        let alice = client(&server, "alice", PathPolicy::Auto, Some(4747), choice);
        let error = alice.await.err().unwrap();
        let of_proxy = matches!(error, LogInError::Connect(ServerConnectError::Proxy { .. }));
        assert!(of_proxy, "{error}");
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(text.contains(&proxy.address.to_string()), "{text}");
            assert!(!text.contains("sesame"), "{text}");
        }
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(proxy.seen.lock().unwrap().unauthenticated, 2);
}

#[tokio::test]
async fn a_proxy_that_talks_too_much_or_is_none_is_not_listened_to() {
    let server = Server::start();
    let endless = b"HTTP/1.1 200 OK\r\n".iter().chain([b'x'; 100_000].iter());
    let with_rest = b"HTTP/1.1 200 OK\r\n\r\n{}";
    for answer in [
        endless.copied().collect::<Vec<u8>>(),
        with_rest.to_vec(),
        b"220 mail.example.org ESMTP\r\n\r\n".to_vec(),
        Vec::new(),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let choice = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            client.read_u8().await.unwrap();
            // Fails when the other end has heard enough.
            let _ = client.write_all(&answer).await;
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut Vec::new()).await;
        });
        let alice = client(
            &server,
            "alice",
            PathPolicy::Auto,
            Some(4747),
            choice.parse().unwrap(),
        );
        let error = alice.await.err().unwrap();
        let words = "does not answer as an HTTP proxy";
        assert!(error.to_string().contains(words), "{error}");
    }
}
