//! The agent's half: what has to be written so that the tables say what the rules say,
//! and no more. Must not know: maps, what rules are called.

use alloc::vec;
use alloc::vec::Vec;

use super::bank::Image;
use super::rows::Contents;
use super::write::{TooMuch, Write};
use super::{NameBits, POLICY_BANKS, POLICY_GROUPS, PolicyState, Rule, asks, place};

/// The rules, and what both banks say.
#[derive(Clone, Debug)]
pub struct Policy {
    image: Image,
    /// Names of each group.
    groups: Vec<NameBits>,
    /// What the bank in use was made of, if it was made here.
    contents: Option<Contents>,
}

impl Default for Policy {
    fn default() -> Self {
        Self::found(Image::default(), &[])
    }
}

impl Policy {
    /// With what somebody before has left in the tables, and the names of each group.
    #[must_use]
    pub fn found(image: Image, groups: &[NameBits]) -> Self {
        let mut groups = groups.to_vec();
        groups.resize(POLICY_GROUPS, NameBits::NONE);
        Self { image, groups, contents: None }
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
        let contents = Contents::of(rules, &self.groups)?;
        let before = self.image.state;
        if contents.rules.is_empty() {
            self.contents = Some(contents);
            (self.image.state.words, self.image.state.asks) = (0, 0);
            let state = self.image.state;
            return Ok(if state == before { vec![] } else { vec![Write::State(state)] });
        }
        let bank = (before.bank + 1) % POLICY_BANKS as u8;
        let words = contents.rules.len().div_ceil(64) as u8;
        let tables = &mut self.image.banks[usize::from(bank)];
        let mut writes = tables.become_that(u32::from(bank), &contents)?;
        // Never 0: of that generation is what is known of no source.
        let generation = before.generation.checked_add(1).unwrap_or(1);
        self.image.state = PolicyState { bank, words, asks: contents.asks, generation };
        self.contents = Some(contents);
        writes.push(Write::State(self.image.state));
        Ok(writes)
    }

    /// Says which names an address of a group has, in the bank that is in use. Of a group
    /// that addresses are of this changes what matches them, in one write.
    ///
    /// # Errors
    /// When there is no such group, or more sets than the tables hold; nothing has
    /// changed then.
    pub fn set_group(&mut self, group: u16, names: NameBits) -> Result<Vec<Write>, TooMuch> {
        let error = TooMuch::Names { number: group };
        if group == 0 {
            return Err(error);
        }
        let known = self.groups.get_mut(usize::from(group)).ok_or(error)?;
        let state = self.image.state;
        let writes = match &self.contents {
            Some(contents) if state.asks & asks::NAME != 0 => {
                let bank = &mut self.image.banks[usize::from(state.bank)];
                let place = place::GROUP + u32::from(group);
                bank.revise(u32::from(state.bank), place, &contents.of_group(&names))?
            }
            // Nobody asks; or the next rules say it.
            _ => vec![],
        };
        *known = names;
        Ok(writes)
    }
}
