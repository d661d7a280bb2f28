//! What was tried to reach a peer, and what each attempt answered.

use std::fmt;
use std::net::SocketAddr;

/// Most entries kept of one attempt to connect.
const MAX_ENTRIES: usize = 64;

/// What the NAT in front of this machine does with one local port (RFC 4787).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MappingBehaviour {
    /// Every destination sees the same public port: a peer can be told it.
    Stable,
    /// Each destination sees another public port ("symmetric NAT"): a peer
    /// cannot know which one it will see.
    Varies,
    /// Not observed from two sides.
    #[default]
    Unknown,
}

/// The story of one attempt to connect, to be told to the user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// What the NAT in front of this machine does, as far as it was seen.
    pub mapping: MappingBehaviour,
    /// What was tried, in order; at most 64 entries.
    pub tried: Vec<Tried>,
}

/// One way that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The round, each from a fresh local port; 1 is the first.
    pub round: u8,
    /// What was tried.
    pub way: PathAttempt,
    /// How often it was dialled.
    pub dials: u32,
    /// The last thing that is known of it.
    pub answer: Answer,
}

/// A way to reach a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathAttempt {
    /// Dialling this address.
    Dialled(SocketAddr),
    /// A connection that came from this address.
    Accepted(SocketAddr),
    /// Through the server's relay.
    Relay,
}

/// What a way has led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing came back.
    Silence,
    /// The system reported this error.
    Error(String),
    /// A connection came up, but was not chosen.
    Connected,
    /// A connection came up, and broke or was silent before the peer had
    /// proven its key.
    Lost(String),
    /// A connection came up, but to somebody who does not hold the peer's key.
    Stranger,
    /// The connection that was chosen.
    Selected,
    /// The connection that was chosen until a better one came.
    Left,
}

impl Report {
    /// The entry of `way`, made if there is none; `None` when there are too many.
    pub(crate) fn entry(&mut self, round: u8, way: PathAttempt) -> Option<&mut Tried> {
        let known = self
            .tried
            .iter()
            .position(|tried| (tried.round, tried.way) == (round, way));
        if known.is_none() && self.tried.len() < MAX_ENTRIES {
            self.tried.push(Tried {
                round,
                way,
                dials: 0,
                answer: Answer::Silence,
            });
        }
        let index = known.unwrap_or(self.tried.len() - 1);
        let found = self.tried.get_mut(index)?;
        ((found.round, found.way) == (round, way)).then_some(found)
    }

    pub(crate) fn answered(&mut self, round: u8, way: PathAttempt, answer: Answer) {
        if let Some(tried) = self.entry(round, way) {
            tried.answer = answer;
        }
    }

    /// This way is the session's from now on.
    pub(crate) fn chosen(&mut self, round: u8, way: PathAttempt) {
        for tried in &mut self.tried {
            if tried.answer == Answer::Selected {
                tried.answer = Answer::Left;
            }
        }
        self.answered(round, way, Answer::Selected);
    }

    /// Whether somebody else than the peer answered on one of the ways.
    pub(crate) fn met_stranger(&self) -> bool {
        self.tried.iter().any(|t| t.answer == Answer::Stranger)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, tried) in self.tried.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{tried}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {}: {}: {}", self.round, self.way, self.answer)
    }
}

impl fmt::Display for PathAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dialled(address) => write!(f, "to {address}"),
            Self::Accepted(address) => write!(f, "from {address}"),
            Self::Relay => f.write_str("relay"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence => f.write_str("no answer"),
            Self::Error(reason) => f.write_str(reason),
            Self::Connected => f.write_str("connected, not chosen"),
            Self::Lost(reason) => write!(f, "connected, then lost ({reason})"),
            Self::Stranger => f.write_str("somebody else answered"),
            Self::Selected => f.write_str("chosen"),
            Self::Left => f.write_str("chosen, then left for a better one"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_for_each_way_of_each_round_and_never_too_many() {
        let mut report = Report::default();
        let way = |port| PathAttempt::Dialled(([10, 0, 0, 1], port).into());
        for _ in 0..3 {
            report.entry(1, way(1)).unwrap().dials += 1;
        }
        report.answered(2, way(1), Answer::Stranger);
        assert_eq!(report.tried.len(), 2);
        assert_eq!(report.tried[0].dials, 3);
        assert!(report.met_stranger());
        let text =
            "round 1: to 10.0.0.1:1: no answer; round 2: to 10.0.0.1:1: somebody else answered";
        assert_eq!(report.to_string(), text);
        for port in 0..1000 {
            report.entry(3, way(port));
        }
        assert_eq!(report.tried.len(), MAX_ENTRIES);
        assert!(report.entry(3, way(1000)).is_none());
        assert!(report.entry(2, way(1)).is_some());
    }
}
