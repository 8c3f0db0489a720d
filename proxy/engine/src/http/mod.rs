//! Serving HTTP on an accepted connection: codecs, normalisation, forwarding headers, upgrades.
//!
//! [`serve_connection`] finds the codec and runs [`h1::server`] or [`h2::server`]; each request goes to
//! [`crate::exchange::serve`] with the two halves of its stream ([`body`]) and a [`respond::Responder`].

pub mod body;
pub mod connection;
pub mod date;
pub mod forwarded;
pub mod h1;
pub mod h2;
pub mod hop_by_hop;
pub mod normalize;
pub mod prepare;
pub mod respond;
pub mod staged;
pub mod view;
pub mod websocket;

mod detect;

use std::rc::Rc;
use std::sync::Arc;

use outrigger_traffic::config::CodecType;

use crate::drain::DrainWatch;
use crate::io::Io;
use crate::listener::ConnFacts;
use crate::live::{LiveChain, LiveRef};
use crate::worker::Worker;

pub use connection::{Connection, Serving};

/// Serves a connection whose chain ends in a connection manager, until it is closed. `live` is the configuration that
/// `chain` was chosen from.
pub async fn serve_connection(
    worker: Rc<Worker>,
    io: Rc<Io>,
    facts: Rc<ConnFacts>,
    live: LiveRef,
    chain: Arc<LiveChain>,
    drain: DrainWatch,
) {
    let Some(serving) = Serving::new(live, chain, &facts) else { return };
    let codec = serving.config().codec_type;
    let connection = Rc::new(Connection::new(worker, io, facts, serving, drain));
    connection.worker.tenures.follow(connection.facts.id, &connection);
    let alpn = connection.facts.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
    match (codec, alpn) {
        (CodecType::Http1, _) | (CodecType::Auto, Some(b"http/1.1" | b"http/1.0")) => {
            h1::server::serve(connection, None).await;
        }
        // Boxed, so that the many connections of HTTP/1.1 hold no room for one of HTTP/2.
        (CodecType::Http2, _) | (CodecType::Auto, Some(b"h2")) => {
            Box::pin(h2::server::serve(connection, None)).await;
        }
        (CodecType::Auto, _) => match detect::preface(&connection).await {
            Some(detect::Found::H1(buf)) => h1::server::serve(connection, Some(buf)).await,
            Some(detect::Found::H2(buf)) => Box::pin(h2::server::serve(connection, Some(buf))).await,
            None => {}
        },
    }
}
