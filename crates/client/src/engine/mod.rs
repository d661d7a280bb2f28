//! The engine: one task that owns all state.
//!
//! Whatever happens (a command, a word of the server, an event of a session)
//! reaches it as an [`Input`] through one bounded queue, is handled to the end,
//! and shows in the next snapshot. Slow work (connecting, scanning folders, making
//! ready where files go) runs in tasks of its own that send their outcome as an
//! input.

mod accepting;
mod admission;
mod cleanup;
mod diagnose;
mod explain;
mod freed;
mod login;
mod nearby;
mod path_monitor;
mod permissions;
mod preferences;
mod queue;
mod receiving;
mod resume;
mod sending;
mod sessions;
mod transfers;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pinhole_net::diagnosis::Diagnosis;
use pinhole_net::{
    KnownKeys, LiveSessions, NearbyEvent, PathPolicy, PeerIdentity, PeerKey, PeerName, PortMapper,
    ProxyChoice,
};
use pinhole_transfer::Resources;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::warn;

pub(crate) use self::accepting::{make_and_open, not_opened};
use self::admission::Admission;
use self::cleanup::{Holder, PartialTransfer};
use self::diagnose::Diagnosing;
use self::freed::Freed;
use self::login::{Login, LoginId, LoginInput};
use self::nearby::{NearbyId, Neighbourhood};
use self::permissions::Permissions;
pub(crate) use self::queue::Queued;
use self::sessions::{LoginEpoch, PeerSession, SessionId, SessionInput};
use self::transfers::{Transfer, TransferInput};
use crate::attempts::Attempts;
use crate::command::Command;
use crate::consent::{Deliveries, Yes};
use crate::contacts::{Acquaintance, Contacts};
use crate::event::Event;
use crate::failure::Failure;
use crate::history::History;
use crate::profile::{Profile, ProfileError, ProfileWriter};
use crate::settings::{Overrides, Settings};
use crate::snapshot::{Direction, PeerView, Snapshot, TransferId};

/// How often progress is sampled while bytes move.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// How long the router may take at the end to close the ports it opened.
const PORTS_RELEASED_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the disk may take at the end to store what has changed.
const PROFILE_STORED_TIMEOUT: Duration = Duration::from_secs(3);

/// Everything that reaches the engine.
#[derive(Debug)]
pub(crate) enum Input {
    Login {
        login: LoginId,
        input: LoginInput,
    },
    Nearby {
        id: NearbyId,
        event: NearbyEvent,
    },
    Session(SessionInput),
    Transfer(TransferInput),
    Diagnosed(Arc<Diagnosis>),
    /// Something of the profile could not be stored.
    NotStored(ProfileError),
    /// The addresses of this machine are others now.
    Network,
}

/// The engine's state.
pub(crate) struct Engine {
    profile: Profile,
    writer: ProfileWriter,
    settings: Settings,
    contacts: Contacts,
    /// As the snapshot has them.
    pinned: Arc<Vec<PeerIdentity>>,
    history: History,
    attempts: Attempts,
    diagnosing: Diagnosing,
    overrides: Overrides,
    /// Shared by all sessions.
    resources: Resources,
    /// As in force, for the login.
    proxy: watch::Sender<ProxyChoice>,
    port_mapper: PortMapper,
    login: Login,
    presence: BTreeMap<PeerName, PeerKey>,
    nearby: Neighbourhood,
    era: LoginEpoch,
    sessions: HashMap<SessionId, PeerSession>,
    /// The same, as the network knows them.
    live_sessions: LiveSessions,
    /// The keys of contacts, as the network knows them.
    known: KnownKeys,
    connecting: HashSet<PeerKey>,
    admission: Admission,
    permissions: Permissions,
    stall_detector: path_monitor::StallDetector,
    freed: Freed,
    transfers: BTreeMap<TransferId, Transfer>,
    /// Of transfers that were cancelled while something still held it.
    leftovers: HashMap<Holder, PartialTransfer>,
    delivered: Deliveries,
    next_id: u64,
    inputs: mpsc::Sender<Input>,
    outputs: Outputs,
}

/// The ways out to the face.
pub(crate) struct Outputs {
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) snapshot: watch::Sender<Arc<Snapshot>>,
    pub(crate) wake: Arc<dyn Fn() + Send + Sync>,
}

