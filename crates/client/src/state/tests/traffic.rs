//! What travels over a link, and what becomes of it on a disk.

use std::path::PathBuf;

use pinhole_transfer::{
    DeclineReason, Manifest, Party as Who, Summary, TransferError, TransferId as WireId,
};

use super::link::{Flight, FlightStage, Message, Millis};
use super::party::Holder;
use super::world::{Happening, World, digest};
use crate::model::TransferId;
use crate::snapshot::OfferView;
use crate::state::{
    Arrived, Carrier, ExchangeEffect, FileEffect, NotPrepared, PartialTransfer, SessionId,
};

/// Into how many parts the files of an offer are cut.
const fn parts(content: usize) -> u64 {
    3 + (content as u64 % 6) * 6
}

/// Which files a path or a manifest means.
fn content_of(name: &str) -> usize {
    let number = name.trim_start_matches("file");
    number.parse().expect("a number")
}

fn content_of_manifest(manifest: &Manifest) -> usize {
    content_of(manifest.entries()[0].path().as_str())
}

fn content_of_paths(paths: &[PathBuf]) -> usize {
    content_of(paths[0].to_str().expect("text"))
}

fn summary(content: usize) -> Summary {
    Summary {
        files: 1,
        bytes: content as u64,
        digest: Some(digest(content)),
        ..Summary::default()
    }
}

fn flight(content: Option<usize>, transfer: Option<TransferId>, is_sending: bool) -> Flight {
    Flight {
        stage: FlightStage::Offered,
        content,
        parts: 0,
        is_sending,
        paused: [false; 2],
        transfer,
    }
}

/// What a session carries.
impl World {
    pub(super) fn offer(&mut self, who: usize, transfer: TransferId, session: SessionId) {
        let Some(content) = self.parties[who].listed.remove(&transfer) else {
            return;
        };
        let Some(link) = self.end_of(who, session) else {
            return self.offered(who, transfer, (session, None));
        };
        let end = &mut self.links[link].ends[who];
        let id = end.next_wire_id();
        end.flights
            .insert(id, flight(Some(content), Some(transfer), true));
        let sent = self.parties[who].sent.contains(&transfer);
        let sent = sent.then(|| digest(content));
        let manifest = self.contents[content].clone();
        self.send(link, who, Message::Offer(id, manifest, sent));
        self.offered(who, transfer, (session, Some(id)));
    }

    pub(super) fn send_text(
        &mut self,
        who: usize,
        transfer: TransferId,
        (session, text): (SessionId, String),
    ) {
        let Some(link) = self.end_of(who, session) else {
            return self.offered(who, transfer, (session, None));
        };
        let end = &mut self.links[link].ends[who];
        let id = end.next_wire_id();
        end.flights.insert(id, flight(None, Some(transfer), true));
        self.send(link, who, Message::Text(id, text));
        self.offered(who, transfer, (session, Some(id)));
    }

    fn offered(
        &mut self,
        who: usize,
        transfer: TransferId,
        (session, id): (SessionId, Option<WireId>),
    ) {
        let now = self.instant();
        let outcome = id.ok_or_else(|| "the connection is closed".to_owned());
        let state = &mut self.parties[who].state;
        state.handle_offered(transfer, session, outcome, now);
    }

