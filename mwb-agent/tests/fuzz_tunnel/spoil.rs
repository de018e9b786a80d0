//! Changes to bytes, without and with a look at what they are.

use crate::random::Random;

/// Longest packet.
const LONGEST: usize = 600;

/// The same bytes with up to three changes; now and then they are as before.
pub(crate) fn spoilt(random: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(3) {
        spoil(random, &mut bytes);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn spoil(random: &mut Random, bytes: &mut Vec<u8>) {
    // What a packet begins with is more telling than what is behind it.
    let reach = if random.chance(60) { bytes.len().min(40) } else { bytes.len() };
    let at = random.below(reach.max(1));
    match random.below(12) {
        _ if bytes.is_empty() => bytes.extend((0..random.below(48)).map(|_| random.byte())),
        0..4 => bytes[at] ^= 1 << random.below(8),
        4 => bytes[at] = random.byte(),
        5 => bytes[at] = *random.pick(&[0, 1, 2, 3, 4, 6, 0x10, 0x16, 0x7f, 0x80, 0xff]),
        6 => bytes.truncate(at),
        7 => bytes.insert(at, random.byte()),
        8 => drop(bytes.remove(at)),
        9 => bytes.extend((0..1 + random.below(40)).map(|_| random.byte())),
        10 => {
            let end = (at + 1 + random.below(16)).min(bytes.len());
            bytes[at..end].fill(0);
        }
        _ => {
            let from = random.below(bytes.len());
            bytes[at] = bytes[from];
        }
    }
}
