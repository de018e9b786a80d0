//! The path of a packet that goes into the bond, and what its bucket learns of it.
//! Also whether a probe is due that the agent has let pass.

use mwb_common::{
    classes::{class, repair, spend},
    integrity::Suite,
    maps::{
        BOND_PATHS as PATHS_OF_SESSION, Bond, Bucket, LONG_TEXT, Session, bond_choice,
        bond_path_flag, bucket_flag, bucket_index, has_turns, path_index, turn_clock,
    },
    parse::ETHERNET,
    reason::Reason,
    select::{
        self,
        arrival::{Choice, Facts, Flow, Weight, busy},
        pace::{carry, is_idle, pace},
    },
    wire::flag,
};

use super::{
    class::{Ruled, bond_class},
    order::has_agent,
    outer::{Way, outer_length, overhead},
    work::Work,
};
use crate::{
    atomic::{change, fetch_add, fetch_add32},
    maps::{
        BOND, BOND_PATHS, BUCKETS, PATH_STATES, SESSION_SELECTIONS, SESSION_STATES, SESSIONS, TICKS,
    },
};

/// How long a CPU goes by the paths that it has found, in ns. To look at all that there can
/// be takes as long as all else of the choice.
const LOOK: u64 = 100_000;
/// A bucket that has been empty for so long, in ns, is the next flow's.
const IDLE: u64 = 30_000_000_000;

/// Where a packet goes.
#[derive(Clone, Copy)]
pub(super) struct Chosen(u64);

/// Bits of a [`Chosen`]: the path is in the lowest byte, the flow sequence in the upper
/// half.
const STRIPED: u64 = 1 << 8;
const TICK: u64 = 1 << 9;
const COPIED: u64 = 1 << 10;
const ACKED: u64 = 1 << 11;
const FEC: u64 = 1 << 12;
/// A rule forbids it.
const BLOCKED: u64 = 1 << 13;

impl Chosen {
    /// What [`bond_choose`] has said.
    #[inline(always)]
    pub(super) const fn said(value: u64) -> Self {
        Self(value)
    }

    /// Id of the path.
    #[inline(always)]
    pub(super) fn path(self) -> Result<u8, Reason> {
        if self.0 & BLOCKED != 0 {
            Err(Reason::PolicyBlocked)
        } else if self.0 as u8 == 0 {
            Err(Reason::NoBondPath)
        } else {
            Ok(self.0 as u8)
        }
    }

    /// It is to be sent round, with a copy that makes a probe of the path.
    #[inline(always)]
    pub(super) fn is_tick(self) -> bool {
        self.0 & TICK != 0
    }

    /// It is sent twice, the second time by [`Work::other`].
    #[inline(always)]
    pub(super) fn is_copied(self) -> bool {
        self.0 & COPIED != 0
    }

    /// Its flags in the header: it has a turn if its flow goes by several paths, or what is
    /// lost of it is repaired, or another of its bucket was so of late.
    #[inline(always)]
    pub(super) fn flags(self) -> u8 {
        let ordered = if self.0 & (STRIPED | ACKED | FEC) != 0 { flag::ORDERED } else { 0 };
        let acked = if self.0 & ACKED != 0 { flag::ACKED } else { 0 };
        ordered | acked | if self.0 & FEC != 0 { flag::FEC } else { 0 }
    }

