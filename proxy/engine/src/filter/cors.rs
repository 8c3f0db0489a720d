//! Cross-origin resource sharing (`envoy.filters.http.cors`).

use outrigger_traffic::FieldView;
use outrigger_traffic::filter::{Cors, Override};

use super::{After, Answer, Verdict};
use crate::exchange::{Exchange, Notes};
use crate::http::view::HeadView;

/// What is added to the response to a request of another origin that is let in.
#[derive(Debug)]
pub(crate) struct LetIn {
    pub(super) origin: Vec<u8>,
    pub(super) credentials: bool,
    pub(super) expose: String,
}

/// Answers preflights and lets origins in.
pub(super) fn on_request(x: &Exchange, notes: &mut Notes, own: Option<&Override>) -> Verdict {
    let Some(cors) = Cors::of(own) else { return Verdict::Next };
    let worker = x.front.worker();
    let enabled = cors.is_enabled(worker.draw_u32());
    if !enabled && !cors.is_shadowed(worker.draw_u32()) {
        return Verdict::Next;
    }
    let view = HeadView(&x.front.request);
    let Some(origin) = view.header(b"origin").filter(|origin| !origin.is_empty()) else {
        return Verdict::Next;
    };
    let stats = x.front.serving.stats(worker);
    let asks = |name: &[u8]| view.header(name).filter(|value| !value.is_empty());
    let preflight =
        x.front.request.method_bytes() == b"OPTIONS" && asks(b"access-control-request-method").is_some();
    let let_in = cors.lets_in(origin);
    if let_in {
        stats.cors_origin_valid.inc()
    } else {
        stats.cors_origin_invalid.inc()
    }
    if !enabled || (!let_in && (!preflight || cors.forwards_not_matching_preflights())) {
        return Verdict::Next;
    }
    if let_in {
        notes.after.push(After::LetIn(Box::new(LetIn {
            origin: origin.to_vec(),
            credentials: cors.allow_credentials(),
            expose: cors.expose_headers().to_owned(),
        })));
    }
    if !preflight {
        return Verdict::Next;
    }
    let mut answer = Answer::new(200, "", "cors_response");
    answer.edited = false;
    let mut add =
        |name: &'static str, value: &[u8]| answer.fields.push((name.as_bytes().into(), value.to_vec()));
    if cors.allow_credentials() {
        add("access-control-allow-credentials", b"true");
    }
    if cors.allow_private_network() && asks(b"access-control-request-private-network") == Some(b"true") {
        add("access-control-allow-private-network", b"true");
    }
    for (name, value) in [
        ("access-control-allow-methods", cors.allow_methods()),
        ("access-control-allow-headers", cors.allow_headers()),
        ("access-control-max-age", cors.max_age()),
    ] {
        if !value.is_empty() {
            add(name, value.as_bytes());
        }
    }
    Verdict::Answer(answer)
}
