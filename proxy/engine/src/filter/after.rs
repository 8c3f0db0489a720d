//! What filters do to the response: decided on the way in, done before the head goes out.

use outrigger_traffic::config::Decompressor;
use outrigger_traffic::filter::fault::ActiveFault;
use outrigger_traffic::filter::token_bucket::Taken;
use outrigger_traffic::filter::{Filter, HeaderToMetadata, HttpFilter, Override, Pace};
use outrigger_traffic::route::Edits;
use std::sync::Arc;

use super::compression::{self, MayCompress};
use super::cors::LetIn;
use super::ext_authz;
use super::grpc_web::{self, Spoken};
use super::header_mutation;
use super::header_to_metadata;
use super::health_check::{self, Checked};
use super::pace;
use super::rate_limit;
use super::registered::RequestFilter;
use super::stateful_session::{self, Session};
use crate::exchange::{self, Front, Notes};
use crate::text::Digits;

/// One thing to be done to the response head.
#[derive(Debug)]
pub(crate) enum After {
    /// A page of another origin is let in.
    LetIn(Box<LetIn>),
    /// Its body takes its time.
    Pace(Arc<Pace>),
    /// A fault makes its body slow.
    Slow(Pace, ActiveFault),
    /// Header edits.
    Edits(Edits),
    /// The state of a rate limit is told.
    RateLimit(Taken),
    /// Fields of a rate limit service.
    Fields(Vec<(Vec<u8>, Vec<u8>)>),
    /// What an authorization service wants.
    ExtAuthz(Vec<ext_authz::Field>),
    /// Fields of the response become metadata.
    Metadata(Arc<HeaderToMetadata>),
    /// It may be compressed.
    Compress(Box<MayCompress>),
    /// It may be decompressed.
    Decompress(Box<Decompressor>),
    /// It answers a health check.
    HealthCheck(Checked),
    /// It becomes one of gRPC-Web.
    GrpcWeb(Spoken),
    /// The client is told the host of its session.
    Session(Box<Session>),
    /// A filter of the embedding program looks at it.
    Registered(Arc<dyn RequestFilter>),
}

/// Does what the filters left to be done, last filter first.
pub(crate) fn on_response(x: &mut Front, notes: &mut Notes) {
    while let Some(after) = notes.after.pop() {
        match after {
            After::LetIn(let_in) => {
                let fields = &mut x.response.fields;
                fields.set(b"access-control-allow-origin", &let_in.origin);
                if let_in.credentials {
                    fields.set(b"access-control-allow-credentials", b"true");
                }
                if !let_in.expose.is_empty() {
                    fields.set(b"access-control-expose-headers", let_in.expose.as_bytes());
                }
            }
            After::Pace(of) => pace::on_response(x, notes, of),
            After::Slow(of, active) => pace::by_fault(x, notes, of, active),
            After::Edits(edits) => exchange::edit_response(x, notes, &edits),
            After::RateLimit(taken) => {
                let mut tell = |name: &[u8], number: u64| {
                    x.response.fields.set(name, Digits::default().write(number));
                };
                tell(b"x-ratelimit-limit", taken.limit.into());
                tell(b"x-ratelimit-remaining", taken.remaining.into());
                tell(b"x-ratelimit-reset", taken.reset);
            }
            After::Fields(added) => rate_limit::on_response(&mut x.response.fields, &added),
            After::ExtAuthz(edits) => ext_authz::on_response(&mut x.response.fields, &edits),
            After::Metadata(rules) => header_to_metadata::on_response(x, notes, &rules),
            After::Compress(may) => compression::on_response(x, notes, &may),
            After::Decompress(of) => compression::decompress_response(x, notes, &of),
            After::HealthCheck(checked) => health_check::on_response(x, &checked),
            After::GrpcWeb(spoken) => grpc_web::on_response(x, notes, spoken),
            After::Session(kept) => stateful_session::on_response(x, notes, &kept),
            After::Registered(filter) => filter.on_response(&mut x.response),
        }
    }
}

/// The part in the response of a filter that the request did not reach, because one before it answered.
pub(super) fn of_unreached(notes: &mut Notes, filter: &HttpFilter, own: Option<&Override>) {
    match &filter.rules {
        Filter::HeaderMutation(edits) => header_mutation::on_response(notes, edits, own),
        Filter::HeaderToMetadata(rules) => {
            header_to_metadata::on_answer(notes, rules, own.and_then(Override::settings));
        }
        // These act on a response only where they saw the request.
        Filter::Rbac(_)
        | Filter::Fault(_)
        | Filter::Cors
        | Filter::BandwidthLimit(_)
        | Filter::Csrf(_)
        | Filter::Jwt(_)
        | Filter::LocalRateLimit(_)
        | Filter::ExtAuthz(_)
        | Filter::RateLimit(_)
        | Filter::SetMetadata(_)
        | Filter::Missing
        | Filter::Compressor(_)
        | Filter::Decompressor(_)
        | Filter::Buffer(_)
        | Filter::HealthCheck(_)
        | Filter::GrpcWeb
        | Filter::StatefulSession(_)
        | Filter::Registered(_) => {}
    }
}
