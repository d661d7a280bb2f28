//! The same files by every contender in turn, over one bridge without delay.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pinhole_tests::lab::{Host, Lab, Plan, Router};
use pinhole_tests::{process, tree};
use tempfile::TempDir;

use crate::contenders::{
    Contender, Ground, IPERF3, PINHOLE, PIPELINE, RSYNC, Run, SCP, SENDME, TAR, WORMHOLE,
};
use crate::measured::{Usage, is_installed, median};
use crate::scenarios::Asked;

const GIB_BYTES: f64 = (1u64 << 30) as f64;

pub(crate) fn large(asked: &Asked) -> Result<()> {
    let ground = memory()?;
    let source = one_file(ground.path(), asked.mib.unwrap_or(4096))?;
    let contenders = [IPERF3, SCP, RSYNC, WORMHOLE, PIPELINE, PINHOLE];
    race(asked, ground.path(), &source, &contenders)
}

pub(crate) fn disk(asked: &Asked) -> Result<()> {
    let ground = on_disk()?;
    let source = one_file(ground.path(), asked.mib.unwrap_or(4096))?;
    race(
        asked,
        ground.path(),
        &source,
        &[SCP, RSYNC, PIPELINE, PINHOLE],
    )
}

pub(crate) fn files(asked: &Asked) -> Result<()> {
    let ground = memory()?;
    let source = many_files(ground.path(), 10_000, 4096)?;
    race(asked, ground.path(), &source, &[TAR, RSYNC, PINHOLE])
}

pub(crate) fn files_disk(asked: &Asked) -> Result<()> {
    let ground = on_disk()?;
    let source = many_files(ground.path(), 10_000, 4096)?;
    race(asked, ground.path(), &source, &[TAR, RSYNC, PINHOLE])
}

pub(crate) fn photos(asked: &Asked) -> Result<()> {
    let ground = on_disk()?;
    let each_mib = asked.mib.unwrap_or(8);
    let source = many_files(ground.path(), 4000 / each_mib, each_mib << 20)?;
    race(asked, ground.path(), &source, &[TAR, RSYNC, PINHOLE])
}

pub(crate) fn many(asked: &Asked) -> Result<()> {
    let ground = memory()?;
    let source = many_files(ground.path(), 100_000, 1024)?;
    race(asked, ground.path(), &source, &[RSYNC, PINHOLE])
}

pub(crate) fn tiny(asked: &Asked) -> Result<()> {
    let ground = on_disk()?;
    let source = ground.path().join("source");
    tree::write_file(&source, 1024, 1)?;
    race(
        asked,
        ground.path(),
        &source,
        &[SENDME, SCP, RSYNC, PINHOLE],
    )
}

fn memory() -> Result<TempDir> {
    tempfile::tempdir_in("/dev/shm").context("/dev/shm")
}

fn on_disk() -> Result<TempDir> {
    tempfile::tempdir_in("/var/tmp").context("/var/tmp")
}

fn one_file(folder: &Path, mib: u64) -> Result<PathBuf> {
    let source = folder.join("source");
    tree::write_file(&source, mib << 20, 1)?;
    Ok(source)
}

fn many_files(folder: &Path, count: u64, size_bytes: u64) -> Result<PathBuf> {
    const A_FOLDER: u64 = 100;
    let source = folder.join("source");
    for number in 0..count {
        let inner = source.join(format!("{:04}", number / A_FOLDER));
        if number % A_FOLDER == 0 {
            fs::create_dir_all(&inner)?;
        }
        tree::write_file(&inner.join(format!("{number:06}")), size_bytes, number + 1)?;
    }
    Ok(source)
}

/// What one contender took, run after run.
#[derive(Default)]
struct Score {
    elapsed_s: Vec<f64>,
    cpu_s: [Vec<f64>; 2],
    peak_bytes: [i64; 2],
}

impl Score {
    fn add(&mut self, run: &Run) {
        self.elapsed_s.push(run.elapsed_s);
        for (side, Usage { cpu_s, peak_bytes }) in run.usages.into_iter().enumerate() {
            self.cpu_s[side].push(cpu_s);
            self.peak_bytes[side] = self.peak_bytes[side].max(peak_bytes);
        }
    }
}

/// Memory for what is about to be written, see the binary `warm`. Ends when
/// dropped.
struct Warm(Child);

impl Warm {
    fn start(folder: &Path, bytes: u64) -> Result<Self> {
        let mut warm = Command::new(process::binary("warm"));
        warm.arg(folder).arg(bytes.to_string());
        let child = warm.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut warm = Self(child.context("warm")?);
        let mut said = String::new();
        let stdout = warm.0.stdout.as_mut().context("no output")?;
        BufReader::new(stdout).read_line(&mut said)?;
        ensure!(said == "warm\n", "no memory for {bytes} bytes");
        Ok(warm)
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        // Closes its input first.
        let _ = self.0.wait();
    }
}

