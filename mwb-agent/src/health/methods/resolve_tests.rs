//! Names by little name servers, and where those are found.

use super::super::Rcode;
use super::super::testing::{
    LOCAL, Outcome, SHORT, SOON, address, alias, dns_server, knows, lo, lo_dual, nobody, record,
    reply,
};
use super::*;
use hickory_proto::rr::RecordType;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

async fn find(via: &Via, servers: &Servers, timeout: Duration) -> Found {
    let host = Target::Name("host.example.com".to_owned());
    addresses(via, &host, servers, &Budget::new(timeout)).await
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[tokio::test]
async fn only_families_that_the_wan_has_are_asked_for() -> Outcome {
    let servers = knows("host.example.com.", &["192.0.2.1", "2001:db8::1", "192.0.2.2"]).await?;
    let v4 = find(&lo(), &servers, SOON).await?;
    assert_eq!(v4, [ip("192.0.2.1"), ip("192.0.2.2")]);
    let both = find(&lo_dual(), &servers, SOON).await?;
    assert_eq!(both, [ip("2001:db8::1"), ip("192.0.2.1"), ip("192.0.2.2")]);
    Ok(())
}

#[tokio::test]
async fn a_name_with_one_family_is_found_by_a_wan_with_both() -> Outcome {
    let servers = knows("host.example.com.", &["192.0.2.1"]).await?;
    assert_eq!(find(&lo_dual(), &servers, SOON).await?, [ip("192.0.2.1")]);
    Ok(())
}

#[tokio::test]
async fn a_question_that_stays_unanswered_does_not_hold_the_other_up() -> Outcome {
    let server = dns_server(|question, _| {
        let asked = question.queries.first().map(|query| query.query_type);
        let known = record("host.example.com.", address("192.0.2.1"));
        if asked == Some(RecordType::A) { vec![reply(question, vec![known])] } else { vec![] }
    });
    let servers = Servers::Given(vec![server.await?]);
    let start = tokio::time::Instant::now();
    assert_eq!(find(&lo_dual(), &servers, SOON).await?, [ip("192.0.2.1")]);
    assert!(start.elapsed() < SOON / 4);
    Ok(())
}

#[tokio::test]
async fn an_alias_is_followed_to_the_address() -> Outcome {
    let server = dns_server(|question, _| {
        let chain = [
            record("b.example.com.", alias("c.example.net.")),
            record("host.example.com.", alias("B.example.com.")),
            record("other.example.net.", address("192.0.2.66")),
            record("c.example.net.", address("192.0.2.9")),
        ];
        vec![reply(question, chain.to_vec())]
    });
    let servers = Servers::Given(vec![server.await?]);
    assert_eq!(find(&lo(), &servers, SOON).await?, [ip("192.0.2.9")]);
    Ok(())
}

#[tokio::test]
async fn aliases_in_a_circle_have_no_address() -> Outcome {
    let server = dns_server(|question, _| {
        let circle = [
            record("host.example.com.", alias("b.example.com.")),
            record("b.example.com.", alias("host.example.com.")),
        ];
        vec![reply(question, circle.to_vec())]
    });
    let servers = Servers::Given(vec![server.await?]);
    let found = find(&lo(), &servers, SOON).await;
    assert!(matches!(found, Err(Bad::Name { code: Rcode::NoData, .. })), "{found:?}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_there_or_says_nothing_leaves_time_for_the_next() -> Outcome {
    let mute = dns_server(|_, _| vec![]).await?;
    let known = knows("host.example.com.", &["192.0.2.1"]).await?;
    let Servers::Given(known) = known else { return Err("no list".into()) };
    for dead in [mute, nobody().await?] {
        let servers = Servers::Given([vec![dead], known.clone()].concat());
        assert_eq!(find(&lo(), &servers, 2 * SHORT).await?, [ip("192.0.2.1")]);
    }
    Ok(())
}

#[tokio::test]
async fn an_address_is_its_own_answer_unless_it_is_behind_another_device() -> Outcome {
    let budget = Budget::new(SOON);
    let servers = Servers::Given(vec![]);
    let host = Target::Address(LOCAL);
    assert_eq!(addresses(&lo(), &host, &servers, &budget).await?, [LOCAL]);
    let wan = Via { device: Some("wan0".to_owned()), ..lo() };
    let missed = addresses(&wan, &host, &servers, &budget).await;
    assert!(matches!(missed, Err(Bad::NotSent(_))), "{missed:?}");
    Ok(())
}

#[test]
fn of_what_a_name_is_said_to_be_this_machine_itself_is_left_out() -> Outcome {
    let wan = Via { device: Some("wan0".to_owned()), ..lo_dual() };
    let said = vec![ip("::"), LOCAL, ip("192.0.2.1"), ip("0.0.0.0")];
    assert_eq!(elsewhere(&wan, said.clone())?, [ip("192.0.2.1")]);
    assert_eq!(elsewhere(&lo_dual(), said.clone())?, said);
    let blocked = elsewhere(&wan, vec![ip("0.0.0.0"), LOCAL]);
    assert!(matches!(&blocked, Err(Bad::NotSent(why)) if why.contains("0.0.0.0")), "{blocked:?}");
    Ok(())
}

#[tokio::test]
async fn the_file_of_name_servers_is_read_each_time() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("resolv.conf");
    let servers = Servers::File(path.clone());
    let missing = servers.reachable(&lo()).await;
    let Err(Bad::NotSent(why)) = missing else { panic!("{missing:?}") };
    assert!(why.contains("resolv.conf"), "{why}");
    for server in ["192.0.2.53", "192.0.2.54"] {
        std::fs::write(&path, format!("nameserver {server}\nnameserver 2001:db8::53\n"))?;
        assert_eq!(servers.reachable(&lo()).await?, [SocketAddr::new(ip(server), 53)]);
    }
    Ok(())
}

#[tokio::test]
async fn a_resolver_of_this_machine_is_not_asked_by_a_wan() -> Outcome {
    let local = Servers::given(&["127.0.0.53"])?;
    let wan = Via { device: Some("wan0".to_owned()), ..lo() };
    let refused = local.reachable(&wan).await;
    let Err(Bad::NotSent(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("this machine itself"), "{why}");
    let other = Servers::given(&["127.0.0.53", "192.0.2.53"])?;
    assert_eq!(other.reachable(&wan).await?, [SocketAddr::new(ip("192.0.2.53"), 53)]);
    Ok(())
}

#[test]
fn a_server_may_have_a_port() -> Outcome {
    let given = Servers::given(&["192.0.2.53", "192.0.2.53:5353", "2001:db8::53", "[::1]:54"])?;
    let expected = [
        SocketAddr::new(ip("192.0.2.53"), 53),
        SocketAddr::new(ip("192.0.2.53"), 5353),
        SocketAddr::new(ip("2001:db8::53"), 53),
        SocketAddr::new(ip("::1"), 54),
    ];
    assert_eq!(given, Servers::Given(expected.to_vec()));
    for text in ["", "dns.example.com", "192.0.2.53:0", "192.0.2.53:", "192.0.2"] {
        assert!(Servers::given(&[text]).is_err(), "{text:?} is a server");
    }
    let none: [&str; 0] = [];
    assert!(Servers::given(&none).is_err());
    Ok(())
}

#[test]
fn comments_other_options_and_what_is_no_address_are_not_servers() {
    let text = "# nameserver 192.0.2.1\n; nameserver 192.0.2.2\nsearch example.com\n\
                nameserver\nnameserver nonsense\n  nameserver\t192.0.2.3  # why\n\
                nameservers 192.0.2.4\nnameserver fe80::1%wan0\noptions timeout:1\n";
    assert_eq!(name_servers(text), [ip("192.0.2.3"), ip("fe80::1")]);
}

#[test]
fn three_name_servers_are_enough() {
    let text = "nameserver 192.0.2.1\n".repeat(9);
    assert_eq!(name_servers(&text).len(), 3);
}

proptest! {
    #[test]
    fn the_servers_written_into_a_file_are_read(
        v4: Vec<Ipv4Addr>, v6: Vec<Ipv6Addr>, noise in "[a-z;# ]{0,20}",
    ) {
        let all: Vec<IpAddr> =
            v4.into_iter().map(IpAddr::V4).chain(v6.into_iter().map(IpAddr::V6)).collect();
        let text: String =
            all.iter().map(|server| format!("#{noise}\nnameserver {server}\n")).collect();
        prop_assert_eq!(name_servers(&text), all.into_iter().take(3).collect::<Vec<_>>());
    }

    #[test]
    fn no_text_has_more_than_three_servers(text in "(\\PC|\n|nameserver 1\\.1\\.1\\.[1-9]\n){0,40}") {
        prop_assert!(name_servers(&text).len() <= 3);
    }
}
