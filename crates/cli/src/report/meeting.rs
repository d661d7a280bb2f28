//! Reports about links and codes, by which people meet for the first time.

use std::io::{self, IsTerminal as _};

use pinhole_client::{Code, InvitationLink, PeerIdentity, PeerName, ServerAddress, Uses};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use super::Reporter;
use super::json_line::JsonLine;
use crate::display;

/// Black on white, whatever the colours of the terminal are.
const INK: &str = "\u{1b}[30;107m";
const NO_INK: &str = "\u{1b}[0m";

impl Reporter {
    /// A link that invites somebody.
    pub(crate) fn invitation(&self, link: &InvitationLink, uses: Uses) {
        let text = link.to_string();
        if self.json {
            return self.line(&JsonLine::Invitation { link: &text });
        }
        self.output.whole(&text);
        if io::stdout().is_terminal() {
            self.qr_code(link);
        }
        let who = match uses {
            Uses::Once => "the first person who uses it",
            Uses::Many => "everybody who has it",
        };
        self.say(&match link.ends_at_s() {
            Some(end) => {
                let end = display::date(end);
                format!("lets {who} in until {end}. They run: pinhole join LINK")
            }
            None => {
                "for somebody on your own network, because no server is known. They run: pinhole join LINK".to_owned()
            }
        });
    }

    /// Shows a link to a camera, if there is room for it.
    fn qr_code(&self, link: &InvitationLink) {
        let code = QrCode::with_error_correction_level(link.for_qr_code(), EcLevel::L);
        let Ok(code) = code else {
            return;
        };
        let lines = code
            .render::<Dense1x2>()
            .dark_color(Dense1x2::Dark)
            .light_color(Dense1x2::Light)
            .build();
        let lines: Vec<_> = lines
            .lines()
            .map(|line| format!("{INK}{line}{NO_INK}"))
            .collect();
        // Both sides of it have four modules of white.
        match self.output.has_columns(code.width() + 8) && !self.output.is_ascii() {
            true => self.output.whole(&lines.join("\n")),
            false => self.say("the terminal is too narrow to show it as a QR code"),
        }
    }

    /// We have joined somebody.
    pub(crate) fn joined(&self, name: &PeerName, peer: &PeerIdentity, told: bool) {
        let fingerprint = peer.key.fingerprint();
        if self.json {
            return self.line(&JsonLine::Joined {
                name,
                peer: &peer.name,
                fingerprint,
                told,
            });
        }
        let peer = &peer.name;
        self.print(&match told {
            true => format!("joined {peer} as {name}: you are contacts"),
            false => format!(
                "joined {peer} as {name}: {peer} is your contact, and learns of you when you both are online"
            ),
        });
    }

    /// Somebody has joined us.
    pub(crate) fn welcomed(&self, peer: &PeerIdentity) {
        let (name, fingerprint) = (&peer.name, peer.key.fingerprint());
        if self.json {
            return self.line(&JsonLine::Welcomed {
                peer: name,
                fingerprint,
            });
        }
        self.say(&format!("{name} has joined you and is a contact now"));
    }

    /// A code that somebody may join by.
    pub(crate) fn code(&self, code: Code, server: Option<&ServerAddress>) {
        let code = code.to_string();
        if self.json {
            return self.line(&JsonLine::Code { code: &code });
        }
        self.output.whole(&code);
        self.say(&format!(
            "the other person runs: pinhole receive {code}{}",
            server.map_or_else(String::new, |server| format!(" --server {server}"))
        ));
        self.say("good once, for ten minutes; Ctrl-C closes it");
    }
}
