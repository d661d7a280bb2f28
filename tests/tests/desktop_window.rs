//! The desktop application in real windows: a drag from another program lands
//! on a peer, the peer's window accepts, the file is equal; a part of an offer
//! is taken, paused and resumed.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pinhole_tests::process::{Process, binary};
use pinhole_tests::scene::{SOON, Scene};
use pinhole_tests::screen::{self, Colour, Picture, Screen, Window};

/// Long enough to be seen on its way.
const FILE_MIB: usize = 400;
/// Long enough to move them on a busy machine.
const LONG: Duration = Duration::from_secs(120);
/// Between two looks at a folder, which take as long as it is full.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// No button with a word on it has a longer edge without it; no monogram has.
const BUTTON_EDGE: usize = 50;
/// A peer's row is 68 pixels high, with rounded corners and an outline.
const ROW_BODY: usize = 40;
/// Behind a notice, in light.
const WARNING_TINT: Colour = [0xFD, 0xF1, 0xD8];
/// Nothing but a notice has such a line of it.
const NOTICE_EDGE: usize = 200;
/// Left of the buttons and right of the monogram.
const IN_A_ROW_X: i32 = 200;

/// Between a row's buttons and its right end.
const RIGHT_OF_THE_BUTTONS_X: usize = 450;

/// The colours of one appearance that the test looks for.
struct Theme {
    name: &'static str,
    accent: Colour,
    card: Colour,
    lit: Colour,
    background: Colour,
}

const LIGHT: Theme = Theme {
    name: "light",
    accent: [0x0B, 0x72, 0x78],
    card: [0xFF, 0xFF, 0xFF],
    lit: [0xDD, 0xF1, 0xF0],
    background: [0xF4, 0xF5, 0xF4],
};

const DARK: Theme = Theme {
    name: "dark",
    accent: [0x4F, 0xC4, 0xC4],
    card: [0x1B, 0x22, 0x24],
    lit: [0x15, 0x37, 0x3A],
    background: [0x12, 0x17, 0x18],
};

/// A server and the windows on one screen.
struct Stage {
    theme: Theme,
    scene: Scene,
    screen: Screen,
}

impl Stage {
    fn set(theme: Theme) -> Option<Self> {
        if let Some(reason) = screen::unavailable() {
            // Past the capture of the test harness: nobody should take this for a pass.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
            return None;
        }
        let (scene, screen) = (Scene::on_loopback(), Screen::start(1500, 900));
        Some(Self {
            theme,
            scene,
            screen,
        })
    }

    fn profile(&self, name: &str) -> PathBuf {
        self.scene.folder.path().join(format!("{name}-window"))
    }

    fn open(&self, name: &str, x: u32, arguments: &[&str]) -> Process {
        self.open_at(&self.profile(name), x, arguments)
    }

    fn open_at(&self, profile: &Path, x: u32, arguments: &[&str]) -> Process {
        let mut command = self.screen.command(binary("pinhole-desktop"));
        command.arg("--data-dir").arg(profile);
        command.args(["--position", &format!("{x},0"), "--theme", self.theme.name]);
        command.args(arguments);
        command.env("PINHOLE_NO_NEARBY", "1");
        Process::start("window", command)
    }

    /// A window that logs in at once.
    fn log_in(&self, name: &str, x: u32) -> (Process, Window) {
        let arguments = ["--server", &self.scene.server_address, "--name", name];
        let process = self.open(name, x, &arguments);
        (process, self.screen.window(&format!("Pinhole - {name}")))
    }

    fn screenshot(&self, window: &Window, state: &str) {
        self.screen.save(window, &self.picture_of(state));
    }

    fn picture_of(&self, state: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        folder.join(format!("desktop-{}-{state}.png", self.theme.name))
    }

    fn until_seen<T>(
        &self,
        window: &Window,
        what: &str,
        look: impl Fn(&Picture) -> Option<T>,
    ) -> T {
        self.screen
            .until_seen(window, what, &self.picture_of("trouble"), look)
    }

