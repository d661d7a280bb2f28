//! The control connection: who writes to it, who reads from it, and where
//! what arrives goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pinhole_proto::frame::Decoder;
use pinhole_proto::name::PeerName;
use pinhole_proto::rendezvous::{
    ClientMessage, Directory, PeerIdentity, RefuseReason, ServerMessage,
};
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tracing::debug;

use super::introduction::{IntroductionMessage, Introductions, RelayOffer};
use super::invitations::Invitations;
use super::wire::{self, WireError};
use super::{DisconnectReason, Invitation, Presence, RendezvousEvent};
use crate::known::KnownKeys;

/// The server pings every 25 s; a connection silent for longer is dead.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one message may take to be written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most people in all pages of one message.
const MAX_PRESENT: usize = 100_000;
/// Writes what is queued until nobody can queue anything more.
pub(super) async fn write_all(
    mut stream: WriteHalf<TlsStream<TcpStream>>,
    mut queue: mpsc::Receiver<ClientMessage>,
) {
    while let Some(message) = queue.recv().await {
        let written = timeout(WRITE_TIMEOUT, wire::write_message(&mut stream, &message)).await;
        if !matches!(written, Ok(Ok(()))) {
            debug!(?written, "writing to the server failed");
            return;
        }
    }
    // Only a courtesy: the server notices the end anyway.
    let _ = timeout(WRITE_TIMEOUT, stream.shutdown()).await;
}

/// Reads the control connection and sends everything where it belongs.
pub(super) struct Reader {
    pub(super) stream: ReadHalf<TlsStream<TcpStream>>,
    pub(super) decoder: Decoder,
    /// Weak, so that the connection ends when nobody else uses it.
    pub(super) outgoing: mpsc::WeakSender<ClientMessage>,
    pub(super) events: mpsc::Sender<RendezvousEvent>,
    pub(super) introductions: Introductions,
    /// Ends together with the reader: whoever wants to send then shall know.
    pub(super) writer: AbortHandle,
    /// The pages that have arrived so far.
    pub(super) presence: Presence,
    pub(super) invitations: Invitations,
    pub(super) known: KnownKeys,
    /// How many messages have come.
    pub(super) heard: watch::Sender<u64>,
    /// No caller waits for the server any more.
    pub(super) given_up: Arc<Notify>,
}

impl Reader {
    /// Runs until the connection ends or nobody receives the events, and
    /// tells why it ended.
    pub(super) async fn run(mut self) {
        let (given_up, events) = (self.given_up.clone(), self.events.clone());
        let reason = loop {
            let step = tokio::select! {
                step = self.step() => step,
                () = given_up.notified() => break None,
                () = events.closed() => break None,
            };
            match step {
                Ok(Some(event)) => {
                    if self.events.send(event).await.is_err() {
                        break None;
                    }
                }
                Ok(None) => {}
                Err(reason) => break Some(reason),
            }
        };
        self.writer.abort();
        // Introductions under way go on without the server as far as they can.
        self.introductions.end();
        if let Some(reason) = reason {
            let event = RendezvousEvent::Disconnected(reason);
            // Fails when nobody is left to be told.
            let _ = self.events.send(event).await;
        }
    }

    async fn step(&mut self) -> Result<Option<RendezvousEvent>, DisconnectReason> {
        let (stream, decoder) = (&mut self.stream, &mut self.decoder);
        let message = wire::read_message_within(SILENCE_TIMEOUT, stream, decoder).await?;
        self.heard.send_modify(|count| *count += 1);
        self.handle(message)
    }

