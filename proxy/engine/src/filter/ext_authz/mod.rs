//! Authorization by a service (`envoy.filters.http.ext_authz`): [`grpc`] and [`http`] ask it, and what it says is done here.

mod grpc;
mod http;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use outrigger_traffic::config::{AuthzBody, AuthzService, HeaderAppend};
use outrigger_traffic::filter::{ExtAuthz, Override, ext_authz};
use outrigger_wire::FieldBlock;
use serde_json::{Map, Value};

use super::call::{self, CallError};
use super::{After, Answer, Pending, Place, Verdict};
use super::{buffer, compression};
use crate::error::ProxyError;
use crate::exchange::{Exchange, Notes};
use crate::live::LiveCluster;
use crate::telemetry::ResponseFlags;
use crate::worker::Worker;

/// Source: Envoy: where metadata of this filter is found.
const NAMESPACE: &str = "envoy.filters.http.ext_authz";

/// A request that the service is asked about.
#[derive(Debug)]
pub(crate) struct Asking {
    question: Question,
}

/// What it is asked.
#[derive(Debug)]
enum Question {
    /// That is only known when the body is here.
    Later(AuthzBody, BTreeMap<String, String>),
    /// A message.
    Grpc(Vec<u8>),
    /// A request.
    Http(Box<call::Call>),
}

/// What the service says.
#[derive(Debug, Default)]
struct Said {
    /// It may pass.
    allowed: bool,
    /// Status of a refusal.
    status: u16,
    /// Body of a refusal.
    body: Vec<u8>,
    /// Fields of a refusal.
    fields: Vec<Field>,
    /// What is done to the request.
    request: Vec<Field>,
    /// Fields that are taken out of the request.
    remove: Vec<Vec<u8>>,
    /// Query parameters that are set.
    query_set: Vec<(String, String)>,
    /// Query parameters that are taken out.
    query_remove: Vec<String>,
    /// What is done to the response.
    response: Vec<Field>,
    metadata: Map<String, Value>,
}

/// A field, and what happens to one that is there.
#[derive(Debug)]
pub(crate) struct Field {
    name: Vec<u8>,
    value: Vec<u8>,
    mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Put(HeaderAppend),
    /// Joined to one that is there; nothing where there is none.
    Join,
}

/// Asks about a request.
pub(super) fn on_request(
    x: &mut Exchange,
    notes: &mut Notes,
    place: &Place<'_>,
    filter: &ExtAuthz,
    own: Option<&Override>,
) -> Verdict {
    let worker = x.front.worker().clone();
    let stats = place.serving.stats(&worker);
    let Some(extensions) = ext_authz::extensions(own) else { return Verdict::Next };
    if !filter.is_enabled(worker.draw_u32(), notes.metadata.as_deref()) {
        stats.ext_authz_disabled.inc();
        return if filter.config.deny_at_disable { refused(403) } else { Verdict::Next };
    }
    let question = match filter.body(own).filter(|_| compression::has_body(x)) {
        Some(body) => {
            let owned = extensions.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
            Some(Question::Later(body, owned.collect()))
        }
        None => question(x, notes, filter, &extensions, None),
    };
    match question {
        Some(question) => Verdict::Wait(Pending::ExtAuthz(Box::new(Asking { question }))),
        None => failed(x, filter, CallError::Unwritable, None),
    }
}

/// The beginning of a body, or all of it.
#[derive(Clone, Copy)]
struct Body<'a> {
    bytes: &'a [u8],
    /// As many of its bytes are here.
    arrived: u64,
    as_bytes: bool,
}

impl Body<'_> {
    /// By this the service is told whether it has all of the body. Source: Envoy.
    const HEADER: &'static [u8] = b"x-envoy-auth-partial-body";

    fn header(self) -> (&'static [u8], &'static [u8]) {
        (Self::HEADER, if self.arrived > self.bytes.len() as u64 { b"true" } else { b"false" })
    }
}

fn question(
    x: &Exchange,
    notes: &Notes,
    filter: &ExtAuthz,
    extensions: &BTreeMap<&str, &str>,
    body: Option<Body<'_>>,
) -> Option<Question> {
    match &filter.config.service {
        AuthzService::Grpc(_) => Some(Question::Grpc(grpc::question(x, notes, filter, extensions, body))),
        AuthzService::Http(service) => {
            http::question(x, filter, service, body).map(|call| Question::Http(Box::new(call)))
        }
    }
}

