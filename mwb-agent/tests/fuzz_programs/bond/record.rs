//! What was done in an episode of the bond, as text that can be run again.

use super::setting::Setting;
use crate::bond_world::{Door, Side};
use crate::campaign::Line;
use crate::engine::hex;
use crate::record::{of_words, unhex, words};

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

impl Line for Step {
    fn begins(&self) -> bool {
        matches!(self, Step::Set(_))
    }

    fn line(&self) -> String {
        match self {
            Step::Set(setting) => format!("set {}", words(&setting.words())),
            Step::Inside(side, door, bytes) => {
                let door = if *door == Door::Lan { "lan" } else { "device" };
                format!("{door} {} {}", name(*side), hex(bytes))
            }
            Step::Outside(side, wan, genuine, bytes) => {
                let what = if *genuine { "genuine" } else { "spoilt" };
                format!("wan{wan} {} {what} {}", name(*side), hex(bytes))
            }
            Step::Good(side) => format!("good {}", name(*side)),
        }
    }

    fn of_line(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        if kind == "set" {
            return Some(Step::Set(Setting::of_words(of_words(rest)?)));
        }
        let (end, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let side = match end {
            "gateway" => Side::Gateway,
            "server" => Side::Server,
            _ => return None,
        };
        let wan = match kind {
            "lan" => return Some(Step::Inside(side, Door::Lan, unhex(rest)?)),
            "device" => return Some(Step::Inside(side, Door::Device, unhex(rest)?)),
            "good" => return Some(Step::Good(side)),
            "wan1" => 1,
            "wan2" => 2,
            _ => return None,
        };
        let (what, bytes) = rest.split_once(' ')?;
        let genuine = match what {
            "genuine" => true,
            "spoilt" => false,
            _ => return None,
        };
        Some(Step::Outside(side, wan, genuine, unhex(bytes)?))
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
    assert_eq!(Step::read(&format!("# a remark\n\n{}", Step::write(&steps))), Ok(steps));
    assert!(Step::read("wan3 server spoilt 00").is_err());
}
