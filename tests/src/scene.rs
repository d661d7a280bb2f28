//! A rendezvous server and its peers, on loopback or in a laboratory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

#[cfg(target_os = "linux")]
use crate::lab::{Host, Lab};
use crate::process::{Process, binary};

/// Long enough for anything that does not move many bytes, on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// Where a process of the scene runs.
#[derive(Clone, Copy)]
enum Place<'a> {
    Loopback(std::marker::PhantomData<&'a ()>),
    #[cfg(target_os = "linux")]
    Lab(&'a Lab, Host),
}

impl Place<'_> {
    fn command(self, program: &str) -> Command {
        match self {
            Self::Loopback(_) => Command::new(binary(program)),
            #[cfg(target_os = "linux")]
            Self::Lab(lab, host) => lab.command(host, &binary(program)),
        }
    }
}

/// A running server, and a folder for everything that the scene writes.
pub struct Scene {
    /// In the form that `--server` takes, with the fingerprint.
    pub server_address: String,
    // Before the folder, and so dropped before it.
    server: Process,
    /// Removed with all that is in it when the scene ends.
    pub folder: TempDir,
}

/// A peer of a scene: a profile and a folder to receive into.
pub struct Peer<'a> {
    place: Place<'a>,
    /// Asked for at every login.
    pub name: String,
    /// Of the scene, unless a test says otherwise.
    pub server_address: String,
    profile: PathBuf,
    /// Where `receive` puts what comes in.
    pub inbox: PathBuf,
}

impl Scene {
    /// A server on loopback.
    #[must_use]
    pub fn on_loopback() -> Self {
        let place = Place::Loopback(std::marker::PhantomData);
        Self::start(place, &["127.0.0.1:0"], tempfile::tempdir())
    }

    /// A server on loopback with these arguments.
    #[must_use]
    pub fn with_server(arguments: &[&str]) -> Self {
        let place = Place::Loopback(std::marker::PhantomData);
        let listen = ["127.0.0.1:0"];
        Self::start_with(place, &listen, arguments, tempfile::tempdir())
    }

    /// A server on the laboratory's host S, on IPv4 and IPv6.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn in_lab(lab: &Lab) -> Self {
        Self::in_lab_with_folder(lab, tempfile::tempdir())
    }

    /// The same with its files in this folder, be it for the kind of disk.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn in_lab_with_folder(lab: &Lab, folder: io::Result<TempDir>) -> Self {
        let [v4, v6] = lab_addresses();
        Self::start(Place::Lab(lab, Host::S), &[&v4, &v6], folder)
    }

    /// A server on the laboratory's host S that listens there.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn in_lab_at(lab: &Lab, listen: &[&str]) -> Self {
        Self::start(Place::Lab(lab, Host::S), listen, tempfile::tempdir())
    }

    /// A server on the laboratory's host B, which has this address, with its
    /// files in this folder.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn on_lan(lab: &Lab, address: &str, folder: io::Result<TempDir>) -> Self {
        let listen = format!("{address}:4747");
        Self::start(Place::Lab(lab, Host::B), &[&listen], folder)
    }

    fn start(place: Place<'_>, listen: &[&str], folder: io::Result<TempDir>) -> Self {
        Self::start_with(place, listen, &[], folder)
    }

    fn start_with(
        place: Place<'_>,
        listen: &[&str],
        arguments: &[&str],
        folder: io::Result<TempDir>,
    ) -> Self {
        let folder = folder.expect("a temporary folder");
        let data_dir = folder.path().join("server");
        let mut server = start_server(place, listen, arguments, &data_dir);
        let listening = server.event("listening", SOON);
        let address = listening["addresses"][0].as_str().expect("an address");
        let fingerprint = listening["fingerprint"].as_str().expect("a fingerprint");
        let server_address = format!("{address}#{fingerprint}");
        Self {
            folder,
            server_address,
            server,
        }
    }

    /// Ends a server on loopback in good order.
    ///
    /// # Panics
    /// When it does not.
    pub fn stop_server(&mut self) {
        let pid = self.server.id().to_string();
        let kill = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(kill.expect("kill").success());
        self.server.wait(SOON);
    }

    /// Starts a stopped server on loopback at its old address.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_server(&mut self) {
        self.start_server_with(&[]);
    }

    fn start_server_with(&mut self, arguments: &[&str]) {
        let (address, _) = self.server_address.split_once('#').expect("a fingerprint");
        let place = Place::Loopback(std::marker::PhantomData);
        self.server = start_server(place, &[address], arguments, &self.server_data_dir());
        self.server.event("listening", SOON);
    }

    /// Kills the server, as a power cut would.
    pub fn kill_server(&mut self) {
        self.server.kill();
    }

    /// Starts the server of [`Scene::in_lab`] again.
    ///
    /// # Panics
    /// When it does not start.
    #[cfg(target_os = "linux")]
    pub fn start_server_in(&mut self, lab: &Lab) {
        let [v4, v6] = lab_addresses();
        let place = Place::Lab(lab, Host::S);
        self.server = start_server(place, &[&v4, &v6], &[], &self.server_data_dir());
        self.server.event("listening", SOON);
    }

    /// Restarts a server on loopback that has kept its key but lost its names.
    ///
    /// # Panics
    /// When it does not end in good order or does not start again.
    pub fn forget_names(&mut self) {
        self.stop_server();
        fs::remove_file(self.server_data_dir().join("names.sqlite")).expect("the names");
        self.start_server_with(&["--start-afresh"]);
    }

    /// Where the server keeps its key and its names.
    #[must_use]
    pub fn server_data_dir(&self) -> PathBuf {
        self.folder.path().join("server")
    }

    /// A peer on this machine, which has never run before.
    #[must_use]
    pub fn peer(&self, name: &str) -> Peer<'static> {
        self.peer_at(Place::Loopback(std::marker::PhantomData), name)
    }

    /// A peer on a host of the laboratory.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn peer_in<'a>(&self, lab: &'a Lab, host: Host, name: &str) -> Peer<'a> {
        self.peer_at(Place::Lab(lab, host), name)
    }

    fn peer_at<'a>(&self, place: Place<'a>, name: &str) -> Peer<'a> {
        let inbox = self.folder.path().join(format!("{name}-inbox"));
        fs::create_dir_all(&inbox).expect("creating the inbox");
        let profile = self.folder.path().join(format!("{name}-profile"));
        let server_address = self.server_address.clone();
        Peer {
            place,
            name: name.to_owned(),
            server_address,
            profile,
            inbox,
        }
    }

    /// A file of the scene with this content.
    #[must_use]
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).expect("writing a file");
        path
    }
}

