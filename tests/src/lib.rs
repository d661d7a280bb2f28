//! What the end-to-end tests and the benchmark share: a NAT laboratory made of
//! network namespaces ([`lab`]), the real binaries as processes ([`process`]),
//! and a server with its peers made of both ([`scene`]).
//!
//! A test that needs root says so and passes where it has none; see
//! [`lab::unavailable`].

#![allow(clippy::indexing_slicing, reason = "a test fails by a panic")]

#[cfg(target_os = "linux")]
pub mod lab;
pub mod process;
pub mod scene;
pub mod tree;
