//! Many people: they log in with bounded concurrency, stay, and come back.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::measure::Times;
use crate::person::{NotIn, Person, address};

/// People whose connections have ended although they stayed.
pub(crate) static LOST: AtomicU64 = AtomicU64::new(0);
/// The first block of addresses that a crowd lives in.
pub(crate) const HOMES: u8 = 16;
/// How many log in at once.
const AT_ONCE: usize = 64;
/// How long a client waits before it dials a lost server again.
const REDIAL_PAUSE: Duration = Duration::from_millis(500);

/// People with numbers from `first` on, each with a network of its own.
pub(crate) fn people(first: usize, count: usize) -> Result<Vec<Person>> {
    let numbers = first..first + count;
    numbers
        .map(|number| Person::new(&format!("person-{number}"), address(HOMES, number)))
        .collect()
}

/// People who are online until this is dropped.
#[derive(Default)]
pub(crate) struct Crowd(JoinSet<()>);

impl Crowd {
    /// Logs these people in, at the nodes of a server in turn. Returns how long each login
    /// took.
    pub(crate) async fn join(&mut self, nodes: &[SocketAddr], people: &[Person]) -> Result<Times> {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut logins = JoinSet::new();
        for (person, &server) in people.iter().zip(nodes.iter().cycle()) {
            let person = person.clone();
            let turn = Arc::clone(&turns).acquire_owned().await?;
            logins.spawn(async move {
                let begin = Instant::now();
                let connection = person.log_in(server).await;
                drop(turn);
                (connection, begin.elapsed())
            });
        }
        let mut times = Times::default();
        while let Some(joined) = logins.join_next().await {
            let (connection, time) = joined?;
            let mut connection = connection.map_err(|error| anyhow!("somebody is {error}"))?;
            self.0.spawn(async move {
                connection.stay().await;
                LOST.fetch_add(1, Ordering::Relaxed);
            });
            times.push(time);
        }
        Ok(times)
    }
}

/// How the people of a server came back to it.
#[derive(Debug, Default)]
pub(crate) struct Return {
    /// When each of them was back.
    pub(crate) back: Times,
    /// The attempts that failed.
    pub(crate) failures: BTreeMap<NotIn, u64>,
}

/// Lets all these people come back to the nodes in turn, each dialling as clients do, for
/// at most so long. They stay while `crowd` lives.
pub(crate) async fn come_back(
    nodes: &[SocketAddr],
    people: Vec<Person>,
    at_most: Duration,
    crowd: &mut Crowd,
) -> Return {
    let result = Arc::new(Mutex::new(Return::default()));
    let begin = Instant::now();
    let expected = people.len();
    let (done, mut is_done) = tokio::sync::mpsc::unbounded_channel();
    for (person, &server) in people.into_iter().zip(nodes.iter().cycle()) {
        let (result, done) = (Arc::clone(&result), done.clone());
        crowd.0.spawn(async move {
            loop {
                match person.log_in(server).await {
                    Ok(mut connection) => {
                        if let Ok(mut result) = result.lock() {
                            result.back.push(begin.elapsed());
                        }
                        // Nobody waits any more when the time is over.
                        let _: Result<(), _> = done.send(());
                        return connection.stay().await;
                    }
                    Err(error) => {
                        if let Ok(mut result) = result.lock() {
                            *result.failures.entry(error).or_default() += 1;
                        }
                        sleep(REDIAL_PAUSE).await;
                    }
                }
            }
        });
    }
    let all = async {
        for _ in 0..expected {
            is_done.recv().await;
        }
    };
    // Those who are not back by then are counted by whoever asked.
    let _: Result<(), _> = timeout(at_most, all).await;
    let mut result = result
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    std::mem::take(&mut *result)
}

/// The same people behind one address, as in an office.
pub(crate) fn in_an_office(people: &[Person]) -> Vec<Person> {
    let office = Ipv4Addr::new(127, 200, 0, 1);
    people.iter().map(|person| person.at(office)).collect()
}
