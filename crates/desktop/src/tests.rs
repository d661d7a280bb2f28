//! The screens in their states, driven as a user drives them: by pointer,
//! keyboard and drops, found by the names that a screen reader reads.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use egui::accesskit::Role;
use egui::{Event as Input, HoveredFile, Key};
use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT as _, Queryable as _};
use pinhole_client::snapshot::{Completion, EntryView, Progress};
use pinhole_client::*;

use crate::app::{App, Prefill};
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
}

impl Play {
    fn new(snapshot: Snapshot) -> Self {
        Self(Arc::new(Mutex::new(Script {
            snapshot: Arc::new(snapshot),
            events: VecDeque::new(),
            commands: Vec::new(),
        })))
    }

    pub(crate) fn command(&self, command: Command) -> Result<(), &'static str> {
        self.0.lock().unwrap().commands.push(command);
        Ok(())
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
        identity: identity(name, n),
        contact: false,
        changed_from: None,
        path: None,
    }
}

fn server() -> ServerAddress {
    "meet.example.org:7878".parse().unwrap()
}

fn logged_out() -> Snapshot {
    Snapshot {
        login: LoginState::LoggedOut { failure: None },
        fingerprint: key(1).fingerprint(),
        key: key(1),
        peers: Vec::new(),
        transfers: Vec::new(),
        download_folder: "/home/alice/Downloads".into(),
        accept: AcceptPolicy::Ask,
        last_name: None,
        last_server: None,
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
        })
        .collect();
    Arc::new(OfferView {
        title: entries[0].path.clone(),
        files: entries.len() as u64,
        folders: 0,
        bytes: entries.iter().filter_map(|entry| entry.size_bytes).sum(),
        entries,
        skipped: Vec::new(),
    })
}

fn transfer(id: u64, direction: Direction, stage: Stage) -> TransferView {
    TransferView {
        id: TransferId(id),
        peer: identity("bob", 2),
        direction,
        offer: offer(&[("holiday.mp4", 734_003_200)]),
        stage,
        path: Some(PathKind::Punched),
        progress: Progress::default(),
    }
}

fn incoming(entries: &[(&str, u64)]) -> TransferView {
    TransferView {
        offer: offer(entries),
        path: None,
        ..transfer(7, Direction::Receiving, Stage::AwaitingDecision)
    }
}

fn window_sized(
    snapshot: Snapshot,
    size: [f32; 2],
    prefill: Prefill,
) -> (Harness<'static, App>, Play) {
    let play = Play::new(snapshot);
    let given = play.clone();
    let mut harness = Harness::builder()
        .with_size(size)
        .with_max_steps(12)
        .build_eframe(|cc| {
            let snapshot = given.snapshot();
            App::new(cc, Bridge::played(given), snapshot, prefill)
        });
    harness.run();
    (harness, play)
}

fn window(snapshot: Snapshot) -> (Harness<'static, App>, Play) {
    window_sized(snapshot, SIZE, Prefill::default())
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

#[test]
fn logs_in_by_keyboard_alone() {
    let (mut harness, play) = window(logged_out());
    assert!(harness.get_by_label(text::NAME_LABEL).is_focused());
    harness.event(Input::Text("alice".to_owned()));
    harness.run();
    harness.key_press(Key::Tab);
    harness.run();
    harness.event(Input::Text("meet.example.org:7878".to_owned()));
    harness.run();
    harness.key_press(Key::Enter);
    harness.run();
    let expected = Command::LogIn {
        name: "alice".parse().unwrap(),
        server: server(),
    };
    assert_eq!(play.commands(), [expected]);
}

#[test]
fn a_bad_name_is_explained_beside_its_field() {
    let (mut harness, play) = window(logged_out());
    harness.event(Input::Text("Alice".to_owned()));
    harness.run();
    harness.get_by_label(text::LOG_IN).click();
    harness.run();
    assert!(harness.query_by_label_contains("not 'A'").is_some());
    assert!(harness.get_by_label(text::NAME_LABEL).is_focused());
    assert_eq!(play.commands(), []);
}

#[test]
fn name_and_server_given_expressly_log_in_at_once() {
    let given = |log_in| Prefill {
        name: Some("alice".to_owned()),
        server: Some("meet.example.org:7878".to_owned()),
        log_in,
    };
    let (_harness, play) = window_sized(logged_out(), SIZE, given(true));
    assert_eq!(play.commands().len(), 1);
    let (harness, play) = window_sized(logged_out(), SIZE, given(false));
    assert_eq!(play.commands(), []);
    assert!(harness.get_by_label(text::LOG_IN).is_focused());
}

#[test]
fn a_failed_login_says_why_and_logging_in_can_be_cancelled() {
    let (mut harness, play) = window(Snapshot {
        login: LoginState::LoggedOut {
            failure: Some(Failure::NameTaken {
                name: "alice".parse().unwrap(),
            }),
        },
        ..logged_out()
    });
    assert!(
        harness
            .query_by_label_contains("belongs to somebody else")
            .is_some()
    );
    play.change(|s| {
        s.login = LoginState::LoggingIn {
            name: "alice".parse().unwrap(),
            server: server(),
        };
    });
    harness.run();
    harness.get_by_label(text::CANCEL).click();
    harness.run();
    assert_eq!(play.commands(), [Command::LogOut]);
}

#[test]
fn alone_the_window_says_what_to_do() {
    let (harness, _) = window(alone());
    assert!(harness.query_by_label(text::NOBODY).is_some());
    assert!(
        harness
            .query_by_label_contains("log in to\nmeet.example.org:7878")
            .is_some()
    );
}

#[test]
fn while_the_server_is_away_the_next_attempt_is_announced() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| {
        s.login = LoginState::Reconnecting {
            name: "alice".parse().unwrap(),
            server: server(),
            failure: Failure::ServerUnreachable {
                server: server(),
                reason: "refused".to_owned(),
            },
            next_attempt: Instant::now() + Duration::from_secs(100),
        };
    });
    harness.run();
    assert!(harness.query_by_label_contains("Reconnecting in").is_some());
    assert!(
        harness
            .query_by_label_contains("Cannot reach the server")
            .is_some()
    );
    assert!(
        harness.query_by_label("bob").is_some(),
        "people stay in sight"
    );
}

