//! Pinhole beside what people use instead, in one run, on one machine.
//!
//! ```text
//! cargo build --release -p pinhole-cli -p pinhole-server -p pinhole-tests --bins
//! target/release/bench
//! ```
//!
//! Needs Linux, root, iperf3 and openssh. Two hosts in namespaces on one
//! bridge, files in memory, medians of three; then two NATs with 100 ms between
//! the peers and back. Rates are those of whole processes: look at the ratios.

#![allow(
    clippy::indexing_slicing,
    reason = "what is measured wrongly may as well panic"
)]

#[cfg(target_os = "linux")]
mod bench {
    use std::fs::{self, File};
    use std::io::{self, BufRead, BufReader, Lines};
    use std::path::Path;
    use std::process::{Child, ChildStdout, Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use anyhow::{Context, Result, bail, ensure};
    use pinhole_tests::lab::{self, Host, Lab, Mapping, Nat, Plan, Topology, Unsolicited};
    use pinhole_tests::process;
    use pinhole_tests::scene::Scene;
    use pinhole_tests::tree;
    use serde_json::Value;
    use tempfile::TempDir;

    const SIZE_BYTES: u64 = 1 << 30;
    const RUNS: usize = 3;
    const NAT: Nat = Nat {
        mapping: Mapping::Stable,
        unsolicited: Unsolicited::Silence,
    };
    const B_ADDRESS: &str = "10.1.0.20";

    /// A process whose use of the machine is asked for when it ends.
    struct Measured {
        child: Child,
        lines: Lines<BufReader<ChildStdout>>,
    }

    #[derive(Debug, Clone, Copy)]
    struct Usage {
        cpu_s: f64,
        peak_bytes: i64,
    }

    impl Measured {
        fn start(mut command: Command) -> Result<Self> {
            let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
            let mut child = child.with_context(|| format!("{command:?}"))?;
            let stdout = child.stdout.take().context("no output")?;
            Ok(Self {
                child,
                lines: BufReader::new(stdout).lines(),
            })
        }

        fn event(&mut self, name: &str) -> Result<Value> {
            for line in &mut self.lines {
                let event: Value = serde_json::from_str(&line?)?;
                if event["event"] == name {
                    return Ok(event);
                }
            }
            bail!("ended before {name}")
        }

        #[allow(unsafe_code)]
        fn end(mut self) -> Result<Usage> {
            for line in &mut self.lines {
                line?;
            }
            let pid = libc::pid_t::try_from(self.child.id())?;
            let mut status = 0;
            // SAFETY: zeros are a valid `rusage`.
            let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
            // SAFETY: both pointers are to variables of the types asked for.
            let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
            ensure!(waited == pid, io::Error::last_os_error());
            ensure!(status == 0, "ended with status {status:#x}");
            let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
            let cpu_s = seconds(usage.ru_utime) + seconds(usage.ru_stime);
            Ok(Usage {
                cpu_s,
                peak_bytes: usage.ru_maxrss * 1024,
            })
        }
    }

    pub(crate) fn run() -> Result<()> {
        if let Some(reason) = lab::unavailable() {
            bail!(reason);
        }
        for tool in ["iperf3", "scp", "/usr/sbin/sshd"] {
            let found = Command::new(tool).arg("--version").output();
            ensure!(
                found.is_ok(),
                "missing: {tool} (Debian: iperf3 openssh-client openssh-server)"
            );
        }
        throughput()?;
        first_byte()
    }

    fn throughput() -> Result<()> {
        let plan = Plan {
            topology: Topology::OneLan(NAT),
            ipv6: false,
            delay: Duration::ZERO,
        };
        let lab = Lab::build(plan);
        for host in [Host::A, Host::B] {
            // The same for all of them, and in every kernel; BBR, which some have by
            // default, takes a third of what such a line carries.
            let mut sysctl = lab.command(host, "sh".as_ref());
            sysctl.args(["-c", "echo reno >/proc/sys/net/ipv4/tcp_congestion_control"]);
            ensure!(sysctl.status()?.success(), "choosing reno");
        }
        let memory = tempfile::tempdir_in("/dev/shm").context("/dev/shm")?;
        let source = memory.path().join("source");
        tree::write_file(&source, SIZE_BYTES, 1)?;

        let (mut iperf3, mut scp, mut pinhole) = (Vec::new(), Vec::new(), Vec::new());
        let mut bare = Vec::new();
        let (mut sends, mut receives) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            iperf3.push(run_iperf3(&lab)?);
            scp.push(run_scp(&lab, &memory, &source)?);
            bare.push(run_pipeline(&lab, &memory, &source)?);
            let (rate, send, receive) = run_pinhole(&lab, &source)?;
            pinhole.push(rate);
            sends.push(send);
            receives.push(receive);
        }
        let [iperf3, scp, bare, pinhole] = [iperf3, scp, bare, pinhole].map(median);
        println!("1 GiB from memory to memory over a bridge, reno, median of {RUNS}:");
        println!("  iperf3, one stream   {iperf3:6.0} MB/s");
        println!("  scp                  {scp:6.0} MB/s");
        println!("  bare pipeline        {bare:6.0} MB/s");
        println!("  pinhole              {pinhole:6.0} MB/s");
        println!("  pinhole / iperf3     {:6.2}", pinhole / iperf3);
        println!("  pinhole / scp        {:6.2}", pinhole / scp);
        println!("  pinhole / pipeline   {:6.2}", pinhole / bare);
        for (side, usages) in [("send", sends), ("receive", receives)] {
            let cpu_s = median(usages.iter().map(|usage| usage.cpu_s).collect());
            let peak_bytes = usages
                .iter()
                .map(|usage| usage.peak_bytes)
                .max()
                .unwrap_or_default();
            println!(
                "  pinhole {side:8} {cpu_s:6.2} CPU s/GiB, peak {} MiB",
                peak_bytes >> 20
            );
        }
        Ok(())
    }