    /// Its number in its bucket.
    #[inline(always)]
    pub(super) fn flow_sequence(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Chooses a path for an inner packet; says a [`Chosen`]. A global function: the verifier
/// walks it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn bond_choose() -> u64 {
    let Ok(work) = Work::room() else { return 0 };
    let (slot, bucket, now) = (work.slot, work.heading.bucket, work.now);
    let length = work.end.wrapping_sub(ETHERNET);
    let Some(session) = SESSIONS.get(slot) else { return 0 };
    let Some(bucket_state) = BUCKETS.get_ptr_mut(bucket_index(slot, bucket)) else {
        return 0;
    };
    // SAFETY: a map value. Other CPUs write it, too: packets of one flow come by one
    // as a rule, and what is lost else is a count.
    let entry = unsafe { &mut *bucket_state };
    open_bucket(entry, work, now);
    let weight = weigh(entry, now, length);
    let rule = Ruled::said(bond_class(length));
    let (class, repairs) = (rule.class(), rule.repair());
    if class == class::BLOCK {
        rule.count(length);
        return BLOCKED;
    }
    let elephant = match class {
        class::PIN => false,
        class::STRIPE => true,
        _ => weight.elephant,
    };
    let flow = Flow { path: entry.path, pause: now.saturating_sub(entry.last_seen), elephant };
    let stripe = if repairs == 0 { session.stripe } else { session.repaired as u32 };
    let Some(bond) = BOND.get(0) else { return 0 };
    let Some(suite) = Suite::from_number(session.suite) else { return 0 };
    work.head = overhead(suite, false);
    work.late = now.wrapping_sub(bond.probe_interval / 2);
    work.late_idle = now.wrapping_sub(bond.idle_interval / 2);
    look_around(work, slot, now);
    let mut among = rule.among();
    work.choice = Choice::new(now, stripe & among, flow);
    consider_all(work, (slot, among), length);
    if work.parked == 0 && rule.falls_back() {
        among = u32::MAX;
        work.choice = Choice::new(now, stripe, flow);
        consider_all(work, (slot, among), length);
    }
    if work.due != 0 && claim(path_index(slot, work.due as u8), now) {
        return TICK | work.due as u8 as u64;
    }
    let (path, striped) = decide(work, session, slot, (bucket as u32, class));
    if path == 0 {
        return 0;
    }
    rule.count(length);
    queue(path_index(slot, path), work.head + length, now);
    note(entry, weight, path, striped, length, now);
    entry.class = class;
    let mut flags = if striped { STRIPED } else { 0 };
    // Without an agent nothing is repaired: the far end is not to wait for it.
    if repairs != 0 && length <= LONG_TEXT as u32 && has_agent(now) {
        if repairs & repair::RETRANSMIT != 0 {
            flags |= ACKED;
        }
        if repairs & repair::FEC != 0 && is_protected(slot, path) {
            flags |= FEC;
        }
    }
    let clock = turn_clock(now);
    if flags != 0 {
        entry.turned = clock;
    } else if has_turns(entry.turned, clock) {
        flags = STRIPED;
    }
    if class == class::DUPLICATE {
        work.other = bond_second(slot, length, !among & !NOT_PARKED | 1 << (path & 15)) as u8;
        if work.other != 0 {
            flags |= COPIED;
        }
    }
    // SAFETY: a map value.
    let number = unsafe { fetch_add32(&raw mut (*bucket_state).sequence, 1) }.wrapping_add(1);
    path as u64 | flags | (number as u64) << 32
}

/// Whether packets that go by a path are put in blocks with parity, if they are of a class
/// that asks for that.
#[inline(always)]
fn is_protected(slot: u32, path: u8) -> bool {
    let path = BOND_PATHS.get(path_index(slot, path));
    path.is_some_and(|path| path.flags & bond_path_flag::PROTECTED != 0)
}

/// Takes into account the paths of a session that are `among` these.
#[inline(always)]
fn consider_all(work: &mut Work, (slot, among): (u32, u32), length: u32) {
    (work.living, work.parked, work.usable, work.due) = (0, 0, 0, 0);
    let now = work.now;
    let mut path = 1;
    while path < PATHS_OF_SESSION as u32 && work.present >> path != 0 {
        if (work.present & among) >> path & 1 != 0 {
            bond_consider(path_index(slot, path as u8), length, now);
        }
        path += 1;
    }
}

/// Of [`bond_second`]: no parked path either.
pub(super) const NOT_PARKED: u32 = 1 << 31;

/// The path of another copy of a packet, or of its parity, or 0: the best that lives but
/// for `not`, by bit, and has what that costs. A global function.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn bond_second(slot: u32, length: u32, not: u32) -> u32 {
    let (Ok(work), Some(bond)) = (Work::room(), BOND.get(0)) else { return 0 };
    // Without the devices there is no way round.
    if TICKS.get_ifindex(1).is_none() {
        return 0;
    }
    let now = work.now;
    work.choice = Choice::new(now, 0, Flow { path: 0, pause: 0, elephant: false });
    let mut path = 1;
    while path < PATHS_OF_SESSION as u32 && work.present >> path != 0 {
        if (work.present & !not) >> path & 1 != 0 {
            let index = path_index(slot, path as u8);
            if (not & NOT_PARKED == 0 || !is_parked(index))
                && affords(bond, index, length, now).is_some()
            {
                bond_consider(index, length, now);
            }
        }
        path += 1;
    }
    let chosen = work.choice.decide();
    let index = path_index(slot, chosen.path);
    if chosen.path == 0 || chosen.forced {
        return 0;
    }
    let Some(spent) = affords(bond, index, length, now) else { return 0 };
    let Some(state) = PATH_STATES.get_ptr_mut(index) else { return 0 };
    // SAFETY: a map value.
    unsafe {
        // Not written for each packet: other CPUs read it for each.
        if (*state).budget_spent != spent {
            (*state).budget_spent = spent;
        }
    }
    queue(index, work.head + length, now);
    chosen.path as u32
}

