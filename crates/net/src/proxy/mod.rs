//! The way out through an HTTP proxy: CONNECT (RFC 9110, section 9.3.6), after
//! which the proxy passes bytes on as they are.
//!
//! The proxy resolves the server's name: where a proxy is the only way out,
//! there is often no name server either.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use data_encoding::BASE64;
use httparse::{Header, ParserConfig, Response, Status};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::dial::{self, Unreached, list, within};
use crate::server_address::{bare_host, parse_port, split_port};

/// How long the proxy may take to connect and to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Most bytes of the proxy's answer.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// Most headers of the proxy's answer.
const MAX_HEADERS: usize = 128;
/// Most characters of the proxy's own words that are passed on.
const MAX_REASON_CHARS: usize = 80;
/// What RFC 3986, section 2.3, leaves as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The port of a proxy whose URL names none.
const DEFAULT_PORT: u16 = 80;

/// An HTTP proxy, `http://[USER:PASSWORD@]HOST[:PORT]`. What is shown of it
/// never has the password in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    credentials: Option<Credentials>,
}

#[derive(Clone, PartialEq, Eq)]
struct Credentials {
    user: String,
    password: String,
}

/// Why a text is not a [`Proxy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyTextError {
    /// `https:`, `socks5:` and others.
    #[error("only HTTP proxies are supported: http://HOST:PORT")]
    Scheme,
    /// Something that is no host, no port, or more than both.
    #[error("a proxy is http://HOST:PORT or http://USER:PASSWORD@HOST:PORT")]
    Place,
    /// A user or password that is not percent-encoded, or cannot be sent.
    #[error(
        "in the proxy's user name and password, everything but letters and digits is written as %XX"
    )]
    Credentials,
}

/// Why the proxy leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The proxy's name has no address.
    #[error("its name is not known ({0})")]
    Unresolved(String),
    /// The proxy does not accept connections.
    #[error("it does not answer ({})", list(.0))]
    Unreachable(Vec<Unreached>),
    /// Status 407, and nothing to authenticate with was at hand.
    #[error("it asks for a user name and a password; give it as http://USER:PASSWORD@HOST:PORT")]
    AuthenticationRequired,
    /// Status 407, although there was a user and a password.
    #[error("it does not accept the user name and password")]
    AuthenticationFailed,
    /// Status 407, and it takes no passwords.
    #[error("it asks for another kind of authentication than a password ({0})")]
    AuthenticationUnsupported(String),
    /// Status 403 or 405.
    #[error(
        "it does not let anybody connect to port {port}; a server that listens on port 443 may be allowed"
    )]
    Forbidden {
        /// The server's port.
        port: u16,
    },
    /// Any other status that is no success.
    #[error("it could not connect to the server: {0}")]
    Refused(String),
    /// It says that it is connected, but no Pinhole server answers there.
    #[error("it says that it is connected, but no Pinhole server answers through it ({0})")]
    Tunnel(String),
    /// What it answered is not HTTP.
    #[error("it does not answer as an HTTP proxy")]
    NotHttp,
    /// The connection to it broke, or it was silent.
    #[error("the connection to it failed: {0}")]
    Io(#[from] std::io::Error),
}

