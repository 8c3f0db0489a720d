//! TLS of our own port: our certificate and what we accept from clients, both following the authority.
//!
//! A client certificate is asked for but not required: a host that joins has none. Each call checks
//! what it needs (`grpc::peer`). Every connection begins with the configuration of that moment, so
//! neither renewal nor rotation needs a restart.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::ca::{Authority, AuthorityError, ServerNames, Subject, TrustBundle};
use super::spiffe::Identity;
use crate::clock::{self, UnixMs};

/// How long to wait after a renewal that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// No certificate.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The TLS library refused it.
    #[error("tls configuration")]
    Tls(#[from] rustls::Error),
    /// The trust bundle has nothing usable.
    #[error("trust bundle")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The current TLS configurations of our ports.
pub struct ServerTls {
    authority: Arc<Authority>,
    identity: Identity,
    names: ServerNames,
    current: ArcSwap<Configs>,
}

struct Configs {
    mesh: Arc<ServerConfig>,
    operator: Arc<ServerConfig>,
    renew_at: UnixMs,
}

impl ServerTls {
    /// Gets the first certificate.
    ///
    /// *Errors*: [`ServerTlsError`].
    pub fn new(
        authority: Arc<Authority>,
        identity: Identity,
        names: ServerNames,
        now: UnixMs,
    ) -> Result<Self, ServerTlsError> {
        let configs = build(&authority, &identity, &names, now)?;
        Ok(Self { authority, identity, names, current: ArcSwap::from_pointee(configs) })
    }

    /// For gRPC from members of the mesh: HTTP/2, client certificate optional.
    pub fn mesh(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().mesh)
    }

    /// For the operator API: HTTP/1.1 or HTTP/2, no client certificate.
    pub fn operator(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().operator)
    }

    /// Follows the authority for ever: renews at half the certificate's life and after every change of
    /// the trust bundle.
    pub async fn follow(&self) {
        let mut bundle = self.authority.trust_bundle();
        // What changed before we were polled first is noticed too.
        bundle.mark_changed();
        let mut failed = false;
        loop {
            let half =
                u64::try_from(self.current.load().renew_at.saturating_sub(clock::unix_ms())).unwrap_or(0);
            let wait = if failed { RETRY_AFTER } else { Duration::from_millis(half) };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = bundle.changed() => if changed.is_err() { return },
            }
            match build(&self.authority, &self.identity, &self.names, clock::unix_ms()) {
                Ok(configs) => {
                    self.current.store(Arc::new(configs));
                    failed = false;
                }
                Err(error) => {
                    tracing::error!(%error, "own certificate not renewed");
                    failed = true;
                }
            }
        }
    }
}

fn build(
    authority: &Authority,
    identity: &Identity,
    names: &ServerNames,
    now: UnixMs,
) -> Result<Configs, ServerTlsError> {
    let own = authority.issue(Subject { identity, host: None, names }, now)?;
    let bundle = authority.trust_bundle().borrow().clone();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&bundle)?), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()?;
    let mut mesh = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(own.svid.chain_der.clone(), own.key_der.clone_key())?;
    mesh.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would bring back a client certificate without looking at it again.
    mesh.session_storage = Arc::new(NoServerSessionStorage {});
    mesh.send_tls13_tickets = 0;
    let mut operator = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(own.svid.chain_der, own.key_der)?;
    operator.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let renew_at = now.saturating_add(own.svid.expires_at.saturating_sub(now) / 2);
    Ok(Configs { mesh: Arc::new(mesh), operator: Arc::new(operator), renew_at })
}

/// A trust bundle as the TLS library wants it.
///
/// *Errors*: [`ServerTlsError::Tls`] for a certificate that cannot be a trust anchor.
pub fn roots(bundle: &TrustBundle) -> Result<RootCertStore, ServerTlsError> {
    let mut roots = RootCertStore::empty();
    for der in &bundle.der {
        roots.add(der.clone())?;
    }
    Ok(roots)
}
