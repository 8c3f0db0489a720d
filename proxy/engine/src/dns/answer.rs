//! A question and its answer, as messages (RFC 1035), without I/O.

use super::cache::Found;
use super::names::Entry;
use super::{AskError, Zone};
use crate::telemetry::DnsStats;
use hickory_resolver::proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::IpAddr;

/// Largest answer over UDP that is sent, bytes: fits any path without fragments (DNS flag day 2020).
pub const UDP_BYTES_MAX: usize = 1232;
/// Largest answer over UDP to who does not say what it takes (RFC 1035 section 4.2.1).
const UDP_BYTES_PLAIN: usize = 512;
/// Length of a message's header.
const HEADER_BYTES: usize = 12;

/// What a question needs.
#[derive(Debug)]
pub enum Verdict {
    /// This answer.
    Answer(Message),
    /// Other servers must be asked.
    Ask(Box<Asked>),
    /// Nothing: it was no question.
    Ignore,
}

/// A question for other servers.
#[derive(Debug)]
pub struct Asked {
    /// The answer without its content.
    reply: Message,
    /// The name asked for.
    pub name: Name,
    /// The kind asked for.
    pub kind: RecordType,
}

/// Looks at a question; answers it where the table (or the cache) knows.
pub fn judge(bytes: &[u8], zone: &Zone, stats: &DnsStats) -> Verdict {
    stats.downstream_rx_queries.inc();
    let Ok(question) = Message::from_vec(bytes) else {
        stats.downstream_rx_invalid_queries.inc();
        stats.query_parsing_failure.inc();
        return unreadable(bytes);
    };
    if question.metadata.message_type != MessageType::Query {
        stats.downstream_rx_invalid_queries.inc();
        return Verdict::Ignore;
    }
    let mut reply = reply_to(&question);
    if question.metadata.op_code != OpCode::Query {
        reply.metadata.response_code = ResponseCode::NotImp;
        return Verdict::Answer(reply);
    }
    let [query] = question.queries.as_slice() else {
        stats.downstream_rx_invalid_queries.inc();
        reply.metadata.response_code = ResponseCode::FormErr;
        return Verdict::Answer(reply);
    };
    let (name, kind) = (query.name().clone(), query.query_type());
    match kind {
        RecordType::A => stats.a_record_queries.inc(),
        RecordType::AAAA => stats.aaaa_record_queries.inc(),
        _ => {}
    }
    if query.query_class() != DNSClass::IN {
        stats.unsupported_queries.inc();
        reply.metadata.response_code = ResponseCode::NotImp;
        return Verdict::Answer(reply);
    }
    if let Some(entry) = find(zone, &name) {
        stats.known_domain_queries.inc();
        known(&mut reply, &name, kind, entry, stats);
        return Verdict::Answer(reply);
    }
    let Some(forward) = &zone.forward else {
        reply.metadata.response_code = ResponseCode::NXDomain;
        return Verdict::Answer(reply);
    };
    match kind {
        RecordType::A => stats.external_a_record_queries.inc(),
        RecordType::AAAA => stats.external_aaaa_record_queries.inc(),
        // No zone is handed out over a forwarder.
        RecordType::AXFR | RecordType::IXFR => {
            stats.unsupported_queries.inc();
            reply.metadata.response_code = ResponseCode::NotImp;
            return Verdict::Answer(reply);
        }
        _ => stats.external_other_record_queries.inc(),
    }
    match forward.known(&name, kind) {
        Some(found) => {
            stats.cache_hits.inc();
            fill(&mut reply, found, stats);
            Verdict::Answer(reply)
        }
        None => Verdict::Ask(Box::new(Asked { reply, name, kind })),
    }
}

impl Asked {
    /// The answer, with what the others said.
    pub fn answered(self, found: Result<Found, AskError>, stats: &DnsStats) -> Message {
        let mut reply = self.reply;
        match found {
            Ok(found) => fill(&mut reply, found, stats),
            Err(error) => {
                match error {
                    AskError::Busy => stats.pending_overflow.inc(),
                    AskError::Timeout => stats.lookup_timeouts.inc(),
                    AskError::Failed(_) => stats.lookup_failures.inc(),
                }
                stats.unanswered_queries.inc();
                reply.metadata.response_code = ResponseCode::ServFail;
            }
        }
        reply
    }
}

/// An answer as bytes. Over UDP, one that is too long for its receiver says only that it is (RFC 1035 section 4.2.1).
pub fn encode(reply: &Message, over_udp: bool) -> Option<Vec<u8>> {
    let bytes = reply.to_vec().ok()?;
    let most = match (over_udp, &reply.edns) {
        (false, _) => usize::from(u16::MAX),
        (true, None) => UDP_BYTES_PLAIN,
        // What the client said it takes was put here; see `reply_to`.
        (true, Some(edns)) => usize::from(edns.max_payload()),
    };
    if bytes.len() <= most { Some(bytes) } else { reply.truncate().to_vec().ok() }
}

/// The name as the table has it.
fn find<'z>(zone: &'z Zone, name: &Name) -> Option<&'z Entry> {
    let mut text = name.to_ascii();
    text.make_ascii_lowercase();
    zone.names.find(text.strip_suffix('.').unwrap_or(&text))
}

fn known(reply: &mut Message, name: &Name, kind: RecordType, entry: &Entry, stats: &DnsStats) {
    reply.metadata.authoritative = true;
    let ttl = u32::try_from(entry.ttl.as_secs()).unwrap_or(u32::MAX);
    for address in &entry.addresses {
        let data = match (address, kind) {
            (IpAddr::V4(address), RecordType::A | RecordType::ANY) => {
                stats.local_a_record_answers.inc();
                RData::A((*address).into())
            }
            (IpAddr::V6(address), RecordType::AAAA | RecordType::ANY) => {
                stats.local_aaaa_record_answers.inc();
                RData::AAAA((*address).into())
            }
            // The name exists and has nothing of that kind: an empty answer, not "no such name", which would end the
            // client's search for the kind it has.
            _ => continue,
        };
        reply.add_answer(Record::from_rdata(name.clone(), ttl, data));
    }
}

fn fill(reply: &mut Message, found: Found, stats: &DnsStats) {
    reply.metadata.response_code = found.code;
    for record in &found.answers {
        match record.data {
            RData::A(_) => stats.external_a_record_answers.inc(),
            RData::AAAA(_) => stats.external_aaaa_record_answers.inc(),
            _ => {}
        }
    }
    reply.add_answers(found.answers);
    reply.add_authorities(found.authorities);
}

fn reply_to(question: &Message) -> Message {
    let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
    reply.metadata.recursion_desired = question.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_queries(question.queries.iter().cloned());
    if let Some(asked) = &question.edns {
        let mut edns = Edns::new();
        let most = usize::from(asked.max_payload()).clamp(UDP_BYTES_PLAIN, UDP_BYTES_MAX);
        edns.set_max_payload(u16::try_from(most).unwrap_or(u16::MAX));
        reply.set_edns(edns);
    }
    reply
}

/// The answer to something that is no message, where it has an id to answer to.
fn unreadable(bytes: &[u8]) -> Verdict {
    match bytes {
        [high, low, flags, ..] if bytes.len() >= HEADER_BYTES && flags & 0x80 == 0 => {
            let id = u16::from_be_bytes([*high, *low]);
            Verdict::Answer(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr))
        }
        _ => Verdict::Ignore,
    }
}

#[cfg(test)]
mod tests;
