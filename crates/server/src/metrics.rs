//! What the server counts, in the text format of Prometheus. No label has a value that
//! clients choose.

use std::time::Instant;

use pinhole_proto::rendezvous::{IntroductionFailure, Refusal, Role, ServerMessage};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use serde::Serialize;

/// A counter for each value of one label.
type Counted = Family<[(&'static str, String); 1], Counter>;

/// What a connection with a proven key is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ConnectionKind {
    Control,
    Observation,
    Relay,
}

impl ConnectionKind {
    const fn word(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Observation => "observation",
            Self::Relay => "relay",
        }
    }
}

/// Counts a connection as long as it lives.
#[derive(Debug)]
pub(crate) struct CountedConnection(Gauge);

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What is held at the moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Held {
    pub(crate) people: u64,
    pub(crate) strange_observations: u64,
    pub(crate) handshakes: u64,
    pub(crate) waiting_handshakes: u64,
    pub(crate) relay_pairs: u64,
    pub(crate) relayed_bytes: u64,
    pub(crate) waiting_inputs: u64,
}

/// The metrics of one server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Other nodes to which there is a link.
    pub(crate) nodes: Gauge,
    started: Instant,
    uptime: Gauge,
    people: Gauge,
    connections: Family<[(&'static str, &'static str); 1], Gauge>,
    strange_observations: Gauge,
    handshakes: Gauge,
    waiting_handshakes: Gauge,
    relay_pairs: Gauge,
    waiting_inputs: Gauge,
    relayed_bytes: Counter,
    logins: Counted,
    introductions: Counted,
    refused: Counted,
}

impl Metrics {
    /// `names` and `lookups` belong to the thread that owns the names.
    pub(crate) fn new(names: Gauge, lookups: Histogram) -> Self {
        let mut registry = Registry::with_prefix("pinhole");
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "This program", Info::new(version));
        registry.register("names", "Registered names", names);
        registry.register(
            "name_lookup_seconds",
            "Time that the lookup of a name takes",
            lookups,
        );
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let uptime = gauge("uptime_seconds", "Time since the start");
        let people = gauge("people", "Control connections: people online or logging in");
        let strange_observations = gauge(
            "strange_observations",
            "Observation connections of keys that are not logged in",
        );
        let handshakes = gauge("handshakes", "Connections whose handshake is under way");
        let waiting_handshakes = gauge(
            "waiting_handshakes",
            "Connections that wait for the turn of their handshake",
        );
        let relay_pairs = gauge("relay_pairs", "Pairs that are relayed");
        let waiting_inputs = gauge("registrar_inbox", "Inputs that wait for the registrar");
        let nodes = gauge(
            "nodes",
            "Other nodes of this server to which there is a link",
        );
        let connections = Family::default();
        registry.register(
            "connections",
            "Connections with a proven key, by kind",
            connections.clone(),
        );
        let relayed_bytes = Counter::default();
        registry.register("relayed_bytes", "Bytes relayed", relayed_bytes.clone());
        let mut counted = |name: &str, help: &str| {
            let counted = Counted::default();
            registry.register(name, help, counted.clone());
            counted
        };
        Self {
            logins: counted("logins", "Logins, by outcome"),
            introductions: counted("introductions", "Introductions, by outcome"),
            refused: counted(
                "refused",
                "Connections and sessions refused or ended, by reason",
            ),
            registry,
            nodes,
            started: Instant::now(),
            uptime,
            people,
            connections,
            strange_observations,
            handshakes,
            waiting_handshakes,
            relay_pairs,
            waiting_inputs,
            relayed_bytes,
        }
    }

    pub(crate) fn connection(&self, kind: ConnectionKind) -> CountedConnection {
        let gauge = self.connections.get_or_create(&[("kind", kind.word())]);
        gauge.inc();
        CountedConnection(gauge.clone())
    }

    /// Counts what a message to `receivers` sessions tells of.
    pub(crate) fn sent(&self, message: &ServerMessage, receivers: u64) {
        match message {
            ServerMessage::LoggedIn { .. } => {
                let logins = self.logins.get_or_create(&[("outcome", "ok".to_owned())]);
                logins.inc_by(receivers);
            }
            // Both sides are told; one of them controls.
            ServerMessage::Introduced {
                role: Role::Controlling,
                ..
            } => self.introduced("ok".to_owned()),
            ServerMessage::IntroductionFailed { reason, .. } => {
                self.introduced(word::<IntroductionFailure>(reason));
            }
            _ => {}
        }
    }

    fn introduced(&self, outcome: String) {
        let introductions = self.introductions.get_or_create(&[("outcome", outcome)]);
        introductions.inc();
    }

    pub(crate) fn login_refused(&self, refusal: Refusal) {
        let logins = self.logins.get_or_create(&[("outcome", word(&refusal))]);
        logins.inc();
    }

    pub(crate) fn refused(&self, refusal: Refusal) {
        let refused = self.refused.get_or_create(&[("reason", word(&refusal))]);
        refused.inc();
    }

    /// Everything, as Prometheus reads it.
    pub(crate) fn text(&self, held: Held) -> String {
        let set = |gauge: &Gauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.uptime, self.started.elapsed().as_secs());
        set(&self.people, held.people);
        set(&self.strange_observations, held.strange_observations);
        set(&self.handshakes, held.handshakes);
        set(&self.waiting_handshakes, held.waiting_handshakes);
        set(&self.relay_pairs, held.relay_pairs);
        set(&self.waiting_inputs, held.waiting_inputs);
        let before = self.relayed_bytes.get();
        self.relayed_bytes
            .inc_by(held.relayed_bytes.saturating_sub(before));
        let mut text = String::new();
        // Writing to a text does not fail.
        let _: Result<(), _> = encode(&mut text, &self.registry);
        text
    }
}

/// The word by which a reason goes on the wire.
fn word<T: Serialize>(reason: &T) -> String {
    let word = serde_json::to_value(reason).ok();
    let word = word.and_then(|it| it.as_str().map(ToOwned::to_owned));
    word.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_kind_while_they_live() {
        let metrics = Metrics::new(Gauge::default(), Histogram::new([1.0]));
        let counts = || {
            let text = metrics.text(Held::default());
            let lines = text
                .lines()
                .filter_map(|it| it.strip_prefix("pinhole_connections{kind="));
            let mut counts: Vec<String> = lines.map(str::to_owned).collect();
            counts.sort_unstable();
            counts
        };
        let control = metrics.connection(ConnectionKind::Control);
        let relay = [(); 2].map(|()| metrics.connection(ConnectionKind::Relay));
        drop(metrics.connection(ConnectionKind::Observation));
        assert_eq!(
            counts(),
            ["\"control\"} 1", "\"observation\"} 0", "\"relay\"} 2"]
        );
        drop((control, relay));
        assert_eq!(
            counts(),
            ["\"control\"} 0", "\"observation\"} 0", "\"relay\"} 0"]
        );
    }
}
