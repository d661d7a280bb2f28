//! What is signed about keys: recovery certificates, successions and revocations, as both
//! stores keep them. Whoever calls has checked the signatures.

use std::time::Duration;

use pinhole_proto::key::{KeyTextError, PeerKey};
use pinhole_proto::name::PeerName;
use pinhole_proto::recovery::{KeyHistory, RecoveryCertificate, Revocation, Succession};

use super::{NameState, Names, NamesError};

/// How long the recovery key before still counts instead of a new one. Whoever has stolen
/// a device can make it sign for another recovery key. The owner's words are good until
/// then.
pub const RECOVERY_DELAY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The recovery key of a key, and the one that is to take its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotedRecovery {
    pub(super) current: RecoveryCertificate,
    /// With the time at which it came.
    pub(super) next: Option<(RecoveryCertificate, i64)>,
}

impl NotedRecovery {
    /// The first certificate of a key, which counts at once.
    #[must_use]
    pub const fn first(certificate: RecoveryCertificate) -> Self {
        Self {
            current: certificate,
            next: None,
        }
    }

    /// The certificate that counts at this time, in seconds since 1970.
    #[must_use]
    pub fn in_force(self, now_s: i64) -> RecoveryCertificate {
        self.at(now_s).current
    }

    /// What is to be noted once the key has shown this certificate, too. One of another
    /// recovery key counts after [`RECOVERY_DELAY`].
    #[must_use]
    pub fn with(self, certificate: RecoveryCertificate, now_s: i64) -> Self {
        let noted = self.at(now_s);
        let is_same = |it: RecoveryCertificate| it.recovery_key == certificate.recovery_key;
        let next = match noted.next {
            _ if is_same(noted.current) => None,
            Some(next) if is_same(next.0) => Some(next),
            _ => Some((certificate, now_s)),
        };
        Self { next, ..noted }
    }

    /// What is left once the delay of the next one is over.
    fn at(self, now_s: i64) -> Self {
        let delay_s = i64::try_from(RECOVERY_DELAY.as_secs()).unwrap_or(i64::MAX);
        match self.next {
            Some((next, since_s)) if now_s.saturating_sub(since_s) >= delay_s => Self::first(next),
            _ => self,
        }
    }
}

/// What is known to decide on a claim.
#[derive(Debug)]
pub struct ClaimedName {
    /// What the name is.
    pub state: NameState,
    /// The claiming key was revoked, or another one has taken its place.
    pub has_ended: bool,
    /// The day on which the name was last noted as used, counted from 1970-01-01.
    pub used_on: Option<i64>,
    /// The recovery key of the name's key, or of the claiming key if the name is free. An
    /// error if it is damaged.
    pub recovery: Result<Option<NotedRecovery>, KeyTextError>,
}

/// The key of a name, whether it is banned, whether the claiming key has ended, the last
/// use; then the key of the recovery key, and its row in the table.
pub(super) type ClaimedRow = (
    Option<String>,
    bool,
    bool,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<i64>,
);
/// A certified key, its recovery key, its certificate, the successor, the signature.
pub(super) type SuccessionRow = (String, String, String, String, String);
/// The recovery key, the certificate and the signature of a revocation, if there is any,
/// and when a name was released from the key.
pub(super) type EndRow = (Option<String>, Option<String>, Option<String>, Option<i64>);
/// A name, its revoked key, the recovery key, the certificate and the signature.
pub(super) type RevokedRow = (String, String, Option<String>, Option<String>, String);

pub(super) fn claimed(row: &ClaimedRow) -> ClaimedName {
    let (key, is_banned, has_ended, used_on, of, recovery_key, signature, ..) = row;
    let (_, _, _, _, _, _, _, next_key, next_signature, next_since_s) = row;
    let certificate = |key: &Option<String>, signature: &Option<String>| match (of, key, signature)
    {
        (Some(of), Some(key), Some(signature)) => {
            certificate(of.parse()?, key, signature).map(Some)
        }
        _ => Ok(None),
    };
    let recovery = || {
        let next = certificate(next_key, next_signature)?;
        let current = certificate(recovery_key, signature)?;
        Ok(current.map(|current| NotedRecovery {
            current,
            next: next.zip(*next_since_s),
        }))
    };
    ClaimedName {
        state: NameState::of(key.clone(), *is_banned),
        has_ended: *has_ended,
        used_on: *used_on,
        recovery: recovery(),
    }
}

fn certificate(
    key: PeerKey,
    recovery_key: &str,
    signature: &str,
) -> Result<RecoveryCertificate, KeyTextError> {
    Ok(RecoveryCertificate {
        key,
        recovery_key: recovery_key.parse()?,
        signature: signature.parse()?,
    })
}

