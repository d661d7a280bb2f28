//! Turns at the processor, for work that must not hold up those who are logged in.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

/// Lets a bounded number of tasks compute at once. The others wait in the order in which
/// they became ready, and everything else goes on beside them. A task that waits for its
/// client holds no turn.
#[derive(Debug)]
pub(crate) struct Turns(Semaphore);

impl Turns {
    /// As many as half the processors, so that the other half is left to those who are
    /// logged in, and at least one.
    pub(crate) fn for_half_the_processors() -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self::new((processors / 2).max(1))
    }

    fn new(at_once: usize) -> Self {
        Self(Semaphore::new(at_once))
    }

    /// Runs `work` in turns. Each step of it, up to where it waits, takes one.
    pub(crate) async fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            // An error says that the semaphore is closed, which never happens.
            let turn = self.0.acquire().await;
            let step = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
            drop(turn);
            if let Poll::Ready(done) = step {
                return done;
            }
            woken().await;
        }
    }
}

/// Completes when the task is polled again, which is when its work has woken it.
async fn woken() {
    let mut is_polled = false;
    poll_fn(|_| match std::mem::replace(&mut is_polled, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn work_that_waits_holds_no_turn() {
        let turns = Arc::new(Turns::new(1));
        let (say, heard) = oneshot::channel::<u8>();
        let waiting = Arc::clone(&turns);
        let waiting = tokio::spawn(async move { waiting.run(heard).await });
        yield_now().await;
        let other = timeout(PATIENCE, turns.run(async { 1 })).await;
        assert_eq!(other, Ok(1));
        say.send(2).unwrap();
        let heard = timeout(PATIENCE, waiting).await.unwrap().unwrap();
        assert_eq!(heard, Ok(2));
    }

    #[tokio::test]
    async fn whoever_has_no_turn_does_nothing() {
        let turns = Turns::new(1);
        let taken = turns.0.acquire().await.unwrap();
        let mut has_begun = false;
        let work = turns.run(async { has_begun = true });
        let refused = timeout(Duration::from_millis(20), work).await;
        assert!(refused.is_err() && !has_begun);
        drop(taken);
        turns.run(async { has_begun = true }).await;
        assert!(has_begun);
    }
}
