//! The server under load: one process, or several nodes on a PostgreSQL.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::ops::Sub;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use pinhole_tests::postgres::Postgres;
use pinhole_tests::process::binary;
use tempfile::TempDir;

use crate::usage::{cpu_s, peak_bytes, proportional_bytes, resident_bytes};

/// Ports that are free on a machine that runs no other server. A restarted server has to
/// come back where its people look for it. Each node listens at the port after its own as
/// well.
const FIRST_PORT: u16 = 24_747;
/// Nodes note in the database every second where they are, and then link to each other.
const LINKING: Duration = Duration::from_secs(3);

/// Where servers are started: a folder, and a database if they have several nodes.
pub(crate) struct Site {
    folder: TempDir,
    database: Option<Postgres>,
    nodes: u16,
}

impl Site {
    /// For one server with its names in a file, or with `nodes` for so many that share a
    /// PostgreSQL.
    pub(crate) fn new(nodes: Option<u16>) -> Result<Self> {
        Ok(Self {
            folder: tempfile::tempdir().context("a folder for the server's data")?,
            database: nodes.map(|_| Postgres::start()),
            nodes: nodes.unwrap_or(1),
        })
    }

    /// Starts a server of this name that nobody has used, with these options.
    pub(crate) fn start(&self, name: &str, options: &[&str]) -> Result<Server<'_>> {
        let folder = self.folder.path().join(name);
        fs::create_dir(&folder)?;
        let database = self.database.as_ref().map(|it| it.database(name));
        let mut nodes: Vec<Node> = Vec::new();
        for number in 0..self.nodes {
            let data = folder.join(number.to_string());
            fs::create_dir(&data)?;
            if number > 0 {
                let key = "server.key";
                fs::copy(folder.join("0").join(key), data.join(key))?;
            }
            let mut command = command(&data, FIRST_PORT + 2 * number, options);
            if let Some(url) = &database {
                command.args(["--database", url]);
            }
            nodes.push(Node::start(command)?);
        }
        let server = Server { site: self, nodes };
        server.wait_until_linked();
        Ok(server)
    }
}

fn command(data: &Path, port: u16, options: &[&str]) -> Command {
    // It ends with this process, however that ends.
    let mut command = Command::new("setpriv");
    command
        .arg("--pdeathsig=KILL")
        .arg(binary("pinhole-server"))
        .arg("--json")
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .arg("--data-dir")
        .arg(data)
        // What is measured is the machine, and not these.
        .args(["--max-people", "1000000", "--max-connections", "2000000"])
        .args(options)
        .env("RUST_LOG", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// A process of the server. Killed when it is dropped.
struct Node {
    command: Command,
    child: Child,
    address: SocketAddr,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Node {
    fn start(mut command: Command) -> Result<Self> {
        let (child, address) = spawn(&mut command)?;
        Ok(Self {
            command,
            child,
            address,
        })
    }

    fn kill(&mut self) {
        // An error says that it has ended already.
        let _: Result<(), _> = self.child.kill();
        let _: Result<ExitStatus, _> = self.child.wait();
    }
}

/// Starts a process of the server, and returns where it listens.
fn spawn(command: &mut Command) -> Result<(Child, SocketAddr)> {
    let mut child = command.spawn().context("starting pinhole-server")?;
    let stdout = child.stdout.take().context("no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let listening: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
    let address = listening["addresses"][0].as_str();
    let address = address.with_context(|| format!("the server says {line:?}"))?;
    Ok((child, address.parse()?))
}

/// A running server, of one node or more. Killed when it is dropped.
pub(crate) struct Server<'a> {
    site: &'a Site,
    nodes: Vec<Node>,
}

/// What a server has used since its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    /// All its nodes.
    pub(crate) server_s: f64,
    /// The database of the nodes.
    pub(crate) database_s: f64,
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            server_s: self.server_s - earlier.server_s,
            database_s: self.database_s - earlier.database_s,
        }
    }
}

impl Cpu {
    /// What that is for each of so many, in milliseconds.
    pub(crate) fn each_ms(self, count: usize) -> String {
        let [server, database] = [self.server_s, self.database_s].map(|it| it * 1e3 / count as f64);
        format!("{server:.3} ms of server CPU and {database:.3} ms of database CPU each")
    }
}

impl Server<'_> {
    /// Where each node listens.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// Where the first node listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address_for(0)
    }

    /// The node that somebody of this number uses.
    pub(crate) fn address_for(&self, number: usize) -> SocketAddr {
        self.nodes[number % self.nodes.len()].address
    }

    /// Kills all its nodes, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.nodes.iter_mut().for_each(Node::kill);
    }

    /// Starts it again with the same names after [`Server::kill`].
    pub(crate) fn restart(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            (node.child, node.address) = spawn(&mut node.command)?;
        }
        Ok(())
    }

    fn wait_until_linked(&self) {
        if self.nodes.len() > 1 {
            sleep(LINKING);
        }
    }

    pub(crate) fn cpu(&self) -> Result<Cpu> {
        Ok(Cpu {
            server_s: self.of_nodes(cpu_s).sum::<Result<_>>()?,
            database_s: self.of_database(cpu_s).sum(),
        })
    }

    /// The memory that its nodes hold now.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        self.of_nodes(resident_bytes).sum()
    }

    /// The most memory that its nodes have held, each at its own time.
    pub(crate) fn peak_bytes(&self) -> Result<u64> {
        self.of_nodes(peak_bytes).sum()
    }

    /// The memory that its database holds now.
    pub(crate) fn database_bytes(&self) -> u64 {
        self.of_database(proportional_bytes).sum()
    }

    fn of_nodes<T>(&self, what: fn(u32) -> Result<T>) -> impl Iterator<Item = Result<T>> {
        self.nodes.iter().map(move |node| what(node.child.id()))
    }

    /// Of each process of the database. One that has ended meanwhile counts for its parent.
    fn of_database<T>(&self, what: fn(u32) -> Result<T>) -> impl Iterator<Item = T> {
        let database = self.site.database.iter();
        let processes = database.flat_map(Postgres::processes);
        processes.filter_map(move |process| what(process).ok())
    }
}
