//! What is measured, one table each.

use std::ops::Sub;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use pinhole_proto::registry::{DIRECTORY_PEOPLE, PING_INTERVAL};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::bystanders::Bystanders;
use crate::crowd::{self, Crowd, come_back, in_an_office};
use crate::measure::{Pingers, Times};
use crate::person::{HEARD_BYTES, Person, address};
use crate::relay::{self, Relayed};
use crate::server::{Cpu, Server, Site};
use crate::socat::Socat;
use crate::storms::{Raging, Storm};

/// How long a crowd is left alone before it is looked at.
const SETTLE: Duration = Duration::from_secs(3);
/// Logins that are measured beside a crowd, or fewer if more would close the directory.
const SAMPLE: usize = 200;
/// How often introductions are measured.
const ROUNDS: usize = 5;
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
pub(crate) async fn idle(site: &Site, levels: &[usize]) -> Result<()> {
    let server = site.start("idle", &[])?;
    let mut bystanders = Bystanders::of(&server);
    let empty = server.resident_bytes()?;
    println!(
        "   online  server/person  CPU/login  frames/login  server idles at  database  CPU/login"
    );
    for &level in levels {
        bystanders.grow_to(level)?;
        sleep(SETTLE).await;
        let held = server.resident_bytes()?.saturating_sub(empty);
        let each = held as f64 / level as f64 / 1e3;
        let database = server.database_bytes() as f64 / 1e6;
        let before = Spent::so_far(&server, &mut bystanders)?;
        sleep(PING_INTERVAL).await;
        let begin = Spent::so_far(&server, &mut bystanders)?;
        let until = tokio::time::Instant::now() + PING_INTERVAL;
        let sample = sample(level)?;
        let mut visitors = Crowd::default();
        visitors.join(&server.addresses(), &sample).await?;
        sleep_until(until).await;
        let idle = begin - before;
        let login = Spent::so_far(&server, &mut bystanders)? - begin - idle;
        println!(
            "{level:9}  {each:10.1} kB  {:6.2} ms  {:10.0} B  {:10.1} %  {database:7.0} MB  {:6.2} ms",
            login.cpu.server_s * 1e3 / sample.len() as f64,
            login.heard_bytes / sample.len() as f64,
            idle.cpu.server_s / PING_INTERVAL.as_secs_f64() * 100.0,
            login.cpu.database_s * 1e3 / sample.len() as f64,
        );
        drop(visitors);
        sleep(SETTLE).await;
    }
    Ok(())
}

/// Those who log in beside so many.
fn sample(level: usize) -> Result<Vec<Person>> {
    let room = DIRECTORY_PEOPLE.checked_sub(level).filter(|&room| room > 0);
    (0..room.map_or(SAMPLE, |room| room.min(SAMPLE)))
        .map(|number| {
            let name = format!("sample-{level}-{number}");
            Person::new(&name, address(NEWCOMERS, number))
        })
        .collect()
}

/// What was spent on everybody who is online. Everybody is pinged within
/// [`PING_INTERVAL`], so two times that are as long as this cost the same, unless more
/// happens in one of them.
#[derive(Clone, Copy)]
struct Spent {
    cpu: Cpu,
    heard_bytes: f64,
}

impl Spent {
    fn so_far(server: &Server<'_>, bystanders: &mut Bystanders) -> Result<Self> {
        let heard = HEARD_BYTES.load(Ordering::Relaxed) + bystanders.heard_bytes()?;
        Ok(Self {
            cpu: server.cpu()?,
            heard_bytes: heard as f64,
        })
    }
}

impl Sub for Spent {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            cpu: self.cpu - other.cpu,
            heard_bytes: self.heard_bytes - other.heard_bytes,
        }
    }
}

/// Logins a second: new names, then the same people again.
pub(crate) async fn logins(site: &Site, count: usize) -> Result<()> {
    let server = site.start("logins", &[])?;
    let people = crowd::people(0, count)?;
    println!("   logins        a second");
    for kind in ["new", "known"] {
        let mut crowd = Crowd::default();
        let (begin, cpu) = (Instant::now(), server.cpu()?);
        let times = crowd.join(&server.addresses(), &people).await?;
        let rate = per_second(count, begin.elapsed());
        println!(
            "{count:9} {kind:6} {rate:8.0}  {}   {}",
            (server.cpu()? - cpu).each_ms(count),
            times.summary()
        );
        drop(crowd);
        sleep(SETTLE).await;
    }
    Ok(())
}

