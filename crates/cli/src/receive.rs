//! `pinhole receive`.

pub(crate) mod by_code;
mod questions;
mod sentences;
mod service;

use pinhole_client::{
    Command, Direction, Event, PeerIdentity, Stage, TransferId, TransferView, amount,
};

use self::questions::{QuestionQueue, ReceiveQuestion};
use self::service::Service;
use crate::arguments::{Common, Receive};
use crate::display;
use crate::exit::Exit;
use crate::interrupts::Interrupt;
use crate::prompt::Prompt;
use crate::stdout_watch::StdoutWatch;
use crate::terminal::{Online, OnlineOptions, Terminal, Wake};

/// Announces the user, and waits for the server for as long as it takes.
const ONLINE_OPTIONS: OnlineOptions = OnlineOptions {
    announces: true,
    patient: true,
};

/// What is said of a question that a service leaves to others.
const WAITS: &str = "It waits for an answer: open the window of Pinhole with this profile.";

/// A running `pinhole receive`.
struct Receiving {
    online: Online,
    questions: QuestionQueue,
    /// Nothing is accepted once nobody reads standard output.
    stdout_watch: StdoutWatch,
    /// Standard output gets what is received. Once that has begun, its end shows when
    /// something is written to it.
    writes_file: bool,
    has_begun: bool,
    once: bool,
    /// The first offer, which counts with `once`.
    first: Option<TransferId>,
    /// A service manager runs it, and what needs an answer waits for another face.
    service: Option<Service>,
}

/// Waits for offers and takes or declines them, for ever or `once`.
pub(crate) async fn receive(
    terminal: &mut Terminal<'_>,
    common: &Common,
    task: &Receive,
) -> anyhow::Result<Exit> {
    // Fails now rather than at the first offer.
    if !task.stdout
        && let Err(failure) = terminal.client.check_download_folder()
    {
        return Ok(terminal.fail(&failure));
    }
    let online = match terminal.go_online(common, ONLINE_OPTIONS)? {
        Ok(online) => online,
        Err(exit) => return Ok(exit),
    };
    let folder = terminal.client.snapshot().download_folder.clone();
    terminal.report.note(&match task.stdout {
        true => "receiving one file to standard output; Ctrl-C ends".to_owned(),
        false => format!("receiving into {}; Ctrl-C ends", folder.display()),
    });
    let receiving = Receiving {
        online,
        questions: QuestionQueue::new(),
        stdout_watch: StdoutWatch::start(),
        writes_file: task.stdout,
        has_begun: false,
        once: task.once,
        first: None,
        service: task.service.then(Service::default),
    };
    receiving.run(terminal).await
}

impl Receiving {
    async fn run(mut self, terminal: &mut Terminal<'_>) -> anyhow::Result<Exit> {
        loop {
            if let Some(error) = terminal.report.lost() {
                let why = error.to_string();
                return self.unheard(terminal, &why).await;
            }
            if let Some(service) = &mut self.service {
                service.tell(&terminal.client.snapshot());
            }
            let wake = tokio::select! {
                wake = terminal.wait() => wake?,
                () = self.stdout_watch.gone(), if !(self.writes_file && self.has_begun) => {
                    return self.unheard(terminal, "nobody reads it any more").await;
                }
                typed = self.questions.typed() => {
                    let declined = self.questions.take(terminal, typed)?;
                    if declined.is_some_and(|declined| self.is_what_counts(declined)) {
                        return Ok(Exit::Declined);
                    }
                    continue;
                }
            };
            match wake {
                Wake::Interrupted(by) => {
                    if let Some(service) = &self.service {
                        service.stop();
                    }
                    put_off(terminal).await?;
                    return Ok(match by {
                        // A service ends this way.
                        Interrupt::System if !self.once => Exit::Done,
                        _ => Exit::Interrupted,
                    });
                }
                Wake::Event(event) => {
                    if let Some(exit) = self.handle(terminal, &event)? {
                        return Ok(exit);
                    }
                }
                Wake::Changed => {
                    let snapshot = terminal.client.snapshot();
                    self.questions.forget_gone(terminal, &snapshot);
                    terminal.show_progress();
                }
            }
        }
    }

    /// Ends because nobody reads what is received.
    async fn unheard(&self, terminal: &mut Terminal<'_>, why: &str) -> anyhow::Result<Exit> {
        put_off(terminal).await?;
        let reason = format!(
            "Cannot write to standard output: {why}. Nothing is received any more, because nobody would learn of it."
        );
        terminal.report.unheard(&reason);
        Ok(Exit::Trouble)
    }

    /// Whether the program ends with this offer.
    fn is_what_counts(&self, transfer: TransferId) -> bool {
        self.once && self.first == Some(transfer)
    }

