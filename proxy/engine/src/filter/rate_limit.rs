//! Rate limits that a service keeps (`envoy.filters.http.ratelimit`). Numbers of fields are those of
//! `envoy.service.ratelimit.v3`.

use std::fmt::Write as _;

use outrigger_traffic::filter::rate_limit::Subject;
use outrigger_traffic::filter::{RateLimit, RouteFilter};
use outrigger_wire::FieldBlock;

use super::call::{self, CallError};
use super::protobuf::{Broken, Field, Writer, read};
use super::{After, Answer, Pending, Place, Verdict};
use crate::error::ProxyError;
use crate::exchange::{Exchange, Notes};
use crate::http::view::HeadView;
use crate::telemetry::ResponseFlags;

/// A request that the service is asked about.
#[derive(Debug)]
pub(crate) struct Asking {
    message: Vec<u8>,
}

/// A field that is added.
type Added = (Vec<u8>, Vec<u8>);

/// What the service says.
#[derive(Debug, Default)]
struct Said {
    over: bool,
    /// Fields for the client.
    response: Vec<Added>,
    /// Fields for the upstream.
    request: Vec<Added>,
    /// Body of a refusal.
    body: Vec<u8>,
    statuses: Vec<Status>,
}

/// What it says of a descriptor.
#[derive(Clone, Debug, Default)]
struct Status {
    /// Requests, unit and name of the limit.
    limit: Option<(u32, u64, String)>,
    remaining: u32,
    reset: u64,
}

/// Asks about a request.
pub(super) fn on_request(
    x: &mut Exchange,
    notes: &mut Notes,
    place: &Place<'_>,
    filter: &RateLimit,
    settings: Option<&RouteFilter>,
) -> Verdict {
    let worker = x.front.worker().clone();
    let Some(cluster) = place.cluster(x) else { return Verdict::Next };
    let internal = x.front.request.fields.get(b"x-envoy-internal") == Some(b"true");
    if !filter.is_enabled(internal, worker.draw_u32()) {
        return Verdict::Next;
    }
    let own = match settings {
        Some(RouteFilter::RateLimit(own)) => Some(&**own),
        _ => None,
    };
    let subject = Subject {
        view: &HeadView(&x.front.request),
        remote: notes.remote.ip(),
        cluster: Some(cluster),
        source: &worker.shared.telemetry.node.cluster,
        metadata: notes.metadata.as_deref(),
    };
    let levels = place.matched.map(|matched| &matched.route.rate_limits);
    let (domain, descriptors) = filter.descriptors(own, levels, &subject);
    if descriptors.is_empty() {
        return Verdict::Next;
    }
    let mut message = Writer::default();
    message.text(1, domain.as_bytes());
    for descriptor in &descriptors {
        message.message(2, |w| {
            for (key, value) in &descriptor.entries {
                w.entry(1, key.as_bytes(), value);
            }
            if let Some((requests, unit)) = descriptor.limit {
                w.message(2, |limit| {
                    limit.number(1, requests.into());
                    limit.number(2, unit.into());
                });
            }
            if let Some(hits) = descriptor.hits {
                w.message(3, |number| number.number(1, hits));
            }
        });
    }
    Verdict::Wait(Pending::RateLimit(Box::new(Asking { message: message.into_bytes() })))
}

/// Waits for the answer, and does what it says.
pub(super) async fn wait(
    x: &mut Exchange,
    notes: &mut Notes,
    filter: &RateLimit,
    asking: Asking,
) -> Result<Verdict, ProxyError> {
    let (worker, serving) = (x.front.worker().clone(), x.front.serving.clone());
    let path = b"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
    let said = match call::cluster(&serving.live, filter.cluster) {
        Ok(cluster) => {
            let trace = notes.trace;
            let asked =
                call::unary(&worker, &cluster, &filter.config.target, path, &asking.message, move |head| {
                    if let Some(trace) = &trace {
                        trace.inject(head, trace.span_id);
                    }
                });
            let answer = super::guarded(x, asked).await?;
            answer.and_then(|message| parse(&message).map_err(|Broken| CallError::Malformed))
        }
        Err(error) => Err(error),
    };
    let stats = serving.stats(&worker);
    let said = match said {
        Ok(said) => said,
        Err(error) => {
            stats.ratelimit_error.inc();
            tracing::debug!(error = %error, "rate limit service did not answer");
            if !filter.config.failure_deny.contains(worker.draw_u32()) {
                stats.ratelimit_failure_mode_allowed.inc();
                return Ok(Verdict::Next);
            }
            let answer = Answer::new(filter.config.status_on_error, "", "rate_limiter_error");
            return Ok(Verdict::Answer(answer.flagged(ResponseFlags::RATE_LIMIT_SERVICE_ERROR)));
        }
    };
    let mut response = said.response;
    if filter.config.rate_limit_headers {
        response.extend(told(&said.statuses));
    }
    if !said.over {
        stats.ratelimit_ok.inc();
    } else {
        stats.ratelimit_over_limit.inc();
        if filter.config.ratelimited_header {
            response.push((b"x-envoy-ratelimited".to_vec(), b"true".to_vec()));
        }
        if filter.config.enforced.contains(worker.draw_u32()) {
            notes.after.push(After::Fields(response));
            notes.after.push(After::Edits(filter.response_edits.clone()));
            let answer = Answer::new(filter.config.status, "", "request_rate_limited");
            let mut answer = answer.flagged(ResponseFlags::RATE_LIMITED);
            answer.body = said.body.into();
            answer.grpc_status = filter.config.as_resource_exhausted.then_some(8);
            return Ok(Verdict::Answer(answer));
        }
    }
    for (name, value) in &said.request {
        if !name.starts_with(b":") && name != b"host" {
            x.front.request.fields.append(name, value);
        }
    }
    if !response.is_empty() {
        notes.after.push(After::Fields(response));
    }
    Ok(Verdict::Next)
}

