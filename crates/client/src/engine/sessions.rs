//! Sessions with peers, as the state asks for them: connecting, answering invitations,
//! and what comes through the exchange that each session carries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pinhole_net::{
    Accepted, ConnectError, Connector, Credential, Invitation, Nearby, NetworkWatch, PathPolicy,
    PeerIdentity, RefuseReason, Report, Session, SessionHandle, SessionPath, is_own_address,
};
use pinhole_transfer::{Exchange, ExchangeEvent, Owner, Selection, Side};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::{Engine, Input};
use crate::explain;
use crate::failure::Failure;
use crate::invitation::evidence::Evidence;
use crate::model::TransferId;
use crate::offer;
use crate::state::{
    Admitted, Carrier, ConnectPlan, Connected, Epoch, Introduced, NewSession, NoSession,
    SessionEffect, SessionId, Told,
};
use crate::store::{Attempt, Won};

/// How long a login that is under way is waited for.
const LOG_IN_WAIT: Duration = Duration::from_secs(10);
/// How long a peer found nearby is tried there before the server is asked as well.
const HEAD_START: Duration = Duration::from_millis(250);
/// Sessions that ask to be closed get this long to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the tasks around sessions report.
#[derive(Debug)]
pub(crate) enum SessionInput {
    /// A connection attempt has ended.
    Connected {
        epoch: Epoch,
        peer: PeerIdentity,
        /// Whether the server says that the key has this name.
        is_vouched: bool,
        side: Side,
        outcome: Result<Session, NotConnected>,
    },
    /// A session has another path, or there is more to tell about its path.
    Moved {
        session: SessionId,
        peer: PeerIdentity,
        path: Box<SessionPath>,
    },
    /// Something came through a session.
    Exchange {
        session: SessionId,
        event: ExchangeEvent,
    },
    /// A session is over.
    Ended { session: SessionId },
}

/// Why there is no session.
#[derive(Debug)]
pub(crate) struct NotConnected {
    failure: Failure,
    /// What was tried, if anything was.
    report: Option<Report>,
    /// What the peer has answered to what it was shown.
    answer: Option<Evidence>,
}

impl From<Failure> for NotConnected {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            report: None,
            answer: None,
        }
    }
}

impl NotConnected {
    fn new(peer: &PeerIdentity, policy: PathPolicy, error: ConnectError) -> Self {
        let failure = explain::connect(peer, policy, &error);
        let (report, credential) = match error {
            ConnectError::NoPath { report, .. } => (Some(report), None),
            ConnectError::Introduction { credential, .. } => (None, credential),
            _ => (None, None),
        };
        Self {
            failure,
            report,
            answer: evidence(credential.as_ref()),
        }
    }
}

/// What somebody shows, if this version knows it.
fn evidence(credential: Option<&Credential>) -> Option<Evidence> {
    let parsed = credential.map(Evidence::parse);
    parsed?.inspect_err(|error| debug!("{error}")).ok()
}

/// One session that is up.
pub(super) struct LiveSession {
    pub(super) exchange: Exchange,
    handle: SessionHandle,
}

impl LiveSession {
    /// Whether the address that it comes from is one of this machine.
    pub(super) fn has_local_address(&self) -> bool {
        is_own_address(self.handle.path().borrow().local)
    }
}

/// Has the engine know when the network of this machine changes.
pub(super) async fn watch_network(inputs: mpsc::Sender<Input>) {
    let watched = async {
        let mut watch = NetworkWatch::new()?;
        // How it is to begin with is no change.
        watch.changed().await?;
        loop {
            watch.changed().await?;
            if inputs.send(Input::Network).await.is_err() {
                return std::io::Result::Ok(());
            }
        }
    };
    tokio::select! {
        ended = watched => if let Err(error) = ended {
            warn!(%error, "the system does not tell when the network changes");
        },
        () = inputs.closed() => {}
    }
}

