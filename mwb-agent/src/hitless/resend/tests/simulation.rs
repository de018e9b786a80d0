use proptest::prelude::*;

use super::world::{Link, World};
use super::*;

prop_compose! {
    fn link()(
        delay in 1_000u64..30_000,
        jitter in 0u64..5_000,
        loss in 0u64..300,
        ack_loss in 0u64..300,
    ) -> Link {
        Link { delay, jitter, loss, ack_loss }
    }
}

/// Path, when it dies and for how long.
type Death = (u8, u64, u64);

fn deaths(most: usize) -> impl Strategy<Value = Vec<Death>> {
    prop::collection::vec((1u8..5, 0u64..600_000, 1_000u64..400_000), 0..most)
}

fn world(settings: Settings, links: Vec<Link>, deaths: &[Death], seed: u64) -> World {
    let mut world = World::new(settings, links, 400, seed);
    for (path, at, time) in deaths {
        world.dies(*path, *at, *time);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// With enough budget. What is lost each time with at most four sendings in a deadline
    /// is seldom: 0.3^4, and more where acknowledgements are lost and the wait is long.
    #[test]
    fn each_packet_is_delivered_or_counted(
        links in prop::collection::vec(link(), 1..5),
        seed: u64,
    ) {
        let mut world = world(GENEROUS, links, &[], seed);
        let statistics = world.run().map_err(TestCaseError::fail)?;
        let missing = statistics.sent - world.delivered.len() as u64;
        prop_assert_eq!(statistics.sent, 400);
        prop_assert_eq!(statistics.held, 0);
        prop_assert_eq!(statistics.refused, 0);
        prop_assert!(missing <= statistics.expired);
        prop_assert!(missing <= 20, "{} are missing: {:?}", missing, statistics);
    }

    #[test]
    fn paths_that_die_make_no_difference_to_the_rules(
        links in prop::collection::vec(link(), 1..5),
        deaths in deaths(8),
        seed: u64,
    ) {
        let mut world = world(GENEROUS, links, &deaths, seed);
        let statistics = world.run().map_err(TestCaseError::fail)?;
        let missing = statistics.sent - world.delivered.len() as u64;
        prop_assert!(missing <= statistics.expired);
    }

    #[test]
    fn the_budget_is_never_exceeded(
        links in prop::collection::vec(link(), 1..5),
        deaths in deaths(8),
        budget_percent in 0u32..60,
        budget_burst in 0u64..2_000,
        disorder in 0u32..6,
        tries in 0u8..5,
        silence in prop::sample::select(vec![40 * MS, 100 * MS, 500 * MS]),
        seed: u64,
    ) {
        let settings =
            Settings { budget_percent, budget_burst, disorder, tries, silence, ..GENEROUS };
        let mut world = world(settings, links, &deaths, seed);
        let statistics = world.run().map_err(TestCaseError::fail)?;
        let missing = statistics.sent - world.delivered.len() as u64;
        prop_assert!(missing <= statistics.expired);
    }
}

#[test]
fn one_path_of_four_dies_and_nothing_is_missing() -> Result<(), String> {
    let link = Link { delay: 10_000, jitter: 1_000, loss: 0, ack_loss: 0 };
    let mut lost = 0;
    for seed in 0..10 {
        let settings = Settings { budget_burst: 0, budget_percent: 0, ..GENEROUS };
        let mut world = World::new(settings, vec![link.clone(); 4], 400, seed);
        world.dies(2, 150_000, 300_000);
        let statistics = world.run()?;
        assert_eq!(world.delivered.len(), 400, "{seed}: {statistics:?}");
        lost += statistics.lost_by_path_down;
    }
    assert!(lost > 10, "{lost}");
    Ok(())
}
