//! The doctor: measuring what a network does to connections, and saying what that
//! means.
//!
//! | module | what it holds |
//! |---|---|
//! | `measure` | what the server answers, what it sees of local ports, what the router grants |
//! | `probes` | whom the NAT lets in |
//! | [`diagnosis`] | what is concluded, and the sentences about it |

pub mod diagnosis;
mod measure;
mod probes;

pub use measure::Examination;
