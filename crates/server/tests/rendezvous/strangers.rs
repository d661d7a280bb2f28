//! A crowd of strangers from sixteen networks, each of which takes all that it can
//! get, and twenty honest pairs beside it.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use pinhole_proto::name::PeerName;
use pinhole_proto::rendezvous::{ClientMessage, RefuseReason, RelayToken, ServerMessage};
use pinhole_proto::tls::Identity;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::PATIENCE;
use super::binary::{ANY_PORT, Process};
use super::client::{Client, identity, introduction, log_in, relay_only, socket_from};

const NETWORKS: u8 = 16;
const PAIRS: u8 = 20;
/// What each pair sends; at the relay's speed it takes two seconds.
const SENT_BYTES: usize = 1_000_000;
/// A crowd does not ask for more CPU time than for anything else.
const PACE: Duration = Duration::from_millis(5);
const MEMORY_BYTES: u64 = 256 << 20;

fn honest(role: &str, pair: u8) -> PeerName {
    format!("{role}-{pair}").parse().unwrap()
}

/// Says no to whoever else invites, until a message is the one that is waited for.
async fn hear_of<T>(
    client: &mut Client,
    friend: &PeerName,
    wanted: impl Fn(&ServerMessage) -> Option<T>,
) -> T {
    loop {
        let message = client.hear().await;
        if let Some(found) = wanted(&message) {
            return found;
        }
        match message {
            ServerMessage::Invitation {
                introduction, from, ..
            } if from.name != *friend => {
                let reason = RefuseReason::Busy;
                client
                    .say(&ClientMessage::Refuse {
                        introduction,
                        reason,
                        credential: None,
                    })
                    .await;
            }
            ServerMessage::Ping { nonce } => client.say(&ClientMessage::Pong { nonce }).await,
            ServerMessage::Refused { reason } => panic!("an honest peer is refused: {reason}"),
            ServerMessage::IntroductionFailed { reason, .. } => panic!("not introduced: {reason}"),
            _ => {}
        }
    }
}

fn token(message: &ServerMessage) -> Option<RelayToken> {
    match message {
        ServerMessage::Introduced { relay, .. } => *relay,
        _ => None,
    }
}

/// Logs in, observes, invites, meets at the relay, and sends; how long it took.
async fn honest_pair(server: SocketAddr, pair: u8, keys: &[Identity; 2]) -> Duration {
    let begin = Instant::now();
    let own = [127, 100 + pair, 0, 1];
    let names = [honest("alice", pair), honest("bob", pair)];
    let mut sides = Vec::new();
    for (key, name) in keys.iter().zip(&names) {
        let mut client = Client::begin_from(own, server, key, &log_in(name.as_str())).await;
        let is_in = |m: &ServerMessage| matches!(m, ServerMessage::LoggedIn { .. }).then_some(());
        hear_of(&mut client, name, is_in).await;
        let mut observer = Client::begin_from(own, server, key, &ClientMessage::Observe).await;
        let seen = observer.hear().await;
        assert!(matches!(seen, ServerMessage::Observed { .. }), "{seen:?}");
        sides.push((client, observer));
    }
    let [(alice, _), (bob, _)] = &mut sides[..] else {
        panic!("two sides");
    };
    let id = introduction(pair);
    let introduce = ClientMessage::Introduce {
        introduction: id,
        round: 1,
        peer: names[1].clone(),
        reachability: relay_only(),
        credential: None,
    };
    alice.say(&introduce).await;
    let invited = |m: &ServerMessage| match m {
        ServerMessage::Invitation { introduction, .. } => (*introduction == id).then_some(()),
        _ => None,
    };
    hear_of(bob, &names[0], invited).await;
    let answer = ClientMessage::Answer {
        introduction: id,
        round: 1,
        reachability: relay_only(),
    };
    bob.say(&answer).await;
    let relay = ClientMessage::Relay {
        token: hear_of(alice, &names[1], token).await,
    };
    let from = Client::begin_from(own, server, &keys[0], &relay).await;
    let to = Client::begin_from(own, server, &keys[1], &relay).await;
    let (mut from, mut to) = (from.meet().await, to.meet().await);
    let sent = vec![pair; SENT_BYTES];
    let mut received = vec![0; SENT_BYTES];
    let send = async {
        from.write_all(&sent).await.unwrap();
    };
    let (_, read) = tokio::join!(send, to.read_exact(&mut received));
    read.unwrap();
    assert!(received == sent, "other bytes have arrived");
    begin.elapsed()
}

/// All pairs at once; the longest that one took.
async fn honest_pairs(server: SocketAddr, keys: &[[Identity; 2]]) -> Duration {
    let mut pairs = JoinSet::new();
    for (pair, keys) in (0..PAIRS).zip(keys) {
        let keys = keys.clone();
        pairs.spawn(async move { honest_pair(server, pair, &keys).await });
    }
    pairs.join_all().await.into_iter().max().unwrap()
}