impl Engine {
    /// An engine for an open profile.
    pub(crate) fn new(
        profile: Profile,
        overrides: Overrides,
        inputs: mpsc::Sender<Input>,
        outputs: impl FnOnce(Arc<Snapshot>) -> Outputs,
    ) -> Result<Self, ProfileError> {
        let settings = profile.load_settings()?;
        let contacts = profile.load_contacts()?;
        let history = History::load(&profile)?;
        let attempts = Attempts::load(&profile);
        let failures = inputs.clone();
        let writer = profile.writer(move |error| {
            // The engine does not take inputs any more when it ends.
            if let Err(refused) = failures.try_send(Input::NotStored(error)) {
                warn!(?refused, "nobody hears that the profile is not stored");
            }
        })?;
        let login = Login::logged_out();
        let first = snapshot(
            &profile,
            settings.with(&overrides),
            &history,
            (&login, &Neighbourhood::default()),
            Vec::new(),
            Vec::new(),
        );
        let mut engine = Self {
            outputs: outputs(Arc::new(first)),
            proxy: watch::Sender::new(settings.with(&overrides).proxy),
            profile,
            writer,
            settings,
            pinned: Arc::new(contacts.pinned()),
            contacts,
            history,
            attempts,
            diagnosing: Diagnosing::default(),
            overrides,
            resources: Resources::default(),
            port_mapper: PortMapper::default(),
            login,
            presence: BTreeMap::new(),
            nearby: Neighbourhood::default(),
            era: LoginEpoch::default(),
            sessions: HashMap::new(),
            live_sessions: LiveSessions::default(),
            known: KnownKeys::default(),
            connecting: HashSet::new(),
            admission: Admission::default(),
            permissions: Permissions::default(),
            stall_detector: path_monitor::StallDetector::default(),
            freed: Freed::default(),
            transfers: BTreeMap::new(),
            leftovers: HashMap::new(),
            delivered: Deliveries::default(),
            next_id: 1,
            inputs,
        };
        engine.known.set(engine.contacts.keys());
        engine.apply_limits();
        engine.obey_port_mapping();
        engine.load_queue()?;
        engine.publish();
        Ok(engine)
    }

