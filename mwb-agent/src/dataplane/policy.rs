//! Policy rules: written as a difference into the bank of tables that is not in use, which
//! then takes over; groups of names into the one that is. Must not know: names of rules or
//! of hosts, and why an outlet leads where it does.

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, IterableMap as _, MapData, MapError};
use mwb_common::maps::{Family, Selection, names};
use mwb_common::policy::{
    Image, NameBits, POLICY_GROUPS, Policed4, Policed6, Policy, PolicyMac, PolicyPlaces,
    PolicyRule, PolicyState, Rule, RuleBits, SPACE_BITS, TooMuch, Write,
};

use super::DataPlane;
use super::error::Error;
use super::maps::take;
use super::tables::table;

/// Handles of the tables, and what they say.
pub(super) struct PolicyTables {
    state: Array<MapData, PolicyState>,
    places: Array<MapData, PolicyPlaces>,
    macs: HashMap<MapData, PolicyMac, u16>,
    prefixes4: LpmTrie<MapData, Policed4, u16>,
    prefixes6: LpmTrie<MapData, Policed6, u16>,
    sets: Array<MapData, RuleBits>,
    rules: Array<MapData, PolicyRule>,
    groups: Array<MapData, NameBits>,
    /// `None`: not read yet, or a write has failed halfway.
    pub(super) policy: Option<Policy>,
}

impl PolicyTables {
    pub(super) fn take(object: &mut aya::Ebpf) -> Result<Self, Error> {
        Ok(Self {
            state: take(object, names::POLICY)?,
            places: take(object, names::POLICY_PLACES)?,
            macs: take(object, names::POLICY_MACS)?,
            prefixes4: take(object, names::POLICY_PREFIXES4)?,
            prefixes6: take(object, names::POLICY_PREFIXES6)?,
            sets: take(object, names::POLICY_SETS)?,
            rules: take(object, names::POLICY_RULES)?,
            groups: take(object, names::POLICY_GROUPS)?,
            policy: None,
        })
    }

    /// Works out a change and makes it. What a failure leaves in the bank that is not in
    /// use is read again before the next one.
    fn change(
        &mut self,
        of: impl FnOnce(&mut Policy) -> Result<Vec<Write>, TooMuch>,
    ) -> Result<(), Error> {
        let mut policy = match self.policy.take() {
            Some(policy) => policy,
            None => Policy::found(self.read()?, &self.groups()?),
        };
        match of(&mut policy) {
            Ok(writes) => writes.iter().try_for_each(|write| self.write(write))?,
            Err(refused) => {
                self.policy = Some(policy);
                return Err(refused.into());
            }
        }
        self.policy = Some(policy);
        Ok(())
    }

    fn write(&mut self, write: &Write) -> Result<(), Error> {
        let (name, result) = match write {
            Write::Set { entry, bits } => (names::POLICY_SETS, self.sets.set(*entry, **bits, 0)),
            Write::Places { entry, places } => {
                (names::POLICY_PLACES, self.places.set(*entry, *places, 0))
            }
            Write::Mac { mac, set: Some(set) } => {
                (names::POLICY_MACS, self.macs.insert(mac, set, 0))
            }
            Write::Mac { mac, set: None } => (names::POLICY_MACS, self.macs.remove(mac)),
            Write::Prefix4 { space, address, length, set } => {
                let data = Policed4 { space: *space, address: *address };
                let key = Key::new(SPACE_BITS + u32::from(*length), data);
                (names::POLICY_PREFIXES4, put(&mut self.prefixes4, &key, *set))
            }
            Write::Prefix6 { space, address, length, set } => {
                let data = Policed6 { space: *space, address: *address };
                let key = Key::new(SPACE_BITS + u32::from(*length), data);
                (names::POLICY_PREFIXES6, put(&mut self.prefixes6, &key, *set))
            }
            Write::Rule { entry, rule } => (names::POLICY_RULES, self.rules.set(*entry, *rule, 0)),
            Write::State(state) => (names::POLICY, self.state.set(0, *state, 0)),
        };
        result.map_err(Error::map(name))
    }

