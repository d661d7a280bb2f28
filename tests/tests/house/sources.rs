//! The files that the rules are about.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

/// The folders with the product's code, and that with what the tests have in common.
pub(crate) fn folders() -> Vec<PathBuf> {
    let crates = fs::read_dir(root().join("crates")).expect("crates");
    crates
        .map(|entry| entry.expect("an entry").path())
        .chain([root().join("tests")])
        .map(|folder| folder.join("src"))
        .collect()
}

/// Modules that a file declares for tests only, as paths beside it.
fn test_modules(file: &Path, source: &str) -> Vec<PathBuf> {
    let stem = file.file_stem().expect("a file name");
    let folder = file.parent().expect("a folder");
    let is_root = ["lib", "main", "mod"].iter().any(|root| *root == stem);
    let folder = if is_root {
        folder.to_owned()
    } else {
        folder.join(stem)
    };
    let names = source
        .split("#[cfg(test)]\nmod ")
        .skip(1)
        .filter_map(|rest| rest.split_once(';'));
    names
        .filter(|(name, _)| !name.contains('{'))
        .map(|(name, _)| folder.join(name))
        .collect()
}

/// All Rust files under a folder with their text, without test-only modules.
pub(crate) fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(current) = waiting.pop() {
        let entries =
            fs::read_dir(&current).unwrap_or_else(|e| panic!("{}: {e}", current.display()));
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).expect("a source file");
                files.push((path, source));
            }
        }
    }
    let test_only: Vec<PathBuf> = files
        .iter()
        .flat_map(|(file, s)| test_modules(file, s))
        .collect();
    files.retain(|(file, _)| {
        !test_only
            .iter()
            .any(|module| file.with_extension("") == *module || file.starts_with(module))
    });
    files
}

/// What a rule complains of in a folder, each with its file.
pub(crate) fn complaints(folder: &Path, rule: impl Fn(&str) -> Vec<String>) -> Vec<String> {
    let complaints_of = |(file, source): (PathBuf, String)| {
        let file = file.strip_prefix(root()).expect("a file of ours").iter();
        let names: Vec<_> = file.map(|name| name.to_string_lossy()).collect();
        let file = names.join("/");
        let complaints = rule(&source).into_iter();
        complaints.map(move |complaint| format!("{file}: {complaint}"))
    };
    sources(folder)
        .into_iter()
        .flat_map(complaints_of)
        .collect()
}

pub(crate) fn product_files(rule: impl Fn(&str) -> Vec<String>) -> Vec<String> {
    let folders = folders().into_iter();
    folders
        .flat_map(|folder| complaints(&folder, &rule))
        .collect()
}

#[test]
fn modules_for_tests_alone_are_known() {
    let declared = test_modules(
        Path::new("src/agent.rs"),
        "#[cfg(test)]\nmod simulator;\nmod a;",
    );
    assert_eq!(declared, [Path::new("src/agent/simulator")]);
}
