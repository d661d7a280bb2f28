//! Sentences about transfers.

use pinhole_client::Completion;
use pinhole_client::{
    Direction, Failure, Fingerprint, HistoryEntry, OfferView, Outcome, PathKind, PeerName, Renamed,
    TransferView, amount,
};

use super::bar;
use crate::display;

/// The most entries of an offer that are listed.
pub(super) const LISTED_MAX: usize = 100;
/// The most new names that are listed.
const NAMES_SAID: usize = 3;

/// A failure, with the command that helps.
pub(super) fn failure(failure: &Failure) -> String {
    match failure {
        Failure::PeerKeyChanged { peer, known, now }
        | Failure::NameReleased { peer, known, now } => {
            let trust = trust(peer.as_str(), *known, *now);
            format!("{failure} {trust}")
        }
        Failure::KeyRevoked => format!("{failure} Run: pinhole recover NAME"),
        other => plain(&other.to_string()),
    }
}

/// Removes the numbers that the standard library appends to the system's words, as in
/// "Connection refused (os error 111)".
pub(crate) fn plain(sentence: &str) -> String {
    const BEGIN: &str = " (os error ";
    let mut shown = String::with_capacity(sentence.len());
    let mut rest = sentence;
    while let Some((before, behind)) = rest.split_once(BEGIN) {
        shown.push_str(before);
        let digits = behind.find(|c: char| !c.is_ascii_digit());
        let end = digits
            .filter(|&end| end > 0)
            .map(|end| behind.split_at(end));
        rest = match end.and_then(|(_, end)| end.strip_prefix(')')) {
            Some(rest) => rest,
            None => {
                shown.push_str(BEGIN);
                behind
            }
        };
    }
    shown + rest
}

