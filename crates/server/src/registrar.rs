//! The task that owns the registry: everything that concerns more than one
//! connection passes through its inbox, in one order.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use pinhole_proto::frame::{self, FrameKind};
use pinhole_proto::key::PeerKey;
use pinhole_proto::registry::{Action, LogIn, Registry, RelayId, SessionId};
use pinhole_proto::rendezvous::{ClientMessage, Refusal, RelayToken, ServerMessage};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;
use tracing::{debug, error, info};

use crate::claims::{Claim, Claims, Clerk};
use crate::connection::Half;

/// An encoded frame, shared by all who receive it.
pub(crate) type Frame = Arc<[u8]>;

/// Inputs that may wait; connections that bring more wait themselves.
const INBOX_INPUTS: usize = 1024;
/// Frames that may wait for one client. A client further behind does not read.
pub(crate) const OUTGOING_FRAMES: usize = 1024;

/// What connections and the storage tell the registrar.
#[derive(Debug)]
pub(crate) enum Input {
    LogIn {
        session: SessionId,
        log_in: LogIn,
        outgoing: mpsc::Sender<Frame>,
    },
    Claimed {
        session: SessionId,
        owner: Result<PeerKey, Refusal>,
    },
    Message {
        session: SessionId,
        message: ClientMessage,
    },
    Disconnected {
        session: SessionId,
    },
    Observation {
        key: PeerKey,
        address: IpAddr,
    },
    ObservationEnded {
        key: PeerKey,
    },
    Relay {
        relay: RelayId,
        key: PeerKey,
        token: RelayToken,
        verdict: oneshot::Sender<Verdict>,
    },
    RelayDisconnected {
        relay: RelayId,
    },
    RelayEnded {
        keys: [PeerKey; 2],
        reason: Refusal,
    },
}

/// What becomes of a relay connection.
#[derive(Debug)]
pub(crate) enum Verdict {
    Refused(Refusal),
    /// Takes the other side's connection and passes bytes between the two.
    First(oneshot::Receiver<Half>),
    /// Gives its connection away.
    Second(oneshot::Sender<Half>),
}

/// Starts the registrar and the thread that owns the names. Both end when
/// `stopping` becomes true.
pub(crate) fn start(
    (claims, clerk): (Claims, Clerk),
    registry: Registry,
    stopping: watch::Receiver<bool>,
) -> (mpsc::Sender<Input>, impl Future<Output = ()>) {
    let (inbox, inputs) = mpsc::channel(INBOX_INPUTS);
    let answers = inbox.clone();
    let storage = tokio::task::spawn_blocking(move || clerk.run(&answers));
    let registrar = tokio::spawn(Registrar::new(registry, claims).run(inputs, stopping));
    let ended = async {
        for ended in [registrar.await, storage.await] {
            if let Err(error) = ended {
                error!("a task of the server failed: {error}");
            }
        }
    };
    (inbox, ended)
}

struct Registrar {
    registry: Registry,
    claims: Claims,
    outgoing: BTreeMap<SessionId, mpsc::Sender<Frame>>,
    verdicts: BTreeMap<RelayId, oneshot::Sender<Verdict>>,
    random: SystemRandom,
}

impl Registrar {
    fn new(registry: Registry, claims: Claims) -> Self {
        Self {
            registry,
            claims,
            outgoing: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            random: SystemRandom::new(),
        }
    }

