//! File systems whose names are short: 143 bytes under eCryptfs, 175 under EncFS.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use pinhole_transfer::Existing;

use crate::injector::Plan;
use crate::{CHUNK, attempt_over, folder, injector, noise, parts};

#[test]
fn a_name_that_does_not_fit_costs_what_is_under_it_and_nothing_else() {
    for most in [143, 175] {
        let [from, into] = [(); 2].map(|()| folder());
        let name = |letter: &str, bytes: usize| letter.repeat(bytes);
        let fits = name("f", most);
        let offered = [
            (PathBuf::from("top").join(&fits), true),
            (PathBuf::from("top").join(name("g", most + 1)), false),
            (
                PathBuf::from("top").join(name("h", most + 1)).join("in"),
                false,
            ),
            (PathBuf::from("top/short"), true),
            (PathBuf::from(name("t", most)), true),
            (PathBuf::from(name("u", most + 1)), false),
            (PathBuf::from(name("v", most + 1)).join("in"), false),
        ];
        for (path, _) in &offered {
            let path = from.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Longer than what goes without a part that lasts.
            fs::write(path, noise(CHUNK + 7, 1)).unwrap();
        }
        // So that it needs a number, for which there is no room behind it.
        fs::write(into.path().join(name("t", most)), "mine").unwrap();
        let tops = fs::read_dir(from.path()).unwrap();
        let tops: Vec<_> = tops.map(|entry| entry.unwrap().path()).collect();
        let attempt = || attempt_over(&tops, into.path(), u64::MAX, Existing::Rename);
        let plan = Plan::ShortNames(most);
        let Ok((attempt, _)) = injector::run(into.path(), plan, attempt) else {
            let _ = writeln!(std::io::stderr(), "SKIPPED: file systems of short names");
            return;
        };
        let received = attempt.received.unwrap();
        assert_eq!((received.files, received.failed_files), (3, 4), "{most}");
        assert_eq!(attempt.sent.unwrap().failed_files, 4, "{most}");
        let mut failed = attempt.failed.clone();
        failed.sort();
        let fails = offered.iter().filter(|(_, fits)| !fits);
        let mut right: Vec<_> = fails.map(|(path, _)| path.clone()).collect();
        right.sort();
        assert_eq!(failed, right, "{most}");
        let is_whole = |path: PathBuf| {
            let content = fs::read(into.path().join(path));
            content.is_ok_and(|content| content == noise(CHUNK + 7, 1))
        };
        assert!(is_whole(PathBuf::from("top").join(&fits)));
        assert!(is_whole("top/short".into()));
        let numbered = format!("{} (1)", name("t", most - 4));
        assert!(is_whole(numbered.into()), "{:?}", received.paths);
        // Only the journal stays: what did not fit may come again.
        let left = parts(into.path());
        let names = left.iter().map(|path| path.file_name().unwrap().len());
        assert_eq!(Vec::from_iter(names), [30], "{left:?}");
    }
}