#[test]
fn a_drop_on_the_second_peer_goes_to_that_peer() {
    let (mut harness, play) = window(with_peers());
    let carol = harness.get_by_label("carol").rect().center();
    hover_file(&mut harness, carol);
    assert!(harness.query_by_label("Drop to send to carol").is_some());
    assert!(harness.query_by_label("Drop to send to bob").is_none());
    drop_file(&mut harness);
    assert_eq!(
        play.commands(),
        [Command::Send {
            peer: key(3),
            paths: report()
        }]
    );
    harness.run();
    assert!(harness.query_by_label("Drop to send to carol").is_none());
}

#[test]
fn a_drop_follows_the_key_when_the_list_changes_under_it() {
    let (mut harness, play) = window(with_peers());
    let carol = harness.get_by_label("carol").rect().center();
    hover_file(&mut harness, carol);
    play.change(|s| {
        s.peers.remove(0);
    });
    drop_file(&mut harness);
    assert_eq!(
        play.commands(),
        [Command::Send {
            peer: key(4),
            paths: report()
        }],
        "what is lit under the pointer when it falls is what counts"
    );
}

#[test]
fn a_drop_without_a_position_asks_to_whom() {
    let (mut harness, play) = window(with_peers());
    harness.remove_cursor();
    harness.run();
    drop_file(&mut harness);
    assert!(
        harness.query_by_label(text::SEND_TO_WHOM).is_none(),
        "it waits for a position"
    );
    let fallen = Instant::now();
    while harness.query_by_label(text::SEND_TO_WHOM).is_none() {
        assert!(
            fallen.elapsed() < Duration::from_secs(10),
            "no question came"
        );
        harness.step();
    }
    harness.run();
    assert!(harness.query_by_label("report.pdf").is_some());
    harness.get_by_role_and_label(Role::Button, "dave").click();
    harness.run();
    assert_eq!(
        play.commands(),
        [Command::Send {
            peer: key(4),
            paths: report()
        }]
    );
    assert!(harness.query_by_label(text::SEND_TO_WHOM).is_none());
}

#[test]
fn a_drop_beside_the_peers_asks_and_esc_forgets_it() {
    let (mut harness, play) = window(with_peers());
    hover_file(&mut harness, egui::pos2(240.0, 700.0));
    drop_file(&mut harness);
    harness.run();
    assert!(harness.query_by_label(text::SEND_TO_WHOM).is_some());
    harness.key_press(Key::Escape);
    harness.run();
    assert!(harness.query_by_label(text::SEND_TO_WHOM).is_none());
    assert_eq!(play.commands(), []);
}

#[test]
fn what_is_dropped_before_the_login_waits_for_it() {
    let (mut harness, play) = window(logged_out());
    drop_file(&mut harness);
    harness.run();
    assert!(
        harness
            .query_by_label_contains("report.pdf is waiting")
            .is_some()
    );
    play.change(|s| *s = with_peers());
    harness.run();
    assert!(harness.query_by_label(text::SEND_TO_WHOM).is_some());
}

