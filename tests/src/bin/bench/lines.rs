//! Long lines: a delay, and where it matters a rate.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pinhole_tests::lab::{Host, Lab, Plan, Router};
use pinhole_tests::scene::Scene;
use pinhole_tests::tree;

use crate::contenders::iperf3_rate;
use crate::measured::{Measured, median, wait_until};
use crate::race::{choose_congestion_control, is_same};
use crate::scenarios::Asked;

const RTT_MS: u32 = 100;

/// Pinhole beside iperf3: as many bytes over one connection, from a host behind
/// a NAT to one on the internet, with the same congestion control.
pub(crate) fn line_100(asked: &Asked) -> Result<()> {
    lines(asked, 100, 64)
}

/// As [`line_100`].
pub(crate) fn line_1000(asked: &Asked) -> Result<()> {
    lines(asked, 1000, 512)
}

fn lines(asked: &Asked, mbit: u32, mib: u64) -> Result<()> {
    let size_bytes = asked.mib.unwrap_or(mib) << 20;
    for congestion_control in ["reno", "bbr"] {
        line(asked, mbit, size_bytes, congestion_control)?;
    }
    Ok(())
}

fn line(asked: &Asked, mbit: u32, size_bytes: u64, congestion_control: &str) -> Result<()> {
    let delay = Duration::from_millis(u64::from(RTT_MS / 2));
    let lab = Lab::build(Plan::one_lan(Router::HOME).delayed(delay));
    lab.limit(mbit, RTT_MS);
    for host in [Host::A, Host::S] {
        choose_congestion_control(&lab, host, congestion_control)?;
    }
    let folder = tempfile::tempdir_in("/dev/shm")?;
    let source = folder.path().join("source");
    tree::write_file(&source, size_bytes, 1)?;
    let (mut bare, mut own) = (Vec::new(), Vec::new());
    for _ in 0..asked.runs {
        bare.push(iperf3_rate(&lab, Host::S, Lab::SERVER, size_bytes)?);
        own.push(pinhole_rate(&lab, &source, size_bytes)?);
    }
    let (bare, own) = (median(bare), median(own));
    println!(
        "  {mbit:5} Mbit/s, {congestion_control:5}: iperf3 {bare:6.1} MB/s, \
         pinhole {own:6.1} MB/s = {:.3} of it",
        own / bare
    );
    Ok(())
}

/// From the answer to the offer until all is safely there.
fn pinhole_rate(lab: &Lab, source: &Path, size_bytes: u64) -> Result<f64> {
    let scene = Scene::in_lab_with_folder(lab, tempfile::tempdir_in("/dev/shm"));
    let bob = scene.peer_in(lab, Host::S, "bob");
    let alice = scene.peer_in(lab, Host::A, "alice");
    let _receiving = bob.receive(&[]);
    let mut send = Measured::start(alice.command(&["send", "bob", &source.display().to_string()]))?;
    let connected = send.event("connected")?;
    ensure!(connected["path"] != "relay", "not direct: {connected}");
    send.event("started")?;
    let begin = Instant::now();
    send.event("completed")?;
    let elapsed = begin.elapsed();
    send.end()?;
    ensure!(
        is_same(source, &bob.inbox.join("source"))?,
        "the file differs"
    );
    Ok(size_bytes as f64 / 1e6 / elapsed.as_secs_f64())
}

/// How long the first byte of a file takes, from the command on.
pub(crate) fn first_byte(asked: &Asked) -> Result<()> {
    let delay = Duration::from_millis(u64::from(RTT_MS / 4));
    let plan = Plan::two_sites(Router::HOME, Router::HOME).delayed(delay);
    let lab = Lab::build(plan);
    let scene = Scene::in_lab(&lab);
    let bob = scene.peer_in(&lab, Host::B, "bob");
    let alice = scene.peer_in(&lab, Host::A, "alice");
    let _receiving = bob.receive(&[]);
    let (mut logins, mut connects, mut totals) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..asked.runs {
        let file = scene.file(&format!("byte-{run}"), b"1");
        let begin = Instant::now();
        let command = alice.command(&["send", "bob", &file.display().to_string()]);
        let mut send = Measured::start(command)?;
        send.event("logged_in")?;
        logins.push(begin.elapsed().as_secs_f64() * 1e3);
        let connected = send.event("connected")?;
        ensure!(connected["path"] == "punched", "not punched: {connected}");
        connects.push(connected["elapsed_ms"].as_f64().context("elapsed_ms")?);
        wait_until(|| has_content(&bob.inbox, run + 1))?;
        totals.push(begin.elapsed().as_secs_f64() * 1e3);
        send.end()?;
    }
    let [login, connect, total] = [logins, connects, totals].map(median);
    println!(
        "  from the command     {total:6.0} ms = {:.1} RTT",
        total / f64::from(RTT_MS)
    );
    println!("  of which to login    {login:6.0} ms");
    println!("  of which to session  {connect:6.0} ms");
    Ok(())
}

/// Whether that many files of a folder, temporary ones too, hold a byte.
fn has_content(folder: &Path, count: usize) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.metadata().is_ok_and(|m| m.len() > 0))
        .count()
        >= count
}