    fn handle(
        &mut self,
        message: ServerMessage,
    ) -> Result<Option<RendezvousEvent>, DisconnectReason> {
        Ok(match message {
            ServerMessage::Pong { .. } => None,
            ServerMessage::Ping { nonce } => {
                self.say(ClientMessage::Pong { nonce });
                None
            }
            ServerMessage::Refused { reason } => return Err(DisconnectReason::Refused(reason)),
            ServerMessage::Presence {
                directory,
                online,
                offline,
                more,
            } => {
                self.add_page(directory, online, offline)?;
                (!more).then(|| RendezvousEvent::Presence(self.take_presence()))
            }
            ServerMessage::Invitation {
                introduction,
                round,
                from,
                credential,
            } => {
                let invitation = Invitation {
                    introduction,
                    from,
                    credential,
                };
                self.invited(round, invitation)
            }
            message @ (ServerMessage::Introduced { .. }
            | ServerMessage::IntroductionFailed { .. }) => {
                self.pass_on(message);
                None
            }
            ServerMessage::RelayEnded { peer, reason } => {
                Some(RendezvousEvent::RelayEnded { peer, reason })
            }
            ServerMessage::KeyHistory(history) => Some(RendezvousEvent::KeyHistory(history)),
            ServerMessage::Code { number } => Some(RendezvousEvent::Code { number }),
            ServerMessage::CodeEnded { number } => Some(RendezvousEvent::CodeEnded { number }),
            ServerMessage::CodeFound { number, peer } => {
                Some(RendezvousEvent::CodeFound { number, peer })
            }
            ServerMessage::LoggedIn { .. }
            | ServerMessage::RecoveryCertificate(_)
            | ServerMessage::Observed { .. }
            | ServerMessage::Probed { .. }
            | ServerMessage::RelayPaired => return Err(WireError::Unexpected.into()),
        })
    }

    /// What is said of an introduction goes to whoever waits for it.
    fn pass_on(&self, message: ServerMessage) {
        let (introduction, message) = match message {
            ServerMessage::Introduced {
                introduction,
                round,
                peer,
                candidates,
                relay,
                relay_addresses,
                start_in_ms,
                ..
            } => {
                let message = IntroductionMessage::Introduced {
                    round,
                    peer,
                    candidates,
                    relay: relay.map(|token| RelayOffer {
                        token,
                        addresses: relay_addresses,
                    }),
                    start_in: Duration::from_millis(start_in_ms.into()),
                };
                (introduction, message)
            }
            ServerMessage::IntroductionFailed {
                introduction,
                reason,
                credential,
            } => (
                introduction,
                IntroductionMessage::Failed { reason, credential },
            ),
            _ => return,
        };
        self.introductions.pass_on(introduction, message);
    }

    fn invited(&mut self, round: u8, invitation: Invitation) -> Option<RendezvousEvent> {
        let introduction = invitation.introduction;
        let key = invitation.from.key;
        let invited = IntroductionMessage::Invited { round };
        if self.introductions.is_with(introduction, key)
            && self.introductions.pass_on(introduction, invited)
        {
            return None;
        }
        let is_known = self.known.contains(key);
        if round == 1 && self.invitations.take(Instant::now(), key, is_known) {
            return Some(RendezvousEvent::Invitation(invitation));
        }
        // Too many, or our side of this introduction is over: no need to let the other
        // one wait.
        self.say(invitation.refusal(RefuseReason::Busy, None));
        None
    }

    fn add_page(
        &mut self,
        directory: Directory,
        online: Vec<PeerIdentity>,
        offline: Vec<PeerName>,
    ) -> Result<(), DisconnectReason> {
        let presence = &mut self.presence;
        presence.directory = directory;
        presence.online.extend(online);
        presence.offline.extend(offline);
        if presence.online.len() + presence.offline.len() > MAX_PRESENT {
            return Err(WireError::Unexpected.into());
        }
        Ok(())
    }

    fn take_presence(&mut self) -> Presence {
        Presence {
            directory: self.presence.directory,
            online: std::mem::take(&mut self.presence.online),
            offline: std::mem::take(&mut self.presence.offline),
        }
    }

    fn say(&self, message: ClientMessage) {
        let Some(outgoing) = self.outgoing.upgrade() else {
            return;
        };
        // A full queue means that the connection is stuck: its end is near.
        if outgoing.try_send(message).is_err() {
            debug!("too much waits to be sent to the server");
        }
    }
}
