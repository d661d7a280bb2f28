//! Sentences about transfers.

use pinhole_client::snapshot::Completion;
use pinhole_client::{Direction, Failure, Fingerprint, OfferView, PathKind, TransferView};

use super::bar;
use crate::display;

/// Of a larger offer only so much is listed.
pub(super) const LISTED_MAX: usize = 100;

/// A failure, with what can be done about it on the command line.
pub(super) fn failure(failure: &Failure) -> String {
    match failure {
        Failure::PeerKeyChanged { peer, known, now } => {
            let trust = trust(peer.as_str(), *known, *now);
            format!("{failure} {trust}")
        }
        other => other.to_string(),
    }
}

/// How to trust a key that has changed.
pub(super) fn trust(peer: &str, known: Fingerprint, now: Fingerprint) -> String {
    format!(
        "The fingerprint was {known} and is {now}. Once it is confirmed: pinhole trust {peer} {now}"
    )
}

pub(super) fn summary(offer: &OfferView) -> String {
    format!(
        "{}, {}",
        display::count(offer.files, offer.folders),
        display::size(offer.bytes)
    )
}

/// The path for people.
pub(super) fn path_in_words(path: PathKind) -> &'static str {
    match path {
        PathKind::Lan => "directly, on your network",
        PathKind::Ipv6 => "directly, over IPv6",
        PathKind::Mapped => "directly, by a port that the router opened",
        PathKind::Punched => "directly, through both NATs",
        PathKind::Relay => "through the relay",
    }
}

/// The lines that tell what is in an offer, numbered where it can be chosen
/// from. Of a large one only the top level.
pub(super) fn listing(offer: &OfferView) -> Vec<String> {
    let is_whole = offer.entries.len() <= LISTED_MAX;
    let mut tops = offer.top_level.iter().zip(1..).peekable();
    let mut lines = Vec::new();
    for (entry, place) in offer.entries.iter().zip(0..) {
        let top = tops.next_if(|(top, _)| top.entry == place);
        if top.is_none() && !is_whole {
            continue;
        }
        let number = match top {
            Some((_, number)) if offer.top_level.len() > 1 => number.to_string(),
            _ => String::new(),
        };
        let line = match (entry.size_bytes, top) {
            (Some(size), _) => format!("{:>12}  {}", display::size(size), entry.path),
            (None, Some((top, _))) => {
                let (size, files) = (display::size(top.bytes), display::count(top.files, 0));
                format!("{size:>12}  {}/ ({files})", entry.path)
            }
            (None, None) => format!("{:>12}  {}/", "", entry.path),
        };
        lines.push(format!("{number:>4}{line}"));
    }
    lines
}

/// How a transfer went, in one line.
pub(super) fn outcome(transfer: &TransferView, completion: &Completion) -> String {
    let Completion { bytes, elapsed, .. } = *completion;
    let mark = if completion.failed_files == 0 {
        "✓"
    } else {
        "!"
    };
    let into = match (&completion.folder, transfer.direction) {
        (Some(folder), Direction::Receiving) => format!(" into {}", folder.display()),
        _ => String::new(),
    };
    let what = format!("{mark} {}{into}", bar::title(transfer));
    let skipped = match (completion.skipped_files, transfer.direction) {
        (0, _) => String::new(),
        (count, Direction::Sending) => {
            let files = display::count(count, 0);
            format!(", {files} skipped by {}", transfer.peer.name)
        }
        (count, Direction::Receiving) => format!(", {} skipped", display::count(count, 0)),
    };
    if completion.files == 0 && completion.skipped_files > 0 {
        return format!("{what}: nothing was sent{skipped}");
    }
    let way = transfer.path.map_or("", path_in_words);
    if transfer.text.is_some() {
        return format!("{mark} text to {}, {way}", transfer.peer.name);
    }
    let (size, time) = (display::size(bytes), display::time(elapsed));
    let speed = display::speed(bytes, elapsed);
    format!("{what}: {size} in {time}, {speed}, {way}{skipped}")
}

#[cfg(test)]
mod tests {
    use pinhole_client::TopView;
    use pinhole_client::snapshot::EntryView;

    use super::*;

    fn offer(entries: &[(&str, Option<u64>)], top_level: Vec<TopView>) -> OfferView {
        let entries = entries.iter().map(|&(path, size_bytes)| EntryView {
            path: path.to_owned(),
            size_bytes,
            folder: None,
        });
        OfferView {
            entries: entries.collect(),
            top_level,
            ..OfferView::default()
        }
    }

    fn top(entry: u32, files: u64, bytes: u64) -> TopView {
        TopView {
            entry,
            files,
            bytes,
        }
    }

    #[test]
    fn what_can_be_chosen_has_a_number() {
        let entries = [("d", None), ("d/one", Some(1)), ("f", Some(2000))];
        let two = offer(&entries, vec![top(0, 1, 1), top(2, 1, 2000)]);
        let expected = [
            "   1         1 B  d/ (1 file)",
            "             1 B  d/one",
            "   2     2.00 kB  f",
        ];
        assert_eq!(listing(&two), expected);
        let one = offer(&entries[2..], vec![top(0, 1, 2000)]);
        assert_eq!(listing(&one), ["         2.00 kB  f"]);
    }

    #[test]
    fn of_a_large_offer_only_the_top_level_is_listed() {
        let mut entries = vec![("d", None)];
        entries.resize(200, ("d/one", Some(1)));
        entries.push(("f", Some(2)));
        let large = offer(&entries, vec![top(0, 199, 199), top(200, 1, 2)]);
        let expected = ["   1       199 B  d/ (199 files)", "   2         2 B  f"];
        assert_eq!(listing(&large), expected);
    }
}
