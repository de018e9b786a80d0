//! The agent's half: what has to be written so that the tables say what the rules say,
//! and no more. Must not know: maps, what rules are called.

use alloc::vec;
use alloc::vec::Vec;

use ipnet::IpNet;

use super::bank::Image;
use super::prefixes::{Key, Prefixes, key};
use super::rows::{Contents, v4, v6};
use super::write::{TooMuch, Write};
use super::{POLICY_BANKS, PolicyState, Rule, RuleBits, Side};

/// The rules, and what both banks say.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    image: Image,
    /// What the bank in use was made of, if it was made here.
    contents: Option<Contents>,
}

impl Policy {
    /// With what somebody before has left in the tables.
    #[must_use]
    pub fn found(image: Image) -> Self {
        Self { image, contents: None }
    }

    /// What the tables say.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Makes these the rules. The writes are to the bank that is not in use, and the last
    /// one switches.
    ///
    /// # Errors
    /// When it is more than the tables hold; nothing has changed then.
    pub fn set_rules(&mut self, rules: &[Rule]) -> Result<Vec<Write>, TooMuch> {
        let contents = Contents::of(rules)?;
        let before = self.image.state;
        if contents.rules.is_empty() {
            self.contents = Some(contents);
            self.image.state.words = 0;
            let state = self.image.state;
            return Ok(if state == before { vec![] } else { vec![Write::State(state)] });
        }
        let bank = (before.bank + 1) % POLICY_BANKS as u32;
        let words = contents.rules.len().div_ceil(64) as u32;
        let mut writes = self.image.banks[bank as usize].become_that(bank, &contents)?;
        self.image.state = PolicyState { bank, words };
        self.contents = Some(contents);
        writes.push(Write::State(self.image.state));
        Ok(writes)
    }

    /// Adds a destination to a rule, by its index, in the bank that is in use. One that
    /// it has already counts twice, until it is removed twice.
    ///
    /// # Errors
    /// When the rule is for any destination or is not there, or the tables are full;
    /// nothing has changed then.
    pub fn insert_destination(&mut self, rule: usize, net: IpNet) -> Result<Vec<Write>, TooMuch> {
        self.change(rule, net, true)
    }

    /// Takes a destination from a rule. That it has none such is no error.
    ///
    /// # Errors
    /// As above.
    pub fn remove_destination(&mut self, rule: usize, net: IpNet) -> Result<Vec<Write>, TooMuch> {
        self.change(rule, net, false)
    }

    fn change(&mut self, rule: usize, net: IpNet, adds: bool) -> Result<Vec<Write>, TooMuch> {
        let error = TooMuch::NoDestinations { rule };
        let contents = self.contents.as_mut().ok_or(error)?;
        let &(first, count) = contents.rows.get(rule).ok_or(error)?;
        if count == 0 {
            // A rule for no mark: it matches nothing, wherever that goes.
            return Ok(vec![]);
        }
        if contents.any_destination.has(usize::from(first)) {
            return Err(error);
        }
        let rows: Vec<u16> = (first..first + count).collect();
        let number = self.image.state.bank;
        let bank = &mut self.image.banks[number as usize];
        let side = Side::Destination as usize;
        let length = net.prefix_len();
        // Room for one more is asked for before it is put there.
        let full = if adds { contents.fits(1) } else { Ok(()) };
        if let Some(address) = v4(&net) {
            let key = key(address, length);
            let prefixes = &mut contents.prefixes4[side];
            if !prefixes.has(&key) {
                full?;
            }
            let done = turn(prefixes, key, &rows, adds);
            bank.revise4(number, &affected(prefixes, key))
                .inspect_err(|_| drop(turn(prefixes, key, &done, !adds)))
        } else if let Some(address) = v6(&net) {
            let key = key(address, length);
            let prefixes = &mut contents.prefixes6[side];
            if !prefixes.has(&key) {
                full?;
            }
            let done = turn(prefixes, key, &rows, adds);
            bank.revise6(number, &affected(prefixes, key))
                .inspect_err(|_| drop(turn(prefixes, key, &done, !adds)))
        } else {
            Ok(vec![])
        }
    }
}

/// Has rows name a prefix, or no longer; gives those for which that is new.
fn turn<const N: usize>(
    prefixes: &mut Prefixes<N>,
    key: Key<N>,
    rows: &[u16],
    adds: bool,
) -> Vec<u16> {
    let mut done = Vec::new();
    for row in rows {
        if adds {
            prefixes.add(key, *row);
            done.push(*row);
        } else if prefixes.remove(&key, *row) {
            done.push(*row);
        }
    }
    done
}

/// A prefix and all in it with what they must say now.
fn affected<const N: usize>(
    prefixes: &Prefixes<N>,
    key: Key<N>,
) -> Vec<(Key<N>, Option<RuleBits>)> {
    let gone = (!prefixes.has(&key)).then_some((key, None));
    let rest = prefixes.within(key).map(|key| (*key, Some(prefixes.bits(key))));
    gone.into_iter().chain(rest).collect()
}
