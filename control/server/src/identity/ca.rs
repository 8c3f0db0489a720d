//! The certificate authority of the mesh.
//!
//! On disk, in one directory: `root-N.crt`/`root-N.key` for each root, `root.crt` with all of them,
//! `signing-N.crt`/`signing-N.key` for each signing CA (and `signing-N-by-R.crt`, its certificate by another
//! root while that one is still known), and `rotation.json`. Keys are ECDSA P-256 and have mode 0600. What a
//! rotation needs is on disk before anybody is told of it, so a crash at any point leaves a state from which it
//! goes on.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Serialize;
use tokio::sync::watch;

use super::ca_files::{
    CaFile, Cross, adopt_only_root, corrupt, create_root, create_signing, cross_path, file_error, load_ca,
    load_cross, millis, read, root_paths, save, seconds, serial, signing_paths, write_roots,
};
use super::csr::ProvenKey;
use super::host::HostMark;
use super::keys;
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
    /// The roots, PEM, the newest first: by them this service is known to hosts that hold no other authority any more.
    /// Members do not accept each other by them.
    pub roots_pem: String,
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

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its name.
    pub identity: &'a Identity,
    /// Where it was enrolled.
    pub host: Option<&'a HostMark>,
    /// Further names.
    pub names: &'a ServerNames,
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

/// One root for operators.
#[derive(Clone, Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct RootStatus {
    /// Counts up.
    pub id: u32,
    /// When it is known no more; `None` for the one that certifies.
    pub retires_at: Option<UnixMs>,
    /// End of its own certificate's life.
    pub expires_at: UnixMs,
}

struct SigningCa {
    ca: CaFile,
    /// Its certificates by roots other than the one in its own file.
    cross: BTreeMap<u32, Cross>,
}

struct State {
    rotation: Rotation,
    roots: BTreeMap<u32, CaFile>,
    cas: BTreeMap<u32, SigningCa>,
}

