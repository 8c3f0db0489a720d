//! What a proxy says about itself and the client: `x-forwarded-*`, `x-request-id`, `via`, `server`,
//! `x-forwarded-client-cert`.
//!
//! The rules are Envoy's (HTTP connection manager, "HTTP header manipulation"). What one connection's
//! requests share is written out once, in [`ClientFacts`]. No address counts as internal, as is Envoy's
//! default since `internal_address_config` became explicit: fields only an internal client may set are
//! removed from every request.

use std::net::IpAddr;
use std::sync::Arc;

use outrigger_traffic::config::{
    ForwardClientCert, HttpConnectionManager, ServerHeader, SetClientCertDetails,
};
use outrigger_wire::syntax::hex_digits;
use outrigger_wire::{FieldBlock, Known, KnownSet, RequestHead, ResponseHead, Scheme};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::io::PeerCert;

#[cfg(test)]
#[path = "forwarded_tests.rs"]
mod tests;

/// What all requests of a downstream connection say about it, as text.
#[derive(Clone, Debug)]
pub struct ClientFacts {
    /// The other end of the socket.
    peer: IpAddr,
    /// Its address as written in fields.
    peer_text: String,
    /// Whether TLS ended here.
    is_tls: bool,
    /// Our element of `x-forwarded-client-cert`; `None` without a verified client certificate.
    client_cert: Option<Vec<u8>>,
}

impl ClientFacts {
    /// Writes out the facts of a connection. `by` holds the URI names of the certificate we showed.
    #[must_use]
    pub fn new(
        peer: IpAddr,
        is_tls: bool,
        cert: Option<&PeerCert>,
        by: &[Arc<str>],
        config: &HttpConnectionManager,
    ) -> Self {
        let peer = peer.to_canonical();
        let sets = matches!(
            config.forward_client_cert,
            ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet
        );
        let client_cert = cert.filter(|cert| cert.verified).map(|cert| {
            if sets { client_cert_element(cert, by, config.set_client_cert_details) } else { Vec::new() }
        });
        Self { peer, peer_text: peer.to_string(), is_tls, client_cert }
    }
}

/// Writes the forwarding fields of a request and returns the address the client is trusted to have
/// (`%DOWNSTREAM_REMOTE_ADDRESS%`, the `remote_ip` of authorization rules).
///
/// `draw` yields random numbers for a request id. Call it once per request, before routing and after the
/// fields of the connection are gone.
pub fn request(
    head: &mut RequestHead,
    config: &HttpConnectionManager,
    client: &ClientFacts,
    draw: &mut dyn FnMut() -> u64,
) -> IpAddr {
    let is_edge = config.use_remote_address;
    let trusted = trusted_address(&head.fields, config).unwrap_or(client.peer);
    if is_edge && !config.skip_xff_append {
        if head.fields.contains_known(Known::XForwardedFor) {
            head.fields.join(Known::XForwardedFor.name(), b",", client.peer_text.as_bytes());
        } else {
            head.fields.put(Known::XForwardedFor, client.peer_text.as_bytes());
        }
    }
    scheme(head, config, client);
    remove_internal(&mut head.fields, is_edge);
    if is_edge {
        set_external_address(&mut head.fields, trusted, client);
    }
    if config.generate_request_id {
        let replace = is_edge && !config.preserve_external_request_id;
        if replace || !head.fields.contains_known(Known::XRequestId) {
            head.fields.put(Known::XRequestId, &uuid4(draw));
        }
    }
    if is_edge && config.preserve_external_request_id && config.generate_request_id {
        untraced(&mut head.fields);
    }
    client_cert(&mut head.fields, config.forward_client_cert, client);
    append_via(&mut head.fields, &config.via);
    trusted
}

/// Writes `server`, `via` and, where asked for, `x-request-id` of a response.
///
/// `request_id` is that of the request. Local replies follow the same rules.
pub fn response(head: &mut ResponseHead, config: &HttpConnectionManager, request_id: Option<&[u8]>) {
    let fields = &mut head.fields;
    let names_us = match config.server_header {
        ServerHeader::Overwrite => true,
        ServerHeader::AppendIfAbsent => !fields.contains_known(Known::Server),
        ServerHeader::PassThrough => false,
    };
    if names_us {
        fields.set(Known::Server.name(), config.server_name.as_bytes());
    }
    append_via(fields, &config.via);
    if config.always_set_request_id_in_response
        && let Some(id) = request_id
    {
        fields.set(Known::XRequestId.name(), id);
    }
}

