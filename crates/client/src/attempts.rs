//! The last attempts to connect: what was tried, what each way answered, and
//! which one won. Kept in `attempts.json` of the profile.

use std::sync::Arc;
use std::time::Duration;

use pinhole_net::{Answer, PathAttempt, PathKind, PeerName, Report};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::profile::{Profile, ProfileError, ProfileWriter};

/// So many are kept.
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

impl Attempt {
    /// An attempt that has led to a session.
    pub(crate) fn connected(
        ended_at_s: u64,
        (peer, invited): (&PeerName, bool),
        (path, elapsed): (PathKind, Duration),
        report: &Report,
    ) -> Self {
        Self {
            ended_at_s,
            peer: peer.clone(),
            invited,
            path: Some(path),
            elapsed_ms: Some(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)),
            why: why(path, report).to_owned(),
            tried: lines(report),
        }
    }

    /// A session that was up has moved to this path.
    pub(crate) fn moved(ended_at_s: u64, peer: &PeerName, path: PathKind, report: &Report) -> Self {
        Self {
            ended_at_s,
            peer: peer.clone(),
            invited: false,
            path: Some(path),
            elapsed_ms: None,
            why: "A session that was up has moved to a better path.".to_owned(),
            tried: lines(report),
        }
    }

    /// One that has not, for this reason.
    pub(crate) fn failed(
        ended_at_s: u64,
        (peer, invited): (&PeerName, bool),
        report: &Report,
    ) -> Self {
        Self {
            ended_at_s,
            peer: peer.clone(),
            invited,
            path: None,
            elapsed_ms: None,
            why: "Nothing that was tried led to the other side.".to_owned(),
            tried: lines(report),
        }
    }
}

fn lines(report: &Report) -> Vec<String> {
    report.tried.iter().map(ToString::to_string).collect()
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
    /// The stored ones. They are not stored durably, so that a file that a power
    /// cut has spoilt is no reason to stop: there are none then.
    pub(crate) fn load(profile: &Profile) -> Self {
        let stored = profile.load_attempts().unwrap_or_else(|error| {
            warn!(%error, "the last attempts to connect are lost");
            Vec::new()
        });
        Self {
            entries: Arc::new(stored),
        }
    }

    /// Oldest first.
    pub(crate) fn entries(&self) -> Arc<Vec<Attempt>> {
        self.entries.clone()
    }

    pub(crate) fn add(
        &mut self,
        writer: &ProfileWriter,
        attempt: Attempt,
    ) -> Result<(), ProfileError> {
        let entries = Arc::make_mut(&mut self.entries);
        entries.push(attempt);
        let too_many = entries.len().saturating_sub(KEPT);
        entries.drain(..too_many);
        writer.store_attempts(entries)
    }
}

#[cfg(test)]
mod tests {
    use pinhole_net::Tried;

    use super::*;

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
        let mut attempts = Attempts::load(&profile);
        let writer = profile.writer(|error| panic!("{error}")).unwrap();
        let report = report(&[(dialled(1), Answer::Silence)]);
        let total = KEPT as u64 + 5;
        for n in 0..total {
            let attempt = Attempt::failed(n, (&bob, true), &report);
            attempts.add(&writer, attempt).unwrap();
        }
        assert!(writer.finish(Duration::from_secs(30)));
        let again = Attempts::load(&profile).entries();
        assert_eq!(again, attempts.entries());
        assert_eq!(again.len(), KEPT);
        assert_eq!(again.last().unwrap().ended_at_s, total - 1);
        let tried = &again.last().unwrap().tried;
        assert_eq!(*tried, ["round 1: to 10.0.0.1:4000: no answer"]);
    }
}
