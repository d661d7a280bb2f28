//! What people do, and what goes wrong.

use super::link::{Condition, Millis};
use super::party::TROUBLE_ENDS;
use super::world::{Act, Ended, Fault, Happening, Joining, World, other};
use crate::command::Command;
use crate::invitation::code::CodeWords;
use crate::invitation::link::Pass;
use crate::invitation::proof::Secret;
use crate::model::{Direction, Stage, TransferId};
use crate::snapshot::{LoginState, TransferView};
use crate::state::{LoginInput, NewInvitation};
use crate::store::Uses;

/// The server takes so long to notice that somebody is gone.
const SERVER_NOTICES: Millis = 15_000;

impl World {
    pub(super) fn happen(&mut self, who: usize, happening: Happening) {
        let now = self.instant();
        match happening {
            Happening::LoggedIn(connection) => self.logged_in(who, connection),
            Happening::NotLoggedIn(connection) => self.not_logged_in(who, connection),
            Happening::Server(connection, input) => {
                // What the server says is sent again while the network is down.
                let is_from_far = !matches!(input, LoginInput::Aside(_));
                match is_from_far && !self.is_reachable(who) {
                    true => self.plan(who, 500, Happening::Server(connection, input)),
                    false => self.login_input(who, connection, input),
                }
            }
            Happening::Watched(connection, names) => self.watched(who, connection, names),
            Happening::Connected(connected, link) => self.connected(who, *connected, link),
            Happening::Unanswered(connected, link) => {
                if link.is_none_or(|link| !self.links[link].is_answered) {
                    self.connected(who, *connected, None);
                }
            }
            Happening::Invited {
                link,
                evidence,
                epoch,
            } => self.invited(who, (link, evidence), epoch),
            Happening::Arrived(link, message) => {
                if !self.is_broken(link) {
                    self.arrived(who, link, message);
                }
            }
            Happening::LinkEnded(link, ended) => self.link_ended(who, link, ended),
            Happening::Ended(link, id, outcome) => self.ended(who, link, (id, outcome)),
            Happening::SendPart(link, id) => self.send_part(who, link, id),
            Happening::Listed(transfer, content) => self.listed(who, transfer, content),
            Happening::TakenNames(transfer) => {
                let state = &mut self.parties[who].state;
                state.handle_taken_names(transfer, 0, Vec::new());
            }
            Happening::Prepared(transfer, carrier, link) => {
                self.prepared(who, transfer, (carrier, link.is_some()));
            }
            Happening::LetGo(transfer) => self.let_go(who, transfer),
            Happening::Committed(link, id) => self.committed(who, link, id),
            Happening::Sample => {
                self.parties[who].is_sampling = false;
                let samples = self.samples(who);
                self.parties[who].state.handle_samples(&samples, now);
            }
            Happening::User(act) => self.act(who, act),
            Happening::Fault(fault) => self.fault(who, fault),
        }
    }

    fn command(&mut self, who: usize, command: Command) {
        let now = self.instant();
        self.parties[who].state.handle_command(command, now);
    }

    pub(super) fn transfers(&self, who: usize) -> Vec<TransferView> {
        let party = &self.parties[who];
        party.state.snapshot(party.identity.key).transfers
    }

    fn pick(&mut self, who: usize, holds: impl Fn(&TransferView) -> bool) -> Option<TransferId> {
        let all = self.transfers(who);
        let those: Vec<_> = all.iter().filter(|it| holds(it)).map(|it| it.id).collect();
        self.random.pick(&those)
    }

    fn act(&mut self, who: usize, act: Act) {
        let peer = self.parties[other(who)].identity.key;
        let is_open = |it: &TransferView| !it.stage.is_final();
        match act {
            Act::SendFiles => {
                let content = self.new_content();
                let paths = Self::paths_of(content);
                self.command(who, Command::Send { peer, paths });
            }
            Act::SendText => {
                let text = "hello".to_owned();
                self.command(who, Command::SendText { peer, text });
            }
            Act::Answer(transfer) => self.answer(who, transfer),
            Act::Show(transfer) => self.command(who, Command::TextShown { transfer }),
            Act::Pause => {
                if let Some(transfer) = self.pick(who, is_open) {
                    let paused = true;
                    self.command(who, Command::Pause { transfer, paused });
                }
            }
            Act::Unpause => {
                for it in self.transfers(who) {
                    let (transfer, paused) = (it.id, false);
                    self.command(who, Command::Pause { transfer, paused });
                }
            }
            Act::Cancel => {
                if let Some(transfer) = self.pick(who, is_open) {
                    self.excuse_both(who, transfer);
                    self.command(who, Command::Cancel { transfer });
                }
            }
            Act::Interrupt => {
                if let Some(transfer) = self.pick(who, is_open) {
                    self.excuse_both(who, transfer);
                    self.command(who, Command::Interrupt { transfer });
                }
            }
            Act::Retry => {
                let has_failed = |it: &TransferView| {
                    matches!(it.stage, Stage::Failed(_)) && it.direction == Direction::Sending
                };
                if let Some(transfer) = self.pick(who, has_failed) {
                    self.command(who, Command::Retry { transfer });
                }
            }
            Act::LogOut => {
                self.excuse_everything();
                self.command(who, Command::LogOut);
            }
            Act::LogIn => self.log_in(who),
            Act::Restart => self.restart(who),
            Act::Invite => self.invite(who),
            Act::OpenCode => {
                let (now, words) = (self.instant(), CodeWords::generate().unwrap());
                self.parties[who].state.handle_open_code(words, now);
            }
            Act::Join(Joining::Code(code)) => self.command(who, Command::JoinCode { code }),
            Act::Join(Joining::Link(link)) => {
                let (now, at_s) = (self.instant(), self.unix_s());
                self.parties[who].state.handle_join(link, at_s, now);
            }
        }
    }