impl Proxy {
    /// A connection to `host` and `port` through the proxy.
    ///
    /// # Errors
    /// Says what to do about it, where something can be done.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, ProxyError> {
        let addresses = dial::resolve(&self.host, &[self.port]).await;
        let addresses = addresses.map_err(ProxyError::Unresolved)?;
        let (_, mut tcp) = dial::tcp(&addresses)
            .await
            .map_err(ProxyError::Unreachable)?;
        let request = self.request(host, port);
        let exchange = async {
            tcp.write_all(request.as_bytes()).await?;
            read_answer(&mut tcp).await
        };
        let answer = within(ANSWER_TIMEOUT, exchange).await?;
        self.judge(&answer, port)?;
        Ok(tcp)
    }

    fn request(&self, host: &str, port: u16) -> String {
        let place = place(host, port);
        let authorization = match &self.credentials {
            Some(Credentials { user, password }) => {
                let pair = BASE64.encode(format!("{user}:{password}").as_bytes());
                format!("Proxy-Authorization: Basic {pair}\r\n")
            }
            None => String::new(),
        };
        format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{authorization}\r\n")
    }

    /// Whether the proxy's answer means that it is connected. Nothing may follow the
    /// head then: the server waits for the client to speak first.
    fn judge(&self, answer: &[u8], port: u16) -> Result<(), ProxyError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = Response::new(&mut headers);
        let Ok(Status::Complete(head_bytes)) = parse(&mut response, answer) else {
            return Err(ProxyError::NotHttp);
        };
        let code = response.code.unwrap_or_default();
        match code {
            200..300 if head_bytes == answer.len() => Ok(()),
            200..300 => Err(ProxyError::NotHttp),
            407 => Err(self.not_authenticated(response.headers)),
            403 | 405 => Err(ProxyError::Forbidden { port }),
            _ => {
                let status = format!("{code} {}", response.reason.unwrap_or_default());
                Err(ProxyError::Refused(shown(status.trim_end())))
            }
        }
    }

    fn not_authenticated(&self, headers: &[Header<'_>]) -> ProxyError {
        let asks = headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case("proxy-authenticate"));
        let asks = asks.map(|header| {
            let value = str::from_utf8(header.value).unwrap_or_default();
            value.split_whitespace().next().unwrap_or_default()
        });
        let schemes: Vec<&str> = asks.collect();
        let takes_passwords = schemes.iter().any(|s| s.eq_ignore_ascii_case("basic"));
        if !schemes.is_empty() && !takes_passwords {
            ProxyError::AuthenticationUnsupported(shown(&schemes.join(", ")))
        } else if self.credentials.is_some() {
            ProxyError::AuthenticationFailed
        } else {
            ProxyError::AuthenticationRequired
        }
    }

    /// The whole URL, password and all: for the file of the settings.
    fn url(&self) -> String {
        let credentials = match &self.credentials {
            Some(Credentials { user, password }) => {
                let encoded = |text| utf8_percent_encode(text, RESERVED);
                format!("{}:{}@", encoded(user), encoded(password))
            }
            None => String::new(),
        };
        format!("http://{credentials}{}", place(&self.host, self.port))
    }
}

/// Of someone else's words, what can be shown.
fn shown(words: &str) -> String {
    let printable = words.chars().filter(|c| matches!(c, ' '..='~'));
    printable.take(MAX_REASON_CHARS).collect()
}

fn place(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Reads an answer as proxies give it, whatever headers it has.
fn parse<'b>(
    response: &mut Response<'_, 'b>,
    answer: &'b [u8],
) -> Result<Status<usize>, httparse::Error> {
    let mut config = ParserConfig::default();
    config.ignore_invalid_headers_in_responses(true);
    config.parse_response(response, answer)
}

/// The proxy's answer, as soon as its head is whole or cannot become so.
async fn read_answer(tcp: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut bytes = [0; 1024];
    while answer.len() < MAX_ANSWER_BYTES {
        let count = tcp.read(&mut bytes).await?;
        answer.extend_from_slice(bytes.get(..count).unwrap_or_default());
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let parsed = parse(&mut Response::new(&mut headers), &answer);
        if count == 0 || !matches!(parsed, Ok(Status::Partial)) {
            break;
        }
    }
    Ok(answer)
}

impl FromStr for Proxy {
    type Err = ProxyTextError;

    fn from_str(text: &str) -> Result<Self, ProxyTextError> {
        let text = text.trim();
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(ProxyTextError::Scheme),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials.parse()?), place),
            None => (None, rest),
        };
        let (host, port) = split_port(place);
        let port = port.map_or(Some(DEFAULT_PORT), parse_port);
        let (host, port) = bare_host(host).zip(port).ok_or(ProxyTextError::Place)?;
        Ok(Self {
            host: host.to_owned(),
            port,
            credentials,
        })
    }
}

impl FromStr for Credentials {
    type Err = ProxyTextError;

    fn from_str(text: &str) -> Result<Self, ProxyTextError> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let (user, password) = (decoded(user)?, decoded(password)?);
        // RFC 7617, section 2.
        let is_sendable =
            !user.contains(':') && !(user.clone() + &password).contains(char::is_control);
        let credentials = Self { user, password };
        is_sendable
            .then_some(credentials)
            .ok_or(ProxyTextError::Credentials)
    }
}

