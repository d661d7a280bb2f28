//! Words about what was dropped.

pub(crate) const UNREADABLE_DROP: &str = "The program that the files come from has not said which they are. Drop them again, or use the Send files button.";
pub(crate) const NOTHING_IN_THE_DROP: &str = "No file was named in what was dropped.";

/// A dropped address that is no file here.
pub(crate) fn not_a_file(address: &str) -> String {
    format!("{address} is not a file on this computer: save it here first.")
}

/// A dropped file that cannot be looked at.
pub(crate) fn not_readable(path: &str, reason: &str) -> String {
    format!("{path}: {reason}.")
}

/// A dropped list that is too long.
pub(crate) fn too_many_dropped(more: usize) -> String {
    format!("{more} more files are too many at once: drop the folder that holds them.")
}

/// What of a drop cannot be sent.
pub(crate) fn refused_drop(refused: &[String], is_all: bool) -> String {
    const NAMED: usize = 3;
    let what = if is_all {
        "Nothing of what was dropped can be sent."
    } else {
        "Not everything that was dropped can be sent."
    };
    let mut parts = vec![what.to_owned()];
    parts.extend(refused.iter().take(NAMED).cloned());
    match refused.len().saturating_sub(NAMED) {
        0 => {}
        more => parts.push(format!("And {more} more like these.")),
    }
    parts.join(" ")
}
