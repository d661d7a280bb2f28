//! Somebody else on the same machine swaps folders for links while files are
//! on their way.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tempfile::tempdir;

use crate::support::{names, pair, tree};

/// A thread that replaces `folder` by a link to `elsewhere` and back, until
/// told to end. Returns how often it did.
struct Swapper {
    ending: Arc<AtomicBool>,
    thread: JoinHandle<u32>,
}

impl Swapper {
    fn start(folder: &Path, elsewhere: &Path) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ending);
        let (folder, elsewhere) = (folder.to_owned(), elsewhere.to_owned());
        let aside = folder.with_extension("aside");
        let (began, beginning) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut swaps = 0;
            while !told.load(Ordering::Relaxed) {
                if fs::rename(&folder, &aside).is_ok() {
                    symlink(&elsewhere, &folder).unwrap();
                    std::thread::yield_now();
                    fs::remove_file(&folder).unwrap();
                    fs::rename(&aside, &folder).unwrap();
                    swaps += 1;
                }
                let _ = began.send(());
            }
            swaps
        });
        beginning.recv().unwrap();
        Self { ending, thread }
    }

    fn end(self) -> u32 {
        self.ending.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_put_in_a_folders_place_leads_nobody_astray() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let (secrets, victim) = (tempdir().unwrap(), tempdir().unwrap());
    let folder = from.path().join("top/sub");
    fs::create_dir_all(&folder).unwrap();
    for number in 0..150 {
        // Neighbours in different folders, so that none stays open.
        fs::write(folder.join(format!("{number} a")), "public").unwrap();
        fs::create_dir(folder.join(format!("{number} b"))).unwrap();
        fs::write(folder.join(format!("{number} b/c")), "public").unwrap();
        fs::write(secrets.path().join(format!("{number} a")), "secret").unwrap();
    }
    let (mut alice, mut bob) = pair();
    let id = alice.send(&[from.path().join("top")]).await;
    bob.offered().await;
    let sending = Swapper::start(&folder, secrets.path());
    bob.accept(id, into.path()).await;
    let receiving = Swapper::start(&into.path().join("top/sub"), victim.path());
    let (received, sent) = tokio::join!(bob.finished(id), alice.finished(id));
    let swaps = (sending.end(), receiving.end());
    assert!(swaps.0 > 0, "{swaps:?}");
    assert!(
        names(victim.path()).is_empty(),
        "{:?}",
        names(victim.path())
    );
    for (path, (content, _)) in tree(into.path()) {
        assert_ne!(
            content.as_deref(),
            Some(&b"secret"[..]),
            "{}",
            path.display()
        );
    }
    // Whether single files failed or the folders could not be finished, both
    // sides know.
    assert_eq!(sent.is_ok(), received.is_ok(), "{sent:?} {received:?}");
}
