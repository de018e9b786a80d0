//! What the programs remember of a source is of that source, that family and those rules.

use mwb_common::policy::Action;
use mwb_common::reason::Reason;

use crate::lasting::in_a_gateway;
use crate::packet::Packet;
use crate::policy::{Sent, net, rule, sent};
use crate::world::{HOST, HOST6, PORT, host_udp, v6};

const BLOCKED: Sent = Sent::Ended(Reason::PolicyBlocked);

/// Packets of three sources that end alike: each is remembered in the others' place.
fn packets(port: u16) -> [Packet; 3] {
    let six = v6(&host_udp(port));
    [host_udp(port), six.clone(), six.with(|p| p.source = HOST.to_ipv6_mapped().into())]
}

/// What becomes of them when none is blocked: no inside prefix has the last.
const FREE: [Sent; 3] = [Sent::By(1), Sent::By(1), Sent::Ended(Reason::ForeignSource)];

fn nets() -> [String; 3] {
    [format!("{HOST}/32"), format!("{HOST6}/128"), "::ffff:0:0/96".to_owned()]
}

#[test]
fn a_source_is_not_taken_for_what_it_was_under_other_rules() {
    in_a_gateway("a_source_is_not_taken_for_what_it_was_under_other_rules", |gateway, _| {
        let nets = nets();
        let mut port = PORT;
        for of in 0..nets.len() {
            for turn in 0..6 {
                // Its rule, and that of another.
                let named = if turn % 2 == 0 { of } else { (of + 1) % nets.len() };
                let blocks = rule(Action::Block, |r| r.sources = Some(vec![net(&nets[named])]));
                gateway.set_policy(&[blocks]);
                for _ in 0..2 {
                    port += 1;
                    let expected = if of == named { BLOCKED } else { FREE[of] };
                    let packet = &packets(port)[of];
                    assert_eq!(sent(gateway, packet), expected, "{} in turn {turn}", nets[of]);
                }
            }
        }
    });
}

#[test]
fn a_source_is_not_taken_for_another() {
    in_a_gateway("a_source_is_not_taken_for_another", |gateway, _| {
        let nets = nets();
        let mut port = PORT;
        for turn in 0..9 {
            let named = turn % 3;
            let blocks = rule(Action::Block, |r| r.sources = Some(vec![net(&nets[named])]));
            gateway.set_policy(&[blocks]);
            for _ in 0..2 {
                port += 1;
                for (of, packet) in packets(port).iter().enumerate() {
                    let expected = if of == named { BLOCKED } else { FREE[of] };
                    assert_eq!(sent(gateway, packet), expected, "{} in turn {turn}", nets[of]);
                }
            }
        }
    });
}
