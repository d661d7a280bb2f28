//! The connectivity agent against itself, through simulated NATs on a virtual
//! clock: properties over thousands of seeds. A failure prints its scenario;
//! the seed in it reproduces the run exactly.

#[cfg(test)]
mod kernel;
#[cfg(test)]
mod nat;
#[cfg(test)]
mod party;
#[cfg(test)]
mod random;
#[cfg(test)]
mod world;

#[cfg(test)]
mod properties;