#[inline(always)]
fn is_parked(index: u32) -> bool {
    BOND_PATHS.get(index).is_none_or(|path| path.flags & bond_path_flag::PARKED != 0)
}

/// Whether a path may carry a copy, and its [`PathState::budget_spent`] then.
#[inline(always)]
fn affords(bond: &Bond, index: u32, length: u32, now: u64) -> Option<u64> {
    let path = BOND_PATHS.get(index)?;
    let state = PATH_STATES.get(index)?;
    let metered = path.flags & bond_path_flag::METERED != 0;
    let rate = if metered { bond.copy_budget } else { u32::MAX };
    spend(now, state.budget_spent, length, rate)
}

/// What an outer IPv6 header has more than one of IPv4.
#[inline(always)]
const fn more(is_v6: bool) -> u32 {
    outer_length(is_v6) - outer_length(false)
}

/// Has [`Work::present`] be that of a session.
#[inline(always)]
pub(super) fn look_around(work: &mut Work, slot: u32, now: u64) {
    if work.present_of != slot || now.wrapping_sub(work.present_at) > LOOK {
        (work.present, work.present_of, work.present_at) = (bond_present(slot), slot, now);
    }
}

/// The paths of a session that are there, by bit. A global function.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_present(slot: u32) -> u32 {
    let mut present = 0;
    let mut path = 1;
    while path < PATHS_OF_SESSION as u32 {
        let entry = BOND_PATHS.get(path_index(slot, path as u8));
        if entry.is_some_and(|path| path.flags & bond_path_flag::PRESENT != 0) {
            present |= 1 << path;
        }
        path += 1;
    }
    present
}

/// Takes a path of a session into account. A global function.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_consider(index: u32, length: u32, now: u64) -> u32 {
    let Some(way) = Way::of(index) else { return 0 };
    let Ok(work) = Work::room() else { return 0 };
    if !way.is_usable() {
        return 0;
    }
    let path = index & (PATHS_OF_SESSION as u32 - 1);
    // SAFETY: a map value.
    let state = unsafe { &*way.state };
    let late = if is_idle(way.path, state, now) { work.late_idle } else { work.late };
    if state.probe_due < late {
        work.due = path;
    }
    let outside = length + work.head + more(way.is_v6);
    if outside > way.path.mtu {
        return 0;
    }
    let facts = Facts::of(way.path, state);
    let bit = 1 << path;
    work.usable |= bit;
    if facts.lives(now) {
        work.parked |= bit;
        if facts.flags & bond_path_flag::PARKED == 0 {
            work.living |= bit;
        }
    }
    work.choice.consider(path as u8, outside, &facts);
    0
}

/// Makes the bucket the flow's, if it was nobody's.
#[inline(always)]
fn open_bucket(entry: &mut Bucket, work: &Work, now: u64) {
    if entry.opened != 0 && now.saturating_sub(entry.last_seen) <= IDLE {
        return;
    }
    // All but what other CPUs count on at this moment: numbers, and which copies are sent.
    (entry.opened, entry.last_seen, entry.key) = (now, now, work.key);
    (entry.packets, entry.bytes, entry.window_from, entry.window_bytes) = (0, 0, 0, 0);
    (entry.path, entry.flags, entry.class) = (0, 0, class::AUTO);
}