    /// The middle of the second peer's row, once there are two.
    fn second_row(&self, window: &Window) -> (i32, i32) {
        self.until_seen(window, "a second peer", |picture| {
            let rows = picture.pieces_in_column(RIGHT_OF_THE_BUTTONS_X, self.theme.card, ROW_BODY);
            let second = (rows.len() == 2).then(|| rows.last())??;
            Some((IN_A_ROW_X, i32::try_from(*second).ok()?))
        })
    }

    /// Where the one filled button of the window is.
    fn button(&self, window: &Window, what: &str) -> (i32, i32) {
        self.until_seen(window, what, |picture| {
            let (x, y) = picture.line_of(self.theme.accent, BUTTON_EDGE)?;
            let small = |n: usize| i32::try_from(n).ok();
            Some((small(x)? + 20, small(y)? + 6))
        })
    }

    /// The same on a question over the window, once it can be answered. An empty list of
    /// people has a filled button, too, but a window under a question is dimmed.
    fn answer(&self, window: &Window, what: &str) -> (i32, i32) {
        self.until_seen(window, what, |picture| {
            let is_dimmed = picture.at(1, picture.height - 2) != self.theme.background;
            picture
                .line_of(self.theme.accent, BUTTON_EDGE)
                .filter(|_| is_dimmed)
        });
        self.button(window, what)
    }
}

fn sample_file(folder: &Path) -> PathBuf {
    let path = folder.join("holiday video.bin");
    let block: Vec<u8> = (0..1_u32 << 20)
        .map(|i| (i.wrapping_mul(i) >> 7).to_le_bytes()[0])
        .collect();
    fs::write(&path, block.repeat(FILE_MIB)).expect("the sample");
    path
}

/// Waits for the file to stand, whole, in the receiving profile's downloads.
fn arrived(folder: &Path, name: &str) -> PathBuf {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(path) = find(folder, name) {
            return path;
        }
        assert!(
            Instant::now() < deadline,
            "{name} did not arrive in {}",
            folder.display()
        );
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            find(&path, name)
        } else {
            (entry.file_name() == name).then_some(path)
        }
    })
}

/// Drags a file from another program onto bob, the second peer of alice.
fn drag_onto_bob(stage: &Stage, alice: &Window, file: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("xdnd/source.py");
    let mut command = stage.screen.command("/usr/bin/python3");
    command.arg(script).args(["40", "790"]).arg(file);
    let mut source = Process::start("source of files", command);
    source.event("ready", SOON);
    let from = stage.screen.window("source of files");
    let row = stage.second_row(alice);
    stage.screen.begin_drag(&from, (60, 40));
    source.event("begun", SOON);
    stage.screen.point(alice, row);
    let lit = stage.theme.lit;
    stage.until_seen(alice, "the lit peer", |picture| {
        let rows = picture.pieces_in_column(RIGHT_OF_THE_BUTTONS_X, lit, ROW_BODY);
        (rows.len() == 1).then_some(())
    });
    stage.screenshot(alice, "3-hover");
    stage.screen.release();
    source.event("given", SOON);
    // Until then the files are on their way.
    source.event("ended", SOON);
}

fn a_file_is_dragged_onto_the_second_peer(theme: Theme, accept: fn(&Stage, &Window)) {
    let Some(stage) = Stage::set(theme) else {
        return;
    };
    let first = stage.open("nobody", 0, &[]);
    let login = stage.screen.window("Pinhole");
    stage.button(&login, "the login");
    stage.screenshot(&login, "1-login");
    drop(first);
    let (_aaron, aaron) = stage.log_in("aaron", 1000);
    let (_bob, bob) = stage.log_in("bob", 500);
    let (_alice, alice) = stage.log_in("alice", 0);
    stage.second_row(&alice);
    stage.second_row(&aaron);
    stage.screenshot(&alice, "2-peers");
    let file = sample_file(stage.scene.folder.path());
    drag_onto_bob(&stage, &alice, &file);
    stage.answer(&bob, "the offer");
    stage.screenshot(&bob, "4-offer");
    accept(&stage, &bob);
    // Nothing else in the window has such a line of the accent.
    let bar = |picture: &Picture| picture.line_of(stage.theme.accent, 12);
    stage.until_seen(&alice, "progress", bar);
    stage.screenshot(&alice, "5-sending");
    stage.screenshot(&bob, "5-receiving");
    let received = arrived(&stage.profile("bob"), "holiday video.bin");
    assert!(fs::read(&received).expect("received") == fs::read(&file).expect("sent"));
    assert_eq!(find(&stage.profile("aaron"), "holiday video.bin"), None);
    stage.until_seen(&alice, "the end of it", |picture| {
        bar(picture).is_none().then_some(())
    });
    stage.screenshot(&alice, "6-delivered");
    stage.screenshot(&bob, "6-received");
}

