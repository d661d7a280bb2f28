//! The limits that an operator can set.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use pinhole_server::{Limits, RelayLimits};

use super::values::{ByteLimit, Days, Minutes, Span};

/// More than a machine has memory for.
const MOST: u64 = 10_000_000;

fn count() -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(1..=MOST)
}

/// Enough for many transfers to end, and shorter than service managers wait.
const DRAIN: Duration = Duration::from_secs(30);

/// Every limit that an operator can set.
#[derive(Debug, Args)]
pub(crate) struct LimitArguments {
    /// How long relayed pairs may go on after SIGTERM: 30s, 2m, or 0 to cut them off. A
    /// second SIGTERM cuts them off as well
    #[arg(long, value_name = "TIME", default_value_t = Span(DRAIN))]
    drain: Span,
    #[command(flatten)]
    caps: CapArguments,
    #[command(flatten)]
    relay: RelayArguments,
}

/// The limits of people, connections and names.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits of people, connections and names")]
struct CapArguments {
    /// The most people online at once
    #[arg(long, value_name = "COUNT", value_parser = count(),
        default_value_t = Limits::default().sessions.total)]
    max_people: u64,
    /// The most newcomers online at once from one address
    #[arg(long, value_name = "COUNT", value_parser = count(),
        default_value_t = Limits::default().sessions.per_subnet.ipv4)]
    max_people_per_address: u64,
    /// Whether clients are told of everybody who is online. Otherwise, and whenever more
    /// people are online than --directory-max, they are told of those whom they know or
    /// look up by name, and nobody can list the names
    #[arg(long, value_name = "WHICH", default_value = "open")]
    directory: DirectoryChoice,
    /// The most people online while the directory is open
    #[arg(long, value_name = "COUNT", value_parser = count(),
        default_value_t = Limits::default().directory_people)]
    directory_max: u64,
    /// The most connections at once, of which each person needs a handful. The limit of
    /// open files bounds them as well
    #[arg(long, value_name = "COUNT", value_parser = count(),
        default_value_t = Limits::default().connections.total)]
    max_connections: u64,
    /// The most connections at once from one address
    #[arg(long, value_name = "COUNT", value_parser = count(),
        default_value_t = Limits::default().connections.per_subnet.ipv4)]
    max_connections_per_address: u64,
    /// The most names that are registered
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().names)]
    max_names: u64,
    /// The most names of one key
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().names_per_key)]
    max_names_per_key: u32,
    /// Release a name that nobody has used for this long, such as 365d; 0 for never. Those
    /// who know its former owner are told
    #[arg(long, value_name = "TIME", default_value_t = Days(Limits::default().names_expire))]
    names_expire: Days,
}

/// Whether everybody is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DirectoryChoice {
    Open,
    Closed,
}

/// The limits of the relay. Amounts are written as 500k, 1.5M, 2MiB or 10G.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits of the relay (\"none\" for no limit)")]
struct RelayArguments {
    /// Introduce peers to each other, but carry nothing for them
    #[arg(
        long, num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set,
        default_value_t = false, default_missing_value = "true", hide_possible_values = true,
        hide_default_value = true, value_name = "true|false"
    )]
    no_relay: bool,
    /// The most bytes between the same two peers in a day
    #[arg(long, value_name = "BYTES", default_value_t = ByteLimit(RelayLimits::default().bytes_per_day))]
    relay_bytes: ByteLimit,
    /// The most bytes in a day for all who send from one address
    #[arg(long, value_name = "BYTES", default_value_t = ByteLimit(RelayLimits::default().network_bytes_per_day))]
    relay_network_bytes: ByteLimit,
    /// The most bytes a second for one pair of peers
    #[arg(long, value_name = "BYTES", default_value_t = ByteLimit(RelayLimits::default().bytes_per_second))]
    relay_rate: ByteLimit,
    /// The most bytes a second for all pairs together, in even shares
    #[arg(long, value_name = "BYTES", default_value_t = ByteLimit(RelayLimits::default().total_bytes_per_second))]
    relay_total_rate: ByteLimit,
    /// Disconnect two peers after this many minutes; they may meet again
    #[arg(long, value_name = "MINUTES", default_value_t = Minutes(RelayLimits::default().time))]
    relay_time: Minutes,
    /// The most pairs of peers at once
    #[arg(long, value_name = "COUNT", default_value_t = RelayLimits::default().pairs.total)]
    relay_pairs: u64,
    /// The most pairs at once of all who send from one address
    #[arg(long, value_name = "COUNT", default_value_t = RelayLimits::default().pairs.per_subnet.ipv4)]
    relay_pairs_per_address: u64,
    /// The most pairs at once of one sender
    #[arg(long, value_name = "COUNT", default_value_t = RelayLimits::default().pairs.per_key)]
    relay_pairs_per_peer: u64,
}

