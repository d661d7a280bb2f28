//! The task that owns the registry. Everything that concerns more than one connection
//! passes through its inbox, in one order.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use pinhole_proto::candidate::is_global;
use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::recovery::KeyHistory;
use pinhole_proto::registry::{Action, Inviter, Registry, RelayId, SessionId};
use pinhole_proto::rendezvous::{Refusal, RelayToken, ServerMessage};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;
use tracing::{debug, error, info, warn};

use crate::admission::{AdmissionControl, ConnectionSlot};
use crate::backlog::{Backlog, Backlogs, QueuedFrame, SharedFrame, encoded};
use crate::context::Phase;
use crate::inbox::{KeyNews, RegistrarInput, RelayDecision};
use crate::log::ClientLog;
use crate::metrics::Metrics;
use crate::name_claims::{ClaimQueue, KnownKey, NameClaim, NameWorker, OnlineName};
use crate::nodes::OpenLinks;

/// How many inputs may wait. Connections that bring more wait themselves.
const INBOX_INPUTS: usize = 1024;
/// How many frames may wait for one client. A client further behind does not read.
pub(crate) const OUTGOING_FRAMES: usize = 1024;

/// What the registrar uses beside the registry.
pub(crate) struct RegistrarResources {
    pub(crate) claims: ClaimQueue,
    pub(crate) admission: Arc<AdmissionControl>,
    pub(crate) log: Arc<ClientLog>,
    pub(crate) backlogs: Backlogs,
    pub(crate) metrics: Arc<Metrics>,
}

/// Starts the registrar and the thread that owns the names. Both end when
/// the server stops serving.
pub(crate) fn start(
    registry: Registry,
    resources: RegistrarResources,
    name_worker: NameWorker,
    phase: watch::Receiver<Phase>,
) -> (mpsc::Sender<RegistrarInput>, impl Future<Output = ()>) {
    let (inbox, inputs) = mpsc::channel(INBOX_INPUTS);
    let answers = inbox.clone();
    let runtime = Handle::current();
    // SQLite blocks its thread.
    let storage = move || runtime.block_on(name_worker.run(&answers));
    let storage = tokio::task::spawn_blocking(storage);
    let registrar = Registrar {
        registry,
        links: OpenLinks::new(resources.metrics.nodes.clone()),
        resources,
        sessions: BTreeMap::new(),
        relays: BTreeMap::new(),
        has_warned: false,
        random: SystemRandom::new(),
    };
    let registrar = tokio::spawn(registrar.run(inputs, phase));
    let ended = async {
        for ended in [registrar.await, storage.await] {
            if let Err(error) = ended {
                error!("a task of the server failed: {error}");
            }
        }
    };
    (inbox, ended)
}

/// A control connection.
struct ControlSession {
    name: PeerName,
    key: PeerKey,
    observed: SocketAddr,
    is_online: bool,
    outgoing: mpsc::Sender<QueuedFrame>,
    backlog: Arc<Backlog>,
}

impl ControlSession {
    /// Queues the frame. Returns false if the client does not read or is gone.
    fn send(&self, frame: &SharedFrame, is_shared: bool) -> bool {
        let queued = self.backlog.queued(frame, is_shared);
        self.outgoing.try_send(queued).is_ok()
    }
}

/// A relay connection that waits for a decision.
struct WaitingRelay {
    connection: Arc<ConnectionSlot>,
    verdict: oneshot::Sender<RelayDecision>,
}

struct Registrar {
    registry: Registry,
    resources: RegistrarResources,
    sessions: BTreeMap<SessionId, ControlSession>,
    relays: BTreeMap<RelayId, WaitingRelay>,
    links: OpenLinks,
    /// The operator was warned about a proxy.
    has_warned: bool,
    random: SystemRandom,
}

