//! Reports about being online and nearby.

use std::net::SocketAddr;
use std::time::Duration;

use pinhole_client::{Failure, PeerName, ServerAddress};

use super::json_line::JsonLine;
use super::output::Level;
use super::{Reporter, millis, words};

/// What the user knows while the server cannot be reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outage {
    /// The user has not been told yet.
    pub(crate) is_news: bool,
    /// People nearby can be reached.
    pub(crate) is_nearby: bool,
}

impl Reporter {
    pub(crate) fn logged_in(&self, name: &PeerName, server: &ServerAddress, observed: SocketAddr) {
        if self.json {
            self.line(&JsonLine::LoggedIn {
                name,
                observed,
                server: server.to_string(),
            });
        } else {
            self.say(&format!("logged in as {name} at {server}"));
        }
    }

    pub(crate) fn nearby(&self, name: &PeerName, port: Option<u16>) {
        if self.json {
            self.line(&JsonLine::Nearby { name, port });
        } else if let Some(port) = port {
            self.say(&format!(
                "people on your network can find you as {name} (TCP port {port})"
            ));
        }
    }

    /// There is no server, or it cannot be reached.
    pub(crate) fn nearby_only(&self, failure: Option<&Failure>) {
        if self.json {
            let reason = failure.map(words::failure);
            return self.line(&JsonLine::NearbyOnly { reason });
        }
        let why = failure.map_or_else(|| "No server is set.".to_owned(), words::failure);
        self.say(&format!("{why} Only people nearby can be reached."));
    }

    /// The server cannot be reached, and there will be another attempt.
    pub(crate) fn disconnected(&self, failure: &Failure, retry_in: Duration, outage: Outage) {
        if self.json {
            let retry_in_ms = millis(retry_in);
            self.line(&JsonLine::Disconnected {
                reason: words::failure(failure),
                retry_in_ms,
            });
        } else if outage.is_news {
            let meanwhile = match outage.is_nearby {
                true => " Meanwhile only people nearby can be reached.",
                false => "",
            };
            let why = words::failure(failure);
            let text = format!("{why} Trying again until it is there.{meanwhile}");
            self.say_at(Level::Warning, &text);
        }
    }
}
