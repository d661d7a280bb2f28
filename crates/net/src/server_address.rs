//! Where a rendezvous server is, and who it must be.

use std::fmt;
use std::str::FromStr;

use pinhole_proto::key::{Fingerprint, KeyTextError};
use pinhole_proto::rendezvous::DEFAULT_PORT;
use serde::{Deserialize, Serialize};

/// The port that networks close last.
const HTTPS_PORT: u16 = 443;

/// `HOST[:PORT][,HOST[:PORT]…][#FINGERPRINT]`: the address that people pass on to each
/// other. An IPv6 address as host stands in brackets. Without a port it stands for
/// the usual one and, where that does not answer, the one of HTTPS, which most
/// networks let through.
///
/// A server that is several nodes can be at several places, of which the first that
/// answers is taken. All have the same key.
///
/// With the fingerprint, nobody on the way can pose as the server; without,
/// the first key seen has to be trusted and pinned.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerAddress {
    place: Place,
    other_places: Vec<Place>,
    fingerprint: Option<Fingerprint>,
}

/// A host, and a port if it is not the usual one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    host: String,
    port: Option<u16>,
}

/// Why a text is not a [`ServerAddress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ServerAddressError {
    /// Nothing before the colon, or characters no host name has.
    #[error("a server address is HOST or HOST:PORT, with the name or address of a host")]
    Host,
    /// After the colon no number from 1 to 65535.
    #[error("the port in a server address is a number from 1 to 65535")]
    Port,
    /// More than [`ServerAddress::MAX_PLACES`].
    #[error("a server address has at most {} places", ServerAddress::MAX_PLACES)]
    Places,
    /// Something after `#` that is not a fingerprint.
    #[error(transparent)]
    Fingerprint(#[from] KeyTextError),
}

impl ServerAddress {
    /// Most places of one server.
    pub const MAX_PLACES: usize = 8;

    /// The host's name or IP address, without brackets, at the first place.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.place.host
    }

    /// The TCP ports at which it may be at the first place, in the order of preference.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        self.place.ports()
    }

    /// Every host with its ports, in the order of preference.
    pub fn places(&self) -> impl Iterator<Item = (&str, Vec<u16>)> {
        let places = std::iter::once(&self.place).chain(&self.other_places);
        places.map(|place| (&*place.host, place.ports()))
    }

    /// The fingerprint that the server's key must have, when it is known.
    #[must_use]
    pub const fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// The same place, with the key it must have.
    #[must_use]
    pub fn with_fingerprint(&self, fingerprint: Fingerprint) -> Self {
        Self {
            fingerprint: Some(fingerprint),
            ..self.clone()
        }
    }

    /// The places alone, `HOST[:PORT]` parted by commas.
    #[must_use]
    pub fn host_port(&self) -> String {
        let place = Self {
            fingerprint: None,
            ..self.clone()
        };
        place.to_string()
    }
}

impl TryFrom<String> for ServerAddress {
    type Error = ServerAddressError;

    fn try_from(text: String) -> Result<Self, ServerAddressError> {
        text.parse()
    }
}

impl From<ServerAddress> for String {
    fn from(address: ServerAddress) -> Self {
        address.to_string()
    }
}

impl FromStr for ServerAddress {
    type Err = ServerAddressError;

    fn from_str(text: &str) -> Result<Self, ServerAddressError> {
        let (places, fingerprint) = match text.trim().split_once('#') {
            Some((places, fingerprint)) => (places, Some(fingerprint.parse()?)),
            None => (text.trim(), None),
        };
        let mut places = places.split(',');
        let place = places.next().unwrap_or_default().parse()?;
        let other_places: Vec<_> = places.map(str::parse).collect::<Result<_, _>>()?;
        match other_places.len() < Self::MAX_PLACES {
            true => Ok(Self {
                place,
                other_places,
                fingerprint,
            }),
            false => Err(ServerAddressError::Places),
        }
    }
}

impl Place {
    fn ports(&self) -> Vec<u16> {
        match self.port {
            Some(port) => vec![port],
            None => vec![DEFAULT_PORT, HTTPS_PORT],
        }
    }
}

impl FromStr for Place {
    type Err = ServerAddressError;

