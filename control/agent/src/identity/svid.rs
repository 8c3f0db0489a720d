//! Certificates and keys on disk.
//!
//! The agent holds one certificate for each identity its tasks may have, and with it asks for one of its own for each sidecar:
//! every key is made on this host and stays there.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, chown};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

/// File that holds certificate, key and trust bundle together. Its name and shape are those the proxy reads and writes: the
/// agent leaves it in a sidecar's state folder, from then on the sidecar renews it there.
const FILE: &str = "identity.json";

/// A certificate with its key and what it trusts.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Svid {
    /// Chain, leaf first, PEM.
    pub chain_pem: String,
    /// Private key, PEM.
    pub key_pem: String,
    /// Whom it trusts.
    pub bundle: Bundle,
    /// When it was signed, by our clock.
    pub received: SystemTime,
}

/// The authorities of the mesh.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// Certificates, PEM.
    pub pem: String,
    /// Grows with every change.
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

    /// Keeps it, readable by `owner` alone.
    ///
    /// *Errors*: the file system's.
    pub fn save(&self, folder: &Path, owner: u32) -> anyhow::Result<()> {
        write(folder, FILE, &serde_json::to_string(self)?, owner)
    }

    /// When to renew: half of the time between its signing and its end has passed.
    pub fn half_life(&self) -> SystemTime {
        let life = self.end().unwrap_or(self.received).duration_since(self.received).unwrap_or_default();
        self.received + life / 2
    }

    /// End of the leaf's life.
    ///
    /// *Errors*: the certificate cannot be read.
    pub fn end(&self) -> anyhow::Result<SystemTime> {
        let der =
            CertificateDer::from_pem_slice(self.chain_pem.as_bytes()).context("certificate is not PEM")?;
        let (_, leaf) = x509_parser::parse_x509_certificate(&der).context("certificate is not X.509")?;
        let seconds = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    /// TLS towards the control service with this certificate; `first_roots` are those of the configuration, later
    /// ones are in the bundle.
    ///
    /// *Errors*: certificate, key or roots cannot be used.
    pub fn client_config(&self, first_roots: &str) -> anyhow::Result<Arc<ClientConfig>> {
        let chain =
            CertificateDer::pem_slice_iter(self.chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?;
        // Peers of whoever gets this are judged by the bundle alone: it must hold something whatever the other roots are.
        roots(&self.bundle.pem)?;
        let roots = roots(&format!("{}\n{}\n{first_roots}", self.bundle.pem, self.bundle.roots_pem))?;
        Ok(http2(ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?))
    }
}

/// TLS towards the control service before there is a certificate.
///
/// *Errors*: the roots cannot be used.
pub fn anonymous(roots_pem: &str) -> anyhow::Result<Arc<ClientConfig>> {
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
    ensure!(!store.is_empty(), "trust bundle holds no certificate");
    Ok(store)
}

/// Makes a folder that only `owner` may enter, and what leads there.
///
/// *Errors*: the file system's.
pub fn private_folder(folder: &Path, owner: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    own(folder, owner)
}

/// Writes a file that only `owner` may read, whole or not at all.
///
/// *Errors*: the file system's.
pub fn write(folder: &Path, name: &str, text: &str, owner: u32) -> anyhow::Result<()> {
    let part = folder.join(format!("{name}.part"));
    // What an earlier run left may be readable by others.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    own(&part, owner)?;
    fs::rename(&part, folder.join(name)).with_context(|| name.to_owned())?;
    // Without this the rename itself may be lost.
    Ok(fs::File::open(folder)?.sync_all()?)
}

/// Only root may give files away; whoever runs the agent as another user keeps them.
fn own(path: &Path, owner: u32) -> anyhow::Result<()> {
    if owner != rustix::process::geteuid().as_raw() {
        chown(path, Some(owner), Some(owner)).with_context(|| format!("owner of {}", path.display()))?;
    }
    Ok(())
}
