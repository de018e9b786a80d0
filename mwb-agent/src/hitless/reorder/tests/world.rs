//! A sender, paths that deliver in order, and a kernel side that hands over and gets back.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const DEADLINE: u64 = 100 * MS;

#[derive(Clone, Debug)]
struct World {
    start: u32,
    /// Least delay of each path, in us.
    paths: Vec<u64>,
    /// Of each packet: path, how much longer it takes in us, what happens to it.
    packets: Vec<(usize, u64, Fate)>,
    /// How many packets are on the way to the agent at once.
    ring: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Arrives,
    IsLost,
    /// A second one comes, by another path.
    ComesTwice,
}

fn worlds(lossy: bool) -> impl Strategy<Value = World> {
    let fate = if lossy {
        prop_oneof![8 => Just(Fate::Arrives), 1 => Just(Fate::IsLost), 1 => Just(Fate::ComesTwice)]
            .boxed()
    } else {
        Just(Fate::Arrives).boxed()
    };
    (
        prop_oneof![any::<u32>(), Just(u32::MAX - 50)],
        prop::collection::vec(0..40_000u64, 1..5),
        prop::collection::vec((0..4usize, 0..3_000u64, fate), 1..250),
        1..8usize,
    )
        .prop_map(|(start, paths, packets, ring)| World { start, paths, packets, ring })
}

/// Time, path and index of the packets, as they come to the kernel side.
fn arrivals(world: &World) -> Vec<(u64, u8, u32)> {
    let mut last = vec![0; world.paths.len()];
    let mut arrivals = Vec::new();
    for (index, (path, more, fate)) in world.packets.iter().enumerate() {
        let sent = 1_000 * MS + index as u64 * MS / 5;
        let mut copies = vec![path % last.len()];
        match fate {
            Fate::Arrives => {}
            Fate::IsLost => copies.clear(),
            Fate::ComesTwice => copies.push((path + 1) % last.len()),
        }
        for path in copies {
            // A path delivers in order.
            last[path] = last[path].max(sent + (world.paths[path] + more) * 1_000);
            arrivals.push((last[path], path as u8 + 1, index as u32));
        }
    }
    arrivals.sort_by_key(|(at, _, index)| (*at, *index));
    arrivals
}

/// The kernel side: delivers in turn by itself while the agent has nothing of the flow, and
/// hands over what comes otherwise. It knows what came back when the ring is empty.
struct Kernel {
    engine: Reorder,
    start: u32,
    next: u32,
    seen: BTreeSet<u32>,
    ring: Vec<(u64, Ahead)>,
    back: Vec<Released>,
    delivered: Vec<(u32, Why)>,
}

impl Kernel {
    fn arrive(&mut self, at: u64, path: u8, index: u32, paths: u16) {
        if !self.seen.insert(index) {
            return;
        }
        let busy = !self.ring.is_empty() || !self.back.is_empty() || self.engine.holds(FLOW);
        if index == self.next && !busy {
            self.next += 1;
            self.delivered.push((index, Why::Turn));
            return;
        }
        let (number, next) = (self.start.wrapping_add(index), self.start.wrapping_add(self.next));
        self.ring.push((at, Ahead { path, paths, ..ahead(FLOW, number, next) }));
    }

    fn serve(&mut self, now: u64) {
        for (_, packet) in self.ring.drain(..) {
            self.engine.take(packet, now, DEADLINE, &mut self.back);
        }
        self.get_back();
    }

    fn get_back(&mut self) {
        for released in self.back.drain(..) {
            let index = released.number.wrapping_sub(self.start);
            self.next = self.next.max(index + 1);
            self.delivered.push((index, released.why));
        }
    }
}

fn run(world: &World) -> Kernel {
    let paths = (0..world.paths.len()).fold(0, |paths, path| paths | 2 << path);
    let mut kernel = Kernel {
        engine: Reorder::new(ROOMY),
        start: world.start,
        next: 0,
        seen: BTreeSet::new(),
        ring: Vec::new(),
        back: Vec::new(),
        delivered: Vec::new(),
    };
    let arrivals = arrivals(world);
    for (at, path, index) in &arrivals {
        while let Some(due) = kernel.engine.next_due().filter(|due| due <= at) {
            kernel.engine.expire(due, &mut kernel.back);
        }
        kernel.arrive(*at, *path, *index, paths);
        if kernel.ring.len() >= world.ring {
            kernel.serve(*at);
        }
    }
    let end = arrivals.last().map_or(0, |(at, ..)| *at);
    kernel.serve(end);
    kernel.engine.expire(end + DEADLINE, &mut kernel.back);
    kernel.get_back();
    kernel
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn without_loss_all_is_delivered_in_order_and_nothing_given_up(world in worlds(false)) {
        let kernel = run(&world);
        let expected: Vec<u32> = (0..world.packets.len() as u32).collect();
        let delivered: Vec<u32> = kernel.delivered.iter().map(|(index, _)| *index).collect();
        prop_assert_eq!(delivered, expected);
        prop_assert!(kernel.delivered.iter().all(|(_, why)| *why == Why::Turn));
    }

    #[test]
    fn with_loss_all_that_came_is_delivered_once_and_in_order(world in worlds(true)) {
        let kernel = run(&world);
        let mut newest = None;
        for (index, why) in &kernel.delivered {
            if *why == Why::Late {
                prop_assert!(Some(*index) < newest);
            } else {
                prop_assert!(Some(*index) > newest, "{index} after {newest:?}");
                newest = Some(*index);
            }
        }
        let delivered: BTreeSet<u32> = kernel.delivered.iter().map(|(index, _)| *index).collect();
        prop_assert_eq!(delivered.len(), kernel.delivered.len());
        prop_assert_eq!(delivered, kernel.seen);
        prop_assert_eq!(kernel.engine.next_due(), None);
    }
}