    /// The state from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.outputs.snapshot.subscribe()
    }

    /// Runs until every sender of `commands` is gone, then ends all sessions.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut inputs: mpsc::Receiver<Input>,
    ) {
        tokio::spawn(path_monitor::watch_network(self.inputs.clone()));
        let mut sampling = interval(PROGRESS_INTERVAL);
        sampling.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.handle_command(command).await,
                    None => break,
                },
                Some(input) = inputs.recv() => self.handle(input).await,
                _ = sampling.tick(), if self.is_moving() => {
                    self.sample_progress();
                    self.attend_to_silence();
                }
                () = sleep_until(self.next_improvement()) => self.improve_paths(),
                () = sleep_until(self.next_idle_end()) => self.close_idle_sessions(),
                () = sleep_until(self.next_attempt()) => self.drive_reconnects().await,
                () = sleep_until(self.freed.due()) => self.freed.give_back(&self.resources),
            }
            self.publish();
        }
        self.log_out().await;
        self.port_mapper.all_released(PORTS_RELEASED_TIMEOUT).await;
        let writer = self.writer;
        let finished = spawn_blocking(move || writer.finish(PROFILE_STORED_TIMEOUT));
        if !finished.await.unwrap_or(false) {
            warn!("the disk does not answer: the latest changes of the profile are lost");
        }
    }

    async fn handle(&mut self, input: Input) {
        match input {
            Input::Login { login, input } => self.handle_login(login, input).await,
            Input::Nearby { id, event } => self.handle_nearby(id, event).await,
            Input::Session(input) => self.handle_session(input).await,
            Input::Transfer(input) => self.handle_transfer(input).await,
            Input::NotStored(error) => self.report_profile(Err(error)).await,
            Input::Network => self.network_changed(),
            Input::Diagnosed(diagnosis) => self.take_diagnosis(diagnosis).await,
        }
    }

    async fn handle_command(&mut self, command: Command) {
        match command {
            Command::LogIn {
                name,
                server,
                patient,
            } => self.log_in(name, server, patient).await,
            Command::GoNearby {
                name,
                announces,
                alone,
            } => self.go_nearby(name, announces, alone).await,
            Command::SetNearby { on } => self.set_nearby(on).await,
            Command::LogOut => self.log_out().await,
            Command::Send { peer, paths } => self.send(peer, paths).await,
            Command::SendText { peer, text } => self.send_text(peer, text).await,
            Command::Accept {
                transfer,
                into,
                unwanted,
                existing,
            } => {
                let chosen = (into, unwanted, existing);
                self.accept(transfer, chosen, Yes::User).await;
            }
            Command::TextShown { transfer } => self.text_shown(transfer).await,
            Command::Pause { transfer, paused } => self.pause(transfer, paused),
            Command::Interrupt { transfer } => self.interrupt(transfer).await,
            Command::Decline { transfer } => self.decline(transfer).await,
            Command::DeclineAll => self.decline_all().await,
            Command::Allow { peer } => self.allow(peer),
            Command::Block { peer } => self.block(peer).await,
            Command::Unblock { peer } => self.unblock(peer).await,
            Command::Forget { peer } => self.forget(peer).await,
            Command::SetStrangers { strangers } => self.set_strangers(strangers).await,
            Command::Cancel { transfer } => self.cancel(transfer).await,
            Command::Retry { transfer } => self.retry(transfer).await,
            Command::Dismiss { transfer } => self.dismiss(transfer),
            Command::Diagnose { server } => self.diagnose(server).await,
            Command::ClearHistory => self.history.clear(&self.writer),
            Command::TrustNewKey { peer } => self.trust_new_key(peer).await,
            Command::SetDownloadFolder { folder } => self.set_download_folder(folder).await,
            Command::SetProxy { proxy } => self.set_proxy(proxy).await,
            Command::SetAcceptPolicy { policy } => self.set_accept_policy(policy).await,
            Command::SetUnaskedBytesMax { bytes } => self.set_unasked_bytes_max(bytes).await,
            Command::SetExisting { existing } => self.set_existing(existing).await,
            Command::SetKeepsExecutable { keeps } => self.set_keeps_executable(keeps).await,
            Command::SetAutoLogIn { on } => self.set_auto_log_in(on).await,
            Command::SetPortMapping { enabled } => self.set_port_mapping(enabled).await,
            Command::SetLimits { send, receive } => self.set_limits(send, receive).await,
        }
    }

    /// The settings as this run obeys them.
    fn in_force(&self) -> Settings {
        self.settings.with(&self.overrides)
    }

    async fn trust_new_key(&mut self, peer: PeerKey) {
        let Some(identity) = self.identity_of(peer) else {
            return;
        };
        if let Acquaintance::Known { .. } = self.acquaintance(&identity) {
            return;
        }
        match self.server_of(&identity) {
            Some(server) => self.contacts.replace(server, &identity),
            None => self.contacts.replace_nearby(&identity),
        }
        self.store_contacts().await;
    }

    async fn store_settings(&mut self) {
        let stored = self.writer.store_settings(&self.settings);
        self.report_profile(stored).await;
    }

    async fn store_contacts(&mut self) {
        self.pinned = Arc::new(self.contacts.pinned());
        self.known.set(self.contacts.keys());
        let stored = self.writer.store_contacts(&self.contacts);
        self.report_profile(stored).await;
    }

    async fn report_profile(&self, stored: Result<(), ProfileError>) {
        if let Err(e) = stored {
            let failure = Failure::Profile {
                detail: e.to_string(),
            };
            self.emit(Event::CommandFailed { failure }).await;
        }
    }

    /// The peer in the roster, of a session, among the contacts, or nearby, with
    /// this key.
    fn identity_of(&self, key: PeerKey) -> Option<PeerIdentity> {
        let of_sessions = self.sessions.values().map(|s| s.peer().clone());
        let known = self.online().chain(of_sessions).chain(self.contacts_here());
        let mut known = known.chain(self.nearby.peers());
        known.find(|peer| peer.key == key)
    }

    fn online(&self) -> impl Iterator<Item = PeerIdentity> {
        self.presence.iter().map(|(name, &key)| PeerIdentity {
            name: name.clone(),
            key,
        })
    }

    /// Whether files can be sent to it now.
    fn is_online(&self, peer: &PeerIdentity) -> bool {
        self.is_on_server(peer) || self.nearby.has(peer.key)
    }

    /// Whether the server says that it is online.
    fn is_on_server(&self, peer: &PeerIdentity) -> bool {
        self.presence.get(&peer.name) == Some(&peer.key)
    }

    /// The server that vouches for its name, if the one we are logged in to
    /// does, or has.
    fn server_of(&self, peer: &PeerIdentity) -> Option<PeerKey> {
        let server = self.login.server_key()?;
        let is_known = || {
            let acquaintance = self.contacts.acquaintance(server, peer);
            matches!(acquaintance, Acquaintance::Known { .. })
        };
        (self.is_on_server(peer) || is_known()).then_some(server)
    }

    /// Whether the server, asked now, would say that the peer of this transfer is
    /// offline.
    fn is_said_to_be_gone(&self, transfer: &Transfer) -> bool {
        let peer = &transfer.peer;
        // A stranger whom it named is not among those that are pinned.
        let is_named = self.server_of(peer).is_some()
            || transfer.direction == Direction::Receiving && !transfer.claimed;
        self.login.rendezvous().is_some() && is_named && !self.is_online(peer)
    }

    /// Contacts whose names are of this server, online or not.
    fn contacts_here(&self) -> impl Iterator<Item = PeerIdentity> {
        let server = self.login.server_key();
        server
            .into_iter()
            .flat_map(|server| self.contacts.of_server(server))
    }

    fn acquaintance(&self, peer: &PeerIdentity) -> Acquaintance {
        match self.server_of(peer) {
            Some(server) => self.contacts.acquaintance(server, peer),
            None => self.contacts.acquaintance_nearby(peer),
        }
    }

    /// Whether nobody but itself says that this is its name.
    fn is_only_claimed(&self, peer: &PeerIdentity) -> bool {
        let is_contact = self.acquaintance(peer) == Acquaintance::Known { contact: true };
        !is_contact && !self.is_on_server(peer) && !self.contacts.is_vouched_for(peer)
    }

    fn path_policy(&self) -> PathPolicy {
        self.in_force().path
    }

    fn next_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Waits for room: a face that stops taking events stops its engine
    /// rather than losing the news that a transfer has finished.
    async fn emit(&self, event: Event) {
        // A face that is gone needs no events.
        let _ = self.outputs.events.send(event).await;
    }

    fn publish(&self) {
        // Of one name, who is online hides the contact that had it before.
        let vouched_for: BTreeMap<PeerName, PeerKey> = self
            .contacts_here()
            .chain(self.online())
            .map(|peer| (peer.name, peer.key))
            .collect();
        let known: HashSet<PeerKey> = vouched_for.values().copied().collect();
        let others = self
            .nearby
            .peers()
            .filter(|peer| !known.contains(&peer.key));
        let vouched_for = vouched_for.into_iter();
        let mut peers: Vec<PeerView> = vouched_for
            .map(|(name, key)| PeerIdentity { name, key })
            .chain(others)
            .map(|peer| self.peer_view(peer))
            .collect();
        peers.sort_by(|one, other| one.identity.name.cmp(&other.identity.name));
        let transfers = self.transfers.iter().map(|(&id, t)| t.view(id)).collect();
        let next = Snapshot {
            attempts: self.attempts.entries(),
            is_diagnosing: self.diagnosing.is_running,
            diagnosis: self.diagnosing.last.clone(),
            asking: self.permissions.asking(),
            contacts: self.pinned.clone(),
            blocked: self.contacts.blocked(),
            ..snapshot(
                &self.profile,
                self.in_force(),
                &self.history,
                (&self.login, &self.nearby),
                peers,
                transfers,
            )
        };
        self.outputs.snapshot.send_replace(Arc::new(next));
        (self.outputs.wake)();
    }

    fn peer_view(&self, identity: PeerIdentity) -> PeerView {
        let acquaintance = self.acquaintance(&identity);
        let session = self.sessions.values().find(|s| s.peer() == &identity);
        let changed_from = match acquaintance {
            Acquaintance::KeyChanged { pinned } => Some(pinned.fingerprint()),
            Acquaintance::New | Acquaintance::Known { .. } => None,
        };
        PeerView {
            contact: acquaintance == Acquaintance::Known { contact: true },
            changed_from,
            path: session.map(PeerSession::path),
            online: self.is_online(&identity),
            nearby: self.nearby.has(identity.key),
            claimed: self.is_only_claimed(&identity),
            identity,
        }
    }
}

fn snapshot(
    profile: &Profile,
    settings: Settings,
    history: &History,
    (login, nearby): (&Login, &Neighbourhood),
    peers: Vec<PeerView>,
    transfers: Vec<crate::snapshot::TransferView>,
) -> Snapshot {
    let key = profile.identity().key();
    Snapshot {
        login: login.view(),
        nearby: nearby.name(),
        fingerprint: key.fingerprint(),
        key,
        peers,
        transfers,
        asking: Vec::new(),
        contacts: Arc::default(),
        blocked: Vec::new(),
        history: history.entries(),
        attempts: Arc::default(),
        is_diagnosing: false,
        diagnosis: None,
        download_folder: download_folder(profile, &settings),
        settings,
    }
}

/// Where accepted files go.
fn download_folder(profile: &Profile, settings: &Settings) -> PathBuf {
    let chosen = settings.download_folder.as_deref();
    chosen
        .unwrap_or_else(|| profile.default_download_folder())
        .to_owned()
}

/// Sleeps for ever when there is nothing to wait for.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
