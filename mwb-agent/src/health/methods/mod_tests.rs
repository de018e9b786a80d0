//! What all methods have in common.

use super::testing::{Outcome, SHORT, lo, local, tcp_server};
use super::*;
use proptest::prelude::*;

#[test]
fn a_target_is_an_address_or_a_name() -> Outcome {
    assert_eq!("192.0.2.1".parse(), Ok(Target::Address("192.0.2.1".parse()?)));
    assert_eq!("[2001:db8::1]".parse(), Ok(Target::Address("2001:db8::1".parse()?)));
    assert_eq!("2001:db8::1".parse(), Ok(Target::Address("2001:db8::1".parse()?)));
    assert_eq!("a.example.com".parse(), Ok(Target::Name("a.example.com".to_owned())));
    for text in ["", ".", "a b", "http://example.com", "192.0.2.1:80", "a..b", "[a.example]"] {
        assert!(text.parse::<Target>().is_err(), "{text:?} is a target");
    }
    Ok(())
}

#[test]
fn only_what_says_nothing_of_the_target_is_silence() {
    let to = "192.0.2.1:80".parse().unwrap_or_else(|error| panic!("{error}"));
    let (name, why) = (String::new(), String::new);
    let silent = [
        Bad::TimedOut { after: SHORT, waiting: why() },
        Bad::Unreachable { to, why: why() },
        Bad::NotSent(why()),
        Bad::Exec { how: Ended::Critical, message: why() },
    ];
    let heard = [
        Bad::Refused(to),
        Bad::Broken { to, why: why() },
        Bad::Tls { name: name.clone(), why: why() },
        Bad::Status { got: 500, expected: why() },
        Bad::Body { wanted: why(), read: 0 },
        Bad::Redirect { to: why(), why: why() },
        Bad::Name { server: to, name, code: Rcode::NxDomain },
        Bad::Answer { got: why(), wanted: why() },
    ];
    assert!(silent.iter().all(Bad::is_silence));
    assert!(!heard.iter().any(Bad::is_silence));
}

#[tokio::test]
async fn each_method_asks_in_its_own_way() -> Outcome {
    let web = testing::http_server(|_| testing::response(200, "", "")).await?;
    let servers = testing::knows("host.example.com.", &["192.0.2.1"]).await?;
    let http = HttpOptions { url: format!("http://{web}/"), ..HttpOptions::default() };
    let rows = [
        (Method::Http(Box::new(Http::new(&http)?)), None, "says 200"),
        (
            Method::Dns(Dns::new("host.example.com", Kind::A, &["192.0.2.1"], servers)?),
            None,
            "192.0.2.1",
        ),
        (Method::Tcp(Tcp { port: web.port(), ..Tcp::default() }), Some(local()), "connected to"),
        (Method::Exec(Exec::new(&["/bin/sh", "-c", "echo $MWB_WAN"])?), None, "lab"),
    ];
    for (method, target, detail) in rows {
        let good = method.ask(&lo(), target.as_ref(), testing::SOON).await?;
        assert!(good.detail.contains(detail), "{detail}: {good:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_dropped_check_closes_its_connection() -> Outcome {
    use tokio::io::AsyncReadExt;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let server = tcp_server(move |mut stream| {
        let tell = tell.clone();
        async move {
            let _ = tell.send("open");
            let end = stream.read(&mut [0; 64]).await;
            let _ = tell.send(if matches!(end, Ok(0)) { "closed" } else { "not closed" });
            Ok(())
        }
    });
    let port = server.await?.port();
    let tcp = Tcp { port, expect: b"hello".to_vec(), ..Tcp::default() };
    let check =
        tokio::spawn(
            async move { Method::Tcp(tcp).ask(&lo(), Some(&local()), testing::SOON).await },
        );
    assert_eq!(told.recv().await, Some("open"));
    check.abort();
    assert_eq!(tokio::time::timeout(testing::SOON, told.recv()).await?, Some("closed"));
    Ok(())
}

proptest! {
    #[test]
    fn a_text_is_found_where_it_is(bytes in "[ab]{0,40}", wanted in "[ab]{1,4}", from in 0..45usize) {
        let plain = bytes.get(from..).and_then(|rest| rest.find(&wanted)).map(|at| at + from);
        prop_assert_eq!(find(bytes.as_bytes(), wanted.as_bytes(), from), plain);
    }

    #[test]
    fn a_target_says_itself(address: std::net::Ipv6Addr) {
        let target = Target::Address(address.into());
        prop_assert_eq!(target.to_string().parse(), Ok(target));
    }
}
