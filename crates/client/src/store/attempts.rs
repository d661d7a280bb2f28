//! The last attempts to connect: what was tried, what each way answered, and
//! which one won. Kept in `attempts.json` of the profile.

use std::sync::Arc;
use std::time::Duration;

use pinhole_net::{Answer, PathAttempt, PathKind, PeerName, Report};
use serde::{Deserialize, Serialize};

/// How many attempts are kept.
const KEPT: usize = 20;

/// One attempt to connect to a peer that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended, in seconds since 1970 UTC.
    pub ended_at_s: u64,
    /// The other side.
    pub peer: PeerName,
    /// Whether the other side began it.
    pub invited: bool,
    /// The path that won; `None` when there was none.
    pub path: Option<PathKind>,
    /// How long it took to connect.
    pub elapsed_ms: Option<u64>,
    /// Why this path, or why none, in a sentence.
    pub why: String,
    /// What was tried, and what each answered, in order.
    pub tried: Vec<String>,
}

/// What an attempt to connect led to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Won {
    pub(crate) path: PathKind,
    pub(crate) elapsed: Duration,
}

impl Attempt {
    /// An attempt that has ended; `won` is `None` when it led to no session.
    pub(crate) fn new(ended_at_s: u64, peer: &PeerName, won: Option<Won>, report: &Report) -> Self {
        let elapsed_ms = |won: Won| u64::try_from(won.elapsed.as_millis()).unwrap_or(u64::MAX);
        let why = match won {
            Some(won) => why(won.path, report),
            None => "Nothing that was tried led to the other side.",
        };
        Self {
            ended_at_s,
            peer: peer.clone(),
            invited: false,
            path: won.map(|won| won.path),
            elapsed_ms: won.map(elapsed_ms),
            why: why.to_owned(),
            tried: report.tried.iter().map(ToString::to_string).collect(),
        }
    }

    /// The same, which the other side began.
    pub(crate) fn invited(self) -> Self {
        let invited = true;
        Self { invited, ..self }
    }

    /// A session that was up has moved to this path.
    pub(crate) fn moved(ended_at_s: u64, peer: &PeerName, path: PathKind, report: &Report) -> Self {
        let elapsed = Duration::ZERO;
        Self {
            elapsed_ms: None,
            why: "A session that was up has moved to a better path.".to_owned(),
            ..Self::new(ended_at_s, peer, Some(Won { path, elapsed }), report)
        }
    }
}

/// Why this path won.
fn why(path: PathKind, report: &Report) -> &'static str {
    let is_direct = |way: &PathAttempt| *way != PathAttempt::Relay;
    let mut direct = report.tried.iter().filter(|tried| is_direct(&tried.way));
    let mut others = direct.clone().filter(|t| t.answer != Answer::Selected);
    match path {
        PathKind::Relay if direct.next().is_none() => "Only the relay was tried.",
        PathKind::Relay => "No direct way led to the other side in time.",
        _ if others.any(|tried| tried.answer == Answer::Connected) => {
            "Of the direct ways that led to the other side, it was the best."
        }
        _ => "It was the first direct way that led to the other side.",
    }
}

/// The attempts as the engine holds them.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    entries: Arc<Vec<Attempt>>,
}

impl Attempts {
    pub(crate) fn new(stored: Vec<Attempt>) -> Self {
        Self {
            entries: Arc::new(stored),
        }
    }

    /// Oldest first.
    pub(crate) fn entries(&self) -> Arc<Vec<Attempt>> {
        self.entries.clone()
    }

    /// Adds one. Returns what is to be stored.
    pub(crate) fn add(&mut self, attempt: Attempt) -> &[Attempt] {
        let entries = Arc::make_mut(&mut self.entries);
        entries.push(attempt);
        let too_many = entries.len().saturating_sub(KEPT);
        entries.drain(..too_many);
        entries
    }
}

#[cfg(test)]
mod tests {
    use pinhole_net::Tried;

    use super::*;
    use crate::store::{Profile, ProfileWriter};

    fn report(answers: &[(PathAttempt, Answer)]) -> Report {
        let tried = answers.iter().map(|(way, answer)| Tried {
            round: 1,
            way: *way,
            dials: 1,
            answer: answer.clone(),
        });
        Report {
            tried: tried.collect(),
            ..Report::default()
        }
    }

    fn dialled(last: u8) -> PathAttempt {
        PathAttempt::Dialled(([10, 0, 0, last], 4000).into())
    }

    #[test]
    fn the_reason_follows_from_what_the_others_answered() {
        let relay = (PathAttempt::Relay, Answer::Selected);
        let silent = (dialled(1), Answer::Silence);
        let won = (dialled(2), Answer::Selected);
        let lost = (dialled(3), Answer::Connected);
        for (path, tried, said) in [
            (PathKind::Relay, vec![relay.clone()], "Only the relay"),
            (
                PathKind::Relay,
                vec![silent.clone(), relay],
                "No direct way",
            ),
            (PathKind::Punched, vec![silent, won.clone()], "the first"),
            (PathKind::Lan, vec![won, lost], "the best"),
        ] {
            let why = why(path, &report(&tried));
            assert!(why.contains(said), "{why}");
        }
    }

    #[test]
    fn the_last_ones_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile::open(Some(folder.path())).unwrap();
        let bob: PeerName = "bob".parse().unwrap();
        let mut attempts = Attempts::new(profile.load_attempts().unwrap());
        let writer = ProfileWriter::new(&profile, |error| panic!("{error}")).unwrap();
        let report = report(&[(dialled(1), Answer::Silence)]);
        let total = KEPT as u64 + 5;
        for n in 0..total {
            let attempt = Attempt::new(n, &bob, None, &report).invited();
            writer.store_attempts(attempts.add(attempt)).unwrap();
        }
        assert!(writer.finish(Duration::from_secs(30)));
        let again = profile.load_attempts().unwrap();
        assert_eq!(again, *attempts.entries());
        assert_eq!(again.len(), KEPT);
        assert_eq!(again.last().unwrap().ended_at_s, total - 1);
        assert!(again.last().unwrap().invited);
        let tried = &again.last().unwrap().tried;
        assert_eq!(*tried, ["round 1: to 10.0.0.1:4000: no answer"]);
    }
}