impl Engine {
    pub(super) async fn run_session(&mut self, effect: SessionEffect) {
        match effect {
            SessionEffect::Connect { peer, epoch, plan } => self.connect(peer, epoch, plan),
            SessionEffect::Improve { session, sharing } => {
                let live = self.sessions.get(&session);
                let Some((live, connector)) = live.zip(self.server.connector()) else {
                    return;
                };
                let handle = live.handle.clone();
                tokio::spawn(async move {
                    match connector.improve(&handle, sharing).await {
                        Ok(moved) => debug!(?session, moved, "looked for a better path"),
                        Err(error) => debug!(?session, "no better path: {error}"),
                    }
                });
            }
            SessionEffect::CloseIfUnused(session) => {
                let live = self.sessions.get(&session);
                if live.is_none_or(|live| live.exchange.is_idle()) {
                    self.state.handle_unused(session);
                }
            }
            SessionEffect::Close(session) => {
                if let Some(live) = self.sessions.remove(&session) {
                    self.freed.note();
                    self.closing.retain(|task| !task.is_finished());
                    self.closing.push(tokio::spawn(close(live.exchange)));
                }
            }
            SessionEffect::AwaitClosed => {
                for task in self.closing.drain(..) {
                    let _ = task.await;
                }
            }
            SessionEffect::SetKnown(session) => {
                if let Some(live) = self.sessions.get(&session) {
                    live.exchange.set_known();
                }
            }
        }
    }

