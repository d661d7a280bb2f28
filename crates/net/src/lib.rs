//! net
pub mod socket;