#[test]
fn dragged_and_accepted_by_click_in_light() {
    a_file_is_dragged_onto_the_second_peer(LIGHT, |stage, bob| {
        let button = stage.answer(bob, "the Accept button");
        stage.screen.click(bob, button);
    });
}

#[test]
fn dragged_and_accepted_by_keyboard_in_dark() {
    a_file_is_dragged_onto_the_second_peer(DARK, |stage, bob| {
        stage.screen.activate(bob);
        stage.screen.key("Tab");
        stage.screen.key("Return");
    });
}

/// A transfer that takes six seconds: time enough to pause it on a busy machine.
const SLOW_BYTES: usize = 60_000_000;
const SLOW_BYTES_PER_SECOND: usize = 10_000_000;
/// From the first button of bob's window to that which pauses: the settings, two that
/// bring somebody in, three for alice, one that stops.
const TABS_TO_PAUSE: usize = 8;
/// Longer than a box to tick is wide.
const BAR_EDGE: usize = 30;

#[test]
fn a_part_of_an_offer_is_taken_and_paused_by_keyboard() {
    let Some(stage) = Stage::set(LIGHT) else {
        return;
    };
    let profile = stage.profile("bob");
    fs::create_dir_all(&profile).expect("a profile");
    let settings = format!("{{\"receive_limit\":{SLOW_BYTES_PER_SECOND}}}");
    fs::write(profile.join("settings.json"), settings).expect("the settings");
    let (_bob, bob) = stage.log_in("bob", 0);
    let alice = stage.scene.peer("alice");
    let unwanted = stage.scene.file("1 unwanted.bin", b"unwanted");
    let wanted = stage.scene.file("2 wanted.bin", &vec![7; SLOW_BYTES]);
    let mut sending = alice.send("bob", &[&unwanted, &wanted]);
    stage.answer(&bob, "the offer");
    stage.screen.activate(&bob);
    // The box for all of it, then that of the first file.
    for key in ["Tab", "Tab", "space"] {
        stage.screen.key(key);
    }
    stage.screenshot(&bob, "4-part");
    stage.screen.key("ctrl+Return");
    sending.event("started", SOON);
    stage.until_seen(&bob, "progress", |picture| {
        // While a question lies over it, the window is dimmed.
        let is_answered = picture.at(1, picture.height - 2) == stage.theme.background;
        let bar = picture.line_of(stage.theme.accent, BAR_EDGE);
        bar.filter(|_| is_answered)
    });
    for _ in 0..TABS_TO_PAUSE {
        stage.screen.key("Tab");
    }
    stage.screen.key("Return");
    let paused = |sending: &mut Process| sending.event("paused", SOON)["paused"].as_bool();
    assert_eq!(paused(&mut sending), Some(true));
    stage.screenshot(&bob, "5-paused");
    stage.screen.key("Return");
    assert_eq!(paused(&mut sending), Some(false));
    let completed = sending.event("completed", LONG);
    assert_eq!(completed["skipped_files"], 1);
    let received = arrived(&profile, "2 wanted.bin");
    assert!(fs::read(&received).expect("received") == fs::read(&wanted).expect("sent"));
    assert_eq!(find(&profile, "1 unwanted.bin"), None);
}

