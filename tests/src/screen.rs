//! A screen of its own (Xvfb), with a window manager, a mouse and a keyboard:
//! what a test needs to use a window as a person does.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::Process;

/// A screen. Everything on it ends with it.
pub struct Screen {
    display: String,
    // Ended before the server they are connected to.
    _window_manager: Process,
    _server: Process,
}

/// A window on a screen, by its X id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    id: String,
    /// Its upper left corner on the screen.
    pub corner: (i32, i32),
}

/// A picture of a window.
pub struct Picture {
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
    rgb: Vec<u8>,
}

/// Red, green, blue.
pub type Colour = [u8; 3];

/// What is missing for a screen, if anything is.
#[must_use]
pub fn unavailable() -> Option<String> {
    let runs = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    for (name, program, arguments) in [
        ("Xvfb", "Xvfb", &["-help"][..]),
        ("xdotool", "xdotool", &["--version"]),
        ("openbox", "openbox", &["--version"]),
        ("ImageMagick's import", "import", &["-version"]),
        (
            "GTK 3 for /usr/bin/python3 (python3-gi, gir1.2-gtk-3.0)",
            "/usr/bin/python3",
            &["-c", "import gi; gi.require_version('Gtk', '3.0')"],
        ),
    ] {
        if !runs(program, arguments) {
            return Some(format!("{name} is not installed"));
        }
    }
    None
}

