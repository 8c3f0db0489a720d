//! The certificate authority of the mesh.
//!
//! On disk, in one directory: `root.crt`/`root.key`, `signing-N.crt`/`signing-N.key` for each signing
//! CA, and `rotation.json`. Keys are ECDSA P-256 and have mode 0600. What a rotation needs is on disk
//! before anybody is told of it, so a crash at any point leaves a state from which it goes on.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Serialize;
use tokio::sync::watch;

use super::csr::ProvenKey;
use super::keys::{self, PUBLIC_MODE, SECRET_MODE};
use super::rotation::{RotateError, Rotation, Stage, UnixMs};
use super::spiffe::Identity;
use crate::random;

/// Life of the root certificate.
pub const ROOT_LIFE: Duration = Duration::from_secs(3_650 * 86_400);

/// Life of a signing CA. A rotation begins by itself when a third of it is left.
pub const SIGNING_LIFE: Duration = Duration::from_secs(365 * 86_400);

/// What an operator chooses.
#[derive(Clone, Debug)]
pub struct AuthoritySettings {
    /// The SPIFFE trust domain. Default `cluster.local`.
    pub trust_domain: String,
    /// Life of a workload certificate. Default 24 h.
    pub svid_ttl: Duration,
    /// How far the clocks of the mesh may be apart: certificates begin this much in the past, and an
    /// old signing CA stays trusted this much longer than needed. Default 60 s.
    pub clock_skew: Duration,
}

impl Default for AuthoritySettings {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".to_owned(),
            svid_ttl: Duration::from_secs(86_400),
            clock_skew: Duration::from_secs(60),
        }
    }
}

/// Why the authority could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read or written.
    #[error("certificate authority file {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A file has content we cannot use.
    #[error("certificate authority file {path}: {reason}")]
    Corrupt {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("making a certificate")]
    Generate(#[from] rcgen::Error),
    /// No randomness for a serial number.
    #[error(transparent)]
    Random(#[from] random::NoRandomness),
    /// A rotation cannot begin now.
    #[error(transparent)]
    Rotate(#[from] RotateError),
    /// A name does not belong to the trust domain of this authority.
    #[error("{identity} is not in the trust domain {trust_domain}")]
    ForeignIdentity {
        /// The name asked for.
        identity: Identity,
        /// Ours.
        trust_domain: String,
    },
}

/// What members of the mesh accept their peers' certificates from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustBundle {
    /// Grows with every change.
    pub version: u64,
    /// Certificates, PEM, one after another.
    pub pem: String,
    /// The same as DER.
    pub der: Vec<CertificateDer<'static>>,
}

/// A signed workload certificate; its key is with whoever asked for it.
#[derive(Clone, Debug)]
pub struct Svid {
    /// Whose it is.
    pub identity: Identity,
    /// Leaf first, PEM.
    pub chain_pem: String,
    /// Leaf first, DER.
    pub chain_der: Vec<CertificateDer<'static>>,
    /// When it ends.
    pub expires_at: UnixMs,
}

/// A workload certificate made here, together with its key.
pub struct KeyedSvid {
    /// The certificate.
    pub svid: Svid,
    /// Its private key, PKCS#8 PEM.
    pub key_pem: String,
    /// The same as DER.
    pub key_der: PrivateKeyDer<'static>,
}

/// Further names a certificate of ours carries beside the identity.
#[derive(Clone, Default, Debug)]
pub struct ServerNames {
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub ip: Vec<IpAddr>,
}

/// One line of `outrigger ca show`.
#[derive(Clone, Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    /// Counts up.
    pub id: u32,
    /// What it is doing, and until when.
    #[serde(flatten)]
    pub stage: Stage,
    /// End of its own certificate's life.
    pub expires_at: UnixMs,
}

struct SigningCa {
    certificate_pem: String,
    certificate_der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    not_after: UnixMs,
}

struct State {
    rotation: Rotation,
    cas: BTreeMap<u32, SigningCa>,
}

/// The authority: signs, rotates, publishes. Cheap to share behind an `Arc`; its lock is held for the
/// time of one signature and, seldom, of writing one small file.
pub struct Authority {
    dir: PathBuf,
    settings: AuthoritySettings,
    root_pem: String,
    root: Issuer<'static, KeyPair>,
    root_not_after: UnixMs,
    state: Mutex<State>,
    bundle: watch::Sender<Arc<TrustBundle>>,
}

