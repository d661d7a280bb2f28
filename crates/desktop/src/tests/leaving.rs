//! Leaving: nothing that is under way ends without a question.

use egui::ViewportCommand;

use super::faults::{begun, shows, shows_part, slowly, wait};
use super::*;

fn stages() -> Vec<(Stage, bool)> {
    vec![
        (Stage::Queued, false),
        (Stage::Preparing, true),
        (Stage::Connecting, true),
        (Stage::AwaitingAnswer, true),
        (Stage::Transferring, true),
        (Stage::Reconnecting, true),
        (Stage::Completed(Completion::default()), false),
        (Stage::Failed(Failure::Cancelled), false),
    ]
}

fn close(harness: &mut Harness<'_, App>) {
    let root = egui::ViewportId::ROOT;
    let viewport = harness.input_mut().viewports.entry(root).or_default();
    viewport.events.push(egui::ViewportEvent::Close);
    harness.step();
}

fn asked_to(harness: &Harness<'_, App>, wanted: &ViewportCommand) -> bool {
    let outputs = harness.output().viewport_output.values();
    outputs
        .flat_map(|output| &output.commands)
        .any(|it| it == wanted)
}

#[test]
fn closing_asks_while_something_is_under_way_and_only_then() {
    for (stage, asks) in stages() {
        let at = format!("{stage:?}");
        let (mut harness, play) = slowly(with_peers());
        play.change(|s| s.transfers = vec![transfer(1, Direction::Sending, stage)]);
        harness.run();
        close(&mut harness);
        assert_eq!(
            asked_to(&harness, &ViewportCommand::CancelClose),
            asks,
            "{at}"
        );
        harness.run();
        assert_eq!(shows(&harness, text::KEEP_GOING), asks, "{at}");
        if !asks {
            continue;
        }
        wait(&mut harness, 1.0);
        click(&mut harness, text::KEEP_GOING);
        assert!(!shows(&harness, text::KEEP_GOING), "{at}");
        close(&mut harness);
        wait(&mut harness, 1.0);
        harness.get_by_label(text::STOP_AND_QUIT).click();
        harness.step();
        let mut closes = false;
        for _ in 0..5 {
            closes |= asked_to(&harness, &ViewportCommand::Close);
            harness.step();
        }
        assert!(closes, "{at}");
        close(&mut harness);
        let canceled = asked_to(&harness, &ViewportCommand::CancelClose);
        assert!(!canceled, "{at}: the user has said so");
    }
}

#[test]
fn logging_out_asks_while_something_is_under_way_and_only_then() {
    for (stage, asks) in stages() {
        let at = format!("{stage:?}");
        let (mut harness, play) = slowly(with_peers());
        play.change(|s| s.transfers = vec![transfer(1, Direction::Sending, stage)]);
        harness.run();
        click(&mut harness, text::SETTINGS);
        click(&mut harness, text::LOG_OUT);
        let out = [Command::SetAutoLogIn { on: false }, Command::LogOut];
        if asks {
            assert_eq!(play.commands(), [], "{at}");
            wait(&mut harness, 1.0);
            click(&mut harness, text::STOP_AND_LOG_OUT);
        }
        assert_eq!(play.commands(), out, "{at}");
    }
}

#[test]
fn switching_people_nearby_off_while_there_is_nobody_else_asks_too() {
    let (mut harness, play) = slowly(Snapshot {
        nearby: Some("alice".parse().unwrap()),
        transfers: vec![transfer(1, Direction::Sending, Stage::Transferring)],
        ..logged_out()
    });
    click(&mut harness, text::SETTINGS);
    harness.get_by_label(text::FIND_NEARBY).scroll_to_me();
    harness.run();
    click(&mut harness, text::FIND_NEARBY);
    assert_eq!(play.commands(), []);
    wait(&mut harness, 1.0);
    click(&mut harness, text::STOP_AND_LEAVE);
    let off = [Command::SetNearby { on: false }, Command::LogOut];
    assert_eq!(play.commands(), off);
}

#[test]
fn closing_asks_before_a_message_is_lost() {
    let (mut harness, _play) = begun();
    close(&mut harness);
    assert!(asked_to(&harness, &ViewportCommand::CancelClose));
    harness.run();
    assert!(shows_part(&harness, "Your message to bob"));
}
