//! The packets that may have to be sent again, and where to find them: by number, by
//! place, by the time that something is due. Knows what is where, and what it costs, but
//! no rule.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::ack::LAST_PATH;

/// What a packet costs besides its bytes: its entries in all tables, half of which are
/// empty at worst.
pub(crate) const PACKET_COST: usize = 384;
/// What each place costs that a packet was at before.
pub(crate) const PLACE_COST: usize = 64;
/// What the memory of a packet that is gone costs.
const GONE_COST: usize = 64;

/// Bucket, and number in it.
pub(crate) type Key = (u16, u32);

/// A packet, in the order of the first sending.
pub(crate) type Id = u64;

/// Where a packet was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: u8,
    pub(crate) sequence: u64,
}

/// What has become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It was sent, and nothing was heard of it.
    Sent,
    /// It is lost, and waits for the budget.
    Lost,
    /// It was given out to be sent again, and was not seen to be.
    Given,
    /// It is lost, and has no tries left.
    GivenUp,
}

/// A packet that is not acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) key: Key,
    pub(crate) inner: u8,
    pub(crate) bytes: Arc<[u8]>,
    /// When it was sent for the first time.
    pub(crate) first: u64,
    /// When its state became what it is.
    pub(crate) since: u64,
    pub(crate) state: State,
    /// Where it was sent last.
    pub(crate) at: Place,
    former: Vec<Place>,
    /// How often it was given out,
    pub(crate) tries: u8,
    /// and was not seen to be sent.
    pub(crate) awaited: u8,
    /// It went again at no cost, as a path died.
    pub(crate) went_free: bool,
    due: Option<u64>,
}

impl Held {
    fn cost(&self) -> usize {
        PACKET_COST + self.bytes.len() + self.former.len() * PLACE_COST
    }
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    packets: BTreeMap<Id, Held>,
    keys: HashMap<Key, Id>,
    places: [BTreeMap<u64, Id>; LAST_PATH as usize + 1],
    due: BTreeSet<(u64, Id)>,
    lost: BTreeSet<Id>,
    late: BTreeSet<Id>,
    gone: VecDeque<(u64, Key)>,
    gone_keys: HashSet<Key>,
    next: Id,
    cost: usize,
}

impl Store {
    /// Adds a packet that is sent now.
    pub(crate) fn add(&mut self, key: Key, inner: u8, bytes: &[u8], at: Place, now: u64) -> Id {
        let id = self.next;
        self.next += 1;
        let held = Held {
            key,
            inner,
            bytes: Arc::from(bytes),
            first: now,
            since: now,
            state: State::Sent,
            at,
            former: Vec::new(),
            tries: 0,
            awaited: 0,
            went_free: false,
            due: None,
        };
        self.cost += held.cost();
        self.packets.insert(id, held);
        self.keys.insert(key, id);
        self.put(at, id);
        id
    }

    /// Takes in that a packet was sent once more, now and by another place. It can be
    /// acknowledged at any of them.
    pub(crate) fn move_to(&mut self, id: Id, at: Place, now: u64) {
        let Some(held) = self.packets.get_mut(&id) else { return };
        held.former.push(std::mem::replace(&mut held.at, at));
        held.awaited = held.awaited.saturating_sub(1);
        self.cost += PLACE_COST;
        self.put(at, id);
        self.set(id, State::Sent, now);
    }

    fn put(&mut self, at: Place, id: Id) {
        if let Some(places) = self.places.get_mut(usize::from(at.path)) {
            places.insert(at.sequence, id);
        }
    }

    /// Forgets a packet. If its copy may still come, it is known until `until` that it
    /// is none of a new packet.
    pub(crate) fn remove(&mut self, id: Id, until: u64) -> Option<Held> {
        self.set_due(id, None);
        self.lost.remove(&id);
        self.late.remove(&id);
        let held = self.packets.remove(&id)?;
        self.cost -= held.cost();
        self.keys.remove(&held.key);
        for place in held.former.iter().chain([&held.at]) {
            let places = self.places.get_mut(usize::from(place.path));
            // A later packet may have come to the same place.
            if let Some(places) = places
                && places.get(&place.sequence) == Some(&id)
            {
                places.remove(&place.sequence);
            }
        }
        if held.awaited > 0 && self.gone_keys.insert(held.key) {
            self.gone.push_back((until, held.key));
            self.cost += GONE_COST;
        }
        Some(held)
    }

