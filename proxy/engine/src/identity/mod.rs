//! Certificates and trust as TLS configurations, built when a configuration is applied.
//!
//! Everything that can be wrong with a certificate is found here, on the control thread, and reported as a
//! [`outrigger_traffic::config::ConfigError`]. A secret that has not arrived yet is not an error: the context waits for
//! it, and until then refuses handshakes rather than going on without protection.

/// The TLS side of a filter chain.
#[derive(Debug)]
pub struct ServerTls {}

/// The TLS side of a cluster.
#[derive(Debug)]
pub struct ClientTls {}
