//! How soon connections stand and bytes arrive, in round trips between the
//! peers: 25 ms on each line, 100 ms there and back. The limits hold on a
//! machine that has nothing else to do.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use pinhole_client::{
    AcceptPolicy, Client, Command, Event, Events, LoginState, Options, Overrides, PathKind,
    TransferId,
};
use pinhole_tests::lab::{self, Host, Lab, Plan, Router};
use pinhole_tests::process::Process;
use pinhole_tests::scene::{SOON, Scene};

const RUNS: usize = 20;
const RTT: Duration = Duration::from_millis(100);
/// To the server and back.
const SERVER_RTT: Duration = Duration::from_millis(50);
/// Nobody has a port ready any more so long after the last login and transfer.
const IDLE_AFTER: Duration = Duration::from_secs(62);
/// On the relay a session begins as soon as both reach that, and on a direct
/// path as soon as both SYNs have crossed: never later, but for what a machine's
/// clock and scheduler do.
const BLUR: Duration = Duration::from_millis(25);

/// Too large to come along with its offer, and not worth waiting for.
const LARGE_BYTES: usize = 4 << 20;

/// Somebody's engine, on a host of the laboratory.
struct Person {
    name: String,
    client: Client,
    events: Events,
    runtime: tokio::runtime::Runtime,
}

impl Person {
    fn start(lab: &Lab, scene: &Scene, host: Host, name: &str) -> Self {
        let options = Options {
            data_dir: Some(scene.folder.path().join(name)),
            overrides: Overrides {
                nearby: Some(false),
                accept: Some(AcceptPolicy::All),
                download_folder: Some(scene.folder.path().join(format!("{name}-downloads"))),
                ..Overrides::default()
            },
            ..Options::default()
        };
        // The engine's threads stay where the first one is started.
        let engine = lab.inside(host, || pinhole_client::start(options, || {}));
        let (client, events) = engine.expect("an engine");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all();
        Self {
            name: name.to_owned(),
            client,
            events,
            runtime: runtime.build().expect("a runtime"),
        }
    }

    fn command(&self, command: Command) {
        self.client.command(command).expect("room for a command");
    }

    /// The first event that `wanted` takes, and when it came.
    fn event<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> (T, Instant) {
        let events = &mut self.events;
        let search = async {
            loop {
                let event = events.next().await.expect("a running engine");
                if let Some(found) = wanted(&event) {
                    return (found, Instant::now());
                }
            }
        };
        let found = async { tokio::time::timeout(SOON, search).await };
        self.runtime.block_on(found).expect("the event")
    }

    /// Anew, so that no session and nothing of the last one is left.
    fn log_in(&mut self, scene: &Scene) {
        if !matches!(self.client.snapshot().login, LoginState::LoggedOut { .. }) {
            self.command(Command::LogOut);
        }
        self.command(Command::LogIn {
            name: self.name.parse().expect("a name"),
            server: scene.server_address.parse().expect("an address"),
            patient: false,
        });
        self.event(|e| matches!(e, Event::LoggedIn { .. }).then_some(()));
        // Whoever is logged in has a port ready and observed a moment later.
        thread::sleep(10 * RTT);
    }

    /// Has it send a file to somebody, and says when.
    fn send(&self, to: &str, file: &Path) -> Instant {
        let peers = self.client.snapshot().peers.clone();
        let peer = peers.iter().find(|p| p.identity.name.as_str() == to);
        let begun = Instant::now();
        self.command(Command::Send {
            peer: peer.expect("the receiver").identity.key,
            paths: vec![file.to_owned()],
        });
        begun
    }

    /// The path of the session that comes up next, and when it did.
    fn connected(&mut self) -> (PathKind, Instant) {
        self.event(|e| match e {
            Event::Connected { path, .. } => Some(*path),
            _ => None,
        })
    }

