//! Heads between HTTP/2 (as the `h2` crate gives them) and our own form, checked on the way.
//!
//! What arrives may leave as HTTP/1.1, so everything that could mean something else there is refused here (RFC 9113
//! §8.2 and §10.3): several `content-length`, an authority that differs from `host`, bytes that cannot stand in a target.

use h2::ext::Protocol;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Request, Response, StatusCode, Uri};
use outrigger_wire::h1::BodyLength;
use outrigger_wire::{FieldBlock, Known, Method, RequestHead, ResponseHead, Scheme, Version, syntax};

/// Why an HTTP/2 request head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadRefusal {
    /// Malformed; the stream is answered with 400 and these details.
    Bad(&'static str),
    /// More fields than `max_headers_count`; answered with 431.
    TooMany,
}

/// Fields that belong to one HTTP/1.1 connection and have no place in HTTP/2 (RFC 9113 §8.2.2).
const fn is_connection_specific(known: Known) -> bool {
    matches!(
        known,
        Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::Http2Settings
            | Known::Host
    )
}

/// Stores an HTTP/2 request head. `ended` tells that no body follows.
///
/// An extended CONNECT (RFC 8441) becomes what it means elsewhere: a GET with `upgrade`. Such a request, like a plain
/// CONNECT, has no body; what follows on the stream belongs to the tunnel.
///
/// *Errors*: see [`HeadRefusal`].
pub fn read_request<B>(
    request: &Request<B>,
    ended: bool,
    secure: bool,
    max_fields: usize,
    head: &mut RequestHead,
) -> Result<BodyLength, HeadRefusal> {
    head.clear();
    head.set_version(Version::Http2);
    head.set_scheme(if secure { Scheme::Https } else { Scheme::Http });
    if !head.set_method(request.method().as_str().as_bytes()) {
        return Err(HeadRefusal::Bad("http2.invalid.method"));
    }
    if request.headers().len() > max_fields {
        return Err(HeadRefusal::TooMany);
    }
    let protocol = request.extensions().get::<Protocol>();
    read_target(request.uri(), protocol.is_some(), head)?;
    let mut host: Option<&[u8]> = None;
    for (name, value) in request.headers() {
        let name = name.as_str().as_bytes();
        // RFC 9113 §8.2.1. Our own form trims values; a reader behind us may have seen another one.
        if matches!(value.as_bytes(), [b' ' | b'\t', ..] | [.., b' ' | b'\t']) {
            return Err(HeadRefusal::Bad("http2.invalid.header_field"));
        }
        match Known::from_lower(name) {
            Known::Host if host.is_some() => return Err(HeadRefusal::Bad("http2.multiple_host")),
            Known::Host => host = Some(value.as_bytes()),
            Known::Cookie => {
                // RFC 9113 §8.2.3: crumbs are one field elsewhere.
                head.fields.join(b"cookie", b"; ", value.as_bytes());
            }
            known if is_connection_specific(known) => {
                return Err(HeadRefusal::Bad("http2.connection_specific"));
            }
            _ => {
                if !head.fields.append(name, value.as_bytes()) {
                    return Err(HeadRefusal::Bad("http2.invalid.header_field"));
                }
            }
        }
    }
    match (head.authority().is_empty(), host) {
        (true, Some(host)) => {
            if !head.set_authority(host) {
                return Err(HeadRefusal::Bad("http2.invalid.authority"));
            }
        }
        (true, None) => return Err(HeadRefusal::Bad("missing_host_header")),
        (false, Some(host)) if !host.eq_ignore_ascii_case(head.authority()) => {
            return Err(HeadRefusal::Bad("http2.authority_host_mismatch"));
        }
        (false, _) => {}
    }
    if head.method() == Method::Connect {
        return read_connect(protocol, head);
    }
    body_length(&head.fields, ended).ok_or(HeadRefusal::Bad("http2.invalid.content_length"))
}

fn read_connect(protocol: Option<&Protocol>, head: &mut RequestHead) -> Result<BodyLength, HeadRefusal> {
    if head.fields.contains_known(Known::ContentLength) {
        return Err(HeadRefusal::Bad("http2.invalid.content_length"));
    }
    if let Some(protocol) = protocol {
        let kind = protocol.as_str().as_bytes();
        if kind.is_empty() || !head.set_method(b"GET") || !head.fields.append(b"upgrade", kind) {
            return Err(HeadRefusal::Bad("http2.invalid.protocol"));
        }
    }
    Ok(BodyLength::None)
}

fn read_target(uri: &Uri, extended: bool, head: &mut RequestHead) -> Result<(), HeadRefusal> {
    if let Some(authority) = uri.authority()
        && !head.set_authority(authority.as_str().as_bytes())
    {
        return Err(HeadRefusal::Bad("http2.invalid.authority"));
    }
    if head.method() == Method::Connect && !extended {
        return Ok(());
    }
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if !head.set_path(path.as_bytes()) || (path == "*" && head.method() != Method::Options) {
        return Err(HeadRefusal::Bad("http2.invalid.path"));
    }
    Ok(())
}

/// How a message that arrived over HTTP/2 is delimited when it leaves over HTTP/1.1; `None` when its `content-length`
/// is not one number. The `h2` crate sees to it that the data is as long as announced.
#[must_use]
pub fn body_length(fields: &FieldBlock, ended: bool) -> Option<BodyLength> {
    let mut lengths = fields.get_all_known(Known::ContentLength);
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(text), None) => Some(syntax::decimal(text)?),
        (Some(_), Some(_)) => return None,
    };
    Some(match (ended, length) {
        (true, Some(length)) if length > 0 => return None,
        (true, Some(_)) => BodyLength::Length(0),
        (true, None) => BodyLength::None,
        (false, Some(length)) => BodyLength::Length(length),
        (false, None) => BodyLength::Chunked,
    })
}

