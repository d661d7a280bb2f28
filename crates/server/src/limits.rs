//! Every timeout and budget of the server. Those of the protocol are in
//! [`pinhole_proto::registry`].
//!
//! A bound for "a network" applies to an IPv4 address or an IPv6 /64. The /56 and /48
//! around it may have more, but not in proportion to their networks. An IPv4 /24 has no
//! bound; its connections are evicted first.

use std::time::Duration;

use pinhole_budget::{Bounds, Rate, SubnetBounds};
use pinhole_proto::registry::DIRECTORY_PEOPLE;

/// The limits for one client, for one network, and for all together.
#[derive(Debug, Clone)]
pub struct Limits {
    /// From accepting a connection to its first message, TLS included.
    pub authenticate_timeout: Duration,
    /// How long one frame may take to be written before the client counts as
    /// one that does not read.
    pub write_timeout: Duration,
    /// How long a client may take to hang up after it was told why its connection ends,
    /// so that the reason is not lost.
    pub linger_timeout: Duration,
    /// How long relayed pairs may go on after the server was told to stop. Programs give
    /// them time; whoever runs a server within a test does not wait.
    pub drain: Duration,
    /// What the relay carries.
    pub relay: RelayLimits,
    /// Connections. A key has a control connection, two observations for each
    /// prepared port, and a relay for each session to which it has invited.
    pub connections: Bounds,
    /// Connections that have said nothing yet. When there is no room, the oldest is
    /// evicted, because clients speak first.
    pub silent: Bounds,
    /// Connections that have spoken and wait for their turn at the processor. When there
    /// is no room for a network, the newest is refused: the oldest is served next.
    pub waiting: Bounds,
    /// Connections that have had a turn and not authenticated yet, so none of them is
    /// known. When there is no room, the oldest is evicted, because clients answer at once.
    pub handshakes: Bounds,
    /// Connections of regulars that use the reserve, for one key and one network. Further
    /// ones count as those of newcomers.
    pub regulars: Bounds,
    /// Connections of keys that have a name and do not use the reserve. They count against
    /// these bounds instead of those that the newcomers of their network share. An office
    /// behind one address has three connections for each of its people.
    pub named: Bounds,
    /// How long a name must be registered before its key is a regular.
    pub regular_after: Duration,
    /// Control connections.
    pub sessions: Bounds,
    /// Up to this many people online, everybody is told of everybody; with 0 never.
    pub directory_people: u64,
    /// Observations of keys that are not logged in.
    pub strange_observations: Bounds,
    /// Bytes a second that are read from one control connection.
    pub session_bytes_per_second: u64,
    /// How often one key may log in.
    pub logins_per_key: Rate,
    /// How often newcomers of one network may log in. Everyone behind one address logs in
    /// at once when the server is back; those beyond the limit try again by themselves.
    pub logins_per_network: Rate,
    /// Logins that wait until their name is looked up. Each has a session already, which
    /// is what bounds their number for a network.
    pub claims: Bounds,
    /// How often a name may be bound from one network. A binding is permanent and costs a
    /// write to the disk.
    pub new_names_per_network: Rate,
    /// Names of one key.
    pub names_per_key: u32,
    /// Names in all.
    pub names: u64,
    /// A name that nobody has used for this long is released; `None` for never.
    pub names_expire: Option<Duration>,
    /// How long the server tries to connect back to a client that asks for it.
    pub probe_timeout: Duration,
    /// Clients that are probed at once.
    pub probes: Bounds,
    /// How often a key may ask for it.
    pub probes_per_key: Rate,
    /// How often all keys of one network may.
    pub probes_per_network: Rate,
    /// Lines in the log that one network can cause.
    pub log_lines_per_network: Rate,
    /// Lines in the log that all of them can cause.
    pub log_lines: Rate,
}

/// The given bound for the narrowest network, and twice and four times as much for the
/// /56 and /48 around it.
const fn widening(most: u64) -> SubnetBounds {
    SubnetBounds {
        ipv4: most,
        ipv6_64: most,
        ipv6_56: most.saturating_mul(2),
        ipv6_48: most.saturating_mul(4),
    }
}

