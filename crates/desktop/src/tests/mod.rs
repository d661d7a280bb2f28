//! The screens in their states, driven as a user drives them: by pointer,
//! keyboard and drops, found by the names that a screen reader reads.

mod faults;
mod invite;
mod leaving;
mod login;
mod moving;
mod nearby;
mod receiving;
mod recovery;
mod sending;
mod strangers;
mod window;
mod words;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use egui::accesskit::Role;
use egui::{Event as Input, HoveredFile, Key};
use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT as _, Queryable as _};
use pinhole_client::snapshot::EntryView;
use pinhole_client::*;
use pinhole_client::{Completion, Progress};

use crate::app::{App, LoginPrefill};
use crate::bridge::Bridge;
use crate::text;

const SIZE: [f32; 2] = [480.0, 720.0];

/// An engine that a test plays.
#[derive(Clone)]
pub(crate) struct Play(Arc<Mutex<Script>>);

struct Script {
    snapshot: Arc<Snapshot>,
    events: VecDeque<Event>,
    commands: Vec<Command>,
    /// What was said of whether the user is there, apart: it comes with everything.
    attended: Vec<bool>,
    is_busy: bool,
}

impl Play {
    fn new(snapshot: Snapshot) -> Self {
        Self(Arc::new(Mutex::new(Script {
            snapshot: Arc::new(snapshot),
            events: VecDeque::new(),
            commands: Vec::new(),
            attended: Vec::new(),
            is_busy: false,
        })))
    }

    pub(crate) fn command(&self, command: Command) -> Result<(), &'static str> {
        let mut script = self.0.lock().unwrap();
        if script.is_busy {
            return Err(text::ENGINE_BUSY);
        }
        match command {
            Command::Attend { stays } => script.attended.push(stays),
            command => script.commands.push(command),
        }
        Ok(())
    }

    /// From now on no command is taken, or every one.
    fn be_busy(&self, is_busy: bool) {
        self.0.lock().unwrap().is_busy = is_busy;
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.0.lock().unwrap().snapshot.clone()
    }

    pub(crate) fn next_event(&self) -> Option<Event> {
        self.0.lock().unwrap().events.pop_front()
    }

    fn happen(&self, event: Event) {
        self.0.lock().unwrap().events.push_back(event);
    }

    fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        change(Arc::make_mut(&mut self.0.lock().unwrap().snapshot));
    }

    /// What the engine was told of the user's presence since the last call.
    fn attended(&self) -> Vec<bool> {
        std::mem::take(&mut self.0.lock().unwrap().attended)
    }

    /// What was asked of the engine since the last call.
    fn commands(&self) -> Vec<Command> {
        std::mem::take(&mut self.0.lock().unwrap().commands)
    }
}

fn key(n: u8) -> PeerKey {
    PeerKey::from_bytes([n; 32])
}

fn identity(name: &str, n: u8) -> PeerIdentity {
    PeerIdentity {
        name: name.parse().unwrap(),
        key: key(n),
    }
}

fn peer(name: &str, n: u8) -> PeerView {
    PeerView {
        online: true,
        nearby: false,
        claimed: false,
        identity: identity(name, n),
        contact: false,
        changed_from: None,
        released: false,
        revoked: false,
        path: None,
    }
}

fn server() -> ServerAddress {
    "meet.example.org:7878".parse().unwrap()
}

fn logged_out() -> Snapshot {
    Snapshot {
        login: LoginState::LoggedOut { failure: None },
        nearby: None,
        fingerprint: key(1).fingerprint(),
        key: key(1),
        directory: None,
        peers: Vec::new(),
        looked_up: Vec::new(),
        code: None,
        contacts: Arc::default(),
        transfers: Vec::new(),
        asking: Vec::new(),
        blocked: Vec::new(),
        history: Arc::default(),
        attempts: Arc::default(),
        is_first_run: false,
        has_recovery_key: true,
        is_diagnosing: false,
        diagnosis: None,
        download_folder: "/home/alice/Downloads".into(),
        settings: Settings::default(),
    }
}

fn alone() -> Snapshot {
    let login = LoginState::LoggedIn {
        name: "alice".parse().unwrap(),
        server: server(),
    };
    Snapshot {
        login,
        ..logged_out()
    }
}

fn with_peers() -> Snapshot {
    Snapshot {
        peers: vec![peer("bob", 2), peer("carol", 3), peer("dave", 4)],
        ..alone()
    }
}

fn offer(entries: &[(&str, u64)]) -> Arc<OfferView> {
    let entries: Vec<EntryView> = entries
        .iter()
        .map(|&(path, size)| EntryView {
            path: path.to_owned(),
            size_bytes: Some(size),
            stream: false,
            folder: None,
        })
        .collect();
    Arc::new(OfferView {
        title: entries[0].path.clone(),
        files: entries.len() as u64,
        folders: 0,
        bytes: entries.iter().filter_map(|entry| entry.size_bytes).sum(),
        entries,
        ..OfferView::default()
    })
}

fn transfer(id: u64, direction: Direction, stage: Stage) -> TransferView {
    TransferView {
        face: FaceId::OWN,
        id: TransferId(id),
        peer: identity("bob", 2),
        claimed: false,
        stranger: false,
        direction,
        offer: offer(&[("holiday.mp4", 734_003_200)]),
        stage,
        path: Some(PathKind::Punched),
        progress: Progress::default(),
        is_text: false,
        text: None,
    }
}

fn incoming(entries: &[(&str, u64)]) -> TransferView {
    let mut offer = offer(entries);
    // Its files are found by their names, and only in the question.
    Arc::make_mut(&mut offer).title = "offered".to_owned();
    TransferView {
        offer,
        path: None,
        ..transfer(7, Direction::Receiving, Stage::AwaitingDecision)
    }
}

fn click(harness: &mut Harness<'_, App>, label: &str) {
    harness.get_by_label(label).click();
    harness.run();
}

fn window_sized(
    snapshot: Snapshot,
    size: [f32; 2],
    prefill: LoginPrefill,
) -> (Harness<'static, App>, Play) {
    let play = Play::new(snapshot);
    let given = play.clone();
    let mut harness = Harness::builder()
        .with_size(size)
        // A question that was drawn once can be answered in the next step.
        .with_step_dt(0.5)
        .with_max_steps(12)
        .build_eframe(|cc| {
            let snapshot = given.snapshot();
            App::new(cc, Bridge::played(given), snapshot, prefill)
        });
    harness.run();
    (harness, play)
}

fn window(snapshot: Snapshot) -> (Harness<'static, App>, Play) {
    window_sized(snapshot, SIZE, LoginPrefill::default())
}

#[derive(Debug)]
struct Dropped(PathBuf);

impl egui::DroppedFile for Dropped {
    fn path(&self) -> &Path {
        &self.0
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        Err("the application must not read what is dropped".to_owned())
    }
}

fn hover_file(harness: &mut Harness<'_, App>, at: egui::Pos2) {
    harness.hover_at(at);
    let file = HoveredFile {
        path: Some("/tmp/report.pdf".into()),
        ..HoveredFile::default()
    };
    harness.input_mut().hovered_files = vec![file];
    harness.step();
    harness.step();
}

fn drop_file(harness: &mut Harness<'_, App>) {
    harness.input_mut().hovered_files.clear();
    harness
        .input_mut()
        .dropped_files
        .push(Arc::new(Dropped("/tmp/report.pdf".into())));
    harness.step();
    harness.step();
}

fn report() -> Vec<PathBuf> {
    vec!["/tmp/report.pdf".into()]
}
