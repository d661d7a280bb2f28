//! Two people's states against each other, through a simulated server, sessions that
//! break and disks that take their time, on a virtual clock: properties over thousands
//! of seeds. A failure prints its seed, which reproduces the run exactly.

mod activity;
mod codes;
mod faces;
mod keys;
mod link;
mod meeting;
mod party;
mod people;
mod properties;
mod random;
mod server;
mod traffic;
mod watching;
mod world;
