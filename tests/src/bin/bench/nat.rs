//! Through routers: which way each tool takes, when the first byte is there,
//! and when all is. Every tool has its own servers on host S.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pinhole_tests::lab::{Host, Lab, Plan, Router, Site};
use pinhole_tests::scene::Scene;
use pinhole_tests::tree;

use crate::contenders::{is_listening, text};
use crate::measured::{is_installed, median, wait_until};
use crate::race::{choose_congestion_control, is_same, refuse_lookups};
use crate::scenarios::Asked;
use crate::stun::Stun;

const PATIENCE: Duration = Duration::from_secs(60);
/// A command from which the server has heard nothing for so long waits for the
/// other side: many times what a round trip to the server takes.
const QUIET: Duration = Duration::from_millis(500);
/// Where wormhole-rs always asks for its public address, over TCP.
const WORMHOLE_RS_STUN: &str = "stun.piegames.de";

const MAILBOX: u16 = 4000;
const TRANSIT: u16 = 4001;
const IROH_RELAY: u16 = 3340;

/// One run's place. A sends `source` to B.
struct NatGround<'a> {
    lab: &'a Lab,
    source: &'a Path,
    /// For everything that the run writes.
    into: &'a Path,
    /// Where the receiver writes.
    inbox: &'a Path,
    /// Has not been used before.
    number: usize,
    has_iroh_relay: bool,
}

/// What the first person has typed is running, and waits.
struct WaitingRival {
    first: RunningRival,
    /// What the second person types now.
    second: Command,
    receiver: RivalReceiver,
    /// Ends with the run.
    _scene: Option<Scene>,
}

#[derive(Clone, Copy)]
enum RivalReceiver {
    First,
    Second,
}

struct Tool {
    name: &'static str,
    /// What has to be installed for it.
    programs: &'static [&'static str],
    prepare: fn(&NatGround<'_>) -> Result<WaitingRival>,
}

const TOOLS: [Tool; 4] = [
    Tool {
        name: "pinhole",
        programs: &[],
        prepare: pinhole,
    },
    Tool {
        name: "magic-wormhole",
        programs: &["wormhole", "twist"],
        prepare: wormhole,
    },
    Tool {
        name: "wormhole-rs",
        programs: &["wormhole-rs", "twist"],
        prepare: wormhole_rs,
    },
    Tool {
        name: "sendme",
        programs: &["sendme"],
        prepare: sendme,
    },
];

/// A process that is killed when dropped. What it says goes to a file.
struct RunningRival {
    child: Child,
    log: PathBuf,
}

impl RunningRival {
    fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        let output = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?);
        let child = command.stderr(output).spawn();
        let child = child.with_context(|| format!("{command:?}"))?;
        Ok(Self { child, log })
    }

    fn said(&self) -> String {
        let said = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some_and(|status| !status.success()) {
            bail!("it failed: {}", self.said());
        }
        Ok(status)
    }
}