/// Takes out of an id from outside what it says about being traced (Envoy: `pack_trace_reason`).
fn untraced(fields: &mut FieldBlock) {
    const REASON: usize = 14;
    let id = fields.get_known(Known::XRequestId).filter(|id| id.len() == 36 && id.get(8) == Some(&b'-'));
    let Some(mut id) = id.map(<[u8]>::to_vec) else { return };
    if let Some(reason) = id.get_mut(REASON).filter(|reason| matches!(reason, b'9' | b'a' | b'b')) {
        *reason = b'4';
        fields.put(Known::XRequestId, &id);
    }
}

fn append_via(fields: &mut FieldBlock, via: &str) {
    if !via.is_empty() {
        fields.join(Known::Via.name(), b", ", via.as_bytes());
    }
}

/// The client's address by `x-forwarded-for`, when the configuration trusts one there.
///
/// With `use_remote_address`, n trusted hops mean the n-th address from the right; without it, the
/// rightmost after n more. An element that is no address is trusted by nobody.
fn trusted_address(fields: &FieldBlock, config: &HttpConnectionManager) -> Option<IpAddr> {
    let hops = config.xff_num_trusted_hops as usize;
    let from_right = if config.use_remote_address { hops.checked_sub(1)? } else { hops };
    let count: usize = fields.get_all_known(Known::XForwardedFor).map(|line| elements(line).count()).sum();
    let index = count.checked_sub(from_right + 1)?;
    let element = fields.get_all_known(Known::XForwardedFor).flat_map(elements).nth(index)?;
    let address: IpAddr = std::str::from_utf8(element).ok()?.parse().ok()?;
    Some(address.to_canonical())
}

fn elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',').map(outrigger_wire::syntax::trim_ows)
}

/// `x-forwarded-proto`, and from it the scheme that routes and redirects see.
fn scheme(head: &mut RequestHead, config: &HttpConnectionManager, client: &ClientFacts) {
    let ours = if client.is_tls { Scheme::Https } else { Scheme::Http };
    let stated = head.fields.get_known(Known::XForwardedProto);
    let untrusted = config.use_remote_address && config.xff_num_trusted_hops == 0;
    let scheme = match stated.filter(|_| !untrusted) {
        Some(stated) => Scheme::from_bytes(stated).unwrap_or(ours),
        None => {
            head.fields.put(Known::XForwardedProto, ours.as_bytes());
            ours
        }
    };
    let forced = config.scheme_override.as_ref().and_then(|scheme| Scheme::from_bytes(scheme.as_bytes()));
    if let Some(forced) = forced {
        head.fields.put(Known::XForwardedProto, forced.as_bytes());
    }
    head.set_scheme(forced.unwrap_or(scheme));
}

/// Removes what only an internal client may say (Envoy: "x-envoy-internal" and what depends on it).
fn remove_internal(fields: &mut FieldBlock, is_edge: bool) {
    const INTERNAL: [Known; 21] = [
        Known::XEnvoyInternal,
        Known::XEnvoyRetriableStatusCodes,
        Known::XEnvoyRetriableHeaderNames,
        Known::XEnvoyRetryOn,
        Known::XEnvoyRetryGrpcOn,
        Known::XEnvoyMaxRetries,
        Known::XEnvoyUpstreamAltStatName,
        Known::XEnvoyUpstreamRequestTimeoutMs,
        Known::XEnvoyUpstreamRequestPerTryTimeoutMs,
        Known::XEnvoyUpstreamRequestTimeoutAltResponse,
        Known::XEnvoyExpectedRequestTimeoutMs,
        Known::XEnvoyForceTrace,
        Known::XEnvoyHedgeOnPerTryTimeout,
        Known::XEnvoyIpTags,
        Known::XEnvoyOriginalUrl,
        Known::XEnvoyUpstreamStreamDurationMs,
        // These only at the edge.
        Known::XEnvoyOriginalPath,
        Known::XEnvoyOriginalHost,
        Known::XEnvoyDecoratorOperation,
        Known::XEnvoyDownstreamServiceCluster,
        Known::XEnvoyDownstreamServiceNode,
    ];
    const SET: KnownSet = KnownSet::of(&INTERNAL);
    if !fields.may_have(SET) {
        return;
    }
    for known in INTERNAL.iter().take(if is_edge { 21 } else { 16 }) {
        fields.remove_known(*known);
    }
}

