//! When the peer was last heard, as far as that is up to the peer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, ReadBuf};

/// A pause tells of the way for at least so long, and at most twice so long.
const MEMORY: Duration = Duration::from_secs(5);
/// A peer must have been heard for this long before its pauses say anything.
const ACQUAINTED_AFTER: Duration = Duration::from_secs(1);

/// Since when a reader waits for the peer in vain; nothing while this side has
/// something to read, or does not want to.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdleTimer(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    pauses: Pauses,
}

/// The longest waits for the peer of late that came to an end.
#[derive(Debug, Default)]
struct Pauses {
    began: Option<Instant>,
    turned: Option<Instant>,
    longest: Duration,
    longest_before: Duration,
}

impl IdleTimer {
    /// How long the peer has been waited for.
    pub(crate) fn lasts(&self) -> Duration {
        let since = self.lock().since;
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The longest wait of the last seconds that came to an end; `None` while
    /// there is too little to go by.
    pub(crate) fn usual(&self) -> Option<Duration> {
        self.lock().pauses.usual(Instant::now())
    }

    /// The peer owes something from now on.
    pub(crate) fn restart(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        state.since = state.since.map(|_| now);
        state.pauses = Pauses {
            began: Some(now),
            ..Pauses::default()
        };
    }

    fn note(&self, is_silent: bool) {
        let mut state = self.lock();
        if is_silent {
            state.since.get_or_insert_with(Instant::now);
        } else if let Some(since) = state.since.take() {
            state.pauses.ended(since, Instant::now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl Pauses {
    fn ended(&mut self, since: Instant, now: Instant) {
        self.turn(now);
        self.longest = self.longest.max(now.saturating_duration_since(since));
    }

    fn usual(&mut self, now: Instant) -> Option<Duration> {
        self.turn(now);
        let listened = now.saturating_duration_since(self.began?);
        (listened >= ACQUAINTED_AFTER).then(|| self.longest.max(self.longest_before))
    }

    fn turn(&mut self, now: Instant) {
        self.began.get_or_insert(now);
        let turned = self.turned.get_or_insert(now);
        if now.saturating_duration_since(*turned) >= MEMORY {
            *turned = now;
            self.longest_before = std::mem::take(&mut self.longest);
        }
    }
}

/// A stream that notes how long it is waited for.
pub(crate) struct LivenessReader<R> {
    stream: R,
    silence: IdleTimer,
}

impl<R> LivenessReader<R> {
    pub(crate) const fn new(stream: R, silence: IdleTimer) -> Self {
        Self { stream, silence }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for LivenessReader<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        this.silence.note(read.is_pending());
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses after waits of so many milliseconds, one right after the other.
    fn after(waits: &[u64]) -> (Pauses, Instant) {
        let mut now = Instant::now();
        let mut pauses = Pauses::default();
        pauses.turn(now);
        for &wait in waits {
            let since = now;
            now += Duration::from_millis(wait);
            pauses.ended(since, now);
        }
        (pauses, now)
    }

    #[test]
    fn of_whom_little_was_heard_nothing_is_known() {
        let (mut pauses, now) = after(&[300, 300, 300]);
        assert_eq!(pauses.usual(now), None);
    }

    #[test]
    fn the_longest_pause_of_late_counts() {
        let (mut pauses, now) = after(&[300, 700, 200]);
        assert_eq!(pauses.usual(now), Some(Duration::from_millis(700)));
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut waits = vec![700];
        waits.extend([100; 110]);
        let (mut pauses, now) = after(&waits);
        assert_eq!(pauses.usual(now), Some(Duration::from_millis(100)));
    }

    #[test]
    fn what_was_before_a_restart_does_not_count() {
        let silence = IdleTimer::default();
        silence.lock().pauses = after(&[30_000]).0;
        silence.restart();
        assert_eq!(silence.usual(), None);
    }
}
