//! The TLS side of a filter chain.

use super::keypair::{CertificateFacts, KeyPair};
use super::secrets::{At, Found, Secrets};
use super::trust::Trust;
use super::verify::ClientVerifier;
use super::{provider, versions};
use outrigger_traffic::config::{ConfigError, DownstreamTls, TlsParams, ValidationContext};
use rustls::ServerConfig;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// A TLS context that terminates connections.
///
/// Session tickets are made by keys that rotate, shared by all workers, and belong to one set of admission rules: when
/// the trust roots or the expected names change, every session made before them is worth nothing.
#[derive(Debug)]
pub struct ServerTls {
    epoch: u64,
    state: State,
    rules: Rules,
    certificates: Vec<Arc<KeyPair>>,
    tickets: Option<Arc<dyn ProducesTickets>>,
}

#[derive(Debug)]
enum State {
    Ready { with_alpn: Arc<ServerConfig>, without_alpn: Arc<ServerConfig>, alpn: Vec<Vec<u8>> },
    Waiting(Vec<String>),
}

/// Whom the context admits, and how.
#[derive(Clone, Debug, PartialEq)]
struct Rules {
    validation: Option<ValidationContext>,
    mandatory: bool,
    alpn: Vec<String>,
    params: TlsParams,
    resumption: bool,
}

impl ServerTls {
    /// Builds the context of a chain, or takes `previous` over when nothing changed.
    ///
    /// *Errors*: all that is wrong, at `resource` and below `path`. A secret that is not there is none.
    pub fn build(
        resource: &str,
        path: &str,
        from: &DownstreamTls,
        secrets: &Secrets,
        previous: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let mut missing = Vec::new();
        let certificates = resolve_certificates(resource, path, from, secrets, &mut missing, &mut errors);
        let at = At { resource, path };
        let mut trust = None;
        let mut keep = |found: Result<Found<Trust>, ConfigError>| match found {
            Ok(Found::Ready(found)) => trust = Some(found),
            Ok(Found::Missing(name)) => missing.push(name),
            Err(error) => errors.push(error),
        };
        match &from.validation {
            Some(source) => {
                let path = format!("{path}.validation_context");
                keep(secrets.validation(source, At { resource, path: &path }));
            }
            None if from.require_client_certificate => errors.push(at.error(
                "require_client_certificate",
                "without a validation context every client certificate would be accepted",
            )),
            None => {}
        }
        if let Err(reason) = versions(&from.params) {
            errors.push(at.error("tls_params", reason));
        }
        let verifier = match &trust {
            Some(trust) => match ClientVerifier::new(trust.clone(), from.require_client_certificate) {
                Ok(verifier) => Some(Arc::new(verifier)),
                Err(reason) => {
                    errors.push(at.error("validation_context", reason));
                    None
                }
            },
            None => None,
        };
        if !errors.is_empty() {
            return Err(errors);
        }
        let rules = Rules {
            validation: trust.as_ref().map(|trust| trust.source.clone()),
            mandatory: from.require_client_certificate,
            alpn: from.alpn.clone(),
            params: from.params,
            resumption: !from.disable_stateless_session_resumption,
        };
        let next = Self::assemble(rules, certificates, verifier, missing, previous)
            .map_err(|reason| vec![at.error("", reason)])?;
        Ok(match previous {
            Some(previous) if previous.is_same(&next) => previous.clone(),
            _ => Arc::new(next),
        })
    }

    fn assemble(
        rules: Rules,
        certificates: Vec<Arc<KeyPair>>,
        verifier: Option<Arc<ClientVerifier>>,
        missing: Vec<String>,
        previous: Option<&Arc<Self>>,
    ) -> Result<Self, String> {
        let tickets = match previous {
            _ if !rules.resumption => None,
            Some(previous) if previous.rules == rules && previous.tickets.is_some() => {
                previous.tickets.clone()
            }
            _ => Some(
                rustls::crypto::aws_lc_rs::Ticketer::new()
                    .map_err(|error| format!("session tickets cannot be made: {error}"))?,
            ),
        };
        let state = if missing.is_empty() {
            let config = configure(&rules, &certificates, verifier, tickets.as_ref())?;
            let mut with_alpn = config.clone();
            with_alpn.alpn_protocols = rules.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
            State::Ready {
                alpn: with_alpn.alpn_protocols.clone(),
                with_alpn: Arc::new(with_alpn),
                without_alpn: Arc::new(config),
            }
        } else {
            State::Waiting(missing)
        };
        let epoch = previous.map_or(1, |previous| previous.epoch + 1);
        Ok(Self { epoch, state, rules, certificates, tickets })
    }

