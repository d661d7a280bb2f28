//! The server, as far as the two can tell.

use std::time::Duration;

use pinhole_net::{Directory, PeerName, Presence};

use super::party::identity;
use super::world::{Happening, World, other};
use crate::failure::Failure;
use crate::state::{ConnectionId, LoggedInTo, LoginEffect, LoginInput};

impl World {
    /// Returns whether it was as it is to be.
    pub(super) fn set_server(&mut self, is_up: bool) -> bool {
        std::mem::replace(&mut self.is_server_up, is_up) == is_up
    }

    pub(super) fn is_reachable(&self, who: usize) -> bool {
        self.is_server_up && self.parties[who].is_network_up
    }

    pub(super) fn run_login(&mut self, who: usize, effect: &LoginEffect) {
        match effect {
            LoginEffect::LogIn {
                connection, watch, ..
            } => {
                let connection = *connection;
                self.parties[who].watched = watch.iter().cloned().collect();
                let after = self.random.between(20, 200);
                let happening = match self.is_reachable(who) {
                    true => Happening::LoggedIn(connection),
                    false => Happening::NotLoggedIn(connection),
                };
                self.plan(who, after, happening);
            }
            LoginEffect::LogInAside {
                connection, watch, ..
            } => {
                let connection = *connection;
                self.parties[who].watched = watch.iter().cloned().collect();
                let has_aside = std::mem::take(&mut self.parties[who].has_aside);
                let happening = match has_aside && self.is_reachable(who) {
                    true => Happening::LoggedIn(connection),
                    false => Happening::NotLoggedIn(connection),
                };
                self.plan(who, 40, happening);
            }
            LoginEffect::Ask(connection) => {
                let connection = *connection;
                if self.is_reachable(who) {
                    let is_there = self.parties[who].on_server == Some(connection);
                    let answered = LoginInput::Answered(is_there);
                    self.plan(who, 40, Happening::Server(connection, answered));
                }
            }
            LoginEffect::ConnectAside { connection, .. } => {
                let connection = *connection;
                let is_made = self.is_reachable(who);
                self.parties[who].has_aside = is_made;
                let aside = LoginInput::Aside(is_made);
                self.plan(who, 80, Happening::Server(connection, aside));
            }
            LoginEffect::Watch(names) => {
                self.parties[who].watched.extend(names.iter().cloned());
                if let Some(connection) = self.parties[who].on_server {
                    self.watched(who, connection, names.clone());
                }
            }
            LoginEffect::Unwatch(names) => {
                self.parties[who].watched.retain(|it| !names.contains(it));
            }
            LoginEffect::SetWarmth(_) | LoginEffect::AskHistory(_) => {}
            LoginEffect::OpenCode | LoginEffect::CloseCode | LoginEffect::FindCode(_) => {
                self.run_code(who, effect);
            }
            LoginEffect::DropAside => self.parties[who].has_aside = false,
            LoginEffect::GiveUp | LoginEffect::End => {
                self.parties[who].has_aside = false;
                if self.is_reachable(who) {
                    self.forget(who);
                }
            }
        }
    }

    /// The server says who of these is online, once it has heard the question: that is
    /// sent again while the network is down.
    pub(super) fn watched(&mut self, who: usize, connection: ConnectionId, names: Vec<PeerName>) {
        if self.parties[who].on_server != Some(connection) {
            return;
        }
        if !self.is_reachable(who) {
            return self.plan(who, 500, Happening::Watched(connection, names));
        }
        let found = self.presence_of(&names);
        self.plan(who, 20, Happening::Server(connection, found));
    }

    pub(super) fn forget(&mut self, who: usize) {
        if self.parties[who].on_server.take().is_none() {
            return;
        }
        self.parties[who].code = None;
        let name = self.parties[who].identity.name.clone();
        if let Some(connection) = self.parties[other(who)].on_server
            && self.is_reachable(other(who))
        {
            // By design what waits for one that has left waits for a short time only.
            self.parties[other(who)].excuse_all();
            self.parties[who].excuse_all();
            if self.is_told(other(who), &name) {
                let offline = self.presence_of(&[name]);
                self.plan(other(who), 20, Happening::Server(connection, offline));
            }
        }
    }

    pub(super) fn logged_in(&mut self, who: usize, connection: ConnectionId) {
        let is_wanted = self.parties[who].state.is_connected_by(connection);
        if !self.is_reachable(who) || !is_wanted {
            return self.not_logged_in(who, connection);
        }
        self.parties[who].on_server = Some(connection);
        let to = LoggedInTo {
            server_key: identity("server", 9).key,
            observed: "192.0.2.1:4000".parse().unwrap(),
            has_relay: true,
            has_codes: true,
            round_trip: Duration::from_millis(40),
        };
        self.login_input(who, connection, LoginInput::LoggedIn(to));
        let there = other(who);
        let ours = self.parties[who].identity.name.clone();
        let theirs = self.parties[there].identity.name.clone();
        match self.parties[there].on_server {
            Some(connection) if self.is_told(there, &ours) => {
                let online = self.presence_of(&[ours]);
                self.plan(there, 20, Happening::Server(connection, online));
            }
            _ => {}
        }
        if self.parties[there].on_server.is_none() {
            // By design what waits for one that is not there waits for a short time.
            self.parties[who].excuse_all();
            self.parties[there].excuse_all();
        }
        let concerning = match self.is_told(who, &theirs) {
            true => vec![theirs],
            false => Vec::new(),
        };
        let all = self.presence_of(&concerning);
        self.plan(who, 1, Happening::Server(connection, all));
    }

    /// Whether the server tells it of this name.
    fn is_told(&self, who: usize, name: &PeerName) -> bool {
        self.directory == Directory::Open || self.parties[who].watched.contains(name)
    }

    fn presence_of(&self, names: &[PeerName]) -> LoginInput {
        let mut presence = Presence {
            directory: self.directory,
            online: Vec::new(),
            offline: Vec::new(),
        };
        for name in names {
            let party = self.parties.iter().find(|it| it.identity.name == *name);
            match party.filter(|party| party.on_server.is_some()) {
                Some(party) => presence.online.push(party.identity.clone()),
                None => presence.offline.push(name.clone()),
            }
        }
        LoginInput::Presence(presence)
    }

    pub(super) fn not_logged_in(&mut self, who: usize, connection: ConnectionId) {
        let failure = Failure::ServerLost {
            reason: "unreachable".to_owned(),
        };
        self.login_input(who, connection, LoginInput::Lost(failure));
    }

    pub(super) fn login_input(&mut self, who: usize, connection: ConnectionId, input: LoginInput) {
        let now = self.instant();
        self.parties[who].state.handle_login(connection, input, now);
    }
}
