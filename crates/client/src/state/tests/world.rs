//! The world around the two: a server, links, disks, the people, and what goes wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pinhole_net::{Directory, PathKind, PeerName, RefuseReason};
use pinhole_transfer::digest::Digest;
use pinhole_transfer::manifest::ManifestBuilder;
use pinhole_transfer::{Manifest, Side, Summary, TransferError, TransferId as WireId};

use super::link::{Condition, End, Flight, FlightStage, Link, Message, Millis};
use super::party::{END, Party, TROUBLE_ENDS, identity};
use super::random::Random;
use crate::event::Event;
use crate::failure::Failure;
use crate::invitation::code::Code;
use crate::invitation::evidence::Evidence;
use crate::invitation::link::InvitationLink;
use crate::model::TransferId;
use crate::state::{
    Carrier, Connected, ConnectionId, Effect, Introduced, LoginInput, NewSession, NoSession,
    SessionEffect, SessionId, SessionSample, Stored, Told,
};
use crate::store::{AcceptPolicy, Settings};

/// An invited peer has so long to answer.
const CONNECT_TIMEOUT: Millis = 12_000;
/// How many effects one input may cause at most.
const EFFECTS_MAX: usize = 10_000;
/// Something that is about to happen.
#[derive(Debug)]
pub(super) enum Happening {
    LoggedIn(ConnectionId),
    NotLoggedIn(ConnectionId),
    Server(ConnectionId, LoginInput),
    Watched(ConnectionId, Vec<PeerName>),
    Connected(Box<Connected>, Option<usize>),
    /// The other side has had time enough to answer an invitation.
    Unanswered(Box<Connected>, Option<usize>),
    Invited {
        link: Option<usize>,
        evidence: Option<Evidence>,
        epoch: crate::state::Epoch,
    },
    Arrived(usize, Message),
    /// This end notices that the link is broken, or closes.
    LinkEnded(usize, Ended),
    SendPart(usize, WireId),
    Listed(TransferId, usize),
    TakenNames(TransferId),
    Prepared(TransferId, Carrier, Option<usize>),
    LetGo(TransferId),
    Committed(usize, WireId),
    Ended(usize, WireId, Result<Summary, TransferError>),
    Sample,
    User(Act),
    Fault(Fault),
}

/// Why a link is over, as one end sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Broken,
    ByUs,
    ByPeer,
}

/// What a person does.
#[derive(Debug, Clone)]
pub(super) enum Act {
    SendFiles,
    SendText,
    Answer(TransferId),
    Show(TransferId),
    Pause,
    Unpause,
    Cancel,
    Interrupt,
    Retry,
    LogOut,
    LogIn,
    Restart,
    Invite,
    OpenCode,
    Join(Joining),
}

/// What somebody joins by.
#[derive(Debug, Clone)]
pub(super) enum Joining {
    Link(InvitationLink),
    Code(Code),
}

/// What goes wrong, or right again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    Break,
    Freeze(Millis),
    ServerDown,
    ServerUp,
    NetworkDown,
    NetworkUp,
    ServerForgets,
}

pub(super) struct World {
    base: Instant,
    pub(super) now: Millis,
    next: u64,
    happenings: BTreeMap<(Millis, u64), (usize, u32, Happening)>,
    pub(super) random: Random,
    pub(super) parties: [Party; 2],
    pub(super) links: Vec<Link>,
    pub(super) is_server_up: bool,
    pub(super) directory: Directory,
    /// They do not know each other's names.
    pub(super) are_strangers: bool,
    pub(super) contents: Vec<Arc<Manifest>>,
    /// Tells of everything that happens.
    pub(super) prints: bool,
}

pub(super) fn other(who: usize) -> usize {
    1 - who
}

pub(super) fn digest(content: usize) -> Digest {
    Digest::from_bytes([u8::try_from(content).unwrap(); 32])
}

