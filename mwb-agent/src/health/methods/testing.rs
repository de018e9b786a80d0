//! Little servers on loopback for the tests of the methods.

use std::error::Error;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, OpCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::{Servers, Target, Via};

pub(super) type Outcome = Result<(), Box<dyn Error>>;

/// Longer than anything on loopback takes.
pub(super) const SOON: Duration = Duration::from_secs(20);
/// For what is to be too late.
pub(super) const SHORT: Duration = Duration::from_millis(300);
pub(super) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A WAN that is the loopback device, with IPv4 alone.
pub(super) fn lo() -> Via {
    let source4 = Some(Ipv4Addr::LOCALHOST);
    Via { wan: Some("lab".to_owned()), device: Some("lo".to_owned()), source4, source6: None }
}

/// The same with both families.
pub(super) fn lo_dual() -> Via {
    Via { source6: Some(Ipv6Addr::LOCALHOST), ..lo() }
}

pub(super) fn local() -> Target {
    Target::Address(LOCAL)
}

/// A server that does `serve` with each connection.
pub(super) async fn tcp_server<F>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> std::io::Result<SocketAddr>
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind((LOCAL, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    Ok(address)
}

/// An address where nothing listens.
pub(super) async fn nobody() -> std::io::Result<SocketAddr> {
    TcpListener::bind((LOCAL, 0)).await?.local_addr()
}

/// The head of a request.
pub(super) async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A web server that answers each request with what `answer` makes of it.
pub(super) async fn http_server(
    answer: impl Fn(&str) -> String + Send + Sync + 'static,
) -> std::io::Result<SocketAddr> {
    let answer = Arc::new(answer);
    tcp_server(move |mut stream| {
        let answer = Arc::clone(&answer);
        async move {
            let head = head(&mut stream).await?;
            stream.write_all(answer(&head).as_bytes()).await
        }
    })
    .await
}

/// A response with this status, these header lines and this body.
pub(super) fn response(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} Word\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

/// A name server on UDP and TCP. `answer` makes the datagrams for a question,
/// or the one message if it came over TCP.
pub(super) async fn dns_server(
    answer: impl Fn(&Message, bool) -> Vec<Message> + Send + Sync + 'static,
) -> Result<SocketAddr, Box<dyn Error>> {
    let answer = Arc::new(answer);
    let for_tcp = Arc::clone(&answer);
    let tcp = tcp_server(move |mut stream| {
        let answer = Arc::clone(&for_tcp);
        async move {
            let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut buffer).await?;
            let question = Message::from_vec(&buffer).map_err(std::io::Error::other)?;
            for message in answer(&question, true) {
                let bytes = message.to_vec().map_err(std::io::Error::other)?;
                stream.write_u16(bytes.len() as u16).await?;
                stream.write_all(&bytes).await?;
            }
            Ok(())
        }
    });
    let address = tcp.await?;
    let udp = UdpSocket::bind(address).await?;
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
            for message in answer(&question, false) {
                let Ok(bytes) = message.to_vec() else { continue };
                let _ = udp.send_to(&bytes, from).await;
            }
        }
    });
    Ok(address)
}

/// The answer to a question, with these records.
pub(super) fn reply(question: &Message, records: Vec<Record>) -> Message {
    let mut message = Message::response(question.metadata.id, OpCode::Query);
    message.add_queries(question.queries.clone());
    message.add_answers(records);
    message
}

pub(super) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap_or_else(|error| panic!("{text} is no name: {error}"))
}

pub(super) fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(name(owner), 60, data)
}

pub(super) fn address(text: &str) -> RData {
    match text.parse() {
        Ok(IpAddr::V4(address)) => RData::A(A(address)),
        Ok(IpAddr::V6(address)) => RData::AAAA(AAAA(address)),
        Err(error) => panic!("{text} is no address: {error}"),
    }
}

pub(super) fn alias(text: &str) -> RData {
    RData::CNAME(CNAME(name(text)))
}

/// A name server that knows one name, by these addresses.
pub(super) async fn knows(
    owner: &'static str,
    addresses: &'static [&'static str],
) -> Result<Servers, Box<dyn Error>> {
    let server = dns_server(move |question, _| {
        let asked = question.queries.first();
        let fits = |record: &Record| {
            asked.is_some_and(|asked| {
                asked.name == record.name && asked.query_type == record.data.record_type()
            })
        };
        let records = addresses.iter().map(|text| record(owner, address(text)));
        vec![reply(question, records.filter(fits).collect())]
    });
    Ok(Servers::Given(vec![server.await?]))
}
