//! Passes bytes between the two halves of a relay.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::time::sleep;

/// One read, so also the most that waits for the slower side.
const BUFFER_BYTES: usize = 64 * 1024;

/// Carries bytes both ways until both sides have ended theirs. A side that
/// ends its own direction can still receive.
///
/// # Errors
/// When a side breaks off, or nothing was carried for `idle_timeout`.
pub(crate) async fn carry<A, B>(a: A, b: B, idle_timeout: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (a_reader, a_writer) = split(a);
    let (b_reader, b_writer) = split(b);
    let carried_bytes = AtomicU64::new(0);
    let both = async {
        tokio::try_join!(
            copy(a_reader, b_writer, &carried_bytes),
            copy(b_reader, a_writer, &carried_bytes),
        )
    };
    tokio::select! {
        ended = both => ended.map(|((), ())| ()),
        () = idle(&carried_bytes, idle_timeout) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    carried_bytes: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
        to.flush().await?;
        carried_bytes.fetch_add(read as u64, Ordering::Relaxed);
    }
}

/// Returns when nothing was carried for a whole `limit`.
async fn idle(carried_bytes: &AtomicU64, limit: Duration) {
    let mut before = None;
    loop {
        let now = carried_bytes.load(Ordering::Relaxed);
        if before == Some(now) {
            return;
        }
        before = Some(now);
        sleep(limit).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::duplex;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn one_direction_can_end_before_the_other() {
        let (mut alice, a) = duplex(64);
        let (mut bob, b) = duplex(64);
        let carried = tokio::spawn(carry(a, b, LONG));
        alice.write_all(b"question").await.unwrap();
        alice.shutdown().await.unwrap();
        let mut question = Vec::new();
        bob.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        bob.write_all(b"answer").await.unwrap();
        bob.shutdown().await.unwrap();
        let mut answer = Vec::new();
        alice.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
        carried.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn silence_ends_a_relay_and_traffic_does_not() {
        let limit = Duration::from_secs(1);
        let (mut alice, a) = duplex(64);
        let (mut bob, b) = duplex(64);
        let carried = tokio::spawn(carry(a, b, limit));
        let begin = Instant::now();
        let mut byte = [0];
        while begin.elapsed() < limit * 5 / 2 {
            alice.write_all(b"x").await.unwrap();
            bob.read_exact(&mut byte).await.unwrap();
        }
        assert!(!carried.is_finished());
        let ended = carried.await.unwrap().unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_side_that_breaks_off_ends_both() {
        let (alice, a) = duplex(64);
        let (mut bob, b) = duplex(64);
        let carried = tokio::spawn(carry(a, b, LONG));
        drop(alice);
        let mut nothing = Vec::new();
        bob.read_to_end(&mut nothing).await.unwrap();
        assert!(nothing.is_empty());
        drop(bob);
        carried.await.unwrap().unwrap();
    }
}