/// Clicks on the button that sends what a window asks about, once its one peer is there.
fn send_to_the_one_peer(stage: &Stage, window: &Window) {
    let send = stage.answer(window, "the question to whom");
    stage.screen.click(window, send);
}

fn until_one_peer(stage: &Stage, window: &Window) {
    stage.until_seen(window, "a peer", |picture| {
        let card = stage.theme.card;
        let rows = picture.pieces_in_column(RIGHT_OF_THE_BUTTONS_X, card, ROW_BODY);
        (rows.len() == 1).then_some(())
    });
}

#[test]
fn a_second_start_hands_its_files_to_the_window_that_is_there() {
    let Some(stage) = Stage::set(LIGHT) else {
        return;
    };
    let bob = stage.scene.peer("bob");
    let _receiving = bob.receive(&[]);
    let (_alice, alice) = stage.log_in("alice", 0);
    until_one_peer(&stage, &alice);
    let file = stage.scene.file("handed over", b"by the second start");
    let file = file.to_str().expect("UTF-8");
    let mut second = stage.open("alice", 0, &[file]);
    assert_eq!(second.wait(SOON), Some(0));
    send_to_the_one_peer(&stage, &alice);
    arrived(&bob.inbox, "handed over");
}

#[test]
fn a_window_works_through_a_receive_that_holds_its_profile() {
    let Some(stage) = Stage::set(LIGHT) else {
        return;
    };
    let (alice, bob) = (stage.scene.peer("alice"), stage.scene.peer("bob"));
    let _receiving = bob.receive(&[]);
    let mut holder = alice.receive(&[]);
    let file = stage.scene.file("from the window", b"through receive");
    let file = file.to_str().expect("UTF-8");
    let profile = stage.scene.folder.path().join("alice-profile");
    let _window = stage.open_at(&profile, 0, &[file]);
    let window = stage.screen.window("Pinhole - alice");
    send_to_the_one_peer(&stage, &window);
    arrived(&bob.inbox, "from the window");
    holder.kill();
    stage.until_seen(&window, "that the engine is gone", |picture| {
        picture.line_of(WARNING_TINT, NOTICE_EDGE)
    });
}

/// A list of files as a program hands it over when they are dropped, and what is
/// to come of it.
struct Handed {
    what: &'static str,
    list: Vec<u8>,
    /// What bob gets.
    arrives: Vec<String>,
    /// The window says what it cannot send.
    complains: bool,
}

impl Handed {
    fn new(what: &'static str, list: String, arrives: &[&str], complains: bool) -> Self {
        Self {
            what,
            list: list.into_bytes(),
            arrives: arrives.iter().map(|&name| name.to_owned()).collect(),
            complains,
        }
    }
}

/// The path of a new file in this folder.
fn made(folder: &Path, name: &str) -> String {
    fs::write(folder.join(name), name).expect("a file");
    format!("{}/{name}", folder.display())
}

/// Short lists that programs make, well-formed and not, of files in this folder.
fn short_lists(folder: &Path) -> Vec<Handed> {
    let file = |name: &str| made(folder, name);
    let case = Handed::new;
    let missing = format!("file://{}/missing.txt\r\n", folder.display());
    vec![
        case(
            "a host and a comment",
            format!("# made by hand\r\nfile://localhost{}\r\n", file("a.txt")),
            &["a.txt"],
            false,
        ),
        case(
            "lines that end as in Unix",
            format!("file://{}\nfile://{}\n", file("b.txt"), file("c.txt")),
            &["b.txt", "c.txt"],
            false,
        ),
        case(
            "a file that is gone",
            format!("{missing}file://{}\r\n", file("d.txt")),
            &["d.txt"],
            true,
        ),
        case(
            "an address of the web",
            format!("http://example.org/x\r\nfile://{}\r\n", file("e.txt")),
            &["e.txt"],
            true,
        ),
        case(
            "nothing but an address of the web",
            "http://example.org/x\r\n".to_owned(),
            &[],
            true,
        ),
        case("nothing but what is gone", missing.clone(), &[], true),
        case(
            "nothing but a comment",
            "# nothing\r\n".to_owned(),
            &[],
            true,
        ),
        case("nothing at all", String::new(), &[], true),
    ]
}

