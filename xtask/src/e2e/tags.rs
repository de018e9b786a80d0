//! Frames with VLAN tags on a port that has no VLAN.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane, checks, packets,
    port::{Port, host_of},
    scene::{Scene, both_hooks},
};
use crate::lab::{GatewayConfig, LabSpec, address::NET4, wait_until};

pub(super) fn cases() -> Vec<Case> {
    both_hooks(
        Lane::Together,
        "frames_with_a_priority_tag_pass",
        || LabSpec::direct(1),
        GatewayConfig::watching_gateways,
        frames_with_a_priority_tag_pass,
    )
}

/// VLAN 0 is no VLAN: a switch or modem that marks priorities.
fn frames_with_a_priority_tag_pass(scene: &mut Scene) -> Result<()> {
    let (mut lan, mut wan) = (Port::lan(&scene.lab)?, Port::wan(&scene.lab, 0)?);
    for to in checks::FAMILIES {
        let near = SocketAddr::new(host_of(to), 4000);
        let far = SocketAddr::new(to, 53);
        // Twice: to open the flow, and along it.
        for payload in [b"first ", b"second"] {
            let question = packets::udp(near, far, payload)?;
            lan.send_frames(&[tagged(&lan.frame(&question))])?;
            let seen = wan
                .hear("the question", |packet, _| {
                    (packet.to == far && packet.payload == payload).then(|| packet.clone())
                })
                .with_context(|| format!("{to}: outwards"))?;
            let answer = packets::udp(far, seen.from, payload)?;
            wan.send_frames(&[tagged(&wan.frame(&answer))])?;
            lan.hear("the answer", |packet, _| {
                (packet.to == near && packet.payload == payload).then_some(())
            })
            .with_context(|| format!("{to}: inwards"))?;
        }
    }
    // Another VLAN is somebody else's.
    let before = scene.counted("out", "tagged")?;
    let near = SocketAddr::new(host_of(NET4.into()), 4000);
    let mut frame = tagged(&lan.frame(&packets::udp(near, (NET4, 53).into(), b"not ours")?));
    frame[15] = 7;
    lan.send_frames(&[frame])?;
    wait_until("it is counted as tagged", Duration::from_secs(2), || {
        Ok(scene.counted("out", "tagged")? == before + 1)
    })?;
    let leaked = wan.pending(|packet, _| (packet.payload == b"not ours").then_some(()))?;
    ensure!(leaked.is_empty(), "a frame of VLAN 7 was steered");
    Ok(())
}

/// The frame with a tag of VLAN 0 and priority 5.
fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 5 << 5, 0], &frame[12..]].concat()
}
