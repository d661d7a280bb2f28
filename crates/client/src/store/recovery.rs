//! What is known in public of a profile's recovery key, kept in `recovery.json`.

use pinhole_net::{LoginRecovery, PeerKey, RecoveryCertificate, RecoveryRequest, Succession};
use serde::{Deserialize, Serialize};

/// Our key's certificate, and how it came by its name. Nothing in it is secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recovery {
    /// Which recovery key may name our successor; absent while there is none.
    #[serde(default)]
    pub(crate) certificate: Option<RecoveryCertificate>,
    /// How our key has taken the place of a lost one, for servers that do not know yet.
    #[serde(default)]
    pub(crate) succession: Option<Succession>,
}

impl Recovery {
    /// The part of it that is about this key. A file from elsewhere may be about another.
    pub(crate) fn of(self, key: PeerKey) -> Self {
        Self {
            certificate: self.certificate.filter(|it| it.key == key),
            succession: self.succession.filter(|it| it.successor == key),
        }
    }

    /// What is said of it when we log in.
    pub(crate) fn at_login(&self) -> LoginRecovery {
        LoginRecovery {
            certificate: self.certificate,
            request: self.succession.map(RecoveryRequest::Succeed),
        }
    }
}