impl From<LimitArguments> for Limits {
    fn from(arguments: LimitArguments) -> Self {
        let LimitArguments { drain, caps, relay } = arguments;
        let limits = Self {
            drain: drain.0,
            relay: relay.into(),
            directory_people: match caps.directory {
                DirectoryChoice::Open => caps.directory_max,
                DirectoryChoice::Closed => 0,
            },
            names: caps.max_names,
            names_per_key: caps.max_names_per_key,
            names_expire: caps.names_expire.0,
            ..Self::default()
        };
        limits
            .with_people(caps.max_people, caps.max_people_per_address)
            .with_connections(caps.max_connections, caps.max_connections_per_address)
    }
}

impl From<RelayArguments> for RelayLimits {
    fn from(arguments: RelayArguments) -> Self {
        let mut limits = Self {
            offered: !arguments.no_relay,
            time: arguments.relay_time.0,
            bytes_per_day: arguments.relay_bytes.0,
            network_bytes_per_day: arguments.relay_network_bytes.0,
            bytes_per_second: arguments.relay_rate.0,
            total_bytes_per_second: arguments.relay_total_rate.0,
            ..Self::default()
        };
        let pairs = &mut limits.pairs;
        pairs.total = arguments.relay_pairs.min(MOST);
        pairs.reserved = pairs.reserved.min(pairs.total / 4);
        pairs.per_key = arguments.relay_pairs_per_peer;
        let most = arguments.relay_pairs_per_address;
        pairs.per_subnet.ipv4 = most;
        pairs.per_subnet.ipv6_64 = most;
        pairs.per_subnet.ipv6_56 = most.saturating_mul(2);
        pairs.per_subnet.ipv6_48 = most.saturating_mul(4);
        limits
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::ServerArguments;

    fn limits(arguments: &[&str]) -> Limits {
        let all = [&["pinhole-server"], arguments].concat();
        let parsed = ServerArguments::try_parse_from(all).unwrap();
        parsed.serve.limits.into()
    }

    #[test]
    fn without_options_the_limits_are_the_default_ones() {
        let default = Limits {
            drain: DRAIN,
            ..Limits::default()
        };
        let ours = limits(&[]);
        assert_eq!(format!("{ours:?}"), format!("{default:?}"));
    }

    #[test]
    fn every_cap_can_be_raised() {
        let limits = limits(&[
            "--max-people=40000",
            "--max-people-per-address=5000",
            "--max-connections=90000",
            "--max-connections-per-address=6000",
            "--max-names=7",
            "--max-names-per-key=3",
            "--names-expire=0",
        ]);
        assert_eq!(limits.sessions.total, 40_000);
        assert_eq!(limits.sessions.per_subnet.ipv4, 5_000);
        assert_eq!(limits.connections.total, 90_000);
        assert_eq!(limits.regulars.total, 90_000);
        assert_eq!(limits.connections.per_subnet.ipv6_48, 12_000);
        assert_eq!((limits.names, limits.names_per_key), (7, 3));
        assert_eq!(limits.names_expire, None);
    }
}