fn set_external_address(fields: &mut FieldBlock, trusted: IpAddr, client: &ClientFacts) {
    let name = Known::XEnvoyExternalAddress.name();
    if trusted == client.peer {
        fields.put(Known::XEnvoyExternalAddress, client.peer_text.as_bytes());
    } else {
        // Only behind trusted hops; the text cannot be known before.
        fields.set(name, trusted.to_string().as_bytes());
    }
}

fn client_cert(fields: &mut FieldBlock, rule: ForwardClientCert, client: &ClientFacts) {
    let name = Known::XForwardedClientCert.name();
    let element = match (rule, &client.client_cert) {
        (ForwardClientCert::AlwaysForwardOnly, _) => return,
        (ForwardClientCert::Sanitize, _) | (_, None) => {
            fields.remove_known(Known::XForwardedClientCert);
            return;
        }
        (ForwardClientCert::ForwardOnly, Some(_)) => return,
        (ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet, Some(element)) => element,
    };
    if rule == ForwardClientCert::AppendForward {
        fields.join(name, b",", element);
    } else {
        fields.set(name, element);
    }
}

/// Our element of `x-forwarded-client-cert`.
fn client_cert_element(cert: &PeerCert, by: &[Arc<str>], details: SetClientCertDetails) -> Vec<u8> {
    let mut element = String::with_capacity(256);
    for name in by {
        pair(&mut element, "By", name, false);
    }
    if !cert.sha256.is_empty() {
        pair(&mut element, "Hash", &cert.sha256, false);
    }
    if details.cert {
        pair(&mut element, "Cert", &url_encoded_pem([&*cert.der]), true);
    }
    if details.chain {
        let chain = std::iter::once(&*cert.der).chain(cert.intermediates.iter().map(|der| &**der));
        pair(&mut element, "Chain", &url_encoded_pem(chain), true);
    }
    if details.subject {
        pair(&mut element, "Subject", &cert.subject, true);
    }
    if details.uri {
        for name in &cert.uri_sans {
            pair(&mut element, "URI", name, false);
        }
    }
    if details.dns {
        for name in &cert.dns_sans {
            pair(&mut element, "DNS", name, false);
        }
    }
    element.into_bytes()
}

/// Adds `key=value`, quoted where a reader would otherwise take part of the value for the next pair.
fn pair(out: &mut String, key: &str, value: &str, quote: bool) {
    if !out.is_empty() {
        out.push(';');
    }
    out.push_str(key);
    out.push('=');
    if !quote && !value.contains([',', ';', '=', '"', '\\', ' ']) {
        return out.push_str(value);
    }
    out.push('"');
    for character in value.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

/// PEM of certificates, percent-encoded as a query value.
pub(crate) fn url_encoded_pem<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> String {
    const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let mut pem = String::new();
    for der in certificates {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        base64_lines(der, &mut pem);
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    utf8_percent_encode(&pem, PLAIN).to_string()
}

/// Base64 in lines of 64 (RFC 7468); 48 bytes give one line.
fn base64_lines(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for line in bytes.chunks(48) {
        for group in line.chunks(3) {
            let bits =
                group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
            for at in 0..4usize {
                let digit = DIGITS.get((bits >> (18 - 6 * at) & 63) as usize).copied().unwrap_or(b'A');
                out.push(if at <= group.len() { char::from(digit) } else { '=' });
            }
        }
        out.push('\n');
    }
}

/// A version 4 UUID (RFC 9562 §5.4) as text.
fn uuid4(draw: &mut dyn FnMut() -> u64) -> [u8; 36] {
    let high = draw() & !0xf000 | 0x4000;
    let low = draw() & !(0b11 << 62) | 0b10 << 62;
    let bits = u128::from(high) << 64 | u128::from(low);
    let [a, b, c, d] = [96, 64, 32, 0].map(|shift| hex_digits((bits >> shift & 0xffff_ffff) as u32));
    let mut text = [b'-'; 36];
    let (b0, b1) = b.split_at(4);
    let (c0, c1) = c.split_at(4);
    let parts: [(usize, &[u8]); 6] = [(0, &a), (9, b0), (14, b1), (19, c0), (24, c1), (28, &d)];
    for (at, part) in parts {
        if let Some(place) = text.get_mut(at..at + part.len()) {
            place.copy_from_slice(part);
        }
    }
    text
}
