//! Transfers under way: how far, how fast, and how they are stopped.

use super::*;

const HALF: u64 = 367_001_600;
const ID: TransferId = TransferId(1);

fn halfway(direction: Direction) -> TransferView {
    let mut running = transfer(ID.0, direction, Stage::Transferring);
    running.progress = Progress {
        bytes_done: HALF,
        here_bytes: 0,
        bytes_total: Some(2 * HALF),
        files_done: 0,
        files_total: 1,
        bytes_per_second: Some(20_000_000),
        time_left: Some(Duration::from_secs(18)),
        paused: Paused::default(),
    };
    running
}

fn shows(harness: &Harness<'_, App>, label: &str) -> bool {
    harness.query_all_by_label(label).next().is_some()
}

#[test]
fn a_running_transfer_says_how_far_how_fast_and_which_way() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| s.transfers.push(halfway(Direction::Sending)));
    harness.run();
    for shown in [
        "Sending to bob",
        "367 of 734 MB  ·  20.0 MB/s  ·  18 s left",
        "Direct, punched through both NATs",
    ] {
        assert!(shows(&harness, shown), "{shown}");
    }
}

#[test]
fn a_stall_names_the_side_that_it_waits_for() {
    let (mut harness, play) = window(with_peers());
    for (direction, reason) in [
        (Direction::Sending, "bob takes nothing at the moment"),
        (
            Direction::Receiving,
            "Nothing arrives from bob at the moment",
        ),
    ] {
        let mut stalled = halfway(direction);
        stalled.progress.bytes_per_second = Some(0);
        play.change(|s| s.transfers = vec![stalled]);
        harness.run();
        assert!(shows(&harness, reason), "{reason}");
        assert!(shows(&harness, "367 of 734 MB"));
    }
}

#[test]
fn either_side_pauses_and_each_sees_who() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| s.transfers.push(halfway(Direction::Receiving)));
    harness.run();
    let pause = |paused| Command::Pause {
        transfer: ID,
        paused,
    };
    click(&mut harness, text::PAUSE);
    assert_eq!(play.commands(), [pause(true)]);
    for (by_us, by_peer, words) in [
        (false, true, "Paused by bob"),
        (true, true, "Paused by you and bob"),
        (true, false, "Paused by you"),
    ] {
        play.change(|s| s.transfers[0].progress.paused = Paused { by_us, by_peer });
        harness.run();
        assert!(shows(&harness, words), "{words}");
        assert!(shows(&harness, "367 of 734 MB"), "no speed while paused");
        assert_eq!(shows(&harness, text::RESUME), by_us);
        assert_eq!(shows(&harness, text::PAUSE), !by_us);
    }
    click(&mut harness, text::RESUME);
    assert_eq!(play.commands(), [pause(false)]);
}

#[test]
fn cancelling_keeps_or_discards_what_has_arrived() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| s.transfers.push(halfway(Direction::Receiving)));
    harness.run();
    click(&mut harness, text::STOP);
    assert_eq!(play.commands(), []);
    click(&mut harness, text::KEEP_PART);
    assert_eq!(play.commands(), [Command::Interrupt { transfer: ID }]);
    assert!(!shows(&harness, text::KEEP_PART), "the menu is gone");
    // By keyboard, too.
    harness.get_by_label(text::STOP).focus();
    harness.run();
    for key in [Key::Enter, Key::Tab, Key::Tab, Key::Enter] {
        harness.key_press(key);
        harness.run();
    }
    assert_eq!(play.commands(), [Command::Cancel { transfer: ID }]);
}

#[test]
fn before_anything_has_arrived_there_is_nothing_to_keep() {
    let (mut harness, play) = window(with_peers());
    let mut beginning = halfway(Direction::Sending);
    beginning.progress.bytes_done = 0;
    play.change(|s| s.transfers.push(beginning));
    harness.run();
    click(&mut harness, text::CANCEL);
    assert_eq!(play.commands(), [Command::Cancel { transfer: ID }]);
}

#[test]
fn a_stopped_transfer_can_be_sent_again() {
    let (mut harness, play) = window(with_peers());
    let peer = identity("bob", 2).name;
    for failure in [Failure::Interrupted, Failure::InterruptedByPeer { peer }] {
        let stopped = transfer(ID.0, Direction::Sending, Stage::Failed(failure.clone()));
        play.change(|s| s.transfers = vec![stopped]);
        harness.run();
        assert!(shows(&harness, &failure.to_string()), "{failure}");
        click(&mut harness, text::SEND_AGAIN);
        assert_eq!(play.commands(), [Command::Retry { transfer: ID }]);
    }
}

#[test]
fn several_transfers_are_summed_up() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| {
        for id in 1..=3 {
            let mut running = halfway(Direction::Sending);
            running.id = TransferId(id);
            running.progress.files_done = 1;
            running.progress.files_total = 4;
            s.transfers.push(running);
        }
    });
    harness.run();
    let sum = "3 transfers  ·  3 of 12 files  ·  1.10 of 2.20 GB  ·  60.0 MB/s  ·  18 s left";
    assert!(shows(&harness, sum));
    play.change(|s| s.transfers.truncate(1));
    harness.run();
    assert!(harness.query_by_label_contains("transfers").is_none());
}
