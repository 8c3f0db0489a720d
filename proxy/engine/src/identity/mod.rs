//! Certificates and trust as TLS configurations, built when a configuration is applied.
//!
//! Everything that can be wrong with a certificate is found here, on the control thread, and reported as a
//! [`outrigger_traffic::config::ConfigError`]. A secret that has not arrived yet is not an error: the context waits for
//! it, and until then refuses handshakes rather than going on without protection.
//!
//! * [`Secrets`]: the named secrets of a configuration, parsed.
//! * [`ServerTls`], [`ClientTls`]: the TLS side of a filter chain and of a cluster.
//! * [`peer_cert`]: what a peer's certificate says; [`Peers`]: so that it is read once.
//!
//! A connection lives on with the configuration it began with. Epochs tell pools that newer certificates are there.

mod client;
mod keypair;
mod memo;
mod negotiated;
mod peer;
mod san;
mod secrets;
mod server;
mod trust;
mod verify;

pub use client::{ClientTls, TlsOptions};
pub use keypair::CertificateFacts;
pub use memo::Peers;
pub(crate) use negotiated::negotiated;
pub use peer::peer_cert;
pub use secrets::Secrets;
pub use server::ServerTls;

use outrigger_traffic::config::{TlsParams, TlsVersion};
use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use std::sync::{Arc, OnceLock};

/// The cryptography of every TLS connection (aws-lc-rs).
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}

/// The versions between minimum (default 1.2) and maximum (default 1.3).
fn versions(params: &TlsParams) -> Result<Vec<&'static SupportedProtocolVersion>, &'static str> {
    let min = params.min.unwrap_or(TlsVersion::V1_2);
    let max = params.max.unwrap_or(TlsVersion::V1_3);
    let all = [(TlsVersion::V1_3, &rustls::version::TLS13), (TlsVersion::V1_2, &rustls::version::TLS12)];
    let chosen: Vec<_> = all.into_iter().filter(|(v, _)| *v >= min && *v <= max).map(|(_, v)| v).collect();
    if chosen.is_empty() { Err("the minimum version is above the maximum version") } else { Ok(chosen) }
}