impl Drop for RunningRival {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What one run took, from the start of the second command.
struct Took {
    first_byte_s: f64,
    /// Until the file is there under its name.
    complete_s: f64,
    /// Of the file's size, how much has reached host S.
    relayed: f64,
}

pub(crate) fn nat(asked: &Asked) -> Result<()> {
    let folder = tempfile::tempdir_in("/dev/shm")?;
    let source = folder.path().join("source");
    let mib = asked.mib.unwrap_or(4);
    tree::write_file(&source, mib << 20, 1)?;
    let chosen = TOOLS
        .iter()
        .filter(|tool| asked.wants(tool.name))
        .filter(|tool| tool.programs.iter().all(|program| is_installed(program)));
    let tools: Vec<_> = chosen.collect();
    let has_iroh_relay =
        tools.iter().any(|tool| tool.name == "sendme") && is_installed("iroh-relay");
    let heads = tools.iter().map(|tool| match tool.name {
        "sendme" if !has_iroh_relay => "sendme (no relay)",
        name => name,
    });
    println!("\nWay; seconds until the first byte / all of {mib} MiB\n");
    println!("| | {} |", heads.collect::<Vec<_>>().join(" | "));
    println!("|---{}|", "|---".repeat(tools.len()));
    let mut number = 0;
    for (name, plan) in pairs() {
        let lab = Lab::build(plan);
        for host in [Host::A, Host::B, Host::S] {
            choose_congestion_control(&lab, host, "reno")?;
            refuse_lookups(&lab, host)?;
        }
        let _servers = start_servers(&lab, folder.path())?;
        let _stun = Stun::start(&lab)?;
        let mut runs: Vec<Vec<Option<Took>>> = tools.iter().map(|_| Vec::new()).collect();
        for _ in 0..asked.runs {
            for (tool, runs) in tools.iter().zip(&mut runs) {
                number += 1;
                let into = tempfile::tempdir_in(folder.path())?;
                let inbox = into.path().join("inbox");
                fs::create_dir(&inbox)?;
                let took = once(
                    tool,
                    &NatGround {
                        lab: &lab,
                        source: &source,
                        into: into.path(),
                        inbox: &inbox,
                        number,
                        has_iroh_relay,
                    },
                );
                let took = took.inspect_err(|e| eprintln!("{name}: {}: {e:#}", tool.name));
                runs.push(took.ok());
            }
        }
        let cells: Vec<_> = runs.iter().map(|runs| cell(runs)).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
    println!();
    Ok(())
}

/// The sender's site first.
fn pairs() -> [(&'static str, Plan); 5] {
    let behind_carrier = Site {
        carrier: Some(Router::CARRIER),
        ..Router::HOME.into()
    };
    let (home, symmetric) = (Router::HOME, Router::SYMMETRIC);
    [
        ("one LAN", Plan::one_lan(home)),
        ("home × home", Plan::two_sites(home, home)),
        ("home × symmetric", Plan::two_sites(home, symmetric)),
        (
            "symmetric × symmetric",
            Plan::two_sites(symmetric, symmetric),
        ),
        (
            "public × home behind a carrier's NAT",
            Plan::two_sites(Router::PUBLIC, behind_carrier),
        ),
    ]
}

fn once(tool: &Tool, ground: &NatGround<'_>) -> Result<Took> {
    let mut waiting = (tool.prepare)(ground)?;
    let received_before = received_bytes(ground.lab)?;
    let begin = Instant::now();
    let mut second = RunningRival::start(waiting.second, ground.into.join("second.log"))?;
    let arrived = ground.inbox.join("source");
    let size_bytes = ground.source.metadata()?.len();
    let is_whole = || fs::metadata(&arrived).is_ok_and(|file| file.len() == size_bytes);
    let (mut first_byte, mut complete) = (None, None);
    let end = loop {
        if first_byte.is_none() && has_content(ground.inbox) {
            first_byte = Some(begin.elapsed());
        }
        if complete.is_none() && is_whole() {
            complete = Some(begin.elapsed());
        }
        let ends = [waiting.first.ended()?, second.ended()?];
        if ends[waiting.receiver as usize].is_some() {
            break begin.elapsed();
        }
        ensure!(
            begin.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {}{}",
            waiting.first.said(),
            second.said()
        );
        thread::sleep(Duration::from_millis(1));
    };
    let relayed_bytes = received_bytes(ground.lab)? - received_before;
    ensure!(is_same(ground.source, &arrived)?, "the file differs");
    Ok(Took {
        first_byte_s: first_byte.unwrap_or(end).as_secs_f64(),
        complete_s: complete.unwrap_or(end).as_secs_f64(),
        relayed: relayed_bytes as f64 / size_bytes as f64,
    })
}

fn cell(runs: &[Option<Took>]) -> String {
    let good: Vec<&Took> = runs.iter().flatten().collect();
    if good.is_empty() {
        return "failed".to_owned();
    }
    let of = |value: fn(&Took) -> f64| median(good.iter().map(|took| value(took)).collect());
    let mut ways: Vec<_> = good.iter().map(|took| way(took.relayed)).collect();
    ways.sort();
    ways.dedup();
    let failed = match runs.len() - good.len() {
        0 => String::new(),
        count => format!(", {count} of {} failed", runs.len()),
    };
    format!(
        "{}, {:.2} / {:.2}{failed}",
        ways.join(" or "),
        of(|took| took.first_byte_s),
        of(|took| took.complete_s)
    )
}

/// Introductions take no tenth of the file's size.
fn way(relayed: f64) -> String {
    if relayed < 0.1 {
        "direct".to_owned()
    } else if relayed > 0.9 {
        "relay".to_owned()
    } else {
        format!("{:.0} % by relay, then direct", relayed * 100.0)
    }
}

/// What has reached host S over its line.
fn received_bytes(lab: &Lab) -> Result<u64> {
    let mut cat = lab.command(Host::S, "cat".as_ref());
    let count = cat
        .arg("/sys/class/net/wan0/statistics/rx_bytes")
        .output()?;
    Ok(String::from_utf8(count.stdout)?.trim().parse()?)
}

/// Whether a byte of the file is there, be it in a temporary file.
fn has_content(folder: &Path) -> bool {
    let mut entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return has_content(&path);
        }
        // sendme has a database beside what it receives.
        let is_beside = path.to_string_lossy().contains("/.sendme-")
            && path.extension().is_none_or(|extension| extension != "data");
        !is_beside && entry.metadata().is_ok_and(|file| file.len() > 0)
    })
}

