//! Several threads that do the same work on pieces that come one behind
//! another. The pieces are dealt out in turn and what becomes of them is taken
//! in turn, so that it comes out in the order in which they went in. Where one
//! lane is enough, whoever deals does the work: another thread would only cost.

use std::{
    cell::{Cell, RefCell},
    io,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{Builder, Scope},
};

/// More serve nobody: the other stages do not keep up with them.
pub(crate) const LANES_MAX: usize = 4;
/// Pieces that wait before each lane, and behind it.
const WAITING: usize = 1;

/// How many lanes serve a machine: the other stages need cores, too.
pub(crate) fn fitting() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, LANES_MAX)
}

/// Where pieces go in. The lanes end when it is dropped.
pub(crate) enum Entrance<'scope, T> {
    /// Does the work on the spot; nothing after the last piece.
    Own(RefCell<Option<Work<'scope, T>>>),
    Dealt {
        lanes: Vec<SyncSender<T>>,
        next: Cell<usize>,
    },
}

/// Works on a piece and passes on what becomes of it.
type Work<'scope, T> = Box<dyn Fn(T) -> Option<()> + Send + 'scope>;

/// Where what became of them comes out. The lanes end when it is dropped.
pub(crate) struct Exit<U> {
    lanes: Vec<Receiver<U>>,
    next: usize,
}

/// Opens so many lanes, at least one. Each ends for good, and all others after
/// it, when it has no answer for a piece.
///
/// # Errors
/// The system gives no thread.
pub(crate) fn open<'scope, T, U>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    count: usize,
    work: impl Fn(T) -> Option<U> + Copy + Send + 'scope,
) -> io::Result<(Entrance<'scope, T>, Exit<U>)>
where
    T: Send + 'scope,
    U: Send + 'scope,
{
    if count <= 1 {
        let (done, exit) = sync_channel(2 * WAITING);
        let own: Work<'scope, T> = Box::new(move |piece| done.send(work(piece)?).ok());
        let exit = Exit {
            lanes: vec![exit],
            next: 0,
        };
        return Ok((Entrance::Own(RefCell::new(Some(own))), exit));
    }
    let (mut entrances, mut exits) = (Vec::new(), Vec::new());
    for _ in 0..count.clamp(1, LANES_MAX) {
        let (entrance, pieces) = sync_channel(WAITING);
        let (done, exit) = sync_channel(WAITING);
        let lane = move || {
            // Fails when nobody wants any more.
            pieces
                .into_iter()
                .try_for_each(|piece| done.send(work(piece)?).ok())
        };
        Builder::new()
            .name(name.to_owned())
            .spawn_scoped(scope, lane)?;
        entrances.push(entrance);
        exits.push(exit);
    }
    let entrance = Entrance::Dealt {
        lanes: entrances,
        next: Cell::new(0),
    };
    let exit = Exit {
        lanes: exits,
        next: 0,
    };
    Ok((entrance, exit))
}

impl<T> Entrance<'_, T> {
    /// Waits for room. `None` when the lanes have ended.
    pub(crate) fn send(&self, piece: T) -> Option<()> {
        match self {
            Self::Own(own) => {
                let done = own.borrow().as_ref()?(piece);
                if done.is_none() {
                    own.take();
                }
                done
            }
            Self::Dealt { lanes, next } => {
                let due = next.get();
                next.set((due + 1) % lanes.len());
                lanes.get(due)?.send(piece).ok()
            }
        }
    }
}

impl<U> Iterator for Exit<U> {
    type Item = U;

    /// Waits for the piece that is due. No later one is in another lane when
    /// its lane has ended.
    fn next(&mut self) -> Option<U> {
        let due = self.next;
        self.next = (due + 1) % self.lanes.len();
        self.lanes.get(due)?.recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    const COUNTS: [usize; 3] = [1, 2, LANES_MAX];

    #[test]
    fn what_comes_out_has_the_order_of_what_went_in() {
        for count in COUNTS {
            std::thread::scope(|scope| {
                let uneven = |piece: usize| {
                    (0..piece * 7919 % 13).for_each(|_| std::thread::yield_now());
                    Some(piece)
                };
                let (entrance, exit) = open(scope, "lane", count, uneven).unwrap();
                scope.spawn(move || (0..1000).try_for_each(|piece| entrance.send(piece)));
                assert!(exit.eq(0..1000), "{count} lanes");
            });
        }
    }

    /// A lane that has met all others has seen them at work; if they took turns
    /// none would get further.
    #[test]
    fn all_lanes_are_at_work_at_once() {
        for count in COUNTS {
            let all = &Barrier::new(count);
            std::thread::scope(|scope| {
                let meet = |piece| {
                    all.wait();
                    Some(piece)
                };
                let (entrance, exit) = open(scope, "lane", count, meet).unwrap();
                let pieces = 8 * count;
                scope.spawn(move || (0..pieces).try_for_each(|piece| entrance.send(piece)));
                assert_eq!(exit.count(), pieces);
            });
        }
    }

    #[test]
    fn no_more_is_taken_in_than_waits_or_is_worked_on() {
        for count in COUNTS {
            let taken = &AtomicUsize::new(0);
            std::thread::scope(|scope| {
                let (entrance, exit) = open(scope, "lane", count, Some).unwrap();
                let feeding = scope.spawn(move || {
                    while entrance.send(()).is_some() {
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                });
                // Nothing is taken out, so that it stops by itself, here or
                // further on.
                while taken.load(Ordering::Relaxed) < count * 2 * WAITING {
                    std::thread::yield_now();
                }
                drop(exit);
                feeding.join().unwrap();
            });
            // A lane whose exit is gone may take one more before it notices.
            let most = count * (2 * WAITING + 2);
            assert!(taken.load(Ordering::Relaxed) <= most, "{taken:?}");
        }
    }

    #[test]
    fn a_piece_without_answer_is_the_last() {
        for count in COUNTS {
            std::thread::scope(|scope| {
                let work = |piece| (piece != 10).then_some(piece);
                let (entrance, exit) = open(scope, "lane", count, work).unwrap();
                let feeding =
                    scope.spawn(move || (0..1000).try_for_each(|piece| entrance.send(piece)));
                assert!(exit.eq(0..10), "{count} lanes");
                assert_eq!(feeding.join().unwrap(), None);
            });
        }
    }
}
