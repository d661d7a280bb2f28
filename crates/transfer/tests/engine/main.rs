//! The engine from outside: two exchanges that are honest, one that meets a
//! liar, and the names both may use.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing
)]

mod alive;
mod choices;
mod early_chunk;
mod early_files;
mod early_sent;
mod exchange;
#[cfg(unix)]
mod extremes;
mod floods;
mod hostile;
#[cfg(unix)]
mod liar;
mod lying_early;
mod lying_receiver;
mod lying_sender;
mod lying_stream;
mod moves;
mod names;
mod offers;
mod once;
mod owners;
#[cfg(unix)]
mod parts;
#[cfg(unix)]
mod pipelines;
mod places;
#[cfg(unix)]
mod races;
mod resume;
#[cfg(target_os = "linux")]
mod room;
mod streams;
mod support;
#[cfg(unix)]
mod truth;
mod words;
