//! Invitation links: making them, joining by one, and letting in whoever has one.

use std::collections::BTreeSet;
use std::time::Instant;

use pinhole_net::{PeerIdentity, PeerKey, PeerName, RefuseReason, ServerAddress};
use tracing::info;

use super::State;
use super::effect::{Effect, Stored};
use crate::event::Event;
use crate::failure::Failure;
use crate::invitation::evidence::Evidence;
use crate::invitation::link::{InvitationLink, Pass};
use crate::invitation::proof::Secret;
use crate::store::{Acquaintance, Invitations, UsedInvitation, Uses};

/// People who were let in by a link and are connecting: one more takes the place of the
/// first.
const ARRIVING_MAX: usize = 64;

/// What there is to know of links.
#[derive(Debug, Default)]
pub(super) struct Links {
    invitations: Invitations,
    /// The link that the user joins by, until it is known what comes of it.
    joining: Option<Joining>,
    /// Who has proven to have one of ours, and is connecting.
    arriving: Vec<Arriving>,
    /// The inviters to whom we prove to have theirs with the attempt that is under way.
    presented: BTreeSet<PeerKey>,
    /// Those to whom that was tried since they came online.
    tried: BTreeSet<PeerKey>,
}

#[derive(Debug)]
struct Joining {
    link: InvitationLink,
    /// When the user said so, in seconds since 1970.
    at_s: u64,
    /// The inviter was pinned for it; `None` until the server's key is known.
    is_pinned_for_it: Option<bool>,
    is_connecting: bool,
}

#[derive(Debug)]
struct Arriving {
    peer: PeerKey,
    secret: Secret,
}

/// What a link is made of, besides our key.
#[derive(Debug)]
pub(crate) struct NewInvitation {
    /// Our name, if it is another one than that of the login or the profile.
    pub(crate) name: Option<PeerName>,
    /// The server, likewise.
    pub(crate) server: Option<ServerAddress>,
    pub(crate) uses: Uses,
    pub(crate) pass: Pass,
    /// The time, in seconds since 1970.
    pub(crate) now_s: u64,
}

/// What is to be done with somebody who shows something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// Nothing else than without it.
    Nothing,
    /// It is let in as a contact is.
    LetIn,
    /// It gets this answer, and tries again.
    Answer(Evidence),
    Refuse(RefuseReason),
}

impl Links {
    pub(super) fn new(invitations: Invitations) -> Self {
        Self {
            invitations,
            ..Self::default()
        }
    }

    /// A connection to the server is new.
    pub(super) fn try_again(&mut self) {
        self.tried.clear();
    }

    /// Nothing comes of the attempts that are under way.
    pub(super) fn forget_attempts(&mut self) {
        self.presented.clear();
        self.arriving.clear();
    }

    /// Whoever has ended the login joins by nothing.
    pub(super) fn stop_joining(&mut self) {
        self.joining = None;
    }
}

/// Making a link.
impl State {
    /// The invitations as they are stored.
    pub(crate) const fn invitations(&self) -> &Invitations {
        &self.links.invitations
    }

    /// The user wants a link.
    pub(crate) fn handle_invite(&mut self, new: &NewInvitation, now: Instant) {
        self.now = now;
        match self.make_link(new) {
            Ok(link) => {
                if link.pass().is_some() {
                    let invitations = &mut self.links.invitations;
                    invitations.open(new.pass, new.uses, new.now_s);
                    self.store_invitations();
                }
                self.remember_if_first(&link);
                self.emit(Event::Invitation { link });
            }
            Err(detail) => self.fail_command(Failure::NotPossible { detail }),
        }
    }

    /// Whoever has neither a name nor a server yet has those of the link from now on, so
    /// that the next command need not say them again.
    fn remember_if_first(&mut self, link: &InvitationLink) {
        let settings = &mut self.settings;
        let is_first = settings.name.is_none() || settings.server.is_none();
        settings
            .name
            .get_or_insert_with(|| link.inviter().name.clone());
        if settings.server.is_none() {
            settings.server = link.server().cloned();
        }
        if is_first {
            self.store_settings();
        }
    }

