//! Tables and rules as the world around them changes, in a network of their own.

use std::net::IpAddr;

use super::super::testing::{in_network, ip};
use super::super::{Error, Requests, Watched};
use super::tests::{
    complete, everything, give_addresses, make_device, make_world, said, settle, wanted, way,
};
use super::{Changes, Tables};
use crate::rights;

#[test]
fn rules_and_routes_of_others_survive_whatever_they_look_like() {
    in_network("rules_and_routes_of_others_survive_whatever_they_look_like", || async {
        make_world().await;
        for line in [
            "rule add priority 7701 oif wan1 lookup 7701",
            "rule add priority 7701 oif wan1 lookup 7701 protocol 76",
            "rule add priority 7705 from 198.51.100.2 lookup 99",
            "rule add priority 9000 from 198.51.100.2 lookup 7701 protocol 77",
            "rule add priority 8000 from 192.0.2.0/24 unreachable",
            "-6 rule add priority 7702 oif wan1 unreachable",
            "route add default via 198.51.100.17 table 99",
            "route add default via 198.51.100.17 table 99 proto 77 metric 9",
            "route add default via 198.51.100.17 table 7733 proto 77",
            "route add 203.0.113.0/24 via 198.51.100.17 proto 77",
            "route add default via 198.51.100.17 table 7705",
        ] {
            ip(line);
        }
        let before = everything();
        let requests = Requests::open()?;
        settle(&requests, &wanted()).await?;
        for line in before.lines() {
            assert!(everything().lines().any(|other| other == line), "{line} is gone");
        }
        // Of ours, but not what there should be.
        ip("rule add priority 7750 from 192.0.2.0/24 lookup 7701 protocol 77");
        ip("rule add priority 7751 not from 192.0.2.0/24 lookup 7701 protocol 77");
        ip("route add 192.0.2.0/24 via 198.51.100.1 table 7701 proto 77");
        ip("route add default via 198.51.100.1 table 7701 proto 77 metric 5");
        ip("route replace default via 198.51.100.9 table 7701 proto 77");
        let changes = settle(&requests, &wanted()).await?;
        assert_eq!(changes, Changes { made: 1, removed: 4 });
        Tables::remove(&requests).await?;
        assert_eq!(everything(), before);
        Ok::<_, Error>(())
    });
}

#[test]
fn a_table_with_routes_of_somebody_else_is_refused() {
    in_network("a_table_with_routes_of_somebody_else_is_refused", || async {
        make_world().await;
        ip("-6 route add 2001:db8:b::/48 via 2001:db8:1::1 table 7702 proto static");
        let before = everything();
        let requests = Requests::open()?;
        let error = Tables::ensure(&requests, &wanted()).await.expect_err("it is taken");
        let text = error.to_string();
        assert!(text.contains("table 7702") && text.contains("protocol 4"), "{text}");
        assert_eq!(everything(), before);
        let mut without = wanted();
        without.wans.truncate(1);
        settle(&requests, &without).await?;
        Ok::<_, Error>(())
    });
}

#[test]
fn a_device_that_vanishes_and_comes_back_has_its_table_again() {
    in_network("a_device_that_vanishes_and_comes_back_has_its_table_again", || async {
        make_world().await;
        let requests = Requests::open()?;
        settle(&requests, &wanted()).await?;
        let stale = wanted();
        ip("link del wan2");
        // As the agent knows it a moment long.
        Tables::ensure(&requests, &stale).await?;
        let mut without = wanted();
        let gone = &mut without.wans[1];
        (gone.ifindex, gone.gateway4, gone.gateway6) = (None, None, None);
        (gone.addresses, gone.subnets) = (Vec::new(), Vec::new());
        without.apart.retain(|net| without.wans[0].subnets.contains(net));
        settle(&requests, &without).await?;
        assert_eq!(said("route show table 7702"), "");
        assert!(said("rule").contains("oif wan2 [detached] lookup 7702"), "{}", said("rule"));
        make_device("wan2");
        give_addresses(2);
        complete().await;
        settle(&requests, &wanted()).await?;
        assert!(way("203.0.113.1 oif wan2").contains("via 198.51.100.17 dev wan2"));
        assert!(way("203.0.113.1 from 198.51.100.18").contains("via 198.51.100.17 dev wan2"));
        Ok::<_, Error>(())
    });
}

#[test]
fn a_machine_without_ipv6_has_tables_of_ipv4() {
    in_network("a_machine_without_ipv6_has_tables_of_ipv4", || async {
        for of in ["all", "default"] {
            // Of this network alone.
            let setting = format!("/proc/sys/net/ipv6/conf/{of}/disable_ipv6");
            if let Err(error) = std::fs::write(&setting, "1") {
                println!("skipped: a_machine_without_ipv6_has_tables_of_ipv4: {setting}: {error}");
                return Ok(());
            }
        }
        ip("link add wan1 type veth peer name wan1-far");
        ip("link set wan1-far up");
        ip("link set wan1 up");
        ip("addr add 198.51.100.2/28 dev wan1");
        let requests = Requests::open()?;
        let mut one = wanted();
        one.wans.truncate(1);
        // What a device has that has no IPv6.
        one.wans[0].gateway6 = None;
        one.wans[0].subnets.retain(|net| net.addr().is_ipv4());
        one.wans[0].addresses.retain(IpAddr::is_ipv4);
        settle(&requests, &one).await?;
        assert!(way("203.0.113.1 oif wan1").contains("via 198.51.100.1 dev wan1"));
        Ok::<_, Error>(())
    });
}

#[test]
fn the_rights_that_stay_are_enough_for_tables() {
    in_network("the_rights_that_stay_are_enough_for_tables", || async {
        make_world().await;
        if let Err(error) = rights::give_up() {
            println!("skipped: the_rights_that_stay_are_enough_for_tables: {error}");
            return Ok(());
        }
        let requests = Requests::open()?;
        settle(&requests, &wanted()).await?;
        Tables::remove(&requests).await?;
        assert!(!everything().contains("77"), "{}", everything());
        Ok::<_, Error>(())
    });
}

#[test]
fn what_the_snapshot_says_of_the_main_table_does_not_come_from_ours() {
    in_network("what_the_snapshot_says_of_the_main_table_does_not_come_from_ours", || async {
        make_world().await;
        let requests = Requests::open()?;
        let watched = Watched::default();
        let before = requests.snapshot(&watched).await?;
        let mut wanted = wanted();
        wanted.wans[0].gateway4 = Some(Some([198, 51, 100, 9].into()));
        settle(&requests, &wanted).await?;
        assert_eq!(requests.snapshot(&watched).await?, before);
        Ok::<_, Error>(())
    });
}
