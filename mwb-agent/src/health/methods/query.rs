//! One question to name servers, by one WAN: UDP first, TCP if the answer did
//! not fit. RFC 1035, RFC 7766.
//!
//! Must not know: which servers, what the answer is for.

use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::budget::Budget;
use super::via::{Via, fault};
use super::{Bad, Invalid, Rcode};

/// Without EDNS no answer over UDP is longer than 512 bytes; a longer one is
/// cut, and is then no answer.
const LONGEST_DATAGRAM: usize = 1500;
/// No chain of aliases is followed further.
const MOST_ALIASES: usize = 16;

/// A type of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An IPv4 address.
    A,
    /// An IPv6 address (RFC 3596).
    Aaaa,
    /// The name that this one is an alias of.
    Cname,
    /// A mail server.
    Mx,
    /// Text.
    Txt,
    /// A name server of the zone.
    Ns,
}

impl Kind {
    const fn record_type(self) -> RecordType {
        match self {
            Kind::A => RecordType::A,
            Kind::Aaaa => RecordType::AAAA,
            Kind::Cname => RecordType::CNAME,
            Kind::Mx => RecordType::MX,
            Kind::Txt => RecordType::TXT,
            Kind::Ns => RecordType::NS,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record_type().fmt(f)
    }
}

impl std::str::FromStr for Kind {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let all = [Kind::A, Kind::Aaaa, Kind::Cname, Kind::Mx, Kind::Txt, Kind::Ns];
        all.into_iter()
            .find(|kind| kind.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| Invalid::new("type", text, "is none of A, AAAA, CNAME, MX, TXT, NS"))
    }
}

/// A host or domain name, from the root on.
pub(super) fn parse_name(option: &'static str, text: &str) -> Result<Name, Invalid> {
    let invalid = |why: String| Invalid::new(option, text, why);
    // What is not ASCII is encoded (RFC 5891); what is may be no host's name, as
    // `_dmarc.example.com`.
    let name = if text.is_ascii() { Name::from_ascii(text) } else { Name::from_utf8(text) };
    let mut name = name.map_err(|error| invalid(format!("is no name: {error}")))?;
    let strange = |c: char| c.is_whitespace() || matches!(c, '/' | ':' | '\\' | '@' | '[' | ']');
    if name.num_labels() == 0 || text.contains(strange) {
        return Err(invalid("is no name; write it as www.example.com".to_owned()));
    }
    name.set_fqdn(true);
    Ok(name)
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) name: Name,
    pub(super) kind: Kind,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.kind)
    }
}

/// What a name server said.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) server: SocketAddr,
    /// From the first question to this server to its whole answer.
    pub(super) time: Duration,
    /// At least one; all of the kind that was asked for.
    pub(super) records: Vec<RData>,
}

/// Asks the servers one after the other until one knows; each gets an equal
/// part of the time.
///
/// That there is no such name, or no such record, is knowledge too. A server
/// that fails or refuses is as good as none.
pub(super) async fn ask(
    via: &Via,
    servers: &[SocketAddr],
    question: &Question,
    budget: &Budget,
) -> Result<Reply, Bad> {
    let mut failure: Option<Bad> = None;
    for (tried, server) in servers.iter().enumerate() {
        let share = budget.share(servers.len() - tried);
        match ask_one(via, *server, question, &share).await {
            Ok(reply) => return Ok(reply),
            Err(known @ Bad::Name { code: Rcode::NxDomain | Rcode::NoData, .. }) => {
                return Err(known);
            }
            Err(bad) => {
                failure = Some(match failure {
                    Some(earlier) => earlier.or(bad),
                    None => bad,
                });
            }
        }
    }
    Err(failure.unwrap_or_else(|| Bad::NotSent("there is no name server to ask".to_owned())))
}

