//! Flows that leave by a bond, as the API shows them: a bucket each, by the flow that
//! opened it.

use std::net::{IpAddr, Ipv4Addr};

use mwb_common::maps::{Bucket, bond_role, bucket_flag};

use super::flow_view::{protocol_of, wan_name};
use crate::api::flows::{Endpoint, FlowBond, FlowChoice, FlowRow, How, Protocol};
use crate::api::snapshot::Traffic;
use crate::config::class_name;
use crate::dataplane::{BondMaps, Error};

/// What scopes of a bucket's key say.
const IPV4: u8 = 4;

/// The flows of a gateway's bond, and the rate in bit/s from where on one is an elephant.
/// Nothing of another machine: a server's flows are those that it translates.
pub(super) fn read(
    maps: &BondMaps,
    names: &[String],
    now: u64,
) -> Result<(Vec<FlowRow>, Option<u64>), Error> {
    let bond = maps.bond()?;
    if bond.role != bond_role::GATEWAY {
        return Ok((Vec::new(), None));
    }
    let buckets = maps.buckets(bond.slot)?;
    let rows = buckets.iter().filter_map(|(number, bucket)| row(*number, bucket, names, now));
    Ok((rows.collect(), Some(u64::from(bond.elephant_bytes) * 80)))
}

pub(super) fn row(number: u16, bucket: &Bucket, names: &[String], now: u64) -> Option<FlowRow> {
    let key = &bucket.key;
    let proto = protocol_of(key.protocol)?;
    let ported = matches!(proto, Protocol::Tcp | Protocol::Udp | Protocol::Sctp);
    let end = |address: [u8; 16], port: [u8; 2]| Endpoint {
        address: if key.scope == IPV4 {
            let [a, b, c, d, ..] = address;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        } else {
            address.into()
        },
        port: ported.then(|| u16::from_be_bytes(port)),
    };
    let inside = end(key.source, key.source_port);
    let seconds = |then: u64| now.saturating_sub(then) as f64 / 1e9;
    Some(FlowRow {
        proto,
        inside,
        // The server translates it, if anybody does.
        outside: inside,
        remote: end(key.destination, key.destination_port),
        wan: wan_name(names, bucket.path),
        age_seconds: seconds(bucket.opened),
        idle_seconds: seconds(bucket.last_seen),
        sent: Traffic { packets: bucket.packets, bytes: bucket.bytes },
        received: Traffic::default(),
        state: None,
        choice: FlowChoice { how: How::Bonded, slot: None, mapped: false },
        bond: Some(FlowBond {
            bucket: number,
            elephant: bucket.flags & bucket_flag::ELEPHANT != 0,
            striped: bucket.flags & bucket_flag::STRIPED != 0,
            class: class_name(bucket.class).to_owned(),
        }),
    })
}

#[cfg(test)]
mod tests {
    use mwb_common::classes::class;
    use mwb_common::maps::FlowKey6;

    use super::*;

    #[test]
    fn a_bucket_is_the_flow_that_opened_it() {
        let mut key = FlowKey6 {
            source_port: [0xc3, 0x50],
            destination_port: [0, 80],
            protocol: 6,
            scope: IPV4,
            ..FlowKey6::default()
        };
        key.source[..4].copy_from_slice(&[10, 1, 0, 9]);
        key.destination[..4].copy_from_slice(&[203, 0, 113, 5]);
        let bucket = Bucket {
            opened: 1_000_000_000,
            last_seen: 3_000_000_000,
            packets: 7,
            bytes: 9_000,
            path: 2,
            flags: bucket_flag::ELEPHANT | bucket_flag::STRIPED,
            class: class::STRIPE,
            key,
            ..Bucket::default()
        };
        let names = ["fiber".to_owned(), "lte".to_owned()];
        let shown = row(77, &bucket, &names, 4_000_000_000).expect("a row");
        assert_eq!(shown.inside.to_string(), "10.1.0.9:50000");
        assert_eq!(shown.outside, shown.inside);
        assert_eq!(shown.remote.to_string(), "203.0.113.5:80");
        assert_eq!((shown.wan.as_str(), shown.sent.bytes), ("lte", 9_000));
        assert!((shown.age_seconds - 3.0).abs() < 1e-9 && (shown.idle_seconds - 1.0).abs() < 1e-9);
        let class = "stripe".to_owned();
        let bond = FlowBond { bucket: 77, elephant: true, striped: true, class };
        assert_eq!(shown.bond, Some(bond));
        let six = Bucket { key: FlowKey6 { scope: 6, protocol: 58, ..key }, ..bucket };
        let shown = row(77, &six, &names, 0).expect("a row");
        assert_eq!(shown.inside.to_string(), "a01:9::");
        // What has no name is not shown under a wrong one.
        let other = Bucket { key: FlowKey6 { protocol: 89, ..key }, ..bucket };
        assert_eq!(row(77, &other, &names, 0), None);
    }
}
