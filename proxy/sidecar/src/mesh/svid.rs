//! The workload's own certificate: kept on disk, turned into secrets and TLS settings.

use super::{SECRET_OWN, SECRET_ROOTS};
use anyhow::Context;
use outrigger_traffic::config::{Secret, SecretValue, TlsCertificate, ValidationContext};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A certificate with its key and what it trusts.
#[derive(Clone)]
pub struct Svid {
    /// Chain, leaf first, PEM.
    pub chain_pem: String,
    /// Private key, PEM.
    pub key_pem: String,
    /// Trust roots, PEM.
    pub roots_pem: String,
    /// When it was signed, by our clock. Certificates are dated back for clocks that go slow, so their own beginning says
    /// nothing about when half of their life is over.
    pub received: SystemTime,
}

impl Svid {
    /// What an earlier run left, if it is complete and not expired.
    pub fn load(folder: &Path) -> Option<Self> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let received = fs::metadata(folder.join("svid.pem")).and_then(|m| m.modified()).ok()?;
        let svid = Self {
            chain_pem: read("svid.pem")?,
            key_pem: read("svid.key")?,
            roots_pem: read("roots.pem")?,
            received,
        };
        (svid.end().ok()? > SystemTime::now() && svid.client_config("").is_ok()).then_some(svid)
    }

    /// Keeps it for the next run; the key is readable by the owner alone. Each file is renamed into place, the key
    /// first: a chain never lies beside an older key than its own for longer than a rename.
    pub fn save(&self, folder: &Path) -> anyhow::Result<()> {
        for (name, text, mode) in [
            ("svid.key", &self.key_pem, 0o600),
            ("svid.pem", &self.chain_pem, 0o644),
            ("roots.pem", &self.roots_pem, 0o644),
        ] {
            let part = folder.join(format!("{name}.part"));
            let mut file =
                fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&part)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&part, folder.join(name)).with_context(|| name.to_owned())?;
        }
        Ok(())
    }

    /// When to renew: half of the time between its signing and its end has passed.
    ///
    /// # Errors
    /// When the certificate cannot be read.
    pub fn half_life(&self) -> anyhow::Result<SystemTime> {
        let life = self.end()?.duration_since(self.received).unwrap_or_default();
        Ok(self.received + life / 2)
    }

    /// End of the leaf's life.
    ///
    /// # Errors
    /// When the certificate cannot be read.
    pub fn end(&self) -> anyhow::Result<SystemTime> {
        let der =
            CertificateDer::from_pem_slice(self.chain_pem.as_bytes()).context("certificate is not PEM")?;
        let (_, leaf) = x509_parser::parse_x509_certificate(&der).context("certificate is not X.509")?;
        let seconds = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    /// The two secrets that the mesh's resources name.
    pub fn secrets(&self) -> Vec<Secret> {
        let own = TlsCertificate { chain_pem: self.chain_pem.clone(), key_pem: self.key_pem.clone() };
        let roots = ValidationContext {
            trusted_ca_pem: Some(self.roots_pem.clone()),
            ..ValidationContext::default()
        };
        vec![
            Secret { name: SECRET_OWN.into(), value: SecretValue::Certificate(own) },
            Secret { name: SECRET_ROOTS.into(), value: SecretValue::Validation(roots) },
        ]
    }

    /// TLS towards the control service with this certificate. `first_roots` are those of the first contact: a proxy that slept
    /// through a whole rotation knows none of the authorities that sign now.
    pub fn client_config(&self, first_roots: &str) -> anyhow::Result<Arc<ClientConfig>> {
        let chain =
            CertificateDer::pem_slice_iter(self.chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?;
        let builder = ClientConfig::builder()
            .with_root_certificates(roots(&format!("{}\n{first_roots}", self.roots_pem))?);
        Ok(http2(builder.with_client_auth_cert(chain, key)?))
    }
}

/// TLS towards the control service before there is a certificate.
pub fn anonymous_client_config(roots_pem: &str) -> anyhow::Result<Arc<ClientConfig>> {
    Ok(http2(ClientConfig::builder().with_root_certificates(roots(roots_pem)?).with_no_client_auth()))
}

fn http2(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

fn roots(pem: &str) -> anyhow::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        store.add(certificate.context("trust bundle is not PEM")?)?;
    }
    anyhow::ensure!(!store.is_empty(), "trust bundle holds no certificate");
    Ok(store)
}
