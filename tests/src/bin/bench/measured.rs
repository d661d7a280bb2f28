//! Processes, and what they took of the machine.

use std::io::{self, BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// A process whose use of the machine is asked for when it ends. Killed when
/// dropped.
pub(crate) struct Measured {
    child: Child,
    pub(crate) lines: Lines<BufReader<ChildStdout>>,
    ended: bool,
}

/// What one process took, and the children it has waited for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    /// Of the largest process.
    pub(crate) peak_bytes: i64,
}

impl Measured {
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("{command:?}"))?;
        let stdout = child.stdout.take().context("no output")?;
        Ok(Self {
            child,
            lines: BufReader::new(stdout).lines(),
            ended: false,
        })
    }

    /// The next JSON line of that name.
    pub(crate) fn event(&mut self, name: &str) -> Result<Value> {
        for line in &mut self.lines {
            let event: Value = serde_json::from_str(&line?)?;
            if event["event"] == name {
                return Ok(event);
            }
        }
        bail!("ended before {name}")
    }

    /// Reads on until a line says this.
    pub(crate) fn line_with(&mut self, words: &str) -> Result<String> {
        for line in &mut self.lines {
            let line = line?;
            if line.contains(words) {
                return Ok(line);
            }
        }
        bail!("ended before saying {words:?}")
    }

    /// Waits for a good end.
    pub(crate) fn end(self) -> Result<Usage> {
        let (usage, status) = self.wait()?;
        ensure!(status == 0, "ended with status {status:#x}");
        Ok(usage)
    }

    /// Ends a daemon, which counts the children that served.
    pub(crate) fn terminate(self) -> Result<Usage> {
        self.signal(libc::SIGTERM)?;
        Ok(self.wait()?.0)
    }

    /// As a power cut would.
    pub(crate) fn kill(self) -> Result<()> {
        self.signal(libc::SIGKILL)?;
        self.wait().map(drop)
    }

    #[allow(unsafe_code)]
    fn signal(&self, signal: i32) -> Result<()> {
        let pid = libc::pid_t::try_from(self.child.id())?;
        // SAFETY: it is our child and was not waited for.
        let sent = unsafe { libc::kill(pid, signal) };
        ensure!(sent == 0, io::Error::last_os_error());
        Ok(())
    }

    #[allow(unsafe_code)]
    fn wait(mut self) -> Result<(Usage, i32)> {
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
        self.ended = true;
        let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
        let usage = Usage {
            cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
            peak_bytes: usage.ru_maxrss * 1024,
        };
        Ok((usage, status))
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Whether there is such a program; says so if not.
pub(crate) fn is_installed(program: &str) -> bool {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).arg("--version");
    let found = command.output().is_ok();
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

/// Asks every millisecond, for that is how fine the answer is wanted.
pub(crate) fn wait_until(mut ask: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ask() {
        ensure!(Instant::now() < deadline, "nothing within 30 s");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