    /// Does what an event asks for. Returns how the program ends, when it does.
    fn handle(
        &mut self,
        terminal: &mut Terminal<'_>,
        event: &Event,
    ) -> anyhow::Result<Option<Exit>> {
        match *event {
            Event::Offered { transfer } => {
                self.first.get_or_insert(transfer);
                if self.service.is_some() {
                    leave_to_others(terminal, transfer);
                    return Ok(None);
                }
                if Prompt::has_reader() {
                    self.questions
                        .add(terminal, ReceiveQuestion::Offer(transfer));
                    return Ok(None);
                }
                decline(terminal, transfer)?;
                Ok(self.is_what_counts(transfer).then_some(Exit::Declined))
            }
            Event::Asked { ref peer } => {
                self.asked(terminal, peer);
                Ok(None)
            }
            Event::Finished { transfer, .. } => {
                let received = finished(terminal, &mut self.questions, transfer)?;
                if received.is_some() {
                    // It may have failed before it began.
                    self.first.get_or_insert(transfer);
                }
                Ok(received.filter(|_| self.is_what_counts(transfer)))
            }
            Event::TextReceived { transfer } => {
                self.first.get_or_insert(transfer);
                terminal.tell(event);
                // A text that could not be written has not arrived.
                if terminal.report.lost().is_none() {
                    terminal.client.command(Command::TextShown { transfer })?;
                }
                Ok(None)
            }
            _ => {
                if let Event::Started { transfer } = *event
                    && terminal.is_receiving(transfer)
                {
                    self.first.get_or_insert(transfer);
                    self.has_begun = true;
                }
                let exit = terminal.is_cut_off(self.online, event);
                if exit.is_none() {
                    terminal.tell(event);
                }
                Ok(exit)
            }
        }
    }
}

impl Receiving {
    /// A stranger wants to connect.
    fn asked(&mut self, terminal: &mut Terminal<'_>, peer: &PeerIdentity) {
        if self.service.is_some() {
            terminal.report.asked(peer);
            return terminal.report.hint(WAITS);
        }
        if Prompt::has_reader() {
            self.questions
                .add(terminal, ReceiveQuestion::Stranger(peer.clone()));
            return;
        }
        terminal.report.asked(peer);
        terminal.report.hint(
            "It was told to wait, because there is nobody to ask: use --strangers relay or direct, or run `receive` on a terminal.",
        );
    }
}

/// Reports an offer that a service does not take by itself.
fn leave_to_others(terminal: &Terminal<'_>, transfer: TransferId) {
    if let Some(transfer) = terminal.transfer(transfer) {
        terminal.report.offered(&transfer);
        terminal.report.hint(WAITS);
    }
}

/// Interrupts the transfers that have begun. Unanswered offers end with the program.
async fn put_off(terminal: &mut Terminal<'_>) -> anyhow::Result<()> {
    terminal.report.withdraw_question();
    let is_moving = |stage: &Stage| matches!(stage, Stage::Transferring | Stage::Reconnecting);
    let own = terminal.client.face();
    let is_begun = |t: &TransferView| t.face == own && is_moving(&t.stage) && !t.is_text;
    terminal.interrupt(is_begun).await?;
    Ok(())
}

/// Reports how a transfer ended. Returns the exit code of a received one. A text was
/// reported when it arrived.
fn finished(
    terminal: &mut Terminal<'_>,
    questions: &mut QuestionQueue,
    transfer: TransferId,
) -> anyhow::Result<Option<Exit>> {
    let Some(view) = terminal.transfer(transfer) else {
        return Ok(None);
    };
    let is_received = view.direction == Direction::Receiving;
    let was_asked = questions.remove(terminal, transfer);
    let exit = match &view.stage {
        Stage::Completed(_) if is_received && view.is_text => Exit::Done,
        _ => terminal.finish(&view),
    };
    terminal.client.command(Command::Dismiss { transfer })?;
    if was_asked {
        questions.replace(terminal);
    }
    Ok(is_received.then_some(exit))
}

/// Declines an offer because nobody can be asked.
fn decline(terminal: &mut Terminal<'_>, transfer: TransferId) -> anyhow::Result<()> {
    let Some(transfer) = terminal.transfer(transfer) else {
        return Ok(());
    };
    let (peer, bytes) = (&transfer.peer.name, transfer.offer.bytes);
    let size = display::size(&transfer.offer);
    let snapshot = terminal.client.snapshot();
    let max = snapshot.settings.unasked_bytes_max;
    let is_stream = transfer.offer.stream;
    let why = match max.filter(|&max| (bytes > max || is_stream) && !transfer.is_text) {
        Some(max) if is_stream => {
            format!(
                "it may be more than the {} of --max-size",
                amount::display(max)
            )
        }
        Some(max) if amount::display(max) == size => {
            format!("its {bytes} bytes are more than the {max} of --max-size")
        }
        Some(max) => format!("it is more than {}", amount::display(max)),
        None => "use --accept contacts or --accept all".to_owned(),
    };
    let what = match (transfer.is_text, is_stream) {
        (true, _) => "words".to_owned(),
        (_, true) => "a file whose size is not known".to_owned(),
        _ => size,
    };
    let reason = format!("Declined {what} from {peer}, because there is nobody to ask: {why}.");
    turn_down(terminal, &transfer, &reason)
}

fn turn_down(
    terminal: &mut Terminal<'_>,
    transfer: &TransferView,
    reason: &str,
) -> anyhow::Result<()> {
    terminal
        .report
        .ended(Some(&transfer.peer.name), "turned_down", reason);
    let transfer = transfer.id;
    terminal.client.command(Command::Decline { transfer })?;
    Ok(())
}
