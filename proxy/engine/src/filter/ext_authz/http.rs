//! A service that is asked by HTTP: with the request's method, path and host, and some of its fields.

use outrigger_traffic::config::{AuthzHttp, HeaderAppend};
use outrigger_traffic::filter::ExtAuthz;
use outrigger_wire::Known;
use serde_json::{Map, Value};

use super::{Body, Failed, Field, Mode, Said};
use crate::exchange::Exchange;
use crate::filter::call::{Call, CallError, Reply};
use crate::text::Digits;

/// Longest body of a refusal that is taken, bytes.
const BODY_MAX: usize = 1 << 20;

/// By this the service names fields to be taken out of the request. Source: Envoy.
const REMOVE: &[u8] = b"x-envoy-auth-headers-to-remove";

/// The question; `None`: it cannot be written.
pub(super) fn question(
    x: &Exchange,
    filter: &ExtAuthz,
    service: &AuthzHttp,
    body: Option<Body<'_>>,
) -> Option<Call> {
    let request = &x.front.request;
    let path = [service.path_prefix.as_bytes(), request.path()].concat();
    let mut call = Call::http(&service.target, request.method_bytes(), &path)?;
    call.answer_max = BODY_MAX;
    if !request.authority().is_empty() && !call.head.set_authority(request.authority()) {
        return None;
    }
    let fields = &mut call.head.fields;
    for (name, value) in request.fields.iter() {
        let name = name.to_ascii_lowercase();
        // The framing is that of what is sent along of the body.
        let framing =
            matches!(name.as_slice(), b"content-length" | b"transfer-encoding" | b"connection" | b"expect");
        if !framing && filter.tells(&name) {
            fields.append(&name, value);
        }
    }
    if let Some(body) = body {
        let (name, value) = body.header();
        fields.append(name, value);
        fields.put(Known::ContentLength, Digits::default().write(body.bytes.len() as u64));
        call.body = bytes::Bytes::copy_from_slice(body.bytes);
    }
    for (name, value) in &service.headers_to_add {
        fields.set(name.as_bytes(), value.as_bytes());
    }
    Some(call)
}

/// What an answer means. Source: Envoy: 200 lets pass, 5xx is no answer, everything else refuses.
pub(super) fn answer(filter: &ExtAuthz, reply: Reply) -> Result<Said, Failed> {
    let status = reply.head.status;
    if status >= 500 {
        return Err((CallError::Malformed, None));
    }
    let mut said = Said { allowed: status == 200, status, ..Said::default() };
    let answers = &filter.answers;
    let mut metadata = Map::new();
    for (name, value) in reply.head.fields.iter() {
        let name = name.to_ascii_lowercase();
        let field = |mode| Field { name: name.clone(), value: value.to_vec(), mode };
        let set = Mode::Put(HeaderAppend::OverwriteIfExistsOrAdd);
        if answers.metadata.contain(&name) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            metadata.insert(text(&name), Value::String(text(value)));
        }
        if !said.allowed {
            // What a client cannot do without. Source: Envoy.
            let always = matches!(name.as_slice(), b"www-authenticate" | b"location");
            if always || answers.client.as_ref().is_none_or(|names| names.contain(&name)) {
                said.fields.push(field(Mode::Put(HeaderAppend::AppendIfExistsOrAdd)));
            }
            continue;
        }
        if name == REMOVE {
            let names = value.split(|b| *b == b',').map(|name| name.trim_ascii().to_ascii_lowercase());
            said.remove.extend(names.filter(|name| !name.is_empty()));
            continue;
        }
        if answers.upstream.contain(&name) {
            said.request.push(field(set));
        }
        if answers.upstream_append.contain(&name) {
            said.request.push(field(Mode::Put(HeaderAppend::AppendIfExistsOrAdd)));
        }
        if answers.client_success.contain(&name) {
            said.response.push(field(Mode::Put(HeaderAppend::AppendIfExistsOrAdd)));
        }
    }
    said.metadata = metadata;
    if !said.allowed {
        said.body = reply.body;
    }
    Ok(said)
}