pub(super) fn manifest(content: usize) -> Arc<Manifest> {
    let mut builder = ManifestBuilder::default();
    let entry = format!(r#"{{"file":{{"path":"file{content}","size_bytes":{content}}}}}"#);
    builder.push(serde_json::from_str(&entry).unwrap()).unwrap();
    Arc::new(builder.build())
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let base = Instant::now();
        let mut settings = || Settings {
            accept: random
                .pick(&[AcceptPolicy::Ask, AcceptPolicy::Contacts, AcceptPolicy::All])
                .unwrap(),
            nearby: false,
            ..Settings::default()
        };
        let (alice, bob) = (settings(), settings());
        let mut world = Self {
            base,
            now: 0,
            next: 0,
            happenings: BTreeMap::new(),
            random,
            parties: [
                Party::new(identity("alice", 1), alice, base),
                Party::new(identity("bob", 2), bob, base),
            ],
            links: Vec::new(),
            is_server_up: true,
            directory: match seed % 2 {
                0 => Directory::Open,
                _ => Directory::Closed,
            },
            are_strangers: false,
            contents: Vec::new(),
            prints: false,
        };
        for who in [0, 1] {
            world.plan(who, 0, Happening::User(Act::LogIn));
        }
        world
    }

    pub(super) fn at(&self, now: Millis) -> Instant {
        self.base + Duration::from_millis(now)
    }

    pub(super) fn instant(&self) -> Instant {
        self.at(self.now)
    }

    /// The time in seconds since 1970, by the virtual clock.
    pub(super) fn unix_s(&self) -> u64 {
        self.now / 1000
    }

    pub(super) fn plan(&mut self, who: usize, after: Millis, happening: Happening) {
        self.next += 1;
        let incarnation = self.parties[who].incarnation;
        let at = (self.now + after, self.next);
        self.happenings.insert(at, (who, incarnation, happening));
    }

    /// Has this happen whatever becomes of the person until then.
    pub(super) fn plan_act(&mut self, who: usize, at: Millis, happening: Happening) {
        self.next += 1;
        self.happenings
            .insert((at, self.next), (who, u32::MAX, happening));
    }

    /// Lets time pass until nothing is left, or it is over.
    pub(super) fn run(&mut self) {
        self.plan_act(0, TROUBLE_ENDS, Happening::Fault(Fault::ServerUp));
        for who in [0, 1] {
            self.plan_act(who, TROUBLE_ENDS, Happening::Fault(Fault::NetworkUp));
            for after in [100, 20_000, 40_000] {
                let at = TROUBLE_ENDS + after;
                self.plan_act(who, at, Happening::User(Act::LogIn));
                self.plan_act(who, at + 50, Happening::User(Act::Unpause));
            }
        }
        while self.now < END {
            let next = self.happenings.keys().next().map(|(at, _)| *at);
            let timeouts = [0, 1].map(|who| self.timeout(who));
            let Some(at) = timeouts.into_iter().flatten().chain(next).min() else {
                break;
            };
            self.now = self.now.max(at);
            let due = [0, 1].into_iter().find(|&who| timeouts[who] == Some(at));
            match due {
                Some(who) => self.handle_timeout(who),
                None => {
                    let (_, (who, incarnation, happening)) = self.happenings.pop_first().unwrap();
                    let is_current = incarnation == self.parties[who].incarnation;
                    if is_current || incarnation == u32::MAX {
                        if self.prints {
                            println!("{:>7} {who} {happening:?}", self.now);
                        }
                        self.happen(who, happening);
                    }
                }
            }
            for who in [0, 1] {
                self.run_effects(who);
            }
        }
    }

    fn timeout(&self, who: usize) -> Option<Millis> {
        let at = self.parties[who].state.poll_timeout()?;
        let after = at.saturating_duration_since(self.base);
        Some(u64::try_from(after.as_micros().div_ceil(1000)).unwrap())
    }

    fn handle_timeout(&mut self, who: usize) {
        let now = self.instant();
        self.parties[who].state.handle_timeout(now);
        let next = self.parties[who].state.poll_timeout();
        assert!(
            next.is_none_or(|next| next > now),
            "a timer is due for ever"
        );
    }

    fn run_effects(&mut self, who: usize) {
        for _ in 0..EFFECTS_MAX {
            let Some(effect) = self.parties[who].state.poll_effect() else {
                let is_moving = self.parties[who].state.is_moving();
                if is_moving && !std::mem::replace(&mut self.parties[who].is_sampling, true) {
                    self.plan(who, 250, Happening::Sample);
                }
                return;
            };
            self.run_effect(who, effect);
        }
        panic!("effects without end");
    }

    fn run_effect(&mut self, who: usize, effect: Effect) {
        if self.prints {
            println!("{:>7} {who}  -> {effect:?}", self.now);
        }
        match effect {
            Effect::Emit(event) => self.emitted(who, &event),
            Effect::Store(Stored::Settings) => self.parties[who].store_settings(),
            Effect::Store(Stored::Contacts) => self.parties[who].store_contacts(),
            Effect::Store(Stored::Invitations) => self.parties[who].store_invitations(),
            Effect::Store(Stored::Queue(queue)) => self.parties[who].store_queue(queue),
            Effect::Answer(_)
            | Effect::Record(_)
            | Effect::StartNearby { .. }
            | Effect::LeaveNearby => {}
            Effect::Login(effect) => self.run_login(who, &effect),
            Effect::Session(effect) => self.run_session(who, effect),
            Effect::File(effect) => self.run_file(who, effect),
            Effect::Exchange(carrier, effect) => self.run_exchange(who, carrier, effect),
            Effect::Offer { transfer, session } => self.offer(who, transfer, session),
            Effect::SendText {
                transfer,
                session,
                text,
            } => self.send_text(who, transfer, (session, text.to_string())),
        }
    }

    /// One person tells the other how to meet.
    fn tell_other(&mut self, who: usize, how: Joining) {
        let at = self.now + self.random.between(500, 20_000);
        self.plan_act(other(who), at, Happening::User(Act::Join(how)));
    }

    /// Nobody has said a name to the other.
    pub(super) fn do_not_know_each_other(&mut self) {
        self.are_strangers = true;
    }

    fn emitted(&mut self, who: usize, event: &Event) {
        self.parties[who].note(event);
        match event {
            Event::Offered { transfer } => {
                let transfer = *transfer;
                // Some leave the question open until nothing goes wrong any more.
                let after = match self.random.percent(90) {
                    true => self.random.between(50, 4_000),
                    false => TROUBLE_ENDS,
                };
                self.plan(who, after, Happening::User(Act::Answer(transfer)));
            }
            Event::Invitation { link } => self.tell_other(who, Joining::Link(link.clone())),
            Event::Code { code } => self.tell_other(who, Joining::Code(*code)),
            Event::TextReceived { transfer } => {
                self.plan(who, 30, Happening::User(Act::Show(*transfer)));
            }
            _ => {}
        }
    }
}

