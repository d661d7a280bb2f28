//! Finding a host and reaching it at one of several addresses.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::socket::LocalPort;

/// Most addresses of one host that are tried.
const MAX_ADDRESSES: usize = 8;
/// How long a host's name may take to resolve.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one address has to accept a connection.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// Head start of one attempt over the next (RFC 8305).
const NEXT_AFTER: Duration = Duration::from_millis(250);
/// Between two attempts at a host that may come back at any moment.
const REDIAL: Duration = Duration::from_millis(500);

/// An address that did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    pub reason: String,
}

impl std::fmt::Display for Unreached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.address, self.reason)
    }
}

/// Several of them in one line.
pub(crate) fn list(tried: &[Unreached]) -> String {
    let texts: Vec<String> = tried.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// The addresses of a host, without a port.
///
/// # Errors
/// What the resolver said.
pub(crate) async fn lookup(host: &str, limit: Duration) -> Result<Vec<SocketAddr>, String> {
    let found = timeout(limit, tokio::net::lookup_host((host, 0))).await;
    let found = found.map_err(|_| "the name server does not answer")?;
    let found: Vec<SocketAddr> = found.map_err(|error| error.to_string())?.collect();
    match found.is_empty() {
        true => Err("the name has no address".into()),
        false => Ok(found),
    }
}

/// The addresses of a host, each with every one of `ports`: all of the first
/// port, then all of the next.
///
/// # Errors
/// What the resolver said.
pub(crate) async fn resolve(host: &str, ports: &[u16]) -> Result<Vec<SocketAddr>, String> {
    let mut found = lookup(host, RESOLVE_TIMEOUT).await?;
    found.truncate(MAX_ADDRESSES);
    // The port is set rather than the address made anew: the scope stays.
    let at = |port| {
        found.iter().copied().map(move |mut address| {
            address.set_port(port);
            address
        })
    };
    Ok(ports.iter().copied().flat_map(at).collect())
}

/// Connects to the first of the addresses that accepts.
///
/// # Errors
/// What each of them answered, when none does.
pub(crate) async fn tcp(
    addresses: &[SocketAddr],
) -> Result<(SocketAddr, TcpStream), Vec<Unreached>> {
    first_to_accept(addresses, TcpStream::connect).await
}

/// As [`tcp`], from a local port of its own that other connections can share.
///
/// # Errors
/// What each of them answered, when none does.
pub(crate) async fn tcp_from_own_port(
    addresses: &[SocketAddr],
) -> Result<(SocketAddr, (LocalPort, TcpStream)), Vec<Unreached>> {
    let connect = |address: SocketAddr| async move {
        let port = LocalPort::bind_any(address.is_ipv6())?;
        let stream = port.connect(address).await?;
        Ok((port, stream))
    };
    first_to_accept(addresses, connect).await
}

async fn first_to_accept<A, T>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> A,
) -> Result<(SocketAddr, T), Vec<Unreached>>
where
    A: Future<Output = io::Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let dials = addresses.iter().copied().map(|address| {
        let connecting = connect(address);
        async move {
            match within(TCP_TIMEOUT, connecting).await {
                Ok(connected) => Ok((address, connected)),
                Err(error) => Err(Unreached {
                    address,
                    reason: error.to_string(),
                }),
            }
        }
    });
    first_to_succeed(dials).await
}

/// Begins the attempt anew again and again beside those that are under way: the
/// kernel, and whoever resolves names, wait ever longer before they repeat
/// themselves, and a way that comes back is to be found soon. The first that ends
/// decides.
pub(crate) async fn persistently<A, T>(begin: impl Fn() -> A) -> T
where
    A: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let mut begun = JoinSet::new();
    let mut due = interval(REDIAL);
    loop {
        tokio::select! {
            _ = due.tick() => drop(begun.spawn(begin())),
            // One that panicked has said nothing.
            Some(Ok(ended)) = begun.join_next() => return ended,
        }
    }
}

/// Begins the attempts one after the other, each with a short head start over
/// the next, and takes the first that succeeds.
///
/// # Errors
/// Those of all attempts, in the order in which they failed.
pub(crate) async fn first_to_succeed<A, T, E>(
    attempts: impl IntoIterator<Item = A>,
) -> Result<T, Vec<E>>
where
    A: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let mut waiting = attempts.into_iter();
    let mut begun = JoinSet::new();
    let mut failed = Vec::new();
    loop {
        let ended = if let Some(attempt) = waiting.next() {
            begun.spawn(attempt);
            match timeout(NEXT_AFTER, begun.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        } else {
            begun.join_next().await
        };
        match ended {
            Some(Ok(Ok(success))) => return Ok(success),
            Some(Ok(Err(error))) => failed.push(error),
            // It panicked: the others may do better.
            Some(Err(_)) => {}
            None => return Err(failed),
        }
    }
}

/// The outcome of `operation`, which fails when it takes longer than `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    operation: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let silent = || io::Error::new(io::ErrorKind::TimedOut, "no answer");
    timeout(limit, operation)
        .await
        .unwrap_or_else(|_| Err(silent()))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn the_second_address_serves_when_the_first_does_not() {
        let listen = || tokio::net::TcpListener::bind("127.0.0.1:0");
        let refused = listen().await.unwrap().local_addr().unwrap();
        let listener = listen().await.unwrap();
        let good = listener.local_addr().unwrap();
        let (address, _stream) = tcp(&[refused, good]).await.unwrap();
        assert_eq!(address, good);
    }

    #[tokio::test]
    async fn a_connection_can_share_its_port_with_others() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let (_, (port, stream)) = tcp_from_own_port(&[to]).await.unwrap();
        let own = stream.local_addr().unwrap();
        assert_eq!(own.port(), port.address().port());
        let second = port.connect(other.local_addr().unwrap()).await.unwrap();
        assert_eq!(second.local_addr().unwrap(), own);
        port.listen().unwrap();
    }

    #[tokio::test]
    async fn a_silent_attempt_holds_up_the_next_only_for_its_head_start() {
        let begin = tokio::time::Instant::now();
        let attempts = [None, None, Some("third")].map(|answer| async move {
            match answer {
                Some(answer) => Ok::<_, ()>(answer),
                None => pending().await,
            }
        });
        assert_eq!(first_to_succeed(attempts).await, Ok("third"));
        assert!(begin.elapsed() >= NEXT_AFTER * 2);
    }

    #[tokio::test]
    async fn an_attempt_that_hangs_holds_up_the_next_only_for_a_moment() {
        let begin = tokio::time::Instant::now();
        let begun = std::cell::Cell::new(0);
        let third = persistently(|| {
            begun.set(begun.get() + 1);
            let number = begun.get();
            async move {
                match number {
                    3 => number,
                    _ => pending().await,
                }
            }
        });
        assert_eq!(third.await, 3);
        assert!(begin.elapsed() >= REDIAL * 2);
    }

    #[tokio::test]
    async fn all_that_failed_is_told() {
        let attempts = [1, 2, 3].map(|number| async move { Err::<(), _>(number) });
        assert_eq!(first_to_succeed(attempts).await, Err(vec![1, 2, 3]));
    }

    #[tokio::test]
    async fn every_port_is_tried_at_every_address() {
        let found = resolve("127.0.0.1", &[4747, 443]).await.unwrap();
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["127.0.0.1:4747", "127.0.0.1:443"]);
    }
}
