//! The HTTP check where servers send it elsewhere.

use super::super::testing::{
    LOCAL, Outcome, SHORT, SOON, head, http_server, knows, lo, response, tcp_server,
};
use super::tests::{ask, asked, heads, options};
use super::*;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

/// A server that counts a path down by redirects: `/3` to `/2`, and `/0` is it.
async fn stairs() -> std::io::Result<SocketAddr> {
    http_server(|head| {
        let number: u32 = head.split(['/', ' ']).find_map(|word| word.parse().ok()).unwrap_or(0);
        match number.checked_sub(1) {
            Some(next) => response(302, &format!("Location: {next}\r\n"), ""),
            None => response(200, "", "arrived"),
        }
    })
    .await
}

#[tokio::test]
async fn five_redirects_are_followed_and_six_are_not() -> Outcome {
    let server = stairs().await?;
    let from = |steps: u32| HttpOptions {
        url: format!("http://{server}/{steps}"),
        redirects: true,
        body: Some("arrived".to_owned()),
        ..HttpOptions::default()
    };
    ask(&from(5)).await?;
    let bad = ask(&from(6)).await;
    assert!(matches!(&bad, Err(Bad::Redirect { to, .. }) if to.ends_with("/0")), "{bad:?}");
    Ok(())
}

#[tokio::test]
async fn a_redirect_that_is_not_followed_has_a_status_like_any_other() -> Outcome {
    let server = stairs().await?;
    let url = format!("http://{server}/3");
    let options = HttpOptions { url, ..HttpOptions::default() };
    let bad = ask(&options).await;
    assert_eq!(bad, Err(Bad::Status { got: 302, expected: "200".to_owned() }));
    ask(&HttpOptions { status: "302".to_owned(), ..options }).await?;
    Ok(())
}

#[tokio::test]
async fn a_loop_is_noticed() -> Outcome {
    let server = http_server(|head| {
        let there = if head.contains(" /a ") { "/b" } else { "/a" };
        response(307, &format!("Location: {there}\r\n"), "")
    });
    let url = format!("http://{}/a", server.await?);
    let bad = ask(&HttpOptions { url, redirects: true, ..HttpOptions::default() }).await;
    assert!(matches!(&bad, Err(Bad::Redirect { why, .. }) if why.contains("loop")), "{bad:?}");
    Ok(())
}

#[tokio::test]
async fn a_redirect_to_nowhere_is_told() -> Outcome {
    for location in ["ftp://example.com/", "http://", "mailto:x@example.com"] {
        let server = http_server(move |_| response(301, &format!("Location: {location}\r\n"), ""));
        let options = HttpOptions { redirects: true, ..options(server.await?) };
        let bad = ask(&options).await;
        assert!(matches!(&bad, Err(Bad::Redirect { to, .. }) if to == location), "{bad:?}");
    }
    Ok(())
}

#[tokio::test]
async fn another_server_gets_neither_the_headers_nor_the_target() -> Outcome {
    let (other, seen) = asked(response(200, "", "")).await?;
    let location = format!("Location: http://other.example.com:{}/x\r\n", other.port());
    let (server, first) = asked(response(303, &location, "")).await?;
    let http = Http::new(&HttpOptions {
        url: format!("http://www.example.com:{}/", server.port()),
        method: "POST".to_owned(),
        headers: vec![("Authorization".to_owned(), "secret".to_owned())],
        redirects: true,
        servers: knows("other.example.com.", &["127.0.0.1"]).await?,
        ..HttpOptions::default()
    })?;
    // The first name is never resolved: the target stands for it.
    http.ask(&lo(), Some(&Target::Address(LOCAL)), &Budget::new(SOON)).await?;
    let (first, then) = (heads(&first).concat(), heads(&seen).concat());
    assert!(first.starts_with("POST / ") && first.contains("secret"), "{first}");
    assert!(then.starts_with("GET /x ") && !then.contains("secret"), "{then}");
    assert!(then.contains("other.example.com"), "{then}");
    Ok(())
}

#[test]
fn what_is_posted_is_posted_again_only_if_the_server_says_so() -> Outcome {
    let rows = [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
        (303, "PUT", "GET"),
        (302, "PUT", "PUT"),
        (303, "HEAD", "HEAD"),
        (302, "HEAD", "HEAD"),
    ];
    for (status, before, after) in rows {
        let stop = Stop { url: parse_url("http://192.0.2.1/a")?, method: before.parse()? };
        let next = stop.next(StatusCode::from_u16(status)?, "b#part")?;
        assert_eq!(next.method, after, "{status} {before}");
        assert_eq!(next.url.as_str(), "http://192.0.2.1/b");
    }
    Ok(())
}

#[tokio::test]
async fn all_redirects_together_have_one_budget() -> Outcome {
    // Each step is in time, all of them are not.
    let server = tcp_server(async |mut stream| {
        let head = head(&mut stream).await?;
        tokio::time::sleep(SHORT / 2).await;
        let number: u32 = head.split(['/', ' ']).find_map(|word| word.parse().ok()).unwrap_or(0);
        let location = format!("Location: /{}\r\n", number + 1);
        stream.write_all(response(302, &location, "").as_bytes()).await
    });
    let http = Http::new(&HttpOptions { redirects: true, ..options(server.await?) })?;
    let start = Instant::now();
    let bad = http.ask(&lo(), None, &Budget::new(SHORT)).await;
    assert!(matches!(bad, Err(Bad::TimedOut { .. })), "{bad:?}");
    assert!(start.elapsed() < 2 * SHORT, "{:?}", start.elapsed());
    Ok(())
}

proptest! {
    #[test]
    fn no_redirect_leads_out_of_http(location in "[ -~]{0,30}") {
        let url = parse_url("http://192.0.2.1/a/b");
        let stop = Stop { url: url?, method: hyper::Method::GET };
        if let Ok(next) = stop.next(StatusCode::FOUND, &location) {
            prop_assert!(matches!(next.url.scheme(), "http" | "https"));
        }
    }
}
