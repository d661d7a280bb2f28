//! The engine: the one task that does what the state asks for.
//!
//! Every command, message of the server and event of a session reaches it as an
//! [`Input`] through one bounded queue. It tells the state, carries out
//! the effects, and publishes the next snapshot. Slow work (connecting, listing folders,
//! making ready where files go) runs in tasks of its own that send their outcome as an
//! input.

mod diagnose;
mod disk;
mod faces;
mod freed;
mod invite;
mod login;
mod nearby;
mod recovery;
mod sessions;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pinhole_net::diagnosis::Diagnosis;
use pinhole_net::{KnownKeys, LiveSessions, NearbyEvent, PeerKey, PortMapper};
use pinhole_transfer::Resources;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use self::diagnose::Diagnosing;
use self::disk::{DiskInput, Files};
pub(crate) use self::disk::{make_and_open, not_opened};
pub(crate) use self::faces::{FaceInput, Faces};
use self::freed::Freed;
use self::login::{ServerConnection, ServerInput};
use self::nearby::{NearbyId, Neighbourhood};
use self::recovery::RecoveryInput;
use self::sessions::{LiveSession, SessionInput};
use crate::command::Command;
use crate::event::Event;
use crate::failure::Failure;
use crate::model::{FaceId, Progress, TransferId};
use crate::snapshot::{Snapshot, TransferView};
use crate::state::{
    Carrier, Effect, ExchangeEffect, SessionId, SessionSample, State, Stored, Stores,
};
use crate::store::{
    Attempt, Attempts, History, Overrides, Profile, ProfileError, ProfileWriter, Recovery,
};

/// How often progress is sampled while bytes move.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// How long the router may take at the end to close the ports it opened.
const PORTS_RELEASED_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the disk may take at the end to store what has changed.
const PROFILE_STORED_TIMEOUT: Duration = Duration::from_secs(3);

/// Everything that reaches the engine.
#[derive(Debug)]
pub(crate) enum Input {
    Server(ServerInput),
    Nearby {
        id: NearbyId,
        event: NearbyEvent,
    },
    Session(SessionInput),
    Disk(DiskInput),
    Recovery(Box<RecoveryInput>),
    /// Something of a face that is attached.
    Face(FaceInput),
    Diagnosed(Arc<Diagnosis>),
    /// Something of the profile could not be stored.
    NotStored(ProfileError),
    /// The addresses of this machine are others now.
    Network,
}

/// The state, and all that it needs to reach the world.
pub(crate) struct Engine {
    state: State,
    profile: Profile,
    writer: ProfileWriter,
    recovery: Recovery,
    history: History,
    attempts: Attempts,
    diagnosing: Diagnosing,
    /// Shared by all sessions.
    resources: Resources,
    port_mapper: PortMapper,
    server: ServerConnection,
    nearby: Option<Neighbourhood>,
    next_nearby: NearbyId,
    sessions: HashMap<SessionId, LiveSession>,
    /// The same, as the network knows them.
    live_sessions: LiveSessions,
    closing: Vec<JoinHandle<()>>,
    /// The keys of contacts, as the network knows them.
    known: KnownKeys,
    files: Files,
    freed: Freed,
    inputs: mpsc::Sender<Input>,
    faces: Faces,
}

impl Engine {
    /// An engine for an open profile.
    pub(crate) fn new(
        profile: Profile,
        overrides: Overrides,
        inputs: mpsc::Sender<Input>,
        faces: impl FnOnce(Arc<Snapshot>) -> Faces,
    ) -> Result<Self, ProfileError> {
        let output = overrides.output.clone();
        let stores = Stores {
            settings: profile.load_settings()?,
            overrides,
            contacts: profile.load_contacts()?,
            queue: profile.load_queue()?,
            invitations: profile.load_invitations()?,
            default_folder: profile.default_download_folder().to_owned(),
            key: profile.identity().key(),
        };
        let recovery = profile.load_recovery()?;
        let history = History::parse(&profile.load_history()?);
        // They are not stored durably, so that a file that a power cut has spoilt is no
        // reason to stop.
        let attempts = profile.load_attempts().unwrap_or_else(|error| {
            warn!(%error, "the last attempts to connect are lost");
            Vec::new()
        });
        let failures = inputs.clone();
        let writer = ProfileWriter::new(&profile, move |error| {
            // The engine does not take inputs any more when it ends.
            if let Err(refused) = failures.try_send(Input::NotStored(error)) {
                warn!(?refused, "nobody hears that the profile is not stored");
            }
        })?;
        let state = State::new(stores, Instant::now());
        let first = state.snapshot(profile.identity().key());
        let engine = Self {
            faces: faces(Arc::new(first)),
            state,
            profile,
            writer,
            recovery,
            history,
            attempts: Attempts::new(attempts),
            diagnosing: Diagnosing::default(),
            resources: Resources::default(),
            port_mapper: PortMapper::default(),
            server: ServerConnection::default(),
            nearby: None,
            next_nearby: NearbyId::default(),
            sessions: HashMap::new(),
            live_sessions: LiveSessions::default(),
            closing: Vec::new(),
            known: KnownKeys::default(),
            files: Files::new(output),
            freed: Freed::default(),
            inputs,
        };
        engine.known.set(engine.state.contacts().keys());
        engine.obey_settings();
        engine.publish();
        Ok(engine)
    }