    fn from_str(text: &str) -> Result<Self, ServerAddressError> {
        let (host, port) = split_port(text);
        let port = port.map(|port| parse_port(port).ok_or(ServerAddressError::Port));
        let port = port.transpose()?;
        let host = bare_host(host).ok_or(ServerAddressError::Host)?;
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// The host as it is written, and the port if there is one.
pub(crate) fn split_port(place: &str) -> (&str, Option<&str>) {
    match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    }
}

/// A number from 1 to 65535.
pub(crate) fn parse_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&port| is_number && port != 0)
}

/// The host without the brackets of an IPv6 address; `None` if it is none.
pub(crate) fn bare_host(written: &str) -> Option<&str> {
    match written.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok().then_some(v6),
        None => is_host(written).then_some(written),
    }
}

/// Whether `text` may be a host name or an IPv4 address. Names in other
/// scripts are written in their ASCII form.
fn is_host(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    (1..=253).contains(&text.len()) && text.bytes().all(allowed)
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)?;
        for place in &self.other_places {
            write!(f, ",{place}")?;
        }
        match self.fingerprint {
            Some(fingerprint) => write!(f, "#{fingerprint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINT: &str = "abcdefghijklmnopqrstuvwxyz234567";

    #[test]
    fn every_good_form_is_shown_as_it_was_written() {
        let usual: &[u16] = &[4747, 443];
        for (text, host, ports) in [
            ("example.org:4747", "example.org", &[4747][..]),
            ("203.0.113.1:1", "203.0.113.1", &[1]),
            ("[2001:db8::1]:65535", "2001:db8::1", &[65535]),
            ("my-host_1:443", "my-host_1", &[443]),
            ("example.org", "example.org", usual),
            ("203.0.113.1", "203.0.113.1", usual),
            ("[2001:db8::1]", "2001:db8::1", usual),
        ] {
            let plain: ServerAddress = text.parse().unwrap();
            assert_eq!((plain.host(), &plain.ports()[..]), (host, ports));
            assert_eq!(plain.fingerprint(), None);
            assert_eq!(plain.to_string(), text);
            let pinned: ServerAddress = format!("{text}#{PRINT}").parse().unwrap();
            assert_eq!(pinned.fingerprint(), Some(PRINT.parse().unwrap()));
            assert_eq!(pinned.to_string(), format!("{text}#{PRINT}"));
        }
    }

    #[test]
    fn a_server_can_be_at_several_places() {
        let text = format!("a.example.org,[2001:db8::1]:4748,203.0.113.1:443#{PRINT}");
        let server: ServerAddress = text.parse().unwrap();
        assert_eq!(server.to_string(), text);
        let places: Vec<_> = server.places().collect();
        let expected = [
            ("a.example.org", vec![4747, 443]),
            ("2001:db8::1", vec![4748]),
            ("203.0.113.1", vec![443]),
        ];
        assert_eq!(places, expected);
        assert_eq!(
            "a,,b".parse::<ServerAddress>(),
            Err(ServerAddressError::Host)
        );
        let many = ["a"; ServerAddress::MAX_PLACES + 1].join(",");
        assert_eq!(
            many.parse::<ServerAddress>(),
            Err(ServerAddressError::Places)
        );
    }

    #[test]
    fn every_bad_form_says_what_is_wrong_with_it() {
        use ServerAddressError::{Fingerprint, Host, Port};
        for (text, error) in [
            ("", Host),
            ("example.org:", Port),
            ("example.org:0", Port),
            ("example.org:65536", Port),
            ("example.org:+1", Port),
            ("example.org:47a", Port),
            (":4747", Host),
            ("2001:db8::1:4747", Host),
            ("[2001:db8::1]4747", Port),
            ("[2001:db8::1:4747", Host),
            ("[example.org]:4747", Host),
            ("exam ple:4747", Host),
            ("exam/ple:4747", Host),
            ("b\u{fc}cher:4747", Host),
            ("example.org:4747#", Fingerprint(KeyTextError::Fingerprint)),
            (
                "example.org:4747#abc",
                Fingerprint(KeyTextError::Fingerprint),
            ),
        ] {
            assert_eq!(text.parse::<ServerAddress>(), Err(error), "{text:?}");
        }
    }
}
