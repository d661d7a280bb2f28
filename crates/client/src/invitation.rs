//! Meeting somebody for the first time: links, codes, and what proves that both sides
//! mean each other. No I/O, no clock.
//!
//! | module | what it holds |
//! |---|---|
//! | [`link`] | an invitation as a text that people pass on |
//! | [`proof`] | the secret of a link, and how it is proven without being shown |
//! | [`code`] | a number and two words that people say to each other |
//! | [`exchange`] | SPAKE2 over the words of a code |
//! | [`opener`] | the side that has opened a code: who may try it, and how often |
//! | [`evidence`] | what is shown of all that with an introduction |

pub(crate) mod code;
pub(crate) mod evidence;
pub(crate) mod exchange;
pub(crate) mod link;
pub(crate) mod opener;
pub(crate) mod proof;
