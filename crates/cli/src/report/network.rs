//! A diagnosis and the last connections, as text.

use std::time::Duration;

use pinhole_client::{Attempt, Diagnosis, Finding, Tone};

use super::words::path_in_words;
use crate::display;

/// The longest line that is easy to read.
const WIDTH: usize = 78;
const INDENT: &str = "    ";

/// Formats a diagnosis, with advice for each finding.
pub(super) fn diagnosis(diagnosis: &Diagnosis) -> String {
    let findings: Vec<String> = diagnosis.findings.iter().map(finding).collect();
    findings.join("\n")
}

fn finding(finding: &Finding) -> String {
    let mark = match finding.tone {
        Tone::Good => '✓',
        Tone::Neutral => '·',
        Tone::Trouble => '!',
    };
    let mut text = format!("{mark} {}\n{}", finding.topic, wrapped(&finding.text));
    if let Some(advice) = &finding.advice {
        text += &format!("\n{}", wrapped(&format!("→ {advice}")));
    }
    text
}

/// Formats an attempt to connect: its time, peer, path and reason, then what was tried.
pub(super) fn attempt(attempt: &Attempt) -> String {
    let when = display::date(attempt.ended_at_s);
    let (peer, who) = match attempt.invited {
        true => (&attempt.peer, "from"),
        false => (&attempt.peer, "to"),
    };
    let way = attempt.path.map_or("no path", path_in_words);
    let elapsed = attempt.elapsed_ms.map(Duration::from_millis);
    let elapsed = elapsed.map_or_else(String::new, |e| format!(", {}", display::time(e)));
    let mut text = format!(
        "{when}  {who} {peer}: {way}{elapsed}\n{}",
        wrapped(&attempt.why)
    );
    for tried in &attempt.tried {
        text += &format!("\n{INDENT}{tried}");
    }
    text
}

/// Breaks text between words, and indents it.
fn wrapped(text: &str) -> String {
    let mut lines = vec![INDENT.to_owned()];
    let mut length = INDENT.len();
    for word in text.split_whitespace() {
        let word_length = word.chars().count();
        if length > INDENT.len() && length + 1 + word_length > WIDTH {
            lines.push(INDENT.to_owned());
            length = INDENT.len();
        }
        if let Some(line) = lines.last_mut() {
            if length > INDENT.len() {
                line.push(' ');
                length += 1;
            }
            line.push_str(word);
        }
        length += word_length;
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_short_and_lose_no_word() {
        let words = ["router"; 40].join(" ");
        let wrapped = wrapped(&words);
        assert!(wrapped.lines().all(|line| line.len() <= WIDTH));
        assert!(wrapped.lines().count() > 1);
        assert_eq!(wrapped.split_whitespace().count(), 40);
        let long = "x".repeat(200);
        assert_eq!(super::wrapped(&long), format!("{INDENT}{long}"));
    }

    #[test]
    fn an_attempt_says_which_way_and_why_and_what_else_was_tried() {
        let shown = attempt(&Attempt {
            ended_at_s: 0,
            peer: "bob".parse().unwrap(),
            invited: false,
            path: Some(pinhole_client::PathKind::Mapped),
            elapsed_ms: Some(350),
            why: "Because.".to_owned(),
            tried: vec!["round 1: relay: connected, not chosen".to_owned()],
        });
        let expected = "to bob: directly, by a port that the router opened, 0.35 s\n    Because.\n    round 1: relay: connected, not chosen";
        assert!(shown.ends_with(expected), "{shown}");
    }
}
