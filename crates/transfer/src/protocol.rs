//! What travels between two peers, without I/O: how files are cut, named, hashed and
//! listed, what is said about them, and what each side believes of the other.

pub mod chunking;
pub mod digest;
pub mod early;
pub(crate) mod file_error;
pub mod frame;
pub(crate) mod index;
pub mod manifest;
pub mod message;
pub mod path;
pub mod receiver;
pub(crate) mod selection;
pub mod sender;
pub mod violation;
