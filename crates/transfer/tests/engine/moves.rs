//! What an attempt has left goes on when something was moved or renamed on the
//! sending side since.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pinhole_transfer::{Party, Summary, TransferError};
use tempfile::{TempDir, tempdir};

use crate::resume::{broken_off, completed, parts, under_way};
use crate::support::{Tree, names, noise, pair, tree};

const MIB: usize = 1024 * 1024;
/// What may travel beside what is missing: the offer, a chunk that was cut, a
/// batch of small files.
const SLACK: usize = MIB + 400_000;

const FOLDERS: [&str; 3] = ["1 one", "2 two", "3 three"];

/// Where it is sent from, and where to, with a file of the user's own there.
struct Scene {
    from: TempDir,
    into: TempDir,
}

impl Scene {
    /// `album`, with files of all sizes in folders; some of them as large as
    /// others, none with the same content.
    fn new() -> Self {
        let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
        let top = from.path().join("album");
        for folder in ["1 one/deep", "2 two", "3 three", "empty"] {
            fs::create_dir_all(top.join(folder)).unwrap();
        }
        for (at, folder) in FOLDERS.iter().enumerate() {
            for number in 0..40 {
                let content = noise(5000 + number, (number + 100 * at) as u64);
                fs::write(top.join(folder).join(format!("small {number}")), content).unwrap();
            }
            let large = noise(3 * MIB + 5, 1000 + at as u64);
            fs::write(top.join(folder).join("z large"), large).unwrap();
        }
        fs::write(top.join("1 one/deep/same"), noise(2 * MIB, 2000)).unwrap();
        fs::write(top.join("2 two/huge"), noise(7 * MIB + 1, 2001)).unwrap();
        fs::write(into.path().join("mine"), noise(3 * MIB + 5, 1000)).unwrap();
        Self { from, into }
    }

    fn sent(&self) -> PathBuf {
        self.from.path().join("album")
    }

    /// Every file and folder but the user's own.
    fn arrived(&self) -> Tree {
        let mut arrived = tree(self.into.path());
        let (mine, _) = arrived.remove(Path::new("mine")).expect("the user's own");
        assert!(mine == Some(noise(3 * MIB + 5, 1000)), "the user's own");
        arrived
    }

    /// How many bytes of it are here.
    fn there(&self) -> usize {
        let arrived = self.arrived();
        let contents = arrived.values().filter_map(|(content, _)| content.as_ref());
        contents.map(Vec::len).sum()
    }

    /// One of the folders with everything in it arrived, and one of which
    /// nothing has.
    fn first_and_last(&self) -> (&'static str, &'static str) {
        let is_there = |folder: &&str, name: &str| {
            let path = self.into.path().join("album").join(folder);
            path.join(name).exists()
        };
        let find = |meant: &dyn Fn(&&str) -> bool| FOLDERS.into_iter().find(meant).unwrap();
        let first = find(&|it| is_there(it, "z large") && is_there(it, "small 39"));
        let last = find(&|it| !is_there(it, "z large") && !is_there(it, "small 9"));
        (first, last)
    }

    /// Has what is there go on under `top`, and checks that only what was
    /// missing has travelled.
    async fn goes_on(&self, top: &str, what: &str) -> (Summary, Summary) {
        let there = self.there();
        let paths = [self.from.path().join(top)];
        let (sent, received, passed) = completed(&paths, self.into.path()).await;
        assert_eq!((sent.failed_files, sent.resent_bytes), (0, 0), "{what}");
        let limit = (sent.bytes as usize).saturating_sub(there) + SLACK;
        assert!(passed < limit, "{what}: {passed} sent, {there} there");
        (sent, received)
    }

    fn check_equal(&self, what: &str) {
        let (sent, arrived) = (tree(self.from.path()), self.arrived());
        let paths = |tree: &Tree| tree.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(paths(&arrived), paths(&sent), "{what}");
        assert!(arrived == sent, "{what}: other content or times");
    }
}

