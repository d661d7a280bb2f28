//! Every timeout and cap of the server's own; those of the protocol are in
//! [`pinhole_proto::registry`].

use std::time::Duration;

/// So many at once, and one more whenever so long has passed.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// As many as can follow each other without a pause.
    pub at_once: u32,
    /// The time after which one more may come.
    pub interval: Duration,
}

/// What one client, one address, and all of them together may take.
///
/// "Address" is one IPv4 address or one IPv6 /64: what one household has.
#[derive(Debug, Clone)]
pub struct Limits {
    /// From accepting a connection to its first message, TLS included.
    pub authenticate_timeout: Duration,
    /// How long one frame may take to be written before the client counts as
    /// one that does not read.
    pub write_timeout: Duration,
    /// What the relay carries.
    pub relay: RelayLimits,
    /// How long a client that was told why its connection ends may take to
    /// hang up by itself, so that the reason is not lost.
    pub linger_timeout: Duration,
    /// Connections in all.
    pub connections: usize,
    /// Connections in all that have not authenticated yet.
    pub handshakes: usize,
    /// Connections of one address. A carrier's NAT has many users, each with
    /// a handful of connections.
    pub connections_per_address: usize,
    /// Connections of one address that have not authenticated yet.
    pub handshakes_per_address: usize,
    /// Connections of one key: a control connection, two observations for each
    /// prepared port, and a relay for each session.
    pub connections_per_key: usize,
    /// How often somebody at one address may log in. All who share an address
    /// come at once when the server is back; those beyond try again by
    /// themselves. Everybody hears of each, so it is far less than the frames
    /// that may wait for a client.
    pub logins_per_address: Rate,
    /// How often a name may be bound from one address. That is for good, and
    /// costs a write to the disk.
    pub new_names_per_address: Rate,
    /// Names of one key.
    pub names_per_key: u32,
    /// Logins of one address that wait until their name is looked up.
    pub claims_per_address: usize,
    /// How long the server tries to connect back to a client that asks for it.
    pub probe_timeout: Duration,
    /// Clients at a time to which it tries that.
    pub probes: usize,
    /// How often in a minute a key may ask for it.
    pub probes_per_key: usize,
    /// How often in a minute all keys at one address may.
    pub probes_per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            authenticate_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(10),
            relay: RelayLimits::default(),
            linger_timeout: Duration::from_secs(1),
            connections: 16_384,
            handshakes: 4_096,
            connections_per_address: 1_024,
            handshakes_per_address: 256,
            connections_per_key: 128,
            logins_per_address: Rate {
                at_once: 256,
                interval: Duration::from_millis(250),
            },
            new_names_per_address: Rate {
                at_once: 256,
                interval: Duration::from_secs(60),
            },
            names_per_key: 32,
            claims_per_address: 128,
            // A lost segment is sent again after one second.
            probe_timeout: Duration::from_millis(2_500),
            probes: 256,
            probes_per_key: 6,
            probes_per_address: 30,
        }
    }
}

/// What the relay may take. A pair are two peers that meet at it; the bytes of
/// both directions count together.
#[derive(Debug, Clone)]
pub struct RelayLimits {
    /// Whether there is a relay at all.
    pub offered: bool,
    /// How long a pair may carry nothing in either direction.
    pub idle_timeout: Duration,
    /// How long a pair may last.
    pub time: Option<Duration>,
    /// Bytes between the same two keys in a day.
    pub bytes_per_day: Option<u64>,
    /// Bytes per second of one pair.
    pub bytes_per_second: Option<u64>,
    /// Bytes per second of all pairs together, each of which gets the same
    /// share.
    pub total_bytes_per_second: Option<u64>,
    /// Pairs at a time.
    pub pairs: usize,
    /// Pairs of one address at a time.
    pub pairs_per_address: usize,
    /// Pairs of one key at a time.
    pub pairs_per_key: usize,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            offered: true,
            idle_timeout: Duration::from_secs(600),
            time: None,
            bytes_per_day: None,
            bytes_per_second: None,
            total_bytes_per_second: None,
            pairs: 4_096,
            pairs_per_address: 256,
            pairs_per_key: 64,
        }
    }
}
