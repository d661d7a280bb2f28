//! The lines between the sites and the internet: the program `wan`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::plan::Line;

/// The program, running.
pub(super) struct Wan {
    child: Child,
    // It ends when this pipe closes, be it by the death of this process.
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Wan {
    pub(super) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("starting the WAN");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut wan = Self {
            child,
            input,
            output,
        };
        wan.hear("ready");
        wan
    }

    /// From now on, the line of this name carries frames so.
    pub(super) fn set(&mut self, name: &str, line: Line) {
        let [delay, jitter, skew] =
            [line.delay, line.jitter, line.server_skew].map(|time| time.as_micros());
        let loss = line.loss_percent;
        let written = writeln!(self.input, "{name} {delay} {jitter} {skew} {loss}");
        written.expect("talking to the WAN");
        self.hear("set");
    }

    fn hear(&mut self, expected: &str) {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .expect("reading from the WAN");
        assert_eq!(line.trim_end(), expected, "the WAN did not do it");
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