    fn invite(&mut self, who: usize) {
        let new = NewInvitation {
            name: None,
            server: None,
            uses: Uses::Once,
            pass: Pass {
                secret: Secret::from_bytes([7; 16]),
                ends_at_s: self.unix_s() + 3_600,
            },
            now_s: self.unix_s(),
        };
        let now = self.instant();
        self.parties[who].state.handle_invite(&new, now);
    }

    fn answer(&mut self, who: usize, transfer: TransferId) {
        let all = self.transfers(who);
        let asked = all.iter().find(|it| it.id == transfer);
        let is_waiting = asked.is_some_and(|it| matches!(it.stage, Stage::AwaitingDecision));
        if !is_waiting {
            return;
        }
        if self.now < TROUBLE_ENDS && self.random.percent(12) {
            self.excuse_both(who, transfer);
            return self.command(who, Command::Decline { transfer });
        }
        self.parties[who].accepted.insert(transfer);
        self.command(
            who,
            Command::Accept {
                transfer,
                into: None,
                unwanted: std::collections::BTreeSet::new(),
                existing: None,
            },
        );
    }

    fn log_in(&mut self, who: usize) {
        let login = &self.parties[who]
            .state
            .snapshot(self.parties[who].identity.key)
            .login;
        if matches!(login, LoginState::LoggedOut { .. }) {
            let name = self.parties[who].identity.name.clone();
            let server = "server.test".parse().expect("an address");
            let patient = true;
            // Where not everybody is listed, they know each other's names.
            let peer = self.parties[other(who)].identity.name.clone();
            if !self.are_strangers {
                self.command(who, Command::LookUp { name: peer });
            }
            self.command(
                who,
                Command::LogIn {
                    name,
                    server,
                    patient,
                },
            );
        }
    }

    fn restart(&mut self, who: usize) {
        self.excuse_everything();
        let now = self.instant();
        if self.parties[who].on_server.is_some() {
            self.forget(who);
        }
        self.parties[who].restart(now);
        for link in 0..self.link_count() {
            self.break_link(link, other(who));
        }
        self.plan(who, 300, Happening::User(Act::LogIn));
    }

    /// Nobody may expect anything more of this transfer.
    fn excuse_both(&mut self, who: usize, transfer: TransferId) {
        self.parties[who].excuse(transfer);
        let all = self.transfers(who);
        let title = all.iter().find(|it| it.id == transfer);
        let Some(title) = title.map(|it| it.offer.title.clone()) else {
            return;
        };
        let there = other(who);
        for it in self.transfers(there) {
            if it.offer.title == title || it.offer.title.is_empty() || title.is_empty() {
                self.parties[there].excuse(it.id);
            }
        }
    }

    fn excuse_everything(&mut self) {
        for who in [0, 1] {
            self.parties[who].excuse_all();
        }
    }

    fn fault(&mut self, who: usize, fault: Fault) {
        match fault {
            Fault::Break => {
                for link in 0..self.link_count() {
                    self.break_link(link, who);
                    self.break_link(link, other(who));
                }
            }
            Fault::Freeze(lasts) => self.freeze(lasts),
            Fault::ServerDown => {
                self.set_server(false);
                let after = self.random.between(200, 20_000);
                self.plan_act(who, self.now + after, Happening::Fault(Fault::ServerUp));
            }
            Fault::ServerUp => {
                // It has forgotten everybody, and their connections are reset.
                if !self.set_server(true) {
                    for who in [0, 1] {
                        if let Some(connection) = self.parties[who].on_server.take() {
                            self.plan(who, 30, Happening::NotLoggedIn(connection));
                        }
                    }
                }
            }
            Fault::NetworkDown => {
                self.parties[who].is_network_up = false;
                self.fault(who, Fault::Break);
                let after = self.random.between(200, 25_000);
                self.plan_act(who, self.now + after, Happening::Fault(Fault::NetworkUp));
                let forgets = Happening::Fault(Fault::ServerForgets);
                self.plan_act(who, self.now + SERVER_NOTICES, forgets);
            }
            Fault::NetworkUp => {
                if !std::mem::replace(&mut self.parties[who].is_network_up, true) {
                    let now = self.instant();
                    self.parties[who].state.handle_network_changed(now);
                }
            }
            Fault::ServerForgets => {
                if !self.parties[who].is_network_up {
                    self.forget(who);
                }
            }
        }
    }

    /// The link is broken; this end notices it after a while, unless it looks for
    /// another before.
    fn break_link(&mut self, link: usize, who: usize) {
        let after = match self.random.percent(50) {
            true => self.random.between(50, 1_000),
            false => self.random.between(1_000, 20_000),
        };
        self.set_condition(link, Condition::Broken { since: self.now });
        self.plan(who, after, Happening::LinkEnded(link, Ended::Broken));
    }

    fn freeze(&mut self, lasts: Millis) {
        let (since, until) = (self.now, self.now + lasts);
        for link in 0..self.link_count() {
            self.set_condition(link, Condition::Frozen { since, until });
        }
    }
}
