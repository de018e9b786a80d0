//! Anything at all, against the model.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::model::{Line, Model};
use super::*;

/// Something that happens.
#[derive(Clone, Debug)]
struct Event {
    /// Time since the one before, in ns.
    after: u64,
    flow: usize,
    /// Its number, from where the flow stands.
    step: i32,
    /// How far the head of the flow moves.
    head: u32,
    /// What the kernel side expects, from where it did first.
    expects: i32,
    path: u8,
    paths: u16,
    repaired: bool,
    length: usize,
    deadline: u64,
}

const FLOWS: [Flow; 4] = [
    Flow { slot: 0, bucket: 0 },
    Flow { slot: 0, bucket: 1 },
    Flow { slot: 1, bucket: 0 },
    Flow { slot: 1, bucket: 1 },
];

fn events() -> impl Strategy<Value = Vec<Event>> {
    let after = prop_oneof![
        8 => 0..3 * MS,
        1 => 20 * MS..60 * MS,
        1 => Just(ends::BELIEVED / 2),
    ];
    let step = prop_oneof![20 => -3..9, 1 => -60..60];
    let expects = prop_oneof![10 => -12..1, 1 => -12..12];
    let paths = prop_oneof![4 => Just(0b1_1110), 4 => Just(0b110), 1 => any::<u16>()];
    let deadline = prop_oneof![3 => Just(20 * MS), 1 => 0..40 * MS];
    let first = (after, 0..FLOWS.len(), step, 0..3u32, expects);
    let second = (1..5u8, paths, any::<bool>(), 0..1_500usize, deadline);
    let event = (first, second).prop_map(|(first, second)| {
        let (after, flow, step, head, expects) = first;
        let (path, paths, repaired, length, deadline) = second;
        Event { after, flow, step, head, expects, path, paths, repaired, length, deadline }
    });
    prop::collection::vec(event, 1..200)
}

/// By flow: how flows are mixed is not said.
fn sorted(mut lines: Vec<Line>) -> Vec<Line> {
    lines.sort_by_key(|line| line.0);
    lines
}

fn lines(out: &[Released]) -> Vec<Line> {
    out.iter().map(|one| (one.flow, one.number, one.why, one.waited)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_engine_is_as_the_model_and_keeps_its_promises(
        starts in prop::array::uniform4(prop_oneof![any::<u32>(), Just(u32::MAX - 9)]),
        events in events(),
        (per_session, total) in (1_000usize..12_000, 1_000usize..20_000),
        reach in prop_oneof![Just(24u32), Just(200)],
    ) {
        let limits = Limits { per_session, total, reach };
        let (mut engine, mut model) = (Reorder::new(limits), Model::new(limits));
        let (mut now, mut heads) = (0, starts);
        let mut dues = BTreeMap::new();
        let mut after_all = Vec::new();
        let (mut taken, mut released) = (0u32, 0u64);

        let mut events = events.into_iter();
        loop {
            let event = events.next();
            let to = event.as_ref().map_or(u64::MAX, |event| now + event.after);
            let mut out = Vec::new();
            // All that is due until then.
            while let Some(due) = engine.next_due().filter(|due| *due <= to) {
                prop_assert_eq!(Some(due), model.next_due());
                now = due;
                engine.expire(now, &mut out);
                model.expire(now);
                for one in &out {
                    let id = one.bytes.get(..4).map(<[u8]>::to_vec);
                    prop_assert!(dues.get(&id) >= Some(&now), "held beyond its deadline");
                }
                prop_assert_eq!(sorted(lines(&out)), sorted(model.take_log()));
                released += out.len() as u64;
                after_all.append(&mut out);
            }
            let Some(event) = event else { break };
            now = to;

            let (flow, head) = (FLOWS[event.flow], &mut heads[event.flow]);
            let number = head.wrapping_add_signed(event.step);
            let next = head.wrapping_add_signed(event.expects);
            *head = head.wrapping_add(event.head);
            let mut bytes = taken.to_be_bytes().to_vec();
            bytes.resize(4 + event.length, 0);
            bytes.shrink_to_fit();
            let Event { path, paths, repaired, deadline, .. } = event;
            dues.insert(Some(taken.to_be_bytes().to_vec()), now + deadline);
            taken += 1;
            let packet = Ahead { flow, number, next, path, paths, repaired, bytes };
            model.take(&packet, now, deadline);
            engine.take(packet, now, deadline, &mut out);
            prop_assert_eq!(sorted(lines(&out)), sorted(model.take_log()));
            prop_assert_eq!(engine.next_due(), model.next_due());
            released += out.len() as u64;
            after_all.append(&mut out);

            let mut bytes = 0;
            for (slot, counts) in engine.statistics() {
                prop_assert_eq!(counts.bytes, model.bytes(Some(slot)));
                prop_assert!(counts.bytes <= per_session);
                prop_assert!(counts.most_bytes <= per_session);
                bytes += counts.bytes;
            }
            prop_assert!(bytes <= total);
        }

        // Each one came out once, or was a repeat of one that was held.
        let all = || engine.statistics().map(|(_, counts)| *counts);
        prop_assert_eq!(all().map(|counts| counts.taken).sum::<u64>(), u64::from(taken));
        prop_assert_eq!(all().map(|counts| counts.repeated).sum::<u64>(), model.repeated);
        prop_assert_eq!(released + model.repeated, u64::from(taken));
        prop_assert!(all().all(|counts| counts.held == 0 && counts.bytes == 0));
        prop_assert!(all().all(|counts| counts.delays.iter().sum::<u64>()
            == counts.released.iter().sum::<u64>()));
        let mut ids: Vec<_> = after_all.iter().map(|one| one.bytes.get(..4)).collect();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len() as u64, released);
        prop_assert!(FLOWS.iter().all(|flow| !engine.holds(*flow)));
    }
}
