//! The laboratory's NATs are what their names say, shown with nothing of
//! Pinhole in it: a failure here is the laboratory's, not the product's.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use pinhole_tests::lab::{self, Host, Lab, Mapping, Nat, Plan, Topology, Unsolicited};

/// Answers each connection to ports 5000 and 5001 with its address as seen.
const OBSERVER: &str = r#"
import selectors, socket
events = selectors.DefaultSelector()
for port in (5000, 5001):
    events.register(socket.create_server(("", port)), selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in events.select():
        connection, (ip, port) = key.fileobj.accept()
        connection.sendall(f"{ip} {port}\n".encode())
        connection.close()
"#;

/// Prints how both observers see port 6000, then dials argv[1] argv[2] from it
/// once standard input says so, and says what came of that and when.
const PUNCHER: &str = r#"
import socket, sys, time
def dial(address, timeout):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.settimeout(timeout)
    s.bind(("", 6000))
    s.connect(address)
    return s
for port in (5000, 5001):
    print(dial(("203.0.113.1", port), 5).recv(100).decode(), end="", flush=True)
ip, port = sys.stdin.readline().split()
begin = time.monotonic()
error = "timed out"
while time.monotonic() - begin < 1:
    try:
        s = dial((ip, int(port)), 1)
        s.sendall(b"hello")
        assert s.recv(5) == b"hello"
        error = None
        break
    except OSError as e:
        error = e.strerror or "timed out"
        time.sleep(0.02)  # as Pinhole paces its redials
print(error or "connected", int((time.monotonic() - begin) * 1000), flush=True)
"#;

fn plan(mapping: Mapping, unsolicited: Unsolicited) -> Plan {
    let nat = Nat {
        mapping,
        unsolicited,
    };
    let delay = Duration::from_millis(25);
    Plan {
        topology: Topology::TwoSites(nat, nat),
        ipv6: false,
        delay,
    }
}

/// A Python program that is talked with line by line.
struct Dialogue {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Dialogue {
    fn start(lab: &Lab, host: Host, program: &str) -> Self {
        let mut command = lab.command(host, "python3".as_ref());
        command
            .args(["-c", program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("a readable line")
    }

    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().expect("piped"), "{line}").expect("writing");
    }

    /// What came of dialling, and after how many milliseconds.
    fn outcome(&mut self) -> (String, u64) {
        let line = self.line();
        let (outcome, elapsed_ms) = line.rsplit_once(' ').expect("two parts");
        (
            outcome.to_owned(),
            elapsed_ms.parse().expect("milliseconds"),
        )
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How the observer's two ports see A's and B's port 6000.
type Seen = [[String; 2]; 2];

fn observed(lab: &Lab) -> ([Dialogue; 2], Seen) {
    let mut observer = Dialogue::start(lab, Host::S, OBSERVER);
    assert_eq!(observer.line(), "ready");
    let mut peers = [Host::A, Host::B].map(|host| Dialogue::start(lab, host, PUNCHER));
    let seen = peers.each_mut().map(|peer| [peer.line(), peer.line()]);
    (peers, seen)
}

/// Lets both dial each other at the same time.
fn punch(lab: &Lab) -> (Seen, [(String, u64); 2]) {
    let ([mut a, mut b], seen) = observed(lab);
    a.say(&seen[1][1]);
    b.say(&seen[0][1]);
    (seen, [a.outcome(), b.outcome()])
}

#[test]
fn stable_nats_are_opened_by_two_simultaneous_syns() {
    let Some(lab) = lab::build_or_skip(plan(Mapping::Stable, Unsolicited::Silence)) else {
        return;
    };
    let (seen, outcomes) = punch(&lab);
    for [at_first_port, at_second_port] in seen {
        assert_eq!(
            at_first_port, at_second_port,
            "one mapping for both destinations"
        );
        assert!(!at_first_port.ends_with(" 6000"), "not the host's own port");
    }
    for (outcome, elapsed_ms) in outcomes {
        assert_eq!(outcome, "connected");
        assert!((90..1000).contains(&elapsed_ms), "{elapsed_ms} ms");
    }
}

#[test]
fn symmetric_nats_map_each_destination_anew_and_are_not_opened() {
    let Some(lab) = lab::build_or_skip(plan(Mapping::Symmetric, Unsolicited::Silence)) else {
        return;
    };
    let (seen, outcomes) = punch(&lab);
    for [at_first_port, at_second_port] in seen {
        assert_ne!(at_first_port, at_second_port);
    }
    for (outcome, _) in outcomes {
        assert_eq!(outcome, "timed out");
    }
}

#[test]
fn a_nat_answers_strangers_as_planned() {
    let answers = [
        (Unsolicited::Silence, "timed out"),
        (Unsolicited::Reset, "Connection refused"),
        (Unsolicited::Icmp, "Connection refused"),
    ];
    for (unsolicited, answer) in answers {
        let Some(lab) = lab::build_or_skip(plan(Mapping::Stable, unsolicited)) else {
            return;
        };
        let ([mut a, _b], seen) = observed(&lab);
        a.say(&seen[1][1]);
        assert_eq!(a.outcome().0, answer, "{unsolicited:?}");
    }
}
