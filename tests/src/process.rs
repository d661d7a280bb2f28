//! The real binaries as child processes: their JSON lines, their end.

use std::env;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long the last words of a process that has ended are waited for.
const ERRORS_PATIENCE: Duration = Duration::from_secs(5);

/// A binary of this workspace, beside the running test's own.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let own = env::current_exe().expect("the path of this executable");
    let own = own.parent().expect("its folder");
    let folder = if own.ends_with("deps") {
        own.parent().expect("target/PROFILE")
    } else {
        own
    };
    let path = folder.join(format!("{name}{}", env::consts::EXE_SUFFIX));
    let profile = if folder.ends_with("release") {
        " --release"
    } else {
        ""
    };
    assert!(
        path.exists(),
        "{} is missing: cargo build --workspace --bins{profile}",
        path.display()
    );
    path
}

/// A child process that prints JSON lines. Killed when dropped.
pub struct Process {
    label: String,
    child: Child,
    lines: Receiver<(Instant, String)>,
    /// Everything it has printed so far and when, to explain a failure.
    printed: Vec<(Instant, String)>,
    errors: Arc<Mutex<String>>,
    /// Closed at the end of standard error.
    errors_end: Receiver<()>,
}

/// How a process ended.
#[derive(Debug)]
pub struct EndedProcess {
    /// Its exit code, or none when a signal ended it.
    pub code: Option<i32>,
    /// All JSON lines it printed, those already waited for too.
    pub events: Vec<Value>,
    /// When it printed each of them.
    pub times: Vec<Instant>,
    /// What it wrote to standard error.
    pub errors: String,
}

impl EndedProcess {
    /// The last event of that name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn event(&self, name: &str) -> &Value {
        let found = self.events.iter().rfind(|event| event["event"] == name);
        found.unwrap_or_else(|| panic!("no event {name} in {self:#?}"))
    }
}

impl Process {
    /// Starts the command. `label` names it in failures.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(label: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::spawn(label, command)
    }

    /// Starts the command on a terminal of its own, on which
    /// [`Process::type_line`] types; standard output and standard error come
    /// out together.
    ///
    /// # Panics
    /// When it cannot be started.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn on_terminal(label: &str, command: &Command) -> Self {
        let words = [command.get_program()]
            .into_iter()
            .chain(command.get_args());
        let quoted = words.map(|word| {
            let word = word.to_str().expect("a word in UTF-8");
            format!("'{}'", word.replace('\'', r"'\''"))
        });
        let line: Vec<String> = quoted.collect();
        let mut script = Command::new("script");
        script.args(["-qec", &line.join(" "), "/dev/null"]);
        script.stdin(Stdio::piped());
        Self::spawn(label, script)
    }

    /// Types a line.
    ///
    /// # Panics
    /// When the process was not started on a terminal.
    pub fn type_line(&mut self, line: &str) {
        self.type_keys(&format!("{line}\n"));
    }

    /// Presses these keys: Ctrl-D is `\u{4}`.
    ///
    /// # Panics
    /// When the process was not started on a terminal.
    pub fn type_keys(&mut self, keys: &str) {
        let mut input = self.child.stdin.as_ref().expect("a terminal");
        input.write_all(keys.as_bytes()).expect("typing");
    }

    fn spawn(label: &str, mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{label}: {command:?}: {e}"));
        let stdout = child.stdout.take().expect("piped");
        let mut stderr = child.stderr.take().expect("piped");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody waits for lines any more once the process is dropped.
                if sender.send((Instant::now(), line)).is_err() {
                    break;
                }
            }
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&errors);
        let (at_end, errors_end) = channel();
        thread::spawn(move || {
            let _at_end: Sender<()> = at_end;
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = stderr.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..len]);
                kept.lock().expect("errors").push_str(&text);
            }
        });
        Self {
            label: label.to_owned(),
            child,
            lines,
            printed: Vec::new(),
            errors,
            errors_end,
        }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next event of that name; events before it are passed over.
    ///
    /// # Panics
    /// When it does not come in time or the process ends first.
    pub fn event(&mut self, name: &str, timeout: Duration) -> Value {
        self.event_at(name, timeout).0
    }

    /// The same, and when it was printed.
    ///
    /// # Panics
    /// When it does not come in time or the process ends first.
    pub fn event_at(&mut self, name: &str, timeout: Duration) -> (Value, Instant) {
        match self.event_within(name, timeout) {
            Some(found) => found,
            None => self.fail(&format!("no {name} in {timeout:?}, or ended before")),
        }
    }

    /// The same, or nothing when it does not come in time or the process ends
    /// first.
    pub fn event_within(&mut self, name: &str, timeout: Duration) -> Option<(Value, Instant)> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok((at, line)) => {
                    let event = serde_json::from_str::<Value>(&line).unwrap_or(Value::Null);
                    self.printed.push((at, line));
                    if event["event"] == name {
                        return Some((event, at));
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Waits for the next line.
    ///
    /// # Panics
    /// When it does not come in time or the process ends first.
    pub fn line(&mut self, timeout: Duration) -> String {
        match self.lines.recv_timeout(timeout) {
            Ok((at, line)) => {
                self.printed.push((at, line.clone()));
                line
            }
            Err(error) => self.fail(&format!("no line in {timeout:?}: {error}")),
        }
    }

    /// Waits for the end and tells what there was to see.
    ///
    /// # Panics
    /// When it is still running after `timeout`, or prints something but JSON.
    #[must_use]
    pub fn end(mut self, timeout: Duration) -> EndedProcess {
        let code = self.wait(timeout);
        let times = self.printed.iter().map(|(at, _)| *at).collect();
        let events = self.printed.iter().map(|(_, line)| {
            serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON: {line}: {e}"))
        });
        let events = events.collect();
        let errors = self.errors.lock().expect("errors").clone();
        EndedProcess {
            code,
            events,
            times,
            errors,
        }
    }

    /// Waits for the end of one that prints text. Returns its exit code and what it wrote
    /// to standard error.
    ///
    /// # Panics
    /// When it is still running after `timeout`.
    #[must_use]
    pub fn end_as_text(mut self, timeout: Duration) -> (Option<i32>, String) {
        let code = self.wait(timeout);
        let errors = self.errors.lock().expect("errors").clone();
        (code, errors)
    }

    /// Waits for the end and returns the exit code.
    ///
    /// # Panics
    /// When it is still running after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Option<i32> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(printed) => self.printed.push(printed),
                Err(RecvTimeoutError::Timeout) => self.fail(&format!("running after {timeout:?}")),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let code = self.child.wait().expect("waiting for a child").code();
        // Read to its end, unless a process that it has started keeps it open.
        let _: Result<(), RecvTimeoutError> = self.errors_end.recv_timeout(ERRORS_PATIENCE);
        code
    }

    /// Does what Ctrl-C does.
    ///
    /// # Panics
    /// When it is gone already.
    #[cfg(unix)]
    pub fn interrupt(&self) {
        self.signal("INT");
    }

    /// Sends it the signal of this name.
    ///
    /// # Panics
    /// When it is gone already.
    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        let kill = kill.args(["-s", name, &self.id().to_string()]).status();
        assert!(
            kill.expect("kill").success(),
            "{}: no SIG{name}",
            self.label
        );
    }

    /// Kills it without warning, as a power cut would.
    pub fn kill(&mut self) {
        // Fails only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn fail(&self, what: &str) -> ! {
        let mut report = format!("{}: {what}\n", self.label);
        for (_, line) in &self.printed {
            let _ = writeln!(report, "  printed: {line}");
        }
        panic!("{report}  errors: {}", self.errors.lock().expect("errors"));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