    /// When the first bytes of a transfer that has begun are counted. By itself the
    /// engine looks for them ten times a second; asked to go on with what is not
    /// paused, it looks at once.
    fn first_counted(&self, transfer: TransferId) -> Instant {
        let since = Instant::now();
        loop {
            let snapshot = self.client.snapshot();
            let mut transfers = snapshot.transfers.iter();
            if transfers.any(|it| it.id == transfer && it.progress.bytes_done > 0) {
                return Instant::now();
            }
            assert!(since.elapsed() < SOON, "no byte in time");
            self.command(Command::Pause {
                transfer,
                paused: false,
            });
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// When the next transfer has ended, without a failure.
    fn finished(&mut self) -> Instant {
        let finished = |event: &Event| match event {
            Event::Finished { failure, .. } => Some(failure.clone()),
            _ => None,
        };
        let (failure, at) = self.event(finished);
        assert_eq!(failure, None);
        at
    }
}

/// Since the command: the session, a direct session, and the first byte.
#[derive(Clone, Copy)]
struct Times {
    session: Duration,
    direct: Option<Duration>,
    first_byte: Duration,
}

impl Times {
    fn since(begun: Instant, path: PathKind, connected: Instant, first_byte: Instant) -> Self {
        let session = connected - begun;
        Self {
            session,
            direct: (path != PathKind::Relay).then_some(session),
            first_byte: first_byte - begun,
        }
    }
}

/// When the file of a few bytes had arrived, and was on the disk: not sooner
/// than its first byte.
fn first_byte(receiving: &mut Process) -> Instant {
    receiving.event_at("completed", SOON).1
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().expect("times")
}

fn in_round_trips(time: Duration) -> f64 {
    time.as_secs_f64() / RTT.as_secs_f64()
}

fn print(what: &str, times: &[Duration]) -> Duration {
    let median = median(times.to_vec());
    let each = times.iter().map(Duration::as_millis);
    println!(
        "{what}: median {:.2} round trips; {:?} ms",
        in_round_trips(median),
        each.collect::<Vec<_>>()
    );
    median
}

/// Logged in, alice sends to bob, behind two such routers.
fn logged_in(router: Router) -> Vec<Times> {
    let lab = Lab::build(Plan::two_sites(router, router));
    let scene = Scene::in_lab(&lab);
    let bob = scene.peer_in(&lab, Host::B, "bob");
    let mut receiving = bob.receive(&[]);
    let mut alice = Person::start(&lab, &scene, Host::A, "alice");
    let file = scene.file("file", b"content");
    let times = (0..RUNS).map(|_| {
        alice.log_in(&scene);
        let begun = alice.send("bob", &file);
        let (path, connected) = alice.connected();
        let first_byte = first_byte(&mut receiving);
        alice.finished();
        Times::since(begun, path, connected, first_byte)
    });
    let times = times.collect();
    alice.client.shut_down(alice.events);
    times
}

/// The same, by pairs of whom nobody has done anything for a while. They wait together
/// and send one after the other.
fn idle(router: Router) -> Vec<Times> {
    let lab = Lab::build(Plan::two_sites(router, router));
    let scene = Scene::in_lab(&lab);
    let file = scene.file("file", b"content");
    let start = |host, name: String| {
        let mut person = Person::start(&lab, &scene, host, &name);
        person.log_in(&scene);
        person
    };
    let mut pairs: Vec<_> = (0..RUNS)
        .map(|pair| {
            let sender = start(Host::A, format!("alice{pair}"));
            (sender, start(Host::B, format!("bob{pair}")))
        })
        .collect();
    thread::sleep(IDLE_AFTER);
    let times = pairs.iter_mut().map(|(sender, receiver)| {
        let begun = sender.send(&receiver.name, &file);
        let (path, connected) = sender.connected();
        let first_byte = receiver.finished();
        sender.finished();
        Times::since(begun, path, connected, first_byte)
    });
    let times = times.collect();
    for person in pairs.into_iter().flat_map(|(a, b)| [a, b]) {
        person.client.shut_down(person.events);
    }
    times
}

/// The same with a large file: from the command until bob's engine counts the
/// first bytes of it.
fn large(router: Router) -> Vec<Duration> {
    let lab = Lab::build(Plan::two_sites(router, router));
    let scene = Scene::in_lab(&lab);
    let mut bob = Person::start(&lab, &scene, Host::B, "bob");
    bob.log_in(&scene);
    let mut alice = Person::start(&lab, &scene, Host::A, "alice");
    let file = scene.file("large", &vec![7; LARGE_BYTES]);
    let times = (0..RUNS).map(|_| {
        alice.log_in(&scene);
        let begun = alice.send("bob", &file);
        let (transfer, _) = bob.event(|e| match e {
            Event::Started { transfer } => Some(*transfer),
            _ => None,
        });
        let first_byte = bob.first_counted(transfer);
        bob.finished();
        alice.finished();
        first_byte - begun
    });
    let times = times.collect();
    alice.client.shut_down(alice.events);
    bob.client.shut_down(bob.events);
    times
}

/// From the start of `pinhole send` to the first byte.
fn cold(router: Router) -> Vec<Duration> {
    let lab = Lab::build(Plan::two_sites(router, router));
    let scene = Scene::in_lab(&lab);
    let bob = scene.peer_in(&lab, Host::B, "bob");
    let alice = scene.peer_in(&lab, Host::A, "alice");
    let mut receiving = bob.receive(&[]);
    let file = scene.file("file", b"content");
    let times = (0..RUNS).map(|_| {
        let begun = Instant::now();
        let sending = alice.send("bob", &[&file]);
        let first_byte = first_byte(&mut receiving);
        assert_eq!(sending.end(SOON).code, Some(0));
        first_byte - begun
    });
    times.collect()
}

#[test]
#[ignore = "its limits need a machine that has nothing else to do"]
fn connections_stand_and_bytes_arrive_in_so_many_round_trips() {
    if lab::skipped() {
        return;
    }
    let home = logged_in(Router::HOME);
    let all = |time: fn(&Times) -> Duration, times: &[Times]| times.iter().map(time).collect();
    let direct: Vec<_> = home.iter().filter_map(|times| times.direct).collect();
    println!("{} of {RUNS} began on a direct path", direct.len());
    let any: Vec<_> = all(|t| t.session, &home);
    let direct = if direct.is_empty() {
        Duration::MAX
    } else {
        print("command to direct session", &direct)
    };
    print("command to any session", &any);
    let bytes: Vec<_> = all(|t| t.first_byte, &home);
    let bytes = print("command to first byte", &bytes);
    let relayed = logged_in(Router::SYMMETRIC);
    let relayed_bytes: Vec<_> = all(|t| t.first_byte, &relayed);
    let relayed_bytes = print("command to first relayed byte", &relayed_bytes);
    let relayed: Vec<_> = all(|t| t.session, &relayed);
    let relayed = print("command to relayed session", &relayed);
    let large_bytes = print(
        "command to first byte of a large file",
        &large(Router::HOME),
    );
    let large_relayed = large(Router::SYMMETRIC);
    let large_relayed = print("command to first relayed byte of one", &large_relayed);

    assert!(direct <= RTT.mul_f64(3.5), "{direct:?}");
    assert!(bytes <= RTT.mul_f64(4.5), "{bytes:?}");
    assert!(relayed_bytes <= RTT.mul_f64(4.5), "{relayed_bytes:?}");
    assert!(large_bytes <= RTT.mul_f64(4.5), "{large_bytes:?}");
    assert!(large_relayed <= RTT.mul_f64(4.5), "{large_relayed:?}");
    assert!(relayed <= direct + BLUR, "{relayed:?}");
}

#[test]
#[ignore = "its limits need a machine that has nothing else to do"]
fn a_program_that_is_only_started_takes_few_round_trips_more() {
    if lab::skipped() {
        return;
    }
    let cold = print("cold `pinhole send` to first byte", &cold(Router::HOME));
    assert!(cold <= 7 * RTT, "{cold:?}");
}

#[test]
#[ignore = "its limits need a machine that has nothing else to do"]
fn two_who_are_idle_take_one_round_trip_to_the_server_more() {
    if lab::skipped() {
        return;
    }
    let home = idle(Router::HOME);
    let relayed = idle(Router::SYMMETRIC);
    let sessions = |times: &[Times]| times.iter().map(|it| it.session).collect::<Vec<_>>();
    let bytes = |times: &[Times]| times.iter().map(|it| it.first_byte).collect::<Vec<_>>();
    let direct = home.iter().filter(|times| times.direct.is_some()).count();
    println!("{direct} of {RUNS} idle ones began on a direct path");
    let session = print("idle, command to session", &sessions(&home));
    let byte = print("idle, command to first byte", &bytes(&home));
    let relayed_session = print("idle, command to relayed session", &sessions(&relayed));
    let relayed_byte = print("idle, command to first relayed byte", &bytes(&relayed));

    for session in [session, relayed_session] {
        assert!(session <= RTT.mul_f64(3.5) + SERVER_RTT, "{session:?}");
    }
    for byte in [byte, relayed_byte] {
        assert!(byte <= RTT.mul_f64(4.5) + SERVER_RTT, "{byte:?}");
    }
}