/// Puts fields into the response.
pub(super) fn on_response(fields: &mut FieldBlock, added: &[(Vec<u8>, Vec<u8>)]) {
    for (name, value) in added {
        if !matches!(name.as_slice(), b"connection" | b"transfer-encoding" | b"content-length") {
            fields.append(name, value);
        }
    }
}

/// The limits of the descriptors, as the draft of `RateLimit` header fields has them (version 3): the smallest number
/// left counts.
fn told(statuses: &[Status]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let limited = || statuses.iter().filter_map(|one| one.limit.as_ref().map(|limit| (one, limit)));
    let Some((least, (limit, ..))) = limited().min_by_key(|(one, _)| one.remaining) else {
        return Vec::new();
    };
    let mut text = limit.to_string();
    for (_, (requests, unit, name)) in limited() {
        let Some(window) = seconds(*unit) else { continue };
        // Writing into a String cannot fail.
        let _ = write!(text, ", {requests};w={window}");
        if !name.is_empty() {
            let _ = write!(text, ";name=\"{name}\"");
        }
    }
    vec![
        (b"x-ratelimit-limit".to_vec(), text.into_bytes()),
        (b"x-ratelimit-remaining".to_vec(), least.remaining.to_string().into_bytes()),
        (b"x-ratelimit-reset".to_vec(), least.reset.to_string().into_bytes()),
    ]
}

/// `RateLimit.Unit` in seconds.
const fn seconds(unit: u64) -> Option<u64> {
    Some(match unit {
        1 => 1,
        2 => 60,
        3 => 3600,
        4 => 86_400,
        5 => 30 * 86_400,
        6 => 365 * 86_400,
        7 => 7 * 86_400,
        _ => return None,
    })
}

fn parse(message: &[u8]) -> Result<Said, Broken> {
    let mut said = Said::default();
    read(message, |field, value| {
        match field {
            1 => said.over = value.number() == 2,
            2 => said.statuses.push(status(value.bytes())?),
            3 => said.response.extend(header(value)?),
            4 => said.request.extend(header(value)?),
            5 => said.body = value.bytes().to_vec(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(said)
}

fn status(message: &[u8]) -> Result<Status, Broken> {
    let number = |value: Field<'_>| u32::try_from(value.number()).unwrap_or(u32::MAX);
    let mut found = Status::default();
    read(message, |field, value| {
        match field {
            2 => {
                let mut limit = (0, 0, String::new());
                read(value.bytes(), |field, value| {
                    match field {
                        1 => limit.0 = number(value),
                        2 => limit.1 = value.number(),
                        3 => limit.2 = value.text(),
                        _ => {}
                    }
                    Ok(())
                })?;
                found.limit = Some(limit);
            }
            3 => found.remaining = number(value),
            4 => read(value.bytes(), |field, value| {
                if field == 1 {
                    found.reset = value.number();
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

/// `HeaderValue`.
fn header(value: Field<'_>) -> Result<Option<Added>, Broken> {
    let (mut name, mut text) = (Vec::new(), Vec::new());
    read(value.bytes(), |field, value| {
        match field {
            1 => name = value.bytes().to_ascii_lowercase(),
            2 | 3 if !value.bytes().is_empty() => text = value.bytes().to_vec(),
            _ => {}
        }
        Ok(())
    })?;
    Ok((!name.is_empty()).then_some((name, text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smallest_number_left_is_told_with_all_limits() {
        let one = |requests, unit, name: &str, remaining, reset| Status {
            limit: Some((requests, unit, name.into())),
            remaining,
            reset,
        };
        let told =
            told(&[one(10, 2, "a", 4, 30), Status::default(), one(100, 3, "", 3, 9), one(1, 0, "x", 5, 1)]);
        let text = |at: usize| String::from_utf8(told[at].1.clone()).unwrap();
        assert_eq!(
            (text(0).as_str(), text(1).as_str(), text(2).as_str()),
            ("100, 10;w=60;name=\"a\", 100;w=3600", "3", "9")
        );
        assert!(super::told(&[]).is_empty());
    }
}
