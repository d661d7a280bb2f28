//! Links and codes: what the state needs for them of the clock and of chance.

use std::time::{Duration, Instant};

use super::Engine;
use super::sessions::unix_time_s;
use crate::command::Command;
use crate::event::Event;
use crate::failure::Failure;
use crate::invitation::code::CodeWords;
use crate::invitation::link::Pass;
use crate::invitation::proof::Secret;
use crate::state::NewInvitation;

/// An invitation lasts no longer, whatever is asked for.
const LASTS_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Engine {
    /// Has the state make a link or a code, or join by a link.
    pub(super) async fn meet(&mut self, command: Command) {
        let (now, now_s) = (Instant::now(), unix_time_s());
        let begun = match command {
            Command::Invite {
                name,
                server,
                uses,
                lasts,
            } => Secret::generate().map(|secret| {
                let ends_at_s = now_s.saturating_add(lasts.min(LASTS_MAX).as_secs());
                let new = NewInvitation {
                    name,
                    server,
                    uses,
                    pass: Pass { secret, ends_at_s },
                    now_s,
                };
                self.state.handle_invite(&new, now);
            }),
            Command::OpenCode => {
                CodeWords::generate().map(|words| self.state.handle_open_code(words, now))
            }
            Command::Join { link } => {
                self.state.handle_join(link, now_s, now);
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(error) = begun {
            let detail = format!("{error}.");
            let failure = Failure::NotPossible { detail };
            self.emit(Event::CommandFailed { failure }).await;
        }
    }
}