/// Sessions.
impl World {
    fn run_session(&mut self, who: usize, effect: SessionEffect) {
        match effect {
            SessionEffect::Connect { peer, epoch, plan } => {
                let (there, after) = (other(who), self.random.between(50, 600));
                let can_meet = self.is_reachable(who)
                    && self.is_reachable(there)
                    && self.parties[who].on_server.is_some()
                    && self.parties[there].on_server.is_some();
                let link = (can_meet && self.random.percent(90)).then_some(self.links.len());
                if link.is_some() {
                    let incarnations = [0, 1].map(|who| self.parties[who].incarnation);
                    let mut ends = incarnations.map(|incarnation| End::new(0, incarnation));
                    ends[there] = End::new(1, incarnations[there]);
                    self.links.push(Link::new(ends));
                    let evidence = plan.evidence;
                    self.plan(
                        there,
                        after,
                        Happening::Invited {
                            link,
                            evidence,
                            epoch,
                        },
                    );
                }
                let failure = Failure::NoPath {
                    peer: peer.name.clone(),
                    detail: "no path".to_owned(),
                };
                let connected = Connected {
                    epoch,
                    peer,
                    is_vouched: plan.is_vouched,
                    side: Side::Initiator,
                    outcome: Err(failure.into()),
                };
                let patience = link.map_or(after * 4, |_| CONNECT_TIMEOUT);
                let failed = Happening::Unanswered(Box::new(connected), link);
                self.plan(who, patience, failed);
            }
            SessionEffect::CloseIfUnused(session) => {
                let end = self.end_of(who, session);
                let is_unused =
                    end.is_none_or(|link| self.links[link].ends[who].flights.is_empty());
                if is_unused {
                    self.parties[who].state.handle_unused(session);
                }
            }
            SessionEffect::Close(session) => {
                if let Some(link) = self.end_of(who, session) {
                    self.send(link, who, Message::Close);
                    self.plan(who, 5, Happening::LinkEnded(link, Ended::ByUs));
                }
            }
            SessionEffect::Improve { session, .. } => {
                let addresses = addresses();
                let state = &mut self.parties[who].state;
                state.handle_moved(session, PathKind::Punched, addresses);
            }
            SessionEffect::AwaitClosed | SessionEffect::SetKnown(_) => {}
        }
    }

