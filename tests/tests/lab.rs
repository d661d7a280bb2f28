//! The laboratory's routers are what their names say, shown with nothing of
//! Pinhole in it: a failure here is the laboratory's, not the product's.
#![cfg(target_os = "linux")]

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use pinhole_tests::lab::measure::{self, address, dial, observe, socket};
use pinhole_tests::lab::{self, Host, Lab, Plan, Router, TYPES, Unsolicited};

/// Laboratories at once: most of their time is waiting.
const AT_ONCE: usize = 6;

#[test]
fn every_type_maps_filters_and_answers_as_it_says() {
    if lab::skipped() {
        return;
    }
    let wrong: Vec<String> = thread::scope(|scope| {
        let shares: Vec<_> = TYPES
            .chunks(TYPES.len().div_ceil(AT_ONCE))
            .map(|types| scope.spawn(|| types.iter().filter_map(difference).collect()))
            .collect();
        let joined = shares
            .into_iter()
            .map(|share| share.join().expect("a share"));
        joined.flat_map(|wrong: Vec<String>| wrong).collect()
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// In what a type is not what it says, measured.
fn difference((name, router): &(&str, Router)) -> Option<String> {
    let plan = Plan::two_sites(*router, Router::PUBLIC).delayed(Duration::ZERO);
    let lab = Lab::build(plan);
    let measured = Router {
        mapping: measure::mapping(&lab, Host::A),
        filtering: measure::filtering(&lab, Host::A),
        // A public host answers for itself.
        unsolicited: match *router {
            Router::PUBLIC => Unsolicited::Silence,
            _ => measure::unsolicited(&lab, Host::A),
        },
        ..*router
    };
    (measured != *router).then(|| format!("{name}: {measured:?} in place of {router:?}"))
}

/// What came of dialling, as Pinhole dials: again at once after an error, for a
/// second; and after how long.
fn punch(
    lab: &Lab,
    host: Host,
    to: SocketAddr,
    start: &Barrier,
) -> (Result<(), ErrorKind>, Duration) {
    lab.inside(host, || {
        start.wait();
        let begun = Instant::now();
        loop {
            let greeted = dial(socket(None, PUNCH_PORT), to).and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(1)))?;
                stream.write_all(b"hello")?;
                stream.read_exact(&mut [0; 5])
            });
            let elapsed = begun.elapsed();
            match greeted {
                Err(_) if elapsed < Duration::from_secs(1) => {
                    thread::sleep(Duration::from_millis(20));
                }
                outcome => return (outcome.map_err(|error| error.kind()), elapsed),
            }
        }
    })
}

const PUNCH_PORT: u16 = 40_003;

/// Lets both dial each other at the same time, where the server saw them.
fn punch_both(lab: &Lab) -> [(Result<(), ErrorKind>, Duration); 2] {
    let seen =
        [Host::A, Host::B].map(|host| observe(lab, host, PUNCH_PORT, address(Lab::SERVER, 5005)));
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let a = scope.spawn(|| punch(lab, Host::A, seen[1].address, &start));
        let b = punch(lab, Host::B, seen[0].address, &start);
        [a.join().expect("A"), b]
    })
}

#[test]
fn stable_routers_are_opened_by_two_simultaneous_syns() {
    let Some(lab) = lab::build_or_skip(Plan::two_sites(Router::HOME, Router::HOME)) else {
        return;
    };
    for (outcome, elapsed) in punch_both(&lab) {
        assert_eq!(outcome, Ok(()));
        let expected = Duration::from_millis(90)..Duration::from_secs(1);
        assert!(expected.contains(&elapsed), "{elapsed:?}");
    }
}

#[test]
fn symmetric_routers_are_not_opened() {
    let plan = Plan::two_sites(Router::SYMMETRIC, Router::SYMMETRIC);
    let Some(lab) = lab::build_or_skip(plan) else {
        return;
    };
    for (outcome, _) in punch_both(&lab) {
        assert_eq!(outcome, Err(ErrorKind::TimedOut));
    }
}
