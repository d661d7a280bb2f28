//! Offers as people see them.

use std::collections::HashMap;
use std::path::PathBuf;

use pinhole_transfer::display::display_text;
use pinhole_transfer::{Manifest, Selection, Source};

use crate::model::Progress;
use crate::snapshot::{EntryView, LeftOut, OfferView, TopView};

/// What is sent, as the sender sees it. The entries, which it knows, would be
/// the largest thing here.
pub(crate) fn of_source(source: &Source) -> OfferView {
    let left_out = source.skipped().iter().map(|skipped| LeftOut {
        path: display_text(&skipped.path.to_string_lossy()),
        reason: skipped.reason.to_string(),
        failed: skipped.reason.is_failure(),
    });
    OfferView {
        left_out: left_out.collect(),
        ..summary(source.manifest())
    }
}

/// What is offered.
pub(crate) fn of_manifest(manifest: &Manifest) -> OfferView {
    let mut folders = HashMap::new();
    let mut entries = Vec::with_capacity(manifest.entries().len());
    for (entry, place) in manifest.entries().iter().zip(0..) {
        let path = entry.path();
        if !entry.is_file() {
            folders.insert(path.as_str(), place);
        }
        entries.push(EntryView {
            path: path.display_text(),
            size_bytes: entry.file_size_bytes(),
            stream: manifest.is_stream(),
            folder: path.parent().and_then(|it| folders.get(it)).copied(),
        });
    }
    OfferView {
        top_level: top_level(manifest),
        entries,
        ..summary(manifest)
    }
}

/// Whether two offers are of the same files and folders, as far as their names and
/// sizes tell.
pub(crate) fn is_same(one: &Manifest, other: &Manifest) -> bool {
    let listing = |manifest: &Manifest| (manifest.count(), manifest.total_bytes());
    let mut both = one.entries().iter().zip(other.entries());
    listing(one) == listing(other)
        && both.all(|(one, other)| {
            one.path() == other.path() && one.file_size_bytes() == other.file_size_bytes()
        })
}

/// What is still of interest of an offer when its transfer has ended. Many may
/// have, and the entries of one take megabytes.
pub(crate) fn in_short(offer: &OfferView) -> OfferView {
    OfferView {
        title: offer.title.clone(),
        left_out: offer.left_out.clone(),
        entries: Vec::new(),
        top_level: Vec::new(),
        existing_names: Vec::new(),
        ..*offer
    }
}

fn summary(manifest: &Manifest) -> OfferView {
    let paths = manifest.entries().iter().map(|entry| entry.path().as_str());
    OfferView {
        title: title(paths.filter_map(|path| path.split('/').next())),
        files: u64::from(manifest.files()),
        folders: u64::from(manifest.folders()),
        bytes: manifest.total_bytes(),
        stream: manifest.is_stream(),
        unread: u64::from(manifest.unread()),
        ..OfferView::default()
    }
}

fn top_level(manifest: &Manifest) -> Vec<TopView> {
    let mut all: Vec<TopView> = Vec::new();
    // What is in a folder comes behind it, but not always right behind it.
    let mut places = HashMap::new();
    for (number, entry) in (0..).zip(manifest.entries()) {
        let path = entry.path().as_str();
        let top_name = path.split('/').next().unwrap_or(path);
        let place = *places.entry(top_name).or_insert(all.len());
        if place == all.len() {
            all.push(TopView {
                entry: number,
                files: 0,
                bytes: 0,
            });
        }
        if let Some(top) = all.get_mut(place).filter(|_| entry.is_file()) {
            top.files += 1;
            top.bytes += entry.file_size_bytes().unwrap_or_default();
        }
    }
    all
}

/// The title of what is wanted of an offer; `None` when that is everything, or
/// nothing.
pub(crate) fn title_of_wanted(selection: &Selection) -> Option<String> {
    if selection.skipped_files() == 0 || selection.files() == 0 {
        return None;
    }
    let entries = selection.manifest().indexed();
    let wanted =
        entries.filter(|(index, entry)| entry.is_file() && !selection.skipped().contains(index));
    let paths = wanted.map(|(_, entry)| entry.path().as_str());
    Some(title(paths.filter_map(|path| path.split('/').next())))
}

/// What will be offered, before it has been looked at.
pub(crate) fn of_paths(paths: &[PathBuf]) -> OfferView {
    let name = |path: &PathBuf| {
        let name = path.file_name().unwrap_or(path.as_os_str());
        name.to_string_lossy().into_owned()
    };
    let names: Vec<_> = paths.iter().map(name).collect();
    OfferView {
        title: title(names.iter().map(String::as_str)),
        ..OfferView::default()
    }
}

