//! The server's state.