/// The authority: signs, rotates, publishes. Cheap to share behind an `Arc`; its lock is held for the
/// time of one signature and, seldom, of writing one small file.
pub struct Authority {
    dir: PathBuf,
    settings: AuthoritySettings,
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
        adopt_only_root(dir)?;
        let state_path = dir.join("rotation.json");
        let rotation = match read(&state_path)? {
            Some(text) => serde_json::from_str::<Rotation>(&text)
                .map_err(|error| corrupt(&state_path, error.to_string()))?,
            None => {
                let rotation = Rotation::first();
                let (crt, key) = root_paths(dir, 1);
                let root = match read(&key)? {
                    Some(_) => load_ca(&crt, &key)?,
                    None => create_root(dir, 1, &settings, now)?,
                };
                create_signing(dir, 1, &root, &[], &settings, now)?;
                save(&state_path, &rotation)?;
                rotation
            }
        };
        if rotation.signing().is_none() || rotation.root().is_none() {
            return Err(corrupt(&state_path, "no CA is marked as signing".to_owned()));
        }
        let state = State::load(dir, rotation)?;
        // It follows from what was loaded; a crash may have left an older one.
        write_roots(dir, &state.roots_pem())?;
        let bundle = watch::Sender::new(Arc::new(state.bundle()));
        Ok(Self { dir: dir.to_owned(), settings, state: Mutex::new(state), bundle })
    }

    /// What was chosen.
    pub fn settings(&self) -> &AuthoritySettings {
        &self.settings
    }

    /// The root certificate, PEM: what a host needs to authenticate this service before it is a member.
    pub fn root_pem(&self) -> String {
        self.lock().roots_pem()
    }

    /// The trust bundle and its changes.
    pub fn trust_bundle(&self) -> watch::Receiver<Arc<TrustBundle>> {
        self.bundle.subscribe()
    }

    /// Signs a certificate for a key its holder has proven to have.
    ///
    /// *Errors*: [`AuthorityError::ForeignIdentity`] for a name of another trust domain; those of
    /// making and saving.
    pub fn sign(
        &self,
        identity: &Identity,
        host: Option<&HostMark>,
        key: &ProvenKey,
        now: UnixMs,
    ) -> Result<Svid, AuthorityError> {
        let subject = Subject { identity, host, names: &ServerNames::default() };
        self.sign_key(subject, key.public_key(), now)
    }

    /// Makes a key and a certificate for it.
    ///
    /// *Errors*: as [`Authority::sign`].
    pub fn issue(&self, subject: Subject<'_>, now: UnixMs) -> Result<KeyedSvid, AuthorityError> {
        let key = KeyPair::generate()?;
        let svid = self.sign_key(subject, &key, now)?;
        let key_der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(KeyedSvid { svid, key_pem: key.serialize_pem(), key_der })
    }

    /// Begins to exchange the signing CA: the new one is trusted at once and signs after `propagation`.
    ///
    /// *Errors*: [`AuthorityError::Rotate`] while one is waiting to sign; files.
    pub fn rotate(&self, propagation: Duration, now: UnixMs) -> Result<(), AuthorityError> {
        let mut state = self.lock();
        let rotation = state.rotation.clone();
        self.publish_signing(&mut state, rotation, propagation, now)
    }

    /// Begins to exchange the root, and with it the signing CA. Members and `root.crt` have the new root beside the
    /// old one at once; the new signing CA, certified by both, signs after `propagation`; the old root is known for
    /// `overlap` longer, so that hosts that were given only that one can still join meanwhile.
    ///
    /// *Errors*: [`AuthorityError::Rotate`] while a rotation of either is under way; files.
    pub fn rotate_root(
        &self,
        propagation: Duration,
        overlap: Duration,
        now: UnixMs,
    ) -> Result<(), AuthorityError> {
        let mut state = self.lock();
        let mut rotation = state.rotation.clone();
        let ends = now.saturating_add(millis(propagation)).saturating_add(millis(overlap));
        let id = rotation.publish_root(ends)?;
        // Asked before anything is made.
        rotation.clone().publish(now)?;
        let root = create_root(&self.dir, id, &self.settings, now)?;
        state.roots.insert(id, root);
        let begun = self.publish_signing(&mut state, rotation, propagation, now);
        if begun.is_err() {
            state.roots.remove(&id);
        } else {
            write_roots(&self.dir, &state.roots_pem())?;
        }
        begun
    }

    /// Makes the next signing CA, certified by the roots of `rotation`, and puts that into force.
    fn publish_signing(
        &self,
        state: &mut State,
        mut rotation: Rotation,
        propagation: Duration,
        now: UnixMs,
    ) -> Result<(), AuthorityError> {
        let id = rotation.publish(now.saturating_add(millis(propagation)))?;
        let missing = || corrupt(&self.dir.join("rotation.json"), "no root certifies".to_owned());
        let current = rotation.root().map(|root| root.id).ok_or_else(missing)?;
        let root = state.roots.get(&current).ok_or_else(missing)?;
        let others: Vec<(u32, &CaFile)> = rotation
            .roots
            .iter()
            .filter(|root| root.id != current)
            .filter_map(|root| state.roots.get(&root.id).map(|file| (root.id, file)))
            .collect();
        let ca = create_signing(&self.dir, id, root, &others, &self.settings, now)?;
        let cross = cross_of(&self.dir, id, &rotation)?;
        save(&self.dir.join("rotation.json"), &rotation)?;
        state.rotation = rotation;
        state.cas.insert(id, SigningCa { ca, cross });
        self.publish(state);
        Ok(())
    }

    /// Does what is due, and begins a rotation when the signing CA nears its end. Returns when to come again.
    ///
    /// *Errors*: files; it can be tried again.
    pub fn advance(&self, now: UnixMs) -> Result<Option<UnixMs>, AuthorityError> {
        {
            let mut state = self.lock();
            let mut rotation = state.rotation.clone();
            if rotation.advance(now, millis(self.settings.clock_skew)) {
                save(&self.dir.join("rotation.json"), &rotation)?;
                state.rotation = rotation;
                let gone = state.forget_gone(&self.dir);
                write_roots(&self.dir, &state.roots_pem())?;
                for path in gone {
                    if let Err(error) = std::fs::remove_file(&path)
                        && error.kind() != io::ErrorKind::NotFound
                    {
                        tracing::warn!(path = %path.display(), %error, "file of a retired ca not removed");
                    }
                }
                self.publish(&state);
            }
        }
        let (waiting, ends, root_ends) = {
            let state = self.lock();
            let waiting = state.rotation.members.iter().any(|m| matches!(m.stage, Stage::Published { .. }));
            let signing = state.rotation.signing().and_then(|member| state.cas.get(&member.id));
            let root = state.rotation.root().and_then(|root| state.roots.get(&root.id));
            (waiting, signing.map_or(now, |held| held.ca.not_after), root.map_or(now, |root| root.not_after))
        };
        let renew_at = ends.saturating_sub(millis(SIGNING_LIFE) / 3);
        if !waiting && renew_at <= now && root_ends > ends {
            tracing::info!("signing ca nears its end, rotation begins");
            self.rotate(self.settings.svid_ttl, now)?;
        }
        Ok(self.lock().rotation.next_due())
    }

    /// The roots, oldest first.
    pub fn roots(&self) -> Vec<RootStatus> {
        let state = self.lock();
        let line = |root: &super::rotation::Root| RootStatus {
            id: root.id,
            retires_at: root.retires_at,
            expires_at: state.roots.get(&root.id).map_or(0, |file| file.not_after),
        };
        state.rotation.roots.iter().map(line).collect()
    }

    /// Every signing CA the mesh trusts, oldest first.
    pub fn status(&self) -> Vec<AuthorityStatus> {
        let state = self.lock();
        let line = |member: &super::rotation::Member| AuthorityStatus {
            id: member.id,
            stage: member.stage,
            expires_at: state.cas.get(&member.id).map_or(0, |held| held.ca.not_after),
        };
        state.rotation.members.iter().map(line).collect()
    }

    fn sign_key(
        &self,
        subject: Subject<'_>,
        key: &impl PublicKeyData,
        now: UnixMs,
    ) -> Result<Svid, AuthorityError> {
        let Subject { identity, host, names } = subject;
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
        let SigningCa { ca, cross } = ca;
        let expires_at = now.saturating_add(ttl).min(ca.not_after);
        let mut params = CertificateParams::default();
        // Renewal comes at half of the life the certificate shows. If most of that lay in the past, it would
        // be renewed without end.
        let skew = millis(self.settings.clock_skew).min(ttl / 4);
        params.not_before = date_time_ymd(1970, 1, 1) + seconds(now.saturating_sub(skew));
        params.not_after = date_time_ymd(1970, 1, 1) + seconds(expires_at);
        params.serial_number = Some(serial()?);
        params.distinguished_name = DistinguishedName::new();
        if let Some(host) = host {
            params.distinguished_name.push(rcgen::DnType::CommonName, host.to_string());
        }
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
        let mut chain_pem = format!("{}{}", leaf.pem(), ca.certificate_pem);
        let mut chain_der = vec![leaf.der().clone(), ca.certificate_der.clone()];
        // This service is known by a root to hosts that join. Workloads are known by the signing CA.
        if !names.dns.is_empty() || !names.ip.is_empty() {
            for other in cross.values() {
                chain_pem.push_str(&other.pem);
                chain_der.push(other.der.clone());
            }
        }
        Ok(Svid { identity: identity.clone(), chain_pem, chain_der, expires_at })
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
    fn load(dir: &Path, rotation: Rotation) -> Result<Self, AuthorityError> {
        let (mut roots, mut cas) = (BTreeMap::new(), BTreeMap::new());
        for root in &rotation.roots {
            let (crt, key) = root_paths(dir, root.id);
            roots.insert(root.id, load_ca(&crt, &key)?);
        }
        for member in &rotation.members {
            let (crt, key) = signing_paths(dir, member.id);
            let cross = cross_of(dir, member.id, &rotation)?;
            cas.insert(member.id, SigningCa { ca: load_ca(&crt, &key)?, cross });
        }
        Ok(Self { rotation, roots, cas })
    }

    fn bundle(&self) -> TrustBundle {
        TrustBundle {
            version: self.rotation.bundle_version,
            pem: self.cas.values().map(|held| held.ca.certificate_pem.as_str()).collect(),
            der: self.cas.values().map(|held| held.ca.certificate_der.clone()).collect(),
            roots_pem: self.roots_pem(),
        }
    }

    /// Every root, the newest first.
    fn roots_pem(&self) -> String {
        self.roots.values().rev().map(|root| root.certificate_pem.as_str()).collect()
    }

    /// Lets go of what the rotation does not know any more; returns its files, keys first.
    fn forget_gone(&mut self, dir: &Path) -> Vec<PathBuf> {
        let (members, roots) = (&self.rotation.members, &self.rotation.roots);
        let (mut keys, mut certificates) = (Vec::new(), Vec::new());
        let is_root = |id: &u32| roots.iter().any(|root| root.id == *id);
        for id in self.roots.keys().filter(|id| !is_root(id)) {
            let (crt, key) = root_paths(dir, *id);
            keys.push(key);
            certificates.push(crt);
        }
        for (id, held) in &self.cas {
            let stays = members.iter().any(|member| member.id == *id);
            let cross = held.cross.keys().filter(|root| !(stays && is_root(root)));
            certificates.extend(cross.map(|root| cross_path(dir, *id, *root)));
            if !stays {
                let (crt, key) = signing_paths(dir, *id);
                keys.push(key);
                certificates.push(crt);
            }
        }
        self.roots.retain(|id, _| roots.iter().any(|root| root.id == *id));
        self.cas.retain(|id, _| members.iter().any(|member| member.id == *id));
        for held in self.cas.values_mut() {
            held.cross.retain(|id, _| roots.iter().any(|root| root.id == *id));
        }
        keys.append(&mut certificates);
        keys
    }
}

/// The certificates of a signing CA by other roots than that in its own file.
fn cross_of(dir: &Path, id: u32, rotation: &Rotation) -> Result<BTreeMap<u32, Cross>, AuthorityError> {
    let mut cross = BTreeMap::new();
    for root in &rotation.roots {
        if let Some(found) = load_cross(dir, id, root.id)? {
            cross.insert(root.id, found);
        }
    }
    Ok(cross)
}

#[cfg(test)]
#[path = "ca_tests.rs"]
mod tests;
