use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pinhole_proto::hello::Purpose;
use pinhole_proto::rendezvous::IntroductionId;
use pinhole_proto::tls::wrong_key;
use proptest::prelude::*;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::migration::Migrator;
use super::tls_stream::{SealedReader, SealedWriter};
use super::*;
use crate::identity::generate_identity;

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap());
    let (ours, theirs) = tokio::join!(ours, listener.accept());
    (ours.unwrap(), theirs.unwrap().0)
}

async fn transports() -> (Transport, Transport) {
    let (one, other) = sockets().await;
    (
        Transport::direct(one).unwrap(),
        Transport::direct(other).unwrap(),
    )
}

async fn streams() -> (SealedStream, SealedStream) {
    let [alice, bob] = [(); 2].map(|()| generate_identity().unwrap().0);
    let (a, b) = transports().await;
    let controlling = authenticate(a, Role::Controlling, &alice, bob.key());
    let controlled = authenticate(b, Role::Controlled, &bob, alice.key());
    let (a, b) = tokio::join!(controlling, controlled);
    (a.unwrap().stream, b.unwrap().stream)
}

/// A session in this role whose other end is plain tokio-rustls.
async fn beside_rustls(role: Role) -> (SealedStream, TlsStream<TcpStream>) {
    let [alice, bob] = [(); 2].map(|()| generate_identity().unwrap().0);
    let (ours, theirs) = sockets().await;
    let ours = Transport::direct(ours).unwrap();
    let ours = authenticate(ours, role, &alice, bob.key());
    let theirs = async {
        let expect = Expect::Key(alice.key());
        match role {
            Role::Controlling => {
                let config: Arc<ServerConfig> =
                    peer_tls::server_config(&bob, expect, ALPN_PEER).unwrap();
                TlsStream::Server(TlsAcceptor::from(config).accept(theirs).await.unwrap())
            }
            Role::Controlled => {
                let config: Arc<ClientConfig> =
                    peer_tls::client_config(&bob, expect, ALPN_PEER).unwrap();
                let connecting =
                    TlsConnector::from(config).connect(peer_tls::server_name(), theirs);
                TlsStream::Client(connecting.await.unwrap())
            }
        }
    };
    let (ours, theirs) = tokio::join!(ours, theirs);
    (ours.unwrap().stream, theirs)
}

fn pattern(size_bytes: usize) -> Vec<u8> {
    (0..size_bytes)
        .map(|i| u8::try_from(i % 251).unwrap())
        .collect()
}

fn block_on(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let limit = Duration::from_secs(60);
    runtime.unwrap().block_on(async {
        let done = tokio::time::timeout(limit, work);
        done.await.expect("the stream hangs");
    });
}

#[tokio::test]
async fn each_side_checks_the_other_s_key() {
    let [alice, bob, mallory] = [(); 3].map(|()| generate_identity().unwrap().0);
    let (a, b) = transports().await;
    let controlling = authenticate(a, Role::Controlling, &alice, bob.key());
    let posing = authenticate(b, Role::Controlled, &mallory, alice.key());
    let (error, told) = tokio::join!(controlling, posing);
    let error = error.unwrap_err();
    assert!(wrong_key(&error).is_some(), "{error}");
    // The TLS alert, or the end of the connection behind it.
    told.map(|authenticated| authenticated.stream).unwrap_err();

    let (a, b) = transports().await;
    let posing = authenticate(a, Role::Controlling, &mallory, bob.key());
    let controlled = authenticate(b, Role::Controlled, &bob, alice.key());
    let error = tokio::join!(posing, controlled).1.unwrap_err();
    assert!(wrong_key(&error).is_some(), "{error}");
}