/// In the midst of small files, of large ones, and between them.
fn cuts() -> impl Iterator<Item = usize> {
    (0..=16).step_by(2).map(|mib| mib * MIB + 300_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_offer_goes_on_wherever_it_broke_off() {
    for cut in cuts() {
        let scene = Scene::new();
        broken_off(&[scene.sent()], scene.into.path(), cut).await;
        fs::rename(scene.sent(), scene.from.path().join("summer")).unwrap();
        let what = format!("cut at {cut}");
        let (_, received) = scene.goes_on("summer", &what).await;
        assert_eq!(received.paths, [scene.into.path().join("summer")]);
        scene.check_equal(&what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_folder_in_an_offer_goes_on_wherever_it_broke_off() {
    for cut in cuts() {
        let scene = Scene::new();
        broken_off(&[scene.sent()], scene.into.path(), cut).await;
        let top = scene.sent();
        fs::rename(top.join("1 one"), top.join("4 four")).unwrap();
        let what = format!("cut at {cut}");
        scene.goes_on("album", &what).await;
        scene.check_equal(&what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_moved_to_another_folder_goes_on_wherever_it_broke_off() {
    for cut in cuts() {
        let scene = Scene::new();
        broken_off(&[scene.sent()], scene.into.path(), cut).await;
        let top = scene.sent();
        fs::rename(top.join("2 two/huge"), top.join("1 one/deep/huge")).unwrap();
        fs::rename(top.join("1 one/z large"), top.join("empty/renamed")).unwrap();
        fs::rename(top.join("1 one/deep/same"), top.join("same")).unwrap();
        let what = format!("cut at {cut}");
        scene.goes_on("album", &what).await;
        scene.check_equal(&what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_after_each_of_several_moves() {
    let scene = Scene::new();
    broken_off(&[scene.sent()], scene.into.path(), 6 * MIB).await;
    let first = scene.there();
    let top = scene.from.path().join("summer");
    fs::rename(scene.sent(), &top).unwrap();
    broken_off(std::slice::from_ref(&top), scene.into.path(), 4 * MIB).await;
    assert!(scene.there() > first + 2 * MIB, "went on");
    fs::rename(top.join("1 one"), top.join("4 four")).unwrap();
    broken_off(std::slice::from_ref(&top), scene.into.path(), 2 * MIB).await;
    fs::rename(top.join("2 two"), top.join("0 zero")).unwrap();
    scene.goes_on("summer", "at last").await;
    scene.check_equal("at last");
}

#[tokio::test(flavor = "multi_thread")]
async fn single_files_go_on_beside_a_renamed_folder() {
    let scene = Scene::new();
    let (single, taken) = ("a single", "mine");
    fs::write(scene.from.path().join(single), noise(2 * MIB, 1)).unwrap();
    fs::write(scene.from.path().join(taken), noise(2 * MIB, 2)).unwrap();
    let paths = |top: &str| [single, taken, top].map(|name| scene.from.path().join(name));
    broken_off(&paths("album"), scene.into.path(), 6 * MIB).await;
    assert!(names(scene.into.path()).contains(&"mine (1)".to_owned()));
    let there = scene.there();
    fs::rename(scene.sent(), scene.from.path().join("summer")).unwrap();
    let (sent, _, passed) = completed(&paths("summer"), scene.into.path()).await;
    assert_eq!(sent.resent_bytes, 0);
    assert!(passed < sent.bytes as usize - there + SLACK, "{passed}");
    let mut arrived = scene.arrived();
    let numbered = arrived.remove(Path::new("mine (1)")).unwrap();
    arrived.insert(taken.into(), numbered);
    assert!(arrived == tree(scene.from.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_user_did_in_the_old_folder_stays() {
    let scene = Scene::new();
    broken_off(&[scene.sent()], scene.into.path(), 11 * MIB + MIB / 2).await;
    let (first, last) = scene.first_and_last();
    let old = scene.into.path().join("album");
    // A copy, a note, one that was written into and one under a name that the
    // offer has, but that never came.
    let large = fs::read(old.join(first).join("z large")).unwrap();
    let mut changed = fs::read(old.join(first).join("small 7")).unwrap();
    changed[3] ^= 1;
    let theirs = [
        (format!("{first}/copy"), large),
        ("note".to_owned(), b"note".to_vec()),
        (format!("{first}/small 7"), changed),
        (format!("{last}/small 9"), b"my own".to_vec()),
    ];
    for (name, content) in &theirs {
        fs::write(old.join(name), content).unwrap();
    }
    fs::rename(scene.sent(), scene.from.path().join("summer")).unwrap();
    let paths = [scene.from.path().join("summer")];
    let (sent, ..) = completed(&paths, scene.into.path()).await;
    assert_eq!(sent.resent_bytes, 5007);
    let mut arrived = scene.arrived();
    for (name, content) in &theirs {
        let (stayed, _) = arrived.remove(&Path::new("album").join(name)).expect(name);
        assert!(stayed.as_ref() == Some(content), "{name}");
    }
    for folder in [
        "album".into(),
        format!("album/{first}"),
        format!("album/{last}"),
    ] {
        assert!(arrived.remove(Path::new(&folder)).is_some(), "{folder}");
    }
    assert!(arrived == tree(scene.from.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_offer_with_the_same_sizes_takes_nothing_and_goes_on_by_itself() {
    let scene = Scene::new();
    broken_off(&[scene.sent()], scene.into.path(), 3 * MIB + 700_000).await;
    // Everything in it is finished, so that nothing is to be taken up.
    for part in parts(scene.into.path()) {
        if part.contains('/') {
            fs::remove_file(scene.into.path().join(part)).unwrap();
        }
    }
    let before = scene.arrived();
    let there = scene.there();

    let elsewhere = tempdir().unwrap();
    let other = elsewhere.path().join("other");
    for (path, (content, _)) in tree(&scene.sent()) {
        match content {
            None => fs::create_dir_all(other.join(path)).unwrap(),
            Some(content) => {
                let path = other.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, noise(content.len(), 77_000)).unwrap();
            }
        }
    }
    completed(&[other], scene.into.path()).await;
    let mut after = scene.arrived();
    after.retain(|path, _| !path.starts_with("other"));
    assert!(after == before, "nothing was taken");
    let (sent, _, passed) = completed(&[scene.sent()], scene.into.path()).await;
    assert_eq!(sent.resent_bytes, 0);
    assert!(passed < sent.bytes as usize - there + SLACK, "{passed}");
    assert_eq!(parts(scene.into.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_renamed_and_cancelled_leaves_nothing_unfinished() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let top = from.path().join("top");
    fs::create_dir_all(top.join("folder")).unwrap();
    // Sparse, and far from sent when it is cancelled.
    let huge = fs::File::create(top.join("folder/huge")).unwrap();
    huge.set_len(4096 * MIB as u64).unwrap();
    broken_off(std::slice::from_ref(&top), into.path(), 10 * MIB).await;
    let renamed = from.path().join("renamed");
    fs::rename(&top, &renamed).unwrap();
    let (alice, mut bob) = pair();
    let id = alice.send(&[renamed]).await;
    under_way(&mut bob, into.path()).await;
    bob.exchange.cancel(id).unwrap();
    assert_eq!(
        bob.finished(id).await,
        Err(TransferError::Cancelled(Party::Us))
    );
    assert_eq!(names(into.path()), Vec::<String>::new());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn links_in_the_old_places_are_not_followed() {
    use std::os::unix::fs::symlink;
    let (scene, outside) = (Scene::new(), tempdir().unwrap());
    broken_off(&[scene.sent()], scene.into.path(), 15 * MIB).await;
    let old = scene.into.path().join("album");
    // A folder and a file have gone elsewhere, and links to them are there.
    let mut there = FOLDERS
        .into_iter()
        .filter(|it| old.join(it).join("small 3").exists());
    let folder = old.join(there.next().unwrap());
    fs::rename(&folder, outside.path().join("folder")).unwrap();
    symlink(outside.path().join("folder"), &folder).unwrap();
    let small = old.join(there.next().unwrap()).join("small 3");
    fs::rename(&small, outside.path().join("small 3")).unwrap();
    symlink(outside.path().join("small 3"), &small).unwrap();
    let before = tree(outside.path());
    fs::rename(scene.sent(), scene.from.path().join("summer")).unwrap();
    let paths = [scene.from.path().join("summer")];
    completed(&paths, scene.into.path()).await;
    assert!(tree(outside.path()) == before);
    let mut arrived = scene.arrived();
    arrived.retain(|path, _| path.starts_with("summer"));
    assert!(arrived == tree(scene.from.path()));
    assert!(fs::symlink_metadata(&small).is_ok(), "not ours to remove");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_behind_many_finished_files_goes_on() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let top = from.path().join("top");
    fs::create_dir(&top).unwrap();
    for number in 0..600_u32 {
        fs::write(top.join(format!("{number}")), [number as u8; 10]).unwrap();
    }
    fs::write(top.join("z"), noise(12 * MIB, 1)).unwrap();
    let paths = [top];
    broken_off(&paths, into.path(), 9 * MIB).await;
    let (sent, _, passed) = completed(&paths, into.path()).await;
    assert_eq!((sent.files, sent.resent_bytes), (601, 0));
    assert!(passed < 6 * MIB, "{passed} bytes travelled");
}
