//! A PostgreSQL of a test's own: a cluster in a temporary folder, on a port of loopback.
//!
//! It comes from the Debian package `postgresql`. PostgreSQL refuses to run as root, so
//! for root it runs as the user that the package makes.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

/// The user that root runs PostgreSQL as.
const SYSTEM_USER: &str = "postgres";
/// The user of the database.
const ROLE: &str = "pinhole";
/// Ports that the system gives to nobody by itself, so that one is still free when
/// PostgreSQL starts again.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// It survives its own end, not that of the machine, and takes little of that.
const OPTIONS: &[&str] = &[
    "fsync=off",
    "full_page_writes=off",
    "shared_buffers=16MB",
    "max_connections=60",
    "autovacuum=off",
    "listen_addresses=127.0.0.1",
    "log_destination=stderr",
    "lc_messages=C",
];

/// A running PostgreSQL, which ends when this value is dropped, and with the thread that
/// has started it.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    port: u16,
    /// `None` while it is stopped.
    server: Option<Child>,
}

impl Postgres {
    /// Makes a cluster and starts it.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        if geteuid().is_root() {
            chown(
                folder.path(),
                Some(id_of_system_user("-u")),
                Some(id_of_system_user("-g")),
            )
            .expect("giving the folder away");
        }
        let mut initdb = as_system_user("initdb");
        initdb.arg("--pgdata").arg(folder.path().join("data"));
        initdb.args([
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]);
        initdb.arg(format!("--username={ROLE}"));
        run(initdb);
        let mut postgres = Self {
            folder,
            port: 0,
            server: None,
        };
        let begin = u16::try_from(std::process::id() % 1_000).unwrap_or(0) * 11;
        let (earlier, later) = (
            PORTS.start..PORTS.start + begin,
            PORTS.start + begin..PORTS.end,
        );
        let started = later.chain(earlier).any(|port| {
            let is_free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
            postgres.port = port;
            // Another test may have taken it in the meantime.
            is_free && postgres.try_restart().is_ok()
        });
        assert!(started, "no port is free");
        postgres
    }

    /// The port on 127.0.0.1. It stays the same.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Makes an empty database and returns its URL.
    ///
    /// # Panics
    /// When there is one of this name.
    #[must_use]
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE \"{name}\""));
        self.url(name)
    }

    /// The URL of a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{ROLE}@127.0.0.1:{}/{database}", self.port)
    }

    /// Has it speak TLS as well, as `localhost`. Returns the file with its certificate.
    ///
    /// # Panics
    /// When there is no `openssl` to make one.
    #[must_use]
    pub fn speak_tls(&mut self) -> PathBuf {
        let path = |name: &str| self.folder.path().join(name);
        let (config, key, certificate) = (path("tls.conf"), path("tls.key"), path("tls.crt"));
        let text = "[req]\nprompt = no\ndistinguished_name = dn\nx509_extensions = ext\n\
                    [dn]\nCN = localhost\n\
                    [ext]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = DNS:localhost\n";
        fs::write(&config, text).expect("a file");
        let mut openssl = as_system_user("openssl");
        openssl.args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ]);
        openssl.arg("-config").arg(&config).arg("-keyout").arg(&key);
        openssl.arg("-out").arg(&certificate);
        run(openssl);
        for (option, file) in [("ssl_key_file", &key), ("ssl_cert_file", &certificate)] {
            let file = file.display();
            self.sql("postgres", &format!("ALTER SYSTEM SET {option} = '{file}'"));
        }
        self.sql("postgres", "ALTER SYSTEM SET ssl = on");
        self.restart();
        certificate
    }

    /// Carries out SQL in a database, and returns what it prints: a line a row, its
    /// columns parted by `|`.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn query(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(program("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]);
        psql.args(["--set", "ON_ERROR_STOP=1", "--command", sql]);
        psql.arg(self.url(database));
        run(psql).trim_end().to_owned()
    }

    /// Carries out SQL in a database.
    ///
    /// # Panics
    /// When it fails.
    pub fn sql(&self, database: &str, sql: &str) {
        drop(self.query(database, sql));
    }

    /// Stops it at once, as a crash would.
    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        for process in processes_of(&server) {
            // Some end by themselves.
            let _: Result<(), _> = kill_process(process, Signal::CONT);
        }
        let _: Result<(), _> = kill_process(pid(&server), Signal::QUIT);
        // It kills what does not end within five seconds itself.
        drop(server.wait());
    }

    /// Starts it again on the same port, with the same data.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.stop();
        if let Err(said) = self.try_restart() {
            panic!("PostgreSQL does not start on port {}:\n{said}", self.port);
        }
    }

    /// Stops all its processes where they are (SIGSTOP). Connections stay open, and
    /// nothing answers.
    pub fn freeze(&self) {
        // The first one begins others.
        if let Some(server) = &self.server {
            kill_process(pid(server), Signal::STOP).expect("SIGSTOP");
        }
        self.signal_all(Signal::STOP);
    }

    /// Lets all its processes go on after [`Postgres::freeze`].
    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    /// The ids of its processes.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let processes = self.server.iter().flat_map(processes_of);
        let ids = processes.map(|process| process.as_raw_nonzero().get().unsigned_abs());
        ids.collect()
    }

    fn signal_all(&self, signal: Signal) {
        for process in self.server.iter().flat_map(processes_of) {
            // Some end by themselves.
            let _: Result<(), _> = kill_process(process, signal);
        }
    }

    /// Returns once it takes connections, or what it has said if it ends before.
    fn try_restart(&mut self) -> Result<(), String> {
        let mut command = as_system_user("postgres");
        command.arg("-D").arg(self.folder.path().join("data"));
        command.arg("-p").arg(self.port.to_string());
        command.arg("-k").arg(self.folder.path());
        command.args(OPTIONS.iter().flat_map(|option| ["-c", option]));
        let mut server = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starting PostgreSQL");
        let errors = server.stderr.take().expect("piped");
        match wait_until_ready(errors) {
            Ok(()) => {
                self.server = Some(server);
                Ok(())
            }
            Err(said) => {
                drop(server.kill());
                drop(server.wait());
                Err(said)
            }
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads its log until it says that it is ready, and after that lets it go on.
fn wait_until_ready(errors: impl Read + Send + 'static) -> Result<(), String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            // Nobody reads the log of one that is ready.
            drop(sender.send(line));
        }
    });
    let mut said = String::new();
    loop {
        match lines.recv_timeout(START_TIMEOUT) {
            Ok(line) if line.contains("ready to accept connections") => return Ok(()),
            Ok(line) => drop(writeln!(said, "  {line}")),
            Err(_) => return Err(said),
        }
    }
}

