//! One connection, from its TLS handshake to its end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pinhole_budget::{ByteRate, Full};

use pinhole_proto::frame::{Decoder, FrameKind};
use pinhole_proto::key::PeerKey;
use pinhole_proto::registry::{LogIn, SessionId};
use pinhole_proto::rendezvous::{ClientMessage, Refusal, RelayToken, ServerMessage};
use pinhole_proto::tls::{ALPN_RENDEZVOUS, proven_key};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info};

use crate::admission::ConnectionSlot;
use crate::backlog::QueuedFrame;
use crate::context::{
    ConnectionError, Context, linger, read_message, refuse, tell, write_frame, write_message,
};
use crate::inbox::{RegistrarInput, RelayLeg, TlsStream};
use crate::metrics::ConnectionKind;
use crate::probe::ProbeRequest;
use crate::registrar::OUTGOING_FRAMES;
use crate::relay_pairing;
use crate::slots::Slot;
use crate::turns::Turn;

/// Waiting frames are written together, up to this size: many are short, and each write
/// costs far more than its bytes.
const WRITE_BYTES: usize = 16 * 1024;

/// The origin of a connection, and the listener that accepted it.
pub(crate) struct Arrival {
    pub(crate) observed: SocketAddr,
    /// Whether a proxy reported the address.
    pub(crate) is_proxied: bool,
    pub(crate) listener: ListenerInfo,
}

/// What a listener's clients are told about the other listeners.
#[derive(Clone)]
pub(crate) struct ListenerInfo {
    /// The ports listened on at this address, its own first.
    pub(crate) observer_ports: Vec<u16>,
    /// Another address that is listened on.
    pub(crate) other_address: Option<IpAddr>,
}

/// A client that has proven its key.
struct AuthenticatedClient {
    stream: TlsStream,
    decoder: Decoder,
    key: PeerKey,
    observed: SocketAddr,
}

impl AuthenticatedClient {
    /// Turns the connection into one that waits at the relay.
    fn into_relay_leg(self, context: &Context, connection: ConnectionSlot) -> (RelayLeg, Decoder) {
        let leg = RelayLeg {
            stream: self.stream,
            key: self.key,
            connection: Arc::new(connection),
            _counted: context.metrics.connection(ConnectionKind::Relay),
        };
        (leg, self.decoder)
    }
}

/// Serves `tcp` until either side ends it.
pub(crate) async fn serve(context: &Context, tcp: TcpStream, arrival: Arrival, silent: Slot) {
    let observed = arrival.observed;
    let deadline = Instant::now() + context.limits.authenticate_timeout;
    // A silent connection costs next to nothing: what TLS needs is allocated after the
    // first byte.
    let mut byte = [0];
    let spoken = tokio::select! {
        biased;
        // Whoever has spoken already gives way to nobody who has not.
        spoken = timeout_at(deadline, tcp.peek(&mut byte)) => spoken,
        () = context.stopped() => return,
        () = silent.evicted() => return,
    };
    let ended = match spoken {
        Ok(Ok(0)) => Err(ConnectionError::Empty),
        Ok(Ok(_)) => match context.admission.wait(observed.ip()) {
            Ok(waiting) => {
                drop(silent);
                Box::pin(serve_speaking(context, tcp, arrival, waiting, deadline)).await
            }
            Err(full) => return context.note_refused(observed, full),
        },
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(ConnectionError::Slow),
    };
    if let Err(error) = ended {
        let observed = context.log.shown(observed);
        debug!(observed, "connection ended: {error}");
    }
}

/// Waits for its turn to shake hands, and has the slot of the handshake with it.
async fn first_turn<'a>(
    context: &'a Context,
    observed: SocketAddr,
    waiting: Slot,
    deadline: Instant,
) -> Result<(Turn<'a>, Slot), ConnectionError> {
    let turn = tokio::select! {
        turn = timeout_at(deadline, context.turns.begin()) => turn,
        () = context.stopped() => return Err(ConnectionError::CutOff(Refusal::ShuttingDown)),
        () = waiting.evicted() => return Err(ConnectionError::CutOff(Refusal::Limited)),
    };
    let turn = turn.map_err(|_| ConnectionError::Slow)?;
    match context.admission.shake_hands(observed.ip()) {
        Ok(handshake) => Ok((turn, handshake)),
        Err(full) => {
            context.note_refused(observed, full);
            Err(ConnectionError::CutOff(Refusal::Limited))
        }
    }
}