    /// The invited side decides, and both learn of it.
    pub(super) fn invited(
        &mut self,
        who: usize,
        (link, evidence): (Option<usize>, Option<Evidence>),
        epoch: crate::state::Epoch,
    ) {
        let (now, there) = (self.instant(), other(who));
        if let Some(link) = link {
            self.links[link].is_answered = true;
        }
        let from = self.parties[there].identity.clone();
        let introduced = Introduced {
            peer: from,
            is_new: true,
            evidence,
            at_s: self.unix_s(),
        };
        let told = self.parties[who].state.handle_invitation(introduced, now);
        let connected = |peer, side, epoch, outcome| Connected {
            epoch,
            is_vouched: true,
            side,
            outcome,
            peer,
        };
        let is_up = matches!(told, Told::Yes { .. });
        let outcome = match is_up {
            true => Ok(new_session(Side::Initiator)),
            false => Err(no_session(&told)),
        };
        let ours = self.parties[who].identity.clone();
        let inviter = connected(ours, Side::Initiator, epoch, outcome);
        let after = self.random.between(5, 60);
        self.plan(
            there,
            after,
            Happening::Connected(Box::new(inviter), link.filter(|_| is_up)),
        );
        if let Told::Yes { peer, epoch, .. } = told {
            let outcome = Ok(new_session(Side::Responder));
            let invited = connected(peer, Side::Responder, epoch, outcome);
            let after = self.random.between(5, 60);
            self.plan(who, after, Happening::Connected(Box::new(invited), link));
        }
    }

    pub(super) fn connected(&mut self, who: usize, connected: Connected, link: Option<usize>) {
        let now = self.instant();
        let admitted = self.parties[who].state.handle_connected(connected, now);
        let Some(link) = link else {
            return;
        };
        let incarnation = self.parties[who].incarnation;
        let end = &mut self.links[link].ends[who];
        match admitted {
            Some(admitted) if end.incarnation == incarnation => {
                end.session = Some(admitted.session);
                for message in std::mem::take(&mut end.early) {
                    self.plan(who, 0, Happening::Arrived(link, message));
                }
                if self.links[link].is_broken() {
                    self.plan(who, 1_000, Happening::LinkEnded(link, Ended::Broken));
                }
            }
            _ => {
                end.is_closed = true;
                self.send(link, who, Message::Close);
            }
        }
    }

    pub(super) fn end_of(&self, who: usize, session: SessionId) -> Option<usize> {
        let incarnation = self.parties[who].incarnation;
        let is_it = |link: &Link| {
            let end = &link.ends[who];
            end.session == Some(session) && end.incarnation == incarnation && !end.is_closed
        };
        self.links.iter().position(is_it)
    }