impl Authority {
    /// Opens the authority kept in `dir`, making it on first start.
    ///
    /// *Errors*: [`AuthorityError`] when a file is missing from an existing authority, cannot be used,
    /// or is a key that others can read.
    pub fn open(dir: &Path, settings: AuthoritySettings, now: UnixMs) -> Result<Self, AuthorityError> {
        keys::create_private_dir(dir).map_err(|source| file_error(dir, source))?;
        let (root_crt, root_key) = (dir.join("root.crt"), dir.join("root.key"));
        if read(&root_key)?.is_none() {
            create_root(&root_crt, &root_key, &settings, now)?;
        }
        let root = load_ca(&root_crt, &root_key)?;
        let state_path = dir.join("rotation.json");
        let rotation = match read(&state_path)? {
            Some(text) => serde_json::from_str::<Rotation>(&text)
                .map_err(|error| corrupt(&state_path, error.to_string()))?,
            None => {
                let rotation = Rotation::first();
                create_signing(dir, 1, &root, &settings, now)?;
                save(&state_path, &rotation)?;
                rotation
            }
        };
        if rotation.signing().is_none() {
            return Err(corrupt(&state_path, "no signing CA is marked as signing".to_owned()));
        }
        let mut cas = BTreeMap::new();
        for member in &rotation.members {
            let (crt, key) = signing_paths(dir, member.id);
            cas.insert(member.id, load_ca(&crt, &key)?);
        }
        let state = State { rotation, cas };
        let bundle = watch::Sender::new(Arc::new(state.bundle()));
        Ok(Self {
            dir: dir.to_owned(),
            settings,
            root_pem: root.certificate_pem,
            root_not_after: root.not_after,
            root: root.issuer,
            state: Mutex::new(state),
            bundle,
        })
    }

    /// What was chosen.
    pub fn settings(&self) -> &AuthoritySettings {
        &self.settings
    }

    /// The root certificate, PEM: what a host needs to authenticate this service before it is a member.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The trust bundle and its changes.
    pub fn trust_bundle(&self) -> watch::Receiver<Arc<TrustBundle>> {
        self.bundle.subscribe()
    }

    /// Signs a certificate for a key its holder has proven to have.
    ///
    /// *Errors*: [`AuthorityError::ForeignIdentity`] for a name of another trust domain; those of
    /// making and saving.
    pub fn sign(&self, identity: &Identity, key: &ProvenKey, now: UnixMs) -> Result<Svid, AuthorityError> {
        self.sign_key(identity, key.public_key(), &ServerNames::default(), now)
    }

    /// Makes a key and a certificate for it.
    ///
    /// *Errors*: as [`Authority::sign`].
    pub fn issue(
        &self,
        identity: &Identity,
        names: &ServerNames,
        now: UnixMs,
    ) -> Result<KeyedSvid, AuthorityError> {
        let key = KeyPair::generate()?;
        let svid = self.sign_key(identity, &key, names, now)?;
        let key_der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(KeyedSvid { svid, key_pem: key.serialize_pem(), key_der })
    }

    /// Begins the exchange of the signing CA: a new one is trusted now and signs after `propagation`,
    /// the time in which every member is sure to have learnt of it.
    ///
    /// *Errors*: [`RotateError::UnderWay`]; those of making and saving, after which nothing has changed.
    pub fn rotate(&self, propagation: Duration, now: UnixMs) -> Result<(), AuthorityError> {
        let mut state = self.lock();
        let mut rotation = state.rotation.clone();
        let id = rotation.publish(now.saturating_add(millis(propagation)))?;
        let root = &self.root;
        let ca = create_signing_from(&self.dir, id, root, self.root_not_after, &self.settings, now)?;
        save(&self.dir.join("rotation.json"), &rotation)?;
        state.rotation = rotation;
        state.cas.insert(id, ca);
        self.publish(&state);
        Ok(())
    }

