//! Compression and decompression of bodies (`envoy.filters.http.compressor`, `envoy.filters.http.decompressor`).
//!
//! What is compressed, and in which coding, `outrigger_traffic::filter::compression` decides; [`code`] are the codings.

mod code;

use outrigger_traffic::FieldView;
use outrigger_traffic::config::{Coding, Compressor, CompressorRoute, Decompressor};
use outrigger_traffic::filter::compression::{
    choose, is_compressible, is_decompressible, is_response_compressible, is_strong_etag, without_first,
};
use outrigger_traffic::filter::{Filter, HttpFilter, RouteFilter};
use outrigger_wire::{FieldBlock, Known, Method};

use super::{After, Place, Verdict};
use crate::exchange::{Exchange, Front, Notes};
use crate::http::staged::BodyStage;
use crate::http::view::{FieldsView, HeadView};

/// A response that may be compressed.
#[derive(Debug)]
pub(crate) struct MayCompress {
    of: Compressor,
    /// What the client accepts.
    accept: Vec<u8>,
    /// The compressors of the chain: coding, and whether they ask to be chosen first.
    offered: Vec<(&'static str, bool)>,
}

/// What the route says of a compressor; `None`: nothing is compressed.
fn route_of(settings: Option<&RouteFilter>) -> Option<Option<bool>> {
    match settings {
        Some(RouteFilter::Compressor(CompressorRoute::Off)) => None,
        Some(RouteFilter::Compressor(CompressorRoute::On { remove_accept_encoding })) => {
            Some(*remove_accept_encoding)
        }
        _ => Some(None),
    }
}

/// Compresses the request where it is to be, and sees to the response.
pub(super) fn on_request(
    x: &mut Exchange,
    notes: &mut Notes,
    place: &Place<'_>,
    of: &Compressor,
    settings: Option<&RouteFilter>,
) -> Verdict {
    let route = route_of(settings);
    let enabled = of.response.is_some() && route.is_some();
    if enabled {
        let accept = accepted(&x.front.request.fields);
        notes.after.push(After::Compress(Box::new(MayCompress {
            of: of.clone(),
            accept,
            offered: offered(place),
        })));
        notes.shapes_response = true;
        if route.flatten().unwrap_or(of.remove_accept_encoding) {
            x.front.request.fields.remove_known(Known::AcceptEncoding);
        }
    }
    if let Some(rules) = of.request.as_ref().filter(|_| route.is_some())
        && has_body(x)
        && is_compressible(rules, &HeadView(&x.front.request))
    {
        x.front.serving.stats(x.front.worker()).compressor_request_compressed.inc();
        code(&mut x.front.request.fields, of.coding);
        x.stage_request(encoder(of.coding));
    }
    Verdict::Next
}

/// Whether filters may work on the request's body.
pub(super) fn has_body(x: &Exchange) -> bool {
    !x.body.is_empty() && !x.reader.is_over() && !x.upgrade && x.front.request.method() != Method::Connect
}

fn accepted(fields: &FieldBlock) -> Vec<u8> {
    fields.get_known(Known::AcceptEncoding).unwrap_or_default().to_vec()
}

/// The compressors of the chain. One that the route switches off counts: what it would have been chosen for stays as it is
/// (Envoy).
fn offered(place: &Place<'_>) -> Vec<(&'static str, bool)> {
    let one = |filter: &HttpFilter| {
        let Filter::Compressor(of) = &filter.rules else { return None };
        let own = place.filters.and_then(|filters| filters.of(filter.slot));
        (filter.runs(own) && of.response.is_some()).then(|| (of.coding.token(), of.choose_first))
    };
    place.serving.filters().iter().filter_map(one).collect()
}

/// Compresses a response where that is wanted and allowed.
pub(super) fn on_response(x: &mut Front, notes: &mut Notes, may: &MayCompress) {
    let stats = x.serving.stats(x.worker());
    let MayCompress { of, accept, offered } = may;
    let view = FieldsView(&x.response.fields);
    let compressible = is_response_compressible(of, x.response.status, &view);
    let chosen = choose(accept, offered).and_then(|at| offered.get(at));
    let wanted = chosen.is_some_and(|(token, _)| *token == of.coding.token());
    if compressible && wanted && notes.has_body {
        stats.compressor_compressed.inc();
        let fields = &mut x.response.fields;
        if fields.get_known(Known::Etag).is_some_and(is_strong_etag) {
            fields.remove_known(Known::Etag);
        }
        code(fields, of.coding);
        notes.stages.push(encoder(of.coding));
    } else {
        stats.compressor_not_compressed.inc();
    }
    if compressible {
        vary(&mut x.response.fields);
    }
}

/// The body is of another length now, and coded.
fn code(fields: &mut FieldBlock, coding: Coding) {
    fields.remove_known(Known::ContentLength);
    fields.put(Known::ContentEncoding, coding.token().as_bytes());
}

/// Caches must know that other clients get the response otherwise.
fn vary(fields: &mut FieldBlock) {
    let says = fields.get_known(Known::Vary).unwrap_or_default();
    let mut names = says.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    if !names.any(|name| name == b"Accept-Encoding") {
        fields.join(Known::Vary.name(), b", ", b"Accept-Encoding");
    }
}

fn encoder(coding: Coding) -> Box<dyn BodyStage> {
    match coding {
        Coding::Gzip { level, window_bits } => Box::new(code::GzipEncoder::new(level, window_bits)),
        Coding::Brotli { quality, window_bits } => Box::new(code::BrotliEncoder::new(quality, window_bits)),
    }
}

/// Decompresses the request where it is to be, and sees to the response.
pub(super) fn decompress_request(x: &mut Exchange, notes: &mut Notes, of: &Decompressor) -> Verdict {
    if of.response.is_some() {
        notes.after.push(After::Decompress(Box::new(of.clone())));
        notes.shapes_response = true;
        if of.advertise {
            advertise(&mut x.front.request.fields, of.coding.token().as_bytes());
        }
    }
    if let Some(rules) = of.request
        && has_body(x)
        && is_decompressible(rules, of, &HeadView(&x.front.request))
    {
        x.front.serving.stats(x.front.worker()).decompressor_request_decompressed.inc();
        uncode(&mut x.front.request.fields);
        x.stage_request(code::decoder(of.coding));
    }
    Verdict::Next
}

/// Tells the upstream that a coding is accepted.
fn advertise(fields: &mut FieldBlock, token: &[u8]) {
    let mut all = Vec::new();
    let accept = accepted(fields);
    let others = accept.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    for one in others.filter(|one| !one.is_empty() && *one != token) {
        all.extend_from_slice(one);
        all.push(b',');
    }
    all.extend_from_slice(token);
    fields.set(Known::AcceptEncoding.name(), &all);
}

/// Decompresses a response.
pub(super) fn decompress_response(x: &mut Front, notes: &mut Notes, of: &Decompressor) {
    let Some(rules) = of.response else { return };
    if notes.has_body && is_decompressible(rules, of, &FieldsView(&x.response.fields)) {
        x.serving.stats(x.worker()).decompressor_decompressed.inc();
        uncode(&mut x.response.fields);
        notes.stages.push(code::decoder(of.coding));
    }
}

/// The body is of another length now, and coded once less.
fn uncode(fields: &mut FieldBlock) {
    fields.remove_known(Known::ContentLength);
    let codings = FieldsView(fields).header(b"content-encoding").unwrap_or_default().to_vec();
    fields.remove_known(Known::ContentEncoding);
    if let Some(rest) = without_first(&codings) {
        fields.append(Known::ContentEncoding.name(), rest);
    }
}
