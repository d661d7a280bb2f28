//! `receive --service`: what the service manager is told.

use pinhole_client::{LoginState, Snapshot, Stage};

use crate::report::plain;

/// A running service.
#[derive(Debug, Default)]
pub(super) struct Service {
    is_ready: bool,
    status: String,
}

impl Service {
    /// Tells how the service is, if that is news.
    pub(super) fn tell(&mut self, snapshot: &Snapshot) {
        let status = status(snapshot);
        if self.status != status {
            notify(Notice::Status(&status));
            self.status = status;
        }
        // A server that cannot be reached is waited for, which needs nobody.
        let is_ready = !matches!(
            (&snapshot.login, &snapshot.nearby),
            (LoginState::LoggingIn { .. }, _) | (LoginState::LoggedOut { .. }, None)
        );
        if is_ready && !std::mem::replace(&mut self.is_ready, true) {
            notify(Notice::Ready);
        }
    }

    /// Tells that the service ends.
    pub(super) fn stop(&self) {
        notify(Notice::Stopping);
    }
}

/// One line about everything.
fn status(snapshot: &Snapshot) -> String {
    let login = match (&snapshot.login, &snapshot.nearby) {
        (LoginState::LoggedIn { name, server }, _) => {
            format!("Logged in as {name} at {}", server.host_port())
        }
        (LoginState::LoggingIn { name, server }, _) => {
            format!("Logging in as {name} at {}", server.host_port())
        }
        (LoginState::Reconnecting { failure, .. }, _) => {
            let why = failure.to_string();
            format!("{} Waiting for the server", plain(&why))
        }
        (LoginState::LoggedOut { .. }, Some(name)) => {
            format!("People on this network can find {name}")
        }
        (LoginState::LoggedOut { .. }, None) => "Not logged in".to_owned(),
    };
    let count = |is_meant: fn(&Stage) -> bool| {
        let stages = snapshot.transfers.iter().map(|it| &it.stage);
        stages.filter(|stage| is_meant(stage)).count()
    };
    let moving = count(|stage| matches!(stage, Stage::Transferring | Stage::Reconnecting));
    let waiting = count(|stage| matches!(stage, Stage::AwaitingDecision));
    let parts = [
        counted(moving, "transfer runs", "transfers run"),
        counted(
            waiting,
            "offer waits for an answer",
            "offers wait for an answer",
        ),
        counted(
            snapshot.asking.len(),
            "person asks to connect",
            "people ask to connect",
        ),
    ];
    let parts = parts.into_iter().flatten();
    std::iter::once(login)
        .chain(parts)
        .collect::<Vec<_>>()
        .join("; ")
}

fn counted(count: usize, one: &str, several: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        _ => Some(format!("{count} {several}")),
    }
}

#[derive(Clone, Copy)]
enum Notice<'a> {
    Ready,
    Status(&'a str),
    Stopping,
}

/// Tells systemd, if it has started this process and wants to know.
#[cfg(target_os = "linux")]
fn notify(notice: Notice<'_>) {
    use sd_notify::NotifyState;
    let state = match notice {
        Notice::Ready => NotifyState::Ready,
        Notice::Status(status) => NotifyState::Status(status),
        Notice::Stopping => NotifyState::Stopping,
    };
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager is not told how the service is");
    }
}

#[cfg(not(target_os = "linux"))]
fn notify(notice: Notice<'_>) {
    match notice {
        Notice::Ready => tracing::debug!("ready"),
        Notice::Status(status) => tracing::debug!("{status}"),
        Notice::Stopping => tracing::debug!("stopping"),
    }
}
