//! The paths of a bond that a rule of classes keeps packets to.

use std::fmt;

use mwb_common::classes::{ONLY, class};
use mwb_common::maps::BOND_PATHS;

use super::policy::Fallback;
use super::policy_read::World;
use super::read::one_or_more;
use super::reader::{Fault, Fields};
use super::{Role, schema};

/// Which paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paths {
    /// Those of these WANs: of a gateway.
    Wans(Vec<String>),
    /// Those with these ids: of a server, whose clients have the WANs.
    Ids(Vec<u8>),
}

/// Which paths, and what becomes of packets while none of them lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Among {
    /// The paths.
    pub paths: Paths,
    /// What becomes of packets then.
    pub fallback: Fallback,
}

impl Among {
    /// As the kernel side reads it: see [`mwb_common::classes::ClassRule::paths`]. `id` says
    /// which path a WAN has; one that has none is of no use.
    #[must_use]
    pub fn bits(&self, id: impl Fn(&str) -> Option<u8>) -> u16 {
        let bit = |id: u8| if usize::from(id) < BOND_PATHS { 1_u16 << id } else { 0 };
        let paths = match &self.paths {
            Paths::Wans(names) => names.iter().filter_map(|name| id(name)).map(bit).sum::<u16>(),
            Paths::Ids(ids) => ids.iter().copied().map(bit).sum(),
        };
        paths | if self.fallback == Fallback::Strict { ONLY } else { 0 }
    }

    /// The inverse, with the names that paths have now.
    #[must_use]
    pub fn of(bits: u16, name: impl Fn(u8) -> Option<String>) -> Option<Self> {
        if bits == 0 {
            return None;
        }
        let ids: Vec<u8> =
            (1..BOND_PATHS as u8).filter(|id| bits >> u32::from(*id) & 1 != 0).collect();
        let names: Option<Vec<String>> = ids.iter().map(|id| name(*id)).collect();
        Some(Self {
            paths: names.map_or(Paths::Ids(ids), Paths::Wans),
            fallback: if bits & ONLY == 0 { Fallback::Prefer } else { Fallback::Strict },
        })
    }
}

/// As it is written in the file.
impl fmt::Display for Among {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match &self.paths {
            Paths::Wans(names) => names.clone(),
            Paths::Ids(ids) => ids.iter().map(u8::to_string).collect(),
        };
        match words.as_slice() {
            [one] => write!(f, "paths: {one}")?,
            several => write!(f, "paths: [{}]", several.join(", "))?,
        }
        match self.fallback {
            Fallback::Prefer => Ok(()),
            Fallback::Strict => f.write_str(", fallback: strict"),
        }
    }
}

/// The keys `paths` and `fallback` of a rule with this class and these repairs.
pub(super) fn read_among(
    rule: &Fields<'_>,
    (class, repairs): (u8, u8),
    world: &World<'_>,
) -> Result<Option<Among>, Fault> {
    let Some(at) = rule.get("paths") else {
        return match rule.get("fallback") {
            None => Ok(None),
            Some(at) => Err(at.key_fault(
                "it has no effect without `paths`",
                "remove it, or say in `paths` which paths are meant",
            )),
        };
    };
    if class == class::BLOCK {
        return Err(at.key_fault("what is dropped goes by no path", "remove it"));
    }
    let paths = match world.role {
        Role::Gateway => {
            let words: Vec<_> =
                world.wans.iter().map(|wan| (wan.name.as_str(), wan.name.as_str())).collect();
            Paths::Wans(one_or_more(at, "fiber", schema::BOND_WANS, |at| {
                at.word(&words, &[]).map(str::to_owned)
            })?)
        }
        Role::Server => Paths::Ids(one_or_more(at, "1", schema::BOND_WANS, |at| {
            at.integer(&schema::BOND_PATH).map(|id| u8::try_from(id).unwrap_or(u8::MAX))
        })?),
    };
    let words = Fallback::ALL.map(|fallback| (fallback.name(), fallback));
    let fallback = rule.or("fallback", Fallback::Prefer, |at| at.word(&words, &[]))?;
    if let Some(at) = rule.get("fallback")
        && fallback == Fallback::Strict
        && repairs != 0
    {
        return Err(at.fault(
            "what is lost is repaired by other paths",
            "remove `repair`, or write `fallback: prefer`",
        ));
    }
    Ok(Some(Among { paths, fallback }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_say_which_paths_and_whether_no_other() {
        let id =
            |name: &str| ["a", "b"].iter().position(|other| *other == name).map(|at| at as u8 + 1);
        let name = |id: u8| ["a", "b"].get(usize::from(id) - 1).map(|&name| name.to_owned());
        let wans = |names: &[&str], fallback| Among {
            paths: Paths::Wans(names.iter().map(|&name| name.to_owned()).collect()),
            fallback,
        };
        for (among, bits) in [
            (wans(&["a"], Fallback::Prefer), 0b10),
            (wans(&["a", "b"], Fallback::Strict), 0b111),
            (Among { paths: Paths::Ids(vec![3, 15]), fallback: Fallback::Prefer }, 0x8008),
        ] {
            assert_eq!(among.bits(id), bits);
            assert_eq!(Among::of(bits, name), Some(among));
        }
        // A WAN that has no path: others if they may, none if not.
        assert_eq!(wans(&["c"], Fallback::Prefer).bits(id), 0);
        assert_eq!(wans(&["c"], Fallback::Strict).bits(id), ONLY);
        assert_eq!(Among::of(0, name), None);
    }
}
