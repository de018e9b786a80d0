use std::net::Ipv4Addr;

use super::*;
use crate::api::flows::Net;

const NOW: u64 = 1_000_000_000_000;

fn key(port: u16, remote: u8, protocol: u8) -> FlowKey4 {
    FlowKey4 {
        source: [192, 0, 2, 10],
        destination: [203, 0, 113, remote],
        source_port: port.to_be_bytes(),
        destination_port: 443u16.to_be_bytes(),
        protocol,
        ..FlowKey4::default()
    }
}

/// Opened 100 s ago, last sent 30 s ago, over path 2.
fn out(bytes: u64, flags: u8) -> Flow {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[198, 51, 100, 130]);
    Flow {
        last_seen: NOW - 30_000_000_000,
        opened: NOW - 100_000_000_000,
        packets: bytes / 100,
        bytes,
        address,
        port: 40_001u16.to_be_bytes(),
        path: 2,
        tcp_flags: flags,
        choice: Choice { place: 17, how: how::SLOT, epoch: 3 },
        ..Flow::default()
    }
}

fn back(seen: u64, bytes: u64, flags: u8) -> Flow {
    Flow {
        last_seen: seen,
        packets: bytes / 1000,
        bytes,
        tcp_flags: flags,
        path: 2,
        ..Flow::default()
    }
}

fn names() -> Vec<String> {
    vec!["fiber".to_owned(), "lte".to_owned()]
}

fn shown(out: Flow, back: Option<Flow>) -> FlowRow {
    row4(&Pair { key: key(50_000, 7, protocol::TCP), out, back }, &names(), NOW).expect("TCP")
}

#[test]
fn a_flow_is_shown_with_all_its_ends_and_both_directions() {
    let row = shown(out(1_000, tcp_flag::SYN), Some(back(NOW - 5_000_000_000, 70_000, 0x12)));
    assert_eq!(row.inside.to_string(), "192.0.2.10:50000");
    assert_eq!(row.outside.to_string(), "198.51.100.130:40001");
    assert_eq!(row.remote.to_string(), "203.0.113.7:443");
    assert_eq!((row.wan.as_str(), row.state), ("lte", Some(TcpState::Established)));
    assert_eq!((row.age_seconds, row.idle_seconds), (100.0, 5.0));
    assert_eq!((row.sent.packets, row.sent.bytes), (10, 1_000));
    assert_eq!((row.received.packets, row.received.bytes), (70, 70_000));
    assert_eq!(row.choice, FlowChoice { how: How::Slot, slot: Some(17), mapped: false });
    assert_eq!(row.rate(), 710.0);
}

#[test]
fn an_echo_has_its_identifier_inside_and_none_at_the_other_end() {
    let pair = Pair { key: key(77, 7, protocol::ICMP), out: out(100, 0), back: None };
    let row = row4(&pair, &names(), NOW).expect("ICMP");
    assert_eq!(row.inside.to_string(), "192.0.2.10:77");
    assert_eq!(row.remote.to_string(), "203.0.113.7");
    assert_eq!((row.state, row.received), (None, Traffic::default()));
}

#[test]
fn protocols_without_ports_show_none() {
    let pair = Pair { key: key(0, 7, protocol::GRE), out: out(100, 0), back: None };
    let row = row4(&pair, &names(), NOW).expect("GRE");
    assert_eq!((row.inside.port, row.outside.port, row.remote.port), (None, None, None));
}

#[test]
fn tcp_flags_tell_the_state() {
    let answered = |flags| Some(back(NOW, 100, flags));
    for (flags, other, state) in [
        (tcp_flag::SYN, None, TcpState::Opening),
        (tcp_flag::SYN, Some(back(0, 0, 0)), TcpState::Opening),
        (tcp_flag::SYN, answered(tcp_flag::SYN), TcpState::Established),
        (tcp_flag::SYN, answered(tcp_flag::SYN | tcp_flag::FIN), TcpState::Closing),
        (tcp_flag::SYN | tcp_flag::FIN, answered(tcp_flag::RST), TcpState::Reset),
    ] {
        assert_eq!(shown(out(100, flags), other).state, Some(state), "{flags} {other:?}");
    }
}

