//! What makes a link slow, lossy or dead: netem where the kernel has it, a
//! relay of our own elsewhere. Both stand in a namespace of their own between
//! the gateway and the provider, `gw:wan ═ a[shaper]b ═ isp:gw0`: an XDP program
//! that redirects goes past every queueing discipline of the device it sends
//! to, so nothing on the gateway itself could shape it.
//!
//! What veth needs for that: the end that receives redirected frames must have
//! NAPI, which a veth has with an XDP program or with GRO. GRO is on here, with
//! `gro_max_size` so small that it never merges two frames: measured, none of
//! 159,000 TCP segments at 0.9 Gbit/s, where the default lets TCP crawl at
//! 0.2 Mbit/s, because merged frames are larger than any link takes.

use std::fmt::Debug;

use anyhow::Result;

use super::{
    link::{Direction, LinkSpec, LinkStats},
    namespace::Namespace,
    netem::Netem,
    qdisc,
    relay::Relay,
    topology::Shape,
};

/// A link that can be changed while it runs.
pub(super) trait Shaper: Debug + Send {
    /// One direction as it was last set.
    fn spec(&self, direction: Direction) -> &LinkSpec;

    /// Changes one direction.
    fn set(&mut self, direction: Direction, spec: LinkSpec) -> Result<()>;

    /// What became of the frames so far.
    fn stats(&mut self) -> Result<LinkStats>;

    /// The process that carries the frames, if it is not the kernel.
    fn process_id(&self) -> Option<u32>;
}

/// Joins the devices `a<index>` and `b<index>` of `namespace`.
pub(super) fn start(namespace: &Namespace, index: usize, shape: &Shape) -> Result<Box<dyn Shaper>> {
    let (near, far) = (format!("a{index}"), format!("b{index}"));
    for device in [&near, &far] {
        namespace.sysctl(&[(&format!("net/ipv6/conf/{device}/disable_ipv6"), "1")])?;
        namespace.ip(&format!("link set {device} gro_max_size 1 promisc on up\n"))?;
        namespace.ethtool_features(device, &["gro", "on", "tx", "off"])?;
    }
    Ok(if !shape.by_relay && qdisc::is_available(namespace, "netem")? {
        Box::new(Netem::start(namespace, &near, &far, shape)?)
    } else {
        Box::new(Relay::start(namespace, &near, &far, shape)?)
    })
}