    fn make_link(&self, new: &NewInvitation) -> Result<InvitationLink, String> {
        let name = new.name.as_ref().or_else(|| self.login.name());
        let name = name.or(self.settings.name.as_ref()).cloned();
        let name = name.ok_or("You have no name yet that an invitation could say. Choose one.")?;
        let inviter = PeerIdentity {
            name,
            key: self.login.own_key(),
        };
        let server = new.server.as_ref().or_else(|| self.login.server());
        let Some(server) = server.or(self.settings.server.as_ref()) else {
            return Ok(InvitationLink::nearby(inviter));
        };
        let pinned = || {
            self.contacts
                .server_key(server)
                .map(|key| key.fingerprint())
        };
        let Some(fingerprint) = server.fingerprint().or_else(pinned) else {
            return Err(format!(
                "The key of the server {server} is not known yet. Log in there once, and then invite."
            ));
        };
        let server = server.with_fingerprint(fingerprint);
        let link = InvitationLink::at_server(inviter, server, new.pass);
        link.map_err(|error| format!("No link can be made: {error}."))
    }

    fn store_invitations(&mut self) {
        self.effect(Effect::Store(Stored::Invitations));
    }
}

/// Letting in whoever has one of ours.
impl State {
    /// Somebody proves to have a link of ours.
    pub(super) fn proof_shown(
        &mut self,
        peer: &PeerIdentity,
        evidence: Evidence,
        now_s: u64,
    ) -> Shown {
        let Evidence::Proof(proof) = evidence else {
            return Shown::Nothing;
        };
        if self.acquaintance(peer) == (Acquaintance::Known { contact: true }) {
            return Shown::Nothing;
        }
        let own = self.login.own_key();
        let links = &mut self.links;
        let proven = links.invitations.proven(proof, own, peer.key, now_s);
        let Some((secret, uses)) = proven else {
            info!(peer = %peer.name, "refused an invitation that is used up, over or not ours");
            return Shown::Refuse(RefuseReason::InvitationOver);
        };
        links.arriving.retain(|it| it.peer != peer.key);
        let is_taken = |it: &Arriving| it.secret == secret && uses == Uses::Once;
        if links.arriving.iter().any(is_taken) {
            // Whoever came first is about to use it up.
            return Shown::Refuse(RefuseReason::Busy);
        }
        if links.arriving.len() >= ARRIVING_MAX {
            links.arriving.remove(0);
        }
        links.arriving.push(Arriving {
            peer: peer.key,
            secret,
        });
        Shown::LetIn
    }

    /// Somebody is there whom we may have let in for a link. Returns what is to be told of
    /// it.
    pub(super) fn arrived_by_link(
        &mut self,
        server: PeerKey,
        peer: &PeerIdentity,
    ) -> Option<Event> {
        let secret = self.forget_arriving(peer.key)?;
        if self.links.invitations.use_up(secret) {
            self.store_invitations();
        }
        self.make_contact(server, peer);
        Some(Event::Welcomed {
            peer: peer.clone(),
            is_by_code: false,
        })
    }

    /// Nobody with this key is connecting any more. Returns what they have proven to have.
    pub(super) fn forget_arriving(&mut self, peer: PeerKey) -> Option<Secret> {
        let mut arriving = self.links.arriving.iter();
        let place = arriving.position(|it| it.peer == peer)?;
        Some(self.links.arriving.remove(place).secret)
    }

    /// Pins somebody under the name that the server gives it, as a contact. Returns
    /// whether the key is new.
    pub(super) fn make_contact(&mut self, server: PeerKey, peer: &PeerIdentity) -> bool {
        let is_new = self.contacts.meet(server, peer);
        if self.contacts.mark_contact(server, peer) {
            self.keep_sessions_of(peer.key);
            self.store_contacts();
        }
        is_new
    }
}

/// Joining by a link.
impl State {
    /// The user has a link. A login at its server has to be under way.
    pub(crate) fn handle_join(&mut self, link: InvitationLink, at_s: u64, now: Instant) {
        self.now = now;
        self.note_activity();
        if let Some(failure) = self.why_not_join(&link, at_s) {
            return self.fail_command(failure);
        }
        if link.server().is_none() {
            return self.join_nearby(link.inviter().clone());
        }
        self.links.joining = Some(Joining {
            link,
            at_s,
            is_pinned_for_it: None,
            is_connecting: false,
        });
        self.presence.set_watch_stale();
        if self.login.is_online() {
            self.pin_inviter();
        }
        self.drive_join();
    }

    fn why_not_join(&self, link: &InvitationLink, at_s: u64) -> Option<Failure> {
        let inviter = link.inviter();
        let peer = inviter.name.clone();
        let not_possible = |detail: String| Some(Failure::NotPossible { detail });
        if inviter.key == self.login.own_key() {
            return not_possible(
                "This is your own invitation. Give it to somebody else.".to_owned(),
            );
        }
        if link.pass().is_some_and(|pass| pass.ends_at_s <= at_s) {
            return Some(Failure::InvitationOver { peer });
        }
        if self.contacts.is_blocked(inviter.key) {
            return not_possible(format!(
                "You have blocked {peer}. Unblock them, and then join."
            ));
        }
        let server = link.server()?;
        let here = self.login.server().and_then(ServerAddress::fingerprint);
        match here == server.fingerprint() {
            true => None,
            false => not_possible(format!(
                "{peer} invites you to the server {server}. Log in there to join."
            )),
        }
    }

