//! Whether a packet may leave by a veth without passing through it: straight
//! into the other end, by `bpf_redirect_peer`. It saves a queue and a turn of the
//! kernel's receive loop, and passes over what stands at either end: queueing
//! disciplines, programs on the way out, XDP on the way in, and what is done for
//! a device that cannot do it itself (checksums and segments).

use aya::programs::SchedClassifier;
use aya::programs::tc::TcAttachType;
use futures_util::TryStreamExt;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};
use netlink_packet_route::tc::TcAttribute;

use super::{Device, Peer, Requests, Watched, features};

/// The discipline of a device that has none.
const NO_QUEUE: &str = "noqueue";
/// What a packet as it comes may need of the device. A veth has all of it unless
/// somebody has switched it off, for one who reads packets at the other end as
/// they are, or the other end takes XDP.
const FEATURES: [&str; 6] = [
    "tx-checksum-ip-generic",
    "tx-scatter-gather",
    "tx-generic-segmentation",
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-udp-segmentation",
];
/// The largest packet of segments that comes (without BIG TCP); for a device that
/// takes less it is cut.
pub(super) const LARGEST: u32 = 65_536;

impl Requests {
    /// Looks at the devices that are watched. What cannot be looked at is taken to be in the
    /// way.
    pub(super) async fn look_at_peers(&self, devices: &mut [Device], watched: &Watched) {
        for device in devices.iter_mut().filter(|device| watched.has(&device.name)) {
            device.opens_to_peer = match device.peer {
                Some(peer) => {
                    takes_packets_as_they_are(&device.name)
                        && has_no_programs(&device.name)
                        && self.has_no_queue(device.ifindex).await
                        && self.takes_no_xdp(peer).await
                }
                None => false,
            };
        }
    }

    async fn has_no_queue(&self, ifindex: u32) -> bool {
        let request = self.handle.qdisc().get().index(ifindex.cast_signed());
        let disciplines = request.execute().try_collect::<Vec<_>>().await;
        disciplines.is_ok_and(|all| {
            all.iter()
                .filter(|discipline| discipline.header.index == ifindex.cast_signed())
                .flat_map(|discipline| &discipline.attributes)
                .all(|attribute| !matches!(attribute, TcAttribute::Kind(kind) if kind != NO_QUEUE))
        })
    }

    async fn takes_no_xdp(&self, peer: Peer) -> bool {
        let mut request = self.handle.link().get().match_index(peer.ifindex);
        request.message_mut().attributes.push(LinkAttribute::IfNetnsId(peer.namespace));
        let found = request.execute().try_collect::<Vec<LinkMessage>>().await;
        found.is_ok_and(|links| matches!(&links[..], [link] if !has_xdp(link)))
    }
}

fn has_xdp(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| {
        let LinkAttribute::Xdp(facts) = attribute else { return false };
        !facts.iter().any(|fact| matches!(fact, LinkXdp::Attached(XdpAttached::None)))
    })
}

fn takes_packets_as_they_are(device: &str) -> bool {
    features(device)
        .is_ok_and(|on| FEATURES.iter().all(|feature| on.get(*feature).copied().unwrap_or(false)))
}

