//! The application's state. No I/O, no clock: every input comes with the time at
//! which it is handled, and what is to be done comes out as [`Effect`]s.
//!
//! ```text
//! handle_*(…, now) ──► State ──► poll_effect(), poll_timeout(), snapshot()
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`activity`] | whether a port is worth being kept ready |
//! | [`faces`] | several faces at one engine |
//! | [`login`], [`retries`] | being logged in, again and again |
//! | [`links`], [`codes`] | meeting somebody for the first time |
//! | [`presence`] | who is online, who is nearby, and whose key is whose |
//! | [`key_history`] | keys that have changed or were revoked |
//! | [`permissions`] | who may connect, who is blocked |
//! | [`admission`] | how much others may make this side hold |
//! | [`sessions`], [`path_monitor`] | connections to peers, and when one is left for another |
//! | [`transfers`] | each transfer, from the command or the offer to its end |
//! | [`preferences`] | what the user changes in the settings |

mod activity;
mod admission;
mod codes;
mod effect;
mod faces;
mod ids;
mod key_history;
mod links;
mod login;
mod path_monitor;
mod permissions;
mod preferences;
mod presence;
mod retries;
mod sessions;
mod transfers;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use pinhole_net::{PeerIdentity, PeerKey, PeerName};

use self::activity::Activity;
use self::admission::Admission;
use self::codes::Codes;
pub(crate) use self::effect::{
    Arrived, ConnectPlan, Effect, Effort, ExchangeEffect, FileEffect, LoginEffect, PartialTransfer,
    SessionEffect, Stored,
};
pub(crate) use self::ids::{Carrier, ConnectionId, Epoch, SessionId};
use self::key_history::KeyDoubts;
use self::links::Links;
pub(crate) use self::links::NewInvitation;
use self::login::Login;
pub(crate) use self::login::{LoggedInTo, LoginInput};
pub(crate) use self::path_monitor::SessionSample;
use self::permissions::Permissions;
use self::presence::Presence;
use self::sessions::Sessions;
pub(crate) use self::sessions::{Admitted, Connected, Introduced, NewSession, NoSession, Told};
pub(crate) use self::transfers::NotPrepared;
use self::transfers::Transfers;
use crate::command::Command;
use crate::consent::{Deliveries, Policy, Yes};
use crate::event::Event;
use crate::failure::Failure;
use crate::model::FaceId;
use crate::snapshot::{PeerView, Snapshot, TransferView};
use crate::store::Queued;
use crate::store::{Acquaintance, Contacts, Invitations};
use crate::store::{Overrides, Settings};

/// Everything that the application knows and wants.
pub(crate) struct State {
    settings: Settings,
    overrides: Overrides,
    default_folder: PathBuf,
    contacts: Contacts,
    /// The pinned peers, as the snapshot shows them.
    pinned: Arc<Vec<PeerIdentity>>,
    login: Login,
    activity: Activity,
    presence: Presence,
    doubts: KeyDoubts,
    permissions: Permissions,
    links: Links,
    codes: Codes,
    admission: Admission,
    sessions: Sessions,
    transfers: Transfers,
    delivered: Deliveries,
    next_id: u64,
    /// Whose command is being handled; otherwise the engine's own face.
    asking: FaceId,
    /// When the input arrived that is being handled.
    now: Instant,
    effects: VecDeque<Effect>,
}

/// What a run begins with.
pub(crate) struct Stores {
    pub(crate) settings: Settings,
    pub(crate) overrides: Overrides,
    pub(crate) contacts: Contacts,
    pub(crate) queue: Vec<Queued>,
    pub(crate) invitations: Invitations,
    /// Where accepted files go unless the settings say otherwise.
    pub(crate) default_folder: PathBuf,
    /// Our own key.
    pub(crate) key: PeerKey,
}

