//! Reports about people: their keys, and decisions about them.

use pinhole_client::{Fingerprint, PeerIdentity, PeerKey, PeerName, PeerView};

use super::json_line::JsonLine;
use super::{KeyChange, Reporter, words};

impl Reporter {
    /// A peer under a known name has another key and was refused.
    pub(crate) fn key_refused(&self, peer: &PeerIdentity, known: Fingerprint, change: KeyChange) {
        let (name, fingerprint) = (&peer.name, peer.key.fingerprint());
        if self.json {
            return self.line(&JsonLine::KeyRefused {
                peer: name,
                fingerprint,
                known,
                released: change == KeyChange::Released,
            });
        }
        let trust = words::trust(name.as_str(), known, fingerprint);
        self.say(&match change {
            KeyChange::Unexplained => format!(
                "refused {name}, whose key has changed. It may be a new device, or somebody else. {trust}"
            ),
            KeyChange::Released => format!(
                "refused {name}: the name was not used for so long that the server released it, and whoever has it now is somebody else. {trust}"
            ),
        });
    }

    /// A key was pinned.
    pub(crate) fn trusted(&self, name: &PeerName, fingerprint: Fingerprint) {
        if self.json {
            return self.line(&JsonLine::Trusted { name, fingerprint });
        }
        self.print(&format!("{name} is {fingerprint} from now on"));
    }

    /// A peer nearby claims a name that no server confirms.
    pub(crate) fn claimed(&self, peer: &PeerIdentity) {
        let (name, fingerprint) = (&peer.name, peer.key.fingerprint());
        if self.json {
            return self.line(&JsonLine::Claimed {
                peer: name,
                fingerprint,
            });
        }
        self.say(&format!(
            "{name} is nearby; no server confirms the name. Its fingerprint: {fingerprint}"
        ));
    }

    /// A stranger wants to connect, and has to wait for permission.
    pub(crate) fn asked(&self, peer: &PeerIdentity) {
        let (name, fingerprint) = (&peer.name, peer.key.fingerprint());
        if self.json {
            return self.line(&JsonLine::Asked {
                peer: name,
                fingerprint,
            });
        }
        self.show(&format!(
            "{name}, a stranger, wants to connect. Fingerprint: {fingerprint}"
        ));
    }

    /// A contact, or a blocked person.
    pub(crate) fn contact(&self, peer: &PeerIdentity, blocked: bool) {
        let (name, fingerprint) = (&peer.name, peer.key.fingerprint());
        if self.json {
            return self.line(&JsonLine::Contact {
                name,
                fingerprint,
                blocked,
            });
        }
        let note = if blocked { "  blocked" } else { "" };
        self.print(&format!("{name:<32}  {fingerprint}{note}"));
    }

    /// A contact was removed.
    pub(crate) fn forgotten(&self, peer: &PeerIdentity) {
        let (name, fingerprint) = (&peer.name, peer.key.fingerprint());
        if self.json {
            return self.line(&JsonLine::Forgotten { name, fingerprint });
        }
        self.print(&format!(
            "{name:<32}  {fingerprint}  is a stranger from now on"
        ));
    }

    /// Somebody who was looked up is not there.
    pub(crate) fn absent(&self, name: &PeerName) {
        match self.json {
            true => self.line(&JsonLine::Absent { name }),
            false => self.say(&format!("{name} is not online")),
        }
    }

    /// The server does not list everybody.
    pub(crate) fn directory_closed(&self) {
        match self.json {
            true => self.line(&JsonLine::DirectoryClosed),
            false => self
                .say("this server does not list everybody; `pinhole peers NAME` looks a person up"),
        }
    }

    pub(crate) fn peer(&self, peer: &PeerView) {
        let (name, key) = (&peer.identity.name, peer.identity.key);
        let fingerprint = key.fingerprint();
        let (contact, key_changed) = (peer.contact, peer.changed_from.is_some());
        let (nearby, claimed) = (peer.nearby, peer.claimed);
        let (released, revoked) = (peer.released, peer.revoked);
        if self.json {
            return self.line(&JsonLine::Peer {
                name,
                key,
                fingerprint,
                contact,
                key_changed,
                nearby,
                claimed,
                released,
                revoked,
            });
        }
        let note = match (key_changed, contact) {
            _ if revoked => "  KEY REVOKED",
            _ if released => "  SOMEBODY ELSE, THE NAME WAS RELEASED",
            (true, _) => "  KEY HAS CHANGED",
            (false, true) => "  contact",
            (false, false) => "",
        };
        let place = match (nearby, claimed) {
            (true, true) => "  nearby, name not confirmed by a server",
            (true, false) => "  nearby",
            (false, _) => "",
        };
        self.print(&format!("{name:<32}  {fingerprint}{note}{place}"));
    }

    pub(crate) fn id(&self, name: Option<&PeerName>, key: PeerKey) {
        let fingerprint = key.fingerprint();
        if self.json {
            return self.line(&JsonLine::Id {
                name,
                key,
                fingerprint,
            });
        }
        let shown = name.map_or("(none yet; pass --name)", PeerName::as_str);
        self.print(&format!("name         {shown}"));
        self.print(&format!("key          {key}"));
        self.print(&format!("fingerprint  {fingerprint}"));
    }
}
