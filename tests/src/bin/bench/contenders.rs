//! What carries files: Pinhole and what people use instead. Each sends
//! `source`, a file or a folder, from host A to host B, and its time is that of
//! the sending process from its start to its end.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use pinhole_tests::lab::{Host, Lab};
use pinhole_tests::process;
use pinhole_tests::scene::Scene;
use serde_json::Value;

use crate::measured::{Measured, Usage, wait_until};

pub(crate) const B_ADDRESS: &str = "10.1.0.20";

/// Where to send from and to.
pub(crate) struct Ground<'a> {
    pub(crate) lab: &'a Lab,
    /// Everything is written below it.
    pub(crate) folder: &'a Path,
    pub(crate) source: &'a Path,
}

/// One run.
pub(crate) struct Run {
    pub(crate) elapsed_s: f64,
    /// Of the sending and the receiving side.
    pub(crate) usages: [Usage; 2],
    /// What has arrived.
    pub(crate) arrived: Option<PathBuf>,
}

pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// What has to be installed for it.
    pub(crate) programs: &'static [&'static str],
    pub(crate) send: fn(&Ground<'_>, &Path) -> Result<Run>,
}

pub(crate) const PINHOLE: Contender = Contender {
    name: "pinhole",
    programs: &[],
    send: pinhole,
};
pub(crate) const IPERF3: Contender = Contender {
    name: "iperf3",
    programs: &["iperf3"],
    send: iperf3,
};
pub(crate) const SCP: Contender = Contender {
    name: "scp",
    programs: &["scp", "/usr/sbin/sshd"],
    send: scp,
};
pub(crate) const TAR: Contender = Contender {
    name: "tar | ssh",
    programs: &["tar", "ssh", "/usr/sbin/sshd"],
    send: tar,
};
pub(crate) const RSYNC: Contender = Contender {
    name: "rsync daemon",
    programs: &["rsync"],
    send: rsync,
};
pub(crate) const PIPELINE: Contender = Contender {
    name: "bare pipeline",
    programs: &[],
    send: pipeline,
};
pub(crate) const WORMHOLE: Contender = Contender {
    name: "wormhole-rs",
    programs: &["wormhole-rs", "twist"],
    send: wormhole,
};
pub(crate) const SENDME: Contender = Contender {
    name: "sendme",
    programs: &["sendme"],
    send: sendme,
};

pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Starts the sender and waits for its end.
fn timed(command: Command, receiver: impl FnOnce() -> Result<Usage>) -> Result<Run> {
    let begin = Instant::now();
    let send = Measured::start(command)?.end()?;
    let elapsed_s = begin.elapsed().as_secs_f64();
    Ok(Run {
        elapsed_s,
        usages: [send, receiver()?],
        arrived: None,
    })
}

fn pinhole(ground: &Ground<'_>, into: &Path) -> Result<Run> {
    let scene = Scene::on_lan(ground.lab, B_ADDRESS, tempfile::tempdir_in(into));
    let bob = scene.peer_in(ground.lab, Host::B, "bob");
    let alice = scene.peer_in(ground.lab, Host::A, "alice");
    let inbox = into.join("inbox");
    fs::create_dir(&inbox)?;
    let once = [
        "receive",
        "--into",
        &text(&inbox),
        "--accept",
        "all",
        "--once",
    ];
    let mut receive = Measured::start(bob.command(&once))?;
    receive.event("logged_in")?;
    let mut run = timed(
        alice.command(&["send", "bob", &text(ground.source)]),
        || receive.end(),
    )?;
    run.arrived = Some(inbox.join(ground.source.file_name().context("a name")?));
    Ok(run)
}

/// The line itself: as many bytes as the source has, at the rate it tells.
fn iperf3(ground: &Ground<'_>, _: &Path) -> Result<Run> {
    let size_bytes = ground.source.metadata()?.len();
    let rate = iperf3_rate(ground.lab, Host::B, B_ADDRESS, size_bytes)?;
    Ok(Run {
        elapsed_s: size_bytes as f64 / 1e6 / rate,
        usages: [Usage::default(); 2],
        arrived: None,
    })
}

/// An SSH server on host B for one run, and how to reach it.
struct Ssh {
    server: Measured,
    options: Vec<String>,
}

