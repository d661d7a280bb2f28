//! An attempt at a transfer, as far as files on the disk go.

use std::sync::Arc;

use crate::control::Control;
use crate::disk::digest_cache::DigestCache;

/// Whose files an attempt writes, what is known of them, and whether those that are
/// not finished are kept.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// The sender's key, after which parts are named.
    pub(crate) owner: [u8; 32],
    /// What the chunks of files were found to be.
    pub(crate) cache: DigestCache,
    pub(crate) control: Arc<Control>,
}