/// One with a name that is not UTF-8, and one that is longer than fits into one
/// property, so that it comes in pieces.
fn odd_lists(folder: &Path) -> [Handed; 2] {
    let file = |name: &str| made(folder, name);
    let name = std::ffi::OsStr::from_bytes(b"odd-\xff.txt");
    fs::write(folder.join(name), "odd").expect("a file");
    let list = format!(
        "file://{}/odd-%FF.txt\r\nfile://{}\r\n",
        folder.display(),
        file("f.txt")
    );
    let odd = Handed::new("a name that is not UTF-8", list, &["f.txt"], false);
    let many: Vec<String> = (0..2_500)
        .map(|n| format!("{n}-{}.txt", "x".repeat(120)))
        .collect();
    let list: String = many
        .iter()
        .map(|name| format!("file://{}\r\n", file(name)))
        .collect();
    assert!(list.len() > 300_000);
    let [first, last] = [many.first(), many.last()].map(|name| name.expect("some").as_str());
    let long = Handed::new("a very long list", list, &[first, last], false);
    [odd, long]
}

/// Drags what this list names from another program and drops it there.
fn drop_list(stage: &Stage, onto: &Window, at: (i32, i32), list: &[u8]) {
    let file = stage.scene.file("dropped.list", list);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("xdnd/source.py");
    let mut command = stage.screen.command("/usr/bin/python3");
    command.arg(script).args(["40", "790", "--list"]).arg(file);
    let mut source = Process::start("source of files", command);
    source.event("ready", SOON);
    let from = stage.screen.window("source of files");
    stage.screen.begin_drag(&from, (60, 40));
    source.event("begun", SOON);
    stage.screen.point(onto, at);
    source.event("given", SOON);
    stage.screen.point(onto, (at.0 + 9, at.1));
    stage.screen.release();
    source.event("ended", SOON);
}

/// Clicks on the button that puts a notice away, at its right end. The notice may still
/// grow when it is first seen, so each click looks for it anew.
fn dismiss(stage: &Stage, window: &Window) {
    stage.until_seen(window, "no notice", |picture| {
        let Some((_, top)) = picture.line_of(WARNING_TINT, NOTICE_EDGE) else {
            return Some(());
        };
        let y = i32::try_from(top).expect("on the screen") + 26;
        // A click in the moment in which the drag ends may still be the drag's.
        stage.screen.click(window, (400, y));
        None
    });
}

#[test]
fn every_drop_ends_in_files_or_in_words() {
    let Some(stage) = Stage::set(LIGHT) else {
        return;
    };
    let folder = stage.scene.folder.path().join("to-drop");
    fs::create_dir_all(&folder).expect("a folder");
    let bob = stage.scene.peer("bob");
    let _receiving = bob.receive(&[]);
    let (_alice, alice) = stage.log_in("alice", 0);
    let row = stage.until_seen(&alice, "bob", |picture| {
        let rows = picture.pieces_in_column(RIGHT_OF_THE_BUTTONS_X, stage.theme.card, ROW_BODY);
        Some((IN_A_ROW_X, i32::try_from(*rows.first()?).ok()?))
    });
    for handed in short_lists(&folder).into_iter().chain(odd_lists(&folder)) {
        let what = handed.what;
        drop_list(&stage, &alice, row, &handed.list);
        for name in &handed.arrives {
            arrived(&bob.inbox, name);
        }
        if handed.complains {
            let notice = |picture: &Picture| picture.line_of(WARNING_TINT, NOTICE_EDGE);
            stage.until_seen(&alice, what, notice);
            stage.screenshot(&alice, &format!("7-{}", what.replace(' ', "-")));
            dismiss(&stage, &alice);
        }
    }
}