/// Stores an HTTP/2 response head; `false` when it cannot be passed on.
pub fn read_response(
    status: StatusCode,
    headers: &HeaderMap,
    max_fields: usize,
    head: &mut ResponseHead,
) -> bool {
    head.clear();
    head.status = status.as_u16();
    headers.len() <= max_fields
        && headers.iter().all(|(name, value)| {
            let name = name.as_str().as_bytes();
            !is_connection_specific(Known::from_lower(name)) && head.fields.append(name, value.as_bytes())
        })
}

/// Stores a trailer section; fields that may not be trailers are left out.
pub fn read_trailers(headers: &HeaderMap, max_fields: usize, trailers: &mut FieldBlock) -> bool {
    trailers.clear();
    headers.len() <= max_fields
        && headers.iter().all(|(name, value)| {
            let name = name.as_str().as_bytes();
            let known = Known::from_lower(name);
            let banned = is_connection_specific(known) || known == Known::ContentLength || known == Known::Te;
            banned || trailers.append(name, value.as_bytes())
        })
}

/// A header map for the `h2` crate; `None` when a field cannot be written.
pub fn write_fields(fields: &FieldBlock) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(fields.len());
    for (known, name, value) in fields.iter_known() {
        if is_connection_specific(known) || (known == Known::Te && value != b"trailers") {
            continue;
        }
        map.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    Some(map)
}

/// The request for the `h2` crate; `None` when it cannot be written.
pub fn write_request(head: &RequestHead) -> Option<Request<()>> {
    let authority = Authority::try_from(head.authority()).ok()?;
    let mut uri = Uri::builder().authority(authority);
    if head.method() != Method::Connect {
        uri = uri.scheme(head.scheme().as_str()).path_and_query(PathAndQuery::try_from(head.path()).ok()?);
    }
    let mut request = Request::builder()
        .method(http::Method::from_bytes(head.method_bytes()).ok()?)
        .uri(uri.build().ok()?)
        .version(http::Version::HTTP_2)
        .body(())
        .ok()?;
    *request.headers_mut() = write_fields(&head.fields)?;
    Some(request)
}

/// The response for the `h2` crate; `None` when it cannot be written.
pub fn write_response(head: &ResponseHead) -> Option<Response<()>> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).ok()?;
    *response.version_mut() = http::Version::HTTP_2;
    *response.headers_mut() = write_fields(&head.fields)?;
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(request: Request<()>, ended: bool) -> Result<(RequestHead, BodyLength), HeadRefusal> {
        let mut head = RequestHead::default();
        let body = read_request(&request, ended, false, 100, &mut head)?;
        Ok((head, body))
    }

    #[test]
    fn request_plain_is_stored() {
        let request = Request::get("http://h:1/a?b=c").header("x-a", "1").header("cookie", "a=1");
        let request = request.header("cookie", "b=2").body(()).unwrap();
        let (head, body) = read(request, true).unwrap();
        assert_eq!((head.authority(), head.path(), body), (&b"h:1"[..], &b"/a?b=c"[..], BodyLength::None));
        assert_eq!(head.fields.get(b"cookie"), Some(&b"a=1; b=2"[..]));
    }

    #[test]
    fn request_ambiguous_is_refused() {
        let table = [
            Request::get("http://h/").header("host", "evil"),
            Request::get("http://h/").header("host", "h").header("host", "h"),
            Request::get("http://h/").header("content-length", "1").header("content-length", "1"),
            Request::get("http://h/").header("content-length", "+1"),
            Request::get("http://h/").header("connection", "close"),
            Request::get("http://h/").header("transfer-encoding", "chunked"),
            Request::get("http://u@h/"),
            Request::get("/"),
            Request::get("http://h/").header("x-a", " padded"),
            Request::get("http://h/").header("x-a", "padded\t"),
        ];
        for (i, request) in table.into_iter().enumerate() {
            assert!(read(request.body(()).unwrap(), false).is_err(), "case {i}");
        }
    }

    #[test]
    fn announced_body_that_does_not_come_is_refused() {
        let request = Request::get("http://h/").header("content-length", "30").body(()).unwrap();
        assert_eq!(read(request, true).unwrap_err(), HeadRefusal::Bad("http2.invalid.content_length"));
    }

    #[test]
    fn fields_at_the_limit_pass_and_one_past_is_refused() {
        let with = |n: usize| {
            let mut request = Request::get("http://h/");
            for i in 0..n {
                request = request.header(format!("x-{i}"), "v");
            }
            read(request.body(()).unwrap(), true).map(|_| ())
        };
        assert_eq!(with(100), Ok(()));
        assert_eq!(with(101), Err(HeadRefusal::TooMany));
    }

    #[test]
    fn head_survives_the_round_trip() {
        let request = Request::post("https://h/a").header("te", "trailers").body(()).unwrap();
        let (mut head, body) = read(request, false).unwrap();
        assert_eq!(body, BodyLength::Chunked);
        head.fields.append(b"connection", b"close");
        let written = write_request(&head).unwrap();
        assert_eq!(written.uri().to_string(), "http://h/a");
        assert_eq!(written.headers().len(), 1);
    }
}