#[test]
fn pasted_files_ask_to_whom_and_pasted_prose_does_nothing() {
    let (mut harness, _) = window(with_peers());
    harness.event(Input::Paste("hello".to_owned()));
    harness.run();
    assert!(harness.query_by_label(text::SEND_TO_WHOM).is_none());
    harness.event(Input::Paste("file:///tmp/report.pdf\n".to_owned()));
    harness.run();
    assert!(harness.query_by_label(text::SEND_TO_WHOM).is_some());
}

#[test]
fn a_changed_key_asks_before_anything_is_sent() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| s.peers[1].changed_from = Some(key(9).fingerprint()));
    harness.run();
    assert!(harness.query_by_label(text::KEY_CHANGED).is_some());
    assert!(harness.query_by_label("Send files to carol").is_none());
    let carol = harness.get_by_label("carol").rect().center();
    hover_file(&mut harness, carol);
    drop_file(&mut harness);
    harness.run();
    assert_eq!(play.commands(), []);
    for compared in [key(3), key(9)] {
        let shown = text::grouped(&compared.fingerprint().to_string());
        assert!(harness.query_by_label(&shown).is_some(), "{shown}");
    }
    harness.get_by_label(text::TRUST).click();
    harness.run();
    let expected = [
        Command::TrustNewKey { peer: key(3) },
        Command::Send {
            peer: key(3),
            paths: report(),
        },
    ];
    assert_eq!(play.commands(), expected);
}

#[test]
fn an_offer_asks_with_its_whole_list() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| {
        s.transfers
            .push(incoming(&[("a.txt", 10), ("b/c.bin", 2_000_000)]));
    });
    play.happen(Event::Offered {
        transfer: TransferId(7),
    });
    harness.run();
    for shown in [
        "bob wants to send you files",
        "a.txt",
        "b/c.bin",
        "2 files, 2.0 MB",
    ] {
        assert!(
            harness.query_all_by_label(shown).next().is_some(),
            "{shown}"
        );
    }
    harness.get_by_label(text::ACCEPT).click();
    harness.run();
    assert_eq!(
        play.commands(),
        [Command::Accept {
            transfer: TransferId(7),
            into: None
        }]
    );
}

#[test]
fn an_offer_is_answered_by_keyboard() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| s.transfers.push(incoming(&[("a.txt", 10)])));
    harness.run();
    harness.key_press(Key::Enter);
    harness.run();
    assert_eq!(play.commands(), [], "a stray Enter answers nothing");
    harness.key_press(Key::Tab);
    harness.run();
    assert!(harness.get_by_label(text::ACCEPT).is_focused());
    harness.key_press(Key::Tab);
    harness.run();
    harness.key_press(Key::Enter);
    harness.run();
    assert_eq!(
        play.commands(),
        [Command::Decline {
            transfer: TransferId(7)
        }]
    );
}

#[test]
fn an_offer_can_wait() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| s.transfers.push(incoming(&[("a.txt", 10)])));
    harness.run();
    harness.key_press(Key::Escape);
    harness.run();
    assert!(harness.query_by_label(text::ACCEPT).is_none());
    assert_eq!(play.commands(), []);
    harness.get_by_label(text::LOOK).click();
    harness.run();
    assert!(harness.query_by_label(text::ACCEPT).is_some());
}

#[test]
fn names_of_four_kilobytes_leave_the_answer_on_the_screen() {
    let long = format!("{}.pdf.exe", "x".repeat(4_090));
    let many: Vec<(&str, u64)> = (0..500).map(|_| (long.as_str(), 1)).collect();
    for size in [[400.0, 480.0], SIZE] {
        let (mut harness, play) = window_sized(with_peers(), size, Prefill::default());
        play.change(|s| s.transfers.push(incoming(&many)));
        harness.run();
        let screen = egui::Rect::from_min_size(egui::Pos2::ZERO, size.into());
        for answer in [text::ACCEPT, text::DECLINE, text::SAVE_ELSEWHERE] {
            let rect = harness.get_by_label(answer).rect();
            assert!(
                screen.contains_rect(rect),
                "{answer} at {rect:?} in {screen:?}"
            );
        }
        let elided = harness
            .get_all_by_label_contains("….".trim_end_matches('.'))
            .filter_map(|n| {
                n.accesskit_node()
                    .label()
                    .or_else(|| n.accesskit_node().value())
            });
        let names: Vec<String> = elided.filter(|label| label.contains("xxx")).collect();
        assert!(!names.is_empty());
        for name in names {
            assert!(
                name.ends_with(".pdf.exe"),
                "the extension stays in sight: {name}"
            );
        }
    }
}

