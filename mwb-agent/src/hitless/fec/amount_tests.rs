use proptest::prelude::*;

use super::*;

/// The chance that just so many of `of` have a fate, by its definition.
fn exactly(count: u8, of: u8, chance: f64) -> f64 {
    let choose = (0..count).fold(1.0, |product, i| product * f64::from(of - i) / f64::from(i + 1));
    choose * chance.powi(count.into()) * (1.0 - chance).powi((of - count).into())
}

/// The chance that more data is lost than parity arrives, by its definition.
fn reference(data: u8, data_loss: f64, parity: u8, parity_loss: f64) -> f64 {
    let more = |arrived| (arrived + 1..=data).map(|lost| exactly(lost, data, data_loss)).sum();
    let both = |arrived: u8| {
        let more: f64 = more(arrived);
        more * exactly(arrived, parity, 1.0 - parity_loss)
    };
    (0..=parity).map(both).sum()
}

fn parity_for(data: usize, data_loss: f64, parity_loss: f64) -> u8 {
    let mut amounts = Amounts::default();
    amounts.set_loss(data_loss, parity_loss);
    amounts.parity_for(data)
}

#[test]
fn parity_grows_with_loss_and_stops_at_the_most() {
    let of = |loss| parity_for(32, loss, 0.0);
    assert_eq!([0.0, 0.000_999].map(of), [0, 0]);
    assert_eq!([0.001, 0.002, 0.01, 0.02, 0.05].map(of), [1, 2, 3, 4, 7]);
    assert_eq!([0.1, 0.5, 1.0].map(of), [8, 8, 8]);
    assert_eq!([0.0, 0.01, 0.05, 0.5, 1.0].map(|lost| parity_for(32, 0.01, lost)), [3, 3, 4, 8, 8]);
    assert_eq!(parity_for(1, 0.05, 0.0), 1, "never lost");
    assert_eq!(parity_for(1, 0.05, 0.05), 2, "0.25 % that both of two are lost");
}

#[test]
fn there_is_none_for_blocks_of_none_or_too_many() {
    assert_eq!([0, 33, usize::MAX].map(|data| parity_for(data, 0.5, 0.0)), [0; 3]);
}

#[test]
fn what_is_no_part_is_taken_as_the_nearest() {
    let part = |loss| {
        let mut amounts = Amounts::default();
        amounts.set_loss(loss, loss);
        amounts.loss
    };
    let expected = [0.0, 0.0, 1.0, 1.0, 0.5].map(|part| (part, part));
    assert_eq!([f64::NAN, -1.0, 7.0, f64::INFINITY, 0.5].map(part), expected);
}

#[test]
fn what_changes_counts_and_the_same_again_costs_nothing() {
    let mut amounts = Amounts::default();
    assert!(amounts.are_none());
    amounts.set_loss(0.000_9, 0.5);
    assert!(amounts.are_none());
    amounts.set_loss(0.001, 0.5);
    assert!(!amounts.are_none());
    let before = amounts.parity_for(32);
    amounts.set_loss(0.001, 0.0);
    assert!(amounts.parity_for(32) < before, "parity alone");
    // Something that only a new table can bring back.
    amounts.parity = [77; 32];
    amounts.set_loss(0.001, 0.0);
    assert_eq!(amounts.parity_for(32), 77);
    amounts.set_loss(0.001_000_1, 0.0);
    assert_eq!(amounts.parity_for(32), 1);
}

proptest! {
    #[test]
    fn it_is_the_least_that_is_enough(
        data in 1u8..=32,
        data_loss in prop_oneof![0.001f64..0.05, 0.001f64..=1.0],
        parity_loss in prop_oneof![Just(0.0), 0.0f64..0.05, 0.0f64..=1.0],
    ) {
        let parity = parity_for(data.into(), data_loss, parity_loss);
        let chance = |parity| reference(data, data_loss, parity, parity_loss);
        prop_assert!((1..=8).contains(&parity));
        prop_assert!(parity == 8 || chance(parity) < RESIDUAL + 1e-12);
        prop_assert!(parity == 1 || chance(parity - 1) > RESIDUAL - 1e-12);
    }
}
