//! Modules of a crate stand on each other, never in a circle.
//! A module and what it consists of may use each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::known::assert_only_known;
use crate::module_tree::{ModulePath, ModuleTree};
use crate::sources::{folders, root, sources};

/// Each use that closes a circle. To be mended and taken off.
const KNOWN: &[&str] = &[];

type Uses = BTreeSet<(ModulePath, ModulePath)>;

/// Whether one leads to the other, over however many.
fn leads(uses: &Uses, from: &ModulePath, to: &ModulePath) -> bool {
    let mut seen = BTreeSet::from([from]);
    let mut waiting = vec![from];
    while let Some(module) = waiting.pop() {
        if module == to {
            return true;
        }
        let used = uses.iter().filter(|(user, _)| user == module);
        waiting.extend(used.map(|(_, used)| used).filter(|used| seen.insert(used)));
    }
    false
}

/// Every use that is part of a circle.
fn circles(files: &[(ModulePath, String)]) -> Vec<String> {
    let uses: Uses = ModuleTree::new(files)
        .uses()
        .into_iter()
        .filter(|(user, used)| !user.starts_with(used) && !used.starts_with(user))
        .collect();
    let closing = uses.iter().filter(|(user, used)| leads(&uses, used, user));
    closing
        .map(|(user, used)| format!("{} -> {}", user.join("::"), used.join("::")))
        .collect()
}

/// `engine/mod.rs` and `engine.rs` are both the module engine.
fn module_path(file: &Path) -> ModulePath {
    let mut path: ModulePath = file
        .with_extension("")
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    path.pop_if(|last| ["lib", "main", "mod"].contains(&last.as_str()));
    path
}

/// Every crate with the folder of its root. Binaries of one file have no modules.
fn crates() -> BTreeMap<String, PathBuf> {
    let binaries = root().join("tests/src/bin");
    let entries = std::fs::read_dir(binaries).expect("binaries");
    let binaries = entries.map(|entry| entry.expect("an entry").path());
    let binaries = binaries.filter(|path| path.is_dir());
    let named = |folder: &Path| {
        folder
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
    };
    binaries
        .chain(folders())
        .map(|folder| match folder.parent() {
            Some(parent) if folder.ends_with("src") => (named(parent), folder),
            _ => (named(&folder), folder),
        })
        .collect()
}

fn modules(folder: &Path) -> Vec<(ModulePath, String)> {
    let files = sources(folder).into_iter();
    let files = files.filter(|(file, _)| !file.starts_with(folder.join("bin")));
    files
        .map(|(file, source)| {
            let file = file.strip_prefix(folder).expect("a file in the folder");
            (module_path(file), source)
        })
        .collect()
}

#[test]
fn modules_do_not_stand_in_circles() {
    let crates = crates();
    let found = crates.iter().flat_map(|(name, folder)| {
        let circles = circles(&modules(folder));
        circles
            .into_iter()
            .map(move |uses| format!("{name}: {uses}"))
    });
    assert_only_known(&found.collect::<Vec<_>>(), KNOWN);
}

fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let files = files.iter();
    let files = files.map(|(file, source)| (module_path(Path::new(file)), (*source).to_owned()));
    circles(&files.collect::<Vec<_>>())
}

#[test]
fn a_circle_is_found_by_imports_paths_and_macros() {
    for user in [
        "use crate::b::B;",
        "use super::{c, b::{self, B}};",
        "fn a() -> super::b::B { todo!() }",
        "fn a() { println!(\"{}\", crate::b::x()); }",
        "use crate::{b as other, c};",
        "#[cfg(unix)] fn a() { use crate::b; b::x() }",
        "use crate::c::d; fn a() { d::D::new() }",
    ] {
        let b = "use crate::c::C;";
        let c = "use crate::a::A; pub(crate) mod d; use std::fs;";
        let files = [
            ("a.rs", user),
            ("b.rs", b),
            ("c/mod.rs", c),
            ("c/d.rs", "use crate::b;"),
        ];
        let found = circles_of(&files);
        assert!(
            found.iter().any(|it| it.starts_with("a -> ")),
            "{user}: {found:?}"
        );
    }
}

#[test]
fn what_is_no_circle_is_let_be() {
    let parent_and_child = [
        ("lib.rs", "mod a; pub use a::A;"),
        ("a.rs", "mod b; use b::B; use crate::X;"),
        ("a/b.rs", "use super::A; use crate::a::c;"),
        (
            "a/c.rs",
            "use std::a; #[cfg(test)] mod tests { use super::super::b::B; }",
        ),
    ];
    assert_eq!(circles_of(&parent_and_child), [""; 0]);
}

#[test]
fn who_imports_from_a_parent_uses_the_child_that_has_it() {
    let files = [
        (
            "a.rs",
            "mod b; mod c; pub(crate) use b::B; pub(crate) use c::*;",
        ),
        ("a/b.rs", "use crate::d::D;"),
        ("a/c.rs", ""),
        ("d.rs", "use crate::a::B;"),
        ("e.rs", "use crate::a::C;"),
    ];
    assert_eq!(circles_of(&files), ["a::b -> d", "d -> a::b"]);
}