    async fn run(mut self, mut inputs: mpsc::Receiver<Input>, mut stopping: watch::Receiver<bool>) {
        loop {
            let due = self.registry.poll_timeout();
            let timeout = async {
                match due {
                    Some(at) => sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                Some(input) = inputs.recv() => self.handle(input),
                () = timeout => self.registry.handle_timeout(Instant::now()),
                _ = stopping.changed() => break,
            }
            self.act();
        }
        self.registry.handle_shutdown();
        self.act();
    }

    fn handle(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::LogIn {
                session,
                log_in,
                outgoing,
            } => {
                self.outgoing.insert(session, outgoing);
                self.registry.handle_log_in(now, session, log_in);
            }
            Input::Claimed { session, owner } => self.registry.handle_claim(now, session, owner),
            Input::Message { session, message } => match self.fresh_token() {
                Ok(token) => self.registry.handle_message(now, session, message, token),
                Err(_) => {
                    error!("no random numbers to be had from the system");
                    self.drop_session(session);
                }
            },
            Input::Disconnected { session } => self.drop_session(session),
            Input::Observation { key, address } => self.registry.handle_observation(key, address),
            Input::ObservationEnded { key } => self.registry.handle_observation_ended(key),
            Input::Relay {
                relay,
                key,
                token,
                verdict,
            } => {
                self.verdicts.insert(relay, verdict);
                self.registry.handle_relay(now, relay, key, token);
            }
            Input::RelayDisconnected { relay } => self.drop_relay(relay),
            Input::RelayEnded { keys, reason } => self.registry.handle_relay_ended(keys, reason),
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.registry.poll_action() {
            match action {
                Action::ClaimName {
                    session,
                    name,
                    key,
                    address,
                } => self.claim(Claim {
                    session,
                    name,
                    key,
                    address,
                }),
                Action::Send { to, message } => self.send(&to, &message),
                Action::Close { session, refusal } => self.close(session, refusal),
                Action::PairRelay { first, second } => self.pair(first, second),
                Action::CloseRelay { relay, refusal } => {
                    self.tell(relay, Verdict::Refused(refusal));
                }
            }
        }
    }

    fn claim(&mut self, claim: Claim) {
        let session = claim.session;
        info!(name = %claim.name, key = %claim.key.fingerprint(), "login");
        if let Err(refusal) = self.claims.ask(claim) {
            let now = Instant::now();
            self.registry.handle_claim(now, session, Err(refusal));
        }
    }

    fn send(&mut self, to: &[SessionId], message: &ServerMessage) {
        let Some(frame) = encoded(message) else {
            return;
        };
        for &session in to {
            let outgoing = self.outgoing.get(&session);
            if outgoing.is_some_and(|outgoing| outgoing.try_send(frame.clone()).is_err()) {
                debug!(?session, "does not read, or is gone");
                self.drop_session(session);
            }
        }
    }

    /// The connection ends when its queue does.
    fn close(&mut self, session: SessionId, refusal: Option<Refusal>) {
        debug!(?session, ?refusal, "closing");
        let outgoing = self.outgoing.remove(&session);
        let frame = refusal.and_then(|reason| encoded(&ServerMessage::Refused { reason }));
        if let (Some(outgoing), Some(frame)) = (outgoing, frame)
            && outgoing.try_send(frame).is_err()
        {
            debug!(?session, "could not be told why it is closed");
        }
    }

    fn pair(&mut self, first: RelayId, second: RelayId) {
        let (give, take) = oneshot::channel();
        self.tell(first, Verdict::First(take));
        self.tell(second, Verdict::Second(give));
    }

    /// A side that is gone learns nothing; the other sees its half of the
    /// exchange dropped.
    fn tell(&mut self, relay: RelayId, verdict: Verdict) {
        if let Some(waiting) = self.verdicts.remove(&relay)
            && waiting.send(verdict).is_err()
        {
            debug!(?relay, "left before it was paired");
        }
    }

    fn drop_session(&mut self, session: SessionId) {
        self.outgoing.remove(&session);
        self.registry.handle_disconnected(session);
    }

    fn drop_relay(&mut self, relay: RelayId) {
        self.verdicts.remove(&relay);
        self.registry.handle_relay_disconnected(relay);
    }

    fn fresh_token(&self) -> Result<RelayToken, ring::error::Unspecified> {
        let mut bytes = [0; 32];
        self.random.fill(&mut bytes)?;
        Ok(RelayToken::from_random(bytes))
    }
}

/// `None`, with a word in the log, for a message that no frame holds. The
/// registry keeps every page within the limits, so this is a defect.
pub(crate) fn encoded(message: &ServerMessage) -> Option<Frame> {
    let frame = frame::encode(FrameKind::Server, message);
    frame
        .inspect_err(|error| error!("a message to a client cannot be sent: {error}"))
        .ok()
        .map(Frame::from)
}