/// How a transfer in the history ended.
pub(super) fn end(entry: &HistoryEntry) -> String {
    match &entry.outcome {
        Outcome::Completed { failed_files: 0 } => "✓".to_owned(),
        Outcome::Completed { failed_files } => {
            format!("! {} failed", display::count(*failed_files, 0))
        }
        Outcome::Failed { reason } => plain(reason),
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
        display::size(offer)
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

/// The lines that list an offer, numbered where the user can choose. Of a large offer
/// only the top level.
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
            (None, _) if entry.stream => format!("{:>12}  {}", "not known", entry.path),
            (Some(size), _) => format!("{:>12}  {}", amount::display(size), entry.path),
            (None, Some((top, _))) => {
                let (size, files) = (amount::display(top.bytes), display::count(top.files, 0));
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
    let mark = if completion.missing() == 0 {
        "✓"
    } else {
        "!"
    };
    let into = match (&completion.folder, transfer.direction) {
        (Some(folder), Direction::Receiving) => {
            let names = stored_as(completion);
            format!(" into {}{names}", folder.display())
        }
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
    if completion.files == 0 && completion.skipped_files + completion.missing() > 0 {
        let nothing = match (transfer.direction, transfer.progress.bytes_done) {
            (Direction::Sending, 0) => "nothing was sent",
            (Direction::Receiving, 0) => "nothing was received",
            _ => "no file is complete",
        };
        return format!("{what}: {nothing}{skipped}");
    }
    let way = transfer.path.map_or("", path_in_words);
    if transfer.is_text {
        return format!("{mark} text to {}, {way}", transfer.peer.name);
    }
    let here = match completion.here_bytes {
        0 => String::new(),
        here => format!("{} were there already, ", amount::display(here)),
    };
    let (bytes, elapsed) = (completion.travelled_bytes(), completion.elapsed);
    let (size, time) = (amount::display(bytes), display::time(elapsed));
    let speed = amount::display_rate(amount::average_rate(bytes, elapsed));
    format!("{what}: {here}{size} in {time}, {speed}, {way}{skipped}")
}

/// What belongs to an offer but could not be read.
pub(super) fn unread(direction: Direction, peer: &PeerName, unread: u64) -> String {
    let (who, what) = match direction {
        Direction::Sending => ("this side", "are not sent"),
        Direction::Receiving => (peer.as_str(), "do not come"),
    };
    format!("files and folders that {who} could not read or name, and that {what}: {unread}")
}

/// Files that were skipped because their names are taken.
pub(super) fn skipped(names: &[String]) -> Vec<String> {
    let said = names.iter().take(NAMES_SAID);
    let mut lines: Vec<_> = said
        .map(|name| format!("{name} was there already and is skipped"))
        .collect();
    if names.len() > NAMES_SAID {
        lines.push("and more".to_owned());
    }
    lines
}

/// Names that had to change, except those that the last line names.
pub(super) fn renamed(direction: Direction, renamed: &Renamed) -> Vec<String> {
    let is_said = |now: &str| direction == Direction::Receiving && is_top_level(now);
    let named = renamed.first.iter().filter(|(_, now)| !is_said(now));
    let mut lines: Vec<_> = named
        .map(|(before, now)| format!("{before} is now {now}"))
        .collect();
    if lines.len() > NAMES_SAID {
        lines.truncate(NAMES_SAID);
        lines.push(format!("names that changed, in all: {}", renamed.count));
    }
    lines
}

/// The new names at the top level.
fn stored_as(completion: &Completion) -> String {
    let names = completion.renamed.first.iter().map(|(_, now)| now.as_str());
    let others: Vec<_> = names.filter(|now| is_top_level(now)).collect();
    match others.split_at_checked(NAMES_SAID) {
        Some((said, more @ [_, ..])) => {
            format!(" as {} and {} more", said.join(", "), more.len())
        }
        _ if others.is_empty() => String::new(),
        _ => format!(" as {}", others.join(", ")),
    }
}

fn is_top_level(path: &str) -> bool {
    !path.contains('/')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pinhole_client::snapshot::EntryView;
    use pinhole_client::{PeerIdentity, PeerKey, Progress, Stage, TopView, TransferId};

    use super::*;

    fn offer(entries: &[(&str, Option<u64>)], top_level: Vec<TopView>) -> OfferView {
        let entries = entries.iter().map(|&(path, size_bytes)| EntryView {
            path: path.to_owned(),
            size_bytes,
            stream: false,
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
    fn entries_that_can_be_chosen_are_numbered() {
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
    fn a_large_offer_lists_only_its_top_level() {
        let mut entries = vec![("d", None)];
        entries.resize(200, ("d/one", Some(1)));
        entries.push(("f", Some(2)));
        let large = offer(&entries, vec![top(0, 199, 199), top(200, 1, 2)]);
        let expected = ["   1       199 B  d/ (199 files)", "   2         2 B  f"];
        assert_eq!(listing(&large), expected);
    }

    fn received(offer: OfferView, completion: &Completion) -> String {
        let transfer = TransferView {
            face: pinhole_client::FaceId::OWN,
            id: TransferId(1),
            peer: PeerIdentity {
                name: "alice".parse().unwrap(),
                key: PeerKey::from_bytes([1; 32]),
            },
            claimed: false,
            stranger: false,
            direction: Direction::Receiving,
            progress: Progress {
                files_total: completion.files + completion.failed_files,
                ..Progress::default()
            },
            offer: offer.into(),
            stage: Stage::Completed(completion.clone()),
            path: Some(PathKind::Lan),
            is_text: false,
            text: None,
        };
        outcome(&transfer, completion)
    }

    #[test]
    fn os_error_numbers_are_removed() {
        for (sentence, expected) in [
            ("refused (os error 111). Try again.", "refused. Try again."),
            ("a (os error 1); b (os error 22)", "a; b"),
            (
                "it is (os error x) and (os error 1",
                "it is (os error x) and (os error 1",
            ),
            ("(os error ) ", "(os error ) "),
        ] {
            assert_eq!(plain(sentence), expected);
        }
    }

    #[test]
    fn skipped_files_are_listed() {
        assert_eq!(skipped(&[]), [""; 0]);
        let names = ["a", "b/c"].map(str::to_owned);
        let said = [
            "a was there already and is skipped",
            "b/c was there already and is skipped",
        ];
        assert_eq!(skipped(&names), said);
        let many: Vec<_> = (0..100).map(|number| number.to_string()).collect();
        assert_eq!(skipped(&many).len(), NAMES_SAID + 1);
    }

    #[test]
    fn the_end_says_the_new_name_and_what_was_there() {
        let file = OfferView {
            title: "a.bin".to_owned(),
            files: 1,
            ..offer(&[("a.bin", Some(20))], vec![top(0, 1, 20)])
        };
        let completion = Completion {
            files: 1,
            bytes: 20_000_000,
            here_bytes: 11_500_000,
            elapsed: Duration::from_secs(2),
            folder: Some("/in".into()),
            renamed: Renamed {
                first: vec![("a.bin".to_owned(), "a (1).bin".to_owned())],
                count: 1,
            },
            ..Completion::default()
        };
        assert_eq!(
            received(file.clone(), &completion),
            "✓ a.bin from alice into /in as a (1).bin: 11.5 MB were there already, 8.50 MB in 2.00 s, 4.25 MB/s, directly, on your network"
        );
        let failed = Completion {
            failed_files: 1,
            ..Completion::default()
        };
        assert_eq!(
            received(file.clone(), &failed),
            "! a.bin from alice: nothing was received"
        );
        let part = OfferView {
            title: "a.bin and 129 more".to_owned(),
            files: 130,
            ..file
        };
        let said = received(part, &completion);
        assert!(said.starts_with("✓ 1 of 130 files from alice"), "{said}");
    }
}
