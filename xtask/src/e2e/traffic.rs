//! Traffic of all kinds passes the gateway unharmed, in every mode.

use anyhow::{Result, ensure};

use super::{
    Case, Lane, checks,
    scene::{Hook, Scene, both_hooks, play},
};
use crate::lab::LabSpec;

/// Every way to share flows among WANs.
pub(super) const MODES: [&str; 7] =
    ["round_robin", "weighted", "least_used", "least_latency", "per_flow", "adaptive", "failover"];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = both_hooks(
        Lane::Alone,
        "numbered_datagrams_arrive_once",
        || LabSpec::direct(3),
        |config| config,
        |scene| checks::datagrams_arrive_once(&scene.lab, 10_000),
    );
    cases.extend(both_hooks(
        Lane::Together,
        "traffic_passes_a_relayed_link",
        || LabSpec::relayed(2),
        |config| config,
        |scene| {
            checks::pings_pass(&scene.lab)?;
            checks::transfers_are_whole(&scene.lab, 20 << 20)?;
            checks::downloads_are_whole(&scene.lab, 20 << 20)
        },
    ));
    for mode in MODES {
        for hook in Hook::BOTH {
            cases.push(Case::new(
                Lane::Alone,
                &format!("all_traffic_passes_in_mode_{mode}_by_{hook}"),
                move || {
                    let scene = Scene::new(hook, LabSpec::direct(3), |config| {
                        config.with("balance", mode)
                    })?;
                    play(scene, all_traffic_passes)
                },
            ));
        }
    }
    cases
}

fn all_traffic_passes(scene: &mut Scene) -> Result<()> {
    checks::pings_pass(&scene.lab)?;
    checks::downloads_are_whole(&scene.lab, 100 << 20)?;
    checks::transfers_are_whole(&scene.lab, 10 << 20)?;
    checks::datagrams_arrive_once(&scene.lab, 500)?;
    checks::bulk_flows(&scene.lab, 1)?;
    let dropped = scene.packets(|row| row.verdict == "drop")?;
    ensure!(dropped == 0, "{dropped} packets dropped");
    Ok(())
}