fn race(asked: &Asked, folder: &Path, source: &Path, contenders: &[Contender]) -> Result<()> {
    let lab = Lab::build(Plan::one_lan(Router::HOME).delayed(Duration::ZERO));
    for host in [Host::A, Host::B] {
        // The same for all of them, and in every kernel; BBR, which some have
        // by default, takes a third of what such a line carries.
        choose_congestion_control(&lab, host, "reno")?;
        refuse_lookups(&lab, host)?;
    }
    let present = |contender: &&Contender| contender.programs.iter().all(|p| is_installed(p));
    let only = |contender: &&Contender| asked.wants(contender.name);
    let contenders: Vec<_> = contenders.iter().filter(only).filter(present).collect();
    let mut scores: Vec<Score> = contenders.iter().map(|_| Score::default()).collect();
    let ground = Ground {
        lab: &lab,
        folder,
        source,
    };
    let bytes = bytes_of(source)?;
    for run in 0..asked.runs {
        let mut turns: Vec<_> = contenders.iter().zip(&mut scores).collect();
        // What the one before has left of the machine shows in a few percent.
        if run % 2 == 1 {
            turns.reverse();
        }
        for (contender, score) in turns {
            // What the run before has written must not go to the disk now.
            ensure!(Command::new("sync").status()?.success(), "sync");
            let into = tempfile::tempdir_in(ground.folder)?;
            let warm = Warm::start(ground.folder, bytes)?;
            let run = (contender.send)(&ground, into.path()).context(contender.name)?;
            drop(warm);
            if let Some(arrived) = &run.arrived {
                let same = is_same(source, arrived);
                ensure!(
                    same.context("comparing")?,
                    "{} lost something",
                    contender.name
                );
            }
            score.add(&run);
        }
    }
    for (contender, score) in contenders.iter().zip(&scores) {
        print(contender.name, score, bytes);
    }
    let elapsed_s = |score: &Score| median(score.elapsed_s.clone());
    if let [_, .., own] = scores.as_slice() {
        let own = elapsed_s(own);
        let ratios = contenders.iter().zip(&scores).map(|(contender, score)| {
            format!("{:.2} x {}", elapsed_s(score) / own, contender.name)
        });
        let ratios: Vec<_> = ratios.take(contenders.len() - 1).collect();
        println!("  pinhole is as fast as {}", ratios.join(", "));
    }
    Ok(())
}

fn print(name: &str, score: &Score, bytes: u64) {
    let elapsed_s = median(score.elapsed_s.clone());
    let rate = bytes as f64 / 1e6 / elapsed_s;
    let [send, receive] = score.cpu_s.clone().map(median);
    let [send_peak, receive_peak] = score.peak_bytes.map(|bytes| bytes >> 20);
    let gib = bytes as f64 / GIB_BYTES;
    let cpu = if gib > 0.5 {
        format!("{:5.2} + {:5.2} CPU s/GiB", send / gib, receive / gib)
    } else {
        format!("{send:5.2} + {receive:5.2} CPU s")
    };
    println!(
        "  {name:14} {elapsed_s:8.3} s {rate:7.0} MB/s  {cpu}, peak {send_peak} and {receive_peak} MiB"
    );
}

pub(crate) fn choose_congestion_control(lab: &Lab, host: Host, name: &str) -> Result<()> {
    let mut sysctl = lab.command(host, "sh".as_ref());
    let script = format!("echo {name} >/proc/sys/net/ipv4/tcp_congestion_control");
    ensure!(sysctl.args(["-c", &script]).status()?.success(), "{name}");
    Ok(())
}

/// There is no name server on this network: some programs look names up, and
/// would wait for it.
pub(crate) fn refuse_lookups(lab: &Lab, host: Host) -> Result<()> {
    let settings = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = settings
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver "));
    for server in servers {
        let mut ip = lab.command(host, "ip".as_ref());
        ip.args(["route", "replace", "unreachable", server.trim()]);
        ensure!(ip.status()?.success(), "{server}");
    }
    Ok(())
}

fn bytes_of(source: &Path) -> Result<u64> {
    if source.is_file() {
        return Ok(source.metadata()?.len());
    }
    Ok(tree::read(source)?
        .values()
        .map(tree::Node::size_bytes)
        .sum())
}

pub(crate) fn is_same(source: &Path, arrived: &Path) -> Result<bool> {
    if source.is_dir() {
        return Ok(tree::read(source)? == tree::read(arrived)?);
    }
    let digest = |path: &Path| tree::digest(&mut File::open(path)?);
    Ok(digest(source)? == digest(arrived)?)
}
