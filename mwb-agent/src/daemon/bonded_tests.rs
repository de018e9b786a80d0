use super::super::fixture;
use super::*;
use crate::config;

const KEYS: [&str; 3] = [
    "NqnP4z4u49EyW2/lx5QXo6mx9BrGxDTentAf2N++HAY=",
    "pFTTPA0/Pu+hgPTb6fI02lvcoZV+SbvHezlbbVsi52I=",
    "8ye5f70HVyykTp65HmfEkJG7gKbYXQOAf4nsPYXPLEw=",
];

fn key(index: usize) -> [u8; LENGTH] {
    let key: crate::bond::PublicKey = KEYS[index].parse().expect("a key");
    *key.bytes()
}

fn parsed(text: &str) -> Config {
    config::parse(text, "f").unwrap_or_else(|error| panic!("{}", error.render()))
}

fn shown(routes: &Option<Vec<BondedRoute>>) -> Vec<String> {
    let mtu = |route: &BondedRoute| route.mtu.map_or("-".to_owned(), |mtu| mtu.to_string());
    routes.iter().flatten().map(|route| format!("{} {}", route.destination, mtu(route))).collect()
}

#[test]
fn a_gateway_routes_everything_to_its_bond_with_what_the_session_carries() {
    let config = fixture::bonded();
    let spec = |mtus: Mtus| spec(&config, "test", &fixture::network(), &mtus).expect("a bond");
    let before = spec(Mtus::new());
    assert_eq!((before.device.as_str(), before.data_plane_end.as_str()), ("mwb0", "mwb0-dp"));
    let halves = ["0.0.0.0/1 -", "128.0.0.0/1 -", "::/1 -", "8000::/1 -"];
    assert_eq!(shown(&before.routes), halves);
    let after = spec(Mtus::from([(key(0), 1_420), (key(1), 1_300)]));
    assert_eq!(shown(&after.routes), halves.map(|route| route.replace('-', "1420")));
    // While narrow paths live alone: IPv6 has no shorter packets.
    let narrow = spec(Mtus::from([(key(0), 1_132)]));
    let routes = ["0.0.0.0/1 1132", "128.0.0.0/1 1132", "::/1 1280", "8000::/1 1280"];
    assert_eq!(shown(&narrow.routes), routes);
    assert_eq!(super::spec(&fixture::config(), "test", &fixture::network(), &Mtus::new()), None);
}

#[test]
fn a_server_routes_to_each_client_what_its_session_carries() {
    let config = parsed(&format!(
        "version: 1\nrole: server\nwans: [{{name: up, device: wan0}}]\n\
         ipv6_prefix: 2001:db8:a::/48\nserver:\n  private_key_file: /k\n  addresses: [10.9.0.1/16]\n  \
         clients:\n  - {{name: a, public_key: \"{}\", prefixes: [192.0.2.0/26, \"2001:db8:a::/52\"]}}\n  \
         - {{name: b, public_key: \"{}\", prefixes: [192.0.2.64/26]}}\n",
        KEYS[1], KEYS[2]
    ));
    let mtus = Mtus::from([(key(1), 1_380), (key(0), 1_200)]);
    let spec = spec(&config, "test", &fixture::network(), &mtus).expect("a server");
    let expected = ["192.0.2.0/26 1380", "2001:db8:a::/52 1380", "192.0.2.64/26 -"];
    assert_eq!(shown(&spec.routes), expected);
    // What is left of its prefix is nobody's.
    assert_eq!(spec.owned, ["2001:db8:a::/48".parse().expect("a prefix")]);
}

#[test]
fn the_device_lets_pass_what_any_link_does() {
    let config = fixture::bonded();
    let with = |name: &str, mtu| {
        let mut network = fixture::network();
        let mut device = fixture::device(9, name, &[]);
        device.mtu = mtu;
        network.devices.push(device);
        spec(&config, "test", &network, &Mtus::new()).map(|spec| spec.mtu)
    };
    assert_eq!(with("wan9", 1_400), Some(1_500));
    assert_eq!(with("wan9", 9_000), Some(9_000));
    assert_eq!(with("tun9", 65_535), Some(9_216));
    // Its own is no reason to stay so.
    assert_eq!([with("mwb0", 9_000), with("mwb0-dp", 9_000)], [Some(1_500); 2]);
}
