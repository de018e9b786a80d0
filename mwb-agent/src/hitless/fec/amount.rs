//! How much parity a block gets.

use super::code::{MOST_DATA, MOST_PARITY};

/// Part of a path's packets: blocks of a path that loses less get no parity with
/// [`Amount::Auto`](super::Amount::Auto).
pub const CLEAN: f64 = 0.001;
/// A block may be lost in spite of its parity with less than this chance.
const RESIDUAL: f64 = 0.0005;

/// Chances that 0, 1, 2 and so on of some packets have a fate, up to what matters.
type Chances = [f64; MOST_PARITY + 1];

/// No packets: none of them has any fate.
const NONE: Chances = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];

/// Parity for each number of data packets, for what is lost now.
#[derive(Clone, Debug, Default)]
pub(super) struct Amounts {
    /// Part of data and of parity that is lost.
    loss: (f64, f64),
    /// By number of data packets, less 1.
    parity: [u8; MOST_DATA],
}

impl Amounts {
    /// Says what part of data and of parity is lost. What is no part is taken as 0 or 1.
    pub(super) fn set_loss(&mut self, data: f64, parity: f64) {
        // So that what is not a number is 0.
        let part = |loss: f64| if loss > 0.0 { loss.min(1.0) } else { 0.0 };
        let loss = (part(data), part(parity));
        if self.loss != loss {
            *self = Self { loss, parity: amounts(loss.0, loss.1) };
        }
    }

    /// Whether no block needs parity.
    pub(super) fn are_none(&self) -> bool {
        self.loss.0 < CLEAN
    }

    /// Parity of a block of `data` packets.
    pub(super) fn parity_for(&self, data: usize) -> u8 {
        data.checked_sub(1).and_then(|at| self.parity.get(at)).copied().unwrap_or(0)
    }
}

/// Parity for blocks of 1, 2, 3 and so on data packets: none if less than [`CLEAN`] of data
/// is lost; else the least with which the chance is below [`RESIDUAL`] that more data is
/// lost than parity arrives; but no more than [`MOST_PARITY`], if even that is not enough.
/// Losses are independent, so their numbers are binomial.
fn amounts(data_loss: f64, parity_loss: f64) -> [u8; MOST_DATA] {
    if data_loss < CLEAN {
        return [0; MOST_DATA];
    }
    let mut arrived = [NONE; MOST_PARITY];
    let mut chances = NONE;
    for of in &mut arrived {
        one_more(&mut chances, 1.0 - parity_loss);
        *of = chances;
    }
    let mut lost = NONE;
    std::array::from_fn(|_| {
        one_more(&mut lost, data_loss);
        let enough = |arrived: &Chances| more_lost_than(arrived, &lost) < RESIDUAL;
        let less = arrived.iter().position(enough).unwrap_or(MOST_PARITY - 1);
        less as u8 + 1
    })
}

/// Another packet, which has the fate with this `chance`.
fn one_more(chances: &mut Chances, chance: f64) {
    let mut fewer = 0.0;
    for exactly in chances {
        let before = *exactly;
        *exactly = before * (1.0 - chance) + fewer * chance;
        fewer = before;
    }
}

/// The chance that more are lost than arrived.
fn more_lost_than(arrived: &Chances, lost: &Chances) -> f64 {
    let mut at_most = 0.0;
    let enough = arrived.iter().zip(lost).map(|(arrived, lost)| {
        at_most += lost;
        arrived * at_most
    });
    1.0 - enough.sum::<f64>()
}

#[cfg(test)]
#[path = "amount_tests.rs"]
mod tests;
