//! Standard input and output as the ends of pipes, for what is sent and received.

use std::fs::File;
use std::io;

use pinhole_client::{PipeInput, PipeOutput};

/// Standard input, to be sent.
pub(crate) fn input() -> PipeInput {
    PipeInput::new("standard input", Box::new(io::stdin()))
}

/// Standard output, for what is received. Nothing is gathered on the way to it.
pub(crate) fn output() -> io::Result<PipeOutput> {
    let end = File::from(own_stdout()?);
    Ok(PipeOutput::new("standard output", Box::new(end)))
}

#[cfg(unix)]
fn own_stdout() -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::AsFd as _;
    io::stdout().as_fd().try_clone_to_owned()
}

#[cfg(windows)]
fn own_stdout() -> io::Result<std::os::windows::io::OwnedHandle> {
    use std::os::windows::io::AsHandle as _;
    io::stdout().as_handle().try_clone_to_owned()
}
