//! The TLS side of a cluster.

use super::keypair::{CertificateFacts, KeyPair};
use super::secrets::{At, Found, Secrets};
use super::trust::Trust;
use super::verify::ServerVerifier;
use super::{provider, versions};
use outrigger_traffic::config::{ConfigError, UpstreamTls, ValidationContext};
use rustls::client::Resumption;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;
use std::net::IpAddr;
use std::sync::Arc;

/// A TLS context towards the hosts of a cluster. Sessions kept for resumption are shared by all workers and thrown away
/// with the context.
#[derive(Debug)]
pub struct ClientTls {
    epoch: u64,
    state: State,
    inputs: Inputs,
    certificate: Option<Arc<KeyPair>>,
}

#[derive(Debug)]
enum State {
    Ready { config: Arc<ClientConfig>, sni: Option<ServerName<'static>> },
    Waiting(Vec<String>),
}

/// What the context was made from, apart from the certificate.
#[derive(Clone, Debug, PartialEq)]
struct Inputs {
    validation: Option<ValidationContext>,
    from: UpstreamTls,
    check_name: bool,
}

/// What differs from connection to connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsOptions<'a> {
    /// ALPN in place of the configured one; `None` keeps it.
    pub alpn: Option<&'a [&'a [u8]]>,
    /// SNI (and the name verified with `auto_san_validation`) in place of the configured one.
    pub server_name: Option<&'a str>,
}

impl ClientTls {
    /// Builds the context of a cluster, or takes `previous` over when nothing changed. With `check_name`
    /// (`auto_san_validation`) the host's certificate must be made for the server name of the connection.
    ///
    /// *Errors*: all that is wrong, at `resource` and below `path`. A secret that is not there is none.
    pub fn build(
        resource: &str,
        path: &str,
        from: &UpstreamTls,
        check_name: bool,
        secrets: &Secrets,
        previous: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, Vec<ConfigError>> {
        let at = At { resource, path };
        let mut errors = Vec::new();
        let mut missing = Vec::new();
        let certificate = from.certificate.as_ref().and_then(|source| {
            let path = format!("{path}.tls_certificates[0]");
            settle(secrets.certificate(source, At { resource, path: &path }), &mut missing, &mut errors)
        });
        let trust = from.validation.as_ref().and_then(|source| {
            let path = format!("{path}.validation_context");
            settle(secrets.validation(source, At { resource, path: &path }), &mut missing, &mut errors)
        });
        if let Some(trust) = &trust
            && trust.roots.is_none()
            && !trust.sans.is_empty()
        {
            errors.push(at.error("validation_context", "names prove nothing without trusted_ca"));
        }
        if let Err(reason) = versions(&from.params) {
            errors.push(at.error("tls_params", reason));
        }
        let sni = match from.sni.as_str() {
            "" => None,
            name => match ServerName::try_from(name.to_owned()) {
                Ok(name) => Some(name),
                Err(_) => {
                    errors.push(at.error("sni", format!("`{name}` is not a DNS name")));
                    None
                }
            },
        };
        if !errors.is_empty() {
            return Err(errors);
        }
        let inputs = Inputs {
            validation: trust.as_ref().map(|trust| trust.source.clone()),
            from: from.clone(),
            check_name,
        };
        let state = if missing.is_empty() {
            let config = configure(&inputs, certificate.as_deref(), trust)
                .map_err(|reason| vec![at.error("", reason)])?;
            State::Ready { config: Arc::new(config), sni }
        } else {
            State::Waiting(missing)
        };
        let epoch = previous.map_or(1, |previous| previous.epoch + 1);
        let next = Self { epoch, state, inputs, certificate };
        Ok(match previous {
            Some(previous) if previous.is_same(&next) => previous.clone(),
            _ => Arc::new(next),
        })
    }

    fn is_same(&self, other: &Self) -> bool {
        self.inputs == other.inputs
            && self.missing() == other.missing()
            && self.certificate.as_ref().map(|pair| &pair.source)
                == other.certificate.as_ref().map(|pair| &pair.source)
    }

    /// Begins a connection to a host at `address`.
    ///
    /// *Errors*: a secret is missing; the server name is not one. As text, for `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub fn connection(&self, address: IpAddr, options: &TlsOptions<'_>) -> Result<ClientConnection, String> {
        let (config, sni) = match &self.state {
            State::Ready { config, sni } => (config, sni),
            State::Waiting(names) => return Err(format!("secret `{}` has not arrived", names.join("`, `"))),
        };
        let name = match (options.server_name, sni) {
            (Some(name), _) => ServerName::try_from(name.to_owned())
                .map_err(|_| format!("`{name}` cannot be a server name"))?,
            (None, Some(sni)) => sni.clone(),
            // An address is never sent as SNI (RFC 6066 section 3); it only keys the session.
            (None, None) => ServerName::IpAddress(address.into()),
        };
        let made = match options.alpn {
            Some(alpn) => ClientConnection::new_with_alpn(
                config.clone(),
                name,
                alpn.iter().map(|name| name.to_vec()).collect(),
            ),
            None => ClientConnection::new(config.clone(), name),
        };
        made.map_err(|error| error.to_string())
    }

