//! Clients, the real server and everything between them, over loopback.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what is here fails by panicking, as tests do"
)]

mod credentials;
mod hostile;
mod idle;
mod login;
mod measure;
mod private;
mod proxy;
mod scene;
mod sessions;
mod strangers;
mod stress;