impl Screen {
    /// Starts a screen of that size on a display number that is free.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(width: u32, height: u32) -> Self {
        let mut server = Command::new("Xvfb");
        // Without -noreset it would start anew whenever its last client has left.
        server.args([
            "-displayfd",
            "1",
            "-noreset",
            "-nolisten",
            "tcp",
            "-screen",
            "0",
        ]);
        server.arg(format!("{width}x{height}x24"));
        let mut server = Process::start("Xvfb", server);
        let display = format!(":{}", server.line(Duration::from_secs(20)));
        let mut manager = Command::new("openbox");
        manager.arg("--sm-disable").env("DISPLAY", &display);
        let manager = Process::start("openbox", manager);
        let screen = Self {
            display,
            _window_manager: manager,
            _server: server,
        };
        // The window manager announces the desktops once it manages windows.
        until("a window manager", || {
            screen.xdotool(&["get_num_desktops"]).ok()
        });
        screen
    }

    /// A command that opens its windows on this screen.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("DISPLAY", &self.display)
            .env_remove("WAYLAND_DISPLAY");
        command
    }

    /// Waits for a window with exactly that title.
    ///
    /// # Panics
    /// When none comes.
    #[must_use]
    pub fn window(&self, title: &str) -> Window {
        until(title, || {
            let pattern = format!("^{title}$");
            let found = self
                .xdotool(&["search", "--onlyvisible", "--name", &pattern])
                .ok()?;
            let id = found.lines().last()?.to_owned();
            let geometry = self.xdotool(&["getwindowgeometry", "--shell", &id]).ok()?;
            let number = |key: &str| {
                geometry
                    .lines()
                    .find_map(|line| line.strip_prefix(key)?.parse::<i32>().ok())
            };
            Some(Window {
                id,
                corner: (number("X=")?, number("Y=")?),
            })
        })
    }

    /// Moves the mouse to a point of a window, in steps as a hand does.
    pub fn point(&self, window: &Window, (x, y): (i32, i32)) {
        for step in [-6, -3, 0] {
            let x = (window.corner.0 + x + step).to_string();
            let y = (window.corner.1 + y).to_string();
            self.must(&["mousemove", "--sync", &x, &y]);
        }
    }

    /// Presses the left button and moves so far that a drag begins.
    pub fn begin_drag(&self, window: &Window, (x, y): (i32, i32)) {
        self.point(window, (x, y));
        self.must(&["mousedown", "1"]);
        for step in [4, 8, 16, 24] {
            self.point(window, (x + step, y + step));
        }
    }

    /// Lets the left button go.
    pub fn release(&self) {
        self.must(&["mouseup", "1"]);
    }

    /// Clicks on a point of a window.
    pub fn click(&self, window: &Window, at: (i32, i32)) {
        self.point(window, at);
        self.must(&["click", "1"]);
    }

    /// Gives a window the keyboard.
    pub fn activate(&self, window: &Window) {
        self.must(&["windowactivate", "--sync", &window.id]);
    }

    /// Presses a key, by its X name.
    pub fn key(&self, key: &str) {
        self.must(&["key", key]);
    }

    /// A picture of a window as it is now.
    ///
    /// # Panics
    /// When it cannot be taken.
    #[must_use]
    pub fn picture(&self, window: &Window) -> Picture {
        let mut import = self.command("import");
        import.args(["-window", &window.id, "-depth", "8", "ppm:-"]);
        let output = import.output().expect("import");
        assert!(output.status.success(), "import: {output:?}");
        Picture::from_ppm(&output.stdout).expect("a picture")
    }

    /// Waits until a picture of the window shows what `look` looks for.
    ///
    /// # Panics
    /// When it does not in time; the last picture is left in `trouble`.
    pub fn until_seen<T>(
        &self,
        window: &Window,
        what: &str,
        trouble: &Path,
        look: impl Fn(&Picture) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let picture = self.picture(window);
            if let Some(found) = look(&picture) {
                return found;
            }
            thread::sleep(BETWEEN_LOOKS);
            if Instant::now() > deadline {
                self.save(window, trouble);
                panic!("{what} is not to be seen: {}", trouble.display());
            }
        }
    }

    /// Saves a picture of a window.
    ///
    /// # Panics
    /// When it cannot be taken.
    pub fn save(&self, window: &Window, path: &Path) {
        let mut import = self.command("import");
        import.args(["-window", &window.id]).arg(path);
        assert!(
            import.status().expect("import").success(),
            "import to {}",
            path.display()
        );
    }

    fn must(&self, arguments: &[&str]) {
        if let Err(error) = self.xdotool(arguments) {
            panic!("xdotool {arguments:?}: {error}");
        }
    }

    fn xdotool(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self
            .command("xdotool")
            .args(arguments)
            .output()
            .map_err(|e| e.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

impl Picture {
    /// Reads a binary pixmap (PPM, "P6") of eight bits a channel.
    fn from_ppm(bytes: &[u8]) -> Option<Self> {
        let mut parts = bytes.splitn(4, |&byte| byte == b'\n' || byte == b' ');
        let magic = parts.next()?;
        let mut number = || {
            std::str::from_utf8(parts.next()?)
                .ok()?
                .parse::<usize>()
                .ok()
        };
        let (width, height) = (number()?, number()?);
        let rgb = parts.next()?.strip_prefix(b"255\n")?.to_vec();
        (magic == b"P6" && rgb.len() == width * height * 3).then_some(Self { width, height, rgb })
    }

    /// The colour at a point.
    #[must_use]
    pub fn at(&self, x: usize, y: usize) -> Colour {
        let start = (y * self.width + x) * 3;
        [self.rgb[start], self.rgb[start + 1], self.rgb[start + 2]]
    }

    /// The first row, from above, of `length` pixels of one colour: its left
    /// end and height.
    #[must_use]
    pub fn line_of(&self, colour: Colour, length: usize) -> Option<(usize, usize)> {
        (0..self.height).find_map(|y| {
            let mut run = 0;
            (0..self.width).find_map(|x| {
                run = if self.at(x, y) == colour { run + 1 } else { 0 };
                (run == length).then(|| (x + 1 - length, y))
            })
        })
    }

    /// Where in one column a colour stands in pieces of at least `length`
    /// pixels: the middle of each, from above.
    #[must_use]
    pub fn pieces_in_column(&self, x: usize, colour: Colour, length: usize) -> Vec<usize> {
        let mut pieces = Vec::new();
        let mut run = 0;
        for y in 0..=self.height {
            if y < self.height && self.at(x, y) == colour {
                run += 1;
            } else {
                if run >= length {
                    pieces.push(y - run / 2);
                }
                run = 0;
            }
        }
        pieces
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
/// Looking costs the machine what the windows need.
const BETWEEN_LOOKS: Duration = Duration::from_millis(30);

fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} in {PATIENCE:?}");
        thread::sleep(BETWEEN_LOOKS);
    }
}
