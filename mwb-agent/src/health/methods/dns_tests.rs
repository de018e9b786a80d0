//! The DNS check against little name servers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::super::Rcode;
use super::super::testing::{
    LOCAL, Outcome, SHORT, SOON, address, alias, dns_server, lo, name, nobody, record, reply,
};
use super::*;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::{MX, NS, TXT};

const HOST: &str = "host.example.com.";

fn check(kind: Kind, expected: &[&str], server: SocketAddr) -> Result<Dns, Invalid> {
    Dns::new("Host.example.com", kind, expected, Servers::Given(vec![server]))
}

async fn ask(dns: &Dns, timeout: Duration) -> Result<Good, Bad> {
    dns.ask(&lo(), None, &Budget::new(timeout)).await
}

/// A server that gives these records to any question.
async fn gives(records: Vec<Record>) -> Result<SocketAddr, Box<dyn std::error::Error>> {
    dns_server(move |question, _| vec![reply(question, records.clone())]).await
}

fn is(text: &str) -> Record {
    record(HOST, address(text))
}

#[tokio::test]
async fn a_right_answer_is_good_and_has_a_time() -> Outcome {
    let server = gives(vec![is("192.0.2.1"), is("192.0.2.2")]).await?;
    let right: [&[&str]; 4] =
        [&[], &["192.0.2.2"], &["198.51.100.0/24", "192.0.2.0/29"], &["192.0.2.1/32"]];
    for expected in right {
        let good = ask(&check(Kind::A, expected, server)?, SOON).await?;
        assert!(good.time > Duration::ZERO && good.time < SOON, "{good:?}");
        assert!(good.detail.contains("192.0.2.1, 192.0.2.2"), "{good:?}");
    }
    Ok(())
}

#[tokio::test]
async fn another_answer_is_bad_and_told() -> Outcome {
    let server = gives(vec![is("192.0.2.1")]).await?;
    let bad = ask(&check(Kind::A, &["192.0.2.2", "198.51.100.0/24"], server)?, SOON).await;
    let (got, wanted) = ("192.0.2.1".to_owned(), "192.0.2.2, 198.51.100.0/24".to_owned());
    assert_eq!(bad, Err(Bad::Answer { got, wanted }));
    Ok(())
}

#[tokio::test]
async fn an_ipv6_address_is_compared_as_an_address() -> Outcome {
    let server = gives(vec![is("2001:db8::1")]).await?;
    ask(&check(Kind::Aaaa, &["2001:DB8:0:0::1"], server)?, SOON).await?;
    assert!(ask(&check(Kind::Aaaa, &["2001:db8::2"], server)?, SOON).await.is_err());
    Ok(())
}