    fn rate(elapsed: Duration) -> f64 {
        SIZE_BYTES as f64 / 1e6 / elapsed.as_secs_f64()
    }

    fn median(mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    fn run_iperf3(lab: &Lab) -> Result<f64> {
        let mut server = lab.command(Host::B, "iperf3".as_ref());
        let mut server = server
            .args(["-s", "-1", "--forceflush"])
            .stdout(Stdio::piped())
            .spawn()?;
        let listening = BufReader::new(server.stdout.take().context("no output")?).lines();
        let mut listening = listening.map_while(io::Result::ok);
        ensure!(
            listening.any(|line| line.contains("listening")),
            "iperf3 did not start"
        );
        let mut client = lab.command(Host::A, "iperf3".as_ref());
        let output = client.args(["-c", B_ADDRESS, "-n", "1G", "-J"]).output()?;
        for _ in listening {}
        server.wait()?;
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
        Ok(bits.context("iperf3 tells no rate")? / 8e6)
    }

    fn run_scp(lab: &Lab, memory: &TempDir, source: &Path) -> Result<f64> {
        let folder = tempfile::tempdir_in(memory.path())?;
        let path = |name: &str| folder.path().join(name).display().to_string();
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
        let mut sshd = lab.command(Host::B, "/usr/sbin/sshd".as_ref());
        let log = File::create(path("log"))?;
        let mut sshd = sshd
            .args(["-D", "-e", "-f", &path("config")])
            .stderr(log)
            .spawn()?;
        let log = path("log");
        wait_until(|| fs::read_to_string(&log).is_ok_and(|log| log.contains("listening")))?;
        let mut scp = lab.command(Host::A, "scp".as_ref());
        scp.args([
            "-q",
            "-P",
            "2222",
            "-i",
            &path("user"),
            "-o",
            "UserKnownHostsFile=/dev/null",
        ]);
        scp.args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "LogLevel=ERROR",
            "-F",
            "none",
        ]);
        scp.arg(source)
            .arg(format!("root@{B_ADDRESS}:{}", path("arrived")));
        let begin = Instant::now();
        let status = scp.status()?;
        let elapsed = begin.elapsed();
        sshd.kill()?;
        sshd.wait()?;
        ensure!(status.success(), "scp failed");
        Ok(rate(elapsed))
    }

    /// The work alone: the binary `pipeline` of this crate.
    fn run_pipeline(lab: &Lab, memory: &TempDir, source: &Path) -> Result<f64> {
        let folder = tempfile::tempdir_in(memory.path())?;
        let pipeline = process::binary("pipeline");
        let address = format!("{B_ADDRESS}:2223");
        let mut receive = lab.command(Host::B, &pipeline);
        let arrived = folder.path().join("arrived");
        receive.args(["receive", &address]).arg(&arrived);
        let mut receive = Measured::start(receive)?;
        receive.lines.next().context("does not listen")??;
        let mut send = lab.command(Host::A, &pipeline);
        let output = send.args(["send", &address]).arg(source).output()?;
        receive.end()?;
        let rate = String::from_utf8(output.stdout)?;
        rate.trim().parse().context("the pipeline tells no rate")
    }

    fn run_pinhole(lab: &Lab, source: &Path) -> Result<(f64, Usage, Usage)> {
        let scene = Scene::in_lab_with_folder(lab, tempfile::tempdir_in("/dev/shm"));
        let bob = scene.peer_in(lab, Host::B, "bob");
        let alice = scene.peer_in(lab, Host::A, "alice");
        let inbox = bob.inbox.display().to_string();
        let once = ["receive", "--into", &inbox, "--accept", "all", "--once"];
        let mut receive = Measured::start(bob.command(&once))?;
        receive.event("logged_in")?;
        let begin = Instant::now();
        let send = alice.command(&["send", "bob", &source.display().to_string()]);
        let mut send = Measured::start(send)?;
        let connected = send.event("connected")?;
        ensure!(connected["path"] == "lan", "not direct: {connected}");
        send.event("completed")?;
        let elapsed = begin.elapsed();
        let usages = (send.end()?, receive.end()?);
        let digest = |path: &Path| tree::digest(&mut File::open(path)?);
        ensure!(
            digest(source)? == digest(&bob.inbox.join("source"))?,
            "the file differs"
        );
        Ok((rate(elapsed), usages.0, usages.1))
    }

    /// How long the first byte of a file takes, from the command on.
    fn first_byte() -> Result<()> {
        const RTT_MS: u32 = 100;
        let delay = Duration::from_millis(u64::from(RTT_MS / 4));
        let topology = Topology::TwoSites(NAT, NAT);
        let lab = Lab::build(Plan {
            topology,
            ipv6: false,
            delay,
        });
        let scene = Scene::in_lab(&lab);
        let bob = scene.peer_in(&lab, Host::B, "bob");
        let alice = scene.peer_in(&lab, Host::A, "alice");
        let _receiving = bob.receive(&[]);
        let (mut logins, mut connects, mut totals) = (Vec::new(), Vec::new(), Vec::new());
        for run in 0..RUNS {
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
        println!("First payload byte, {RTT_MS} ms between the peers and back, both behind NATs:");
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

    /// Asks every millisecond, for that is how fine the answer is wanted.
    fn wait_until(mut ask: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !ask() {
            ensure!(Instant::now() < deadline, "nothing within 30 s");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    bench::run()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("the benchmark needs Linux's network namespaces");
    std::process::exit(2);
}
