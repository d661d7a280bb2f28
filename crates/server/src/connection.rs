//! One connection, from its TLS handshake to its end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pinhole_proto::frame::{Decoder, FrameError, FrameKind};
use pinhole_proto::key::PeerKey;
use pinhole_proto::registry::{LogIn, RelayId, SessionId};
use pinhole_proto::rendezvous::{ClientMessage, Refusal, RelayToken, ServerMessage};
use pinhole_proto::tls::{ALPN_RENDEZVOUS, Unproven, proven_key};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use crate::admission::{Admission, Admitted, Handshaking, Permit};
use crate::limits::Limits;
use crate::probe::{Asker, Prober};
use crate::registrar::{Frame, Input, OUTGOING_FRAMES, Verdict, encoded};
use crate::relay::{CarryError, Relay, Side};

type TlsStream = tokio_rustls::server::TlsStream<TcpStream>;

const READ_BYTES: usize = 4 * 1024;

/// What all connections share.
pub(crate) struct Context {
    pub(crate) tls: TlsAcceptor,
    pub(crate) limits: Limits,
    pub(crate) admission: Admission,
    pub(crate) prober: Prober,
    pub(crate) relay: Arc<Relay>,
    pub(crate) registrar: mpsc::Sender<Input>,
    /// Becomes true when the server goes down.
    pub(crate) stopping: watch::Receiver<bool>,
    /// The number of the next connection that needs one.
    pub(crate) next_id: AtomicU64,
}

impl Context {
    fn fresh_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Completes when the server goes down.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping.clone();
        // An error says that the sender is gone: the server is, too.
        drop(stopping.wait_for(|&stopping| stopping).await);
    }
}

/// Where a connection comes from, and what it came to.
pub(crate) struct Arrival {
    pub(crate) observed: SocketAddr,
    pub(crate) place: Place,
}

/// What a listener's clients are told of the others.
#[derive(Clone)]
pub(crate) struct Place {
    /// The ports listened on at this address, its own first.
    pub(crate) observer_ports: Vec<u16>,
    /// Another address that is listened on.
    pub(crate) other_address: Option<IpAddr>,
}

/// What a connection holds as long as its socket lives, whichever task has it.
#[derive(Debug)]
pub(crate) struct Held {
    _admitted: Admitted,
    _of_key: Permit<PeerKey>,
}

