//! What was done in an episode, as text that can be run again.

use std::fmt::Write as _;

use crate::engine::{From, Setting, hex};

/// One thing done to the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Set(Setting),
    Packet(From, Vec<u8>),
}

pub(crate) fn write(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        let _ = match step {
            Step::Set(setting) => {
                let words: Vec<_> = setting.words().iter().map(u16::to_string).collect();
                writeln!(text, "set {}", words.join(" "))
            }
            Step::Packet(From::Lan, bytes) => writeln!(text, "lan {}", hex(bytes)),
            Step::Packet(From::Wan(path) | From::Turned(path), bytes) => {
                writeln!(text, "wan{path} {}", hex(bytes))
            }
        };
    }
    text
}

/// Lines that begin with `#` and empty ones are for people.
pub(crate) fn read(text: &str) -> Result<Vec<Step>, String> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| step(line).ok_or_else(|| format!("not a step: {line}"))).collect()
}

fn step(line: &str) -> Option<Step> {
    let (kind, rest) = line.split_once(' ')?;
    if kind == "set" {
        let words: Option<Vec<u16>> = rest.split(' ').map(|word| word.parse().ok()).collect();
        return Some(Step::Set(Setting::of_words(words?.try_into().ok()?)));
    }
    let from = match kind {
        "lan" => From::Lan,
        "wan1" => From::Wan(1),
        "wan2" => From::Wan(2),
        _ => return None,
    };
    Some(Step::Packet(from, unhex(rest)?))
}

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
    assert_eq!(read(&format!("# a remark\n{}", write(&steps))), Ok(steps));
    assert!(read("wan3 00").is_err());
}
