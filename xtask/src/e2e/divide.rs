//! IPv4 packets that are too big for the next link and may be divided are, both
//! ways.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{
    Case, Lane,
    scene::{Scene, both_hooks},
};
use crate::lab::{
    GatewayConfig, LabSpec, address::NET4, capture::Passing, traffic::ping, wait_until,
};

/// MTU of a link that is smaller than the others.
const SMALL: u32 = 1400;
/// Payload of a packet of 1,500 bytes that may be divided.
const WHOLE: [&str; 4] = ["-M", "dont", "-s", "1472"];
const COUNT: u32 = 20;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name, test| {
        cases.extend(both_hooks(
            Lane::Together,
            name,
            || LabSpec::relayed(1),
            GatewayConfig::watching_gateways,
            test,
        ));
    };
    add("what_may_be_divided_is_on_its_way_out", divided_on_the_way_out);
    add("what_may_be_divided_is_on_its_way_in", divided_on_the_way_in);
    cases
}

/// The host's requests are too big for the WAN; the provider divides answers.
fn divided_on_the_way_out(scene: &mut Scene) -> Result<()> {
    let lab = &scene.lab;
    lab.isp(0).ip(&format!("link set gw0 mtu {SMALL}\n"))?;
    lab.gw().ip(&format!("link set wan0 mtu {SMALL}\n"))?;
    let refused = scene.counted("out", "too_big")?;
    let capture = lab.wan(0).capture(Passing::In, "icmp")?;
    all_are_answered(scene)?;
    let captured = capture.finish()?;
    // Each request left in two pieces, and each is right by itself.
    ensure!(captured.audit_leaks()? >= 2 * u64::from(COUNT), "not all left in pieces");
    captured.audit_checksums()?;
    ensure!(scene.counted("out", "too_big")? == refused, "some were refused");
    Ok(())
}

/// The server's answers are too big for the LAN; the host divides requests.
fn divided_on_the_way_in(scene: &mut Scene) -> Result<()> {
    let lab = &scene.lab;
    lab.host().ip(&format!("link set lan0 mtu {SMALL}\n"))?;
    lab.gw().ip(&format!("link set lan0 mtu {SMALL}\n"))?;
    all_are_answered(scene)?;
    ensure!(scene.counted("in", "too_big")? == 0, "some were refused");
    Ok(())
}

/// The agent sees the new MTU a moment after it is set: until then the larger
/// packets are lost at the device.
fn all_are_answered(scene: &Scene) -> Result<()> {
    let host = scene.lab.host();
    wait_until("a divided packet is answered", Duration::from_secs(5), || {
        Ok(ping(host, NET4.into(), 1, Duration::ZERO, &WHOLE)?.received == 1)
    })?;
    let report = ping(host, NET4.into(), COUNT, Duration::from_millis(10), &WHOLE)?;
    ensure!(report.received == u64::from(COUNT), "not all were answered: {}", report.output);
    Ok(())
}
