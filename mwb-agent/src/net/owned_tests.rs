//! What of a prefix is nobody's.

use std::process::Command;

use super::bonded_tests::{gateway, net, routes};
use super::testing::{in_network, ip};
use super::{Bonded, BondedRoute, BondedSpec, Error, Requests};

#[test]
fn what_of_a_prefix_is_nobodys_is_unreachable_and_does_not_go_back() {
    in_network("what_of_a_prefix_is_nobodys_is_unreachable_and_does_not_go_back", || async {
        ip("link set lo up");
        ip("link add up0 type veth peer name isp0");
        ip("link set up0 up");
        ip("link set isp0 up");
        ip("-6 route add default dev up0");
        let requests = Requests::open()?;
        let client = BondedRoute { destination: net("2001:db8:a::/52"), mtu: Some(1400) };
        let server = |instance: &str, device: &str, owned: &[&str]| BondedSpec {
            instance: instance.to_owned(),
            device: device.to_owned(),
            data_plane_end: format!("{device}-dp"),
            addresses: vec![net("2001:db8:a:f::1/128")],
            routes: Some(Vec::from_iter((device == "mwb0").then_some(client))),
            owned: owned.iter().map(|net| net.parse().expect("a prefix")).collect(),
            ..gateway()
        };
        let get = |to: &str| {
            let output = Command::new("ip").args(["-6", "route", "get", to]).output();
            let output = output.expect("an answer");
            let said = [&output.stdout[..], &output.stderr[..]].concat();
            String::from_utf8_lossy(&said).into_owned()
        };
        let (inside, rest) = ("2001:db8:a:1::1", "2001:db8:a:f000::1");
        assert!(get(rest).contains("dev up0"), "{}", get(rest));
        let of_one = server("one", "mwb0", &["2001:db8:a::/48"]);
        Bonded::ensure(&requests, &of_one).await?;
        let before = routes("-6");
        Bonded::ensure(&requests, &of_one).await?;
        assert_eq!((routes("-6"), before.len()), (before, 2));
        assert!(get(inside).contains("dev mwb0"), "{}", get(inside));
        assert!(get(rest).contains("No route to host"), "{}", get(rest));
        // One that has all of it goes before.
        let whole = BondedRoute { destination: net("2001:db8:a::/48"), mtu: None };
        let of_all = BondedSpec { routes: Some(vec![whole]), ..of_one.clone() };
        Bonded::ensure(&requests, &of_all).await?;
        assert!(get(rest).contains("dev mwb0"), "{}", get(rest));
        Bonded::ensure(&requests, &of_one).await?;
        // Another instance has its own, and each takes its own away.
        Bonded::ensure(&requests, &server("two", "mwb1", &["2001:db8:b::/48"])).await?;
        Bonded::remove(&requests, "one").await?;
        assert!(get(rest).contains("dev up0"), "{}", get(rest));
        let left = routes("-6");
        assert!(left.len() == 1 && left[0].contains("unreachable 2001:db8:b::/48"), "{left:?}");
        Bonded::ensure(&requests, &server("two", "mwb1", &[])).await?;
        assert_eq!(routes("-6"), [] as [&str; 0]);
        Ok::<_, Error>(())
    });
}
