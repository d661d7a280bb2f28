//! Invitation links: one text with which two people meet, each with the other's key
//! checked, and the server's as well.
//!
//! ```text
//! pinhole://join/HOST:PORT%23FINGERPRINT/NAME.KEY/1.END.SECRET
//! pinhole://join/NAME.KEY/1
//! ```
//!
//! Nothing in it means anything to a shell, so that it can be pasted there unquoted.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use pinhole_net::{PeerIdentity, PeerKey, PeerName, PeerNameError, ServerAddress};
use serde::{Deserialize, Serialize};

use super::proof::{Secret, SecretError};

/// Longest link, in bytes: a QR code of it can still be read from a screen.
const LINK_BYTES_MAX: usize = 512;
/// What every link begins with.
const BEGINNING: &str = "pinhole://join/";
/// The version of what stands behind the last slash.
const VERSION: &str = "1";
/// Most digits of the time at which a link ends.
const END_DIGITS_MAX: usize = 11;
/// What stays as it is in a part of a link.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b',');

/// An invitation that people pass on as a link: `Display` and `FromStr`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InvitationLink {
    inviter: PeerIdentity,
    way: Way,
}

/// How whoever has a link reaches the inviter.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// They find each other on one network.
    Nearby,
    /// Through this server, whose fingerprint is known.
    Server(ServerAddress),
    /// As well, and the inviter lets them in without asking.
    Pass(ServerAddress, Pass),
}

/// What lets somebody in without a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pass {
    pub(crate) secret: Secret,
    /// Until when, in seconds since 1970 UTC.
    pub(crate) ends_at_s: u64,
}

/// Why a text is not an [`InvitationLink`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Longer than 512 bytes.
    #[error("it is longer than any invitation")]
    Length,
    /// A space, or something else that no link has.
    #[error("it has a character that no invitation has. Copy the link alone, and all of it")]
    Character,
    /// Another beginning.
    #[error("an invitation begins with {BEGINNING}")]
    Beginning,
    /// A version that is not known.
    #[error("a newer Pinhole has made it. Update this one to use it")]
    Version,
    /// A part is missing, or one too many.
    #[error("it is incomplete or damaged. Copy all of the link")]
    Parts,
    /// A `%` without two hexadecimal digits, or one that stands for no printable character.
    #[error("it is damaged at a %. Copy the link as it is")]
    Encoding,
    /// No address of a server.
    #[error("the server in it is none: {0}")]
    Server(String),
    /// An address without a fingerprint.
    #[error("it does not say which key its server has, so anybody could pose as it")]
    ServerKey,
    /// No name.
    #[error("the name in it is none: {0}")]
    Name(#[from] PeerNameError),
    /// No key.
    #[error("the key in it is none: {0}")]
    Key(String),
    /// No secret.
    #[error("its secret is incomplete or damaged: {0}. Copy all of the link")]
    Secret(#[from] SecretError),
    /// No time.
    #[error("it does not say until when it is good")]
    End,
    /// A secret that no server could pass on.
    #[error("it has a secret, but names no server")]
    SecretAlone,
}

impl InvitationLink {
    /// A link without a server, for people on one network.
    pub(crate) const fn nearby(inviter: PeerIdentity) -> Self {
        Self {
            inviter,
            way: Way::Nearby,
        }
    }

    /// A link for people who meet at a server.
    ///
    /// # Errors
    /// When the address has no fingerprint, or the link becomes too long.
    pub(crate) fn at_server(
        inviter: PeerIdentity,
        server: ServerAddress,
        pass: Pass,
    ) -> Result<Self, LinkError> {
        if server.fingerprint().is_none() {
            return Err(LinkError::ServerKey);
        }
        let way = Way::Pass(server, pass);
        let link = Self { inviter, way };
        match link.to_string().len() <= LINK_BYTES_MAX {
            true => Ok(link),
            false => Err(LinkError::Length),
        }
    }

    /// Who invites.
    #[must_use]
    pub const fn inviter(&self) -> &PeerIdentity {
        &self.inviter
    }

    /// Where to meet them, with the fingerprint of the server's key.
    #[must_use]
    pub const fn server(&self) -> Option<&ServerAddress> {
        match &self.way {
            Way::Nearby => None,
            Way::Server(server) | Way::Pass(server, _) => Some(server),
        }
    }

    /// What lets us in without a question.
    pub(crate) const fn pass(&self) -> Option<Pass> {
        match self.way {
            Way::Pass(_, pass) => Some(pass),
            Way::Nearby | Way::Server(_) => None,
        }
    }

    /// Until when it is good, in seconds since 1970 UTC, if it says so.
    #[must_use]
    pub fn ends_at_s(&self) -> Option<u64> {
        self.pass().map(|pass| pass.ends_at_s)
    }

    /// The same in capital letters, which make a smaller QR code: there, capital letters
    /// take less room, and to a reader of links they are the same.
    #[must_use]
    pub fn for_qr_code(&self) -> String {
        // The one character of names that is not among the cheap ones.
        self.to_string().replace('_', "%5f").to_ascii_uppercase()
    }
}

impl fmt::Display for InvitationLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(BEGINNING)?;
        if let Some(server) = self.server() {
            let server = server.to_string();
            write!(f, "{}/", utf8_percent_encode(&server, ENCODED))?;
        }
        write!(f, "{}.{}/{VERSION}", self.inviter.name, self.inviter.key)?;
        match self.pass() {
            Some(pass) => write!(f, ".{}.{}", pass.ends_at_s, pass.secret),
            None => Ok(()),
        }
    }
}

