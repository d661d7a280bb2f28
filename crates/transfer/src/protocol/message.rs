//! Control messages: what two peers say to each other beside the bytes of
//! files. JSON, so that a capture made by the two of them can be read.

use serde::{Deserialize, Serialize};

use crate::protocol::digest::Digest;
use crate::protocol::file_error::FileErrorKind;
use crate::protocol::index::{ChunkIndex, EntryIndex};
use crate::protocol::manifest::Entry;

/// Which of the two peers this is. It decides whose transfer ids are even; the
/// inviter is the initiator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Gives out even transfer ids.
    Initiator,
    /// Gives out odd transfer ids.
    Responder,
}

/// Names a transfer on one connection. The peer that offers gives it out, each
/// larger than all before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransferId(u32);

impl TransferId {
    pub(crate) const fn from_wire(id: u32) -> Self {
        Self(id)
    }

    pub(crate) const fn to_wire(self) -> u32 {
        self.0
    }

    /// The first id of a side.
    pub(crate) const fn first(side: Side) -> Self {
        match side {
            Side::Initiator => Self(0),
            Side::Responder => Self(1),
        }
    }

    /// The id after this one; `None` when there are no more.
    pub(crate) fn next(self) -> Option<Self> {
        self.0.checked_add(2).map(Self)
    }

    /// The side that gave out this id.
    pub(crate) const fn side(self) -> Side {
        if self.0.is_multiple_of(2) {
            Side::Initiator
        } else {
            Side::Responder
        }
    }
}

impl std::fmt::Display for TransferId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Most bytes of text in one message, as UTF-8: even if all of it must be
/// escaped it fits into a frame.
pub const TEXT_BYTES_MAX: usize = 32 * 1024;

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands the field over by reference"
)]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Everything said in a control frame. A name is never reused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Message {
    /// Announces a transfer; its entries follow.
    Offer(Offer),
    /// A page of the offer's entries.
    Entries {
        /// The offer it belongs to.
        transfer: TransferId,
        /// The next entries in order.
        entries: Vec<Entry>,
    },
    /// A few words instead of files, at most [`TEXT_BYTES_MAX`] of them. The
    /// receiver answers with `Durable` of no entries when they have reached its
    /// application.
    Text {
        /// A new id of the sender's side.
        transfer: TransferId,
        /// The words.
        text: String,
    },
    /// Files that the receiver does not want, said before it takes the offer.
    Skip {
        /// The offer.
        transfer: TransferId,
        /// Runs of entries in rising order: the first of each and how many.
        /// Folders among them mean nothing.
        entries: Vec<(EntryIndex, u32)>,
    },
    /// What the receiver has of some files, said before it takes the offer. The
    /// sender answers with the digests of these chunks instead of their data.
    Have {
        /// The offer.
        transfer: TransferId,
        /// Files in rising order, each with how many chunks from its first.
        files: Vec<(EntryIndex, u32)>,
    },
    /// The receiver has compared chunks of a file that it has.
    Compared {
        /// The transfer.
        transfer: TransferId,
        /// The file's place in the manifest.
        entry: EntryIndex,
        /// How many, from the first. Rises with each message.
        chunks: u32,
        /// Those of the newly compared that must be sent after all, in rising
        /// order: the first of each run and how many.
        differing: Vec<(ChunkIndex, u32)>,
    },
    /// The receiver takes the offer; the sender starts.
    Accept {
        /// The offer.
        transfer: TransferId,
    },
    /// The receiver does not take the offer. The transfer is over.
    Decline {
        /// The offer.
        transfer: TransferId,
        /// Why.
        reason: DeclineReason,
    },
    /// All chunks of a file were sent.
    FileEnd {
        /// The transfer.
        transfer: TransferId,
        /// The file's place in the manifest.
        entry: EntryIndex,
        /// The file's BLAKE3 hash.
        root: Digest,
    },
    /// All of a stream was sent.
    StreamEnd {
        /// The transfer.
        transfer: TransferId,
        /// How long it is.
        size_bytes: u64,
        /// Its BLAKE3 hash.
        root: Digest,
    },
    /// So much of a stream was verified and written. Cumulative.
    Arrived {
        /// The transfer.
        transfer: TransferId,
        /// How many bytes, from the first.
        size_bytes: u64,
    },
    /// Either side could not do its part for one file; the rest goes on.
    FileFailed {
        /// The transfer.
        transfer: TransferId,
        /// The file's place in the manifest.
        entry: EntryIndex,
        /// Why.
        trouble: FileErrorKind,
    },
    /// The first `entries` of the manifest need no more care: durable under
    /// their final names, skipped, or failed as said before. Cumulative; that
    /// of all entries ends the transfer.
    Durable {
        /// The transfer.
        transfer: TransferId,
        /// How many, from the first.
        entries: u32,
    },
    /// Either side wants the sender to stop for a while, or to go on. It sends
    /// while nobody wants it to stop.
    Pause {
        /// The transfer.
        transfer: TransferId,
        /// Whether the one who says this wants it to stop.
        paused: bool,
    },
    /// Either side ends the transfer early.
    Cancel {
        /// The transfer.
        transfer: TransferId,
        /// Why.
        reason: CancelReason,
    },
    /// Nothing but a sign of life, while files are under way and there is
    /// nothing else to say.
    Alive,
    /// Nothing more follows from this side; the connection ends.
    Close {
        /// Set when the other side broke the protocol: what it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        violation: Option<String>,
    },
}

