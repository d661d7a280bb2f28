//! What is measured, one table each.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::crowd::{self, Crowd, come_back, in_an_office};
use crate::measure::{Pingers, Times};
use crate::person::{HEARD_BYTES, Person, address};
use crate::relay::{Pair, Relayed};
use crate::server::Server;
use crate::storms::{Raging, Storm};

/// How long a crowd is left alone before it is looked at.
const SETTLE: Duration = Duration::from_secs(3);
/// Logins that are measured beside a crowd.
const SAMPLE: usize = 50;
/// The longest that people may take to come back.
const RETURN_AT_MOST: Duration = Duration::from_secs(180);
/// How often a newcomer logs in during a storm.
const NEWCOMER_PAUSE: Duration = Duration::from_millis(100);
/// The block of addresses of newcomers, those of pingers are above it.
const NEWCOMERS: u8 = 112;
const PINGERS: u8 = 96;
const NO_RELAY_LIMITS: &[&str] = &[
    "--relay-rate",
    "none",
    "--relay-total-rate",
    "none",
    "--relay-bytes",
    "none",
    "--relay-network-bytes",
    "none",
];

fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// Memory of an idle person, and what a login costs beside so many.
pub(crate) async fn idle(folder: &Path, levels: &[usize]) -> Result<()> {
    let server = Server::start(folder, &[])?;
    let mut crowd = Crowd::default();
    let empty = server.resident_bytes()?;
    println!("   online  server/person  CPU/login  frames/login");
    let mut online = 0;
    for &level in levels {
        let more = crowd::people(online, level.saturating_sub(online))?;
        crowd.join(server.address, &more).await?;
        online = level.max(online);
        sleep(SETTLE).await;
        let held = server.resident_bytes()?.saturating_sub(empty);
        let (cpu, bytes) = (server.cpu_s()?, HEARD_BYTES.load(Ordering::Relaxed));
        let sample: Result<Vec<_>> = (0..SAMPLE)
            .map(|number| {
                let name = format!("sample-{level}-{number}");
                Person::new(&name, address(NEWCOMERS, number))
            })
            .collect();
        let mut visitors = Crowd::default();
        visitors.join(server.address, &sample?).await?;
        sleep(SETTLE).await;
        let cpu = (server.cpu_s()? - cpu) / SAMPLE as f64;
        let bytes = (HEARD_BYTES.load(Ordering::Relaxed) - bytes) / SAMPLE as u64;
        let each = held as f64 / online as f64 / 1e3;
        println!(
            "{online:9}  {each:10.1} kB  {:6.2} ms  {bytes:10} B",
            cpu * 1e3
        );
        drop(visitors);
        sleep(SETTLE).await;
    }
    Ok(())
}

/// Logins a second: new names, then the same people again.
pub(crate) async fn logins(folder: &Path, count: usize) -> Result<()> {
    let server = Server::start(folder, &[])?;
    let people = crowd::people(0, count)?;
    println!("   logins        a second  server CPU each");
    for kind in ["new", "known"] {
        let mut crowd = Crowd::default();
        let (begin, cpu) = (Instant::now(), server.cpu_s()?);
        let times = crowd.join(server.address, &people).await?;
        let rate = per_second(count, begin.elapsed());
        let each = (server.cpu_s()? - cpu) * 1e3 / count as f64;
        println!(
            "{count:9} {kind:6} {rate:8.0}  {each:9.2} ms   {}",
            times.summary()
        );
        drop(crowd);
        sleep(SETTLE).await;
    }
    Ok(())
}

/// Everybody comes back after the server was killed; from one address if asked for.
pub(crate) async fn restart(folder: &Path, count: usize, is_office: bool) -> Result<()> {
    let server = Server::start(folder, &[])?;
    let mut people = crowd::people(0, count)?;
    let mut crowd = Crowd::default();
    crowd.join(server.address, &people).await?;
    drop(server);
    drop(crowd);
    if is_office {
        people = in_an_office(&people);
    }
    let server = Server::start(folder, &[])?;
    let mut crowd = Crowd::default();
    let returned = come_back(server.address, people, RETURN_AT_MOST, &mut crowd).await;
    let back = returned.back.count();
    let [half, all] = [50, 100].map(|percent| returned.back.percentile_ms(percent) / 1e3);
    println!(
        "{back} of {count} back{}; half of them after {half:.1} s, the last after {all:.1} s; \
         {:.1} s of server CPU, at most {:.0} MB",
        if is_office { " behind one address" } else { "" },
        server.cpu_s()?,
        server.peak_bytes()? as f64 / 1e6
    );
    for (failure, times) in &returned.failures {
        println!("  {times:6} attempts {failure}");
    }
    Ok(())
}

