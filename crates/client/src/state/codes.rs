//! Codes: opening one, and joining whoever has opened one.
//!
//! ```text
//! opener:  Wanted ──login──► Asked ──number──► Open ──right words, tries, time──► closed
//! joiner:  Wanted ──login──► Finding ──► Exchanging ──► Confirming ──► joined
//! ```

use std::time::Instant;

use blake3::Hash;
use pinhole_net::{CodeNumber, PeerIdentity, PeerKey, RefuseReason};
use tracing::info;

use super::State;
use super::effect::{Effect, LoginEffect};
use super::links::Shown;
use crate::event::Event;
use crate::failure::Failure;
use crate::invitation::code::{Code, CodeWords};
use crate::invitation::evidence::Evidence;
use crate::invitation::exchange::{self, Parties};
use crate::invitation::opener::{Opener, Tried};
use crate::store::Acquaintance;

/// What there is to know of codes: at most one is open, and at most one is joined by.
#[derive(Debug, Default)]
pub(super) struct Codes {
    opening: Opening,
    joining: Option<Joining>,
    /// The number that the server was asked about. It takes one question at a time.
    asked: Option<CodeNumber>,
    /// Who has said the right words of ours, and is connecting.
    arriving: Option<PeerKey>,
    /// Whom a code has brought together with us in this run.
    counterpart: Option<PeerKey>,
}

/// A code of ours.
#[derive(Debug, Default)]
enum Opening {
    #[default]
    None,
    /// As soon as we are logged in.
    Wanted(CodeWords),
    /// The server gives it a number.
    Asked(CodeWords),
    /// The number is not needed any more. The server takes one request at a time.
    Unwanted,
    Open(Opener),
}

/// A code of somebody else.
#[derive(Debug)]
struct Joining {
    code: Code,
    stage: JoinStage,
}

#[derive(Debug)]
enum JoinStage {
    /// As soon as we are logged in.
    Wanted,
    /// The server is asked who has opened it.
    Finding,
    /// They were asked whether they know the words.
    Exchanging(PeerIdentity, Box<exchange::Joiner>),
    /// They do. They are shown that we do as well.
    Confirming(PeerIdentity, Hash),
}

impl Codes {
    /// The code that is open.
    pub(super) const fn open(&self) -> Option<Code> {
        match &self.opening {
            Opening::Open(opener) => Some(opener.code()),
            _ => None,
        }
    }

    /// When the code that is open closes by itself.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match &self.opening {
            Opening::Open(opener) => Some(opener.closes_at()),
            _ => None,
        }
    }

    /// Whether a code has brought this peer together with us in this run.
    pub(super) fn has_brought(&self, peer: PeerKey) -> bool {
        self.counterpart == Some(peer)
    }
}

/// Opening a code.
impl State {
    /// The user wants a code with these words, once a login that is under way has
    /// succeeded.
    pub(crate) fn handle_open_code(&mut self, words: CodeWords, now: Instant) {
        self.now = now;
        self.note_activity();
        if !self.login.is_wanted() {
            return self.fail_command(without_server());
        }
        self.close_code();
        self.codes.opening = match self.codes.opening {
            Opening::Unwanted => Opening::Asked(words),
            _ => Opening::Wanted(words),
        };
        self.drive_codes();
    }

    /// Nobody is to join by the code any more.
    pub(super) fn close_code(&mut self) {
        self.codes.opening = match std::mem::take(&mut self.codes.opening) {
            Opening::Asked(_) | Opening::Unwanted => Opening::Unwanted,
            Opening::Open(_) => {
                self.effect(Effect::Login(LoginEffect::CloseCode));
                Opening::None
            }
            Opening::None | Opening::Wanted(_) => Opening::None,
        };
    }

    /// Takes the next steps once we are logged in.
    pub(super) fn drive_codes(&mut self) {
        if !self.login.is_announced() {
            return;
        }
        if !self.login.has_codes() {
            return self.do_without_codes();
        }
        if let Opening::Wanted(words) = self.codes.opening {
            self.codes.opening = Opening::Asked(words);
            self.effect(Effect::Login(LoginEffect::OpenCode));
        }
        if let Some(joining) = &mut self.codes.joining
            && matches!(joining.stage, JoinStage::Wanted)
            && self.codes.asked.is_none()
        {
            joining.stage = JoinStage::Finding;
            let number = joining.code.number();
            self.codes.asked = Some(number);
            self.effect(Effect::Login(LoginEffect::FindCode(number)));
        }
    }

    fn do_without_codes(&mut self) {
        let failure = Failure::NotPossible {
            detail: "This server is older than codes. Ask whoever runs it to update it, or use an invitation link.".to_owned(),
        };
        if let Opening::Wanted(_) = self.codes.opening {
            self.code_closed(failure.clone());
        }
        if self.codes.joining.is_some() {
            self.fail_code(failure);
        }
    }

