//! What was done in an episode of the bond, as text that can be run again.

use std::fmt::Write as _;

use super::setting::Setting;
use crate::bond_world::{Door, Side};
use crate::engine::hex;
use crate::record::unhex;

/// One thing done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Set(Setting),
    /// A frame into the bond.
    Inside(Side, Door, Vec<u8>),
    /// A frame from a WAN, and whether its payload is as it was sealed.
    Outside(Side, u8, bool, Vec<u8>),
    /// A valid packet, from that end to the other.
    Good(Side),
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Gateway => "gateway",
        Side::Server => "server",
    }
}

pub(super) fn write(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        let _ = match step {
            Step::Set(setting) => {
                let words: Vec<_> = setting.words().iter().map(u16::to_string).collect();
                writeln!(text, "set {}", words.join(" "))
            }
            Step::Inside(side, Door::Lan, bytes) => {
                writeln!(text, "lan {} {}", name(*side), hex(bytes))
            }
            Step::Inside(side, _, bytes) => {
                writeln!(text, "device {} {}", name(*side), hex(bytes))
            }
            Step::Outside(side, wan, genuine, bytes) => {
                let what = if *genuine { "genuine" } else { "spoilt" };
                writeln!(text, "wan{wan} {} {what} {}", name(*side), hex(bytes))
            }
            Step::Good(side) => writeln!(text, "good {}", name(*side)),
        };
    }
    text
}

/// Lines that begin with `#` and empty ones are for people.
pub(super) fn read(text: &str) -> Result<Vec<Step>, String> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| step(line).ok_or_else(|| format!("not a step: {line}"))).collect()
}

fn step(line: &str) -> Option<Step> {
    let side = |name: &str| match name {
        "gateway" => Some(Side::Gateway),
        "server" => Some(Side::Server),
        _ => None,
    };
    match *line.split(' ').collect::<Vec<_>>().as_slice() {
        ["set", ref words @ ..] => {
            let words: Option<Vec<u16>> = words.iter().map(|word| word.parse().ok()).collect();
            Some(Step::Set(Setting::of_words(words?.try_into().ok()?)))
        }
        ["lan", end, bytes] => Some(Step::Inside(side(end)?, Door::Lan, unhex(bytes)?)),
        ["device", end, bytes] => Some(Step::Inside(side(end)?, Door::Device, unhex(bytes)?)),
        [wan @ ("wan1" | "wan2"), end, what @ ("genuine" | "spoilt"), bytes] => {
            let wan = if wan == "wan1" { 1 } else { 2 };
            Some(Step::Outside(side(end)?, wan, what == "genuine", unhex(bytes)?))
        }
        ["good", end] => Some(Step::Good(side(end)?)),
        _ => None,
    }
}

#[test]
fn steps_of_a_bond_are_read_as_they_were_written() {
    let steps = vec![
        Step::Set(Setting::of_words([1, 2, 600, 6, 2, 4, 1, 2])),
        Step::Inside(Side::Gateway, Door::Lan, vec![0, 1, 0xff]),
        Step::Inside(Side::Server, Door::Device, vec![7]),
        Step::Outside(Side::Gateway, 2, true, vec![9]),
        Step::Outside(Side::Server, 1, false, vec![8]),
        Step::Good(Side::Server),
    ];
    assert_eq!(read(&format!("# a remark\n\n{}", write(&steps))), Ok(steps));
    assert!(read("wan3 server spoilt 00").is_err());
}