/// As far as they are installed.
fn start_servers(lab: &Lab, folder: &Path) -> Result<Vec<RunningRival>> {
    let channels = tempfile::tempdir_in(folder)?.keep().join("mailbox.sqlite");
    let mailbox = [
        "wormhole-mailbox".to_owned(),
        format!("--port=tcp:{MAILBOX}"),
        format!("--channel-db={}", text(&channels)),
    ];
    let transit = ["transitrelay".to_owned(), format!("--port=tcp:{TRANSIT}")];
    let servers: [(&str, &[String], u16); 3] = [
        ("twist", &mailbox, MAILBOX),
        ("twist", &transit, TRANSIT),
        ("iroh-relay", &["--dev".to_owned()], IROH_RELAY),
    ];
    let mut running = Vec::new();
    for (program, arguments, port) in servers {
        if Command::new(program).arg("--version").output().is_err() {
            continue;
        }
        let mut command = lab.command(Host::S, program.as_ref());
        command.args(arguments);
        let log = folder.join(format!("server-{port}.log"));
        let server = RunningRival::start(command, log)?;
        wait_until(|| is_listening(lab, Host::S, port)).with_context(|| server.said())?;
        running.push(server);
    }
    Ok(running)
}

/// The sender waits for the receiver, which has the file in the end.
fn sender_first(ground: &NatGround<'_>, send: Command, receive: Command) -> Result<WaitingRival> {
    Ok(WaitingRival {
        first: start_first(ground, send)?,
        second: receive,
        receiver: RivalReceiver::Second,
        _scene: None,
    })
}

/// Starts the first command, and waits until it has nothing more to do alone.
fn start_first(ground: &NatGround<'_>, command: Command) -> Result<RunningRival> {
    let before = received_bytes(ground.lab)?;
    let mut first = RunningRival::start(command, ground.into.join("first.log"))?;
    let deadline = Instant::now() + PATIENCE;
    let (mut last, mut since) = (before, Instant::now());
    while last == before || since.elapsed() < QUIET {
        ensure!(Instant::now() < deadline, "never quiet: {}", first.said());
        ensure!(first.ended()?.is_none(), "ended: {}", first.said());
        thread::sleep(Duration::from_millis(20));
        let received = received_bytes(ground.lab)?;
        if received != last {
            (last, since) = (received, Instant::now());
        }
    }
    Ok(first)
}

