//! Where no system call moves bytes between connections, there are no pipes.

use std::io;

use tokio::net::TcpStream;

/// The pipes of a server: none.
#[derive(Debug)]
pub(super) struct Pipes;

impl Pipes {
    pub(super) const fn new(_most: usize) -> Self {
        Self
    }

    pub(super) const fn open(&self) -> Option<Pipe> {
        None
    }

    pub(super) const fn close(&self) {}
}

/// There is none.
#[derive(Debug)]
pub(super) enum Pipe {}

impl Pipe {
    #[expect(
        clippy::unused_async,
        reason = "it is one of two that are called alike"
    )]
    pub(super) async fn fill(&mut self, _from: &TcpStream, _most: usize) -> io::Result<usize> {
        match *self {}
    }

    #[expect(
        clippy::unused_async,
        reason = "it is one of two that are called alike"
    )]
    pub(super) async fn drain(&mut self, _to: &TcpStream) -> io::Result<()> {
        match *self {}
    }
}
