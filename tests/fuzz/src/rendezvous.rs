//! What a server and a client read from each other: cut out of the stream the
//! same however it comes, and read back as it was.

use std::fmt::Debug;

use pinhole_proto::{
    candidate::LoopbackAddresses,
    frame::{Decoder, FrameKind, encode},
    rendezvous::{ClientMessage, Reachability, ServerMessage},
};
use serde::{Serialize, de::DeserializeOwned};

/// The first byte says who reads, the second in what pieces it comes.
pub fn hold(bytes: &[u8]) {
    let [who, piece, stream @ ..] = bytes else {
        return;
    };
    let piece = usize::from(*piece) + 1;
    if who % 2 == 0 {
        let read = messages::<ClientMessage>(FrameKind::Client, stream, piece);
        assert_eq!(read, messages(FrameKind::Client, stream, usize::MAX));
        for message in read {
            if let ClientMessage::Introduce { reachability, .. }
            | ClientMessage::Answer { reachability, .. } = &message
            {
                check_candidates(reachability);
            }
            check_reads_back(FrameKind::Client, message);
        }
    } else {
        let read = messages::<ServerMessage>(FrameKind::Server, stream, piece);
        assert_eq!(read, messages(FrameKind::Server, stream, usize::MAX));
        for message in read {
            check_reads_back(FrameKind::Server, message);
        }
    }
}

/// Everything up to the end, or to what is no message.
fn messages<M: DeserializeOwned>(kind: FrameKind, stream: &[u8], piece: usize) -> Vec<M> {
    let mut decoder = Decoder::new(kind);
    let mut read = Vec::new();
    for piece in stream.chunks(piece.min(stream.len()).max(1)) {
        decoder.feed(piece);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => read.push(message),
                Ok(None) => break,
                Err(_) => return read,
            }
        }
    }
    read
}

fn check_reads_back<M>(kind: FrameKind, message: M)
where
    M: Serialize + DeserializeOwned + PartialEq + Debug,
{
    // Longer than it came only where that makes it longer than a frame.
    if let Ok(frame) = encode(kind, &message) {
        assert_eq!(messages::<M>(kind, &frame, usize::MAX), [message]);
    }
}

/// What may be dialled is what threatens nobody.
fn check_candidates(reachability: &Reachability) {
    for candidate in &reachability.candidates {
        let Ok(admitted) = candidate.admit(LoopbackAddresses::Refused) else {
            continue;
        };
        let address = admitted.address;
        assert!(address.port() >= 1024);
        let ip = address.ip();
        assert!(!ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast());
        assert_eq!(ip, ip.to_canonical());
        assert_eq!(admitted.admit(LoopbackAddresses::Refused), Ok(admitted));
    }
}