    fn is_same(&self, other: &Self) -> bool {
        self.rules == other.rules
            && self.missing() == other.missing()
            && self.certificates.len() == other.certificates.len()
            && self.certificates.iter().zip(&other.certificates).all(|(a, b)| a.source == b.source)
    }

    /// What a connection is terminated with; `None` while secrets are missing. `offered` is the client's ALPN: when
    /// none of it is spoken here, the handshake goes on without ALPN, as Envoy's does.
    pub fn config(&self, offered: &[Vec<u8>]) -> Option<&Arc<ServerConfig>> {
        match &self.state {
            State::Ready { with_alpn, without_alpn, alpn } => {
                let common = alpn.iter().any(|name| offered.contains(name));
                Some(if common { with_alpn } else { without_alpn })
            }
            State::Waiting(_) => None,
        }
    }

    /// Secrets that have not arrived.
    pub fn missing(&self) -> &[String] {
        match &self.state {
            State::Ready { .. } => &[],
            State::Waiting(names) => names,
        }
    }

    /// Counts up with every change of certificates or rules.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a connection admitted by `self` would be admitted by `other` in the same way: trust roots, expected
    /// names and versions are the same (the server's own certificates may differ).
    pub fn admits_as(&self, other: &Self) -> bool {
        self.rules == other.rules
    }

    /// Whether client certificates are verified.
    pub fn verifies_clients(&self) -> bool {
        self.rules.validation.is_some()
    }

    /// The leaf certificates shown to clients.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateFacts> {
        self.certificates.iter().map(|pair| &pair.facts)
    }
}

fn resolve_certificates(
    resource: &str,
    path: &str,
    from: &DownstreamTls,
    secrets: &Secrets,
    missing: &mut Vec<String>,
    errors: &mut Vec<ConfigError>,
) -> Vec<Arc<KeyPair>> {
    let mut certificates = Vec::with_capacity(from.certificates.len());
    for (i, source) in from.certificates.iter().enumerate() {
        let path = format!("{path}.tls_certificates[{i}]");
        match secrets.certificate(source, At { resource, path: &path }) {
            Ok(Found::Ready(pair)) => certificates.push(pair),
            Ok(Found::Missing(name)) => missing.push(name),
            Err(error) => errors.push(error),
        }
    }
    if from.certificates.is_empty() {
        errors.push(At { resource, path }.error("tls_certificates", "a TLS listener needs a certificate"));
    }
    certificates
}

fn configure(
    rules: &Rules,
    certificates: &[Arc<KeyPair>],
    verifier: Option<Arc<ClientVerifier>>,
    tickets: Option<&Arc<dyn ProducesTickets>>,
) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions(&rules.params)?)
        .map_err(|error| error.to_string())?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_client_cert_verifier(WebPkiClientVerifier::no_client_auth()),
    };
    let mut config = builder.with_cert_resolver(Arc::new(BySni(certificates.to_vec())));
    // Sessions travel in tickets; nothing is remembered here.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match tickets {
        Some(tickets) => config.ticketer = tickets.clone(),
        None => config.send_tls13_tickets = 0,
    }
    Ok(config)
}

/// The certificate whose names fit the SNI, exact before wildcard, else the first; among equals one whose key the
/// client can verify.
#[derive(Debug)]
struct BySni(Vec<Arc<KeyPair>>);

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |pair: &&Arc<KeyPair>| pair.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = |exact: bool| {
            let name = hello.server_name()?;
            self.0.iter().filter(|pair| pair.serves(name, exact)).find(usable)
        };
        named(true)
            .or_else(|| named(false))
            .or_else(|| self.0.iter().find(usable))
            .or_else(|| self.0.first())
            .map(|pair| pair.key.clone())
    }
}