/// Waits for the body, and makes the question; `None`: the body is too long.
async fn with_body(
    x: &mut Exchange,
    notes: &Notes,
    filter: &ExtAuthz,
    rules: AuthzBody,
    extensions: &BTreeMap<String, String>,
) -> Result<Option<Result<Question, CallError>>, ProxyError> {
    let most = rules.bytes_max as usize;
    // A service that takes a part is asked as soon as that part is there.
    let whole = buffer::collect(x, if rules.partial { most.saturating_sub(1) } else { most }).await?;
    if whole.is_none() && !rules.partial {
        return Ok(None);
    }
    let held = x.reader.data();
    let bytes = held.get(..most).unwrap_or(held);
    let as_bytes = filter.config.body.is_some_and(|of_filter| of_filter.as_bytes);
    let body = Body { bytes, arrived: held.len() as u64, as_bytes };
    let extensions = extensions.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let question = question(x, notes, filter, &extensions, (!bytes.is_empty()).then_some(body));
    Ok(Some(question.ok_or(CallError::Unwritable)))
}

/// Waits for the answer, and does what it says.
pub(super) async fn wait(
    x: &mut Exchange,
    notes: &mut Notes,
    filter: &ExtAuthz,
    asking: Asking,
) -> Result<Verdict, ProxyError> {
    let (worker, serving) = (x.front.worker().clone(), x.front.serving.clone());
    let question = match asking.question {
        Question::Later(rules, extensions) => match with_body(x, notes, filter, rules, &extensions).await? {
            Some(Ok(question)) => question,
            Some(Err(error)) => return Ok(failed(x, filter, error, None)),
            None => {
                serving.stats(&worker).downstream_rq_too_large.inc();
                return Ok(buffer::too_large());
            }
        },
        question => question,
    };
    let said = match call::cluster(&serving.live, filter.cluster) {
        Ok(cluster) => {
            let trace = notes.trace;
            let asked = ask(&worker, &cluster, filter, question, move |head| {
                if let Some(trace) = &trace {
                    trace.inject(head, trace.span_id);
                }
            });
            super::guarded(x, asked).await?
        }
        Err(error) => Err((error, None)),
    };
    Ok(match said {
        Err((error, status)) => failed(x, filter, error, status),
        Ok(said) if said.allowed => passed(x, notes, filter, said),
        Ok(said) => denied(x, notes, filter, said),
    })
}

/// Why there is no answer, and the status that the service wants then.
type Failed = (CallError, Option<u16>);

async fn ask(
    worker: &Rc<Worker>,
    cluster: &Arc<LiveCluster>,
    filter: &ExtAuthz,
    question: Question,
    prepare: impl FnOnce(&mut outrigger_wire::RequestHead),
) -> Result<Said, Failed> {
    match (&filter.config.service, question) {
        (AuthzService::Grpc(target), Question::Grpc(message)) => {
            let path = b"/envoy.service.auth.v3.Authorization/Check";
            let answer = call::unary(worker, cluster, target, path, &message, prepare).await;
            grpc::answer(&answer.map_err(|error| (error, None))?)
        }
        (AuthzService::Http(service), Question::Http(mut call)) => {
            prepare(&mut call.head);
            let reply = call::ask_again(worker, cluster, &call, service.retry).await;
            http::answer(filter, reply.map_err(|error| (error, None))?)
        }
        _ => Err((CallError::Malformed, None)),
    }
}

fn refused(status: u16) -> Verdict {
    let answer = Answer::new(status, "", "ext_authz_denied");
    Verdict::Answer(answer.flagged(ResponseFlags::UNAUTHORIZED_EXTERNAL))
}

/// The service did not answer.
fn failed(x: &mut Exchange, filter: &ExtAuthz, error: CallError, status: Option<u16>) -> Verdict {
    let stats = x.front.serving.stats(x.front.worker());
    stats.ext_authz_error.inc();
    tracing::debug!(error = %error, "authorization service did not answer");
    if filter.config.failure_allow {
        stats.ext_authz_failure_mode_allowed.inc();
        if filter.config.failure_allow_header {
            x.front.request.fields.set(b"x-envoy-auth-failure-mode-allowed", b"true");
        }
        return Verdict::Next;
    }
    let answer = Answer::new(status.unwrap_or(filter.config.status_on_error), "", "ext_authz_error");
    Verdict::Answer(answer.flagged(ResponseFlags::UNAUTHORIZED_EXTERNAL))
}

fn learn(x: &Exchange, notes: &mut Notes, filter: &ExtAuthz, metadata: Map<String, Value>) {
    if filter.config.ingest_metadata {
        for (key, value) in metadata {
            notes.learn(&x.front, NAMESPACE, &key, value);
        }
    }
}

fn denied(x: &Exchange, notes: &mut Notes, filter: &ExtAuthz, mut said: Said) -> Verdict {
    if filter.config.denied_body_max > 0 {
        said.body.truncate(filter.config.denied_body_max as usize);
    }
    x.front.serving.stats(x.front.worker()).ext_authz_denied.inc();
    learn(x, notes, filter, said.metadata);
    let mut answer = Answer::new(said.status, "", "ext_authz_denied");
    answer.body = Cow::Owned(said.body);
    for field in said.fields {
        if field.name == b"content-type" {
            answer.content_type = String::from_utf8(field.value).ok().map(Cow::Owned);
        } else if field.name != b"content-length" && !is_of_connection(&field.name) {
            answer.fields.push((field.name.into(), field.value));
        }
    }
    Verdict::Answer(answer.flagged(ResponseFlags::UNAUTHORIZED_EXTERNAL))
}