#[tokio::test]
async fn texts_are_compared_without_case_and_final_dot() -> Outcome {
    let mail = RData::MX(MX::new(10, name("Mail.example.com.")));
    let text = RData::TXT(TXT::new(vec!["v=spf1 ".to_owned(), "-all".to_owned()]));
    let rows = [
        (Kind::Mx, mail, vec!["mail.EXAMPLE.com", "10 mail.example.com."], "20 mail.example.com"),
        (Kind::Txt, text, vec!["V=spf1 -all"], "v=spf1"),
        (Kind::Ns, RData::NS(NS(name("ns.example.com."))), vec!["ns.example.com"], "ns"),
        (Kind::Cname, alias("real.example.com."), vec!["Real.example.com."], "host.example.com"),
    ];
    for (kind, data, right, wrong) in rows {
        let server = gives(vec![record(HOST, data)]).await?;
        for expected in right {
            ask(&check(kind, &[expected], server)?, SOON).await?;
        }
        let bad = ask(&check(kind, &[wrong], server)?, SOON).await;
        assert!(matches!(bad, Err(Bad::Answer { .. })), "{kind}: {bad:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_alias_leads_to_the_address() -> Outcome {
    let server =
        gives(vec![record(HOST, alias("b.example.")), record("b.example.", address("192.0.2.9"))]);
    ask(&check(Kind::A, &["192.0.2.9"], server.await?)?, SOON).await?;
    Ok(())
}

#[tokio::test]
async fn answers_with_another_id_or_question_are_passed_over() -> Outcome {
    let server = dns_server(|question, _| {
        let lie = vec![is("203.0.113.66")];
        let mut other_id = reply(question, lie.clone());
        other_id.metadata.id = question.metadata.id.wrapping_add(1);
        let mut other_name = reply(question, lie.clone());
        other_name.queries.iter_mut().for_each(|query| query.name = name("evil.example.com."));
        let mut other_type = reply(question, lie.clone());
        let aaaa = hickory_proto::rr::RecordType::AAAA;
        other_type.queries.iter_mut().for_each(|query| query.query_type = aaaa);
        let mut no_question = reply(question, lie);
        no_question.queries.clear();
        let true_one = reply(question, vec![is("192.0.2.1")]);
        vec![other_id, other_name, other_type, no_question, question.clone(), true_one]
    });
    ask(&check(Kind::A, &["192.0.2.1"], server.await?)?, SOON).await?;
    Ok(())
}

#[tokio::test]
async fn wrong_answers_alone_are_silence() -> Outcome {
    let server = dns_server(|question, _| {
        let mut message = reply(question, vec![is("192.0.2.1")]);
        message.metadata.id = question.metadata.id.wrapping_add(1);
        vec![message]
    });
    let bad = ask(&check(Kind::A, &[], server.await?)?, SHORT).await;
    assert!(matches!(bad, Err(Bad::TimedOut { .. })), "{bad:?}");
    Ok(())
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_asked_for_again_over_tcp() -> Outcome {
    let server = dns_server(|question, tcp| {
        let mut message = reply(question, if tcp { vec![is("192.0.2.1")] } else { vec![] });
        message.metadata.truncation = !tcp;
        vec![message]
    });
    ask(&check(Kind::A, &["192.0.2.1"], server.await?)?, SOON).await?;
    Ok(())
}

#[tokio::test]
async fn over_tcp_an_answer_to_another_question_is_bad() -> Outcome {
    let server = dns_server(|question, tcp| {
        let mut message = reply(question, vec![is("192.0.2.1")]);
        message.metadata.truncation = !tcp;
        message.metadata.id = question.metadata.id.wrapping_add(u16::from(tcp));
        vec![message]
    });
    let bad = ask(&check(Kind::A, &[], server.await?)?, SOON).await;
    assert!(matches!(bad, Err(Bad::Broken { .. })), "{bad:?}");
    Ok(())
}

#[tokio::test]
async fn a_lost_question_is_asked_again() -> Outcome {
    let asked = AtomicUsize::new(0);
    let server = dns_server(move |question, _| {
        let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        if first { vec![] } else { vec![reply(question, vec![is("192.0.2.1")])] }
    });
    let good = ask(&check(Kind::A, &[], server.await?)?, 4 * SHORT).await?;
    assert!(good.time >= 2 * SHORT, "{good:?}");
    Ok(())
}

#[tokio::test]
async fn each_refusal_has_its_name_and_is_no_silence() -> Outcome {
    let rows = [
        (ResponseCode::NXDomain, Rcode::NxDomain),
        (ResponseCode::ServFail, Rcode::ServFail),
        (ResponseCode::Refused, Rcode::Refused),
        (ResponseCode::NotImp, Rcode::Other(4)),
        (ResponseCode::NoError, Rcode::NoData),
    ];
    for (says, code) in rows {
        let server = dns_server(move |question, _| {
            // Records of another type or name are no answer.
            let others = vec![is("2001:db8::1"), record("x.example.", address("192.0.2.1"))];
            let mut message = reply(question, others);
            message.metadata.response_code = says;
            vec![message]
        });
        let server = server.await?;
        let bad = ask(&check(Kind::A, &[], server)?, SOON).await;
        let name = "Host.example.com. A".to_owned();
        assert_eq!(bad, Err(Bad::Name { server, name, code }));
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_could_not_read_the_question_need_not_repeat_it() -> Outcome {
    let server = dns_server(|question, _| {
        let mut message = reply(question, vec![]);
        message.queries.clear();
        message.metadata.response_code = ResponseCode::FormErr;
        vec![message]
    });
    let bad = ask(&check(Kind::A, &[], server.await?)?, SOON).await;
    assert!(matches!(bad, Err(Bad::Name { code: Rcode::Other(1), .. })), "{bad:?}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_fails_gives_way_to_the_next_and_no_such_name_does_not() -> Outcome {
    let counted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&counted);
    let knows = dns_server(move |question, _| {
        count.fetch_add(1, Ordering::Relaxed);
        vec![reply(question, vec![is("192.0.2.1")])]
    });
    let knows = knows.await?;
    let says = async |code| {
        let server = dns_server(move |question: &Message, _| {
            let mut message = reply(question, vec![]);
            message.metadata.response_code = code;
            vec![message]
        });
        let servers = Servers::Given(vec![server.await?, knows]);
        let none: [&str; 0] = [];
        let dns = Dns::new(HOST, Kind::A, &none, servers)?;
        Ok::<_, Box<dyn std::error::Error>>(ask(&dns, SOON).await)
    };
    assert!(says(ResponseCode::ServFail).await?.is_ok());
    assert_eq!(counted.load(Ordering::Relaxed), 1);
    assert!(says(ResponseCode::NXDomain).await?.is_err());
    assert_eq!(counted.load(Ordering::Relaxed), 1);
    Ok(())
}

#[tokio::test]
async fn a_port_without_a_server_refuses() -> Outcome {
    let server = nobody().await?;
    let bad = ask(&check(Kind::A, &[], server)?, SOON).await;
    assert_eq!(bad, Err(Bad::Refused(server)));
    Ok(())
}

#[tokio::test]
async fn a_target_is_asked_instead_of_the_servers() -> Outcome {
    let server = gives(vec![is("192.0.2.1")]).await?;
    let dns = check(Kind::A, &[], server)?;
    // Nothing serves this address' port 53.
    let target = Target::Address("127.0.0.99".parse()?);
    let bad = dns.ask(&lo(), Some(&target), &Budget::new(SOON)).await;
    assert_eq!(bad, Err(Bad::Refused("127.0.0.99:53".parse()?)));
    Ok(())
}

#[test]
fn what_cannot_be_right_is_refused() {
    let rows = [
        (Kind::A, "2001:db8::1"),
        (Kind::A, "example.com"),
        (Kind::A, "192.0.2.0/33"),
        (Kind::Aaaa, "192.0.2.1"),
    ];
    for (kind, expected) in rows {
        let error = check(kind, &[expected], SocketAddr::new(LOCAL, 53)).err();
        assert_eq!(error.map(|error| error.option), Some("expect"), "{kind} {expected}");
    }
    let none: [&str; 0] = [];
    for name in ["", ".", "a b", "http://x/", "a..b"] {
        assert!(Dns::new(name, Kind::A, &none, Servers::default()).is_err(), "{name:?}");
    }
}

#[test]
fn a_name_may_be_no_hosts_or_not_ascii() -> Outcome {
    for (text, asked) in [
        ("k1_x._domainkey.example.com", "k1_x._domainkey.example.com. TXT"),
        ("bücher.example", "xn--bcher-kva.example. TXT"),
    ] {
        let none: [&str; 0] = [];
        let dns = Dns::new(text, Kind::Txt, &none, Servers::default())?;
        assert_eq!(dns.question.name.to_ascii() + " TXT", asked);
    }
    Ok(())
}

#[test]
fn a_type_is_read_in_any_case_and_says_itself() {
    for text in ["A", "AAAA", "CNAME", "MX", "TXT", "NS"] {
        let kind: Result<Kind, Invalid> = text.to_lowercase().parse();
        assert_eq!(kind.map(|kind| kind.to_string()), Ok(text.to_owned()));
    }
    assert!("SOA".parse::<Kind>().is_err());
}
