//! Sockets on the loopback device.

use super::super::testing::{LOCAL, Outcome, SOON, lo, lo_dual, nobody, tcp_server};
use super::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

#[tokio::test]
async fn a_connection_leaves_by_the_device_from_the_address() -> Outcome {
    // Any address of 127.0.0.0/8 is ours on loopback; this is not its default.
    let source = Ipv4Addr::new(127, 0, 0, 9);
    let via = Via { source4: Some(source), ..lo() };
    let listener = TcpListener::bind((LOCAL, 0)).await?;
    let stream = via.tcp(listener.local_addr()?).await?;
    let (_, from) = listener.accept().await?;
    assert_eq!(from.ip(), IpAddr::V4(source));
    let device = socket2::SockRef::from(&stream).device()?;
    assert_eq!(device.as_deref(), Some(b"lo".as_slice()));
    Ok(())
}

#[tokio::test]
async fn a_datagram_leaves_by_the_device_from_the_address() -> Outcome {
    let source = Ipv4Addr::new(127, 0, 0, 9);
    let via = Via { source4: Some(source), ..lo() };
    let far = UdpSocket::bind((LOCAL, 0)).await?;
    let socket = via.udp(far.local_addr()?)?;
    socket.send(b"question").await?;
    let (_, from) = far.recv_from(&mut [0; 16]).await?;
    assert_eq!(from.ip(), IpAddr::V4(source));
    let device = socket2::SockRef::from(&socket).device()?;
    assert_eq!(device.as_deref(), Some(b"lo".as_slice()));
    Ok(())
}

#[tokio::test]
async fn ipv6_leaves_from_its_own_address() -> Outcome {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await?;
    let stream = lo_dual().tcp(listener.local_addr()?).await?;
    assert_eq!(stream.local_addr()?.ip(), IpAddr::V6(Ipv6Addr::LOCALHOST));
    Ok(())
}

#[tokio::test]
async fn without_an_address_of_the_family_nothing_is_sent() {
    let to = SocketAddr::from((Ipv6Addr::LOCALHOST, 9));
    let Err(Bad::NotSent(why)) = lo().tcp(to).await else { panic!("it was sent") };
    assert!(why.contains("no IPv6 address"), "{why}");
    assert!(matches!(lo().udp(to), Err(Bad::NotSent(_))));
}

#[tokio::test]
async fn a_device_that_is_not_there_is_named() {
    let via = Via { device: Some("no-such-dev".to_owned()), ..lo() };
    let to = SocketAddr::new(LOCAL, 9);
    for bad in [via.tcp(to).await.err(), via.udp(to).err()] {
        let Some(Bad::NotSent(why)) = bad else { panic!("{bad:?}") };
        assert!(why.contains("no-such-dev"), "{why}");
    }
}

#[tokio::test]
async fn an_address_that_is_not_ours_is_named() {
    let via = Via { source4: Some(Ipv4Addr::new(192, 0, 2, 7)), ..lo() };
    let to = SocketAddr::new(LOCAL, 9);
    for bad in [via.tcp(to).await.err(), via.udp(to).err()] {
        let Some(Bad::NotSent(why)) = bad else { panic!("{bad:?}") };
        assert!(why.contains("192.0.2.7"), "{why}");
    }
}

#[tokio::test]
async fn a_second_address_is_tried_when_the_first_refuses() -> Outcome {
    let server = tcp_server(async |mut stream| stream.write_all(b"here").await).await?;
    let dead = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));
    let budget = Budget::new(SOON);
    let connected = connect(&lo(), &[dead, LOCAL], server.port(), &budget).await?;
    assert_eq!(connected.to, server);
    Ok(())
}

#[tokio::test]
async fn of_two_failures_the_one_that_was_heard_is_told() -> Outcome {
    let port = nobody().await?.port();
    let budget = Budget::new(SOON);
    let no_way = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let bad = connect(&lo(), &[LOCAL, no_way], port, &budget).await.err();
    assert_eq!(bad, Some(Bad::Refused(SocketAddr::new(LOCAL, port))));
    let bad = connect(&lo(), &[no_way, LOCAL], port, &budget).await.err();
    assert_eq!(bad, Some(Bad::Refused(SocketAddr::new(LOCAL, port))));
    Ok(())
}

#[test]
fn a_wan_with_one_family_has_not_the_other_and_one_with_none_has_both() {
    let (v4, v6) = (Some(Ipv4Addr::LOCALHOST), Some(Ipv6Addr::LOCALHOST));
    let has = |source4, source6| {
        let via = Via { source4, source6, ..Via::default() };
        (via.has_v4(), via.has_v6())
    };
    assert_eq!(has(v4, None), (true, false));
    assert_eq!(has(None, v6), (false, true));
    assert_eq!(has(v4, v6), (true, true));
    assert_eq!(has(None, None), (true, true));
}

#[test]
fn loopback_is_behind_no_other_device() {
    let via = |device: &str| Via { device: Some(device.to_owned()), ..Via::default() };
    assert!(via("wan0").misses(LOCAL));
    assert!(!via("lo").misses(LOCAL));
    assert!(!Via::default().misses(LOCAL));
    assert!(!via("wan0").misses(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))));
}
