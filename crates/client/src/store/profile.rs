//! The profile directory: identity, settings, contacts. One process at a time.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use directories::{ProjectDirs, UserDirs};
use pinhole_net::{Identity, generate_identity};
use pinhole_storage::{
    Durability, LockError, create_private_dir, private_file, replace, restrict_dir, restrict_file,
};
use serde::de::DeserializeOwned;

use super::attempts::Attempt;
use super::contacts::Contacts;
use super::holder::{FaceKind, Holder};
use super::invitations::Invitations;
use super::queue::Queued;
use super::recovery::Recovery;
use super::settings::Settings;

const LOCK_FILE: &str = "lock";
const IDENTITY_FILE: &str = "identity.pkcs8";
pub(super) const SETTINGS_FILE: &str = "settings.json";
pub(super) const CONTACTS_FILE: &str = "contacts.json";
pub(super) const QUEUE_FILE: &str = "queue.json";
pub(super) const ATTEMPTS_FILE: &str = "attempts.json";
pub(super) const RECOVERY_FILE: &str = "recovery.json";
pub(super) const INVITATIONS_FILE: &str = "invitations.json";
pub(super) const HISTORY_FILE: &str = "history.jsonl";
/// Where other faces reach the process that holds the profile.
pub(crate) const SOCKET_FILE: &str = "socket";
/// No file of a profile is larger; contacts of a lifetime fit.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// An open profile. The lock on it lasts as long as this value.
#[derive(Debug)]
pub struct Profile {
    folder: PathBuf,
    default_download_folder: PathBuf,
    identity: Identity,
    is_new: bool,
    lock: Arc<File>,
}

/// Why a profile cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Another process holds it.
    #[error("the profile {} is open in {holder}. Close that one, or use another --data-dir", folder.display())]
    InUse {
        /// The profile's folder.
        folder: PathBuf,
        /// The other process, as it wrote itself down.
        holder: Holder,
    },
    /// A file of it could not be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file of it does not hold what it should.
    #[error("{} is damaged ({detail}). {}", path.display(), remedy(path))]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        detail: String,
    },
    /// The system names no home folder.
    #[error("cannot tell your home folder; use --data-dir")]
    NoHome,
}

impl Profile {
    /// Opens the profile in `data_dir`, or the user's own one, making what is
    /// missing of it.
    ///
    /// # Errors
    /// When it is open in another process, or cannot be read or made.
    pub fn open(data_dir: Option<&Path>) -> Result<Self, ProfileError> {
        Self::open_for(FaceKind::Command, data_dir)
    }

    /// The same, and says in its lock what holds it.
    pub(crate) fn open_for(face: FaceKind, data_dir: Option<&Path>) -> Result<Self, ProfileError> {
        let (folder, default_download_folder) = match data_dir {
            Some(folder) => (folder.to_owned(), folder.join("received")),
            None => user_folders()?,
        };
        create_private_dir(&folder).map_err(at(&folder))?;
        let lock = lock(&folder, face)?;
        tighten(&folder);
        let path = folder.join(IDENTITY_FILE);
        let stored = load_identity(&path)?;
        let is_new = stored.is_none();
        let identity = match stored {
            Some(identity) => identity,
            None => create_identity(&path)?,
        };
        Ok(Self {
            folder,
            default_download_folder,
            identity,
            is_new,
            lock: Arc::new(lock),
        })
    }

    /// The profile's folder, and the process that holds it, if one does. Makes nothing.
    ///
    /// # Errors
    /// When its lock cannot be examined.
    pub(crate) fn holder(
        data_dir: Option<&Path>,
    ) -> Result<Option<(PathBuf, Holder)>, ProfileError> {
        let folder = match data_dir {
            Some(folder) => folder.to_owned(),
            None => user_folders()?.0,
        };
        let path = folder.join(LOCK_FILE);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(at(&path))?,
        };
        match file.try_lock() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some((folder, holder_of(file)))),
            Err(TryLockError::Error(error)) => Err(at(&path)(error)),
        }
    }

    /// The profile's key pair.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether the key pair was made when the profile was opened.
    pub(crate) const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Has this key pair from now on, which is stored already.
    pub(crate) fn set_identity(&mut self, identity: Identity) {
        self.identity = identity;
    }

    /// Where the key pair is stored.
    pub(crate) fn identity_file(&self) -> PathBuf {
        self.folder.join(IDENTITY_FILE)
    }

    /// Where accepted files go unless the settings say otherwise.
    #[must_use]
    pub fn default_download_folder(&self) -> &Path {
        &self.default_download_folder
    }

    /// The stored settings, or the default ones.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
    pub fn load_settings(&self) -> Result<Settings, ProfileError> {
        load_json(&self.folder.join(SETTINGS_FILE))
    }

    /// The stored contacts, or none.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
    pub fn load_contacts(&self) -> Result<Contacts, ProfileError> {
        load_json(&self.folder.join(CONTACTS_FILE))
    }

    /// What waited for its peer when the last run ended.
    pub(crate) fn load_queue(&self) -> Result<Vec<Queued>, ProfileError> {
        load_json(&self.folder.join(QUEUE_FILE))
    }

    /// What is known in public of the recovery key.
    pub(crate) fn load_recovery(&self) -> Result<Recovery, ProfileError> {
        let stored: Recovery = load_json(&self.folder.join(RECOVERY_FILE))?;
        Ok(stored.of(self.identity.key()))
    }

    /// The open invitations, and those that we have used.
    pub(crate) fn load_invitations(&self) -> Result<Invitations, ProfileError> {
        load_json(&self.folder.join(INVITATIONS_FILE))
    }

    /// The last attempts to connect.
    pub(crate) fn load_attempts(&self) -> Result<Vec<Attempt>, ProfileError> {
        load_json(&self.folder.join(ATTEMPTS_FILE))
    }

    /// The lines of the stored history.
    pub(crate) fn load_history(&self) -> Result<String, ProfileError> {
        let path = self.folder.join(HISTORY_FILE);
        let bytes = read_bounded(&path).map_err(at(&path))?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The folder, and what keeps it ours.
    pub(crate) fn held(&self) -> (PathBuf, Arc<File>) {
        (self.folder.clone(), self.lock.clone())
    }
}