async fn ask_one(
    via: &Via,
    server: SocketAddr,
    question: &Question,
    budget: &Budget,
) -> Result<Reply, Bad> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(question.name.clone(), question.kind.record_type()));
    let bytes = message.to_vec();
    let bytes = bytes.map_err(|error| Bad::NotSent(format!("{question}: {error}")))?;
    let start = Instant::now();
    let waiting = || format!("name server {server} was asked for {question}");
    let mut answer = over_udp(via, server, &message, &bytes, budget, &waiting).await?;
    if answer.metadata.truncation {
        let whole = over_tcp(via, server, &message, &bytes);
        answer = budget.within(&waiting, whole).await??;
    }
    let time = start.elapsed();
    let records = judge(question, &answer);
    let bad = |code| Bad::Name { server, name: question.to_string(), code };
    records.map(|records| Reply { server, time, records }).map_err(bad)
}

/// Asks, and asks once more when half of the time is over: a datagram may be
/// lost. Either question's answer counts.
async fn over_udp(
    via: &Via,
    server: SocketAddr,
    message: &Message,
    bytes: &[u8],
    budget: &Budget,
    waiting: &impl Fn() -> String,
) -> Result<Message, Bad> {
    let socket = via.udp(server)?;
    let mut answer = pin!(hear(&socket, server, message));
    let send = || async { socket.send(bytes).await.map_err(|error| fault(server, &error)) };
    send().await?;
    match budget.share(2).within(waiting, &mut answer).await {
        Err(Bad::TimedOut { .. }) => {}
        done => return done?,
    }
    send().await?;
    budget.within(waiting, answer).await?
}

/// The answer, among all that comes.
async fn hear(socket: &UdpSocket, server: SocketAddr, message: &Message) -> Result<Message, Bad> {
    let mut buffer = [0; LONGEST_DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(|error| fault(server, &error))?;
        let datagram = buffer.get(..length).unwrap_or_default();
        if let Ok(answer) = Message::from_vec(datagram)
            && answers(message, &answer)
        {
            return Ok(answer);
        }
    }
}

async fn over_tcp(
    via: &Via,
    server: SocketAddr,
    message: &Message,
    bytes: &[u8],
) -> Result<Message, Bad> {
    let failed = |error| fault(server, &error);
    let broken = |why: String| Bad::Broken { to: server, why };
    let mut stream = via.tcp(server).await?;
    // Length and message in one segment (RFC 7766, 8).
    let length = u16::try_from(bytes.len()).map_err(|error| broken(error.to_string()))?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend(bytes);
    stream.write_all(&framed).await.map_err(failed)?;
    let length = stream.read_u16().await.map_err(failed)?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await.map_err(failed)?;
    let answer = Message::from_vec(&buffer).map_err(|error| broken(error.to_string()))?;
    if answers(message, &answer) {
        Ok(answer)
    } else {
        Err(broken("it answers another question".to_owned()))
    }
}

/// Whether this is the answer to our question: same id, same question. A server
/// that could not read the question does not repeat it.
fn answers(message: &Message, answer: &Message) -> bool {
    let repeated = answer.queries == message.queries;
    let unread =
        answer.queries.is_empty() && answer.metadata.response_code != ResponseCode::NoError;
    answer.metadata.id == message.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.metadata.op_code == OpCode::Query
        && (repeated || unread)
}

/// The records of the name, or of what it is an alias of.
fn judge(question: &Question, answer: &Message) -> Result<Vec<RData>, Rcode> {
    match answer.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Err(Rcode::NxDomain),
        ResponseCode::ServFail => return Err(Rcode::ServFail),
        ResponseCode::Refused => return Err(Rcode::Refused),
        other => return Err(Rcode::Other(other.into())),
    }
    let of = |name: &Name, wanted: RecordType| -> Vec<&RData> {
        let ours = answer.answers.iter().filter(|record| {
            record.dns_class == DNSClass::IN
                && record.name == *name
                && record.data.record_type() == wanted
        });
        ours.map(|record| &record.data).collect()
    };
    let mut name = &question.name;
    for _ in 0..MOST_ALIASES {
        let found = of(name, question.kind.record_type());
        if !found.is_empty() {
            return Ok(found.into_iter().cloned().collect());
        }
        match of(name, RecordType::CNAME).first() {
            Some(RData::CNAME(alias)) => name = &alias.0,
            _ => break,
        }
    }
    Err(Rcode::NoData)
}