async fn serve_speaking(
    context: &Context,
    tcp: TcpStream,
    arrival: Arrival,
    waiting: Slot,
    deadline: Instant,
) -> Result<(), ConnectionError> {
    let observed = arrival.observed;
    let (turn, handshake) = first_turn(context, observed, waiting, deadline).await?;
    let open = Box::pin(turn.run(open(&context.tls, tcp, observed)));
    let opened = tokio::select! {
        opened = timeout_at(deadline, open) => opened,
        () = context.stopped() => return Err(ConnectionError::CutOff(Refusal::ShuttingDown)),
        () = handshake.evicted() => return Err(ConnectionError::CutOff(Refusal::Limited)),
    };
    let (client, first) = opened.map_err(|_| ConnectionError::Slow)??;
    let came_to = client.stream.get_ref().0.local_addr()?;
    let key = client.key;
    let connection = match context.admission.connect(key, observed.ip()) {
        Ok(connection) => connection,
        // The handshake keeps its place until the client has been told, or others need it.
        Err(full) => {
            return tokio::select! {
                ended = turn_away(context, client, full) => ended,
                () = handshake.evicted() => Err(ConnectionError::CutOff(Refusal::Limited)),
            };
        }
    };
    drop(handshake);
    match first {
        ClientMessage::LogIn {
            version,
            name,
            watch,
            recovery,
        } => {
            let Some(slot) = context.admission.log_in(key, observed.ip()) else {
                let reason = "login refused: too many of it or its network";
                note(context, &client, &reason);
                context.metrics.login_refused(Refusal::Limited);
                return refuse(context, client.stream, Refusal::Limited).await;
            };
            let log_in = LogIn {
                key,
                is_known: context.admission.is_regular(key),
                observed,
                came_to: SocketAddr::new(came_to.ip().to_canonical(), came_to.port()),
                at_ms: unix_ms(),
                observer_ports: arrival.listener.observer_ports,
                version,
                name,
                watch,
                recovery,
            };
            Box::pin(control(context, client, log_in, connection, slot)).await
        }
        ClientMessage::Observe => match context.admission.observe(key, observed.ip()) {
            Ok(slot) => Box::pin(observe(context, client, arrival, connection, slot)).await,
            Err(full) => turn_away(context, client, full).await,
        },
        ClientMessage::Relay { token } => {
            let (leg, decoder) = client.into_relay_leg(context, connection);
            Box::pin(relay_pairing::relay(context, leg, decoder, token)).await
        }
        other => Err(ConnectionError::FirstMessage(type_of(&other))),
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

const fn type_of(message: &ClientMessage) -> &'static str {
    match message {
        ClientMessage::LogIn { .. } => "log_in",
        ClientMessage::Observe => "observe",
        ClientMessage::Relay { .. } => "relay",
        ClientMessage::Probe { .. } => "probe",
        ClientMessage::Introduce { .. } => "introduce",
        ClientMessage::Answer { .. } => "answer",
        ClientMessage::Refuse { .. } => "refuse",
        ClientMessage::Watch { .. } => "watch",
        ClientMessage::Unwatch { .. } => "unwatch",
        ClientMessage::KeyHistory { .. } => "key_history",
        ClientMessage::OpenCode => "open_code",
        ClientMessage::CloseCode => "close_code",
        ClientMessage::FindCode { .. } => "find_code",
        ClientMessage::Ping { .. } => "ping",
        ClientMessage::Pong { .. } => "pong",
    }
}

async fn turn_away(
    context: &Context,
    client: AuthenticatedClient,
    full: Full,
) -> Result<(), ConnectionError> {
    note(
        context,
        &client,
        &format_args!("connection refused: {}", context.log.reason(full)),
    );
    refuse(context, client.stream, Refusal::Limited).await
}

/// Logs a line about a client, unless there have been too many.
fn note(context: &Context, client: &AuthenticatedClient, what: &impl std::fmt::Display) {
    let observed = client.observed;
    if context.log.admits(observed.ip()) {
        let observed = context.log.shown(observed);
        info!(key = %client.key.fingerprint(), observed, "{what}");
    }
}

/// Shakes hands and reads the first message.
async fn open(
    tls: &TlsAcceptor,
    tcp: TcpStream,
    observed: SocketAddr,
) -> Result<(AuthenticatedClient, ClientMessage), ConnectionError> {
    let mut stream = Box::new(tls.accept(tcp).await?);
    let (_, session) = stream.get_ref();
    let key = proven_key(session, ALPN_RENDEZVOUS)?;
    let mut decoder = Decoder::new(FrameKind::Client);
    let first = read_message(&mut stream, &mut decoder).await?;
    let (first, _) = first.ok_or(ConnectionError::Empty)?;
    let client = AuthenticatedClient {
        stream,
        decoder,
        key,
        observed,
    };
    Ok((client, first))
}

async fn control(
    context: &Context,
    mut client: AuthenticatedClient,
    log_in: LogIn,
    connection: ConnectionSlot,
    slot: Slot,
) -> Result<(), ConnectionError> {
    let _counted = context.metrics.connection(ConnectionKind::Control);
    let (outgoing, mut frames) = mpsc::channel(OUTGOING_FRAMES);
    let session = SessionId(context.fresh_id());
    let backlog = context.backlogs.of_one();
    let input = RegistrarInput::LogIn {
        session,
        log_in,
        outgoing,
        backlog: Arc::clone(&backlog),
    };
    tell(context, input).await?;
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let ended = tokio::select! {
        ended = read_messages(context, &mut reader, &mut client.decoder, session) => ended,
        ended = write_frames(context, &mut writer, &mut frames) => {
            if ended.is_ok() {
                linger(context, &mut reader).await;
            }
            ended
        }
        () = give_way(context, session, &connection, &slot) => Ok(()),
        () = backlog.is_cut() => Err(ConnectionError::DoesNotRead),
    };
    // The registrar is gone only when it has forgotten all sessions.
    let _: Result<(), _> = tell(context, RegistrarInput::Disconnected { session }).await;
    ended
}

/// Closes the session, with the reason, when its connection or slot is evicted. Never
/// completes: the session's last frame ends the connection.
async fn give_way(context: &Context, session: SessionId, connection: &ConnectionSlot, slot: &Slot) {
    tokio::select! {
        () = connection.evicted() => {}
        () = slot.evicted() => {}
    }
    // The registrar is gone only when it has closed all sessions.
    let _: Result<(), _> = tell(context, RegistrarInput::Evicted { session }).await;
    std::future::pending::<()>().await;
}

async fn read_messages(
    context: &Context,
    reader: &mut (impl AsyncRead + Unpin),
    decoder: &mut Decoder,
    session: SessionId,
) -> Result<(), ConnectionError> {
    let mut rate = ByteRate::new(Some(context.limits.session_bytes_per_second));
    while let Some((message, bytes)) = read_message(reader, decoder).await? {
        let told = tell(context, RegistrarInput::Message { session, message }).await;
        if told.is_err() {
            // The server stops, and the reason is still to be written.
            std::future::pending::<()>().await;
        }
        if let Some(due) = rate.reserve(Instant::now().into_std(), bytes) {
            sleep_until(due.into()).await;
        }
    }
    Ok(())
}

async fn write_frames(
    context: &Context,
    writer: &mut (impl AsyncWrite + Unpin),
    frames: &mut mpsc::Receiver<QueuedFrame>,
) -> Result<(), ConnectionError> {
    while let Some(first) = frames.recv().await {
        match frames.try_recv() {
            Err(_) => write_frame(context, writer, &first.frame).await?,
            Ok(second) => {
                let mut many = [&*first.frame, &*second.frame].concat();
                while many.len() < WRITE_BYTES
                    && let Ok(next) = frames.try_recv()
                {
                    many.extend_from_slice(&next.frame);
                }
                write_frame(context, writer, &many).await?;
            }
        }
    }
    let shutdown = timeout(context.limits.write_timeout, writer.shutdown()).await;
    Ok(shutdown.map_err(|_| ConnectionError::DoesNotRead)??)
}

/// Stays open as long as the client likes: the NAT's mapping lives with it.
async fn observe(
    context: &Context,
    mut client: AuthenticatedClient,
    arrival: Arrival,
    connection: ConnectionSlot,
    slot: Option<Slot>,
) -> Result<(), ConnectionError> {
    let _counted = context.metrics.connection(ConnectionKind::Observation);
    let (key, observed) = (client.key, client.observed);
    let other_address = arrival.listener.other_address;
    let request = ProbeRequest {
        key,
        observed,
        came_to: client.stream.get_ref().0.local_addr()?.ip().to_canonical(),
        other_address,
        is_proxied: arrival.is_proxied,
    };
    // First the registrar: the client may use the address as soon as it has it.
    let address = observed.ip();
    tell(context, RegistrarInput::Observation { key, address }).await?;
    let told = ServerMessage::Observed {
        address: observed,
        other_address,
        observer_ports: arrival.listener.observer_ports,
    };
    let ended = match write_message(context, &mut client.stream, &told).await {
        Ok(()) => tokio::select! {
            ended = until_token(context, &mut client, request) => ended,
            reason = context.cut_off(&connection) => Err(ConnectionError::CutOff(reason)),
            () = evicted(slot.as_ref()) => Err(ConnectionError::CutOff(Refusal::Limited)),
        },
        Err(error) => Err(error),
    };
    // The registrar is gone only when it has forgotten all observations.
    let _: Result<(), _> = tell(context, RegistrarInput::ObservationEnded { key }).await;
    match ended {
        Ok(Some(token)) => {
            drop(slot);
            let (leg, decoder) = client.into_relay_leg(context, connection);
            Box::pin(relay_pairing::relay(context, leg, decoder, token)).await
        }
        Ok(None) => Ok(()),
        Err(ConnectionError::CutOff(reason)) => refuse(context, client.stream, reason).await,
        Err(error) => Err(error),
    }
}

/// Completes when the slot is evicted. Never completes without one.
async fn evicted(slot: Option<&Slot>) {
    match slot {
        Some(slot) => slot.evicted().await,
        None => std::future::pending().await,
    }
}

/// Waits until the client hangs up or turns its observation connection into a relay
/// connection. Before that it may ask once to be probed.
async fn until_token(
    context: &Context,
    client: &mut AuthenticatedClient,
    request: ProbeRequest,
) -> Result<Option<RelayToken>, ConnectionError> {
    let mut is_probed = false;
    loop {
        match next_message(context, client).await? {
            Some(ClientMessage::Relay { token }) => return Ok(Some(token)),
            Some(ClientMessage::Probe { token }) if !is_probed => {
                is_probed = true;
                let answer = context.prober.probe(request, token).await;
                write_message(context, &mut client.stream, &answer).await?;
            }
            Some(_) => return Err(ConnectionError::Unexpected),
            None => return Ok(None),
        }
    }
}

/// The next message on an observation connection, or `None` when the client hangs up.
async fn next_message(
    context: &Context,
    client: &mut AuthenticatedClient,
) -> Result<Option<ClientMessage>, ConnectionError> {
    let AuthenticatedClient {
        stream, decoder, ..
    } = client;
    // It may have arrived together with the one before.
    if let Some(message) = decoder.next_message()? {
        return Ok(Some(message));
    }
    // Most clients only hang up, so no buffer waits for what they might send.
    let mut byte = [0];
    if stream.read(&mut byte).await? == 0 {
        return Ok(None);
    }
    decoder.feed(&byte);
    let message = timeout(
        context.limits.authenticate_timeout,
        Box::pin(read_message(stream, decoder)),
    );
    let message = message.await.map_err(|_| ConnectionError::Slow)??;
    Ok(message.map(|(message, _)| message))
}