impl FromStr for InvitationLink {
    type Err = LinkError;

    /// Reads a link in any case. A `#` may stand for `%23`, as some programs write it.
    fn from_str(text: &str) -> Result<Self, LinkError> {
        if text.len() > LINK_BYTES_MAX {
            return Err(LinkError::Length);
        }
        let is_of_links = |it: char| {
            it.is_ascii_alphanumeric()
                || matches!(it, '-' | '.' | '_' | '~' | ':' | ',')
                || matches!(it, '/' | '%' | '#' | '[' | ']')
        };
        if !text.chars().all(is_of_links) {
            return Err(LinkError::Character);
        }
        let text = text.to_ascii_lowercase();
        let rest = text.strip_prefix(BEGINNING).ok_or(LinkError::Beginning)?;
        let (rest, terms) = rest.rsplit_once('/').ok_or(LinkError::Parts)?;
        let pass = parse_terms(&decoded(terms)?)?;
        let (server, inviter) = match rest.split_once('/') {
            Some((server, inviter)) => (Some(parse_server(&decoded(server)?)?), inviter),
            None => (None, rest),
        };
        let inviter = parse_inviter(&decoded(inviter)?)?;
        let way = match (server, pass) {
            (None, None) => Way::Nearby,
            (Some(server), None) => Way::Server(server),
            (Some(server), Some(pass)) => Way::Pass(server, pass),
            (None, Some(_)) => return Err(LinkError::SecretAlone),
        };
        Ok(Self { inviter, way })
    }
}

/// A part of a link without its encoding.
fn decoded(part: &str) -> Result<String, LinkError> {
    let mut bytes = part.bytes();
    while let Some(byte) = bytes.next() {
        let mut is_digit = || bytes.next().is_some_and(|it| it.is_ascii_hexdigit());
        if byte == b'%' && !(is_digit() && is_digit()) {
            return Err(LinkError::Encoding);
        }
    }
    let decoded = percent_decode_str(part).decode_utf8();
    let decoded = decoded.map_err(|_| LinkError::Encoding)?;
    match decoded.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(decoded.to_ascii_lowercase()),
        false => Err(LinkError::Encoding),
    }
}

/// `1` or `1.END.SECRET`.
fn parse_terms(text: &str) -> Result<Option<Pass>, LinkError> {
    let mut parts = text.split('.');
    let version = parts.next().unwrap_or_default();
    let is_number = !version.is_empty() && version.bytes().all(|it| it.is_ascii_digit());
    match version {
        VERSION => {}
        _ if is_number => return Err(LinkError::Version),
        _ => return Err(LinkError::Parts),
    }
    let Some(end) = parts.next() else {
        return Ok(None);
    };
    let (Some(secret), None) = (parts.next(), parts.next()) else {
        return Err(LinkError::Parts);
    };
    let is_time = end.len() <= END_DIGITS_MAX && end.bytes().all(|it| it.is_ascii_digit());
    let ends_at_s = end.parse().ok().filter(|_| is_time);
    Ok(Some(Pass {
        secret: secret.to_owned().try_into()?,
        ends_at_s: ends_at_s.ok_or(LinkError::End)?,
    }))
}

/// `HOST[:PORT][,…]#FINGERPRINT`.
fn parse_server(text: &str) -> Result<ServerAddress, LinkError> {
    let server: ServerAddress = text
        .parse()
        .map_err(|error| LinkError::Server(format!("{error}")))?;
    match server.fingerprint() {
        Some(_) => Ok(server),
        None => Err(LinkError::ServerKey),
    }
}

/// `NAME.KEY`. A name may have dots, a key has none.
fn parse_inviter(text: &str) -> Result<PeerIdentity, LinkError> {
    let (name, key) = text.rsplit_once('.').ok_or(LinkError::Parts)?;
    let key: Result<PeerKey, _> = key.to_owned().try_into();
    let key = key.map_err(|error| LinkError::Key(error.to_string()))?;
    Ok(PeerIdentity {
        name: PeerName::try_from(name.to_owned())?,
        key,
    })
}

impl From<InvitationLink> for String {
    fn from(link: InvitationLink) -> Self {
        link.to_string()
    }
}

impl TryFrom<String> for InvitationLink {
    type Error = LinkError;

    fn try_from(text: String) -> Result<Self, LinkError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests;
