//! A workload's certificate: kept on disk, and TLS towards the control service with it.
//!
//! An agent leaves one in a sidecar's state folder, from then on the sidecar renews it there. Keys are made on the host they
//! are used on and never leave it.

use crate::folder::{own_user, write_private};
use anyhow::Context;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// File that holds certificate, key and trust bundle together.
const FILE: &str = "identity.json";

/// A certificate with its key and what it trusts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Svid {
    /// Chain, leaf first, PEM.
    pub chain_pem: String,
    /// Private key, PEM.
    pub key_pem: String,
    /// Whom it trusts.
    pub bundle: Bundle,
    /// When it was signed, by our clock. Certificates are dated back for clocks that go slow, so their own beginning says
    /// nothing about when half of their life is over.
    pub received: SystemTime,
}

/// The authorities of the mesh.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// Certificates, PEM.
    pub pem: String,
    /// Grows with every change, unless the control service was restored from a backup.
    pub version: u64,
    /// The control service's roots, PEM: for calls to it, not for peers.
    #[serde(default)]
    pub roots_pem: String,
}

impl std::fmt::Debug for Svid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = f.debug_struct("Svid");
        text.field("chain_pem", &self.chain_pem).field("key_pem", &"[redacted]");
        text.field("bundle", &self.bundle).field("received", &self.received).finish()
    }
}

impl Svid {
    /// What an earlier run left, if it is complete and not expired.
    pub fn load(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join(FILE)).ok()?;
        let svid: Self = serde_json::from_str(&text)
            .inspect_err(|error| tracing::warn!(%error, "certificate on disk cannot be read"))
            .ok()?;
        (svid.end().ok()? > SystemTime::now() && svid.client_config("").is_ok()).then_some(svid)
    }

    /// Keeps it for the next run, readable by us alone. One file, so that certificate and key belong together.
    ///
    /// # Errors
    /// Those of the file system; the old file stays then.
    pub fn save(&self, folder: &Path) -> anyhow::Result<()> {
        self.save_for(folder, own_user())
    }

    /// As [`Svid::save`], readable by another user alone.
    ///
    /// # Errors
    /// Those of the file system, and that only root may give files away.
    pub fn save_for(&self, folder: &Path, owner: u32) -> anyhow::Result<()> {
        write_private(folder, FILE, &serde_json::to_vec(self)?, owner)
    }

    /// When to renew: half of the time between its signing and its end has passed. At once where it cannot be read.
    pub fn half_life(&self) -> SystemTime {
        let life = self.end().unwrap_or(self.received).duration_since(self.received).unwrap_or_default();
        self.received + life / 2
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

    /// Who the certificate says this is: the URI in it.
    pub fn principal(&self) -> Option<String> {
        let der = CertificateDer::from_pem_slice(self.chain_pem.as_bytes()).ok()?;
        let (_, leaf) = x509_parser::parse_x509_certificate(&der).ok()?;
        let names = leaf.subject_alternative_name().ok()??;
        names.value.general_names.iter().find_map(|name| match name {
            x509_parser::extensions::GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
    }

    /// TLS towards the control service with this certificate. `first_roots` are those of the first contact: a proxy that slept
    /// through a whole rotation knows none of the authorities that sign now. Roots that came later are in the bundle.
    ///
    /// # Errors
    /// When certificate, key or roots cannot be used.
    pub fn client_config(&self, first_roots: &str) -> anyhow::Result<Arc<ClientConfig>> {
        let chain =
            CertificateDer::pem_slice_iter(self.chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?;
        // Peers are judged by the bundle alone: it must hold something whatever the other roots are.
        roots(&self.bundle.pem)?;
        let all = format!("{}\n{}\n{first_roots}", self.bundle.pem, self.bundle.roots_pem);
        let builder = ClientConfig::builder().with_root_certificates(roots(&all)?);
        Ok(http2(builder.with_client_auth_cert(chain, key)?))
    }
}

/// TLS towards the control service before there is a certificate.
///
/// # Errors
/// When the roots cannot be used.
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

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use std::os::unix::fs::PermissionsExt;

    /// A certificate of somebody, PEM.
    fn certificate() -> String {
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(vec!["mesh.test".to_owned()]).unwrap().self_signed(&key).unwrap().pem()
    }

    /// A certificate with its key, and a trust bundle of this version.
    fn svid(version: u64) -> Svid {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["mesh.test".to_owned()]).unwrap();
        let bundle = Bundle { pem: certificate(), version, roots_pem: String::new() };
        // To the second, so that it is the same when it was read back from text of any precision.
        let received = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let chain_pem = params.self_signed(&key).unwrap().pem();
        Svid { chain_pem, key_pem: key.serialize_pem(), bundle, received }
    }

    #[test]
    fn principal_is_the_uri_of_the_certificate() {
        assert_eq!(svid(1).principal(), None);
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["mesh.test".to_owned()]).unwrap();
        let uri = "spiffe://mesh.test/ns/shop/sa/cart";
        params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().unwrap()));
        let chain_pem = params.self_signed(&key).unwrap().pem();
        assert_eq!(Svid { chain_pem, ..svid(1) }.principal().as_deref(), Some(uri));
    }

    #[test]
    fn certificate_key_and_bundle_are_kept_together_for_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Svid::load(folder.path()).is_none());
        let first = svid(1);
        first.save(folder.path()).unwrap();
        assert_eq!(Svid::load(folder.path()), Some(first.clone()));
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(files.len(), 1, "one file, so that none can be newer than another");
        assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let shown = format!("{first:?}");
        assert!(!shown.contains("PRIVATE KEY") && shown.contains("redacted"), "{shown}");
    }

    #[test]
    fn crash_while_saving_leaves_the_old_one_and_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (svid(1), svid(2));
        old.save(folder.path()).unwrap();
        let part = folder.path().join("identity.json.part");
        fs::write(&part, &serde_json::to_vec(&new).unwrap()[..100]).unwrap();
        assert_eq!(Svid::load(folder.path()), Some(old));
        new.save(folder.path()).unwrap();
        assert_eq!(Svid::load(folder.path()), Some(new));
        assert!(!part.exists());
    }

    #[test]
    fn key_of_another_certificate_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        Svid { key_pem: svid(1).key_pem, ..svid(1) }.save(folder.path()).unwrap();
        assert!(Svid::load(folder.path()).is_none());
    }
}