/// Its first process and all that this one has begun.
fn processes_of(server: &Child) -> Vec<Pid> {
    let first = pid(server);
    let mut processes = vec![first];
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let number = entry.file_name().to_string_lossy().parse::<i32>();
        let Some(process) = number.ok().and_then(Pid::from_raw) else {
            continue;
        };
        // A process that has ended meanwhile has no status.
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        if parent.is_some_and(|parent| parent.trim() == first.to_string()) {
            processes.push(process);
        }
    }
    processes
}

fn pid(server: &Child) -> Pid {
    Pid::from_child(server)
}

/// A program as a user that may run PostgreSQL, which ends with this thread.
fn as_system_user(name: &str) -> Command {
    let mut command = Command::new("setpriv");
    if geteuid().is_root() {
        command.arg(format!("--reuid={SYSTEM_USER}"));
        command.arg(format!("--regid={SYSTEM_USER}"));
        command.arg("--clear-groups");
    }
    command.arg("--pdeathsig=QUIT").arg(program(name));
    // Where that user may be.
    command.current_dir("/");
    command
}

/// Where Debian puts a program of PostgreSQL, or where the path finds it.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let debian = versions.flatten().map(|it| it.path().join("bin"));
    let mut debian: Vec<PathBuf> = debian.collect();
    debian.sort_unstable();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = debian.into_iter().rev().chain(std::env::split_paths(&path));
    let found = folders.find(|folder| folder.join(name).exists());
    let folder = found.unwrap_or_else(|| {
        panic!("{name} is missing: install PostgreSQL (Debian package: postgresql)")
    });
    Path::new(&folder).join(name)
}

fn id_of_system_user(which: &str) -> u32 {
    let mut id = Command::new("id");
    id.args([which, SYSTEM_USER]);
    let said = run(id);
    said.trim().parse().expect("a number")
}

/// Runs it to its end and returns what it prints.
fn run(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
