//! Some that are known to have gone wrong in other designs, each by itself.

use super::*;

/// 400 packets of one flow, one each ms, by three paths that lose so many in a thousand.
fn steady(class: Class, first: u32, loss: u64) -> Scenario {
    let link = |delay| Link { delay, jitter: 500, loss, twice: 5 };
    Scenario {
        links: [2_000, 5_000, 9_000].map(link).into(),
        flows: vec![class],
        first,
        packets: (0..400).map(|index| (1_000, 0, 60 + index % 7 * 100)).collect(),
        blocks: Settings { data: 8, ..Settings::default() },
        deaths: Vec::new(),
        restarts: Vec::new(),
        unlucky: 2,
        tick: 1_000,
        room: usize::MAX,
        seed: 7,
    }
}

fn run(scenario: &Scenario) -> Result<World, TestCaseError> {
    let world = World::run(scenario);
    nothing_twice_and_nothing_else(&world)?;
    what_came_is_delivered(&world)?;
    nothing_is_sent_too_often(&world)?;
    nothing_stays(&world)?;
    Ok(world)
}

#[test]
fn numbers_wrap_in_each_class() -> Judged {
    for class in ALL {
        let world = run(&steady(class, u32::MAX - 200, 60))?;
        order_is_kept(&world, &ALL)?;
        each_block_is_accounted_for(&world)?;
        let (sent, got) = (world.sent.len(), world.receiver.delivered.len());
        match class {
            Class::Retransmit | Class::Both => assert_eq!(got, sent),
            Class::Plain => assert!(got < sent - 10, "{got}"),
            // More than one of a hundred is lost twice by chance, or with its block, seldom.
            Class::Copied | Class::Fec => assert!(got > sent - 5, "{class:?} {got}"),
        }
    }
    Ok(())
}

#[test]
fn nothing_is_lost_with_a_path_if_it_is_sent_again() -> Judged {
    for class in [Class::Retransmit, Class::Both] {
        for path in 1..=3 {
            let deaths = vec![Death { path, at: 100_000, lasts: 200_000, seen: 150_000 }];
            let world = run(&Scenario { deaths, ..steady(class, 2, 0) })?;
            order_is_kept(&world, &ALL)?;
            assert_eq!(world.receiver.delivered.len(), 400);
            assert!(world.sender.resend.statistics().again > 20);
        }
    }
    Ok(())
}

#[test]
fn an_agent_that_ends_gives_back_all_that_it_has() -> Judged {
    for class in ALL {
        for away in [0, 1_000, 100_000] {
            let restarts = vec![Restart { at: 150_000, away, how: Gone::Ends }];
            let world = run(&Scenario { restarts, ..steady(class, 2, 0) })?;
            assert_eq!(world.receiver.delivered.len(), 400);
        }
    }
    Ok(())
}

/// Its lease runs for 60 ms more.
#[test]
fn with_an_agent_that_is_killed_go_those_that_it_had_and_no_others() -> Judged {
    let mut died = 0;
    for class in ALL {
        for away in [1_000, 100_000] {
            let restarts = vec![Restart { at: 150_000, away, how: Gone::Killed }];
            let world = run(&Scenario { restarts, ..steady(class, 2, 0) })?;
            let lost = world.receiver.died.len();
            assert_eq!(world.receiver.delivered.len(), 400 - lost);
            assert!(lost <= 12, "{lost}");
            died += lost;
        }
    }
    assert!(died > 0);
    Ok(())
}

/// One that was computed may wait as long as others of its flow: it gives up none that is
/// sent again.
#[test]
fn what_is_computed_waits_for_what_is_sent_again() -> Judged {
    let blocks = Settings { data: 4, parity: Amount::Fixed(1), wait: 2 * MS, interleave: 1 };
    for seed in 0..20 {
        let mut scenario = Scenario { seed, unlucky: 1, blocks, ..steady(Class::Both, 2, 100) };
        // Others are not much later, and an acknowledgement takes long.
        scenario.links.iter_mut().for_each(|link| link.delay = 9_000);
        let world = run(&scenario)?;
        order_is_kept(&world, &ALL)?;
        assert!(world.receiver.delivered.len() >= 398, "{seed}");
    }
    Ok(())
}
