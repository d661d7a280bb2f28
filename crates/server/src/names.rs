//! Names and the keys they are bound to.

mod sqlite;

pub use sqlite::{NameEntry, Names, NamesError};
