use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::Query;
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Record, RecordType};
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect(text);
    name.set_fqdn(true);
    name
}

fn alias(of: &str, ttl: u32, to: &str) -> Record {
    Record::from_rdata(name(of), ttl, RData::CNAME(CNAME(name(to))))
}

fn v4(of: &str, ttl: u32, last: u8) -> Record {
    Record::from_rdata(name(of), ttl, RData::A(A(Ipv4Addr::new(203, 0, 113, last))))
}

fn v6(of: &str, ttl: u32, address: Ipv6Addr) -> Record {
    Record::from_rdata(name(of), ttl, RData::AAAA(AAAA(address)))
}

/// An answer to a question about a name.
fn answer(asked: &str, records: Vec<Record>) -> Message {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.add_query(Query::query(name(asked), RecordType::A));
    message.answers = records;
    message
}

fn learned(message: &Message) -> Option<Answer> {
    learn(&message.to_vec().expect("bytes")).expect("a message")
}

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(203, 0, 113, last).into()
}

#[test]
fn addresses_are_those_at_the_end_of_the_aliases_with_the_least_time_on_the_way() {
    let message = answer(
        "WWW.Example.net",
        vec![
            v4("edge.example.org", 300, 5),
            alias("www.example.net", 600, "cdn.example.org"),
            v4("edge.example.org", 30, 6),
            alias("cdn.example.org", 120, "EDGE.example.org"),
            v4("other.example.org", 1, 7),
            v6("edge.example.org", 90, "2001:db8:ff::5".parse().expect("an address")),
        ],
    );
    let answer = learned(&message).expect("addresses");
    assert_eq!(answer.names, ["www.example.net", "cdn.example.org", "edge.example.org"]);
    let six: IpAddr = "2001:db8:ff::5".parse().expect("an address");
    assert_eq!(answer.addresses, [(address(5), 120), (address(6), 30), (six, 90)]);
}

#[test]
fn what_says_no_address_is_told_from_what_cannot_be_read() {
    let good = answer("a.example", vec![v4("a.example", 60, 5)]);
    assert!(learned(&good).is_some());
    let with = |change: fn(&mut Message)| {
        let mut message = good.clone();
        change(&mut message);
        learned(&message)
    };
    assert_eq!(with(|m| m.metadata.message_type = MessageType::Query), None);
    assert_eq!(with(|m| m.metadata.response_code = ResponseCode::NXDomain), None);
    assert_eq!(with(|m| m.metadata.op_code = OpCode::Update), None);
    assert_eq!(with(|m| m.metadata.truncation = true), None);
    assert_eq!(with(|m| m.answers.clear()), None);
    assert_eq!(with(|m| m.answers = vec![v4("b.example", 60, 5)]), None);
    assert_eq!(with(|m| m.answers = vec![alias("a.example", 60, "b.example")]), None);
    assert_eq!(with(|m| m.queries.clear()), None);
    assert_eq!(learn(b"GET / HTTP/1.1"), Err(Unreadable));
    assert_eq!(learn(&[]), Err(Unreadable));
    let cut = good.to_vec().expect("bytes");
    assert_eq!(learn(&cut[..cut.len() - 1]), Err(Unreadable));
}

#[test]
fn aliases_that_go_round_come_to_an_end() {
    let round = vec![alias("a.example", 60, "b.example"), alias("b.example", 60, "a.example")];
    assert_eq!(learned(&answer("a.example", round)), None);
}

#[test]
fn an_ipv6_address_that_stands_for_one_of_ipv4_is_none() {
    let mapped = Ipv4Addr::new(203, 0, 113, 5).to_ipv6_mapped();
    assert_eq!(learned(&answer("a.example", vec![v6("a.example", 60, mapped)])), None);
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = learn(&bytes);
    }

    #[test]
    fn an_answer_with_a_few_bytes_wrong_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let records = vec![alias("a.example", 60, "b.example"), v4("b.example", 60, 5)];
        let mut bytes = answer("a.example", records).to_vec().expect("bytes");
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let _ = learn(&bytes);
    }
}
