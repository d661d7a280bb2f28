//! Offers as people see them.

use std::path::PathBuf;

use pinhole_transfer::display::display_text;
use pinhole_transfer::{Manifest, Source};

use crate::snapshot::{EntryView, OfferView, Progress};

/// What is sent, as the sender sees it.
pub(crate) fn of_source(source: &Source) -> OfferView {
    let skipped = source
        .skipped()
        .iter()
        .map(|s| format!("{} ({})", display_text(&s.path.to_string_lossy()), s.reason))
        .collect();
    OfferView {
        skipped,
        ..of_manifest(source.manifest())
    }
}

/// What is offered.
pub(crate) fn of_manifest(manifest: &Manifest) -> OfferView {
    let entries: Vec<_> = manifest
        .entries()
        .iter()
        .map(|entry| EntryView {
            path: entry.path().display_text(),
            size_bytes: entry.file_size_bytes(),
        })
        .collect();
    let files = entries.iter().filter(|e| e.size_bytes.is_some()).count();
    OfferView {
        title: title(&entries),
        files: files as u64,
        folders: (entries.len() - files) as u64,
        bytes: entries.iter().filter_map(|e| e.size_bytes).sum(),
        existing: 0,
        skipped: Vec::new(),
        entries,
    }
}

/// What will be offered, before it has been looked at.
pub(crate) fn of_paths(paths: &[PathBuf]) -> OfferView {
    let names = paths.iter().map(|path| {
        let name = path.file_name().unwrap_or(path.as_os_str());
        EntryView {
            path: display_text(&name.to_string_lossy()),
            size_bytes: None,
        }
    });
    OfferView {
        title: title(&names.collect::<Vec<_>>()),
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

/// Nothing yet, of everything offered.
pub(crate) fn no_progress(offer: &OfferView) -> Progress {
    Progress {
        bytes_total: offer.bytes,
        files_total: offer.files,
        ..Progress::default()
    }
}

/// The one name, or the first and how many more.
fn title(entries: &[EntryView]) -> String {
    let mut tops: Vec<&str> = entries
        .iter()
        .filter_map(|entry| entry.path.split('/').next())
        .collect();
    tops.dedup();
    match tops.as_slice() {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}