    pub(super) fn run_exchange(&mut self, who: usize, carrier: Carrier, effect: ExchangeEffect) {
        let Some(link) = self.end_of(who, carrier.session) else {
            return;
        };
        let id = carrier.id;
        let Some(flight) = self.links[link].ends[who].flights.get_mut(&id) else {
            return;
        };
        let is_unanswered = !flight.is_sending && flight.stage == FlightStage::Offered;
        match effect {
            ExchangeEffect::Decline(_) => {
                self.links[link].ends[who].flights.remove(&id);
                self.send(link, who, Message::Decline(id));
            }
            ExchangeEffect::Acknowledge => {
                self.links[link].ends[who].flights.remove(&id);
                self.send(link, who, Message::Durable(id));
            }
            ExchangeEffect::TakeText => {
                self.links[link].ends[who].flights.remove(&id);
                self.send(link, who, Message::Durable(id));
            }
            // An offer that was not answered can only be declined.
            ExchangeEffect::Cancel | ExchangeEffect::Interrupt | ExchangeEffect::Leave
                if is_unanswered => {}
            ExchangeEffect::Cancel => {
                self.send(link, who, Message::Cancel(id));
                let cancelled = TransferError::Cancelled(Who::Us);
                self.plan(who, 3, Happening::Ended(link, id, Err(cancelled)));
            }
            ExchangeEffect::Interrupt => {
                self.send(link, who, Message::Interrupt(id));
                let interrupted = TransferError::Interrupted(Who::Us);
                self.plan(who, 3, Happening::Ended(link, id, Err(interrupted)));
            }
            ExchangeEffect::Leave => {
                self.send(link, who, Message::Leave(id));
                let left = TransferError::ConnectionLost;
                self.plan(who, 3, Happening::Ended(link, id, Err(left)));
            }
            ExchangeEffect::Pause | ExchangeEffect::Unpause => {
                let paused = effect == ExchangeEffect::Pause;
                flight.paused[0] = paused;
                self.send(link, who, Message::Pause(id, paused));
                self.plan(who, 0, Happening::SendPart(link, id));
            }
        }
    }

    /// Something has arrived.
    pub(super) fn arrived(&mut self, who: usize, link: usize, message: Message) {
        let now = self.instant();
        let incarnation = self.parties[who].incarnation;
        let end = &mut self.links[link].ends[who];
        if end.is_closed || end.incarnation != incarnation {
            return;
        }
        let Some(session) = end.session else {
            return end.early.push(message);
        };
        let state = &mut self.parties[who].state;
        match message {
            Message::Offer(id, manifest, sent) => {
                let content = content_of_manifest(&manifest);
                end.flights.insert(id, flight(Some(content), None, false));
                let carrier = Carrier { session, id, sent };
                state.handle_offer(carrier, manifest, now);
            }
            Message::Text(id, text) => {
                end.flights.insert(id, flight(None, None, false));
                state.handle_text(Carrier::new(session, id), text, now);
            }
            Message::Accept(id, parts) => {
                let Some(flight) = end.flights.get_mut(&id) else {
                    return;
                };
                flight.stage = FlightStage::Running;
                flight.parts = parts;
                state.handle_accepted(Carrier::new(session, id), None, now);
                self.plan(who, 1, Happening::SendPart(link, id));
            }
            Message::Part(id) => self.part_arrived(who, link, id),
            Message::Pause(id, paused) => {
                if let Some(flight) = end.flights.get_mut(&id) {
                    flight.paused[1] = paused;
                    state.handle_paused(Carrier::new(session, id), paused);
                    self.plan(who, 0, Happening::SendPart(link, id));
                }
            }
            Message::Decline(id) => {
                let declined = TransferError::Declined(DeclineReason::Declined);
                self.ended(who, link, (id, Err(declined)));
            }
            Message::Durable(id) => {
                let content = end.flights.get(&id).and_then(|flight| flight.content);
                let outcome = content.map_or_else(Summary::default, summary);
                self.ended(who, link, (id, Ok(outcome)));
            }
            Message::Cancel(id) => {
                let cancelled = TransferError::Cancelled(Who::Peer);
                self.ended(who, link, (id, Err(cancelled)));
            }
            Message::Interrupt(id) => {
                let interrupted = TransferError::Interrupted(Who::Peer);
                self.ended(who, link, (id, Err(interrupted)));
            }
            Message::Leave(id) => {
                self.ended(who, link, (id, Err(TransferError::ConnectionLost)));
            }
            Message::Close => self.link_ended(who, link, super::world::Ended::ByPeer),
        }
    }