    /// On one network there is nobody to ask.
    fn join_nearby(&mut self, inviter: PeerIdentity) {
        if let Some(failure) = key_failure(&inviter, self.contacts.acquaintance_nearby(&inviter)) {
            return self.fail_command(failure);
        }
        let is_new = self.contacts.meet_nearby(&inviter);
        if self.contacts.mark_contact_nearby(&inviter) || is_new {
            self.store_contacts();
        }
        self.emit(Event::Joined {
            peer: inviter,
            is_told: false,
        });
    }

    /// The key of the server is known, so the inviter can be pinned, before anything is
    /// heard of them.
    pub(super) fn pin_inviter(&mut self) {
        let Some(server) = self.login.server_key() else {
            return;
        };
        let Some(joining) = &self.links.joining else {
            return;
        };
        let is_its = joining.link.server().and_then(ServerAddress::fingerprint)
            == Some(server.fingerprint());
        if joining.is_pinned_for_it.is_some() || !is_its {
            return;
        }
        let (inviter, pass) = (joining.link.inviter().clone(), joining.link.pass());
        let at_s = joining.at_s;
        let is_new = self.make_contact(server, &inviter);
        let Some(joining) = &mut self.links.joining else {
            return;
        };
        joining.is_pinned_for_it = Some(is_new);
        if let Some(pass) = pass {
            let used = UsedInvitation {
                server: server.fingerprint(),
                inviter,
                pass,
            };
            self.links.invitations.use_one(used, at_s);
            self.store_invitations();
        }
    }

    /// Takes the next step once the server has said who is online.
    pub(super) fn drive_join(&mut self) {
        let Some(joining) = &self.links.joining else {
            return;
        };
        let Some(server) = self.login.server_key() else {
            return;
        };
        let is_known_of = self.presence.knows_of(&joining.link.inviter().name);
        if !self.login.is_announced() || !is_known_of || joining.is_connecting {
            return;
        }
        let has_pass = joining.link.pass().is_some();
        let inviter = joining.link.inviter().clone();
        let acquaintance = self.contacts.acquaintance(server, &inviter);
        let online = self.presence.online().find(|it| it.name == inviter.name);
        let failure = key_failure(&inviter, acquaintance).or_else(|| {
            let other = online.as_ref().filter(|it| it.key != inviter.key)?;
            Some(other_key(&inviter, other.key))
        });
        if let Some(failure) = failure {
            return self.fail_join(failure);
        }
        if !has_pass || online.is_none() {
            return self.joined(inviter, false);
        }
        if let Some(joining) = &mut self.links.joining {
            joining.is_connecting = true;
        }
        if self.begin_connecting(&inviter).is_err() {
            self.joined(inviter, false);
        }
    }

    fn joined(&mut self, peer: PeerIdentity, is_told: bool) {
        self.links.joining = None;
        self.emit(Event::Joined { peer, is_told });
    }

    fn fail_join(&mut self, failure: Failure) {
        if let Some(joining) = self.links.joining.take() {
            self.undo_join(joining.link.inviter(), joining.is_pinned_for_it);
        }
        self.fail_command(failure);
    }

    /// An invitation has led to nothing: who was pinned for it alone is a stranger again.
    fn undo_join(&mut self, inviter: &PeerIdentity, is_pinned_for_it: Option<bool>) {
        if self.links.invitations.settle(inviter.key) {
            self.store_invitations();
        }
        if let (Some(server), Some(true)) = (self.login.server_key(), is_pinned_for_it)
            && self.contacts.forget_at(server, inviter)
        {
            self.store_contacts();
        }
    }

    /// The names that concern us because their holders have invited us.
    pub(super) fn inviters(&self, server: Option<PeerKey>) -> impl Iterator<Item = PeerName> {
        let joining = self.links.joining.iter();
        let joining = joining.map(|joining| joining.link.inviter().name.clone());
        let fingerprint = server.map(|key| key.fingerprint());
        let used = fingerprint.into_iter().flat_map(|at| {
            let used = self.links.invitations.used_at(at);
            used.map(|it| it.inviter.name.clone())
        });
        joining.chain(used)
    }

