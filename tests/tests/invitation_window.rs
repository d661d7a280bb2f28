//! An invitation in a real window, read by a camera: another program decodes its QR code
//! from the screen.
#![cfg(target_os = "linux")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use pinhole_tests::process::{Process, binary};
use pinhole_tests::scene::{SOON, Scene};
use pinhole_tests::screen::{self, Colour, Picture, Screen, Window};

/// The fill of the one button that is to be clicked, in light.
const ACCENT: Colour = [0x0B, 0x72, 0x78];
/// No button with a word on it has a longer edge without it.
const BUTTON_EDGE: usize = 50;

/// What is missing, if anything is.
fn unavailable() -> Option<String> {
    let mut zbarimg = Command::new("zbarimg");
    zbarimg
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let is_there = zbarimg.status().is_ok_and(|status| status.success());
    let reason = (!is_there).then(|| "zbarimg (zbar-tools) is not installed".to_owned());
    screen::unavailable().or(reason)
}

fn picture(state: &str) -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    folder.join(format!("invitation-{state}.png"))
}

/// Clicks the one filled button of the window.
fn click_button(screen: &Screen, window: &Window, what: &str) {
    let at = screen.until_seen(window, what, &picture("trouble"), |picture: &Picture| {
        let (x, y) = picture.line_of(ACCENT, BUTTON_EDGE)?;
        let small = |n: usize| i32::try_from(n).ok();
        Some((small(x)? + 20, small(y)? + 6))
    });
    screen.click(window, at);
}

/// What the QR code in a picture says.
fn decoded(picture: &Path) -> Option<String> {
    let output = Command::new("zbarimg")
        .args(["--raw", "--quiet"])
        .arg(picture)
        .output();
    let text = String::from_utf8(output.expect("zbarimg").stdout).expect("UTF-8");
    let text = text.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

#[test]
fn the_qr_code_of_a_link_is_read_from_the_window_and_joins() {
    if let Some(reason) = unavailable() {
        // Past the capture of the test harness: nobody should take this for a pass.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
        return;
    }
    let (scene, screen) = (Scene::on_loopback(), Screen::start(700, 900));
    let mut command = screen.command(binary("pinhole-desktop"));
    command
        .arg("--data-dir")
        .arg(scene.folder.path().join("alice-window"));
    command.args(["--position", "0,0", "--theme", "light"]);
    command.args(["--server", &scene.server_address, "--name", "alice"]);
    command.env("PINHOLE_NO_NEARBY", "1");
    let _alice = Process::start("alice", command);
    let window = screen.window("Pinhole - alice");
    click_button(&screen, &window, "the button that invites");
    screen.save(&window, &picture("choice"));
    click_button(&screen, &window, "the button that makes the link");
    let link = screen.until_seen(&window, "a QR code", &picture("trouble"), |_| {
        screen.save(&window, &picture("link"));
        decoded(&picture("link"))
    });
    assert!(link.starts_with("PINHOLE://JOIN/"), "{link}");
    let bob = scene.peer("bob");
    let joined = bob.start_nameless(&["join", &link]).end(SOON);
    assert_eq!(joined.code, Some(0), "{joined:#?}");
    let event = joined.event("joined");
    assert_eq!(
        (&event["peer"], &event["told"]),
        (&"alice".into(), &true.into())
    );
}