    /// The TLS configuration and server name, for connections that are not the data path's (health checks).
    ///
    /// *Errors*: as of [`Self::connection`].
    pub fn client(&self, address: IpAddr) -> Result<(Arc<ClientConfig>, ServerName<'static>), String> {
        match &self.state {
            State::Ready { config, sni } => {
                Ok((config.clone(), sni.clone().unwrap_or(ServerName::IpAddress(address.into()))))
            }
            State::Waiting(names) => Err(format!("secret `{}` has not arrived", names.join("`, `"))),
        }
    }

    /// The TLS configuration itself, for connections that other programs' code makes (such as a gRPC client). `None` while a
    /// secret is missing.
    pub fn config(&self) -> Option<Arc<ClientConfig>> {
        match &self.state {
            State::Ready { config, .. } => Some(config.clone()),
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

    /// Counts up with every change; connections of an older epoch are not used for new requests.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The configured server name.
    pub fn sni(&self) -> Option<Arc<str>> {
        Some(self.inputs.from.sni.as_str()).filter(|sni| !sni.is_empty()).map(Arc::from)
    }

    /// The configured ALPN.
    pub fn alpn(&self) -> &[String] {
        &self.inputs.from.alpn
    }

    /// Whether hosts' chains are verified.
    pub fn verifies_hosts(&self) -> bool {
        self.inputs.validation.as_ref().is_some_and(|v| v.trusted_ca_pem.is_some() || v.system_roots)
    }

    /// The leaf certificate shown to hosts.
    pub fn certificate(&self) -> Option<&CertificateFacts> {
        self.certificate.as_ref().map(|pair| &pair.facts)
    }
}

fn settle<T>(
    found: Result<Found<T>, ConfigError>,
    missing: &mut Vec<String>,
    errors: &mut Vec<ConfigError>,
) -> Option<Arc<T>> {
    match found {
        Ok(Found::Ready(found)) => return Some(found),
        Ok(Found::Missing(name)) => missing.push(name),
        Err(error) => errors.push(error),
    }
    None
}

fn configure(
    inputs: &Inputs,
    certificate: Option<&KeyPair>,
    trust: Option<Arc<Trust>>,
) -> Result<ClientConfig, String> {
    let from = &inputs.from;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions(&from.params)?)
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier::new(trust, inputs.check_name)));
    let mut config = match certificate {
        Some(pair) => {
            let resolver: Arc<SingleCertAndKey> = Arc::new(pair.key.clone().into());
            builder.with_client_cert_resolver(resolver)
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = from.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.resumption = match from.max_session_keys {
        0 => Resumption::disabled(),
        n => Resumption::in_memory_sessions(n as usize),
    };
    Ok(config)
}
