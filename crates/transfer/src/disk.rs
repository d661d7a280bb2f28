//! Everything that touches a file system: where received files go, what an attempt
//! leaves for the next, and what is remembered of files.

pub(crate) mod attempt;
pub(crate) mod destination;
pub(crate) mod digest_cache;
pub(crate) mod direct;
pub(crate) mod journal;
pub(crate) mod locked_file;
pub(crate) mod partial_file;
pub(crate) mod store;
pub(crate) mod sync;
pub(crate) mod system;
pub(crate) mod version;