fn passed(x: &mut Exchange, notes: &mut Notes, filter: &ExtAuthz, said: Said) -> Verdict {
    x.front.serving.stats(x.front.worker()).ext_authz_ok.inc();
    let changed = !said.request.is_empty() || !said.remove.is_empty();
    for field in &said.request {
        match field.name.as_slice() {
            b":path" => drop(x.front.request.set_path(&field.value)),
            b":authority" | b"host" => drop(x.front.request.set_authority(&field.value)),
            b":method" => drop(x.front.request.set_method(&field.value)),
            name if name.first() == Some(&b':') || is_of_connection(name) => {}
            _ => apply(&mut x.front.request.fields, field),
        }
    }
    for name in &said.remove {
        // What frames a request, or names its target, is not the service's to take away.
        if name.first() != Some(&b':') && name != b"host" && !is_of_connection(name) {
            x.front.request.fields.remove(name);
        }
    }
    let mut queried = false;
    if !said.query_set.is_empty() || !said.query_remove.is_empty() {
        let path = with_query(x.front.request.path(), &said.query_set, &said.query_remove);
        queried = path != x.front.request.path() && x.front.request.set_path(&path);
    }
    learn(x, notes, filter, said.metadata);
    notes.reroute |= filter.config.clear_route_cache && (changed || queried);
    if !said.response.is_empty() {
        notes.after.push(After::ExtAuthz(said.response));
    }
    Verdict::Next
}

/// Does what the service wants with the response.
pub(super) fn on_response(fields: &mut FieldBlock, edits: &[Field]) {
    for field in
        edits.iter().filter(|field| !is_of_connection(&field.name) && field.name != b"content-length")
    {
        apply(fields, field);
    }
}

/// Fields that belong to a connection or to the framing of a message.
fn is_of_connection(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection"
            | b"keep-alive"
            | b"transfer-encoding"
            | b"te"
            | b"upgrade"
            | b"trailer"
            | b"proxy-connection"
    )
}

fn apply(fields: &mut FieldBlock, field: &Field) {
    let Field { name, value, mode } = field;
    match mode {
        Mode::Join if fields.contains(name) => drop(fields.join(name, b",", value)),
        Mode::Put(HeaderAppend::AppendIfExistsOrAdd) => drop(fields.append(name, value)),
        Mode::Put(HeaderAppend::AddIfAbsent) if !fields.contains(name) => drop(fields.append(name, value)),
        Mode::Put(HeaderAppend::OverwriteIfExists) if fields.contains(name) => drop(fields.set(name, value)),
        Mode::Put(HeaderAppend::OverwriteIfExistsOrAdd) => drop(fields.set(name, value)),
        Mode::Join | Mode::Put(_) => {}
    }
}

/// A target with parameters set, and others taken out.
fn with_query(target: &[u8], set: &[(String, String)], remove: &[String]) -> Vec<u8> {
    let mark = target.iter().position(|b| *b == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at(mark);
    let name_of = |pair: &[u8]| -> Vec<u8> { pair.split(|b| *b == b'=').next().unwrap_or_default().to_vec() };
    let mut pairs: Vec<Vec<u8>> = query
        .get(1..)
        .unwrap_or_default()
        .split(|b| *b == b'&')
        .filter(|pair| !pair.is_empty())
        .filter(|pair| !remove.iter().any(|name| name.as_bytes() == name_of(pair)))
        .map(<[u8]>::to_vec)
        .collect();
    for (name, value) in set {
        let pair = format!("{name}={value}").into_bytes();
        let mut found = false;
        pairs.retain_mut(|old| {
            if name_of(old) != name.as_bytes() {
                return true;
            }
            let first = !std::mem::replace(&mut found, true);
            if first {
                old.clone_from(&pair);
            }
            first
        });
        if !found {
            pairs.push(pair);
        }
    }
    let mut out = path.to_vec();
    if !pairs.is_empty() {
        out.push(b'?');
        out.extend_from_slice(&pairs.join(&b'&'));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::with_query;

    #[test]
    fn parameters_are_set_and_taken_out() {
        let set = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        for (target, pairs, remove, expected) in [
            ("/p", &[("a", "1")][..], &[][..], "/p?a=1"),
            ("/p?a=0&b=2&a=3", &[("a", "1")], &[], "/p?a=1&b=2"),
            ("/p?a=0&b=2", &[], &["a"], "/p?b=2"),
            ("/p?a", &[], &["a"], "/p"),
            ("/p?ab=1", &[], &["a"], "/p?ab=1"),
        ] {
            let remove: Vec<String> = remove.iter().map(|name: &&str| (*name).to_owned()).collect();
            let out = with_query(target.as_bytes(), &set(pairs), &remove);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
