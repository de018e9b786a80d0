//! The TCP check against little servers.

use super::super::testing::{LOCAL, Outcome, SHORT, SOON, knows, lo, local, nobody, tcp_server};
use super::*;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn says(port: u16, send: &[u8], expect: &[u8]) -> Tcp {
    Tcp { port, send: send.to_vec(), expect: expect.to_vec(), ..Tcp::default() }
}

async fn ask(tcp: &Tcp, timeout: Duration) -> Result<Good, Bad> {
    tcp.ask(&lo(), Some(&local()), &Budget::new(timeout)).await
}

/// Answers each byte with it and the next letter.
async fn parrot(mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let byte = stream.read_u8().await?;
        stream.write_all(&[byte, byte + 1]).await?;
    }
}

#[tokio::test]
async fn an_open_port_is_good_and_has_a_time() -> Outcome {
    let server = tcp_server(parrot).await?;
    let good = ask(&says(server.port(), b"", b""), SOON).await?;
    assert!(good.time > Duration::ZERO && good.time < SOON, "{good:?}");
    assert!(good.detail.contains(&server.to_string()), "{good:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_sent_brings_what_is_expected_even_in_pieces() -> Outcome {
    let server = tcp_server(parrot).await?;
    ask(&says(server.port(), b"adg", b"abdegh"), SOON).await?;
    Ok(())
}

#[tokio::test]
async fn another_answer_is_bad_but_no_silence_be_the_connection_closed_or_not() -> Outcome {
    let stays = tcp_server(parrot).await?;
    let leaves = tcp_server(async |mut stream| stream.write_all(b"220 x").await).await?;
    for (server, timeout, read) in [(stays, SHORT, 2), (leaves, SOON, 5)] {
        let bad = ask(&says(server.port(), b"a", b"250"), timeout).await;
        assert_eq!(bad, Err(Bad::Body { wanted: "250".to_owned(), read }));
    }
    Ok(())
}

#[tokio::test]
async fn no_more_than_4_kib_are_looked_at() -> Outcome {
    let endless = tcp_server(async |mut stream| {
        loop {
            stream.write_all(&[b'x'; 1000]).await?;
        }
    });
    let bad = ask(&says(endless.await?.port(), b"", b"never"), SOON).await;
    assert_eq!(bad, Err(Bad::Body { wanted: "never".to_owned(), read: 4096 }));
    Ok(())
}

#[tokio::test]
async fn a_closed_port_refuses_and_that_is_no_silence() -> Outcome {
    let port = nobody().await?.port();
    let bad = ask(&says(port, b"", b""), SOON).await;
    assert_eq!(bad, Err(Bad::Refused(SocketAddr::new(LOCAL, port))));
    Ok(())
}

#[tokio::test]
async fn who_says_nothing_is_silent() -> Outcome {
    let mute = tcp_server(async |mut stream: TcpStream| stream.read_u8().await.map(drop)).await?;
    let bad = ask(&says(mute.port(), b"", b"220"), SHORT).await;
    let Err(Bad::TimedOut { after, .. }) = &bad else { panic!("{bad:?}") };
    assert_eq!(*after, SHORT);
    assert!(bad.is_err_and(|bad| bad.is_silence()));
    Ok(())
}

#[tokio::test]
async fn a_name_is_resolved_by_the_given_server() -> Outcome {
    let server = tcp_server(parrot).await?;
    let servers = knows("port.example.com.", &["127.0.0.1"]).await?;
    let tcp = Tcp { servers, ..says(server.port(), b"a", b"ab") };
    let target = Target::Name("port.example.com".to_owned());
    tcp.ask(&lo(), Some(&target), &Budget::new(SOON)).await?;
    Ok(())
}

#[tokio::test]
async fn without_a_target_nothing_is_sent() {
    let asked = Tcp::default().ask(&lo(), None, &Budget::new(SOON)).await;
    assert!(matches!(asked, Err(Bad::NotSent(_))), "{asked:?}");
}