    /// The server has given our code a number, or has not.
    pub(super) fn code_opened(&mut self, number: Option<CodeNumber>) {
        let words = match std::mem::take(&mut self.codes.opening) {
            Opening::Asked(words) => words,
            Opening::Unwanted => {
                let is_open = number.is_some();
                let close = is_open.then_some(Effect::Login(LoginEffect::CloseCode));
                return self.effects.extend(close);
            }
            other => {
                self.codes.opening = other;
                return;
            }
        };
        let Some(number) = number else {
            return self.code_closed(Failure::NotPossible {
                detail: "The server gives out no more codes at the moment. Try again in a minute."
                    .to_owned(),
            });
        };
        let code = Code::new(number, words);
        let opener = Opener::new(code, self.login.own_key(), self.now);
        self.codes.opening = Opening::Open(opener);
        self.emit(Event::Code { code });
    }

    /// The server has ended our code.
    pub(super) fn code_ended(&mut self, number: CodeNumber) {
        if self
            .codes
            .open()
            .is_some_and(|code| code.number() == number)
        {
            self.codes.opening = Opening::None;
            let failure = Failure::CodeUnused;
            self.emit(Event::CodeClosed { failure });
        }
    }

    fn code_closed(&mut self, failure: Failure) {
        self.close_code();
        self.emit(Event::CodeClosed { failure });
    }

    pub(super) fn codes_timeout(&mut self) {
        let Opening::Open(opener) = &self.codes.opening else {
            return;
        };
        if opener.is_closed(self.now) {
            let failure = opener.failure();
            self.code_closed(failure);
        }
    }

    /// The connection to the server is lost, and with it the number of our code.
    pub(super) fn lose_codes(&mut self, failure: &Failure) {
        self.codes.asked = None;
        self.codes.opening = match std::mem::take(&mut self.codes.opening) {
            // It has not been said to anybody.
            Opening::Wanted(words) | Opening::Asked(words) => Opening::Wanted(words),
            Opening::None | Opening::Unwanted => Opening::None,
            Opening::Open(_) => {
                let failure = failure.clone();
                self.emit(Event::CodeClosed { failure });
                Opening::None
            }
        };
        if let Some(joining) = &mut self.codes.joining
            && matches!(joining.stage, JoinStage::Finding)
        {
            joining.stage = JoinStage::Wanted;
        }
    }

    /// The login ends.
    pub(super) fn end_codes(&mut self) {
        self.close_code();
        self.codes = Codes::default();
    }

    /// Somebody tries our code.
    pub(super) fn code_shown(&mut self, peer: &PeerIdentity, evidence: Evidence) -> Shown {
        let Opening::Open(opener) = &mut self.codes.opening else {
            return Shown::Refuse(RefuseReason::InvitationOver);
        };
        let now = self.now;
        let tried = match evidence {
            Evidence::CodeStart { number, message } => {
                opener.start(peer.key, number, &message, now)
            }
            Evidence::CodeConfirm {
                number,
                confirmation,
            } => opener.confirm(peer.key, number, confirmation, now),
            Evidence::Proof(_) | Evidence::CodeAnswer { .. } => return Shown::Nothing,
        };
        match tried {
            Tried::Answered(answer) => Shown::Answer(answer),
            Tried::Refused => {
                info!(peer = %peer.name, "refused somebody who does not know the code");
                self.codes_timeout();
                Shown::Refuse(RefuseReason::InvitationOver)
            }
            Tried::Joined => {
                self.close_code();
                self.codes.arriving = Some(peer.key);
                self.met_by_code(peer);
                Shown::LetIn
            }
        }
    }

    /// Both sides have shown that they know the words.
    fn met_by_code(&mut self, peer: &PeerIdentity) {
        self.codes.counterpart = Some(peer.key);
        if let Some(server) = self.login.server_key() {
            self.make_contact(server, peer);
        }
    }

    /// Somebody who knows the words is there, or could not connect. It is a contact in
    /// either case. Returns what is to be told of it.
    pub(super) fn arrived_by_code(&mut self, peer: &PeerIdentity) -> Option<Event> {
        self.codes.arriving.take_if(|it| *it == peer.key)?;
        Some(Event::Welcomed {
            peer: peer.clone(),
            is_by_code: true,
        })
    }
}

/// Joining by a code.
impl State {
    /// The user has a code, for once a login that is under way has succeeded.
    pub(super) fn join_code(&mut self, code: Code) {
        if !self.login.is_wanted() {
            return self.fail_command(without_server());
        }
        let stage = JoinStage::Wanted;
        self.codes.joining = Some(Joining { code, stage });
        self.drive_codes();
    }

    /// The server says who has opened a code.
    pub(super) fn code_found(&mut self, number: CodeNumber, peer: Option<PeerIdentity>) {
        self.codes.asked.take_if(|asked| *asked == number);
        let is_asked =
            |it: &Joining| it.code.number() == number && matches!(it.stage, JoinStage::Finding);
        let Some(code) = self.codes.joining.as_ref().filter(|it| is_asked(it)) else {
            // The user has another one by now.
            return self.drive_codes();
        };
        let code = code.code;
        let Some(peer) = peer else {
            return self.fail_code(Failure::CodeUnknown);
        };
        if let Some(failure) = self.why_not_by_code(&peer) {
            return self.fail_code(failure);
        }
        let parties = Parties {
            joiner: self.login.own_key(),
            opener: peer.key,
        };
        let joiner = Box::new(exchange::Joiner::start(&code, parties));
        let stage = JoinStage::Exchanging(peer.clone(), joiner);
        self.codes.joining = Some(Joining { code, stage });
        self.note_introduced(&peer);
        self.connect_by_code(&peer);
    }

