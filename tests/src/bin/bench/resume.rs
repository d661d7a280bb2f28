//! Going on where a killed receiver stopped.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pinhole_tests::lab::{Host, Lab, Plan, Router};
use pinhole_tests::scene::Scene;
use pinhole_tests::tree;

use crate::contenders::B_ADDRESS;
use crate::measured::{Measured, median, wait_until};
use crate::race::is_same;
use crate::scenarios::Asked;

pub(crate) fn resume(asked: &Asked) -> Result<()> {
    let size_bytes = asked.mib.unwrap_or(1024) << 20;
    let lab = Lab::build(Plan::one_lan(Router::HOME).delayed(Duration::ZERO));
    let folder = tempfile::tempdir_in("/var/tmp")?;
    let source = folder.path().join("source");
    tree::write_file(&source, size_bytes, 1)?;
    let (mut again, mut going_on, mut reading, mut whole) = (vec![], vec![], vec![], vec![]);
    for _ in 0..asked.runs {
        let into = tempfile::tempdir_in(folder.path())?;
        let run = one(&lab, into.path(), &source, size_bytes)?;
        again.push(run.again);
        going_on.push(run.going_on_s);
        whole.push(run.rest_s);
        reading.push(read_half_s(&source, size_bytes)?);
    }
    let [again, going_on, reading, whole] = [again, going_on, reading, whole].map(median);
    println!(
        "  sent beside what was missing {:6.2} % of the file, digests and headers included",
        again * 100.0
    );
    println!("  until new bytes come {going_on:6.2} s from the offer's acceptance on");
    println!("  until all is there   {whole:6.2} s from the offer's acceptance on");
    println!("  reading half of it   {reading:6.2} s (with its digest)");
    Ok(())
}

struct Resumed {
    again: f64,
    going_on_s: f64,
    rest_s: f64,
}

fn one(lab: &Lab, into: &Path, source: &Path, size_bytes: u64) -> Result<Resumed> {
    let scene = Scene::on_lan(lab, B_ADDRESS, tempfile::tempdir_in(into));
    let bob = scene.peer_in(lab, Host::B, "bob");
    let alice = scene.peer_in(lab, Host::A, "alice");
    let inbox = bob.inbox.display().to_string();
    let once = ["receive", "--into", &inbox, "--accept", "all", "--once"];
    let path = source.display().to_string();

    let mut receive = Measured::start(bob.command(&once))?;
    receive.event("logged_in")?;
    let send = Measured::start(alice.command(&["send", "bob", &path]))?;
    wait_until(|| part_bytes(&bob.inbox) >= size_bytes / 2)?;
    receive.kill()?;
    send.kill()?;
    let left_bytes = part_bytes(&bob.inbox);

    let mut receive = Measured::start(bob.command(&once))?;
    receive.event("logged_in")?;
    let before_bytes = received_bytes(lab)?;
    let mut send = Measured::start(alice.command(&["send", "bob", &path]))?;
    send.event("started")?;
    let begin = Instant::now();
    wait_until(|| part_bytes(&bob.inbox) > left_bytes)?;
    let going_on_s = begin.elapsed().as_secs_f64();
    send.event("completed")?;
    let rest_s = begin.elapsed().as_secs_f64();
    send.end()?;
    let crossed_bytes = received_bytes(lab)? - before_bytes;
    receive.end()?;
    ensure!(
        is_same(source, &bob.inbox.join("source"))?,
        "the file differs"
    );
    Ok(Resumed {
        again: (crossed_bytes + left_bytes) as f64 / size_bytes as f64 - 1.0,
        going_on_s,
        rest_s,
    })
}

/// What has reached host B over the line.
fn received_bytes(lab: &Lab) -> Result<u64> {
    let mut cat = lab.command(Host::B, "cat".as_ref());
    let count = cat
        .arg("/sys/class/net/eth0/statistics/rx_bytes")
        .output()?;
    Ok(String::from_utf8(count.stdout)?.trim().parse()?)
}

/// What there is of the one file that is arriving.
fn part_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| Some(entry.metadata().ok()?.len()));
    sizes.max().unwrap_or_default()
}

/// What looking through that half takes at least.
fn read_half_s(source: &Path, size_bytes: u64) -> Result<f64> {
    let begin = Instant::now();
    let mut half = std::io::Read::take(fs::File::open(source)?, size_bytes / 2);
    tree::digest(&mut half)?;
    Ok(begin.elapsed().as_secs_f64())
}