#[cfg(target_os = "linux")]
fn lab_addresses() -> [String; 2] {
    [
        format!("{}:4747", Lab::SERVER),
        format!("[{}]:4747", Lab::SERVER_V6),
    ]
}

fn start_server(place: Place<'_>, listen: &[&str], arguments: &[&str], data_dir: &Path) -> Process {
    let mut command = place.command("pinhole-server");
    command.arg("--json").arg("--data-dir").arg(data_dir);
    command.args(arguments);
    for address in listen {
        command.args(["--listen", address]);
    }
    Process::start("server", command)
}

impl Peer<'_> {
    /// `pinhole` with this peer's profile and these arguments.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let named = ["--server", &self.server_address, "--name", &self.name];
        self.nameless_command(&[&named, arguments].concat())
    }

    /// `pinhole` with this peer's profile and these arguments, told neither a name nor a
    /// server.
    #[must_use]
    pub fn nameless_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command("pinhole");
        command.arg("--json").arg("--data-dir").arg(&self.profile);
        command.args(arguments);
        // On loopback the machine's own network is none of the test's.
        command.env("PINHOLE_NO_NEARBY", "1");
        // The developer's proxy knows no scene.
        for variable in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(variable);
        }
        command
    }

    /// Starts it.
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Process {
        Process::start(&self.name, self.command(arguments))
    }

    /// Starts it, told neither a name nor a server.
    #[must_use]
    pub fn start_nameless(&self, arguments: &[&str]) -> Process {
        Process::start(&self.name, self.nameless_command(arguments))
    }

    /// Receives everything into the inbox; ready when this returns.
    #[must_use]
    pub fn receive(&self, more: &[&str]) -> Process {
        self.receive_into(&self.inbox, more)
    }

    /// Receives everything into that folder; ready when this returns.
    #[must_use]
    pub fn receive_into(&self, folder: &Path, more: &[&str]) -> Process {
        let folder = folder.to_str().expect("a folder in UTF-8");
        let arguments = [&["receive", "--into", folder, "--accept", "all"], more].concat();
        let mut process = self.start(&arguments);
        process.event("logged_in", SOON);
        process
    }

    /// Starts sending.
    #[must_use]
    pub fn send(&self, to: &str, paths: &[&Path]) -> Process {
        let paths = paths
            .iter()
            .map(|path| path.to_str().expect("a path in UTF-8"));
        let arguments: Vec<&str> = ["send", to].into_iter().chain(paths).collect();
        self.start(&arguments)
    }
}
