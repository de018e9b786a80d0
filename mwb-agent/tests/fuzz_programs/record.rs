//! What was done in an episode, as text that can be run again.

use crate::campaign::Line;
use crate::engine::{From, Setting, hex};

/// One thing done to the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Set(Setting),
    Packet(From, Vec<u8>),
}

impl Line for Step {
    fn begins(&self) -> bool {
        matches!(self, Step::Set(_))
    }

    fn line(&self) -> String {
        match self {
            Step::Set(setting) => format!("set {}", words(&setting.words())),
            Step::Packet(From::Lan, bytes) => format!("lan {}", hex(bytes)),
            Step::Packet(From::Wan(path) | From::Turned(path), bytes) => {
                format!("wan{path} {}", hex(bytes))
            }
        }
    }

    fn of_line(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        let from = match kind {
            "set" => return Some(Step::Set(Setting::of_words(of_words(rest)?))),
            "lan" => From::Lan,
            "wan1" => From::Wan(1),
            "wan2" => From::Wan(2),
            _ => return None,
        };
        Some(Step::Packet(from, unhex(rest)?))
    }
}

/// Numbers as text.
pub(crate) fn words(words: &[u16]) -> String {
    words.iter().map(u16::to_string).collect::<Vec<_>>().join(" ")
}

/// What [`words`] has written, if there are so many.
pub(crate) fn of_words<const N: usize>(text: &str) -> Option<[u16; N]> {
    let words: Option<Vec<u16>> = text.split(' ').map(|word| word.parse().ok()).collect();
    words?.try_into().ok()
}

/// What [`hex`] has written.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok())
        .collect()
}

#[test]
fn steps_are_read_as_they_were_written() {
    let setting = Setting::of_words([3, 3, 3, 1, 2, 0, 1, 2, 9, 1, 1, 1, 2, 1_500, 65_535]);
    let steps = vec![
        Step::Set(setting),
        Step::Packet(From::Lan, vec![0, 1, 0xff]),
        Step::Packet(From::Wan(2), vec![9]),
    ];
    assert_eq!(Step::read(&format!("# a remark\n{}", Step::write(&steps))), Ok(steps));
    assert!(Step::read("wan3 00").is_err());
}