impl Registrar {
    async fn run(
        mut self,
        mut inputs: mpsc::Receiver<RegistrarInput>,
        mut phase: watch::Receiver<Phase>,
    ) {
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
                _ = phase.changed() => break,
            }
            self.act();
        }
        self.registry.handle_shutdown();
        self.act();
    }

    fn handle(&mut self, input: RegistrarInput) {
        let now = Instant::now();
        match input {
            RegistrarInput::LogIn {
                session,
                log_in,
                outgoing,
                backlog,
            } => {
                let new = ControlSession {
                    name: log_in.name.clone(),
                    key: log_in.key,
                    observed: log_in.observed,
                    is_online: false,
                    outgoing,
                    backlog,
                };
                self.sessions.insert(session, new);
                self.registry.handle_log_in(session, log_in);
            }
            RegistrarInput::Claimed { session, owner } => {
                self.registry.handle_claim(now, session, owner);
            }
            RegistrarInput::Health { reply } => self.resources.claims.check(reply),
            RegistrarInput::NameLimits(limits) => self.resources.claims.limit(limits),
            RegistrarInput::Key(news) => self.handle_key(news),
            RegistrarInput::NamesChanged => self.review_names(),
            RegistrarInput::NamesLost { sessions } => {
                for session in sessions {
                    self.registry.handle_name_lost(session);
                }
            }
            RegistrarInput::Message { session, message } => match self.fresh_token() {
                Ok(token) => self.registry.handle_message(now, session, message, token),
                Err(_) => {
                    error!("no random numbers to be had from the system");
                    self.drop_session(session);
                }
            },
            RegistrarInput::Evicted { session } => self.registry.handle_evicted(session),
            RegistrarInput::Disconnected { session } => self.drop_session(session),
            RegistrarInput::Observation { key, address } => {
                self.registry.handle_observation(key, address);
            }
            RegistrarInput::ObservationEnded { key } => self.registry.handle_observation_ended(key),
            RegistrarInput::Relay {
                relay,
                key,
                token,
                connection,
                verdict,
            } => {
                let waiting = WaitingRelay {
                    connection,
                    verdict,
                };
                self.relays.insert(relay, waiting);
                self.registry.handle_relay(now, relay, key, token);
            }
            RegistrarInput::RelayDisconnected { relay } => self.drop_relay(relay),
            RegistrarInput::RelayEnded { keys, reason } => {
                self.registry.handle_relay_ended(keys, reason);
            }
            RegistrarInput::Node { link, event } => {
                self.links.handle(&mut self.registry, link, event);
            }
        }
    }

    fn handle_key(&mut self, news: KeyNews) {
        match news {
            KeyNews::Certificate {
                session,
                certificate,
            } => self.registry.handle_certificate(session, *certificate),
            KeyNews::Succeeded { key } => self.registry.handle_key_ended(key),
            KeyNews::Revoked(names) => self.registry.handle_revocations(names),
            KeyNews::History { session, history } => {
                self.registry.handle_key_history(session, *history);
            }
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
                    is_known,
                    recovery,
                } => self.claim(NameClaim {
                    session,
                    name,
                    key,
                    address,
                    is_known,
                    recovery,
                }),
                Action::FindKeyHistory { session, name, key } => {
                    self.find_history(KnownKey { session, name, key });
                }
                Action::Send { to, message } => self.send(&to, &message),
                Action::Close { session, refusal } => self.close(session, refusal),
                Action::HoldRelay { relay, inviter } => {
                    self.charge(relay, inviter);
                }
                Action::PairRelay {
                    first,
                    second,
                    inviter,
                } => self.pair(first, second, inviter),
                Action::SendToNodes { to, message } => {
                    self.links.send(&mut self.registry, &to, &message);
                }
                Action::CloseLink { node } => self.links.close(node),
                Action::CloseRelay { relay, refusal } => {
                    self.tell(relay, RelayDecision::Refused(refusal));
                }
            }
        }
    }

    /// Asks whether those who are online still have their names.
    fn review_names(&self) {
        let online = self.sessions.iter().filter(|(_, it)| it.is_online);
        let online = online.map(|(&session, it)| OnlineName {
            session,
            name: it.name.clone(),
            key: it.key,
        });
        self.resources.claims.review(online.collect());
    }

    fn claim(&mut self, claim: NameClaim) {
        let session = claim.session;
        if let Err(refusal) = self.resources.claims.ask(claim) {
            let now = Instant::now();
            self.registry.handle_claim(now, session, Err(refusal));
        }
    }

    /// Nothing is known while too many ask.
    fn find_history(&mut self, known: KnownKey) {
        if let Err(KnownKey { session, name, key }) = self.resources.claims.ask_history(known) {
            let unknown = KeyHistory::unknown(name, key);
            self.registry.handle_key_history(session, unknown);
        }
    }

    fn send(&mut self, to: &[SessionId], message: &ServerMessage) {
        let Some(frame) = encoded(message) else {
            return;
        };
        self.resources.metrics.sent(message, to.len() as u64);
        if matches!(message, ServerMessage::LoggedIn { .. }) {
            self.note_logins(to);
        }
        for &id in to {
            let Some(session) = self.sessions.get(&id) else {
                continue;
            };
            if !session.send(&frame, to.len() > 1) {
                debug!(session = ?id, "does not read, or is gone");
                self.drop_session(id);
            }
        }
        if self.resources.backlogs.are_too_long() {
            self.cut_longest_backlog();
        }
    }

    fn cut_longest_backlog(&mut self) {
        let longest = self
            .sessions
            .iter()
            .max_by_key(|(_, it)| it.backlog.bytes());
        if let Some((&id, session)) = longest {
            session.backlog.cut();
            self.drop_session(id);
        }
    }

    fn note_logins(&mut self, to: &[SessionId]) {
        for id in to {
            let Some(session) = self.sessions.get_mut(id) else {
                continue;
            };
            session.is_online = true;
            if self.resources.log.admits(session.observed.ip()) {
                let (name, key) = (&session.name, session.key.fingerprint());
                let observed = self.resources.log.shown(session.observed);
                info!(%name, %key, observed, "logged in");
            }
            let (key, address) = (session.key, session.observed.ip());
            self.look_for_a_proxy(key, address);
        }
    }

    /// Warns when several people come from one private address. People on the internet do
    /// not, so it belongs to a proxy in front of the server.
    fn look_for_a_proxy(&mut self, key: PeerKey, address: IpAddr) {
        if self.has_warned || is_global(address) || address.is_loopback() {
            return;
        }
        let is_other = |it: &ControlSession| it.key != key && it.is_online;
        let mut others = self.sessions.values().filter(|it| is_other(it));
        if others.any(|it| it.observed.ip() == address) {
            self.has_warned = true;
            warn!(
                "several people seem to come from {address}, which is a private address. If a \
                 proxy or a container's network stands in front of this server, it cannot see \
                 where people are: they connect directly less often, and one can use up what \
                 everybody may take. Have the proxy speak the PROXY protocol, and start with \
                 --proxy-protocol {address}"
            );
        }
    }

    /// The connection ends when its queue does.
    fn close(&mut self, id: SessionId, refusal: Option<Refusal>) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.note_end(&session, refusal);
        if let Some(reason) = refusal {
            self.resources.metrics.refused(reason);
            if !session.is_online {
                self.resources.metrics.login_refused(reason);
            }
        }
        let frame = refusal.and_then(|reason| encoded(&ServerMessage::Refused { reason }));
        if let Some(frame) = frame
            && !session.send(&frame, false)
        {
            debug!(session = ?id, "could not be told why it is closed");
        }
    }

    fn note_end(&self, session: &ControlSession, refusal: Option<Refusal>) {
        if !self.resources.log.admits(session.observed.ip()) {
            return;
        }
        let (name, key) = (&session.name, session.key.fingerprint());
        let observed = self.resources.log.shown(session.observed);
        match (session.is_online, refusal) {
            (false, Some(reason)) => info!(%name, %key, observed, "login refused: {reason}"),
            (false, None) => info!(%name, %key, observed, "gone before it was logged in"),
            (true, Some(reason)) => info!(%name, %key, observed, "logged out: {reason}"),
            (true, None) => info!(%name, %key, observed, "gone"),
        }
    }

    /// Charges the connection to the inviter. Returns whether the inviter's budget has
    /// room for it; otherwise nobody is paired by it.
    fn charge(&mut self, relay: RelayId, inviter: Inviter) -> bool {
        let Some(waiting) = self.relays.get(&relay) else {
            return true;
        };
        let Inviter { key, address } = inviter;
        let charged = self
            .resources
            .admission
            .charge(&waiting.connection, key, address);
        if charged.is_err() {
            self.tell(relay, RelayDecision::Refused(Refusal::Limited));
            self.registry.handle_relay_disconnected(relay);
        }
        charged.is_ok()
    }

    fn pair(&mut self, first: RelayId, second: RelayId, inviter: Inviter) {
        if !self.charge(second, inviter) {
            return self.tell(first, RelayDecision::Refused(Refusal::Limited));
        }
        let (give, take) = oneshot::channel();
        self.tell(first, RelayDecision::First(take, inviter));
        self.tell(second, RelayDecision::Second(give));
    }

    /// A side that is gone learns nothing. The other side sees its half of the exchange
    /// dropped.
    fn tell(&mut self, relay: RelayId, verdict: RelayDecision) {
        if let Some(waiting) = self.relays.remove(&relay)
            && waiting.verdict.send(verdict).is_err()
        {
            debug!(?relay, "left before it was paired");
        }
    }

    fn drop_session(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.note_end(&session, None);
        }
        self.registry.handle_disconnected(id);
    }

    fn drop_relay(&mut self, relay: RelayId) {
        self.relays.remove(&relay);
        self.registry.handle_relay_disconnected(relay);
    }

    fn fresh_token(&self) -> Result<RelayToken, ring::error::Unspecified> {
        let mut bytes = [0; 32];
        self.random.fill(&mut bytes)?;
        Ok(RelayToken::from_random(bytes))
    }
}
