//! Words about leaving while something is under way.

use pinhole_client::TransferView;

use super::{stage, title};

pub(crate) const KEEP_GOING: &str = "Keep going";
pub(crate) const STOP_AND_QUIT: &str = "Stop and quit";
pub(crate) const STOP_AND_LOG_OUT: &str = "Stop and log out";
pub(crate) const STOP_AND_LEAVE: &str = "Stop and switch off";
pub(crate) const PARTS_ARE_KEPT: &str =
    "It would stop. What has arrived is kept, and sending it again resumes from there.";

/// Over the question whether to leave.
pub(crate) fn would_stop(transfers: usize) -> String {
    match transfers {
        0 => "Nothing is under way any more.".to_owned(),
        1 => "1 transfer is still under way.".to_owned(),
        n => format!("{n} transfers are still under way."),
    }
}

/// One that would stop, in a line.
pub(crate) fn under_way(transfer: &TransferView) -> String {
    let title = title(transfer);
    let stage = stage(transfer);
    match title.as_str() {
        "" => stage,
        title => format!("{title}: {stage}"),
    }
}

/// How many there are besides those named.
pub(crate) fn and_more(more: usize) -> String {
    format!("and {more} more")
}

/// A message that would be lost.
pub(crate) fn message_unsent(peer: &str) -> String {
    format!("Your message to {peer} has not been sent, and would be lost.")
}
