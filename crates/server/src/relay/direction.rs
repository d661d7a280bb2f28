//! One direction of a pair: takes bytes in from one side and passes them on to the other.

use std::io;
use std::mem;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::pipe::{Pipe, Pipes};

/// The most that is taken in at once. It is also the most that waits for the slower side,
/// and one turn at a limited rate.
pub(super) const STEP_BYTES: usize = 64 * 1024;
/// The least that is worth a pipe. Small pieces would fill its places, and each of them
/// keeps a whole page of memory.
const PIPE_BYTES: usize = 16 * 1024;

/// One direction of a pair.
///
/// What arrives fast goes through a pipe, in which the kernel moves pages from one
/// connection to the other, for half the CPU time of copying. Everything else is copied,
/// and so is all of it where there is no pipe.
#[derive(Debug)]
pub(super) struct Direction<'a> {
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    buffer: Vec<u8>,
    /// How much of the buffer waits to be passed on.
    filled: usize,
    pipes: &'a Pipes,
    pipe: Option<Pipe>,
    is_fast: bool,
}

impl<'a> Direction<'a> {
    pub(super) fn new(from: ReadHalf<'a>, to: WriteHalf<'a>, pipes: &'a Pipes) -> Self {
        Self {
            from,
            to,
            buffer: vec![0; STEP_BYTES],
            filled: 0,
            pipes,
            pipe: None,
            is_fast: false,
        }
    }

    /// Takes in what has arrived, and waits for it if need be. Returns how much that is: 0
    /// at the end.
    ///
    /// All that was taken in before has to be passed on already.
    pub(super) async fn take_in(&mut self) -> io::Result<usize> {
        if self.is_fast
            && let Some(taken) = self.take_into_pipe().await?
        {
            self.is_fast = taken >= PIPE_BYTES;
            return Ok(taken);
        }
        self.filled = self.from.read(&mut self.buffer).await?;
        self.is_fast = self.filled == STEP_BYTES;
        Ok(self.filled)
    }

    /// Returns nothing if there is no pipe.
    async fn take_into_pipe(&mut self) -> io::Result<Option<usize>> {
        if self.pipe.is_none() {
            self.pipe = self.pipes.open();
        }
        let Some(pipe) = &mut self.pipe else {
            return Ok(None);
        };
        match pipe.fill(self.from.as_ref(), STEP_BYTES).await {
            Ok(taken) => Ok(Some(taken)),
            Err(error) if is_unsupported(&error) => {
                self.pipes.close();
                self.pipe = None;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Passes on what was taken in.
    pub(super) async fn pass_on(&mut self) -> io::Result<()> {
        if let Some(pipe) = &mut self.pipe {
            pipe.drain(self.to.as_ref()).await?;
        }
        let copied = self.buffer.get(..mem::take(&mut self.filled));
        self.to.write_all(copied.unwrap_or_default()).await
    }

    /// Tells the other side that nothing more comes.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        self.to.shutdown().await
    }
}

/// Whether the system never moves bytes from connections to pipes. Some sandboxes forbid
/// it.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// The two ends of a connection.
    async fn connected() -> [TcpStream; 2] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        [ours.unwrap(), theirs.unwrap().0]
    }

    /// Bytes of which no two places are alike.
    fn bytes(count: usize) -> Vec<u8> {
        let words = (0..count.div_ceil(4)).map(|word| u32::try_from(word).unwrap());
        let mut bytes: Vec<u8> = words.flat_map(u32::to_be_bytes).collect();
        bytes.truncate(count);
        bytes
    }

    /// What one direction carries of `sent`, how often it had a pipe, and how often not.
    async fn carry(sent: &[u8], pipes: &Pipes) -> (Vec<u8>, [usize; 2]) {
        let ([mut alice, mut a], [mut b, mut bob]) = (connected().await, connected().await);
        let mut steps = [0, 0];
        let (from, to) = (a.split().0, b.split().1);
        let relay = async {
            let mut direction = Direction::new(from, to, pipes);
            while direction.take_in().await.unwrap() > 0 {
                steps[usize::from(direction.filled > 0)] += 1;
                direction.pass_on().await.unwrap();
            }
            direction.end().await.unwrap();
        };
        let send = async {
            alice.write_all(sent).await.unwrap();
            alice.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let receive = async { bob.read_to_end(&mut received).await.unwrap() };
        tokio::join!(relay, send, receive);
        (received, steps)
    }

    #[tokio::test]
    async fn a_flood_arrives_whole_with_and_without_pipes() {
        let sent = bytes(20_000_001);
        for (pipes, may_pipe) in [
            (Pipes::new(1), cfg!(target_os = "linux")),
            (Pipes::new(0), false),
        ] {
            let (received, [piped, _]) = carry(&sent, &pipes).await;
            assert!(received == sent, "other bytes have arrived");
            assert_eq!(piped > 0, may_pipe);
        }
    }

    #[tokio::test]
    async fn where_pipes_do_not_work_bytes_are_copied() {
        let sent = bytes(1_000_000);
        let pipes = Pipes::new(1);
        pipes.close();
        let (received, [piped, _]) = carry(&sent, &pipes).await;
        assert!(received == sent && piped == 0);
    }

    #[tokio::test]
    async fn a_trickle_after_a_flood_is_copied() {
        let ([mut alice, mut a], [mut b, mut bob]) = (connected().await, connected().await);
        let pipes = Pipes::new(1);
        let mut direction = Direction::new(a.split().0, b.split().1, &pipes);
        alice.write_all(&bytes(STEP_BYTES * 2)).await.unwrap();
        let mut received = vec![0; STEP_BYTES * 2];
        let flood = async {
            let mut left = STEP_BYTES * 2;
            while left > 0 {
                left -= direction.take_in().await.unwrap();
                direction.pass_on().await.unwrap();
            }
        };
        let receive = bob.read_exact(&mut received);
        tokio::join!(flood, receive).1.unwrap();
        for is_copied in [None, Some(true), Some(true)] {
            alice.write_all(b"x").await.unwrap();
            assert_eq!(direction.take_in().await.unwrap(), 1);
            // The first may still go through the pipe.
            assert!(is_copied.is_none_or(|it| it == (direction.filled == 1)));
            direction.pass_on().await.unwrap();
            bob.read_exact(&mut [0]).await.unwrap();
        }
    }
}