/// Of TCX. On a kernel without it this fails, and programs of filters come with a
/// discipline that [`Requests::has_no_queue`] sees.
fn has_no_programs(device: &str) -> bool {
    SchedClassifier::query_tcx(device, TcAttachType::Egress)
        .is_ok_and(|(_, programs)| programs.is_empty())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::net::testing::{in_network, ip};
    use crate::net::{Error, Snapshot};

    /// A network namespace, which lasts as long as this.
    struct Elsewhere(Child);

    impl Elsewhere {
        fn make() -> Self {
            let mut command = Command::new("unshare");
            // Its first byte says that it is there, and our end that it may go.
            command.args(["--net", "sh", "-c", "echo; read _"]);
            let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
            let mut child = child.unwrap_or_else(|error| panic!("unshare: {error}"));
            let mut ready = [0];
            let said = child.stdout.as_mut().map(|out| std::io::Read::read_exact(out, &mut ready));
            assert!(matches!(said, Some(Ok(()))), "no namespace: {said:?}");
            Self(child)
        }
    }

    impl Drop for Elsewhere {
        fn drop(&mut self) {
            drop(self.0.stdin.take());
            let _ = self.0.wait();
        }
    }

    fn tc(line: &str) {
        run("tc", line);
    }

    fn ethtool(line: &str) {
        run("ethtool", line);
    }

    fn run(program: &str, line: &str) {
        let output = Command::new(program).args(line.split_whitespace()).output();
        let output = output.unwrap_or_else(|error| panic!("{program} {line}: {error}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {line}: {said}");
    }

    async fn opens(device: &str) -> Result<bool, Error> {
        let watched = Watched { lan: vec![device.to_owned()], ..Watched::default() };
        let snapshot: Snapshot = Requests::open()?.snapshot(&watched).await?;
        Ok(snapshot.device(device).is_some_and(|device| device.opens_to_peer))
    }

    #[test]
    fn only_an_end_elsewhere_with_nothing_on_the_way_is_open() {
        const NAME: &str = "only_an_end_elsewhere_with_nothing_on_the_way_is_open";
        in_network(NAME, || async {
            ip("link add near0 type veth peer name near1");
            assert!(!opens("near0").await?, "the other end is here");
            let elsewhere = Elsewhere::make();
            ip(&format!("link add wan0 type veth peer name far0 netns {}", elsewhere.0.id()));
            ip("link set wan0 up");
            if SchedClassifier::query_tcx("wan0", TcAttachType::Egress).is_err() {
                assert!(!opens("wan0").await?, "its programs cannot be asked for");
                println!("skipped: {NAME}: this kernel has no TCX links");
                return Ok(());
            }
            assert!(opens("wan0").await?);
            for discipline in ["root pfifo limit 10", "clsact"] {
                tc(&format!("qdisc add dev wan0 {discipline}"));
                assert!(!opens("wan0").await?, "{discipline}");
                let place = discipline.split(' ').next().unwrap_or_default();
                tc(&format!("qdisc del dev wan0 {place}"));
                assert!(opens("wan0").await?, "no more {discipline}");
            }
            for feature in ["tx", "tso"] {
                ethtool(&format!("-K wan0 {feature} off"));
                assert!(!opens("wan0").await?, "{feature} off");
                ethtool(&format!("-K wan0 {feature} on"));
                assert!(opens("wan0").await?, "{feature} on");
            }
            ip("link set wan0 down");
            assert!(!opens("wan0").await?, "it is down");
            ip("link set wan0 up");
            assert!(opens("wan0").await?, "it is up");
            ip("link set wan0 gso_max_size 32000");
            assert!(!opens("wan0").await?, "segments are cut for it");
            let unnamed = Requests::open()?.snapshot(&Watched::default()).await?;
            assert!(unnamed.device("wan0").is_some_and(|device| !device.opens_to_peer));
            Ok::<_, Error>(())
        });
    }

    #[test]
    fn an_xdp_program_is_seen() {
        let link = |attached: XdpAttached| {
            let mut link = LinkMessage::default();
            link.attributes.push(LinkAttribute::Mtu(1_500));
            link.attributes.push(LinkAttribute::Xdp(vec![LinkXdp::Attached(attached)]));
            link
        };
        assert!(!has_xdp(&LinkMessage::default()));
        assert!(!has_xdp(&link(XdpAttached::None)));
        assert!(has_xdp(&link(XdpAttached::Driver)));
        assert!(has_xdp(&link(XdpAttached::SocketBuffer)));
        assert!(has_xdp(&link(XdpAttached::Multiple)));
    }
}