fn decoded(text: &str) -> Result<String, ProxyTextError> {
    let is_code = |rest: &str| {
        let digits = rest.as_bytes().first_chunk::<2>();
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    // The crate leaves a percent sign as it is that nobody has encoded.
    if !text.split('%').skip(1).all(is_code) {
        return Err(ProxyTextError::Credentials);
    }
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| ProxyTextError::Credentials)?;
    Ok(decoded.into_owned())
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", place(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Whether the server is reached through a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ProxyChoice {
    /// Through the one that the environment names, if it does: `https_proxy`,
    /// then `all_proxy`, each in small letters or capitals, unless `no_proxy`
    /// excepts the server. A server on this very machine is always excepted.
    #[default]
    Environment,
    /// Never.
    Never,
    /// Always through this one.
    Through(Proxy),
}

impl ProxyChoice {
    /// The proxy to use for the server at `host`.
    #[must_use]
    pub fn proxy_for(&self, host: &str) -> Option<Proxy> {
        match self {
            Self::Environment => from_environment(host, |name| std::env::var(name).ok()),
            Self::Never => None,
            Self::Through(proxy) => Some(proxy.clone()),
        }
    }

    /// As it is typed: nothing for the environment, `none` for never, and
    /// otherwise the URL with its password.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Environment => String::new(),
            Self::Never => "none".to_owned(),
            Self::Through(proxy) => proxy.url(),
        }
    }
}

impl FromStr for ProxyChoice {
    type Err = ProxyTextError;

    fn from_str(text: &str) -> Result<Self, ProxyTextError> {
        match text.trim() {
            "" => Ok(Self::Environment),
            "none" => Ok(Self::Never),
            url => Ok(Self::Through(url.parse()?)),
        }
    }
}

impl TryFrom<String> for ProxyChoice {
    type Error = ProxyTextError;

    fn try_from(text: String) -> Result<Self, ProxyTextError> {
        text.parse()
    }
}

impl From<ProxyChoice> for String {
    fn from(choice: ProxyChoice) -> Self {
        choice.to_text()
    }
}

/// What curl would use for an `https:` URL of that host, but that a server on
/// this machine is never asked for at a proxy, as in browsers.
fn from_environment(host: &str, variable: impl Fn(&str) -> Option<String>) -> Option<Proxy> {
    let first = |names: &[&str]| {
        let mut values = names.iter().filter_map(|name| variable(name));
        values.find(|value| !value.trim().is_empty())
    };
    let url = first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])?;
    let excepted = first(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
    if is_local(host) || is_excepted(host, &excepted) {
        return None;
    }
    url.parse()
        // Its own words: the URL may have a password in it.
        .inspect_err(|error| tracing::warn!("the proxy of the environment is not used: {error}"))
        .ok()
}

fn is_local(host: &str) -> bool {
    let ip = host.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Whether `no_proxy` has the host in it: a list of names, each standing for
/// its subdomains too, addresses, and networks in CIDR form; or `*`.
fn is_excepted(host: &str, no_proxy: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let ip = host.parse::<IpAddr>().ok();
    let entries = no_proxy.split([',', ' ']).map(str::trim);
    entries.filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        match ip {
            Some(ip) => in_network(ip, entry),
            None => {
                let domain = entry.trim_matches('.').to_ascii_lowercase();
                let subdomain = host.strip_suffix(&domain);
                !domain.is_empty()
                    && subdomain.is_some_and(|sub| sub.is_empty() || sub.ends_with('.'))
            }
        }
    })
}

/// Whether the address is the one written, or in the network written.
fn in_network(ip: IpAddr, written: &str) -> bool {
    let (address, prefix) = match written.split_once('/') {
        Some((address, prefix)) => (address, prefix.parse::<u32>().ok()),
        None => (written, Some(u32::MAX)),
    };
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let (Ok(address), Some(prefix)) = (address.parse::<IpAddr>(), prefix) else {
        return false;
    };
    let same = |a: u128, b: u128, width: u32| {
        let host_bits = width - prefix.min(width);
        a.checked_shr(host_bits).unwrap_or(0) == b.checked_shr(host_bits).unwrap_or(0)
    };
    match (ip, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