/// What has become of a key that was known under this name.
pub(super) fn history(
    name: &PeerName,
    key: PeerKey,
    successions: Vec<SuccessionRow>,
    end: EndRow,
) -> Result<KeyHistory, KeyTextError> {
    let successions = successions.into_iter().map(succession);
    let (recovery_key, certificate, signature, released_at_s) = end;
    let revocation = signature.map(|signature| {
        revocation(
            key,
            recovery_key.as_deref(),
            certificate.as_deref(),
            &signature,
        )
    });
    Ok(KeyHistory {
        successions: successions.collect::<Result<_, _>>()?,
        revocation: revocation.transpose()?,
        released_at_s,
        ..KeyHistory::unknown(name.clone(), key)
    })
}

fn succession(row: SuccessionRow) -> Result<Succession, KeyTextError> {
    let (key, recovery_key, signed, successor, signature) = row;
    Ok(Succession {
        certificate: certificate(key.parse()?, &recovery_key, &signed)?,
        successor: successor.parse()?,
        signature: signature.parse()?,
    })
}

fn revocation(
    key: PeerKey,
    recovery_key: Option<&str>,
    signed: Option<&str>,
    signature: &str,
) -> Result<Revocation, KeyTextError> {
    let certified = recovery_key.zip(signed);
    let certified = certified.map(|(recovery_key, signed)| certificate(key, recovery_key, signed));
    Ok(Revocation {
        key,
        certificate: certified.transpose()?,
        signature: signature.parse()?,
    })
}

/// A revoked key with a name of it.
pub(super) fn revoked(row: RevokedRow) -> Option<Result<(PeerName, Revocation), KeyTextError>> {
    let (name, key, recovery_key, certificate, signature) = row;
    let name = name.parse().ok()?;
    let parsed = key.parse().and_then(|key| {
        revocation(
            key,
            recovery_key.as_deref(),
            certificate.as_deref(),
            &signature,
        )
    });
    Some(parsed.map(|revocation| (name, revocation)))
}

impl Names {
    /// What is known to decide on claims of these names by these keys.
    ///
    /// # Errors
    /// See the type.
    pub async fn look_up_claimed(
        &mut self,
        claims: &[(PeerName, PeerKey)],
    ) -> Result<Vec<ClaimedName>, NamesError> {
        match self {
            Self::Sqlite(it) => it.look_up_claimed(claims),
            Self::Postgres(it) => it.look_up_claimed(claims).await,
        }
    }

    /// Notes recovery keys, of one key each, in one write. A recovery key that counts is
    /// only replaced by the one that was noted as the next.
    ///
    /// # Errors
    /// See the type.
    pub async fn note_recoveries(&mut self, noted: &[NotedRecovery]) -> Result<(), NamesError> {
        match self {
            Self::Sqlite(it) => it.note_recoveries(noted),
            Self::Postgres(it) => it.note_recoveries(noted).await,
        }
    }

    /// Binds every name of the former key to its successor, as of now. Returns false if
    /// another key has succeeded it before.
    ///
    /// # Errors
    /// See the type.
    pub async fn succeed(
        &mut self,
        succession: &Succession,
        now_s: i64,
    ) -> Result<bool, NamesError> {
        match self {
            Self::Sqlite(it) => it.succeed(succession, now_s),
            Self::Postgres(it) => it.succeed(succession, now_s).await,
        }
    }

    /// Notes that a key is not to be believed any more. It keeps its names, so that nobody
    /// else gets them.
    ///
    /// # Errors
    /// See the type.
    pub async fn revoke(&mut self, revocation: &Revocation, now_s: i64) -> Result<(), NamesError> {
        match self {
            Self::Sqlite(it) => it.revoke(revocation, now_s),
            Self::Postgres(it) => it.revoke(revocation, now_s).await,
        }
    }

    /// What has become of a key that was known under this name.
    ///
    /// # Errors
    /// See the type.
    pub async fn key_history(
        &mut self,
        name: &PeerName,
        key: PeerKey,
    ) -> Result<KeyHistory, NamesError> {
        match self {
            Self::Sqlite(it) => it.key_history(name, key),
            Self::Postgres(it) => it.key_history(name, key).await,
        }
    }

    /// The names of the keys that were revoked at this time or later, the latest first: at
    /// most as many as a server remembers.
    ///
    /// # Errors
    /// See the type.
    pub async fn revocations_since(
        &mut self,
        since_s: i64,
    ) -> Result<Vec<(PeerName, Revocation)>, NamesError> {
        match self {
            Self::Sqlite(it) => it.revocations_since(since_s),
            Self::Postgres(it) => it.revocations_since(since_s).await,
        }
    }
}