    fn connect(&self, peer: PeerIdentity, epoch: Epoch, plan: ConnectPlan) {
        let is_vouched = plan.is_vouched;
        let neighbourhood = self.nearby.as_ref().filter(|_| plan.is_nearby);
        let ways = Ways {
            nearby: neighbourhood.map(|it| it.nearby.clone()),
            connector: plan.through_server.then(|| self.server.coming_connector()),
            plan,
        };
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let outcome = ways.connect(&peer).await;
            let input = SessionInput::Connected {
                epoch,
                peer,
                is_vouched,
                side: Side::Initiator,
                outcome,
            };
            let _ = inputs.send(Input::Session(input)).await;
        });
    }

    /// Answers an invitation, on the paths that the user agrees to.
    pub(super) async fn take_invitation(&mut self, invitation: Invitation) {
        let Some(connector) = self.server.connector() else {
            return;
        };
        let is_new = !connector.may_migrate_a_session(&invitation);
        let from = invitation.from().clone();
        if self.state.handle_doubtful(&from, Instant::now()) {
            if let Some(refused) = self.server.hold(invitation) {
                let reason = RefuseReason::Busy;
                connector.rendezvous().refuse(refused, reason).await;
            }
            return;
        }
        let introduced = Introduced {
            peer: from,
            is_new,
            evidence: evidence(invitation.credential()),
            at_s: unix_time_s(),
        };
        let told = self.state.handle_invitation(introduced, Instant::now());
        let (peer, epoch, sharing, policy) = match told {
            Told::Yes {
                peer,
                epoch,
                sharing,
                policy,
                ..
            } => (peer, epoch, sharing, policy),
            Told::No(reason) => return connector.rendezvous().refuse(invitation, reason).await,
            Told::Answer(answer) => return answer_with(&connector, invitation, answer).await,
        };
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let outcome = match connector.accept(invitation, sharing, policy).await {
                Ok(Accepted::Session(session)) => Ok(session),
                // The task that watches the session reports it.
                Ok(Accepted::Migrated) => return,
                Err(error) => Err(NotConnected::new(&peer, policy, error)),
            };
            let input = SessionInput::Connected {
                epoch,
                peer,
                is_vouched: true,
                side: Side::Responder,
                outcome,
            };
            let _ = inputs.send(Input::Session(input)).await;
        });
    }

    pub(super) fn handle_session(&mut self, input: SessionInput) {
        let now = Instant::now();
        match input {
            SessionInput::Connected {
                epoch,
                peer,
                is_vouched,
                side,
                outcome,
            } => {
                let connected = |outcome| Connected {
                    epoch,
                    peer: peer.clone(),
                    is_vouched,
                    side,
                    outcome,
                };
                self.remember_attempt(&peer, side, &outcome);
                match outcome {
                    Ok(session) => {
                        let new = NewSession {
                            path: session.path,
                            local: session.local,
                            remote: session.remote,
                            elapsed: session.elapsed,
                            is_controlling: session.handle.is_controlling(),
                        };
                        let admitted = self.state.handle_connected(connected(Ok(new)), now);
                        if let Some(admitted) = admitted {
                            self.start_exchange(peer.clone(), side, admitted, session);
                        }
                    }
                    Err(NotConnected {
                        failure, answer, ..
                    }) => {
                        let none = NoSession { failure, answer };
                        self.state.handle_connected(connected(Err(none)), now);
                    }
                }
            }
            SessionInput::Moved {
                session,
                peer,
                path,
            } => {
                if self.sessions.contains_key(&session) {
                    let (kind, report) = (path.kind, &path.report);
                    let moved = Attempt::moved(unix_time_s(), &peer.name, kind, report);
                    self.keep_attempt(moved);
                    let addresses = (path.local, path.remote);
                    self.state.handle_moved(session, kind, addresses);
                }
            }
            SessionInput::Exchange { session, event } => self.handle_exchange(session, event),
            SessionInput::Ended { session } => self.state.handle_session_ended(session, now),
        }
    }

    fn start_exchange(
        &mut self,
        peer: PeerIdentity,
        side: Side,
        admitted: Admitted,
        session: Session,
    ) {
        let Admitted {
            session: id,
            is_known,
        } = admitted;
        let is_direct = session.path != pinhole_net::PathKind::Relay;
        let owner = Owner {
            key: Some(*peer.key.as_bytes()),
            // Over a relay it is the relay's.
            address: is_direct.then(|| session.remote.ip()),
            is_known,
        };
        let resources = self.resources.clone();
        let stream = session.stream.into_inner();
        let (exchange, events) = pinhole_transfer::start(stream, side, owner, resources);
        self.watch_path(id, peer, &session.handle);
        self.pass_on(id, events);
        let handle = session.handle;
        self.sessions.insert(id, LiveSession { exchange, handle });
    }

    /// Has what happens to the session's path come in.
    fn watch_path(&self, session: SessionId, peer: PeerIdentity, handle: &SessionHandle) {
        let (inputs, mut path) = (self.inputs.clone(), handle.path());
        tokio::spawn(async move {
            while path.changed().await.is_ok() {
                let input = SessionInput::Moved {
                    session,
                    peer: peer.clone(),
                    path: Box::new(path.borrow_and_update().clone()),
                };
                if inputs.send(Input::Session(input)).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Has what comes through a session come in.
    fn pass_on(&self, session: SessionId, mut events: mpsc::Receiver<ExchangeEvent>) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let input = SessionInput::Exchange { session, event };
                if inputs.send(Input::Session(input)).await.is_err() {
                    return;
                }
            }
            let ended = SessionInput::Ended { session };
            let _ = inputs.send(Input::Session(ended)).await;
        });
    }

    fn handle_exchange(&mut self, session: SessionId, event: ExchangeEvent) {
        let now = Instant::now();
        let state = &mut self.state;
        match event {
            ExchangeEvent::Offered { id, offer, sent } => {
                let carrier = Carrier { session, id, sent };
                state.handle_offer(carrier, offer, now);
            }
            ExchangeEvent::Text { id, text } => {
                state.handle_text(Carrier::new(session, id), text, now);
            }
            ExchangeEvent::Paused { id, paused } => {
                state.handle_paused(Carrier::new(session, id), paused);
            }
            ExchangeEvent::Accepted { id } => {
                let carrier = Carrier::new(session, id);
                let title = self.title_of_wanted(carrier);
                self.state.handle_accepted(carrier, title, now);
                self.sample_progress();
            }
            ExchangeEvent::FileFailed { id, path, error } => {
                let path = path.display_text();
                state.handle_file_failed(Carrier::new(session, id), path, &error);
            }
            ExchangeEvent::Finished { id, outcome } => {
                state.handle_finished(Carrier::new(session, id), outcome, now);
            }
            ExchangeEvent::Closed { reason } => {
                let reason = reason.map_or("the other side ended it".to_owned(), |e| e.to_string());
                state.handle_closed(session, &reason, now);
            }
        }
    }

    /// The title of what the receiver wants of an offer, if that is not all of it.
    pub(super) fn title_of_wanted(&self, carrier: Carrier) -> Option<String> {
        let exchange = &self.sessions.get(&carrier.session)?.exchange;
        let selection: Arc<Selection> = exchange.selection(carrier.id)?;
        offer::title_of_wanted(&selection)
    }

    pub(super) fn offer(&mut self, transfer: TransferId, session: SessionId) {
        let Some((source, resume)) = self.files.take_source(transfer) else {
            return;
        };
        let offered = match self.sessions.get(&session) {
            Some(live) => live
                .exchange
                .send_resumable(source, &resume)
                .map_err(|error| error.to_string()),
            None => Err(session_ended()),
        };
        let now = Instant::now();
        self.state.handle_offered(transfer, session, offered, now);
    }

    pub(super) fn send_text(&mut self, transfer: TransferId, session: SessionId, text: &str) {
        let sent = match self.sessions.get(&session) {
            Some(live) => live
                .exchange
                .send_text(text.to_owned())
                .map_err(|error| error.to_string()),
            None => Err(session_ended()),
        };
        let now = Instant::now();
        self.state.handle_offered(transfer, session, sent, now);
    }

    /// Keeps what an attempt to connect has shown.
    fn remember_attempt(
        &mut self,
        peer: &PeerIdentity,
        side: Side,
        outcome: &Result<Session, NotConnected>,
    ) {
        let (won, report) = match outcome {
            Ok(session) => {
                let (path, elapsed) = (session.path, session.elapsed);
                (Some(Won { path, elapsed }), Some(&session.report))
            }
            Err(failed) => (None, failed.report.as_ref()),
        };
        let Some(report) = report else {
            return;
        };
        let attempt = Attempt::new(unix_time_s(), &peer.name, won, report);
        self.keep_attempt(match side {
            Side::Responder => attempt.invited(),
            Side::Initiator => attempt,
        });
    }
}