/// TLS leaves it to the other end whether it names a protocol.
#[tokio::test]
async fn a_peer_that_agrees_on_no_protocol_is_refused() {
    for role in [Role::Controlling, Role::Controlled] {
        let [alice, bob] = [(); 2].map(|()| generate_identity().unwrap().0);
        let (ours, theirs) = sockets().await;
        let ours = Transport::direct(ours).unwrap();
        let ours = authenticate(ours, role, &alice, bob.key());
        let theirs = async {
            match role {
                Role::Controlling => {
                    let config = peer_tls::server_config(&bob, Expect::AnyKey, ALPN_PEER);
                    let mut config = ServerConfig::clone(&config.unwrap());
                    config.alpn_protocols.clear();
                    let accepting = TlsAcceptor::from(Arc::new(config)).accept(theirs);
                    accepting.await.map(TlsStream::Server)
                }
                Role::Controlled => {
                    let config = peer_tls::client_config(&bob, Expect::AnyKey, ALPN_PEER);
                    let mut config = ClientConfig::clone(&config.unwrap());
                    config.alpn_protocols.clear();
                    let connector = TlsConnector::from(Arc::new(config));
                    let connecting = connector.connect(peer_tls::server_name(), theirs);
                    connecting.await.map(TlsStream::Client)
                }
            }
        };
        let (ours, _theirs) = tokio::join!(ours, theirs);
        let error = ours.map(|proven| proven.stream).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }
}

/// Writes `writes` pieces one after the other and reads them in `reads` pieces.
async fn carry(
    mut writer: SealedWriter,
    mut reader: SealedReader,
    writes: Vec<usize>,
    reads: Vec<usize>,
) {
    let all = pattern(writes.iter().sum());
    let write = async {
        let mut rest = all.as_slice();
        for (number, size_bytes) in writes.iter().enumerate() {
            let (piece, behind) = rest.split_at(*size_bytes);
            writer.write_all(piece).await.unwrap();
            rest = behind;
            if number % 3 == 0 {
                writer.flush().await.unwrap();
            }
        }
        writer.shutdown().await.unwrap();
    };
    let read = async {
        let mut heard = Vec::new();
        for size_bytes in reads.iter().cycle() {
            let mut piece = vec![0; *size_bytes];
            let count = reader.read(&mut piece).await.unwrap();
            if count == 0 {
                break;
            }
            heard.extend_from_slice(&piece[..count]);
        }
        assert!(heard == all, "{} of {} bytes", heard.len(), all.len());
        assert_eq!(reader.read(&mut [0]).await.unwrap(), 0, "an end stays one");
    };
    tokio::join!(write, read);
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![
        4 => 1..64_usize,
        2 => 16_300..16_500_usize,
        2 => 1..100_000_usize,
        1 => 1_000_000..2_300_000_usize,
    ];
    prop::collection::vec(size, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_byte_arrives_whatever_the_sizes_both_ways_at_once(
        writes in [sizes(), sizes()],
        reads in [sizes(), sizes()],
    ) {
        block_on(async {
            let (a, b) = streams().await;
            let ((a_reader, a_writer), (b_reader, b_writer)) = (a.into_inner(), b.into_inner());
            let ([there, back], [read_there, read_back]) = (writes, reads);
            tokio::join!(
                carry(a_writer, b_reader, there, read_there),
                carry(b_writer, a_reader, back, read_back),
            );
        });
    }
}

#[tokio::test]
async fn both_sides_of_a_split_go_on_alone() {
    let (a, b) = streams().await;
    let ((mut a_reader, mut a_writer), (mut b_reader, mut b_writer)) =
        (a.into_inner(), b.into_inner());
    // Half-close: one direction has ended, the other goes on.
    a_writer.write_all(b"last words").await.unwrap();
    a_writer.shutdown().await.unwrap();
    let mut heard = Vec::new();
    b_reader.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"last words");
    let refused = a_writer.write_all(b"more").await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
    a_writer.shutdown().await.unwrap();

    let answer = pattern(3_000_000);
    let write = async {
        b_writer.write_all(&answer).await.unwrap();
        b_writer.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    let (_, read) = tokio::join!(write, a_reader.read_to_end(&mut heard));
    read.unwrap();
    assert!(heard == answer);
}

#[tokio::test]
async fn an_end_without_a_word_is_an_error_and_keeps_what_came_before() {
    for size_bytes in [0, 5, 100_000] {
        let (mut a, mut b) = streams().await;
        a.write_all(&pattern(size_bytes)).await.unwrap();
        a.flush().await.unwrap();
        drop(a);
        let mut heard = Vec::new();
        let error = b.read_to_end(&mut heard).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(heard == pattern(size_bytes));
    }
}

/// The ciphertext of one side, as the other would get it.
async fn tapped(tamper: impl FnOnce(&mut Vec<u8>)) -> (Vec<u8>, io::Error) {
    let [alice, bob] = [(); 2].map(|()| generate_identity().unwrap().0);
    let ((a, tap_a), (tap_b, b)) = (sockets().await, sockets().await);
    let transport = |stream| Transport::direct(stream).unwrap();
    let (mut from_a, mut to_a) = tap_a.into_split();
    let (mut from_b, mut to_b) = tap_b.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_b, &mut to_a).await });
    let (tell, mut told) = tokio::sync::oneshot::channel();
    let there = tokio::spawn(async move {
        let mut bytes = vec![0; 4096];
        loop {
            tokio::select! {
                biased;
                _ = &mut told => break,
                count = from_a.read(&mut bytes) => {
                    to_b.write_all(&bytes[..count.unwrap()]).await.unwrap();
                }
            }
        }
        (from_a, to_b)
    });
    let controlling = authenticate(transport(a), Role::Controlling, &alice, bob.key());
    let controlled = authenticate(transport(b), Role::Controlled, &bob, alice.key());
    let (a, b) = tokio::join!(controlling, controlled);
    let (mut a, mut b) = (a.unwrap().stream, b.unwrap().stream);
    tell.send(()).unwrap();
    let (mut from_a, mut to_b) = there.await.unwrap();
    a.write_all(b"one").await.unwrap();
    a.write_all(b"two").await.unwrap();
    a.shutdown().await.unwrap();
    let mut ciphertext = Vec::new();
    from_a.read_to_end(&mut ciphertext).await.unwrap();
    tamper(&mut ciphertext);
    to_b.write_all(&ciphertext).await.unwrap();
    to_b.shutdown().await.unwrap();
    let mut heard = Vec::new();
    let error = b.read_to_end(&mut heard).await.unwrap_err();
    // As who writes does: the first error ends it.
    let _ = b.write_all(b"three").await;
    drop(b);
    back.await.unwrap().unwrap();
    // The other end is told by an alert.
    let alerted = a.read(&mut [0; 1]).await.unwrap_err();
    if error.kind() == io::ErrorKind::InvalidData {
        assert_eq!(alerted.kind(), io::ErrorKind::InvalidData, "{alerted}");
    }
    (heard, error)
}

