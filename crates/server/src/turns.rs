//! Turns at the processor, for work that must not hold up those who are logged in.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::thread::available_parallelism;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Lets a bounded number of tasks compute at once, and everything else goes on beside them.
/// A task that waits for its client holds no turn.
///
/// The others wait in the order in which they became ready. Only so many that have not
/// begun wait among those that have: the rest of them wait outside, however many they are.
/// Otherwise a crowd that comes at once would be begun as a whole before the first of it
/// goes on.
#[derive(Debug)]
pub(crate) struct Turns {
    turns: Semaphore,
    beginnings: Semaphore,
}

impl Turns {
    /// As many as half the processors, so that the other half is left to those who are
    /// logged in, and at least one.
    pub(crate) fn for_half_the_processors() -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self::new((processors / 2).max(1))
    }

    fn new(at_once: usize) -> Self {
        Self {
            turns: Semaphore::new(at_once),
            beginnings: Semaphore::new(at_once),
        }
    }

    /// A turn for the first step of something.
    pub(crate) async fn begin(&self) -> Turn<'_> {
        // An error says that a semaphore is closed, which never happens.
        let beginning = self.beginnings.acquire().await.ok();
        Turn {
            turns: &self.turns,
            held: [beginning, self.turns.acquire().await.ok()],
        }
    }
}

/// A turn that is held.
pub(crate) struct Turn<'a> {
    turns: &'a Semaphore,
    held: [Option<SemaphorePermit<'a>>; 2],
}

impl Turn<'_> {
    /// Runs `work`, its first step in this turn. Each further step, up to where it waits,
    /// takes another.
    pub(crate) async fn run<T>(self, work: impl Future<Output = T>) -> T {
        let turns = self.turns;
        let mut held = Some(self.held);
        let mut work = pin!(work);
        loop {
            let step = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
            drop(held.take());
            if let Poll::Ready(done) = step {
                return done;
            }
            woken().await;
            held = Some([turns.acquire().await.ok(), None]);
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

    use parking_lot::Mutex;
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
        let waiting = tokio::spawn(async move { waiting.begin().await.run(heard).await });
        yield_now().await;
        let other = timeout(PATIENCE, turns.begin()).await.unwrap();
        let other = timeout(PATIENCE, other.run(async { 1 })).await;
        assert_eq!(other, Ok(1));
        say.send(2).unwrap();
        let heard = timeout(PATIENCE, waiting).await.unwrap().unwrap();
        assert_eq!(heard, Ok(2));
    }

    #[tokio::test]
    async fn whoever_has_no_turn_does_nothing() {
        let turns = Turns::new(1);
        let taken = turns.turns.acquire().await.unwrap();
        let refused = timeout(Duration::from_millis(20), turns.begin()).await;
        assert!(refused.is_err());
        drop(taken);
        turns.begin().await.run(async {}).await;
    }

    #[tokio::test]
    async fn what_has_begun_waits_for_one_beginning_at_most() {
        let turns = Arc::new(Turns::new(1));
        let order = Arc::new(Mutex::new(Vec::new()));
        let (say, heard) = oneshot::channel::<()>();
        let (begun, noted) = (Arc::clone(&turns), Arc::clone(&order));
        let begun = tokio::spawn(async move {
            let turn = begun.begin().await;
            turn.run(heard).await.unwrap();
            noted.lock().push("begun");
        });
        yield_now().await;
        let held = turns.begin().await;
        let crowd: Vec<_> = (0..3)
            .map(|_| {
                let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
                tokio::spawn(async move {
                    let turn = turns.begin().await;
                    turn.run(async { order.lock().push("crowd") }).await;
                })
            })
            .collect();
        yield_now().await;
        say.send(()).unwrap();
        yield_now().await;
        drop(held);
        for task in crowd.into_iter().chain([begun]) {
            timeout(PATIENCE, task).await.unwrap().unwrap();
        }
        let place = order.lock().iter().position(|it| *it == "begun");
        assert!(place.is_some_and(|place| place <= 1), "{place:?}");
    }
}
