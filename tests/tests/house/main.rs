//! The rules of the house (ARCHITECTURE.md): which crate may use which, what
//! may not be in it, how its modules and functions are made.
//! Each rule is a function from text to complaints, shown to complain too.

mod arrows;
mod bans;
mod circles;
mod code;
mod file_lengths;
mod flags;
mod function_lengths;
mod known;
mod module_tree;
mod parameters;
mod sources;