/// A relay connection, one of the two of a pair.
#[derive(Debug)]
pub(crate) struct Half {
    stream: TlsStream,
    side: Side,
    _held: Held,
}

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("did not authenticate in time")]
    Slow,
    #[error("does not read")]
    DoesNotRead,
    #[error("{0}")]
    Unproven(#[from] Unproven),
    #[error("closed before its first message")]
    Empty,
    #[error("began with {0}, which is no beginning")]
    FirstMessage(&'static str),
    #[error("sent more than it may")]
    Unexpected,
    #[error("the server is going down")]
    Stopping,
}

/// Serves `tcp` until either side ends it.
pub(crate) async fn serve(
    context: &Context,
    tcp: TcpStream,
    arrival: Arrival,
    admitted: Admitted,
    handshaking: Handshaking,
) {
    let observed = arrival.observed;
    let deadline = Instant::now() + context.limits.authenticate_timeout;
    // Silence costs next to nothing: all that TLS needs is allocated only
    // after the first byte.
    let mut byte = [0];
    let spoken = tokio::select! {
        spoken = timeout_at(deadline, tcp.peek(&mut byte)) => spoken,
        () = context.stopped() => return,
    };
    let ended = match spoken {
        Ok(Ok(0)) => Err(ConnectionError::Empty),
        Ok(Ok(_)) => {
            let speaking = serve_speaking(context, tcp, arrival, (admitted, handshaking), deadline);
            Box::pin(speaking).await
        }
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(ConnectionError::Slow),
    };
    if let Err(error) = ended {
        debug!(%observed, "connection ended: {error}");
    }
}

async fn serve_speaking(
    context: &Context,
    tcp: TcpStream,
    arrival: Arrival,
    (admitted, handshaking): (Admitted, Handshaking),
    deadline: Instant,
) -> Result<(), ConnectionError> {
    let opened = tokio::select! {
        opened = timeout_at(deadline, open(&context.tls, tcp)) => opened,
        () = context.stopped() => return Err(ConnectionError::Stopping),
    };
    let (stream, decoder, key, first) = opened.map_err(|_| ConnectionError::Slow)??;
    drop(handshaking);
    let Some(of_key) = context.admission.admit_key(key) else {
        return refuse(context, stream, Refusal::Limited).await;
    };
    let held = Held {
        _admitted: admitted,
        _of_key: of_key,
    };
    match first {
        ClientMessage::LogIn { .. } if !context.admission.admit_login(arrival.observed.ip()) => {
            refuse(context, stream, Refusal::Limited).await
        }
        ClientMessage::LogIn { version, name } => {
            let log_in = LogIn {
                key,
                observed: arrival.observed,
                observer_ports: arrival.place.observer_ports,
                version,
                name,
            };
            control(context, stream, decoder, log_in).await
        }
        ClientMessage::Observe => {
            let asker = Asker {
                key,
                observed: arrival.observed,
                came_to: stream.get_ref().0.local_addr()?.ip().to_canonical(),
                other_address: arrival.place.other_address,
            };
            let ports = arrival.place.observer_ports;
            observe(context, stream, decoder, (asker, ports), held).await
        }
        ClientMessage::Relay { token } => {
            let address = arrival.observed.ip();
            let side = Side { key, address };
            let half = Half {
                stream,
                side,
                _held: held,
            };
            relay(context, half, decoder, token).await
        }
        ClientMessage::Probe { .. } => Err(ConnectionError::FirstMessage("probe")),
        ClientMessage::Introduce { .. } => Err(ConnectionError::FirstMessage("introduce")),
        ClientMessage::Answer { .. } => Err(ConnectionError::FirstMessage("answer")),
        ClientMessage::Refuse { .. } => Err(ConnectionError::FirstMessage("refuse")),
        ClientMessage::Ping { .. } => Err(ConnectionError::FirstMessage("ping")),
        ClientMessage::Pong { .. } => Err(ConnectionError::FirstMessage("pong")),
    }
}

async fn open(
    tls: &TlsAcceptor,
    tcp: TcpStream,
) -> Result<(TlsStream, Decoder, PeerKey, ClientMessage), ConnectionError> {
    let mut stream = tls.accept(tcp).await?;
    let (_, session) = stream.get_ref();
    let key = proven_key(session, ALPN_RENDEZVOUS)?;
    let mut decoder = Decoder::new(FrameKind::Client);
    let first = read_message(&mut stream, &mut decoder).await?;
    let first = first.ok_or(ConnectionError::Empty)?;
    Ok((stream, decoder, key, first))
}

/// The next message, or `None` when the client hung up between two.
async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    decoder: &mut Decoder,
) -> Result<Option<ClientMessage>, ConnectionError> {
    let mut buffer = [0; READ_BYTES];
    loop {
        if let Some(message) = decoder.next_message()? {
            return Ok(Some(message));
        }
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(None);
        }
        decoder.feed(buffer.get(..read).unwrap_or_default());
    }
}

async fn write_frame(
    context: &Context,
    stream: &mut (impl AsyncWrite + Unpin),
    frame: &[u8],
) -> Result<(), ConnectionError> {
    let write = async {
        stream.write_all(frame).await?;
        stream.flush().await
    };
    let written = timeout(context.limits.write_timeout, write).await;
    Ok(written.map_err(|_| ConnectionError::DoesNotRead)??)
}

async fn write_message(
    context: &Context,
    stream: &mut TlsStream,
    message: &ServerMessage,
) -> Result<(), ConnectionError> {
    match encoded(message) {
        Some(frame) => write_frame(context, stream, &frame).await,
        None => Ok(()),
    }
}

async fn refuse(
    context: &Context,
    mut stream: TlsStream,
    reason: Refusal,
) -> Result<(), ConnectionError> {
    write_message(context, &mut stream, &ServerMessage::Refused { reason }).await?;
    stream.shutdown().await?;
    linger(context, &mut stream).await;
    Ok(())
}

