//! A service that is asked by gRPC: `envoy.service.auth.v3.Authorization/Check`. Numbers of fields are that API's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use outrigger_traffic::config::HeaderAppend;
use outrigger_traffic::filter::ExtAuthz;
use outrigger_wire::RequestHead;

use super::{Body, Failed, Mode, Said};
use crate::exchange::{Exchange, Notes};
use crate::filter::call::CallError;
use crate::filter::protobuf::{Broken, Field, Writer, read, structure};
use crate::http::forwarded::url_encoded_pem;

/// The message of a request.
pub(super) fn question(
    x: &Exchange,
    notes: &Notes,
    filter: &ExtAuthz,
    extensions: &BTreeMap<&str, &str>,
    body: Option<Body<'_>>,
) -> Vec<u8> {
    let mut check = Writer::default();
    check.message(1, |attributes| {
        attributes.message(1, |source| source_peer(source, x, filter));
        attributes.message(2, |destination| {
            destination.message(1, |w| address(w, x.front.connection.facts.local));
            let own = x.front.serving.chain.tls.as_ref().and_then(|tls| tls.certificates().next());
            let principal = own.and_then(|own| own.uri_sans.first());
            destination.text(4, principal.map(|name| name.as_bytes()).unwrap_or_default());
        });
        attributes.message(4, |request| {
            let began = x.front.worker().shared.telemetry.calendar(x.front.start);
            let began = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            request.message(1, |time| {
                time.number(1, began.as_secs());
                time.number(2, began.subsec_nanos().into());
            });
            request.message(2, |http| http_request(http, x, filter, body));
        });
        for (key, value) in extensions {
            attributes.entry(10, key.as_bytes(), value.as_bytes());
        }
        attributes.message(11, |context| {
            for namespace in &filter.config.metadata_namespaces {
                let Some(values) = notes.metadata.as_ref().and_then(|m| m.space(namespace)) else { continue };
                context.message(1, |entry| {
                    entry.text(1, namespace.as_bytes());
                    entry.message(2, |w| w.structure(values));
                });
            }
        });
        if filter.config.include_tls_session
            && let Some(name) = &x.front.connection.facts.server_name
        {
            attributes.message(12, |session| session.text(1, name.as_bytes()));
        }
    });
    check.into_bytes()
}

fn source_peer(source: &mut Writer, x: &Exchange, filter: &ExtAuthz) {
    let facts = &x.front.connection.facts;
    source.message(1, |w| address(w, facts.remote));
    let service = x.front.request.fields.get(b"x-envoy-downstream-service-cluster");
    source.text(2, service.unwrap_or_default());
    let peer = facts.tls.as_ref().and_then(|tls| tls.peer.as_ref());
    if let Some(peer) = peer {
        let name = peer.uri_sans.first().or(peer.dns_sans.first());
        source.text(4, name.map_or(peer.subject.as_bytes(), |name| name.as_bytes()));
        if filter.config.include_peer_certificate {
            source.text(5, url_encoded_pem([&*peer.der]).as_bytes());
        }
    }
}

/// `Address { socket_address { address, port_value } }`.
fn address(w: &mut Writer, address: SocketAddr) {
    w.message(1, |socket| {
        socket.text(2, address.ip().to_string().as_bytes());
        socket.number(3, address.port().into());
    });
}

fn http_request(http: &mut Writer, x: &Exchange, filter: &ExtAuthz, body: Option<Body<'_>>) {
    let request = &x.front.request;
    http.text(1, x.front.connection.facts.id.to_string().as_bytes());
    http.text(2, request.method_bytes());
    let told = body.map(Body::header);
    if !filter.config.raw_headers {
        let joined = headers(request, filter);
        let all = joined.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        all.chain(told).for_each(|(name, value)| http.entry(3, name, value));
    }
    http.text(4, request.path());
    http.text(5, request.authority());
    http.text(6, request.scheme().as_bytes());
    // What arrived of the body. Source: Envoy.
    http.number(9, body.map_or(0, |body| body.arrived));
    http.text(10, request.version().as_str().as_bytes());
    match body {
        Some(body) if body.as_bytes => http.bytes(12, body.bytes),
        Some(body) => http.text(11, body.bytes),
        None => {}
    }
    if filter.config.raw_headers {
        http.message(13, |map| {
            let all = pseudo(request).into_iter().chain(request.fields.iter());
            let all = all.map(|(name, value)| (name.to_ascii_lowercase(), value));
            let all = all.filter(|(name, _)| filter.tells(name));
            for (name, value) in all.chain(told.map(|(name, value)| (name.to_vec(), value))) {
                map.message(1, |header| {
                    header.text(1, &name);
                    header.bytes(3, value);
                });
            }
        });
    }
}

fn pseudo(request: &RequestHead) -> [(&[u8], &[u8]); 4] {
    [
        (b":method", request.method_bytes()),
        (b":path", request.path()),
        (b":authority", request.authority()),
        (b":scheme", request.scheme().as_bytes()),
    ]
}

