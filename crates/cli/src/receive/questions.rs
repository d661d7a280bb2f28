//! Questions to the user, one at a time.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use pinhole_client::{Command, OfferView, PeerIdentity, Snapshot, TransferId, TransferView};
use tokio::time::Instant;

use super::sentences::{hint, question, what_exists};
use super::turn_down;
use crate::prompt::{self, OfferAnswer, Prompt, PromptInput};
use crate::terminal::Terminal;
use crate::tty;

/// A question that replaces another cannot be answered before the user can have seen it.
const SEEN_AFTER: Duration = Duration::from_secs(2);

/// A question for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReceiveQuestion {
    /// Whether to accept an offer, or show a text.
    Offer(TransferId),
    /// Whether a stranger may connect.
    Stranger(PeerIdentity),
}

/// The questions that wait. The first one is shown.
pub(super) struct QuestionQueue {
    prompt: Prompt,
    waiting: VecDeque<ReceiveQuestion>,
    /// When the question was shown, if it replaced one that was not answered: what is
    /// typed may still be an answer to that one.
    replaced_at: Option<Instant>,
}

impl QuestionQueue {
    pub(super) const fn new() -> Self {
        Self {
            prompt: Prompt::new(),
            waiting: VecDeque::new(),
            replaced_at: None,
        }
    }

    /// Waits for the next input while there is a question.
    pub(super) async fn typed(&mut self) -> PromptInput {
        self.prompt.next().await
    }

    pub(super) fn add(&mut self, terminal: &mut Terminal<'_>, question: ReceiveQuestion) {
        self.waiting.push_back(question);
        if self.waiting.len() == 1 {
            self.ask(terminal);
        }
    }

    /// Removes an offer that has ended. Returns whether its question was shown.
    pub(super) fn remove(&mut self, terminal: &mut Terminal<'_>, transfer: TransferId) -> bool {
        let gone = ReceiveQuestion::Offer(transfer);
        let was_asked = self.waiting.front() == Some(&gone);
        self.waiting.retain(|waiting| *waiting != gone);
        if was_asked {
            self.prompt.close();
            terminal.report.withdraw_question();
        }
        was_asked
    }

    /// Removes what the engine has declined itself.
    pub(super) fn forget_gone(&mut self, terminal: &mut Terminal<'_>, snapshot: &Snapshot) {
        let asked = self.waiting.front().cloned();
        self.waiting.retain(|question| match question {
            ReceiveQuestion::Offer(id) => snapshot.transfers.iter().any(|t| t.id == *id),
            ReceiveQuestion::Stranger(peer) => snapshot.asking.contains(peer),
        });
        if asked.as_ref() != self.waiting.front() {
            self.prompt.close();
            terminal.report.withdraw_question();
            self.replace(terminal);
        }
    }

    /// Shows the next question in place of one that was not answered.
    pub(super) fn replace(&mut self, terminal: &mut Terminal<'_>) {
        self.ask(terminal);
        self.replaced_at = Some(Instant::now());
    }

    /// Shows the first question.
    fn ask(&mut self, terminal: &mut Terminal<'_>) {
        self.replaced_at = None;
        // Earlier input is no answer to it.
        match self.waiting.front() {
            Some(_) => self.prompt.open(),
            None => return self.prompt.close(),
        }
        match self.waiting.front() {
            Some(ReceiveQuestion::Offer(id)) => {
                if let Some(transfer) = terminal.transfer(*id) {
                    terminal.report.offered(&transfer);
                    let offer = &transfer.offer;
                    if offer.existing > 0 {
                        let existing = terminal.client.snapshot().settings.existing;
                        terminal.report.hint(&what_exists(offer, existing));
                    }
                }
            }
            Some(ReceiveQuestion::Stranger(peer)) => terminal.report.asked(peer),
            None => {}
        }
        self.put(terminal);
    }

    /// Shows the prompt of the first question, if it can be answered.
    fn put(&self, terminal: &mut Terminal<'_>) {
        let (peer, words) = match self.waiting.front() {
            Some(ReceiveQuestion::Offer(id)) => match terminal.transfer(*id) {
                Some(transfer) => (transfer.peer.name.clone(), question(&transfer)),
                None => return,
            },
            Some(ReceiveQuestion::Stranger(peer)) => {
                let name = peer.name.clone();
                let words = format!("Let {name} connect for an hour? [y/N/b]");
                (name, words)
            }
            None => return,
        };
        if tty::is_in_background() {
            terminal.report.hint(&format!(
                "{peer} waits for an answer, and Pinhole runs in the background: bring it to the foreground (fg) to answer."
            ));
            return;
        }
        if let Some(more @ 1..) = self.waiting.len().checked_sub(1) {
            terminal.report.hint(&format!(
                "({more} more to be answered after this; `none` declines all that strangers want)"
            ));
        }
        terminal.report.ask(&words);
    }

