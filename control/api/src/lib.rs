//! The wire between control service and proxies: our subset of Envoy's xDS v3 API, Outrigger's own services, and the
//! OTLP and gRPC health services, as protobuf.
//!
//! The `.proto` files in `proto/` hold what the product implements and nothing else; names, numbers and types are the
//! official ones (checked against the official descriptors by `tests/official/compare.py`). Reading order:
//! the generated packages ([`envoy`], [`outrigger`], …) · [`Kind`] (what travels over xDS) · [`pool()`] (descriptors at run time) · [`strict`] (the one way
//! from binary, YAML or JSON to messages, which refuses every field that is not implemented) · [`ignored`] (the short list
//! of fields that are accepted without effect) · [`official`] (names of what the official API has and we have not) ·
//! [`metadata`] (what travels beside Envoy's fields).

mod generated;
pub mod ignored;
mod kind;
pub mod metadata;
pub mod official;
mod pool;
pub mod strict;

pub use generated::{envoy, google, grpc, opentelemetry, outrigger};
pub use kind::Kind;
pub use pool::{DESCRIPTORS, TYPE_URL_PREFIX, any, forget_pool, pool, to_json};