    /// Does what is due: lets a new signing CA take over, forgets an old one, begins a rotation when the
    /// signing CA nears its end. Returns when to call again.
    ///
    /// *Errors*: those of making and saving; it is tried again at the next call.
    pub fn advance(&self, now: UnixMs) -> Result<Option<UnixMs>, AuthorityError> {
        {
            let mut state = self.lock();
            let mut rotation = state.rotation.clone();
            if rotation.advance(now, millis(self.settings.clock_skew)) {
                save(&self.dir.join("rotation.json"), &rotation)?;
                let gone: Vec<u32> = state
                    .cas
                    .keys()
                    .filter(|id| rotation.members.iter().all(|m| m.id != **id))
                    .copied()
                    .collect();
                state.rotation = rotation;
                for id in gone {
                    state.cas.remove(&id);
                    let (crt, key) = signing_paths(&self.dir, id);
                    for path in [key, crt] {
                        if let Err(error) = std::fs::remove_file(&path) {
                            tracing::warn!(path = %path.display(), %error, "retired signing ca not removed");
                        }
                    }
                }
                self.publish(&state);
            }
        }
        let (waiting, ends) = {
            let state = self.lock();
            let waiting = state.rotation.members.iter().any(|m| matches!(m.stage, Stage::Published { .. }));
            let signing = state.rotation.signing().and_then(|member| state.cas.get(&member.id));
            (waiting, signing.map_or(now, |ca| ca.not_after))
        };
        let renew_at = ends.saturating_sub(millis(SIGNING_LIFE) / 3);
        if !waiting && renew_at <= now && self.root_not_after > ends {
            tracing::info!("signing ca nears its end, rotation begins");
            self.rotate(self.settings.svid_ttl, now)?;
        }
        Ok(self.lock().rotation.next_due())
    }

    /// Every signing CA the mesh trusts, oldest first.
    pub fn status(&self) -> Vec<AuthorityStatus> {
        let state = self.lock();
        let line = |member: &super::rotation::Member| AuthorityStatus {
            id: member.id,
            stage: member.stage,
            expires_at: state.cas.get(&member.id).map_or(0, |ca| ca.not_after),
        };
        state.rotation.members.iter().map(line).collect()
    }

    fn sign_key(
        &self,
        identity: &Identity,
        key: &impl PublicKeyData,
        names: &ServerNames,
        now: UnixMs,
    ) -> Result<Svid, AuthorityError> {
        if identity.trust_domain() != self.settings.trust_domain {
            return Err(AuthorityError::ForeignIdentity {
                identity: identity.clone(),
                trust_domain: self.settings.trust_domain.clone(),
            });
        }
        let mut state = self.lock();
        let ttl = millis(self.settings.svid_ttl);
        let mut rotation = state.rotation.clone();
        if rotation.note_issued(ttl) {
            save(&self.dir.join("rotation.json"), &rotation)?;
            state.rotation = rotation;
        }
        let path = || self.dir.join("rotation.json");
        let ca = state
            .rotation
            .signing()
            .and_then(|member| state.cas.get(&member.id))
            .ok_or_else(|| corrupt(&path(), "no signing CA".to_owned()))?;
        let expires_at = now.saturating_add(ttl).min(ca.not_after);
        let mut params = CertificateParams::default();
        // Renewal comes at half of the life the certificate shows. If most of that lay in the past, it would
        // be renewed without end.
        let skew = millis(self.settings.clock_skew).min(ttl / 4);
        params.not_before = date_time_ymd(1970, 1, 1) + seconds(now.saturating_sub(skew));
        params.not_after = date_time_ymd(1970, 1, 1) + seconds(expires_at);
        params.serial_number = Some(serial()?);
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names.push(SanType::URI(identity.to_string().try_into()?));
        for name in &names.dns {
            params.subject_alt_names.push(SanType::DnsName(name.clone().try_into()?));
        }
        params.subject_alt_names.extend(names.ip.iter().copied().map(SanType::IpAddress));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(key, &ca.issuer)?;
        Ok(Svid {
            identity: identity.clone(),
            chain_pem: format!("{}{}", leaf.pem(), ca.certificate_pem),
            chain_der: vec![leaf.der().clone(), ca.certificate_der.clone()],
            expires_at,
        })
    }