/// Connections that say nothing, as many as the server takes.
async fn silent(server: SocketAddr, own: [u8; 4]) {
    let mut held = Vec::new();
    loop {
        held.extend(socket_from(own, server).await);
        let excess = held.len().saturating_sub(150);
        held.drain(..excess);
        sleep(PACE).await;
    }
}

/// A connection with this beginning, if the server lets it get so far.
async fn attempt(
    server: SocketAddr,
    own: [u8; 4],
    key: &Identity,
    first: &ClientMessage,
) -> Option<Client> {
    let begun = Client::try_begin_from(own, server, key, first);
    timeout(PATIENCE, begun).await.ok()?
}

/// Keys that are logged in, with all the observations they may have; they invite the
/// honest and listen to nobody.
async fn greedy(server: SocketAddr, network: u8, own: [u8; 4]) {
    let mut held = Vec::new();
    for number in 0_u32.. {
        let key = identity();
        let name = format!("eve-{network}-{number}");
        let Some(mut session) = attempt(server, own, &key, &log_in(&name)).await else {
            sleep(PACE * 20).await;
            continue;
        };
        for count in 0..8 {
            let introduce = ClientMessage::Introduce {
                introduction: introduction(100 + network),
                round: 1,
                peer: honest("bob", (network + count) % PAIRS),
                reachability: relay_only(),
                credential: None,
            };
            if !session.try_say(&introduce).await {
                break;
            }
        }
        for _ in 0..40 {
            held.extend(attempt(server, own, &key, &ClientMessage::Observe).await);
            sleep(PACE).await;
        }
        held.push(session);
        let excess = held.len().saturating_sub(250);
        held.drain(..excess);
    }
}

/// Throw-away keys that observe.
async fn throw_away(server: SocketAddr, own: [u8; 4]) {
    let mut held = Vec::new();
    loop {
        let key = identity();
        for _ in 0..16 {
            held.extend(attempt(server, own, &key, &ClientMessage::Observe).await);
            sleep(PACE).await;
        }
        let excess = held.len().saturating_sub(130);
        held.drain(..excess);
    }
}

fn memory_bytes(process: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let value = status.lines().find_map(|it| it.strip_prefix(line)).unwrap();
    let kib = value.trim_start_matches(':').trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() << 10
}

fn open_more_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// A server that may open so many files, beside a crowd for so long.
async fn beside_a_crowd(open_files: u32, time: Duration) {
    open_more_files();
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -n {open_files}; exec \"$@\""), "sh"])
        .arg(env!("CARGO_BIN_EXE_pinhole-server"))
        .arg("--data-dir")
        .arg(dir.path())
        .args(ANY_PORT)
        .args(["--relay-rate", "500k"]);
    let mut process = Process::start(command);
    let server = process.listening().0[0];
    let keys: Vec<_> = (0..PAIRS).map(|_| [identity(), identity()]).collect();
    let alone = honest_pairs(server, &keys).await;
    let at_first = memory_bytes(process.id(), "VmRSS");

    let mut crowd = JoinSet::new();
    for network in 0..NETWORKS {
        let own = [127, 32 + network, 0, 1];
        crowd.spawn(silent(server, own));
        crowd.spawn(throw_away(server, own));
        for _ in 0..2 {
            crowd.spawn(greedy(server, network, own));
        }
    }
    // Nearly all that newcomers may have is taken before anybody else comes.
    let begin = Instant::now();
    let open = || fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
    while open().count() < (open_files as usize / 2).min(4_000) {
        assert!(begin.elapsed() < PATIENCE * 15, "{} open", open().count());
        sleep(Duration::from_millis(100)).await;
    }
    let end = Instant::now() + time;
    let mut slowest = Duration::ZERO;
    while Instant::now() < end {
        slowest = slowest.max(honest_pairs(server, &keys).await);
    }
    crowd.shutdown().await;
    let most = memory_bytes(process.id(), "VmHWM");
    println!(
        "alone {alone:?}, beside the crowd {slowest:?}; at most {} MiB",
        most >> 20
    );
    assert!(slowest < alone * 3, "{slowest:?} instead of {alone:?}");
    assert!(most < MEMORY_BYTES, "{} MiB", most >> 20);
    let gone = Instant::now();
    let few = at_first + (32 << 20);
    while memory_bytes(process.id(), "VmRSS") > few {
        let now = memory_bytes(process.id(), "VmRSS");
        assert!(
            gone.elapsed() < Duration::from_secs(60),
            "keeps {} MiB",
            now >> 20
        );
        sleep(Duration::from_millis(500)).await;
    }
    let log = process.log();
    assert!(log.contains("as much is held as may be in all"), "{log}");
    assert!(!log.contains("cannot accept connections"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_strangers_takes_nothing_from_twenty_honest_pairs() {
    beside_a_crowd(1_024, Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; see nightly.sh"]
async fn a_crowd_of_strangers_takes_nothing_in_a_minute_from_a_server_of_full_size() {
    beside_a_crowd(20_000, Duration::from_secs(60)).await;
}