    /// What the tables say: what an agent before us has left.
    pub(super) fn read(&self) -> Result<Image, Error> {
        let mut image = Image::default();
        table::<u32, RuleBits>(self.sets.map(), names::POLICY_SETS, 1)?.for_each(
            |&entry, values| {
                for bits in values.iter().filter(|bits| **bits != RuleBits::NONE) {
                    image.note(&Write::Set { entry, bits: Box::new(*bits) });
                }
            },
        )?;
        table::<u32, PolicyPlaces>(self.places.map(), names::POLICY_PLACES, 1)?.for_each(
            |&entry, values| {
                for places in values {
                    image.note(&Write::Places { entry, places: *places });
                }
            },
        )?;
        table::<u32, PolicyRule>(self.rules.map(), names::POLICY_RULES, 1)?.for_each(
            |&entry, values| {
                for rule in values {
                    image.note(&Write::Rule { entry, rule: *rule });
                }
            },
        )?;
        for entry in self.macs.iter() {
            let (mac, set) = entry.map_err(Error::map(names::POLICY_MACS))?;
            image.note(&Write::Mac { mac, set: Some(set) });
        }
        for entry in self.prefixes4.iter() {
            let (key, set) = entry.map_err(Error::map(names::POLICY_PREFIXES4))?;
            let Policed4 { space, address } = key.data();
            let length = length(key.prefix_len());
            image.note(&Write::Prefix4 { space, address, length, set: Some(set) });
        }
        for entry in self.prefixes6.iter() {
            let (key, set) = entry.map_err(Error::map(names::POLICY_PREFIXES6))?;
            let Policed6 { space, address } = key.data();
            let length = length(key.prefix_len());
            image.note(&Write::Prefix6 { space, address, length, set: Some(set) });
        }
        image.note(&Write::State(self.state()?));
        Ok(image)
    }

    /// Names of each group.
    pub(super) fn groups(&self) -> Result<Vec<NameBits>, Error> {
        let mut groups = vec![NameBits::NONE; POLICY_GROUPS];
        table::<u32, NameBits>(self.groups.map(), names::POLICY_GROUPS, 1)?.for_each(
            |&entry, values| {
                for (group, bits) in groups.get_mut(entry as usize).into_iter().zip(values) {
                    *group = *bits;
                }
            },
        )?;
        Ok(groups)
    }

    fn state(&self) -> Result<PolicyState, Error> {
        self.state.get(&0, 0).map_err(Error::map(names::POLICY))
    }
}

/// Of an address alone.
fn length(bits: u32) -> u8 {
    u8::try_from(bits.saturating_sub(SPACE_BITS)).unwrap_or(u8::MAX)
}

fn put<K: aya::Pod>(
    trie: &mut LpmTrie<MapData, K, u16>,
    key: &Key<K>,
    set: Option<u16>,
) -> Result<(), MapError> {
    match set {
        Some(set) => trie.insert(key, set, 0),
        None => trie.remove(key),
    }
}

impl DataPlane {
    /// Makes these the policy rules, in their order, for flows that are opened from now
    /// on; a packet meets the old ones or the new ones. Only what differs is written.
    ///
    /// # Errors
    /// When it is more than the tables hold ([`Error::Policy`]; those before stay), or the
    /// kernel refuses a read or a write (those before stay too).
    pub fn set_policy(&mut self, rules: &[Rule]) -> Result<(), Error> {
        // What nobody asks need not be read.
        if rules.is_empty() && self.policy.policy.is_none() && self.policy.state()?.words == 0 {
            return Ok(());
        }
        self.policy.change(|policy| policy.set_rules(rules))
    }

    /// Says which names an address of a group has, before the first one is of it.
    ///
    /// # Errors
    /// As above, and when there is no such group.
    pub fn set_name_group(&mut self, group: u16, names: NameBits) -> Result<(), Error> {
        let entry = u32::from(group);
        self.policy.groups.set(entry, names, 0).map_err(Error::map(names::POLICY_GROUPS))?;
        self.policy.change(|policy| policy.set_group(group, names))
    }

    /// Reads the path choice of an outlet for a family.
    ///
    /// # Errors
    /// When there is no such outlet, or the kernel refuses to read.
    pub fn outlet(&self, outlet: u8, family: Family) -> Result<Selection, Error> {
        self.settings.selection(outlet, family)
    }

    /// Writes the path choice of an outlet for a family, in one update. Outlet 0 counts
    /// where no rule says another.
    ///
    /// # Errors
    /// When there is no such outlet, or the kernel refuses the write.
    pub fn set_outlet(
        &mut self,
        outlet: u8,
        family: Family,
        selection: &Selection,
    ) -> Result<(), Error> {
        self.settings.set_selection(outlet, family, selection)
    }
}