#[test]
fn choices_that_looked_at_no_slot_show_none() {
    let shown = |how| choice(Choice { place: 9, how, epoch: 0 });
    assert_eq!(shown(how::VIA), FlowChoice { how: How::Via, slot: None, mapped: false });
    assert_eq!(shown(how::INBOUND).how, How::Inbound);
    assert_eq!(
        shown(how::RANKING | how::MAPPED),
        FlowChoice { how: How::Ranking, slot: Some(9), mapped: true }
    );
    assert_eq!(shown(how::NONE_ALIVE).how, How::NoneAlive);
}

#[test]
fn a_path_without_a_name_is_shown_by_its_number() {
    assert_eq!(wan_name(&names(), 1), "fiber");
    assert_eq!(wan_name(&names(), 3), "path3");
    assert_eq!(wan_name(&names(), 0), "path0");
    assert_eq!(wan_name(&["".to_owned()], 1), "path1", "a path that is no longer configured");
}

/// Four flows: ports 1 to 4, to remotes 1 to 4, with ever more bytes.
fn rows() -> Vec<FlowRow> {
    let row = |n: u8| {
        let number = if n == 4 { protocol::UDP } else { protocol::TCP };
        let mut out = out(u64::from(n) * 1_000, tcp_flag::SYN);
        out.path = 1 + n % 2;
        out.opened -= u64::from(5 - n) * 1_000_000_000;
        row4(&Pair { key: key(n.into(), n, number), out, back: None }, &names(), NOW)
    };
    (1..=4).filter_map(row).collect()
}

fn asked(query: FlowQuery) -> (u64, Vec<u16>) {
    let list = select(rows(), &query);
    assert_eq!(list.open, 4);
    (list.matching, list.flows.iter().filter_map(|row| row.inside.port).collect())
}

#[test]
fn filters_let_through_what_they_name() {
    let query = FlowQuery::default;
    let net = |text: &str| text.parse::<Net>().ok();
    assert_eq!(asked(query()), (4, vec![4, 3, 2, 1]));
    assert_eq!(asked(FlowQuery { wan: Some("fiber".to_owned()), ..query() }).1, [4, 2]);
    assert_eq!(asked(FlowQuery { proto: Some(Protocol::Udp), ..query() }).1, [4]);
    assert_eq!(asked(FlowQuery { source: net("192.0.2.0/28"), ..query() }).0, 4);
    assert_eq!(asked(FlowQuery { source: net("192.0.2.11"), ..query() }).0, 0);
    assert_eq!(asked(FlowQuery { destination: net("203.0.113.2/31"), ..query() }).1, [3, 2]);
    assert_eq!(asked(FlowQuery { destination: net("2001:db8::/32"), ..query() }).0, 0);
    assert_eq!(asked(FlowQuery { port: Some(3), ..query() }).1, [3]);
    assert_eq!(asked(FlowQuery { port: Some(40_001), ..query() }).0, 4);
    assert_eq!(asked(FlowQuery { port: Some(443), ..query() }).0, 4);
    assert_eq!(asked(FlowQuery { state: Some(TcpState::Opening), ..query() }).1, [3, 2, 1]);
    assert_eq!(asked(FlowQuery { top: Some(2), ..query() }), (4, vec![4, 3]));
}

#[test]
fn sorting_puts_the_largest_first() {
    let by = |sort| asked(FlowQuery { sort, ..FlowQuery::default() }).1;
    assert_eq!(by(Sort::Packets), [4, 3, 2, 1]);
    assert_eq!(by(Sort::Age), [1, 2, 3, 4]);
    assert_eq!(by(Sort::Rate), [4, 3, 2, 1]);
    // All equally idle: their own order.
    assert_eq!(by(Sort::Idle), [1, 2, 3, 4]);
}

#[test]
fn what_is_neither_address_nor_prefix_is_refused() {
    assert!("192.0.2.0/33".parse::<Net>().is_err());
    assert!("host".parse::<Net>().is_err());
    let net = "192.0.2.77/24".parse::<Net>().expect("a prefix");
    assert!(net.0.contains(&IpAddr::from(Ipv4Addr::new(192, 0, 2, 1))));
}
