//! Idle people, in processes of their own, because a process may open only so many files.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::thread;

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

use crate::crowd::{self, Crowd, LOST};
use crate::person::HEARD_BYTES;
use crate::server::Server;

/// How many people one process plays.
const EACH: usize = 15_000;

/// People who are online until this is dropped.
pub(crate) struct Bystanders {
    nodes: Vec<SocketAddr>,
    players: Vec<Player>,
    count: usize,
}

impl Bystanders {
    /// Nobody yet, at this server.
    pub(crate) fn of(server: &Server<'_>) -> Self {
        Self {
            nodes: server.addresses(),
            players: Vec::new(),
            count: 0,
        }
    }

    /// Logs more people in until they are so many.
    pub(crate) fn grow_to(&mut self, count: usize) -> Result<()> {
        while self.count < count {
            let more = (count - self.count).min(EACH);
            self.players
                .push(Player::start(self.count, more, &self.nodes)?);
            self.count += more;
        }
        Ok(())
    }

    /// Bytes of frames that all of them have been sent. Fails when somebody is not online
    /// any more.
    pub(crate) fn heard_bytes(&mut self) -> Result<u64> {
        self.players.iter_mut().map(Player::heard_bytes).sum()
    }
}

/// A process that plays people. It ends when it is dropped, or when its standard input
/// does.
struct Player {
    child: Child,
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Player {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _: Result<(), _> = self.child.kill();
        let _: Result<ExitStatus, _> = self.child.wait();
    }
}

impl Player {
    /// Returns once its people are online.
    fn start(first: usize, count: usize, nodes: &[SocketAddr]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["play", &first.to_string(), &count.to_string()]);
        command.args(nodes.iter().map(ToString::to_string));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let asked = child.stdin.take().context("no input")?;
        let answers = child.stdout.take().context("no output")?;
        let mut player = Self {
            child,
            asked,
            answers: BufReader::new(answers),
        };
        player.answer()?;
        Ok(player)
    }

    fn heard_bytes(&mut self) -> Result<u64> {
        self.asked.write_all(b"\n")?;
        self.answer()
    }

    fn answer(&mut self) -> Result<u64> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let numbers = line.trim().split_once(' ');
        let (heard, lost) = numbers.context("bystanders have failed")?;
        anyhow::ensure!(lost == "0", "{lost} bystanders have lost their connections");
        Ok(heard.parse()?)
    }
}

/// Plays `count` people from number `first` on until standard input ends. Prints how many
/// bytes they have heard and how many have lost their connections, once when all are
/// online and for each line of input.
pub(crate) async fn play(first: usize, count: usize, nodes: &[SocketAddr]) -> Result<()> {
    let mut crowd = Crowd::default();
    let people = crowd::people(first, count)?;
    crowd.join(nodes, &people).await?;
    let (ended, end) = oneshot::channel();
    thread::spawn(move || {
        // Whoever asks is gone when this fails.
        let _: io::Result<()> = answer();
        ended.send(())
    });
    Ok(end.await?)
}

fn answer() -> io::Result<()> {
    let say = || {
        let [heard, lost] = [&HEARD_BYTES, &LOST].map(|it| it.load(Ordering::Relaxed));
        writeln!(io::stdout(), "{heard} {lost}")
    };
    say()?;
    for line in io::stdin().lock().lines() {
        line?;
        say()?;
    }
    Ok(())
}