/// What an offer says before its entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// A new id of the sender's side.
    pub transfer: TransferId,
    /// How many entries follow.
    pub entries: u32,
    /// How many bytes all files have together.
    pub total_bytes: u64,
    /// How many bytes of the files follow right behind the entries, before any
    /// answer; see [`EarlyData`](crate::early::EarlyData).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early: Option<u32>,
    /// How many files and folders should be among the entries, but could not be
    /// read or named.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unread: u32,
    /// All of this was sent before, on a connection that broke: the tree over
    /// the roots of the files that were. A receiver that has received just
    /// that may answer with `Durable` of all entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Digest>,
}

/// Why an offer was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum DeclineReason {
    /// A person, or a rule a person made, said no.
    #[error("the other side declined")]
    Declined,
    /// The user did not answer in time.
    #[error("nobody answered")]
    Unanswered,
    /// Not enough room on the receiver's disk.
    #[error("the other side has not enough free space")]
    NoSpace,
    /// The receiver cannot write where it wanted to.
    #[error("the other side cannot write to its folder")]
    NotWritable,
    /// The receiver has too many transfers open.
    #[error("the other side has too many transfers open")]
    Busy,
    /// The receiver hands what comes to another program.
    #[error("the other side takes only a single file, for a program that reads it")]
    OnlyOneFile,
}

