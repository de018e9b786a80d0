//! Changes to a frame: of fields, by knowing where they are, and of any bit.

use crate::random::Random;
use crate::view::{LINK, View, be16, put16, repair};
use crate::world;

/// Changes a frame in up to three ways. Half of what comes out has right
/// checksums again, so that it gets past whoever looks at them.
pub(crate) fn mutate(random: &mut Random, frame: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        if random.chance(60) {
            field(random, frame);
        } else {
            bytes(random, frame);
        }
    }
    if random.chance(50) {
        repair(frame);
    }
    // A device does not give less than an Ethernet header, nor more than its MTU.
    frame.resize(frame.len().clamp(LINK, 3_000), 0);
}

/// Without looking at what is changed.
fn bytes(random: &mut Random, frame: &mut Vec<u8>) {
    let at = random.below(frame.len());
    match random.below(6) {
        0 | 1 => frame[at] ^= 1 << random.below(8),
        2 => frame[at] = random.byte(),
        3 => frame[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        4 => frame.insert(at, random.byte()),
        _ => frame.truncate(LINK.max(at)),
    }
}

fn field(random: &mut Random, frame: &mut Vec<u8>) {
    let Some(view) = View::of(frame) else { return bytes(random, frame) };
    let near = |random: &mut Random, value: u16| match random.below(4) {
        0 => value.wrapping_add(1 + random.below(8) as u16),
        1 => value.wrapping_sub(1 + random.below(8) as u16),
        2 => random.word(),
        _ => *random.pick(&[0, 8, 20, 40, 0xffff]),
    };
    match random.below(16) {
        // Lengths.
        0 => {
            let at = LINK + if view.v6 { 4 } else { 2 };
            let value = near(random, be16(frame, at).unwrap_or_default());
            put16(frame, at, value);
        }
        1 if view.protocol == 17 => {
            let value = near(random, be16(frame, view.transport + 4).unwrap_or_default());
            put16(frame, view.transport + 4, value);
        }
        1 | 2 if !view.v6 => frame[LINK] = random.byte() & 0x0f | 0x40,
        3 if view.protocol == 6 => set(frame, view.transport + 12, random.byte()),
        // Fragments.
        4 if !view.v6 => {
            let value = *random.pick(&[0x2000, 0x0001, 0x2001, 0x4000, 0x8000, 0x1fff]);
            put16(frame, LINK + 6, value);
        }
        4 | 5 if view.v6 => set(frame, LINK + 6, *random.pick(&[0, 43, 44, 51, 60, 59, 17])),
        // Protocols and types.
        5 => set(frame, LINK + 9, *random.pick(&[1, 6, 17, 47, 50, 58, 132])),
        6 => set(frame, view.transport, random.byte()),
        7 => set(frame, view.transport + 1, random.byte()),
        8 => set(frame, view.transport + 13, random.byte()),
        9 => set(frame, view.hops_at(), *random.pick(&[0, 1, 2, 255])),
        // Ends.
        10 => {
            let place = if random.chance(50) { view.source_at() } else { view.destination_at() };
            let from = if random.chance(50) { view.source_at() } else { view.destination_at() };
            let address = if random.chance(50) {
                frame[from].to_vec()
            } else if view.v6 {
                random.pick(&[world::HOST6, world::REMOTE6, world::WAN1_6]).octets().to_vec()
            } else {
                let known =
                    [world::HOST, world::WAN1, world::WAN2, world::REMOTE, world::NEIGHBOUR2];
                random.pick(&known).octets().to_vec()
            };
            frame[place].copy_from_slice(&address);
        }
        11 => {
            for at in view.ports_at(frame).into_iter().flatten() {
                if random.chance(50) {
                    put16(frame, at, *random.pick(&[0, 67, 68, 9_999, 10_000, 65_535, 40_001]));
                }
            }
        }
        12 => frame[random.below(12)] ^= 1 << random.below(8),
        13 => put16(frame, 12, *random.pick(&[0x0800, 0x86dd, 0x8100, 0x88a8, 0x0806, 0])),
        // Options and extension headers, the lengths made right or left alone.
        14 => insert_options(random, frame, &view),
        _ => {
            // A tag.
            let tag = [0x81, 0, 0, *random.pick(&[0, 7])];
            frame.splice(12..12, tag);
        }
    }
}

fn insert_options(random: &mut Random, frame: &mut Vec<u8>, view: &View) {
    let fits = random.chance(70);
    if view.v6 {
        let number = *random.pick(&[0, 43, 60]);
        let next = frame[LINK + 6];
        frame.splice(LINK + 40..LINK + 40, [next, 0, 1, 4, 0, 0, 0, 0]);
        frame[LINK + 6] = number;
        if fits {
            let length = be16(frame, LINK + 4).unwrap_or_default().wrapping_add(8);
            put16(frame, LINK + 4, length);
        }
    } else {
        let words = 1 + random.below(3);
        let option = *random.pick(&[0, 1, 7, 68, 131, 148]);
        frame.splice(LINK + 20..LINK + 20, vec![option; words * 4]);
        frame[LINK] = frame[LINK].wrapping_add(words as u8);
        if fits {
            let length = be16(frame, LINK + 2).unwrap_or_default().wrapping_add(words as u16 * 4);
            put16(frame, LINK + 2, length);
        }
    }
}

fn set(frame: &mut [u8], at: usize, value: u8) {
    if let Some(place) = frame.get_mut(at) {
        *place = value;
    }
}