    /// What shows this inviter that we have an invitation of theirs of which they do not
    /// know.
    pub(super) fn proof_for(&self, inviter: PeerKey) -> Option<Evidence> {
        let server = self.login.server_key()?.fingerprint();
        let mut used = self.links.invitations.used_at(server);
        let used = used.find(|it| it.inviter.key == inviter)?;
        let proof = used.pass.secret.proof(inviter, self.login.own_key());
        Some(Evidence::Proof(proof))
    }

    /// An attempt to connect shows a proof.
    pub(super) fn note_presented(&mut self, inviter: PeerKey) {
        self.links.presented.insert(inviter);
        self.links.tried.insert(inviter);
    }

    /// Shows every inviter who is online that we have used an invitation of theirs, once
    /// each time they come. A run that takes nothing disturbs nobody for it.
    pub(super) fn present_proofs(&mut self) {
        let online: BTreeSet<_> = self.presence.online().map(|it| it.key).collect();
        self.links.tried.retain(|key| online.contains(key));
        let Some(server) = self.login.server_key() else {
            return;
        };
        if self.overrides.takes_nothing {
            return;
        }
        let used = self.links.invitations.used_at(server.fingerprint());
        let is_due = |it: &PeerIdentity| {
            self.presence.is_on_server(it) && !self.links.tried.contains(&it.key)
        };
        let due: Vec<_> = used.map(|it| it.inviter.clone()).filter(is_due).collect();
        for inviter in due {
            // Not being connected to the server is no news here.
            let _ = self.begin_connecting(&inviter);
        }
    }

    /// An attempt to connect to somebody has ended that may have begun before we joined
    /// them: then it has shown nothing.
    pub(super) fn show_after_all(&mut self, peer: PeerKey) {
        let is_due = |it: &&mut Joining| it.is_connecting && it.link.inviter().key == peer;
        if let Some(joining) = self.links.joining.as_mut().filter(is_due) {
            joining.is_connecting = false;
            self.drive_join();
        }
    }

    /// An attempt to connect to somebody has ended. Returns what is to be told of it.
    pub(super) fn proof_taken(&mut self, peer: &PeerIdentity) -> Option<Event> {
        let was_presented = self.links.presented.remove(&peer.key);
        if was_presented && self.links.invitations.settle(peer.key) {
            self.store_invitations();
        }
        self.links.joining.take_if(|joining| {
            was_presented && joining.is_connecting && joining.link.inviter().key == peer.key
        })?;
        Some(Event::Joined {
            peer: peer.clone(),
            is_told: true,
        })
    }

    /// An attempt to connect to somebody has failed. Returns whether there is another one,
    /// without the proof that was refused.
    pub(super) fn proof_not_taken(&mut self, peer: &PeerIdentity, failure: &Failure) -> bool {
        if !self.links.presented.remove(&peer.key) {
            return false;
        }
        let is_over = matches!(failure, Failure::InvitationOver { .. });
        let is_joining = self
            .links
            .joining
            .as_ref()
            .is_some_and(|joining| joining.link.inviter().key == peer.key);
        if is_joining {
            match is_over || is_about_keys(failure) {
                true => self.fail_join(failure.clone()),
                // They hear of it another time.
                false => self.joined(peer.clone(), false),
            }
            return false;
        }
        if !is_over {
            return false;
        }
        info!(peer = %peer.name, "the invitation was over before the inviter heard of it");
        if self.links.invitations.settle(peer.key) {
            self.store_invitations();
        }
        let is_waited_for = self.transfers.values().any(|it| it.waits_for(peer.key));
        is_waited_for && self.begin_connecting(peer).is_ok()
    }
}

/// Why nobody with this key is joined.
fn key_failure(inviter: &PeerIdentity, acquaintance: Acquaintance) -> Option<Failure> {
    let peer = inviter.name.clone();
    match acquaintance {
        Acquaintance::New | Acquaintance::Known { .. } => None,
        Acquaintance::Revoked => Some(Failure::PeerKeyRevoked { peer }),
        Acquaintance::KeyChanged { pinned } => Some(Failure::PeerKeyChanged {
            peer,
            known: pinned.fingerprint(),
            now: inviter.key.fingerprint(),
        }),
    }
}

/// The server knows somebody else under the inviter's name.
fn other_key(inviter: &PeerIdentity, found: PeerKey) -> Failure {
    Failure::InviterKeyDiffers {
        peer: inviter.name.clone(),
        invited: inviter.key.fingerprint(),
        found: found.fingerprint(),
    }
}

const fn is_about_keys(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::PeerKeyChanged { .. }
            | Failure::PeerNotAuthentic { .. }
            | Failure::RefusedByPeer { .. }
    )
}