    fn publish(&self, state: &State) {
        self.bundle.send_if_modified(|held| {
            let new = state.bundle();
            let changed = new.version != held.version;
            if changed {
                tracing::info!(version = new.version, "trust bundle changed");
                *held = Arc::new(new);
            }
            changed
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing between taking the lock and the last assignment can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn bundle(&self) -> TrustBundle {
        TrustBundle {
            version: self.rotation.bundle_version,
            pem: self.cas.values().map(|ca| ca.certificate_pem.as_str()).collect(),
            der: self.cas.values().map(|ca| ca.certificate_der.clone()).collect(),
        }
    }
}

fn create_root(
    crt: &Path,
    key_path: &Path,
    settings: &AuthoritySettings,
    now: UnixMs,
) -> Result<(), AuthorityError> {
    let key = KeyPair::generate()?;
    let name = format!("Outrigger root {}", settings.trust_domain);
    let not_after = now.saturating_add(millis(ROOT_LIFE));
    let params = ca_params(&name, BasicConstraints::Constrained(1), settings, now, not_after)?;
    let certificate = params.self_signed(&key)?;
    write(crt, certificate.pem().as_bytes(), PUBLIC_MODE)?;
    // The key last: it is what says that the root exists.
    write(key_path, key.serialize_pem().as_bytes(), SECRET_MODE)
}

fn create_signing(
    dir: &Path,
    id: u32,
    root: &SigningCa,
    settings: &AuthoritySettings,
    now: UnixMs,
) -> Result<SigningCa, AuthorityError> {
    create_signing_from(dir, id, &root.issuer, root.not_after, settings, now)
}

fn create_signing_from(
    dir: &Path,
    id: u32,
    root: &Issuer<'static, KeyPair>,
    root_not_after: UnixMs,
    settings: &AuthoritySettings,
    now: UnixMs,
) -> Result<SigningCa, AuthorityError> {
    let key = KeyPair::generate()?;
    let name = format!("Outrigger signing {id} {}", settings.trust_domain);
    let not_after = now.saturating_add(millis(SIGNING_LIFE)).min(root_not_after);
    let params = ca_params(&name, BasicConstraints::Constrained(0), settings, now, not_after)?;
    let certificate = params.signed_by(&key, root)?;
    let (crt_path, key_path) = signing_paths(dir, id);
    write(&key_path, key.serialize_pem().as_bytes(), SECRET_MODE)?;
    write(&crt_path, certificate.pem().as_bytes(), PUBLIC_MODE)?;
    load_ca(&crt_path, &key_path)
}

fn ca_params(
    name: &str,
    constraint: BasicConstraints,
    settings: &AuthoritySettings,
    now: UnixMs,
    not_after: UnixMs,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Outrigger");
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{}", settings.trust_domain).try_into()?)];
    params.is_ca = IsCa::Ca(constraint);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(1970, 1, 1) + seconds(now.saturating_sub(millis(settings.clock_skew)));
    params.not_after = date_time_ymd(1970, 1, 1) + seconds(not_after);
    params.serial_number = Some(serial()?);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn load_ca(crt: &Path, key_path: &Path) -> Result<SigningCa, AuthorityError> {
    let missing = |path: &Path| corrupt(path, "missing".to_owned());
    keys::check_private(key_path).map_err(|source| file_error(key_path, source))?;
    let certificate_pem = read(crt)?.ok_or_else(|| missing(crt))?;
    let key_pem = read(key_path)?.ok_or_else(|| missing(key_path))?;
    let key = KeyPair::from_pem(&key_pem).map_err(|error| corrupt(key_path, error.to_string()))?;
    let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
        .map_err(|error| corrupt(crt, error.to_string()))?;
    let (not_after, same_key) = {
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|error| corrupt(crt, error.to_string()))?;
        let raw = &parsed.public_key().subject_public_key.data;
        (parsed.validity().not_after.timestamp().saturating_mul(1_000), raw.as_ref() == key.public_key_raw())
    };
    if !same_key {
        return Err(corrupt(crt, format!("does not belong to the key {}", key_path.display())));
    }
    let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| corrupt(crt, error.to_string()))?;
    Ok(SigningCa { certificate_pem, certificate_der: der.into_owned(), issuer, not_after })
}

fn signing_paths(dir: &Path, id: u32) -> (PathBuf, PathBuf) {
    (dir.join(format!("signing-{id}.crt")), dir.join(format!("signing-{id}.key")))
}

/// Random and positive (RFC 5280 section 4.1.2.2): a key that is certified again gets another number.
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = random::bytes::<16>()?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

/// Time since 1970 in whole seconds. Certificates know whole seconds only.
fn seconds(at: UnixMs) -> Duration {
    Duration::from_secs(u64::try_from(at / 1_000).unwrap_or(0))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn save(path: &Path, rotation: &Rotation) -> Result<(), AuthorityError> {
    let text = serde_json::to_string_pretty(rotation).map_err(|error| corrupt(path, error.to_string()))?;
    write(path, text.as_bytes(), PUBLIC_MODE)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), AuthorityError> {
    keys::write_atomic(path, content, mode).map_err(|source| file_error(path, source))
}

fn read(path: &Path) -> Result<Option<String>, AuthorityError> {
    keys::read_optional(path).map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: io::Error) -> AuthorityError {
    AuthorityError::File { path: path.to_owned(), source }
}

fn corrupt(path: &Path, reason: String) -> AuthorityError {
    AuthorityError::Corrupt { path: path.to_owned(), reason }
}

#[cfg(test)]
#[path = "ca_tests.rs"]
mod tests;