impl Ssh {
    fn start(ground: &Ground<'_>, folder: &Path) -> Result<Self> {
        let path = |name: &str| text(&folder.join(name));
        for key in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)]);
            ensure!(keygen.status()?.success(), "ssh-keygen");
        }
        let config = format!(
            "ListenAddress {B_ADDRESS}:2222\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n\
             PermitRootLogin yes\nUsePAM no\nPidFile none\nSubsystem sftp internal-sftp\n",
            path("host"),
            path("user.pub"),
        );
        fs::write(path("config"), config)?;
        fs::create_dir_all("/run/sshd")?;
        let mut sshd = ground.lab.command(Host::B, "/usr/sbin/sshd".as_ref());
        sshd.args(["-D", "-e", "-f", &path("config")])
            .stderr(File::create(path("log"))?);
        let server = Measured::start(sshd)?;
        let log = path("log");
        wait_until(|| fs::read_to_string(&log).is_ok_and(|log| log.contains("listening")))?;
        let user = path("user");
        let options = [
            "-q",
            "-i",
            &user,
            "-F",
            "none",
            "-o",
            "Port=2222",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "LogLevel=ERROR",
        ];
        Ok(Self {
            server,
            options: options.map(str::to_owned).to_vec(),
        })
    }
}

fn scp(ground: &Ground<'_>, into: &Path) -> Result<Run> {
    let ssh = Ssh::start(ground, into)?;
    let arrived = into.join("arrived");
    let mut scp = ground.lab.command(Host::A, "scp".as_ref());
    scp.args(&ssh.options)
        .arg(ground.source)
        .arg(format!("root@{B_ADDRESS}:{}", text(&arrived)));
    let mut run = timed(scp, || ssh.server.terminate())?;
    run.arrived = Some(arrived);
    Ok(run)
}

fn tar(ground: &Ground<'_>, into: &Path) -> Result<Run> {
    let ssh = Ssh::start(ground, into)?;
    let name = ground.source.file_name().context("a name")?;
    let parent = ground.source.parent().context("a parent")?;
    let script = format!(
        "tar -C {} -cf - {} | ssh {} root@{B_ADDRESS} tar -C {} -xf -",
        text(parent),
        name.display(),
        ssh.options.join(" "),
        text(into),
    );
    let mut shell = ground.lab.command(Host::A, "sh".as_ref());
    shell.args(["-c", &script]);
    let mut run = timed(shell, || ssh.server.terminate())?;
    run.arrived = Some(into.join(name));
    Ok(run)
}

fn rsync(ground: &Ground<'_>, into: &Path) -> Result<Run> {
    let arrived = into.join("arrived");
    fs::create_dir(&arrived)?;
    let config = into.join("rsyncd.conf");
    let settings = format!(
        "use chroot = no\nuid = 0\ngid = 0\nreverse lookup = no\n[into]\npath = {}\nread only = no\n",
        text(&arrived)
    );
    fs::write(&config, settings)?;
    let mut daemon = ground.lab.command(Host::B, "rsync".as_ref());
    daemon.args(["--daemon", "--no-detach", "--port=8730"]);
    daemon
        .args(["--address", B_ADDRESS, "--config"])
        .arg(&config);
    let daemon = Measured::start(daemon)?;
    wait_until(|| is_listening(ground.lab, Host::B, 8730))?;
    let mut client = ground.lab.command(Host::A, "rsync".as_ref());
    // Without the old file at the other end there is nothing to compare with.
    client
        .args(["-a", "--whole-file"])
        .arg(ground.source)
        .arg(format!("rsync://{B_ADDRESS}:8730/into/"));
    let mut run = timed(client, || daemon.terminate())?;
    run.arrived = Some(arrived.join(ground.source.file_name().context("a name")?));
    Ok(run)
}

/// On IPv4 or IPv6.
pub(crate) fn is_listening(lab: &Lab, host: Host, port: u16) -> bool {
    let mut cat = lab.command(host, "cat".as_ref());
    let sockets = cat.args(["/proc/net/tcp", "/proc/net/tcp6"]).output();
    let port = format!(":{port:04X}");
    sockets.is_ok_and(|out| {
        String::from_utf8_lossy(&out.stdout).lines().any(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            matches!(words.as_slice(), [_, local, _, "0A", ..] if local.ends_with(&port))
        })
    })
}