    /// Handles input from the terminal. Returns the offer that was declined, if any.
    pub(super) fn take(
        &mut self,
        terminal: &mut Terminal<'_>,
        typed: PromptInput,
    ) -> anyhow::Result<Option<TransferId>> {
        let line = match typed {
            PromptInput::Line(line) => Some(line),
            PromptInput::End => None,
            PromptInput::Foreground => {
                self.put(terminal);
                return Ok(None);
            }
        };
        match line {
            Some(_) => terminal.report.is_answered(),
            None => terminal.report.withdraw_question(),
        }
        let line = line.unwrap_or_default();
        let replaced_at = self.replaced_at.take();
        let is_seen = replaced_at.is_none_or(|at| at.elapsed() >= SEEN_AFTER);
        if !is_seen || (replaced_at.is_some() && line.trim().is_empty()) {
            terminal
                .report
                .hint("The earlier question is gone, and this is another one:");
            self.put(terminal);
            return Ok(None);
        }
        self.answered(terminal, &line)
    }

    /// Carries out the answer and shows the next question. Returns the offer that was
    /// declined, if any.
    fn answered(
        &mut self,
        terminal: &mut Terminal<'_>,
        line: &str,
    ) -> anyhow::Result<Option<TransferId>> {
        match self.waiting.front().cloned() {
            Some(ReceiveQuestion::Offer(id)) => match terminal.transfer(id) {
                Some(transfer) => self.offer_answered(terminal, &transfer, line),
                None => Ok(None),
            },
            Some(ReceiveQuestion::Stranger(peer)) => {
                self.stranger_answered(terminal, &peer, line)?;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn offer_answered(
        &mut self,
        terminal: &mut Terminal<'_>,
        transfer: &TransferView,
        line: &str,
    ) -> anyhow::Result<Option<TransferId>> {
        let offer = &transfer.offer;
        let Some(answer) = prompt::answer(line, offer.top_level.len(), offer.existing > 0) else {
            terminal.report.hint(&hint(offer));
            self.put(terminal);
            return Ok(None);
        };
        self.waiting.pop_front();
        let existing = match answer {
            OfferAnswer::Yes(existing) => existing,
            OfferAnswer::Only(_) => None,
            OfferAnswer::No | OfferAnswer::Block | OfferAnswer::NoStranger => {
                let name = &transfer.peer.name;
                let reason = format!("Declined what {name} offered.");
                turn_down(terminal, transfer, &reason)?;
                self.refuse_more(terminal, &transfer.peer, &answer)?;
                self.ask(terminal);
                return Ok(Some(transfer.id));
            }
        };
        terminal.client.command(Command::Accept {
            transfer: transfer.id,
            into: None,
            unwanted: unwanted(offer, &answer),
            existing,
        })?;
        self.ask(terminal);
        Ok(None)
    }

    fn stranger_answered(
        &mut self,
        terminal: &mut Terminal<'_>,
        peer: &PeerIdentity,
        line: &str,
    ) -> anyhow::Result<()> {
        match prompt::answer(line, 0, false) {
            None | Some(OfferAnswer::Only(_)) => {
                terminal.report.hint("Answer y, n, or b to block them.");
                self.put(terminal);
                return Ok(());
            }
            Some(OfferAnswer::Yes(_)) => {
                let peer = peer.key;
                terminal.client.command(Command::Allow { peer })?;
            }
            Some(answer) => self.refuse_more(terminal, peer, &answer)?,
        }
        self.waiting.pop_front();
        self.ask(terminal);
        Ok(())
    }

    /// Carries out an answer that also refuses later questions.
    fn refuse_more(
        &self,
        terminal: &mut Terminal<'_>,
        peer: &PeerIdentity,
        answer: &OfferAnswer,
    ) -> anyhow::Result<()> {
        match answer {
            OfferAnswer::Block => {
                terminal.report.contact(peer, true);
                let peer = peer.key;
                terminal.client.command(Command::Block { peer })?;
            }
            OfferAnswer::NoStranger => terminal.client.command(Command::DeclineAll)?,
            OfferAnswer::Yes(_) | OfferAnswer::No | OfferAnswer::Only(_) => {}
        }
        Ok(())
    }
}

/// The indices of the entries that were not chosen.
fn unwanted(offer: &OfferView, answer: &OfferAnswer) -> BTreeSet<u32> {
    let OfferAnswer::Only(chosen) = answer else {
        return BTreeSet::new();
    };
    let tops = offer.top_level.iter().zip(1..);
    tops.filter(|(_, number)| !chosen.contains(number))
        .map(|(top, _)| top.entry)
        .collect()
}