impl State {
    pub(crate) fn new(stores: Stores, now: Instant) -> Self {
        let mut state = Self {
            settings: stores.settings,
            overrides: stores.overrides,
            default_folder: stores.default_folder,
            pinned: Arc::new(stores.contacts.pinned()),
            contacts: stores.contacts,
            login: Login::new(stores.key),
            activity: Activity::default(),
            presence: Presence::default(),
            doubts: KeyDoubts::default(),
            permissions: Permissions::default(),
            links: Links::new(stores.invitations),
            codes: Codes::default(),
            admission: Admission::default(),
            sessions: Sessions::default(),
            transfers: Transfers::default(),
            delivered: Deliveries::default(),
            next_id: 1,
            asking: FaceId::OWN,
            now,
            effects: VecDeque::new(),
        };
        for queued in stores.queue {
            state.add_queued(queued);
        }
        state
    }

    /// What is to be done next, until there is nothing.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        if self.effects.is_empty() {
            self.update_watched();
            self.review_activity();
        }
        self.effects.pop_front()
    }

    /// When [`State::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let timers = [
            self.login.next_timeout(),
            self.codes.next_timeout(),
            self.activity.next_timeout(),
            self.sessions.next_improvement(),
            self.sessions.next_idle_end(),
            self.transfers.next_reconnect(),
            self.transfers.next_queue_attempt(),
        ];
        timers.into_iter().flatten().min()
    }

    /// It is time for something.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.login_timeout();
        self.codes_timeout();
        self.improve_paths();
        self.close_idle_sessions();
        self.drive_reconnects();
        self.queue_timeout();
        self.review_activity();
    }

    /// A command of an attached face.
    pub(crate) fn handle_command_of(&mut self, face: FaceId, command: Command, now: Instant) {
        self.asking = face;
        self.handle_command(command, now);
        self.asking = FaceId::OWN;
    }

    /// A command, of the engine's own face unless another one is asking.
    pub(crate) fn handle_command(&mut self, command: Command, now: Instant) {
        self.now = now;
        // The face says by itself that words were shown.
        if !matches!(command, Command::TextShown { .. }) {
            self.note_activity();
        }
        match command {
            Command::Attend { stays } => self.attend(stays),
            Command::LogIn { name, server, .. } if self.joins_login() => {
                self.join_login(&name, &server);
            }
            Command::LogIn {
                name,
                server,
                patient,
            } => self.log_in(name, server, patient),
            Command::GoNearby { name, .. } if self.joins_nearby() => self.share_nearby(name),
            Command::GoNearby {
                name,
                announces,
                alone,
            } => self.go_nearby(name, announces, alone),
            Command::LogOut => self.log_out(),
            Command::LookUp { name } => self.look_up(&name),
            Command::CloseCode => self.close_code(),
            Command::JoinCode { code } => self.join_code(code),
            Command::Send { peer, paths } => self.send(peer, paths),
            Command::SendStream { peer, name, input } => self.send_stream(peer, name, input),
            Command::SendText { peer, text } => self.send_text(peer, text),
            Command::Accept {
                transfer,
                into,
                unwanted,
                existing,
            } => self.accept(transfer, (into, unwanted, existing), Yes::User),
            Command::TextShown { transfer } => self.text_shown(transfer),
            Command::Pause { transfer, paused } => self.pause(transfer, paused),
            Command::Interrupt { transfer } => self.interrupt(transfer),
            Command::Decline { transfer } => self.decline(transfer),
            Command::DeclineAll => self.decline_all(),
            Command::Allow { peer } => self.allow(peer),
            Command::Block { peer } => self.block(peer, None),
            Command::Unblock { peer } => self.unblock(peer),
            Command::Forget { peer } => self.forget(peer),
            Command::Cancel { transfer } => self.cancel(transfer),
            Command::Retry { transfer } => self.retry(transfer),
            Command::Dismiss { transfer } => self.dismiss(transfer),
            Command::TrustNewKey { peer } => self.trust_new_key(peer),
            // They concern no state, or reach it with more than they say.
            Command::Diagnose { .. }
            | Command::Invite { .. }
            | Command::Join { .. }
            | Command::OpenCode
            | Command::ClearHistory
            | Command::NewRecoveryKey
            | Command::Recover { .. }
            | Command::Revoke { .. }
            | Command::Raise { .. } => {}
            setting => self.change_setting(setting),
        }
    }

    /// The program ends.
    pub(crate) fn shut_down(&mut self, now: Instant) {
        self.now = now;
        self.log_out();
    }

    /// The settings as this run obeys them.
    pub(crate) fn in_force(&self) -> Settings {
        self.settings.with(&self.overrides)
    }

    /// The settings as they are stored.
    pub(crate) const fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) const fn contacts(&self) -> &Contacts {
        &self.contacts
    }

    /// Where accepted files go.
    pub(crate) fn download_folder(&self) -> PathBuf {
        let settings = self.in_force();
        settings
            .download_folder
            .unwrap_or_else(|| self.default_folder.clone())
    }

    fn consent(&self) -> Policy {
        Policy::of(&self.in_force())
    }

    fn next_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn effect(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    fn emit(&mut self, event: Event) {
        self.effect(Effect::Emit(event));
    }

    fn fail_command(&mut self, failure: Failure) {
        self.emit(Event::CommandFailed { failure });
    }

    fn store_settings(&mut self) {
        self.effect(Effect::Store(Stored::Settings));
    }

    fn store_contacts(&mut self) {
        self.pinned = Arc::new(self.contacts.pinned());
        self.presence.set_watch_stale();
        self.effect(Effect::Store(Stored::Contacts));
    }

    /// What a face shows of the state. What is kept elsewhere stays empty: the
    /// history, the attempts, the diagnosis.
    pub(crate) fn snapshot(&self, own_key: PeerKey) -> Snapshot {
        Snapshot {
            login: self.login.view(),
            nearby: self.presence.nearby_name().cloned(),
            fingerprint: own_key.fingerprint(),
            key: own_key,
            directory: self.presence.directory(),
            peers: self.peer_views(),
            looked_up: self.presence.looked_up(&self.doubts),
            code: self.codes.open(),
            transfers: self.transfer_views(),
            asking: self.permissions.asking(),
            contacts: self.pinned.clone(),
            blocked: self.contacts.blocked(),
            history: Arc::default(),
            attempts: Arc::default(),
            is_first_run: false,
            has_recovery_key: false,
            is_diagnosing: false,
            diagnosis: None,
            download_folder: self.download_folder(),
            settings: self.in_force(),
        }
    }

    fn transfer_views(&self) -> Vec<TransferView> {
        self.transfers.iter().map(|(id, t)| t.view(id)).collect()
    }

    fn peer_views(&self) -> Vec<PeerView> {
        // A peer that is online hides a contact that had its name before.
        let vouched_for: BTreeMap<PeerName, PeerKey> = self
            .contacts_here()
            .chain(self.presence.online())
            .map(|peer| (peer.name, peer.key))
            .filter(|(name, _)| Some(name) != self.login.name())
            .collect();
        let known: HashSet<PeerKey> = vouched_for.values().copied().collect();
        let nearby = self.presence.nearby();
        let others = nearby.filter(|peer| !known.contains(&peer.key));
        let vouched_for = vouched_for.into_iter();
        let mut peers: Vec<PeerView> = vouched_for
            .map(|(name, key)| PeerIdentity { name, key })
            .chain(others)
            .map(|peer| self.peer_view(peer))
            .collect();
        peers.sort_by(|one, other| one.identity.name.cmp(&other.identity.name));
        peers
    }

    fn peer_view(&self, identity: PeerIdentity) -> PeerView {
        let acquaintance = self.acquaintance(&identity);
        let changed_from = match acquaintance {
            Acquaintance::KeyChanged { pinned } => Some(pinned.fingerprint()),
            _ => None,
        };
        let released = matches!(acquaintance, Acquaintance::KeyChanged { pinned }
            if self.is_released_from(&identity.name, pinned));
        PeerView {
            released,
            revoked: acquaintance == Acquaintance::Revoked,
            contact: acquaintance == Acquaintance::Known { contact: true },
            changed_from,
            path: self.sessions.path_to(&identity),
            online: self.presence.is_online(&identity),
            nearby: self.presence.is_nearby(identity.key),
            claimed: self.is_only_claimed(&identity),
            identity,
        }
    }
}