fn pinhole(ground: &NatGround<'_>) -> Result<WaitingRival> {
    let scene = Scene::in_lab_with_folder(ground.lab, tempfile::tempdir_in(ground.into));
    let bob = scene.peer_in(ground.lab, Host::B, "bob");
    let alice = scene.peer_in(ground.lab, Host::A, "alice");
    let inbox = text(ground.inbox);
    let receive = bob.command(&["receive", "--into", &inbox, "--accept", "all", "--once"]);
    Ok(WaitingRival {
        first: start_first(ground, receive)?,
        second: alice.command(&["send", "bob", &text(ground.source)]),
        receiver: RivalReceiver::First,
        _scene: Some(scene),
    })
}

fn wormhole(ground: &NatGround<'_>) -> Result<WaitingRival> {
    let command = |host| {
        let mut command = ground.lab.command(host, "wormhole".as_ref());
        let mailbox = format!("ws://{}:{MAILBOX}/v1", Lab::SERVER);
        let transit = format!("tcp:{}:{TRANSIT}", Lab::SERVER);
        command.args(["--relay-url", &mailbox, "--transit-helper", &transit]);
        command
    };
    let code = format!("{}-guitarist-revenge", ground.number);
    let mut send = command(Host::A);
    send.args(["send", "--no-qr", "--hide-progress", "--code", &code])
        .arg(ground.source);
    let mut receive = command(Host::B);
    receive
        .args(["receive", "--accept-file", "--hide-progress", "-o"])
        .arg(ground.inbox)
        .arg(&code);
    sender_first(ground, send, receive)
}

fn wormhole_rs(ground: &NatGround<'_>) -> Result<WaitingRival> {
    let hosts = ground.into.join("hosts");
    fs::write(&hosts, format!("{} {WORMHOLE_RS_STUN}\n", Lab::SERVER))?;
    let command = |host, verb| {
        let mut command = ground.lab.command(host, "sh".as_ref());
        // `ip netns exec` has given it mounts of its own.
        command
            .args(["-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""])
            .arg(&hosts);
        let mailbox = format!("ws://{}:{MAILBOX}/v1", Lab::SERVER);
        let transit = format!("tcp://{}:{TRANSIT}", Lab::SERVER);
        command.args(["wormhole-rs", verb, "--rendezvous-server", &mailbox]);
        command.args(["--relay-server", &transit]);
        command
    };
    let code = format!("{}-guitarist-revenge", ground.number);
    let mut send = command(Host::A, "send");
    send.args(["--no-qr", "--code", &code]).arg(ground.source);
    let mut receive = command(Host::B, "receive");
    receive
        .args(["--noconfirm", "--out-dir"])
        .arg(ground.inbox)
        .arg(&code);
    sender_first(ground, send, receive)
}

fn sendme(ground: &NatGround<'_>) -> Result<WaitingRival> {
    let relay = if ground.has_iroh_relay {
        format!("http://{}:{IROH_RELAY}", Lab::SERVER)
    } else {
        "disabled".to_owned()
    };
    let command = |host, verb, folder: &Path| {
        let mut command = ground.lab.command(host, "sendme".as_ref());
        command.args([verb, "--relay", &relay, "--no-progress"]);
        command.current_dir(folder).env("HOME", ground.into);
        command
    };
    let mut send = command(Host::A, "send", ground.into);
    send.arg(ground.source);
    let send = RunningRival::start(send, ground.into.join("first.log"))?;
    // The ticket comes when its relay knows it.
    wait_until(|| send.said().contains("sendme receive")).with_context(|| send.said())?;
    let said = send.said();
    let ticket = said.split_whitespace().last().context("a ticket")?;
    let mut receive = command(Host::B, "receive", ground.inbox);
    receive.arg(ticket);
    Ok(WaitingRival {
        first: send,
        second: receive,
        receiver: RivalReceiver::Second,
        _scene: None,
    })
}
