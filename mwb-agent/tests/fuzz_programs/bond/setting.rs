//! What an episode of the bond, or a part of one, runs under.

use mwb_common::integrity::Suite;
use mwb_common::maps::{BondPath, Session, bond_choice, bond_path_flag};

use crate::bond_world::{self, EPOCH, Side};
use crate::random::Random;

/// The paths of the session.
pub(super) const PATHS: [u8; 2] = [1, 2];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Outer packets are IPv6.
    pub(super) outer6: bool,
    /// One of `bond_choice`.
    pub(super) choice: u8,
    /// Of the session.
    pub(super) mtu: u16,
    /// Paths whose probes are answered, a bit each.
    pub(super) alive: u8,
    /// Paths that are not to be used, and those that are worse than nothing.
    pub(super) down: u8,
    pub(super) parked: u8,
    /// The LAN port of the gateway takes frames.
    pub(super) direct: bool,
    /// 0: one epoch, 1: one before it opens as well, 2: the newest is not heard of yet.
    pub(super) keys: u8,
}

impl Setting {
    pub(super) fn any(random: &mut Random) -> Self {
        Setting {
            outer6: random.chance(40),
            choice: *random.pick(&[
                bond_choice::COUNTER,
                bond_choice::BUCKET,
                bond_choice::ARRIVAL,
            ]),
            mtu: *random.pick(&[1_400, 1_400, 1_280, 600]),
            alive: *random.pick(&[6, 6, 6, 2, 4, 0]),
            down: *random.pick(&[0, 0, 0, 2, 4, 6]),
            parked: *random.pick(&[0, 0, 0, 2, 4, 6]),
            direct: random.chance(50),
            keys: random.below(3) as u8,
        }
    }

    /// Something else has changed.
    pub(super) fn another(self, random: &mut Random) -> Self {
        let new = Self::any(random);
        match random.below(6) {
            0 => Setting { outer6: new.outer6, ..self },
            1 => Setting { choice: new.choice, mtu: new.mtu, ..self },
            2 => Setting { alive: new.alive, ..self },
            3 => Setting { down: new.down, parked: new.parked, ..self },
            4 => Setting { direct: new.direct, ..self },
            _ => Setting { keys: new.keys, ..self },
        }
    }

    /// The words of it, for a file.
    pub(super) fn words(self) -> [u16; 8] {
        let byte = u16::from;
        [
            self.outer6.into(),
            byte(self.choice),
            self.mtu,
            byte(self.alive),
            byte(self.down),
            byte(self.parked),
            self.direct.into(),
            byte(self.keys),
        ]
    }

    pub(super) fn of_words(words: [u16; 8]) -> Self {
        let [outer6, choice, mtu, alive, down, parked, direct, keys] = words;
        Setting {
            outer6: outer6 != 0,
            choice: choice as u8,
            mtu,
            alive: alive as u8,
            down: down as u8,
            parked: parked as u8,
            direct: direct != 0,
            keys: keys as u8,
        }
    }

    pub(super) fn epoch(self) -> u32 {
        EPOCH + u32::from(self.keys == 2)
    }

    /// Whether packets of epochs of this parity open.
    pub(super) fn opens(self, parity: u8) -> bool {
        self.keys != 0 || parity == 0
    }

    /// The parity that seals until the newest epoch was heard of.
    pub(super) fn seals(self, side: Side) -> u8 {
        u8::from(self.keys == 2 && side == Side::Gateway)
    }

    pub(super) fn session(self, side: Side, suite: Suite) -> Session {
        Session {
            mtu: self.mtu.into(),
            epoch: self.epoch(),
            choice: self.choice,
            stripe: 6,
            opens: if self.opens(1) { 3 } else { 1 },
            seals: self.seals(side),
            ..bond_world::session(side, suite)
        }
    }

    pub(super) fn path(self, side: Side, id: u8) -> BondPath {
        let flag = |set: u8, flag: u32| if set >> id & 1 != 0 { flag } else { 0 };
        let path = bond_world::path(side, id, self.outer6);
        BondPath {
            flags: path.flags
                | flag(self.down, bond_path_flag::DOWN)
                | flag(self.parked, bond_path_flag::PARKED),
            byte_time: 80_000 * u32::from(id),
            delay: 1_000_000 * u32::from(id),
            ..path
        }
    }

    /// Until when a path is alive.
    pub(super) fn alive_until(self, id: u8) -> u64 {
        if self.alive >> id & 1 != 0 { u64::MAX } else { 0 }
    }

    /// The paths that may carry data: the living, or those that are parked if no other
    /// lives, or all if none does.
    pub(super) fn carriers(self) -> u8 {
        let living = self.alive & !self.down;
        match (living & !self.parked, living) {
            (0, 0) => 6,
            (0, parked) => parked,
            (best, _) => best,
        }
    }
}
