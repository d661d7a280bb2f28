//! Times, counts and titles in words.

use std::time::Duration;

use console::measure_text_width;
use indicatif::HumanDuration;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use pinhole_client::{OfferView, amount};

/// As "0.42 s" or "3 minutes".
pub(crate) fn time(elapsed: Duration) -> String {
    if elapsed < Duration::from_secs(60) {
        format!("{:.2} s", elapsed.as_secs_f64())
    } else {
        HumanDuration(elapsed).to_string()
    }
}

/// As "2026-03-01 18:05", in the user's own time zone.
pub(crate) fn date(seconds_since_1970: u64) -> String {
    let moment = i64::try_from(seconds_since_1970)
        .ok()
        .map(Timestamp::from_second);
    match moment {
        Some(Ok(moment)) => moment
            .to_zoned(TimeZone::system())
            .strftime("%Y-%m-%d %H:%M")
            .to_string(),
        _ => "unknown time".to_owned(),
    }
}

/// As "345 MB", or that nobody knows.
pub(crate) fn size(offer: &OfferView) -> String {
    match known_bytes(offer) {
        Some(bytes) => amount::display(bytes),
        None => "size not known".to_owned(),
    }
}

/// The bytes of an offer; `None` of a stream.
pub(crate) fn known_bytes(offer: &OfferView) -> Option<u64> {
    (!offer.stream).then_some(offer.bytes)
}

/// As "3 files" or "1 file and 2 folders".
pub(crate) fn count(files: u64, folders: u64) -> String {
    let plural = |n: u64, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    match (files, folders) {
        (files, 0) => plural(files, "file"),
        (0, folders) => plural(folders, "folder"),
        (files, folders) => format!(
            "{} and {}",
            plural(files, "file"),
            plural(folders, "folder")
        ),
    }
}

/// Shortens text to a number of columns by leaving out its middle, because the end of a
/// file name tells its type.
pub(crate) fn shortened(text: &str, max_columns: usize) -> String {
    if measure_text_width(text) <= max_columns {
        return text.to_owned();
    }
    let head_max = max_columns / 2;
    let head = fitting(text.chars(), head_max);
    let tail = fitting(text.chars().rev(), max_columns.saturating_sub(head_max + 1));
    let tail = tail.chars().rev();
    head.chars().chain(['…']).chain(tail).collect()
}

/// Takes as many characters as fit.
fn fitting(characters: impl Iterator<Item = char>, max_columns: usize) -> String {
    let mut columns = 0;
    let fits = |character: &char| {
        columns += measure_text_width(character.encode_utf8(&mut [0; 4]));
        columns <= max_columns
    };
    characters.take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_titles_keep_their_end() {
        assert_eq!(shortened("film.mp4 to bob", 15), "film.mp4 to bob");
        assert_eq!(
            shortened("a very long film.mp4 to bob", 15),
            "a very … to bob"
        );
        assert_eq!(shortened("猫猫猫猫猫猫", 9), "猫猫…猫猫");
        assert_eq!(shortened("猫猫猫猫猫猫", 12), "猫猫猫猫猫猫");
    }

    #[test]
    fn counts_are_words() {
        assert_eq!(count(1, 0), "1 file");
        assert_eq!(count(3, 2), "3 files and 2 folders");
        assert_eq!(count(0, 1), "1 folder");
    }
}
