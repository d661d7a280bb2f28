//! What the end-to-end tests and the benchmark share: a NAT laboratory made of
//! network namespaces ([`lab`]), the real binaries as processes ([`process`]),
//! a server with its peers made of both ([`scene`], [`pair`]), a database
//! (`postgres`), a screen with mouse and keyboard (`screen`), and a line that can be cut
//! ([`wire`]).
//!
//! A test that needs root says so and passes where it has none; see
//! [`lab::unavailable`].

#![allow(clippy::indexing_slicing, reason = "a test fails by a panic")]

#[cfg(target_os = "linux")]
pub mod lab;
#[cfg(target_os = "linux")]
pub mod pair;
#[cfg(target_os = "linux")]
pub mod postgres;
pub mod process;
pub mod scene;
#[cfg(target_os = "linux")]
pub mod screen;
pub mod tree;
pub mod wire;