/// A few words: the first line of them, or what is shown of it.
pub(crate) fn of_text(text: &str) -> OfferView {
    let first = text.lines().find(|line| !line.trim().is_empty());
    OfferView {
        title: display_text(first.unwrap_or_default()),
        bytes: text.len() as u64,
        ..OfferView::default()
    }
}

/// A few words that nobody has agreed to see yet.
pub(crate) fn of_unread_text(text: &str) -> OfferView {
    OfferView {
        title: "a message".to_owned(),
        bytes: text.len() as u64,
        ..OfferView::default()
    }
}

/// Nothing yet, of everything offered.
pub(crate) fn no_progress(offer: &OfferView) -> Progress {
    Progress {
        bytes_total: (!offer.stream).then_some(offer.bytes),
        files_total: offer.files,
        ..Progress::default()
    }
}

/// The one name, or the first and how many more.
fn title<'a>(tops: impl Iterator<Item = &'a str>) -> String {
    // One by one: a list of them all would be the largest thing here.
    let (mut first, mut last, mut more) = (None, None, 0_u32);
    for top in tops {
        if last.is_some() && last != Some(top) {
            more += 1;
        }
        first = first.or(Some(top));
        last = Some(top);
    }
    match (first, more) {
        (None, _) => String::new(),
        (Some(only), 0) => display_text(only),
        (Some(first), more) => format!("{} and {more} more", display_text(first)),
    }
}

#[cfg(test)]
mod tests {
    use pinhole_transfer::manifest::ManifestBuilder;

    use super::*;

    #[test]
    fn everything_counts_for_what_it_is_in() {
        let mut builder = ManifestBuilder::default();
        for entry in [
            r#"{"folder":{"path":"d"}}"#,
            r#"{"file":{"path":"d/1","size_bytes":1}}"#,
            r#"{"file":{"path":"f","size_bytes":4}}"#,
            r#"{"folder":{"path":"d/e"}}"#,
            r#"{"file":{"path":"d/e/2","size_bytes":2}}"#,
            r#"{"folder":{"path":"g"}}"#,
        ] {
            let entry = serde_json::from_str(entry).expect("an entry");
            builder.push(entry).expect("room");
        }
        let top_level = of_manifest(&builder.build()).top_level;
        let expected = [(0, 2, 3), (2, 1, 4), (5, 0, 0)];
        let expected = expected.map(|(entry, files, bytes)| TopView {
            entry,
            files,
            bytes,
        });
        assert_eq!(top_level, expected);
    }

    #[test]
    fn each_entry_names_the_folder_that_holds_it() {
        // Longer than what is shown of a path.
        let long = "x".repeat(200);
        let mut builder = ManifestBuilder::default();
        for entry in [
            r#"{"folder":{"path":"d"}}"#.to_owned(),
            format!(r#"{{"folder":{{"path":"d/{long}"}}}}"#),
            format!(r#"{{"file":{{"path":"d/{long}/a","size_bytes":1}}}}"#),
            r#"{"file":{"path":"d/b","size_bytes":2}}"#.to_owned(),
            r#"{"file":{"path":"f","size_bytes":4}}"#.to_owned(),
        ] {
            builder.push(serde_json::from_str(&entry).unwrap()).unwrap();
        }
        let offer = of_manifest(&builder.build());
        let folders: Vec<_> = offer.entries.iter().map(|entry| entry.folder).collect();
        assert_eq!(folders, [None, Some(0), Some(1), Some(0), None]);
    }

    #[test]
    fn the_title_of_a_part_names_what_is_wanted() {
        let mut builder = ManifestBuilder::default();
        for entry in [
            r#"{"file":{"path":"photo.jpg","size_bytes":1}}"#,
            r#"{"folder":{"path":"d"}}"#,
            r#"{"file":{"path":"d/1","size_bytes":1}}"#,
            r#"{"file":{"path":"d/2","size_bytes":1}}"#,
            r#"{"file":{"path":"f","size_bytes":4}}"#,
        ] {
            builder.push(serde_json::from_str(entry).unwrap()).unwrap();
        }
        let manifest = std::sync::Arc::new(builder.build());
        for (skipped, expected) in [
            (vec![], None),
            (vec![0], Some("d and 1 more")),
            (vec![0, 2, 3], Some("f")),
            (vec![4], Some("photo.jpg and 1 more")),
            (vec![0, 2, 3, 4], None),
        ] {
            let skipped = skipped.into_iter().map(pinhole_transfer::EntryIndex::new);
            let skipped = skipped.collect();
            let selection = Selection::without(manifest.clone(), skipped);
            assert_eq!(title_of_wanted(&selection).as_deref(), expected);
        }
    }
}
