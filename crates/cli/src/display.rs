//! Sizes, speeds and times in words.

use std::time::Duration;

use indicatif::{BinaryBytes, DecimalBytes, HumanDuration};

/// As "1.21 GiB".
pub(crate) fn size(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// As "98.20 MB/s".
pub(crate) fn speed(bytes: u64, elapsed: Duration) -> String {
    let per_second = bytes as f64 / elapsed.as_secs_f64().max(0.001);
    // Saturates, which is right for a speed nobody can reach.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let per_second = per_second as u64;
    format!("{}/s", DecimalBytes(per_second))
}

/// As "0.42 s" or "3 minutes".
pub(crate) fn time(elapsed: Duration) -> String {
    if elapsed < Duration::from_secs(60) {
        format!("{:.2} s", elapsed.as_secs_f64())
    } else {
        HumanDuration(elapsed).to_string()
    }
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