/// Everybody comes back after the server was killed; from one address if asked for.
pub(crate) async fn restart(site: &Site, count: usize, is_office: bool) -> Result<()> {
    let mut server = site.start("restart", &[])?;
    let mut people = crowd::people(0, count)?;
    let mut crowd = Crowd::default();
    crowd.join(&server.addresses(), &people).await?;
    server.kill();
    drop(crowd);
    if is_office {
        people = in_an_office(&people);
    }
    server.restart()?;
    let mut crowd = Crowd::default();
    let nodes = server.addresses();
    let returned = come_back(&nodes, people, RETURN_AT_MOST, &mut crowd).await;
    let back = returned.back.count();
    let [half, all] = [50, 100].map(|percent| returned.back.percentile_ms(percent) / 1e3);
    println!(
        "{back} of {count} back{}; half of them after {half:.1} s, the last after {all:.1} s; \
         {:.1} s of server CPU, at most {:.0} MB",
        if is_office { " behind one address" } else { "" },
        server.cpu()?.server_s,
        server.peak_bytes()? as f64 / 1e6
    );
    for (failure, times) in &returned.failures {
        println!("  {times:6} attempts {failure}");
    }
    Ok(())
}

/// Pings of people who are online, and newcomers, beside strangers.
pub(crate) async fn storm(site: &Site, storms: &[Storm], plan: StormPlan) -> Result<()> {
    let server = site.start("storm", &[])?;
    let mut bystanders = Bystanders::of(&server);
    bystanders.grow_to(plan.online)?;
    println!(
        "storm        a second  server   pings                                          newcomers"
    );
    for (number, &storm) in (0..).zip(storms) {
        let pingers = Pingers::start(server.address(), PINGERS + number);
        sleep(Duration::from_secs(1)).await;
        let raging = Raging::start(storm, server.address(), plan.per_second)?;
        let (begin, cpu) = (Instant::now(), server.cpu()?);
        let (logins, asked) = newcomers(&server, number, plan.time).await?;
        let time = begin.elapsed();
        let rate = raging.begun() as f64 / time.as_secs_f64();
        let cpu = (server.cpu()? - cpu).server_s / time.as_secs_f64();
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
async fn newcomers(server: &Server<'_>, storm: u8, time: Duration) -> Result<(Times, usize)> {
    let begin = tokio::time::Instant::now();
    let mut attempts = JoinSet::new();
    let mut asked = 0;
    while begin.elapsed() < time {
        let number = usize::from(storm) * 1_000 + asked;
        let person = Person::new(&format!("newcomer-{number}"), address(NEWCOMERS, number))?;
        let address = server.address();
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
pub(crate) async fn introductions(site: &Site, online: usize, pairs: usize) -> Result<()> {
    let server = site.start("introductions", &[])?;
    let mut bystanders = Bystanders::of(&server);
    bystanders.grow_to(online)?;
    for round in 0..ROUNDS {
        let logged_in = relay::log_in(&server, round * pairs..(round + 1) * pairs).await?;
        sleep(SETTLE).await;
        let (begin, cpu) = (Instant::now(), server.cpu()?);
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
            "{count} introductions beside {online} idle: {:.0} a second, {}, {}",
            per_second(count, begin.elapsed()),
            (server.cpu()? - cpu).each_ms(count),
            all.summary()
        );
    }
    Ok(())
}

/// What the relayed bytes of so many pairs cost, how they are shared, and what a ping takes
/// beside them. The number is that of the run.
pub(crate) async fn relay(site: &Site, number: u8, pairs: usize, time: Duration) -> Result<()> {
    let server = site.start(&format!("relay-{number}"), NO_RELAY_LIMITS)?;
    let relayed = Relayed::meet(&server, pairs).await?;
    let pingers = Pingers::start(server.address(), PINGERS + number);
    sleep(Duration::from_secs(1)).await;
    let cpu = server.cpu()?;
    let poured = relayed.pour(time).await;
    let cpu = server.cpu()? - cpu;
    let pings = pingers.end()?.summary();
    println!("{}; pings beside it {pings}", poured.summary(cpu.server_s)?);
    Ok(())
}

/// What the same costs `socat`.
pub(crate) async fn socat(pairs: usize, time: Duration) -> Result<()> {
    let mut processes = Vec::new();
    let mut ends = Vec::new();
    for _ in 0..pairs {
        let (process, carried) = Socat::start().await?;
        processes.push(process);
        ends.push(carried);
    }
    let cpu = || processes.iter().map(Socat::cpu_s).sum::<Result<f64>>();
    let before = cpu()?;
    let poured = Relayed::between(ends).pour(time).await;
    println!("{}; socat", poured.summary(cpu()? - before)?);
    Ok(())
}