/// Why a transfer was ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// A person wished so; nothing of it is wanted any more.
    Cancelled,
    /// It does not go on now. The receiver keeps what it has.
    Interrupted,
    /// It goes on over another connection: its offer comes, or has come, there.
    Left,
    /// What arrived does not have the digest that was sent with it.
    Verification,
    /// The disk of the one who cancels does not serve.
    Disk(FileErrorKind),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::index::short::{chunk, entry};

    #[test]
    fn the_wire_form_of_offers_stays() {
        let transfer = TransferId::from_wire(4);
        for (message, json) in [
            (
                Message::Offer(Offer {
                    transfer,
                    entries: 2,
                    total_bytes: 9,
                    early: None,
                    unread: 0,
                    sent: None,
                }),
                r#"{"type":"offer","transfer":4,"entries":2,"total_bytes":9}"#,
            ),
            (
                Message::Offer(Offer {
                    transfer,
                    entries: 2,
                    total_bytes: 9,
                    early: None,
                    unread: 3,
                    sent: None,
                }),
                r#"{"type":"offer","transfer":4,"entries":2,"total_bytes":9,"unread":3}"#,
            ),
            (
                Message::Offer(Offer {
                    transfer,
                    entries: 1,
                    total_bytes: 9,
                    early: None,
                    unread: 0,
                    sent: Some(Digest::from_bytes([0x5a; 32])),
                }),
                concat!(
                    r#"{"type":"offer","transfer":4,"entries":1,"total_bytes":9,"sent":""#,
                    "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
                    r#""}"#
                ),
            ),
        ] {
            assert_eq!(serde_json::to_string(&message).unwrap(), json);
            assert_eq!(serde_json::from_str::<Message>(json).unwrap(), message);
        }
    }

    #[test]
    fn the_wire_form_of_messages_stays() {
        let transfer = TransferId::from_wire(4);
        for (message, json) in [
            (
                Message::Accept { transfer },
                r#"{"type":"accept","transfer":4}"#,
            ),
            (
                Message::Skip {
                    transfer,
                    entries: vec![(entry(1), 1), (entry(4), 2)],
                },
                r#"{"type":"skip","transfer":4,"entries":[[1,1],[4,2]]}"#,
            ),
            (
                Message::Text {
                    transfer,
                    text: "a\nb".to_owned(),
                },
                r#"{"type":"text","transfer":4,"text":"a\nb"}"#,
            ),
            (
                Message::Pause {
                    transfer,
                    paused: true,
                },
                r#"{"type":"pause","transfer":4,"paused":true}"#,
            ),
            (
                Message::Cancel {
                    transfer,
                    reason: CancelReason::Disk(FileErrorKind::DiskFull),
                },
                r#"{"type":"cancel","transfer":4,"reason":{"disk":"disk_full"}}"#,
            ),
            (
                Message::Have {
                    transfer,
                    files: vec![(entry(0), 7), (entry(3), 1)],
                },
                r#"{"type":"have","transfer":4,"files":[[0,7],[3,1]]}"#,
            ),
            (
                Message::Compared {
                    transfer,
                    entry: entry(3),
                    chunks: 9,
                    differing: vec![(chunk(2), 3)],
                },
                r#"{"type":"compared","transfer":4,"entry":3,"chunks":9,"differing":[[2,3]]}"#,
            ),
            (Message::Alive, r#"{"type":"alive"}"#),
            (Message::Close { violation: None }, r#"{"type":"close"}"#),
        ] {
            assert_eq!(serde_json::to_string(&message).unwrap(), json);
            assert_eq!(serde_json::from_str::<Message>(json).unwrap(), message);
        }
    }

    #[test]
    fn the_wire_form_of_streams_stays() {
        let transfer = TransferId::from_wire(4);
        for (message, json) in [
            (
                Message::StreamEnd {
                    transfer,
                    size_bytes: 7,
                    root: Digest::from_bytes([0x5a; 32]),
                },
                concat!(
                    r#"{"type":"stream_end","transfer":4,"size_bytes":7,"root":""#,
                    "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
                    r#""}"#
                ),
            ),
            (
                Message::Arrived {
                    transfer,
                    size_bytes: 7,
                },
                r#"{"type":"arrived","transfer":4,"size_bytes":7}"#,
            ),
            (
                Message::Decline {
                    transfer,
                    reason: DeclineReason::OnlyOneFile,
                },
                r#"{"type":"decline","transfer":4,"reason":"only_one_file"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&message).unwrap(), json);
            assert_eq!(serde_json::from_str::<Message>(json).unwrap(), message);
        }
        let entry = r#"{"stream":{"path":"x"}}"#;
        let stream: Entry = serde_json::from_str(entry).unwrap();
        assert_eq!(serde_json::to_string(&stream).unwrap(), entry);
    }

    #[test]
    fn an_offer_says_what_comes_before_the_answer() {
        for (early, word) in [
            (None, ""),
            (Some(0), r#","early":0"#),
            (Some(9), r#","early":9"#),
        ] {
            let offer = Message::Offer(Offer {
                transfer: TransferId::from_wire(4),
                entries: 2,
                total_bytes: 9,
                early,
                unread: 0,
                sent: None,
            });
            let json =
                format!(r#"{{"type":"offer","transfer":4,"entries":2,"total_bytes":9{word}}}"#);
            assert_eq!(serde_json::to_string(&offer).unwrap(), json);
            assert_eq!(serde_json::from_str::<Message>(&json).unwrap(), offer);
        }
    }

    #[test]
    fn hostile_values_do_not_become_messages() {
        for json in [
            r#"{"type":"offer","transfer":-1,"entries":2,"total_bytes":9}"#,
            r#"{"type":"offer","transfer":1,"entries":4294967296,"total_bytes":9}"#,
            r#"{"type":"offer","transfer":1,"entries":1,"total_bytes":1e30}"#,
            r#"{"type":"offer","transfer":1,"entries":1,"total_bytes":1,"sent":"5a"}"#,
            r#"{"type":"entries","transfer":1,"entries":[{"file":{"path":"../x","size_bytes":1}}]}"#,
            r#"{"type":"entries","transfer":1,"entries":[{"link":{"path":"x"}}]}"#,
            r#"{"type":"file_end","transfer":1,"entry":0,"root":"00"}"#,
            r#"{"type":"stream_end","transfer":1,"size_bytes":-1,"root":"00"}"#,
            r#"{"type":"stream_end","transfer":1,"size_bytes":1}"#,
            r#"{"type":"arrived","transfer":1,"size_bytes":1e30}"#,
            r#"{"type":"entries","transfer":1,"entries":[{"stream":{"path":"x","size_bytes":1}}]}"#,
            r#"{"type":"nonsense"}"#,
        ] {
            assert!(serde_json::from_str::<Message>(json).is_err(), "{json}");
        }
    }
}