#[tokio::test]
async fn records_that_are_changed_cut_repeated_or_invented_are_errors() {
    const RECORD: usize = 5 + 3 + 1 + 16;
    let invalid = io::ErrorKind::InvalidData;
    let (heard, error) = tapped(|bytes| bytes[RECORD + 7] ^= 1).await;
    assert_eq!((heard.as_slice(), error.kind()), (&b"one"[..], invalid));
    let (heard, error) = tapped(|bytes| {
        let first = bytes[..RECORD].to_vec();
        bytes.splice(RECORD..RECORD, first);
    })
    .await;
    assert_eq!((heard.as_slice(), error.kind()), (&b"one"[..], invalid));
    let (heard, error) = tapped(|bytes| drop(bytes.drain(..RECORD))).await;
    assert_eq!((heard.as_slice(), error.kind()), (&b""[..], invalid));
    let garbage =
        |bytes: &mut Vec<u8>| bytes.splice(..0, *b"GET / HTTP/1.1\r\n\r\n").for_each(drop);
    let (heard, error) = tapped(garbage).await;
    assert_eq!((heard.as_slice(), error.kind()), (&b""[..], invalid));
}

#[tokio::test]
async fn either_role_speaks_tls_as_rustls_does_and_survives_new_keys() {
    for role in [Role::Controlling, Role::Controlled] {
        let (mut ours, mut theirs) = beside_rustls(role).await;
        let message = pattern(300_000);
        let mut heard = vec![0; message.len()];
        for round in 0..6 {
            match (round % 2, &mut theirs) {
                // Asked for by the other end: ours has to change its own, too.
                (1, TlsStream::Client(s)) => s.get_mut().1.refresh_traffic_keys().unwrap(),
                (1, TlsStream::Server(s)) => s.get_mut().1.refresh_traffic_keys().unwrap(),
                _ => {}
            }
            let write = async {
                theirs.write_all(&message).await.unwrap();
                theirs.flush().await.unwrap();
            };
            let (_, read) = tokio::join!(write, ours.read_exact(&mut heard));
            read.unwrap();
            assert!(heard == message);
            heard.fill(0);
            let write = async {
                ours.write_all(&message).await.unwrap();
                ours.flush().await.unwrap();
            };
            let (_, read) = tokio::join!(write, theirs.read_exact(&mut heard));
            read.unwrap();
            assert!(heard == message);
        }
        ours.shutdown().await.unwrap();
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
        theirs.shutdown().await.unwrap();
        assert_eq!(ours.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_write_that_was_given_up_leaves_the_stream_whole() {
    let (mut a, mut b) = streams().await;
    let piece = pattern(700_000);
    let mut written = 0;
    // Nobody reads: sooner or later the kernel takes no more.
    loop {
        let full = tokio::select! {
            biased;
            count = a.write(&piece) => { written += count.unwrap(); false }
            () = std::future::ready(()) => true,
        };
        if full {
            break;
        }
    }
    let finish = async {
        a.write_all(b"end").await.unwrap();
        a.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    let (_, read) = tokio::join!(finish, b.read_to_end(&mut heard));
    read.unwrap();
    let whole: Vec<u8> = piece.iter().copied().cycle().take(written).collect();
    assert_eq!(heard.len(), written + 3);
    assert!(heard[..written] == whole && heard.ends_with(b"end"));
}

/// More than is ever kept for the next read.
#[tokio::test]
async fn whatever_stands_behind_the_end_is_dropped() {
    for forged in [true, false] {
        let (ours, mut theirs) = beside_rustls(Role::Controlling).await;
        let (mut reader, _writer) = ours.into_inner();
        let mut room = Vec::new();
        if forged {
            room.extend([23, 3, 3, 0, 32]);
        } else if let TlsStream::Server(stream) = &mut theirs {
            let connection = stream.get_mut().1;
            connection.send_close_notify();
            connection.write_tls(&mut room).unwrap();
        }
        room.resize(600 * 1024, 0);
        assert_eq!(reader.open_in_place(&mut room), 0);
        let ended = reader.read(&mut room).await;
        if forged {
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::InvalidData);
        } else {
            assert_eq!(ended.unwrap(), 0);
        }
    }
}

/// A session and its movers, on its first path.
fn sessions(a: SealedStream, b: SealedStream) -> [(SessionStream, Migrator); 2] {
    [a, b].map(|path| migration::stream(path.into_inner()))
}

const HELLO: Hello = Hello {
    purpose: Purpose::Continue,
    path: PathKind::Lan,
    session: IntroductionId::from_random([1; IntroductionId::BYTES]),
};

/// The controlling side's end, and the other as it is once it has heard hello.
async fn next_path() -> (SealedStream, impl Future<Output = SealedStream>) {
    let (a, mut b) = streams().await;
    let heard = async move {
        let mut bytes = [0; Hello::BYTES];
        b.read_exact(&mut bytes).await.unwrap();
        assert_eq!(Hello::decode(bytes), Ok(HELLO));
        b
    };
    (a, heard)
}

/// Writes until it is stopped; returns how much.
async fn write_until(mut writer: SessionWriter, stopped: Arc<AtomicBool>) -> usize {
    let piece = pattern(251 * 40);
    let mut size_bytes = 0;
    while !stopped.load(Ordering::Relaxed) {
        writer.write_all(&piece).await.unwrap();
        size_bytes += piece.len();
    }
    writer.shutdown().await.unwrap();
    size_bytes
}

async fn read_pattern(mut reader: SessionReader) -> usize {
    let mut buffer = vec![0; 100_000];
    let mut size_bytes = 0;
    loop {
        let count = reader.read(&mut buffer).await.unwrap();
        if count == 0 {
            return size_bytes;
        }
        for byte in &buffer[..count] {
            assert_eq!(usize::from(*byte), size_bytes % 251, "at {size_bytes}");
            size_bytes += 1;
        }
    }
}

/// Both directions of a session are full while `move_it` is made.
async fn under_load(move_it: impl AsyncFn(&Migrator, &Migrator)) {
    let (a, b) = streams().await;
    let [(a, a_migrator), (b, b_migrator)] = sessions(a, b);
    let ((a_reader, a_writer), (b_reader, b_writer)) = (a.into_inner(), b.into_inner());
    let stopped = Arc::new(AtomicBool::new(false));
    let written = [a_writer, b_writer].map(|one| tokio::spawn(write_until(one, stopped.clone())));
    let read = [b_reader, a_reader].map(|one| tokio::spawn(read_pattern(one)));
    move_it(&a_migrator, &b_migrator).await;
    stopped.store(true, Ordering::Relaxed);
    for (written, read) in written.into_iter().zip(read) {
        let both = async { (written.await.unwrap(), read.await.unwrap()) };
        let both = tokio::time::timeout(Duration::from_secs(60), both).await;
        let (written, read) = both.expect("the session hangs");
        assert_eq!(written, read);
        assert!(read > 1_000_000, "only {read} bytes");
    }
}

async fn go_on(a_migrator: &Migrator, b_migrator: &Migrator) {
    let (to, heard) = next_path().await;
    let follow = async { b_migrator.follow(heard.await).await };
    let (led, followed) = tokio::join!(a_migrator.lead(to, &HELLO), follow);
    led.unwrap();
    followed.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_moves_under_load_and_no_byte_is_lost_or_repeated() {
    under_load(async |a_migrator, b_migrator| {
        for _ in 0..20 {
            go_on(a_migrator, b_migrator).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_that_are_begun_at_once_are_made_one_after_the_other() {
    under_load(async |a_migrator, b_migrator| {
        for _ in 0..10 {
            let moves = [(); 3].map(|()| go_on(a_migrator, b_migrator));
            let [one, two, three] = moves;
            tokio::join!(one, two, three);
        }
    })
    .await;
}

/// The other side has agreed to it and cannot know, whether the path is closed then
/// or merely silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_is_given_up_does_not_stand_in_the_way_of_the_next() {
    under_load(async |a_migrator, b_migrator| {
        let mut silent = Vec::new();
        for closed in [true, false].repeat(6) {
            let (mut to, heard) = next_path().await;
            let turn = a_migrator.turn().await.unwrap();
            let give_up = async {
                to.write_all(&HELLO.encode()).await.unwrap();
                assert_eq!(to.read_u8().await.unwrap(), Hello::READY);
                silent.extend((!closed).then_some(to));
            };
            let follow = async { b_migrator.follow(heard.await).await };
            tokio::join!(give_up, follow).1.unwrap();
            drop(turn);
            go_on(a_migrator, b_migrator).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_at_rest_moves_and_leaves_its_old_path() {
    let (a, b) = streams().await;
    let [(mut a, a_migrator), (mut b, b_migrator)] = sessions(a, b);
    a.write_all(b"before").await.unwrap();
    let (to, heard) = next_path().await;
    let follow = async { b_migrator.follow(heard.await).await };
    let (led, followed) = tokio::join!(a_migrator.lead(to, &HELLO), follow);
    led.unwrap();
    followed.unwrap();
    a.write_all(b" and after").await.unwrap();
    let mut heard = [0; 16];
    b.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"before and after");
    b.write_all(b"well").await.unwrap();
    b.shutdown().await.unwrap();
    let mut answer = Vec::new();
    a.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"well");
}

#[tokio::test]
async fn a_path_that_breaks_before_it_is_agreed_on_changes_nothing() {
    let (a, b) = streams().await;
    let [(mut a, a_migrator), (mut b, b_migrator)] = sessions(a, b);
    let (to, heard) = next_path().await;
    let hang_up = async { drop(heard.await) };
    let (led, ()) = tokio::join!(a_migrator.lead(to, &HELLO), hang_up);
    led.unwrap_err();
    drop(b_migrator);
    a.write_all(b"still here").await.unwrap();
    a.shutdown().await.unwrap();
    let mut heard = Vec::new();
    b.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"still here");
}

#[tokio::test]
async fn a_session_that_has_ended_ends_on_the_next_path_too() {
    let (a, b) = streams().await;
    let [(mut a, a_migrator), (mut b, b_migrator)] = sessions(a, b);
    a.write_all(b"last words").await.unwrap();
    a.shutdown().await.unwrap();
    let (to, heard) = next_path().await;
    let follow = async { b_migrator.follow(heard.await).await };
    let (led, followed) = tokio::join!(a_migrator.lead(to, &HELLO), follow);
    led.unwrap();
    followed.unwrap();
    let mut heard = Vec::new();
    b.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"last words");
}
