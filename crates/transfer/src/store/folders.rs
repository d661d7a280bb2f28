//! The way to a folder, held open.

use std::{io, sync::Arc};

use cap_fs_ext::DirExt;
use cap_std::fs::Dir;

use super::Store;

/// The way from the destination to the last folder used, held open.
#[derive(Debug, Default)]
pub(crate) struct Folders {
    /// By their names on disk.
    open: Vec<(String, Arc<Dir>)>,
}

impl Folders {
    /// The folder of this path, as it was offered; the destination for none.
    pub(super) fn enter<'a>(
        &'a mut self,
        store: &'a Store,
        folder: Option<&str>,
    ) -> io::Result<&'a Arc<Dir>> {
        let mut names = folder.into_iter().flat_map(|path| path.split('/'));
        let top = match names.next() {
            Some(top) => {
                let top = store.top_folders.get(top);
                Some(top.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?)
            }
            None => None,
        };
        let top = top.map(String::as_str);
        self.walk(store, top.into_iter().chain(names))
    }

    /// The folder of this path, as it is on disk; the destination for none.
    pub(super) fn enter_place<'a>(
        &'a mut self,
        store: &'a Store,
        folder: Option<&str>,
    ) -> io::Result<&'a Arc<Dir>> {
        self.walk(store, folder.into_iter().flat_map(|path| path.split('/')))
    }

    fn walk<'a, 'n>(
        &'a mut self,
        store: &'a Store,
        names: impl Iterator<Item = &'n str> + Clone,
    ) -> io::Result<&'a Arc<Dir>> {
        let root = &store.destination.dir;
        let same = self
            .open
            .iter()
            .zip(names.clone())
            .take_while(|((open, _), name)| open == name);
        let same = same.count();
        self.open.truncate(same);
        for name in names.skip(same) {
            let above = self.open.last().map_or(root, |(_, dir)| dir);
            let dir = above.open_dir_nofollow(name)?;
            self.open.push((name.to_owned(), Arc::new(dir)));
        }
        Ok(self.open.last().map_or(root, |(_, dir)| dir))
    }
}
