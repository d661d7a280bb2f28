//! What a router says when it is asked.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// How a router was asked for a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MappingProtocol {
    /// Port Control Protocol, RFC 6887.
    Pcp,
    /// NAT Port Mapping Protocol, RFC 6886.
    NatPmp,
    /// `UPnP` Internet Gateway Device.
    Upnp,
}

impl fmt::Display for MappingProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// A mapping that a router granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// How it was asked.
    pub protocol: MappingProtocol,
    /// Where it says that the port can be reached.
    pub external: SocketAddr,
}

/// What the router says of its own outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouterOutside {
    /// Nothing.
    #[default]
    Unsaid,
    /// That it has this address.
    Address(IpAddr),
    /// That there is a network failure. As connections come through, that means
    /// an address which it knows to be none of the internet.
    Unusable,
}