#[test]
fn a_running_transfer_says_how_far_how_fast_and_which_way() {
    let (mut harness, play) = window(with_peers());
    let mut running = transfer(1, Direction::Sending, Stage::Transferring);
    running.progress = Progress {
        bytes_done: 100_000_000,
        bytes_total: 734_003_200,
        files_done: 0,
        files_total: 1,
        bytes_per_second: Some(20_000_000),
        time_left: Some(Duration::from_secs(32)),
    };
    play.change(|s| s.transfers.push(running));
    harness.run();
    assert!(
        harness
            .query_by_label("100 MB of 734 MB  ·  20 MB/s  ·  32 s left")
            .is_some()
    );
    assert!(
        harness
            .query_by_label("Direct, punched through both NATs")
            .is_some()
    );
    play.change(|s| s.transfers[0].progress.bytes_per_second = Some(0));
    harness.run();
    assert!(harness.query_all_by_label(text::STALLED).next().is_some());
    harness.get_by_label(text::CANCEL).click();
    harness.run();
    assert_eq!(
        play.commands(),
        [Command::Cancel {
            transfer: TransferId(1)
        }]
    );
}

#[test]
fn finished_transfers_say_what_came_of_them_and_can_be_dismissed() {
    let (mut harness, play) = window(with_peers());
    let done = Completion {
        files: 1,
        bytes: 734_003_200,
        resent_bytes: 0,
        failed_files: 1,
        elapsed: Duration::from_secs(10),
        folder: Some("/home/alice/Downloads".into()),
    };
    let refused = Failure::Declined {
        peer: "bob".parse().unwrap(),
    };
    play.change(|s| {
        s.transfers
            .push(transfer(1, Direction::Receiving, Stage::Completed(done)));
        s.transfers
            .push(transfer(2, Direction::Sending, Stage::Failed(refused)));
    });
    play.happen(Event::FileFailed {
        transfer: TransferId(1),
        path: "holiday.mp4".to_owned(),
        failure: Failure::LocalFiles {
            detail: "The disk is full.".to_owned(),
        },
    });
    harness.run();
    for shown in [
        "Received from bob",
        "bob declined.",
        "734 MB  ·  in 10 s  ·  73 MB/s",
    ] {
        assert!(harness.query_by_label(shown).is_some(), "{shown}");
    }
    assert!(
        harness
            .query_by_label_contains("The disk is full.")
            .is_some()
    );
    assert!(harness.query_by_label(text::OPEN_FOLDER).is_some());
    harness.get_by_label(text::DISMISS_ALL).click();
    harness.run();
    let dismissed = [1, 2].map(|id| Command::Dismiss {
        transfer: TransferId(id),
    });
    assert_eq!(play.commands(), dismissed);
}

#[test]
fn settings_change_the_engine_and_show_the_fingerprint() {
    let (mut harness, play) = window(with_peers());
    harness.get_by_label(text::SETTINGS).click();
    harness.run();
    let own = text::grouped(&key(1).fingerprint().to_string());
    assert!(harness.query_by_label(&own).is_some());
    harness.get_by_label(text::ACCEPT_CONTACTS).click();
    harness.run();
    let expected = Command::SetAcceptPolicy {
        policy: AcceptPolicy::Contacts,
    };
    assert_eq!(play.commands(), [expected]);
    harness.key_press(Key::Escape);
    harness.run();
    assert!(harness.query_by_label(text::LOG_OUT).is_none());
}

#[test]
fn what_the_engine_cannot_do_is_said_and_dismissed() {
    let (mut harness, play) = window(with_peers());
    let failure = Failure::PeerOffline {
        peer: "bob".to_owned(),
    };
    play.happen(Event::CommandFailed { failure });
    harness.run();
    assert!(
        harness
            .query_by_label_contains("Nobody called bob is online")
            .is_some()
    );
    harness.get_by_label(text::DISMISS).click();
    harness.run();
    assert!(
        harness
            .query_by_label_contains("Nobody called bob")
            .is_none()
    );
}

#[test]
fn a_title_that_no_font_can_draw_suggests_fonts_once() {
    let play = Play::new(with_peers());
    let given = play.clone();
    // The harness has no fonts of the system, as a bare machine has none.
    let mut harness = Harness::builder()
        .with_size(SIZE)
        .allow_missing_glyphs()
        .build_eframe(|cc| {
            let snapshot = given.snapshot();
            App::new(cc, Bridge::played(given), snapshot, Prefill::default())
        });
    harness.run();
    assert!(harness.query_by_label(text::NO_FONT).is_none());
    play.change(|s| s.transfers.push(incoming(&[("\u{5831}\u{544a}.pdf", 10)])));
    harness.run();
    assert!(harness.query_by_label(text::NO_FONT).is_some());
}

#[test]
fn nothing_is_drawn_while_nothing_happens() {
    for snapshot in [logged_out(), alone(), with_peers()] {
        let (mut harness, _) = window(snapshot);
        harness.step();
        let delay = harness
            .output()
            .viewport_output
            .values()
            .map(|v| v.repaint_delay)
            .min();
        assert_eq!(delay, Some(Duration::MAX));
    }
}