/// The ways to a peer: nearby if it is there, and a moment later through the
/// server, too, for what is announced nearby may be wrong.
struct Ways {
    nearby: Option<Nearby>,
    /// It may come while it is needed.
    connector: Option<watch::Receiver<Option<Connector>>>,
    plan: ConnectPlan,
}

impl Ways {
    async fn connect(self, peer: &PeerIdentity) -> Result<Session, NotConnected> {
        let Some(nearby) = self.nearby.clone() else {
            return self.through_server(peer).await;
        };
        let name = self.plan.name_to_prove.clone();
        let mut near = Box::pin(async move {
            let connected = nearby.connect(peer.clone(), name, None).await;
            connected.map_err(|error| {
                info!(peer = %peer.name, "not reached nearby: {error}");
                explain::nearby(peer, &error).into()
            })
        });
        if self.connector.is_none() {
            return near.await;
        }
        let early = timeout(HEAD_START, &mut near).await;
        if let Ok(Ok(session)) = early {
            return Ok(session);
        }
        let mut far = Box::pin(self.through_server(peer));
        let (nearby, server) = match early {
            Ok(nearby) => (nearby, far.await),
            Err(_) => tokio::select! {
                nearby = &mut near => match nearby {
                    Ok(session) => return Ok(session),
                    failed => (failed, far.await),
                },
                server = &mut far => match server {
                    Ok(session) => return Ok(session),
                    failed => (near.await, failed),
                },
            },
        };
        match (nearby, server) {
            (Ok(session), _) | (_, Ok(session)) => Ok(session),
            // That it is not there either says less than why it failed here.
            (Err(nearby), Err(server)) if matches!(server.failure, Failure::PeerOffline { .. }) => {
                Err(nearby)
            }
            (_, Err(failure)) => Err(failure),
        }
    }

    async fn through_server(self, peer: &PeerIdentity) -> Result<Session, NotConnected> {
        let offline = || {
            NotConnected::from(Failure::PeerOffline {
                peer: peer.name.to_string(),
            })
        };
        let mut coming = self.connector.ok_or_else(offline)?;
        let come = timeout(LOG_IN_WAIT, coming.wait_for(Option::is_some)).await;
        let connector = come.ok().and_then(|come| come.ok()?.clone());
        let connector = connector.ok_or_else(offline)?;
        let (name, plan) = (peer.name.clone(), self.plan);
        let shown = plan.evidence.map(Evidence::to_credential).transpose();
        let shown = shown.unwrap_or_else(|error| {
            warn!("{error}");
            None
        });
        let connected = connector.connect(name, peer.key, plan.sharing, shown).await;
        connected.map_err(|error| NotConnected::new(peer, plan.policy, error))
    }
}

/// Answers what an inviter has shown.
async fn answer_with(connector: &Connector, invitation: Invitation, answer: Evidence) {
    match answer.to_credential() {
        Ok(credential) => {
            let rendezvous = connector.rendezvous();
            rendezvous.answer_credential(invitation, credential).await;
        }
        Err(error) => warn!("{error}"),
    }
}

async fn close(exchange: Exchange) {
    if timeout(CLOSE_TIMEOUT, exchange.close()).await.is_err() {
        debug!("the other side did not say goodbye in time");
    }
}

fn session_ended() -> String {
    "the connection is closed".to_owned()
}

pub(super) fn unix_time_s() -> u64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_1970.unwrap_or(Duration::ZERO).as_secs()
}