/// Pings of people who are online, and newcomers, beside strangers.
pub(crate) async fn storm(folder: &Path, storms: &[Storm], plan: StormPlan) -> Result<()> {
    let server = Server::start(folder, &[])?;
    let mut crowd = Crowd::default();
    crowd
        .join(server.address, &crowd::people(0, plan.online)?)
        .await?;
    println!(
        "storm        a second  server   pings                                          newcomers"
    );
    for (number, &storm) in (0..).zip(storms) {
        let pingers = Pingers::start(server.address, PINGERS + number);
        sleep(Duration::from_secs(1)).await;
        let raging = Raging::start(storm, server.address, plan.per_second)?;
        let (begin, cpu) = (Instant::now(), server.cpu_s()?);
        let (logins, asked) = newcomers(&server, number, plan.time).await?;
        let time = begin.elapsed();
        let rate = raging.begun() as f64 / time.as_secs_f64();
        let cpu = (server.cpu_s()? - cpu) / time.as_secs_f64();
        drop(raging);
        let name = format!("{storm:?}");
        println!(
            "{name:11} {rate:9.0}  {:4.0} %  {}  {} of {asked} in, {}",
            cpu * 100.0,
            pingers.end()?.summary(),
            logins.count(),
            logins.summary()
        );
        sleep(SETTLE * 2).await;
    }
    Ok(())
}

/// What is online during a storm, how fast strangers come, and for how long.
#[derive(Clone, Copy)]
pub(crate) struct StormPlan {
    pub(crate) online: usize,
    pub(crate) per_second: usize,
    pub(crate) time: Duration,
}

/// Newcomers log in at a steady rate. Returns how long those took who got in, and how
/// many tried.
async fn newcomers(server: &Server, storm: u8, time: Duration) -> Result<(Times, usize)> {
    let begin = tokio::time::Instant::now();
    let mut attempts = JoinSet::new();
    let mut asked = 0;
    while begin.elapsed() < time {
        let number = usize::from(storm) * 1_000 + asked;
        let person = Person::new(&format!("newcomer-{number}"), address(NEWCOMERS, number))?;
        let address = server.address;
        attempts.spawn(async move {
            let begin = Instant::now();
            let logged_in = person.log_in(address).await;
            logged_in.ok().map(|_| begin.elapsed())
        });
        asked += 1;
        sleep_until(begin + NEWCOMER_PAUSE * u32::try_from(asked)?).await;
    }
    let mut times = Times::default();
    while let Some(time) = attempts.join_next().await {
        time?.into_iter().for_each(|time| times.push(time));
    }
    Ok((times, asked))
}

/// Introductions a second beside idle people.
pub(crate) async fn introductions(folder: &Path, online: usize, pairs: usize) -> Result<()> {
    let server = Server::start(folder, &[])?;
    let mut crowd = Crowd::default();
    let people = crowd::people(0, online)?;
    crowd.join(server.address, &people).await?;
    let mut logged_in = Vec::new();
    for number in 0..pairs {
        logged_in.push(Pair::log_in(server.address, number).await?);
    }
    sleep(SETTLE).await;
    let (begin, cpu) = (Instant::now(), server.cpu_s()?);
    let mut tasks = JoinSet::new();
    for mut pair in logged_in {
        tasks.spawn(async move {
            let mut times = Times::default();
            // The rate of one key allows a burst of sixty.
            for _ in 0..50 {
                let begin = Instant::now();
                pair.introduce().await?;
                times.push(begin.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut all = Times::default();
    while let Some(times) = tasks.join_next().await {
        all.extend(times??);
    }
    let count = all.count();
    println!(
        "{count} introductions beside {online} idle: {:.0} a second, {:.3} ms of server CPU each, {}",
        per_second(count, begin.elapsed()),
        (server.cpu_s()? - cpu) * 1e3 / count as f64,
        all.summary()
    );
    Ok(())
}

/// What relayed bytes cost, how they are shared, and what a ping takes beside them.
pub(crate) async fn relay(folder: &Path, pairs: &[usize], time: Duration) -> Result<()> {
    println!("    pairs     MB/s  CPU s/GB  fairness   pings beside them");
    for (number, &pairs) in (0..).zip(pairs) {
        let run = folder.join(pairs.to_string());
        std::fs::create_dir(&run)?;
        let server = Server::start(&run, NO_RELAY_LIMITS)?;
        let relayed = Relayed::meet(server.address, pairs).await?;
        let pingers = Pingers::start(server.address, PINGERS + number);
        sleep(Duration::from_secs(1)).await;
        let cpu = server.cpu_s()?;
        let poured = relayed.pour(time).await;
        let cpu = server.cpu_s()? - cpu;
        let total = poured.total() as f64;
        if total == 0.0 {
            return Err(anyhow!("nothing was relayed"));
        }
        println!(
            "{pairs:9} {:8.0}  {:8.2}  {:8.3}   {}",
            total / 1e6 / poured.time.as_secs_f64(),
            cpu / (total / 1e9),
            poured.fairness(),
            pingers.end()?.summary()
        );
    }
    Ok(())
}
