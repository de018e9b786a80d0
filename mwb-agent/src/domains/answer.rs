//! One DNS message (RFC 1035): which addresses a name has, as the answer says. Pure.
//! Must not know: who asked, which names anybody wants.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData};

/// No chain of aliases is followed further.
const MOST_ALIASES: usize = 16;

/// Addresses of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The name that was asked for, and those that it is an alias of, in their order; in
    /// small letters, without the dot at the end.
    pub names: Vec<String>,
    /// Addresses of the last of these, each with the seconds that all of it is good for.
    pub addresses: Vec<(IpAddr, u32)>,
}

/// It is no DNS message, or a broken one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// Reads a message. `None`: one that says no address, as a question or an error does, or
/// one that was cut: all of it comes by TCP then (RFC 2181, 9).
///
/// # Errors
/// When it cannot be read.
pub fn learn(message: &[u8]) -> Result<Option<Answer>, Unreadable> {
    let message = Message::from_vec(message).map_err(|_| Unreadable)?;
    let about = &message.metadata;
    let [question] = &message.queries[..] else { return Ok(None) };
    if about.message_type != MessageType::Response
        || about.op_code != OpCode::Query
        || about.response_code != ResponseCode::NoError
        || about.truncation
        || question.query_class() != DNSClass::IN
    {
        return Ok(None);
    }
    let records = || message.answers.iter().filter(|record| record.dns_class == DNSClass::IN);
    let mut answer = Answer { names: vec![text(question.name())], addresses: Vec::new() };
    let (mut name, mut least) = (question.name(), u32::MAX);
    for _ in 0..MOST_ALIASES {
        let alias = records().find_map(|record| match &record.data {
            RData::CNAME(alias) if record.name == *name => Some((&alias.0, record.ttl)),
            _ => None,
        });
        let Some((alias, ttl)) = alias else { break };
        least = least.min(ttl);
        name = alias;
        answer.names.push(text(name));
    }
    for record in records().filter(|record| record.name == *name) {
        let address: IpAddr = match &record.data {
            RData::A(address) => address.0.into(),
            // Nobody sends to a mapped one, and it is not to be taken for the other.
            RData::AAAA(address) if address.0.to_ipv4_mapped().is_none() => address.0.into(),
            _ => continue,
        };
        answer.addresses.push((address, least.min(record.ttl)));
    }
    Ok((!answer.addresses.is_empty()).then_some(answer))
}

fn text(name: &Name) -> String {
    let text = name.to_lowercase().to_ascii();
    text.strip_suffix('.').map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
