//! `pinhole-desktop`: Pinhole in a window.

#![cfg_attr(windows, windows_subsystem = "windows")]

mod action;
mod app;
mod attention;
mod bridge;
mod connection;
mod contacts;
mod dialogs;
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "told by X11"))]
mod drag;
mod header;
mod history;
mod hover;
mod icon;
mod invite;
mod leave;
mod login;
mod message;
mod offer;
mod paste;
mod peers;
mod recovery;
mod search;
mod selection;
mod send_sheet;
mod settings;
mod sheet;
mod sheet_stack;
mod strangers;
#[cfg(test)]
mod tests;
mod text;
mod theme;
mod transfers;
mod trust;
#[cfg(target_os = "linux")]
mod xdnd;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};
use pinhole_client::PathPolicy;

use crate::app::{App, LoginPrefill};
use crate::bridge::Bridge;

/// Send files straight to another computer.
#[derive(Debug, Parser)]
#[command(name = "pinhole-desktop", version)]
struct DesktopArguments {
    /// The rendezvous server; with #FINGERPRINT nobody can pose as it.
    #[arg(
        long,
        value_name = "HOST[:PORT][,...][#FINGERPRINT]",
        env = "PINHOLE_SERVER"
    )]
    server: Option<String>,
    /// Your name there. With --server on the command line too, log in at once.
    #[arg(long, env = "PINHOLE_NAME")]
    name: Option<String>,
    /// Where the profile is kept.
    #[arg(long, value_name = "DIR", env = "PINHOLE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Which way files may go.
    #[arg(long, value_enum, env = "PINHOLE_PATH")]
    path: Option<PathArgument>,
    /// Neither look for people on your own network nor be found by them.
    #[arg(long, env = "PINHOLE_NO_NEARBY", value_parser = clap::builder::FalseyValueParser::new())]
    no_nearby: bool,
    /// Where on the screen the window opens, in points.
    #[arg(long, value_name = "X,Y", value_parser = position)]
    position: Option<egui::Pos2>,
    /// Files and folders to send, of which the window asks to whom; or an invitation to
    /// join by, as `pinhole invite` prints it.
    #[arg(value_name = "PATH|LINK")]
    given: Vec<PathBuf>,
    /// Light or dark.
    #[arg(long, value_enum, default_value_t = Appearance::System)]
    theme: Appearance,
}

/// How an invitation begins, and no path of a file manager does.
const LINK_SCHEME: &str = "pinhole:";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PathArgument {
    /// Direct when possible, the relay when not.
    Auto,
    /// Never through the relay.
    Direct,
    /// Only through the relay, which hides your address from the other side.
    Relay,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Appearance {
    Light,
    Dark,
    System,
}

fn position(text: &str) -> Result<egui::Pos2, String> {
    text.split_once(',')
        .and_then(|(x, y)| {
            Some(egui::Pos2::new(
                x.trim().parse().ok()?,
                y.trim().parse().ok()?,
            ))
        })
        .filter(|position| position.is_finite())
        .ok_or_else(|| "two numbers with a comma between, such as 100,80".to_owned())
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let matches = DesktopArguments::command().get_matches();
    let arguments = match DesktopArguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let given = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let is_link = |given: &&PathBuf| given.to_str().is_some_and(|it| it.starts_with(LINK_SCHEME));
    let link = arguments.given.iter().find(is_link);
    let link = link.map(|link| link.to_string_lossy().into_owned());
    let paths = arguments.given.iter().filter(|given| !is_link(given));
    let paths: Vec<_> = paths.map(absolute).collect();
    match pinhole_client::raise(arguments.data_dir.as_deref(), paths.clone(), link.clone()) {
        // The window that is there has taken over.
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        // The window says why it cannot start.
        Err(error) => tracing::warn!(%error, "no other window can be asked"),
    }
    let prefill = LoginPrefill {
        name: arguments.name.clone(),
        server: arguments.server.clone(),
        link,
        log_in: given("name") && given("server"),
        paths,
    };
    match run(arguments, prefill) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", no_window(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: DesktopArguments, prefill: LoginPrefill) -> eframe::Result {
    let options = window(&arguments);
    let start = pinhole_client::Options {
        data_dir: arguments.data_dir,
        overrides: pinhole_client::Overrides {
            path: arguments.path.map(|path| match path {
                PathArgument::Auto => PathPolicy::Auto,
                PathArgument::Direct => PathPolicy::DirectOnly,
                PathArgument::Relay => PathPolicy::RelayOnly,
            }),
            nearby: arguments.no_nearby.then_some(false),
            ..pinhole_client::Overrides::default()
        },
        face: pinhole_client::FaceKind::Window,
    };
    let theme = match arguments.theme {
        Appearance::Light => egui::ThemePreference::Light,
        Appearance::Dark => egui::ThemePreference::Dark,
        Appearance::System => egui::ThemePreference::System,
    };
    let create: eframe::AppCreator<'_> = Box::new(move |cc| {
        cc.egui_ctx.set_theme(theme);
        let wake = bridge::waker(cc.egui_ctx.clone());
        match pinhole_client::start(start, wake) {
            Ok((client, events)) => {
                let snapshot = client.snapshot();
                let bridge = Bridge::engine(client, events);
                Ok(Box::new(App::new(cc, bridge, snapshot, prefill)))
            }
            Err(error) => Ok(Box::new(CannotStart::new(cc, error.to_string()))),
        }
    });
    eframe::run_native(text::APP, options, create)
}