    fn why_not_by_code(&self, peer: &PeerIdentity) -> Option<Failure> {
        let name = &peer.name;
        let not_possible = |detail: String| Some(Failure::NotPossible { detail });
        if peer.key == self.login.own_key() {
            let own = "This is your own code. Tell it to somebody else.";
            return not_possible(own.to_owned());
        }
        if self.contacts.is_blocked(peer.key) {
            return not_possible(format!(
                "You have blocked {name}. Unblock them, and try again."
            ));
        }
        let server = self.login.server_key()?;
        match self.contacts.acquaintance(server, peer) {
            Acquaintance::KeyChanged { pinned } => Some(Failure::PeerKeyChanged {
                peer: name.clone(),
                known: pinned.fingerprint(),
                now: peer.key.fingerprint(),
            }),
            Acquaintance::Revoked => Some(Failure::PeerKeyRevoked { peer: name.clone() }),
            Acquaintance::New | Acquaintance::Known { .. } => None,
        }
    }

    fn connect_by_code(&mut self, peer: &PeerIdentity) {
        if let Err(failure) = self.begin_connecting(peer) {
            self.fail_code(failure);
        }
    }

    fn fail_code(&mut self, failure: Failure) {
        self.codes.joining = None;
        self.fail_command(failure);
    }

    /// What is shown next to whoever has opened the code.
    pub(super) fn words_for(&self, peer: PeerKey) -> Option<Evidence> {
        let joining = self.codes.joining.as_ref()?;
        let number = joining.code.number();
        match &joining.stage {
            JoinStage::Exchanging(to, joiner) if to.key == peer => Some(Evidence::CodeStart {
                number,
                message: joiner.message(),
            }),
            JoinStage::Confirming(to, confirmation) if to.key == peer => {
                Some(Evidence::CodeConfirm {
                    number,
                    confirmation: *confirmation,
                })
            }
            _ => None,
        }
    }

    /// A session with this peer is up. Returns what is to be told of it; `Err` if nobody
    /// is to be let in like this.
    pub(super) fn code_taken(&mut self, peer: &PeerIdentity) -> Result<Option<Event>, ()> {
        let is_its = |it: &&mut Joining| match &it.stage {
            JoinStage::Exchanging(to, _) | JoinStage::Confirming(to, _) => to.key == peer.key,
            JoinStage::Wanted | JoinStage::Finding => false,
        };
        let joining = self.codes.joining.as_mut().filter(is_its);
        match joining.map(|it| &it.stage) {
            None => Ok(None),
            Some(JoinStage::Confirming(..)) => {
                self.codes.joining = None;
                Ok(Some(Event::Joined {
                    peer: peer.clone(),
                    is_told: true,
                }))
            }
            // Whoever lets us in without a look at the words does not know them.
            Some(_) => {
                self.fail_code(Failure::CodeWrong);
                Err(())
            }
        }
    }

    /// An attempt to connect to this peer has failed, perhaps with an answer to what was
    /// shown. Returns whether that was about the code.
    pub(super) fn code_not_taken(
        &mut self,
        peer: &PeerIdentity,
        failure: &Failure,
        answer: Option<Evidence>,
    ) -> bool {
        let is_its = |it: &mut Joining| match &it.stage {
            JoinStage::Exchanging(to, _) | JoinStage::Confirming(to, _) => to.key == peer.key,
            JoinStage::Wanted | JoinStage::Finding => false,
        };
        let Some(Joining { code, stage }) = self.codes.joining.take_if(is_its) else {
            return false;
        };
        let answered = match (stage, answer) {
            (
                JoinStage::Exchanging(_, joiner),
                Some(Evidence::CodeAnswer {
                    message,
                    confirmation,
                }),
            ) => joiner.finish(&message, confirmation),
            _ => {
                self.fail_code(code_failure(failure));
                return true;
            }
        };
        let Some(confirmation) = answered else {
            self.fail_code(Failure::CodeWrong);
            return true;
        };
        self.met_by_code(peer);
        let stage = JoinStage::Confirming(peer.clone(), confirmation);
        self.codes.joining = Some(Joining { code, stage });
        self.connect_by_code(peer);
        true
    }
}

/// What somebody who has typed a code in needs to know of this.
fn code_failure(failure: &Failure) -> Failure {
    match failure {
        Failure::InvitationOver { .. } | Failure::PeerOffline { .. } => Failure::CodeUnknown,
        other => other.clone(),
    }
}

fn without_server() -> Failure {
    Failure::NotPossible {
        detail:
            "A code needs a server, through which the two of you find each other. Log in first."
                .to_owned(),
    }
}