/// Reads until the client hangs up: closing with unread bytes would reset the
/// connection, and the last message could be lost with it.
async fn linger(context: &Context, stream: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = [0; READ_BYTES];
    let drain = async { while matches!(stream.read(&mut buffer).await, Ok(1..)) {} };
    // Either way the connection ends now.
    let _: Result<(), _> = timeout(context.limits.linger_timeout, drain).await;
}

async fn tell(context: &Context, input: Input) -> Result<(), ConnectionError> {
    let told = context.registrar.send(input).await;
    told.map_err(|_| ConnectionError::Stopping)
}

async fn control(
    context: &Context,
    stream: TlsStream,
    mut decoder: Decoder,
    log_in: LogIn,
) -> Result<(), ConnectionError> {
    let (outgoing, mut frames) = mpsc::channel(OUTGOING_FRAMES);
    let session = SessionId(context.fresh_id());
    let input = Input::LogIn {
        session,
        log_in,
        outgoing,
    };
    tell(context, input).await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let ended = tokio::select! {
        ended = read_messages(context, &mut reader, &mut decoder, session) => ended,
        ended = write_frames(context, &mut writer, &mut frames) => {
            if ended.is_ok() {
                linger(context, &mut reader).await;
            }
            ended
        }
    };
    // The registrar is gone only when it has forgotten all sessions.
    let _: Result<(), _> = tell(context, Input::Disconnected { session }).await;
    ended
}

async fn read_messages(
    context: &Context,
    reader: &mut (impl AsyncRead + Unpin),
    decoder: &mut Decoder,
    session: SessionId,
) -> Result<(), ConnectionError> {
    while let Some(message) = read_message(reader, decoder).await? {
        let told = tell(context, Input::Message { session, message }).await;
        if told.is_err() {
            // The server goes down: why is still to be written.
            std::future::pending::<()>().await;
        }
    }
    Ok(())
}

async fn write_frames(
    context: &Context,
    writer: &mut (impl AsyncWrite + Unpin),
    frames: &mut mpsc::Receiver<Frame>,
) -> Result<(), ConnectionError> {
    while let Some(frame) = frames.recv().await {
        write_frame(context, writer, &frame).await?;
    }
    let shutdown = timeout(context.limits.write_timeout, writer.shutdown()).await;
    Ok(shutdown.map_err(|_| ConnectionError::DoesNotRead)??)
}

/// Stays open as long as the client likes: the NAT's mapping lives with it.
async fn observe(
    context: &Context,
    mut stream: TlsStream,
    mut decoder: Decoder,
    (asker, observer_ports): (Asker, Vec<u16>),
    held: Held,
) -> Result<(), ConnectionError> {
    // First the registrar: the client may use the address as soon as it has it.
    let Asker { key, observed, .. } = asker;
    let address = observed.ip();
    tell(context, Input::Observation { key, address }).await?;
    let told = ServerMessage::Observed {
        address: observed,
        other_address: asker.other_address,
        observer_ports,
    };
    let ended = match write_message(context, &mut stream, &told).await {
        Ok(()) => until_token(context, &mut stream, &mut decoder, asker).await,
        Err(error) => Err(error),
    };
    // The registrar is gone only when it has forgotten all observations.
    let _: Result<(), _> = tell(context, Input::ObservationEnded { key }).await;
    match ended {
        Ok(Some(token)) => {
            let side = Side { key, address };
            let half = Half {
                stream,
                side,
                _held: held,
            };
            relay(context, half, decoder, token).await
        }
        Ok(None) => Ok(()),
        Err(ConnectionError::Stopping) => refuse(context, stream, Refusal::ShuttingDown).await,
        Err(error) => Err(error),
    }
}

/// Waits until the client hangs up, or turns its observation connection into a
/// relay connection. Before that it may ask once to be probed.
async fn until_token(
    context: &Context,
    stream: &mut TlsStream,
    decoder: &mut Decoder,
    asker: Asker,
) -> Result<Option<RelayToken>, ConnectionError> {
    let mut is_probed = false;
    loop {
        match next_wish(context, stream, decoder).await? {
            Some(ClientMessage::Relay { token }) => return Ok(Some(token)),
            Some(ClientMessage::Probe { token }) if !is_probed => {
                is_probed = true;
                let answer = tokio::select! {
                    answer = context.prober.probe(asker, token) => answer,
                    () = context.stopped() => return Err(ConnectionError::Stopping),
                };
                write_message(context, stream, &answer).await?;
            }
            Some(_) => return Err(ConnectionError::Unexpected),
            None => return Ok(None),
        }
    }
}