    /// Forgets packets that are gone, up to those that are to be known longer.
    pub(crate) fn clear_gone(&mut self, now: u64) {
        while self.gone.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_gone();
        }
    }

    /// Forgets the packet that is gone for the longest time. False if there is none.
    pub(crate) fn forget_gone(&mut self) -> bool {
        let Some((_, key)) = self.gone.pop_front() else { return false };
        self.gone_keys.remove(&key);
        self.cost -= GONE_COST;
        true
    }

    /// Whether this is a packet that is gone, and whose copy was awaited.
    pub(crate) fn is_gone(&self, key: Key) -> bool {
        self.gone_keys.contains(&key)
    }

    /// Changes the state of a packet. Nothing is due.
    pub(crate) fn set(&mut self, id: Id, state: State, now: u64) {
        self.set_due(id, None);
        if let Some(held) = self.packets.get_mut(&id) {
            held.state = state;
            held.since = now;
            if state == State::Lost {
                self.lost.insert(id);
            } else {
                self.lost.remove(&id);
            }
        }
    }

    /// Says when something is due for a packet.
    pub(crate) fn set_due(&mut self, id: Id, due: Option<u64>) {
        let Some(held) = self.packets.get_mut(&id) else { return };
        if let Some(old) = std::mem::replace(&mut held.due, due) {
            self.due.remove(&(old, id));
        }
        if let Some(due) = due {
            self.due.insert((due, id));
        }
    }

    /// Says that the path was down already when the copy of this packet came.
    pub(crate) fn set_late(&mut self, id: Id) {
        self.late.insert(id);
    }

    /// The packets of which that was said since this was last called.
    pub(crate) fn take_late(&mut self) -> BTreeSet<Id> {
        std::mem::take(&mut self.late)
    }

    /// Whether there are any.
    pub(crate) fn has_late(&self) -> bool {
        !self.late.is_empty()
    }

    pub(crate) fn find(&self, key: Key) -> Option<Id> {
        self.keys.get(&key).copied()
    }

    pub(crate) fn get(&self, id: Id) -> Option<&Held> {
        self.packets.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut Held> {
        self.packets.get_mut(&id)
    }

    /// The packets that were sent by these places of a path, by sequence.
    pub(crate) fn sent_by(
        &self,
        path: u8,
        sequences: RangeInclusive<u64>,
    ) -> impl Iterator<Item = (Place, Id)> {
        let places = self.places.get(usize::from(path));
        places
            .into_iter()
            .flat_map(move |places| places.range(sequences.clone()))
            .map(move |(&sequence, &id)| (Place { path, sequence }, id))
    }

    /// Whether the packet was sent last by this place, and waits there.
    pub(crate) fn is_at(&self, id: Id, at: Place) -> bool {
        self.get(id).is_some_and(|held| held.at == at && held.state != State::Given)
    }

    /// The oldest packet.
    pub(crate) fn oldest(&self) -> Option<(Id, &Held)> {
        self.packets.first_key_value().map(|(id, held)| (*id, held))
    }

    /// The packet for which something is due first, and when.
    pub(crate) fn first_due(&self) -> Option<(u64, Id)> {
        self.due.first().copied()
    }

    /// The oldest packet in [`State::Lost`].
    pub(crate) fn first_lost(&self) -> Option<(Id, &Held)> {
        self.lost.first().and_then(|id| Some((*id, self.packets.get(id)?)))
    }

    /// How many packets are held.
    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }

    /// Bytes that count against the bound.
    pub(crate) fn cost(&self) -> usize {
        self.cost
    }
}
