use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::super::disk::{Disks as _, Folders};
use super::*;
use crate::notify::tests::Ram;

fn open(folder: &Path, limit: usize) -> (Queue, u64) {
    let disk = Folders(folder.to_owned()).open("ops").expect("a folder");
    Queue::open(disk, limit).expect("a queue")
}

fn store(queue: &mut Queue, bodies: impl IntoIterator<Item = &'static str>) -> u64 {
    let bodies: Vec<Vec<u8>> = bodies.into_iter().map(|body| body.as_bytes().to_vec()).collect();
    let result = queue.store(&bodies);
    assert!(result.error.is_none() && result.stored == bodies.len(), "{result:?}");
    result.dropped
}

/// All that is left, oldest first.
fn drain(queue: &mut Queue) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        match queue.head().expect("readable") {
            Head::None => return all,
            Head::Damaged(what) => all.push(what),
            Head::Entry(number, body) => {
                all.push(String::from_utf8(body).expect("text"));
                queue.done(number);
            }
        }
    }
}

#[test]
fn what_is_stored_is_there_after_a_restart_and_what_is_done_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut queue, _) = open(folder.path(), 10);
    store(&mut queue, ["one", "two", "three"]);
    let Ok(Head::Entry(number, _)) = queue.head() else { panic!("nothing there") };
    queue.done(number);
    let (mut queue, dropped) = open(folder.path(), 10);
    store(&mut queue, ["four"]);
    assert_eq!(
        (drain(&mut queue), dropped),
        (vec!["two".into(), "three".into(), "four".into()], 0)
    );
    assert_eq!(fs::read_dir(folder.path().join("ops")).expect("a folder").count(), 0);
}

#[test]
fn the_oldest_go_when_too_many_wait_but_not_the_one_that_is_being_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut queue, _) = open(folder.path(), 2);
    assert_eq!(store(&mut queue, ["one", "two", "three"]), 1);
    let Ok(Head::Entry(number, body)) = queue.head() else { panic!("nothing there") };
    assert_eq!(body, b"two");
    // Two wait behind it.
    assert_eq!(store(&mut queue, ["four"]), 0);
    assert_eq!(store(&mut queue, ["five"]), 1);
    queue.done(number);
    let (mut queue, dropped) = open(folder.path(), 1);
    assert_eq!((dropped, drain(&mut queue)), (1, vec!["five".to_owned()]));
}

#[test]
fn an_entry_that_failed_counts_among_those_that_wait() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut queue, _) = open(folder.path(), 2);
    store(&mut queue, ["one"]);
    assert!(matches!(queue.head(), Ok(Head::Entry(..))));
    assert_eq!(store(&mut queue, ["two", "three"]), 0);
    assert_eq!(queue.later(), 1);
    assert_eq!(drain(&mut queue), ["two", "three"]);
}

#[test]
fn a_damaged_entry_is_set_aside_and_the_others_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut queue, _) = open(folder.path(), 10);
    store(&mut queue, ["one", "two", "three", "four"]);
    let file = |number: u64, end: &str| folder.path().join("ops").join(name(number, end));
    let mut content = fs::read(file(1, WHOLE)).expect("stored");
    *content.last_mut().expect("not empty") ^= 1;
    fs::write(file(1, WHOLE), content).expect("written");
    fs::write(file(2, WHOLE), "").expect("written");
    fs::remove_file(file(3, WHOLE)).expect("removed");
    let all = drain(&mut queue);
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(all[0].contains("00000000000000000001.damaged"), "{}", all[0]);
    assert!(all[2].contains("it is gone") && !all[2].contains("kept"), "{}", all[2]);
    assert_eq!(all[3], "four");
    assert!(file(1, DAMAGED).exists() && file(2, DAMAGED).exists() && !file(1, WHOLE).exists());
}

#[test]
fn of_damaged_files_only_the_latest_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut queue, _) = open(folder.path(), 100);
    for _ in 0..DAMAGED_KEPT + 5 {
        store(&mut queue, ["x"]);
    }
    for file in fs::read_dir(folder.path().join("ops")).expect("a folder") {
        fs::write(file.expect("a file").path(), "rubbish").expect("written");
    }
    drain(&mut queue);
    let mut left = queue.disk.names().expect("listed");
    left.sort_unstable();
    assert_eq!(left.len(), DAMAGED_KEPT);
    assert_eq!(left[0], name(6, DAMAGED));
}

#[test]
fn what_is_not_whole_is_removed_and_what_is_not_ours_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut queue, _) = open(folder.path(), 10);
    store(&mut queue, ["one"]);
    let ops = folder.path().join("ops");
    fs::write(ops.join(name(2, NEW)), "half").expect("written");
    fs::write(ops.join("notes.new"), "mine").expect("written");
    let (mut queue, _) = open(folder.path(), 10);
    assert!(!ops.join(name(2, NEW)).exists());
    // The folder stays with what is in it.
    assert!(queue.remove().is_err());
    assert_eq!(queue.disk.names().expect("listed"), ["notes.new"]);
    fs::remove_file(ops.join("notes.new")).expect("removed");
    assert!(queue.remove().is_ok() && !ops.exists());
    assert_eq!(queue.store(&[b"late".to_vec()]).stored, 0);
    assert!(!ops.exists());
}

#[test]
fn files_are_for_nobody_else() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let (mut queue, _) = open(folder.path(), 10);
    store(&mut queue, ["one"]);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let ops = folder.path().join("ops");
    assert_eq!((mode(&ops), mode(&ops.join(name(1, WHOLE)))), (0o700, 0o600));
}

#[test]
fn what_cannot_be_synced_counts_as_not_stored() {
    let ram = Ram::default();
    let (mut queue, _) = Queue::open(ram.disk("ops"), 10).expect("a queue");
    store(&mut queue, ["one"]);
    ram.refuse(true);
    let result = queue.store(&[b"two".to_vec()]);
    assert!(result.stored == 0 && result.error.is_some());
    ram.refuse(false);
    store(&mut queue, ["two"]);
    assert_eq!(drain(&mut queue), ["one", "two"]);
}

proptest! {
    /// Whatever step it ends at: what `store` has promised is there, in order, and
    /// nothing is half there.
    #[test]
    fn a_power_cut_at_any_step_loses_nothing_that_was_stored(
        batches in prop::collection::vec(0_usize..5, 1..8),
        steps in 0_u32..60,
        survivors in any::<u64>(),
    ) {
        let ram = Ram::default();
        let (mut queue, _) = Queue::open(ram.disk("ops"), 1_000).expect("a queue");
        ram.dies_after(steps);
        let (mut promised, mut offered) = (Vec::new(), Vec::new());
        for count in batches {
            let bodies: Vec<Vec<u8>> =
                (0..count).map(|n| format!("event {}", offered.len() + n).into_bytes()).collect();
            let stored = queue.store(&bodies).stored;
            promised.extend(bodies[..stored].to_vec());
            offered.extend(bodies);
        }
        ram.crash(Some(survivors));
        let (mut queue, _) = Queue::open(ram.disk("ops"), 1_000).expect("a queue");
        let found: Vec<Vec<u8>> = drain(&mut queue).into_iter().map(String::into_bytes).collect();
        prop_assert!(found.starts_with(&promised), "{promised:?} {found:?}");
        let mut rest = offered[promised.len()..].iter();
        for more in &found[promised.len()..] {
            prop_assert!(rest.any(|body| body == more), "{more:?} is out of order");
        }
    }
}