/// The work alone: the binary `pipeline` of this crate.
fn pipeline(ground: &Ground<'_>, into: &Path) -> Result<Run> {
    let pipeline = process::binary("pipeline");
    let address = format!("{B_ADDRESS}:2223");
    let arrived = into.join("arrived");
    let mut receive = ground.lab.command(Host::B, &pipeline);
    receive.args(["receive", &address]).arg(&arrived);
    let mut receive = Measured::start(receive)?;
    receive.line_with("listening")?;
    let mut send = ground.lab.command(Host::A, &pipeline);
    send.args(["send", &address]).arg(ground.source);
    let mut run = timed(send, || receive.end())?;
    run.arrived = Some(arrived);
    Ok(run)
}

/// Over a mailbox server on host B, straight between the two.
fn wormhole(ground: &Ground<'_>, into: &Path) -> Result<Run> {
    let mut mailbox = ground.lab.command(Host::B, "twist".as_ref());
    let channels = format!("--channel-db={}", text(&into.join("mailbox.sqlite")));
    mailbox.args(["wormhole-mailbox", "--port=tcp:4000", &channels]);
    let mailbox = Measured::start(mailbox)?;
    wait_until(|| is_listening(ground.lab, Host::B, 4000))?;
    let server = format!("ws://{B_ADDRESS}:4000/v1");
    let arrived = into.join("arrived");
    fs::create_dir(&arrived)?;
    let mut send = ground.lab.command(Host::A, "wormhole-rs".as_ref());
    send.args([
        "send",
        "--rendezvous-server",
        &server,
        "--code",
        "7-guitarist-revenge",
    ]);
    send.args(["--force-direct", "--no-qr"]).arg(ground.source);
    send.stderr(File::create(into.join("log"))?);
    let begin = Instant::now();
    let send = Measured::start(send)?;
    let mut receive = ground.lab.command(Host::B, "wormhole-rs".as_ref());
    receive.args([
        "receive",
        "--rendezvous-server",
        &server,
        "7-guitarist-revenge",
    ]);
    receive
        .args(["--force-direct", "--noconfirm", "--out-dir"])
        .arg(&arrived);
    receive.stderr(File::create(into.join("log-b"))?);
    let receive = Measured::start(receive)?;
    let send = send.end()?;
    let elapsed_s = begin.elapsed().as_secs_f64();
    let receive = receive.end()?;
    mailbox.terminate()?;
    Ok(Run {
        elapsed_s,
        usages: [send, receive],
        arrived: Some(arrived.join(ground.source.file_name().context("a name")?)),
    })
}

/// Its two cold processes, without relays; the time includes that of both.
fn sendme(ground: &Ground<'_>, into: &Path) -> Result<Run> {
    let mut send = ground.lab.command(Host::A, "sendme".as_ref());
    send.args(["send", "--relay", "disabled", "--no-progress"])
        .arg(ground.source)
        .current_dir(into)
        .env("HOME", into)
        .stderr(Stdio::null());
    let begin = Instant::now();
    let mut send = Measured::start(send)?;
    let line = send.line_with("sendme receive")?;
    let ticket = line.split_whitespace().last().context("a ticket")?;
    let arrived = into.join("arrived");
    fs::create_dir(&arrived)?;
    let mut receive = ground.lab.command(Host::B, "sendme".as_ref());
    receive.args(["receive", "--relay", "disabled", "--no-progress", ticket]);
    receive
        .current_dir(&arrived)
        .env("HOME", into)
        .stderr(Stdio::null());
    let receive = Measured::start(receive)?.end()?;
    let elapsed_s = begin.elapsed().as_secs_f64();
    let send = send.terminate()?;
    Ok(Run {
        elapsed_s,
        usages: [send, receive],
        arrived: Some(arrived.join(ground.source.file_name().context("a name")?)),
    })
}

/// MB/s that the server of a run of iperf3 has seen.
pub(crate) fn iperf3_rate(lab: &Lab, host: Host, address: &str, bytes: u64) -> Result<f64> {
    let mut server = lab.command(host, "iperf3".as_ref());
    let mut server = server
        .args(["-s", "-1", "--forceflush"])
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(server.stdout.take().context("no output")?).lines();
    let mut lines = lines.map_while(Result::ok);
    ensure!(
        lines.any(|line| line.contains("listening")),
        "iperf3 did not start"
    );
    let mut client = lab.command(Host::A, "iperf3".as_ref());
    let output = client
        .args(["-c", address, "-n", &bytes.to_string(), "-J"])
        .output()?;
    for _ in lines {}
    server.wait()?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.context("iperf3 tells no rate")? / 8e6)
}