/// The headers that the service is told; several of one name are one, with commas.
fn headers(request: &RequestHead, filter: &ExtAuthz) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut all: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for (name, value) in pseudo(request).into_iter().chain(request.fields.iter()) {
        let name = name.to_ascii_lowercase();
        if !filter.tells(&name) {
            continue;
        }
        all.entry(name)
            .and_modify(|old| {
                old.push(b',');
                old.extend_from_slice(value);
            })
            .or_insert_with(|| value.to_vec());
    }
    all
}

/// What an answer means.
pub(super) fn answer(message: &[u8]) -> Result<Said, Failed> {
    parse(message).unwrap_or(Err((CallError::Malformed, None)))
}

fn parse(message: &[u8]) -> Result<Result<Said, Failed>, Broken> {
    let mut said = Said { status: 403, ..Said::default() };
    let (mut code, mut error) = (0, None);
    read(message, |field, value| {
        match field {
            1 => read(value.bytes(), |field, value| {
                if field == 1 {
                    code = value.number();
                }
                Ok(())
            })?,
            2 => refusal(value.bytes(), &mut said)?,
            3 => permission(value.bytes(), &mut said)?,
            4 => said.metadata = structure(value.bytes())?,
            5 => {
                let mut told = Said { status: 0, ..Said::default() };
                refusal(value.bytes(), &mut told)?;
                error = Some(told.status);
            }
            _ => {}
        }
        Ok(())
    })?;
    said.allowed = code == 0;
    Ok(match error {
        Some(status) if !said.allowed => {
            Err((CallError::Status(7), Some(status).filter(|status| *status > 0)))
        }
        _ => Ok(said),
    })
}

/// `DeniedHttpResponse`.
fn refusal(message: &[u8], said: &mut Said) -> Result<(), Broken> {
    read(message, |field, value| {
        match field {
            1 => read(value.bytes(), |field, value| {
                let status = u16::try_from(value.number()).ok().filter(|status| (200..=599).contains(status));
                if let (1, Some(status)) = (field, status) {
                    said.status = status;
                }
                Ok(())
            })?,
            2 => said.fields.extend(option(value, Default::Append)?),
            3 => said.body = value.bytes().to_vec(),
            _ => {}
        }
        Ok(())
    })
}

/// `OkHttpResponse`.
fn permission(message: &[u8], said: &mut Said) -> Result<(), Broken> {
    read(message, |field, value| {
        match field {
            2 => said.request.extend(option(value, Default::Request)?),
            5 => said.remove.push(value.bytes().to_ascii_lowercase()),
            3 => said.metadata = structure(value.bytes())?,
            6 => said.response.extend(option(value, Default::Append)?),
            7 => said.query_set.push(pair(value.bytes())?),
            8 => said.query_remove.push(value.text()),
            _ => {}
        }
        Ok(())
    })
}

fn pair(message: &[u8]) -> Result<(String, String), Broken> {
    let (mut key, mut content) = (String::new(), String::new());
    read(message, |field, value| {
        match field {
            1 => key = value.text(),
            2 => content = value.text(),
            _ => {}
        }
        Ok(())
    })?;
    Ok((key, content))
}

/// What a field without `append` means. Source: Envoy: of the request it is set; elsewhere its action counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Default {
    Request,
    Append,
}

/// `HeaderValueOption`; nothing where it has no name.
fn option(value: Field<'_>, default: Default) -> Result<Option<super::Field>, Broken> {
    let (mut name, mut text, mut append, mut action) = (Vec::new(), Vec::new(), None, 0);
    read(value.bytes(), |field, value| {
        match field {
            1 => read(value.bytes(), |field, value| {
                match field {
                    1 => name = value.bytes().to_ascii_lowercase(),
                    2 => text = value.bytes().to_vec(),
                    3 if !value.bytes().is_empty() => text = value.bytes().to_vec(),
                    _ => {}
                }
                Ok(())
            })?,
            2 => {
                append = Some(false);
                read(value.bytes(), |field, value| {
                    if field == 1 {
                        append = Some(value.number() != 0);
                    }
                    Ok(())
                })?;
            }
            3 => action = value.number(),
            _ => {}
        }
        Ok(())
    })?;
    let put = Mode::Put;
    let mode = match (default, append, action) {
        (Default::Request, Some(true), _) => Mode::Join,
        (Default::Request, _, _) | (_, Some(false), _) => put(HeaderAppend::OverwriteIfExistsOrAdd),
        (_, Some(true), _) => put(HeaderAppend::AppendIfExistsOrAdd),
        (_, None, 1) => put(HeaderAppend::AddIfAbsent),
        (_, None, 2) => put(HeaderAppend::OverwriteIfExistsOrAdd),
        (_, None, 3) => put(HeaderAppend::OverwriteIfExists),
        (_, None, _) => put(HeaderAppend::AppendIfExistsOrAdd),
    };
    Ok((!name.is_empty()).then_some(super::Field { name, value: text, mode }))
}