    /// The state from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.faces.subscribe()
    }

    /// Runs until its own face, the sender of `commands`, is gone, then ends all sessions.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut inputs: mpsc::Receiver<Input>,
    ) {
        tokio::spawn(sessions::watch_network(self.inputs.clone()));
        let mut sampling = interval(PROGRESS_INTERVAL);
        sampling.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.handle_command(FaceId::OWN, command).await,
                    None => break,
                },
                Some(input) = inputs.recv() => self.handle(input).await,
                _ = sampling.tick(), if self.state.is_moving() => self.sample(),
                () = sleep_until(self.state.poll_timeout()) => {
                    self.state.handle_timeout(Instant::now());
                }
                () = sleep_until(self.freed.due()) => self.freed.give_back(&self.resources),
            }
            self.run_effects().await;
            self.faces.end_command();
            self.publish();
        }
        self.state.shut_down(Instant::now());
        self.run_effects().await;
        self.faces.let_go();
        inputs.close();
        self.port_mapper.all_released(PORTS_RELEASED_TIMEOUT).await;
        let writer = self.writer;
        let finished = spawn_blocking(move || writer.finish(PROFILE_STORED_TIMEOUT));
        if !finished.await.unwrap_or(false) {
            warn!("the disk does not answer: the latest changes of the profile are lost");
        }
    }

    async fn handle(&mut self, input: Input) {
        self.sample_progress();
        match input {
            Input::Server(input) => self.handle_server(input).await,
            Input::Nearby { id, event } => self.handle_nearby(id, event),
            Input::Session(input) => self.handle_session(input),
            Input::Disk(input) => self.handle_disk(input),
            Input::NotStored(error) => self.report_profile(Err(error)).await,
            Input::Recovery(input) => self.handle_recovery(*input).await,
            Input::Face(input) => self.handle_face(input).await,
            Input::Network => self.state.handle_network_changed(Instant::now()),
            Input::Diagnosed(diagnosis) => self.take_diagnosis(diagnosis).await,
        }
    }

    async fn handle_face(&mut self, input: FaceInput) {
        match input {
            FaceInput::Came { face, events } => self.faces.add(face, events),
            FaceInput::Command { face, command } => self.handle_command(face, command).await,
            FaceInput::Gone { face } => {
                self.faces.remove(face);
                self.state.handle_face_gone(face, Instant::now());
            }
        }
    }

    async fn handle_command(&mut self, face: FaceId, command: Command) {
        self.sample_progress();
        self.faces.begin_command(face);
        let now = Instant::now();
        match command {
            Command::Diagnose { server } => self.diagnose(server).await,
            Command::NewRecoveryKey => self.make_recovery_key().await,
            command @ (Command::Invite { .. } | Command::Join { .. } | Command::OpenCode) => {
                self.meet(command).await;
            }
            Command::Recover {
                name,
                server,
                words,
            } => self.recover(name, server, &words).await,
            Command::Revoke {
                name,
                server,
                words,
            } => self.revoke(name, server, words.as_ref()).await,
            Command::ClearHistory => {
                let change = self.history.clear();
                self.writer.change_history(change);
            }
            Command::Block { peer } => {
                let met = self.history.find(peer);
                self.state.handle_block(peer, met, now);
            }
            Command::Raise { paths, link } => {
                self.faces.tell_own(Event::Raised { paths, link }).await;
            }
            command => self.state.handle_command_of(face, command, now),
        }
    }

    /// Carries out what the state asks for.
    async fn run_effects(&mut self) {
        while let Some(effect) = self.state.poll_effect() {
            match effect {
                Effect::Emit(event) => self.emit(event).await,
                Effect::Answer(event) => {
                    self.publish();
                    self.faces.answer(event).await;
                }
                Effect::Store(stored) => self.store(stored).await,
                Effect::Record(transfer) => self.record(&transfer),
                Effect::Login(effect) => self.run_login(effect),
                Effect::StartNearby { name, announces } => {
                    self.start_nearby(name, announces).await;
                }
                Effect::LeaveNearby => self.leave_nearby().await,
                Effect::Session(effect) => self.run_session(effect).await,
                Effect::File(effect) => self.run_file(effect),
                Effect::Exchange(carrier, effect) => self.run_exchange(carrier, effect),
                Effect::Offer { transfer, session } => self.offer(transfer, session),
                Effect::SendText {
                    transfer,
                    session,
                    text,
                } => self.send_text(transfer, session, text.as_ref()),
            }
        }
    }

    async fn store(&mut self, stored: Stored) {
        let written = match stored {
            Stored::Settings => {
                self.obey_settings();
                self.writer.store_settings(self.state.settings())
            }
            Stored::Contacts => {
                self.known.set(self.state.contacts().keys());
                self.writer.store_contacts(self.state.contacts())
            }
            Stored::Invitations => self.writer.store_invitations(self.state.invitations()),
            Stored::Queue(queue) => self.writer.store_queue(&queue),
        };
        self.report_profile(written).await;
    }

    fn obey_settings(&self) {
        let settings = self.state.in_force();
        self.resources.send.set(settings.send_limit);
        self.resources.receive.set(settings.receive_limit);
        match settings.port_mapping {
            true => self.port_mapper.switch_on(),
            false => self.port_mapper.switch_off(),
        }
    }

    async fn report_profile(&mut self, stored: Result<(), ProfileError>) {
        if let Err(e) = stored {
            let failure = Failure::Profile {
                detail: e.to_string(),
            };
            self.emit(Event::CommandFailed { failure }).await;
        }
    }

    fn record(&mut self, transfer: &TransferView) {
        if let Some(entry) = transfer.history_entry(SystemTime::now()) {
            let change = self.history.add(entry);
            self.writer.change_history(change);
        }
    }

    fn keep_attempt(&mut self, attempt: Attempt) {
        let stored = self.writer.store_attempts(self.attempts.add(attempt));
        if let Err(error) = stored {
            warn!(%error, "an attempt to connect is not kept");
        }
    }

    fn run_exchange(&self, carrier: Carrier, effect: ExchangeEffect) {
        let Some(session) = self.sessions.get(&carrier.session) else {
            return;
        };
        let (exchange, id) = (&session.exchange, carrier.id);
        // What has ended meanwhile refuses, and then there is nothing to do.
        let _ = match effect {
            ExchangeEffect::Decline(reason) => exchange.decline(id, reason),
            ExchangeEffect::Cancel => exchange.cancel(id),
            ExchangeEffect::Interrupt => exchange.interrupt(id),
            ExchangeEffect::Leave => exchange.leave(id),
            ExchangeEffect::Pause => exchange.pause(id),
            ExchangeEffect::Unpause => exchange.unpause(id),
            ExchangeEffect::Acknowledge => exchange.acknowledge(id),
            ExchangeEffect::TakeText => exchange.take_text(id),
        };
    }

    /// Tells the state how far transfers are, and how their sessions are heard.
    fn sample(&mut self) {
        self.sample_progress();
        let sample = |(&session, live): (&SessionId, &LiveSession)| SessionSample {
            session,
            silence: live.exchange.silence(),
            usual_silence: live.exchange.usual_silence(),
            has_local_address: !self.state.doubts_local_address(session)
                || live.has_local_address(),
        };
        let samples: Vec<_> = self.sessions.iter().map(sample).collect();
        self.state.handle_samples(&samples, Instant::now());
    }

    fn sample_progress(&mut self) {
        let progress = |(id, carrier): (TransferId, Carrier)| {
            let exchange = &self.sessions.get(&carrier.session)?.exchange;
            Some((id, progress_view(exchange.progress(carrier.id)?)))
        };
        let sampled: Vec<_> = self.state.moving().filter_map(progress).collect();
        for (id, progress) in sampled {
            self.state.handle_progress(id, progress);
        }
    }

    async fn emit(&mut self, event: Event) {
        self.publish();
        self.faces.tell(event).await;
    }

    fn publish(&self) {
        let next = Snapshot {
            history: self.history.entries(),
            attempts: self.attempts.entries(),
            is_first_run: self.profile.is_new(),
            has_recovery_key: self.recovery.certificate.is_some(),
            is_diagnosing: self.diagnosing.running.is_some(),
            diagnosis: self.diagnosing.last.clone(),
            ..self.state.snapshot(self.key())
        };
        self.faces.publish(next);
    }

    fn key(&self) -> PeerKey {
        self.profile.identity().key()
    }
}

fn progress_view(now: pinhole_transfer::Progress) -> Progress {
    Progress {
        bytes_done: now.bytes_done,
        here_bytes: now.here_bytes,
        bytes_total: now.bytes_total,
        files_done: u64::from(now.files_done),
        files_total: u64::from(now.files_total),
        bytes_per_second: now.bytes_per_second,
        time_left: now.time_left,
        paused: now.paused,
    }
}

/// Sleeps for ever when there is nothing to wait for.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
