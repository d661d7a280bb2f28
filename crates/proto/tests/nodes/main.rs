//! Several nodes of one server in one thread: messages between them that are lost, late or
//! doubled, links that break, nodes that die, and clocks that differ.

#[cfg(test)]
mod properties;
#[cfg(test)]
#[path = "../simulation/random.rs"]
mod random;
#[cfg(test)]
mod world;