    /// Sends something to the other end, which it reaches unless the link breaks.
    pub(super) fn send(&mut self, link: usize, from: usize, message: Message) {
        let (to, now) = (other(from), self.now);
        let delay = self.random.between(10, 60);
        let held_until = match self.links[link].condition {
            Condition::Up => now,
            Condition::Frozen { until, .. } => until.max(now),
            Condition::Broken { .. } => return,
        };
        let arrives_at = (held_until + delay).max(self.links[link].arrives_at[to] + 1);
        self.links[link].arrives_at[to] = arrives_at;
        let after = arrives_at - now;
        self.plan(to, after, Happening::Arrived(link, message));
    }

    pub(super) fn link_ended(&mut self, who: usize, link: usize, ended: Ended) {
        let now = self.instant();
        let incarnation = self.parties[who].incarnation;
        let end = &mut self.links[link].ends[who];
        let session = end.session.filter(|_| end.incarnation == incarnation);
        if std::mem::replace(&mut end.is_closed, true) {
            return;
        }
        let flights = std::mem::take(&mut end.flights);
        let Some(session) = session else {
            return;
        };
        for (id, flight) in flights {
            let error = match ended {
                Ended::Broken => TransferError::ConnectionLost,
                Ended::ByUs => TransferError::Interrupted(pinhole_transfer::Party::Us),
                Ended::ByPeer => TransferError::Interrupted(pinhole_transfer::Party::Peer),
            };
            self.release(who, &flight);
            let carrier = Carrier::new(session, id);
            let state = &mut self.parties[who].state;
            state.handle_finished(carrier, Err(error), now);
            self.run_effects(who);
        }
        let state = &mut self.parties[who].state;
        state.handle_closed(session, "closed", now);
        self.run_effects(who);
        self.parties[who].state.handle_session_ended(session, now);
    }

    pub(super) fn link_count(&self) -> usize {
        self.links.len()
    }

    pub(super) fn is_broken(&self, link: usize) -> bool {
        self.links[link].is_broken()
    }

    pub(super) fn set_condition(&mut self, link: usize, condition: Condition) {
        let link = &mut self.links[link];
        if !link.is_broken() {
            link.condition = condition;
        }
    }

    /// How the sessions of one side are heard.
    pub(super) fn samples(&self, who: usize) -> Vec<SessionSample> {
        let incarnation = self.parties[who].incarnation;
        let ends = self.links.iter().filter_map(|link| {
            let end = &link.ends[who];
            let session = end.session?;
            let is_open = !end.is_closed && end.incarnation == incarnation;
            is_open.then(|| SessionSample {
                session,
                silence: Duration::from_millis(link.silence(self.now)),
                usual_silence: Some(Duration::from_millis(250)),
                has_local_address: true,
            })
        });
        ends.collect()
    }

    /// An attempt has ended that may have held files.
    pub(super) fn release(&mut self, who: usize, flight: &Flight) {
        let party = &mut self.parties[who];
        if let (Some(content), FlightStage::Running, false) =
            (flight.content, flight.stage, flight.is_sending)
            && let Some(transfer) = flight.transfer
            && party.holders.get(&content).map(|it| it.transfer) == Some(transfer)
        {
            party.holders.remove(&content);
        }
    }
}

/// What an inviter learns of an answer that brings no session.
fn no_session(told: &Told) -> NoSession {
    let peer = identity("nobody", 7).name;
    let answer = match told {
        Told::Answer(answer) => Some(*answer),
        _ => None,
    };
    let failure = match told {
        Told::No(RefuseReason::InvitationOver) => Failure::InvitationOver { peer },
        _ => Failure::Declined { peer },
    };
    NoSession { failure, answer }
}

fn addresses() -> (std::net::SocketAddr, std::net::SocketAddr) {
    let address = "192.0.2.1:4000".parse().unwrap();
    (address, address)
}

pub(super) fn new_session(side: Side) -> NewSession {
    let (local, remote) = addresses();
    NewSession {
        path: PathKind::Relay,
        local,
        remote,
        elapsed: Duration::ZERO,
        is_controlling: side == Side::Initiator,
    }
}