/// What to do about a damaged file: what it holds decides.
fn remedy(path: &Path) -> &'static str {
    match path.file_name().and_then(OsStr::to_str) {
        Some(IDENTITY_FILE) => {
            "It is your key, and your names belong to it: put back a copy of it from a backup. Only if there is none, move it away; Pinhole then makes another key, for which your names are taken"
        }
        Some(CONTACTS_FILE) => {
            "It holds the keys of the people and servers you know: put back a copy of it from a backup. Only if there is none, move it away; Pinhole then takes everybody for a stranger, so compare fingerprints again"
        }
        Some(INVITATIONS_FILE) => {
            "It holds the invitations that others may still use: put back a copy of it, or move it away and invite them again"
        }
        Some(QUEUE_FILE) => {
            "It holds what waits for people who are offline: put back a copy of it, or move it away and send that again"
        }
        _ => "Put back a copy of it from a backup, or move it away; Pinhole then uses defaults",
    }
}

/// Makes an existing profile private, which one that was copied may not be.
fn tighten(folder: &Path) {
    let ours = [
        LOCK_FILE,
        IDENTITY_FILE,
        SETTINGS_FILE,
        CONTACTS_FILE,
        QUEUE_FILE,
        ATTEMPTS_FILE,
        RECOVERY_FILE,
        INVITATIONS_FILE,
        HISTORY_FILE,
        SOCKET_FILE,
    ];
    let warn = |path: &Path, error: io::Error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(path = %path.display(), %error, "others may read it");
        }
    };
    for file in ours {
        let path = folder.join(file);
        if let Err(error) = restrict_file(&path) {
            warn(&path, error);
        }
    }
    let is_ours = |name: &OsStr| {
        let name = name.to_str().unwrap_or_default();
        let name = name.strip_suffix(".new").unwrap_or(name);
        name == "received" || ours.contains(&name)
    };
    if let Err(error) = restrict_dir(folder, is_ours) {
        warn(folder, error);
    }
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> ProfileError {
    move |error| ProfileError::Io {
        path: path.to_owned(),
        error,
    }
}

/// The user's own profile folder and download folder.
fn user_folders() -> Result<(PathBuf, PathBuf), ProfileError> {
    let project = ProjectDirs::from("", "", "pinhole").ok_or(ProfileError::NoHome)?;
    let user = UserDirs::new().ok_or(ProfileError::NoHome)?;
    let downloads = user
        .download_dir()
        .map_or_else(|| user.home_dir().join("Downloads"), Path::to_owned);
    Ok((project.data_dir().to_owned(), downloads.join("Pinhole")))
}

fn lock(folder: &Path, face: FaceKind) -> Result<File, ProfileError> {
    let path = folder.join(LOCK_FILE);
    let mut file = match pinhole_storage::lock(&path) {
        Ok(file) => file,
        Err(LockError::InUse(file)) => {
            return Err(ProfileError::InUse {
                folder: folder.to_owned(),
                holder: holder_of(file),
            });
        }
        Err(LockError::Io(error)) => return Err(at(&path)(error)),
    };
    let write_id = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", Holder::here(face).line())
    };
    write_id(&mut file).map_err(at(&path))?;
    Ok(file)
}

/// What a lock that is held says. Its holder may not have written into it yet.
fn holder_of(lock: File) -> Holder {
    let mut content = String::new();
    let _ = lock.take(32).read_to_string(&mut content);
    Holder::parse(&content)
}