#[inline(always)]
fn weigh(entry: &Bucket, now: u64, length: u32) -> Weight {
    let limit = BOND.get(0).map_or(u32::MAX, |bond| bond.elephant_bytes);
    let weight = Weight {
        from: entry.window_from,
        bytes: entry.window_bytes,
        elephant: entry.flags & bucket_flag::ELEPHANT != 0,
    };
    weight.count(now, length, limit)
}

/// Whether this packet is to make the probe that is due: one does.
#[inline(always)]
fn claim(index: u32, now: u64) -> bool {
    let Some(bond) = BOND.get(0) else { return false };
    let Some(way) = Way::of(index) else { return false };
    // Without the devices there is no way round.
    if TICKS.get_ifindex(1).is_none() {
        return false;
    }
    // SAFETY: a map value.
    unsafe {
        let next = now + pace(bond, way.path, &*way.state, now).interval;
        let due = (*way.state).probe_due;
        change(&raw mut (*way.state).probe_due, due, next | 1)
    }
}

/// The path of a packet (0 = there is none), and whether its flow goes by several.
#[inline(always)]
fn decide(work: &mut Work, session: &Session, slot: u32, (bucket, class): (u32, u8)) -> (u8, bool) {
    let chosen = work.choice.decide();
    let set = match (work.living, work.parked) {
        (0, 0) => work.usable,
        (0, parked) => parked,
        (living, _) => living,
    };
    let choice = match (session.choice, class) {
        (bond_choice::COUNTER, class::PIN) => bond_choice::BUCKET,
        (bond_choice::BUCKET, class::STRIPE) => bond_choice::COUNTER,
        (choice, _) => choice,
    };
    let index = match choice {
        bond_choice::COUNTER => running(slot),
        bond_choice::BUCKET => bucket,
        _ => return (chosen.path, chosen.striped),
    };
    let picked = bond_pick(slot, index, set);
    // What no table names goes where it arrives first.
    let path = if picked == 0 { chosen.path } else { picked as u8 };
    (path, choice == bond_choice::COUNTER)
}

/// The path for a slot, or 0 if it has none of the `set`. A global function: the
/// verifier walks its loop once.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_pick(slot: u32, index: u32, set: u32) -> u32 {
    let Some(selection) = SESSION_SELECTIONS.get(slot) else { return 0 };
    let is_of = |path: u8| set >> (path as u32 & 31) & 1 != 0;
    let path = select::pick(selection, index, is_of);
    if is_of(path) { path as u32 } else { 0 }
}

/// The running number of the session.
#[inline(always)]
fn running(slot: u32) -> u32 {
    let Some(state) = SESSION_STATES.get_ptr_mut(slot) else { return 0 };
    // SAFETY: a map value.
    unsafe { fetch_add32(&raw mut (*state).cursor, 1) }
}

/// Puts a packet into the virtual queue of its path.
#[inline(always)]
fn queue(index: u32, length: u32, now: u64) {
    let Some(bond) = BOND.get(0) else { return };
    let Some(way) = Way::of(index) else { return };
    let outside = length + more(way.is_v6);
    // SAFETY: a map value.
    unsafe {
        let state = &mut *way.state;
        state.busy_until = busy(now, state.busy_until, outside, way.path.byte_time);
        if !Facts::of(way.path, state).lives(now) {
            fetch_add(&raw mut state.forced, 1);
        }
        carry(bond, way.path, state, now);
    }
}

#[inline(always)]
fn note(entry: &mut Bucket, weight: Weight, path: u8, striped: bool, length: u32, now: u64) {
    entry.last_seen = now;
    entry.window_from = weight.from;
    entry.window_bytes = weight.bytes;
    entry.packets += 1;
    entry.bytes += length as u64;
    entry.path = path;
    let elephant = if weight.elephant { bucket_flag::ELEPHANT } else { 0 };
    entry.flags = elephant | if striped { bucket_flag::STRIPED } else { 0 };
}