    /// Sends the next part, if nobody wants it to stand still.
    pub(super) fn send_part(&mut self, who: usize, link: usize, id: WireId) {
        let Some(flight) = self.links[link].ends[who].flights.get_mut(&id) else {
            return;
        };
        let may_send = flight.is_sending
            && flight.stage == FlightStage::Running
            && flight.paused == [false; 2];
        let Some(content) = flight.content.filter(|_| may_send) else {
            return;
        };
        if flight.parts >= parts(content) {
            return;
        }
        flight.parts += 1;
        if flight.parts == parts(content)
            && let Some(transfer) = flight.transfer
        {
            self.parties[who].sent.insert(transfer);
        }
        self.send(link, who, Message::Part(id));
        self.plan(who, 90, Happening::SendPart(link, id));
    }

    fn part_arrived(&mut self, who: usize, link: usize, id: WireId) {
        let Some(flight) = self.links[link].ends[who].flights.get_mut(&id) else {
            return;
        };
        let Some(content) = flight.content else {
            return;
        };
        flight.parts += 1;
        let have = flight.parts;
        self.parties[who].partial.insert(content, have);
        if have >= parts(content) {
            self.plan(who, 15, Happening::Committed(link, id));
        }
    }

    /// All of it is durable.
    pub(super) fn committed(&mut self, who: usize, link: usize, id: WireId) {
        let flight = self.links[link].ends[who].flights.get(&id);
        let Some(content) = flight.and_then(|flight| flight.content) else {
            return;
        };
        let party = &mut self.parties[who];
        party.partial.remove(&content);
        *party.deliveries.entry(content).or_default() += 1;
        self.send(link, who, Message::Durable(id));
        self.ended(who, link, (id, Ok(summary(content))));
    }

    /// A transfer is over at this end.
    pub(super) fn ended(
        &mut self,
        who: usize,
        link: usize,
        (id, outcome): (WireId, Result<Summary, TransferError>),
    ) {
        let now = self.instant();
        let end = &mut self.links[link].ends[who];
        let Some(session) = end.session.filter(|_| !end.is_closed) else {
            return;
        };
        let Some(flight) = end.flights.remove(&id) else {
            return;
        };
        if let (Some(content), Err(TransferError::Cancelled(_)), false) =
            (flight.content, &outcome, flight.is_sending)
            && flight.stage == FlightStage::Running
        {
            self.parties[who].partial.remove(&content);
        }
        self.release(who, &flight);
        let carrier = Carrier::new(session, id);
        let state = &mut self.parties[who].state;
        state.handle_finished(carrier, outcome, now);
    }
}

/// Disks.
impl World {
    pub(super) fn run_file(&mut self, who: usize, effect: FileEffect) {
        let after = match self.random.percent(90) {
            true => self.random.between(1, 40),
            false => self.random.between(500, 6_000),
        };
        match effect {
            FileEffect::List { transfer, paths } => {
                let content = content_of_paths(&paths);
                self.plan(who, after, Happening::Listed(transfer, content));
            }
            FileEffect::Stream { .. } => unreachable!("nobody here sends from a pipe"),
            FileEffect::FindTakenNames { transfer, .. } => {
                self.plan(who, after, Happening::TakenNames(transfer));
            }
            FileEffect::Prepare {
                transfer, carrier, ..
            } => self.prepare(who, transfer, (carrier, after)),
            FileEffect::Begin { transfer } => self.begin(who, transfer),
            FileEffect::PutAway {
                transfer,
                what_arrived,
            } => {
                let content = self.held_for(who, transfer);
                if let (Some(content), Arrived::Removed) = (content, what_arrived) {
                    self.parties[who].partial.remove(&content);
                }
                self.plan(who, after, Happening::LetGo(transfer));
            }
            FileEffect::Discard(PartialTransfer { offer, .. }) => {
                let content = content_of_manifest(&offer);
                self.parties[who].partial.remove(&content);
            }
            FileEffect::Release { transfer } => {
                self.parties[who].listed.remove(&transfer);
                self.parties[who].sent.remove(&transfer);
            }
        }
    }

