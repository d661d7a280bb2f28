//! Makes files and folders durable: few one by one, many at once by their whole
//! file system, whose work the kernel orders. One by one each would wait for the
//! disk.

use std::fs::File;
use std::io;
use std::sync::Arc;

use cap_std::fs::Dir;

use crate::disk::system;

/// Up to so many files or folders are made durable one by one; more, together.
const FEW: usize = 8;

/// The file system of a folder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileSystem<'a> {
    /// A file on it that is open since before anything was written: through it the
    /// kernel tells of all that it could not write since, also if that was before
    /// it was asked.
    pub(crate) held: &'a File,
    pub(crate) dir: &'a Dir,
}

impl FileSystem<'_> {
    /// Makes the content of `files` durable, and tells of each.
    pub(crate) fn sync_files<'a>(
        self,
        files: impl ExactSizeIterator<Item = &'a File>,
    ) -> Vec<io::Result<()>> {
        let device = self.sync_many(files.len());
        let device = device.and_then(|()| system::device(self.held).ok());
        // Below a mount point there is another file system. After an error each
        // file is asked, which also tells which one it was.
        let is_durable = |file: &File| device.is_some() && system::device(file).ok() == device;
        let sync = |file: &'a File| match is_durable(file) {
            true => Ok(()),
            false => system::sync_file(file),
        };
        files.map(sync).collect()
    }

    /// Makes the names in `folders` durable.
    pub(crate) fn sync_folders(self, folders: &[Arc<Dir>]) -> io::Result<()> {
        let are_durable = self.sync_many(folders.len()).is_some();
        let mut others = folders
            .iter()
            .filter(|folder| !are_durable || !self.holds(folder));
        others.try_for_each(|folder| self.sync_folder(folder))
    }

    /// Makes the names in one folder durable. One that may be written to and not
    /// read cannot be asked by itself; then all are that are on the same disk.
    pub(crate) fn sync_folder(self, folder: &Dir) -> io::Result<()> {
        match system::sync_folder(folder) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let synced = self
                    .holds(folder)
                    .then(|| system::sync_file_system(self.held));
                synced
                    .filter(|synced| !is_unsupported(synced))
                    .unwrap_or_else(|| {
                        system::sync_everything();
                        Ok(())
                    })
            }
            other => other,
        }
    }

    /// Whether a folder is on it.
    pub(crate) fn holds(self, folder: &Dir) -> bool {
        let device = system::folder_device(self.dir);
        device.is_ok_and(|device| system::folder_device(folder).is_ok_and(|other| other == device))
    }

    /// Makes everything on it durable, for the sake of so many; `None` when each
    /// must be asked, because they are few or it is not known to be so.
    pub(crate) fn sync_many(self, count: usize) -> Option<()> {
        if count <= FEW {
            return None;
        }
        // Where the kernel does not tell of errors it has still ordered the work:
        // there is little left for those that are asked then.
        let synced = system::sync_file_system(self.held);
        synced
            .is_ok_and(|()| system::tells_of_errors())
            .then_some(())
    }
}

fn is_unsupported(outcome: &io::Result<()>) -> bool {
    let error = outcome.as_ref().err();
    error.is_some_and(|error| error.kind() == io::ErrorKind::Unsupported)
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use cap_std::ambient_authority;

    use super::*;

    /// Not that they are durable, which only a power cut would show.
    #[test]
    fn every_file_and_folder_is_told_of_wherever_it_is() {
        let here = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        let open = |at: &tempfile::TempDir| {
            Arc::new(Dir::open_ambient_dir(at.path(), ambient_authority()).unwrap())
        };
        let (dir, other) = (open(&here), open(&memory));
        let held = tempfile::tempfile_in(here.path()).unwrap();
        let system = FileSystem {
            held: &held,
            dir: &dir,
        };
        assert!(system.holds(&dir) && !system.holds(&other));
        let files: Vec<_> = [&here, &memory]
            .iter()
            .cycle()
            .take(2 * FEW)
            .map(|at| tempfile::tempfile_in(at.path()).unwrap())
            .collect();
        let synced = system.sync_files(files.iter());
        assert_eq!(synced.len(), files.len());
        assert!(synced.iter().all(Result::is_ok), "{synced:?}");
        let folders = [&dir, &other].into_iter().cycle().take(2 * FEW);
        system
            .sync_folders(&folders.map(Arc::clone).collect::<Vec<_>>())
            .unwrap();
    }
}