fn load_identity(path: &Path) -> Result<Option<Identity>, ProfileError> {
    let Some(document) = read_bounded(path).map_err(at(path))? else {
        return Ok(None);
    };
    let identity = Identity::from_pkcs8(&document).map_err(|e| ProfileError::Damaged {
        path: path.to_owned(),
        detail: e.to_string(),
    });
    identity.map(Some)
}

/// Makes a new key pair and stores it, in the place of another one if there is one.
pub(crate) fn create_identity(path: &Path) -> Result<Identity, ProfileError> {
    let (identity, document) = generate_identity().map_err(|e| at(path)(io::Error::other(e)))?;
    replace(path, &document, Durability::Durable).map_err(at(path))?;
    Ok(identity)
}

fn load_json<T: DeserializeOwned + Default>(path: &Path) -> Result<T, ProfileError> {
    let Some(bytes) = read_bounded(path).map_err(at(path))? else {
        return Ok(T::default());
    };
    serde_json::from_slice(&bytes).map_err(|e| ProfileError::Damaged {
        path: path.to_owned(),
        detail: e.to_string(),
    })
}

/// The whole file, or `None` when there is none.
fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Adds lines to a file, durably. A line that a crash cut off stays on its own.
pub(super) fn append_lines(path: &Path, lines: &str) -> io::Result<()> {
    let mut file = private_file().append(true).create(true).open(path)?;
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(io::SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    let separator = if last == [b'\n'] { "" } else { "\n" };
    file.write_all(format!("{separator}{lines}").as_bytes())?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::ProfileWriter;

    #[test]
    fn identity_and_settings_survive_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profile");
        let first = Profile::open(Some(&path)).unwrap();
        let key = first.identity().key();
        let settings = Settings {
            name: Some("alice".parse().unwrap()),
            proxy: "http://alice:pass%40word@proxy:3128".parse().unwrap(),
            ..Settings::default()
        };
        let writer = ProfileWriter::new(&first, |error| panic!("{error}")).unwrap();
        writer.store_settings(&settings).unwrap();
        assert!(writer.finish(std::time::Duration::from_secs(30)));
        drop(first);
        let second = Profile::open(Some(&path)).unwrap();
        assert_eq!(second.identity().key(), key);
        assert_eq!(second.load_settings().unwrap(), settings);
        assert_eq!(second.load_contacts().unwrap(), Contacts::default());
    }

    #[test]
    fn a_profile_in_use_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let _first = Profile::open(Some(folder.path())).unwrap();
        let text = Profile::open(Some(folder.path())).unwrap_err().to_string();
        assert!(
            text.contains(&folder.path().display().to_string()),
            "{text}"
        );
        assert!(text.contains(&std::process::id().to_string()), "{text}");
    }

    #[test]
    fn damaged_files_are_named_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().join(SETTINGS_FILE);
        fs::write(&settings, "{ not json").unwrap();
        let profile = Profile::open(Some(folder.path())).unwrap();
        let text = profile.load_settings().unwrap_err().to_string();
        assert!(text.contains("settings.json"), "{text}");
        assert_eq!(fs::read_to_string(&settings).unwrap(), "{ not json");
    }

    #[test]
    fn nobody_is_told_to_throw_away_what_cannot_be_replaced() {
        for file in [IDENTITY_FILE, CONTACTS_FILE] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(file), "{ not json").unwrap();
            let opened = Profile::open(Some(folder.path()));
            let loaded = opened.and_then(|profile| profile.load_contacts().map(drop));
            let text = loaded.unwrap_err().to_string();
            assert!(text.contains("backup"), "{text}");
            assert!(text.contains("Only if there is none"), "{text}");
        }
    }

    #[test]
    fn the_cause_is_said_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Profile::open(Some(&file)).unwrap_err();
        assert!(std::error::Error::source(&error).is_none(), "{error}");
        assert!(error.to_string().starts_with(&file.display().to_string()));
    }

    #[cfg(unix)]
    #[test]
    fn the_identity_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profile");
        let _profile = Profile::open(Some(&path)).unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path.join(IDENTITY_FILE)), 0o600);
        assert_eq!(mode(&path), 0o700);
    }

    #[cfg(unix)]
    #[test]
    fn a_profile_that_others_could_read_is_made_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let set = |p: &Path, mode| fs::set_permissions(p, fs::Permissions::from_mode(mode));
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        let of_others = folder.path().join("holiday.jpg");
        for (other, expected) in [(false, 0o700), (true, 0o755)] {
            drop(Profile::open(Some(folder.path())).unwrap());
            let identity = folder.path().join(IDENTITY_FILE);
            set(&identity, 0o644).unwrap();
            set(folder.path(), 0o755).unwrap();
            if other {
                fs::write(&of_others, "").unwrap();
            }
            drop(Profile::open(Some(folder.path())).unwrap());
            assert_eq!(mode(&identity), 0o600);
            assert_eq!(mode(folder.path()), expected, "other things there: {other}");
        }
    }
}