    pub(super) fn listed(&mut self, who: usize, transfer: TransferId, content: usize) {
        let now = self.instant();
        let offer = Ok(OfferView {
            title: format!("file{content}"),
            ..OfferView::default()
        });
        if self.parties[who].state.handle_listed(transfer, offer, now) {
            self.parties[who].listed.insert(transfer, content);
        }
    }

    fn prepare(&mut self, who: usize, transfer: TransferId, (carrier, after): (Carrier, Millis)) {
        let link = self.end_of(who, carrier.session);
        let flight = link.and_then(|link| {
            let flight = self.links[link].ends[who].flights.get_mut(&carrier.id)?;
            Some((link, flight))
        });
        let Some((link, flight)) = flight else {
            return self.plan(who, after, Happening::Prepared(transfer, carrier, None));
        };
        flight.stage = FlightStage::Preparing;
        flight.transfer = Some(transfer);
        let content = flight.content.expect("files");
        let holder = Holder { transfer, link };
        let held_before = self.parties[who].holders.insert(content, holder);
        assert_eq!(
            held_before.filter(|it| it.transfer == transfer),
            None,
            "an earlier attempt still holds the files"
        );
        self.plan(
            who,
            after,
            Happening::Prepared(transfer, carrier, Some(link)),
        );
    }

    pub(super) fn prepared(
        &mut self,
        who: usize,
        transfer: TransferId,
        (carrier, is_ready): (Carrier, bool),
    ) {
        let now = self.instant();
        let outcome = match is_ready {
            true => Ok(()),
            false => Err(NotPrepared::Over("no such transfer".to_owned())),
        };
        self.parties[who].prepared.insert(transfer, carrier);
        let state = &mut self.parties[who].state;
        state.handle_prepared(transfer, carrier, outcome, now);
    }

    fn begin(&mut self, who: usize, transfer: TransferId) {
        let now = self.instant();
        let carrier = self.parties[who].prepared[&transfer];
        let link = self.end_of(who, carrier.session);
        let flight = link.and_then(|link| {
            let flight = self.links[link].ends[who].flights.get_mut(&carrier.id)?;
            Some((link, flight))
        });
        let Some((link, flight)) = flight else {
            return self.plan(who, 5, Happening::LetGo(transfer));
        };
        flight.stage = FlightStage::Running;
        let content = flight.content.expect("files");
        let have = self.parties[who].partial.get(&content).copied();
        let have = have.unwrap_or(0);
        flight.parts = have;
        self.parties[who].begin(transfer, content);
        self.send(link, who, Message::Accept(carrier.id, have));
        if have >= parts(content) {
            self.plan(who, 15, Happening::Committed(link, carrier.id));
        }
        self.parties[who].state.handle_begun(transfer, None, now);
    }

    fn held_for(&self, who: usize, transfer: TransferId) -> Option<usize> {
        let mut holders = self.parties[who].holders.iter();
        let held = holders.find(|(_, holder)| holder.transfer == transfer);
        held.map(|(&content, _)| content)
    }

    pub(super) fn let_go(&mut self, who: usize, transfer: TransferId) {
        let now = self.instant();
        if let Some(content) = self.held_for(who, transfer) {
            self.parties[who].holders.remove(&content);
        }
        self.parties[who].state.handle_let_go(transfer, now);
    }

    pub(super) fn new_content(&mut self) -> usize {
        let content = self.contents.len();
        self.contents.push(super::world::manifest(content));
        content
    }

    pub(super) fn paths_of(content: usize) -> Vec<PathBuf> {
        vec![PathBuf::from(format!("file{content}"))]
    }
}
