use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

use super::*;

const US4: [u8; 4] = [192, 0, 2, 1];
const HOST4: [u8; 4] = [192, 0, 2, 10];
const US6: [u8; 16] = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1).octets();
const HOST6: [u8; 16] = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10).octets();

fn message() -> Vec<u8> {
    let name = Name::from_ascii("a.example.").expect("a name");
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.add_query(Query::query(name.clone(), RecordType::A));
    message.answers =
        vec![Record::from_rdata(name, 60, RData::A(A(Ipv4Addr::new(203, 0, 113, 5))))];
    message.to_vec().expect("bytes")
}

fn udp(v6: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = match v6 {
        false => PacketBuilder::ipv4(US4, HOST4, 64),
        true => PacketBuilder::ipv6(US6, HOST6, 64),
    };
    builder.udp(53, 40_000).write(&mut packet, payload).expect("a packet");
    packet
}

fn tcp(v6: bool, sequence: u32, syn: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = match v6 {
        false => PacketBuilder::ipv4(US4, HOST4, 64),
        true => PacketBuilder::ipv6(US6, HOST6, 64),
    };
    let builder = builder.tcp(53, 40_000, sequence, 1_000);
    let builder = if syn { builder.syn() } else { builder };
    builder.ack(9).write(&mut packet, payload).expect("a packet");
    packet
}

fn expected() -> Vec<Answer> {
    let address: IpAddr = Ipv4Addr::new(203, 0, 113, 5).into();
    vec![Answer { names: vec!["a.example".to_owned()], addresses: vec![(address, 60)] }]
}

#[test]
fn an_answer_is_read_over_each_transport_and_family() {
    let mut reader = Reader::default();
    let message = message();
    let framed =
        [&u16::try_from(message.len()).expect("short").to_be_bytes()[..], &message].concat();
    for v6 in [false, true] {
        assert_eq!(reader.take(&udp(v6, &message), 0), expected());
        assert_eq!(reader.take(&tcp(v6, 99, true, &[]), 0), []);
        assert_eq!(reader.take(&tcp(v6, 100, false, &framed[..20]), 0), []);
        assert_eq!(reader.take(&tcp(v6, 120, false, &framed[20..]), 0), expected());
    }
    assert_eq!(reader.counts(), Counts { answers: 4, ..Counts::default() });
}

#[test]
fn what_lies_behind_a_packet_is_not_read() {
    let mut reader = Reader::default();
    let padded = [udp(false, &message()), vec![0; 40]].concat();
    assert_eq!(reader.take(&padded, 0), expected());
    let padded = [tcp(false, 99, true, &[]), vec![0, 1, 7, 7]].concat();
    assert_eq!(reader.take(&padded, 0), []);
    assert_eq!(reader.take(&tcp(false, 100, false, &[]), 0), []);
    assert_eq!(reader.counts().given_up, 0);
}

#[test]
fn a_fragment_is_counted_as_unreadable() {
    let mut reader = Reader::default();
    let mut first = udp(false, &message());
    first[6] |= 0x20;
    assert_eq!(reader.take(&first, 0), []);
    let mut first = udp(true, &message());
    first[6] = 44;
    assert_eq!(reader.take(&first, 0), []);
    assert_eq!(reader.take(&udp(false, b"no message"), 0), []);
    assert_eq!(reader.counts().unreadable, 3);
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_counted(
        kind in prop::sample::select(vec![0_u8, 0x45, 0x4f, 0x60]),
        mut packet in prop::collection::vec(any::<u8>(), 0..200),
        carried in prop::sample::select(vec![6_u8, 17]),
    ) {
        if packet.len() > 9 {
            packet[0] = kind;
            packet[if kind == 0x60 { 6 } else { 9 }] = carried;
        }
        let mut reader = Reader::default();
        reader.take(&packet, 0);
        let Counts { answers, without_address, unreadable, given_up } = reader.counts();
        prop_assert!(answers + without_address + unreadable + given_up <= 1);
    }
}
