//! Reports about recovery: words, signed changes of keys, and revoked keys.

use pinhole_client::{Fingerprint, PeerIdentity, PeerName, RecoveryWords};

use super::Reporter;
use super::json_line::JsonLine;

impl Reporter {
    /// The words that a new user has to write down.
    pub(crate) fn first_words(&self, words: &RecoveryWords) {
        self.say("These recovery words bring your name back if this computer is lost:");
        // Six of them fit into a line.
        let words: Vec<_> = words.as_str().split(' ').collect();
        for line in words.chunks(6) {
            self.say(&format!("    {}", line.join(" ")));
        }
        self.say("Write them down on paper. They are kept nowhere and not shown again.");
    }

    /// The words that the user has asked for.
    pub(crate) fn new_words(&self, words: &RecoveryWords) {
        let words = words.as_str();
        if self.json {
            return self.line(&JsonLine::RecoveryWords { words });
        }
        self.say("Write these recovery words down. They are kept nowhere and not shown again.");
        self.print(words);
    }

    /// The name belongs to this profile's key now.
    pub(crate) fn recovered(&self, name: &PeerName, fingerprint: Fingerprint) {
        if self.json {
            return self.line(&JsonLine::Recovered { name, fingerprint });
        }
        self.print(&format!(
            "{name} is yours again. Your new fingerprint: {fingerprint}"
        ));
        self.say("The recovery words stay good.");
    }

    /// The server has noted that the name's key is revoked.
    pub(crate) fn revoked(&self, name: &PeerName) {
        if self.json {
            return self.line(&JsonLine::Revoked { name });
        }
        self.print(&format!("nobody is to believe the key of {name} any more"));
        self.say(&format!(
            "with the recovery words, `pinhole recover {name}` brings the name back"
        ));
    }

    /// A person we know has a new key.
    pub(crate) fn key_succeeded(&self, peer: &PeerIdentity, was: Fingerprint) {
        let (name, fingerprint) = (&peer.name, peer.key.fingerprint());
        if self.json {
            return self.line(&JsonLine::KeySucceeded {
                peer: name,
                fingerprint,
                was,
            });
        }
        self.say(&format!(
            "{name} has a new key, signed with {name}'s recovery key. The fingerprint was {was} and is {fingerprint}"
        ));
    }

    /// A person we know has revoked a key.
    pub(crate) fn key_revoked(&self, peer: &PeerIdentity) {
        let (name, fingerprint) = (&peer.name, peer.key.fingerprint());
        if self.json {
            return self.line(&JsonLine::KeyRevoked {
                peer: name,
                fingerprint,
            });
        }
        self.say(&format!(
            "{name} has revoked the key {fingerprint}. Nothing is sent to it any more"
        ));
    }
}