fn window(arguments: &DesktopArguments) -> eframe::NativeOptions {
    let mut viewport = egui::ViewportBuilder::default()
        .with_title(text::APP)
        .with_app_id("pinhole")
        .with_inner_size([480.0, 720.0])
        .with_min_inner_size([400.0, 480.0])
        .with_drag_and_drop(true);
    if let Some(position) = arguments.position {
        viewport = viewport.with_position(position);
    }
    match eframe::icon_data::from_png_bytes(include_bytes!("../../../assets/icon-256.png")) {
        Ok(icon) => viewport = viewport.with_icon(icon),
        Err(error) => tracing::warn!(%error, "the window has no icon"),
    }
    #[allow(unused_mut, reason = "only Linux amends them")]
    let mut options = eframe::NativeOptions {
        viewport,
        ..Default::default()
    };
    // winit has no file drag under Wayland: with XWayland, X11 serves better.
    #[cfg(target_os = "linux")]
    if std::env::var_os("DISPLAY").is_some() {
        use winit::platform::x11::EventLoopBuilderExtX11 as _;
        options.event_loop_builder = Some(Box::new(|builder| {
            builder.with_x11();
        }));
    }
    options
}

/// What to say when there is no window to say it in.
fn no_window(error: &eframe::Error) -> String {
    const COMMAND_LINE: &str = "Without a screen, use the command line: pinhole --help";
    let set = |name| std::env::var_os(name).is_some();
    if !cfg!(target_os = "linux") {
        format!("Pinhole could not open its window: {error}")
    } else if set("DISPLAY") || set("WAYLAND_DISPLAY") {
        format!(
            "Pinhole could not open its window: {error}\nIt needs X11 or XWayland, and OpenGL. On Debian and Ubuntu:\n  apt-get install libx11-6 libx11-xcb1 libxcursor1 libxi6 libxkbcommon-x11-0 libegl1 libgl1-mesa-dri libfontconfig1\n{COMMAND_LINE}"
        )
    } else {
        format!(
            "Pinhole could not open its window: there is no graphical session (neither DISPLAY nor WAYLAND_DISPLAY is set). {COMMAND_LINE}"
        )
    }
}

/// Shown instead of the application when the engine cannot start.
struct CannotStart {
    why: String,
}

impl CannotStart {
    fn new(cc: &eframe::CreationContext<'_>, why: String) -> Self {
        theme::install(&cc.egui_ctx);
        eprintln!("{}: {why}", text::CANNOT_START);
        Self { why }
    }
}

impl eframe::App for CannotStart {
    fn ui(&mut self, ui: &mut egui::Ui, _frame: &mut eframe::Frame) {
        egui::CentralPanel::default().show(ui, |ui| {
            ui.vertical_centered(|ui| {
                ui.add_space(theme::GAP_SECTION * 4.0);
                icon::aperture(ui, 72.0);
                ui.add_space(theme::GAP_LARGE);
                ui.heading(text::CANNOT_START);
                ui.add_space(theme::GAP);
                ui.label(&self.why);
                ui.add_space(theme::GAP_SECTION);
                if theme::primary_button(ui, text::QUIT).clicked() {
                    ui.ctx().send_viewport_cmd(egui::ViewportCommand::Close);
                }
            });
        });
    }
}