impl Default for Limits {
    fn default() -> Self {
        let bounds = |total, reserved, per_key, per_network| Bounds {
            total,
            reserved,
            per_key,
            per_subnet: widening(per_network),
        };
        let rate = |burst, interval| Rate { burst, interval };
        Self {
            authenticate_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(10),
            linger_timeout: Duration::from_secs(1),
            drain: Duration::ZERO,
            relay: RelayLimits::default(),
            // A carrier's NAT puts many users behind one IPv4 address. One home has a
            // /56, and can divide it into many networks.
            connections: Bounds {
                per_subnet: SubnetBounds {
                    ipv4: 1_024,
                    ipv6_64: 1_024,
                    ipv6_56: 1_024,
                    ipv6_48: 2_048,
                },
                ..bounds(32_768, 8_192, 128, 0)
            },
            silent: bounds(4_096, 0, u64::MAX, 2_048),
            // What waits longer is not waited for by its client any more.
            waiting: bounds(6_144, 0, u64::MAX, 6_144),
            handshakes: bounds(4_096, 0, u64::MAX, 2_048),
            regulars: bounds(32_768, 0, 24, 384),
            named: bounds(32_768, 0, 24, 8_192),
            regular_after: Duration::from_secs(24 * 60 * 60),
            sessions: bounds(16_384, 4_096, 32, 256),
            directory_people: DIRECTORY_PEOPLE as u64,
            strange_observations: bounds(2_048, 0, 32, 128),
            session_bytes_per_second: 32 * 1024,
            logins_per_key: rate(60, Duration::from_secs(1)),
            logins_per_network: rate(256, Duration::from_millis(250)),
            claims: Bounds {
                per_subnet: SubnetBounds::UNBOUNDED,
                ..bounds(16_384, 4_096, 32, 0)
            },
            new_names_per_network: rate(256, Duration::from_secs(60)),
            names_per_key: 32,
            names: 1_000_000,
            names_expire: Some(Duration::from_secs(365 * 24 * 60 * 60)),
            // A lost segment is sent again after one second.
            probe_timeout: Duration::from_millis(2_500),
            probes: bounds(256, 0, 1, 16),
            probes_per_key: rate(6, Duration::from_secs(10)),
            probes_per_network: rate(30, Duration::from_secs(2)),
            log_lines_per_network: rate(60, Duration::from_secs(2)),
            log_lines: rate(600, Duration::from_millis(100)),
        }
    }
}

impl Limits {
    /// The same for at most this many people online, and this many newcomers of one
    /// network.
    #[must_use]
    pub fn with_people(mut self, total: u64, per_network: u64) -> Self {
        let reserved = self.sessions.reserved.max(total / 4).min(total / 2);
        self.sessions = Bounds {
            total,
            reserved,
            per_subnet: widening(per_network),
            ..self.sessions
        };
        self
    }

    /// The same for at most this many connections, and this many of one network.
    #[must_use]
    pub fn with_connections(mut self, total: u64, per_network: u64) -> Self {
        self.connections = Bounds {
            total,
            reserved: total / 4,
            per_subnet: SubnetBounds {
                ipv6_48: per_network.saturating_mul(2),
                ..SubnetBounds::uniform(per_network)
            },
            ..self.connections
        };
        self.regulars.total = total;
        self.regulars.per_subnet = widening(per_network / 8 * 3);
        self.named.total = total;
        self.named.per_subnet = widening(per_network.saturating_mul(8));
        self
    }

    /// The same for a process that may open this many files, so that connections run out
    /// before descriptors do.
    #[must_use]
    pub fn within_open_files(mut self, files: u64) -> Self {
        let connections = &mut self.connections;
        if connections.total > files / 8 * 5 {
            connections.total = files / 8 * 5;
            connections.reserved = connections.total / 4;
        }
        // A pipe takes two, so this is a sixty-fourth.
        let pipes = usize::try_from(files / 128).unwrap_or(usize::MAX);
        self.relay.pipes = self.relay.pipes.min(pipes);
        // Evicted connections have their descriptor still for a moment: nearly an eighth
        // remains.
        self.handshakes.total = self.handshakes.total.min(files / 16);
        self.silent.total = self.silent.total.min(files / 16);
        self.waiting.total = self.waiting.total.min(files / 8);
        self
    }
}

/// How many names there may be, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NameLimits {
    pub(crate) names: u64,
    pub(crate) names_per_key: u32,
    pub(crate) expire: Option<Duration>,
}

impl From<&Limits> for NameLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            names: limits.names,
            names_per_key: limits.names_per_key,
            expire: limits.names_expire,
        }
    }
}

/// The limits of the relay. A pair is two peers that meet at it. The bytes of both
/// directions count together, and everything counts against the inviter.
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
    /// Bytes in a day for one inviter, and for all inviters of a network.
    pub network_bytes_per_day: Option<u64>,
    /// Bytes per second of one pair.
    pub bytes_per_second: Option<u64>,
    /// Bytes per second of all pairs together, each of which gets the same
    /// share.
    pub total_bytes_per_second: Option<u64>,
    /// Pairs at once.
    pub pairs: Bounds,
    /// Pipes for fast directions of pairs. Others are copied.
    pub pipes: usize,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            offered: true,
            idle_timeout: Duration::from_secs(600),
            time: Some(Duration::from_secs(24 * 60 * 60)),
            bytes_per_day: Some(50_000_000_000),
            network_bytes_per_day: Some(200_000_000_000),
            bytes_per_second: Some(50_000_000),
            total_bytes_per_second: Some(125_000_000),
            pairs: Bounds {
                total: 4_096,
                reserved: 1_024,
                per_key: 64,
                per_subnet: widening(256),
            },
            // Linux lets a user have 64 MiB in pipes: so many of 64 KiB.
            pipes: 1_024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_used_up_before_descriptors() {
        let few = Limits::default().within_open_files(1_024);
        let Bounds {
            total, reserved, ..
        } = few.connections;
        assert_eq!((total, reserved, few.handshakes.total), (640, 160, 64));
        assert_eq!((few.silent.total, few.waiting.total), (64, 128));
        assert_eq!(few.relay.pipes, 8);
        let many = Limits::default().within_open_files(1_000_000);
        let Bounds {
            total, reserved, ..
        } = many.connections;
        assert_eq!(
            (total, reserved, many.handshakes.total),
            (32_768, 8_192, 4_096)
        );
    }
}
