//! What counters have done between two looks at them.

use mwb_agent::dataplane::CounterRow;

/// The counters that moved, with how much they did.
pub(crate) fn difference(before: &[CounterRow], after: Vec<CounterRow>) -> Vec<CounterRow> {
    let place = |row: &CounterRow| (row.direction, row.path, row.reason, row.protocol);
    let more = |old: u64, new: u64| new.checked_sub(old).expect("counters never go back");
    after
        .into_iter()
        .filter(|row| !before.contains(row))
        .map(|mut row| {
            if let Some(old) = before.iter().find(|old| place(old) == place(&row)) {
                row.packets = more(old.packets, row.packets);
                row.bytes = more(old.bytes, row.bytes);
            }
            row
        })
        .collect()
}