/// What the client says on an observation connection, or `None` when it hangs up.
async fn next_wish(
    context: &Context,
    stream: &mut TlsStream,
    decoder: &mut Decoder,
) -> Result<Option<ClientMessage>, ConnectionError> {
    // It may have come together with the one before.
    if let Some(message) = decoder.next_message()? {
        return Ok(Some(message));
    }
    // Most hang up: no buffer waits for what they might say.
    let mut byte = [0];
    let read = tokio::select! {
        read = stream.read(&mut byte) => read?,
        () = context.stopped() => return Err(ConnectionError::Stopping),
    };
    if read == 0 {
        return Ok(None);
    }
    decoder.feed(&byte);
    let message = timeout(
        context.limits.authenticate_timeout,
        Box::pin(read_message(stream, decoder)),
    );
    message.await.map_err(|_| ConnectionError::Slow)?
}

/// Returns when the client hangs up, and fails when it sends anything.
async fn wait_for_end(
    context: &Context,
    stream: &mut TlsStream,
    decoder: Decoder,
) -> Result<(), ConnectionError> {
    if !decoder.into_rest().is_empty() {
        return Err(ConnectionError::Unexpected);
    }
    let mut byte = [0];
    tokio::select! {
        read = stream.read(&mut byte) => match read? {
            0 => Ok(()),
            _ => Err(ConnectionError::Unexpected),
        },
        () = context.stopped() => Err(ConnectionError::Stopping),
    }
}

async fn relay(
    context: &Context,
    mut half: Half,
    decoder: Decoder,
    token: RelayToken,
) -> Result<(), ConnectionError> {
    let relay = RelayId(context.fresh_id());
    let (verdict, decided) = oneshot::channel();
    let input = Input::Relay {
        relay,
        key: half.side.key,
        token,
        verdict,
    };
    tell(context, input).await?;
    let verdict = tokio::select! {
        verdict = decided => verdict.map_err(|_| ConnectionError::Stopping)?,
        ended = wait_for_end(context, &mut half.stream, decoder) => {
            // The registrar is gone only when it has forgotten all relays.
            let _: Result<(), _> = tell(context, Input::RelayDisconnected { relay }).await;
            return match ended {
                Err(ConnectionError::Stopping) => {
                    refuse(context, half.stream, Refusal::ShuttingDown).await
                }
                ended => ended,
            };
        }
    };
    match verdict {
        Verdict::Refused(reason) => refuse(context, half.stream, reason).await,
        Verdict::Second(give) => {
            let given = give.send(half);
            given.map_err(|_| ConnectionError::Empty)
        }
        Verdict::First(take) => {
            let other = take.await.map_err(|_| ConnectionError::Empty)?;
            Box::pin(meet(context, half, other)).await
        }
    }
}

/// Both sides of a relay are here.
async fn meet(context: &Context, mut a: Half, mut b: Half) -> Result<(), ConnectionError> {
    let pair = match context.relay.admit([a.side, b.side]) {
        Ok(pair) => pair,
        Err(reason) => {
            let refused = tokio::join!(
                refuse(context, a.stream, reason),
                refuse(context, b.stream, reason)
            );
            return refused.0.and(refused.1);
        }
    };
    for half in [&mut a, &mut b] {
        write_message(context, &mut half.stream, &ServerMessage::RelayPaired).await?;
    }
    let carried = tokio::select! {
        carried = context.relay.carry(&pair, &mut a.stream, &mut b.stream) => carried,
        () = context.stopped() => return Err(ConnectionError::Stopping),
    };
    match carried {
        Ok(()) => Ok(()),
        Err(CarryError::Io(error)) => Err(error.into()),
        Err(CarryError::Limit(reason)) => {
            let keys = pair.keys;
            debug!(%reason, "a relay ends");
            tell(context, Input::RelayEnded { keys, reason }).await?;
            // The reason takes another way than the end: it shall be there first.
            sleep(context.limits.linger_timeout).await;
            Ok(())
        }
    }
}
