//! The authority's certificates and keys: made, written, read back. What is on disk is on disk before it is returned.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::ca::{AuthorityError, AuthoritySettings, ROOT_LIFE, SIGNING_LIFE};
use super::keys::{self, PUBLIC_MODE, SECRET_MODE};
use super::rotation::{Rotation, UnixMs};
use crate::random;

/// What hosts are given to trust this service by.
pub const ROOTS_FILE: &str = "root.crt";

/// A CA with its key.
pub(super) struct CaFile {
    pub(super) certificate_pem: String,
    pub(super) certificate_der: CertificateDer<'static>,
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) not_after: UnixMs,
}

/// A second certificate of a CA.
#[derive(Clone)]
pub(super) struct Cross {
    pub(super) der: CertificateDer<'static>,
    pub(super) pem: String,
}

/// Makes a root and returns it.
pub(super) fn create_root(
    dir: &Path,
    id: u32,
    settings: &AuthoritySettings,
    now: UnixMs,
) -> Result<CaFile, AuthorityError> {
    let (crt, key_path) = root_paths(dir, id);
    let key = KeyPair::generate()?;
    let name = format!("Outrigger root {id} {}", settings.trust_domain);
    let not_after = now.saturating_add(millis(ROOT_LIFE));
    let params = ca_params(&name, BasicConstraints::Constrained(1), settings, now, not_after)?;
    let certificate = params.self_signed(&key)?;
    write(&crt, certificate.pem().as_bytes(), PUBLIC_MODE)?;
    // The key last: it is what says that the root exists.
    write(&key_path, key.serialize_pem().as_bytes(), SECRET_MODE)?;
    load_ca(&crt, &key_path)
}

/// Puts the files of a version that had one root where those of the first root are now.
pub(super) fn adopt_only_root(dir: &Path) -> Result<(), AuthorityError> {
    let (old_crt, old_key) = (dir.join(ROOTS_FILE), dir.join("root.key"));
    let (crt, key) = root_paths(dir, 1);
    if read(&key)?.is_some() || read(&old_key)?.is_none() {
        return Ok(());
    }
    let pem = read(&old_crt)?.ok_or_else(|| corrupt(&old_crt, "missing".to_owned()))?;
    write(&crt, pem.as_bytes(), PUBLIC_MODE)?;
    std::fs::rename(&old_key, &key).map_err(|source| file_error(&old_key, source))
}

/// Writes the file that hosts are given: every root, the newest first.
pub(super) fn write_roots(dir: &Path, pem: &str) -> Result<(), AuthorityError> {
    write(&dir.join(ROOTS_FILE), pem.as_bytes(), PUBLIC_MODE)
}

/// Makes a signing CA certified by `root`, and by each of `others` too: who knows only one of those finds a way to it.
pub(super) fn create_signing(
    dir: &Path,
    id: u32,
    root: &CaFile,
    others: &[(u32, &CaFile)],
    settings: &AuthoritySettings,
    now: UnixMs,
) -> Result<CaFile, AuthorityError> {
    let key = KeyPair::generate()?;
    let name = format!("Outrigger signing {id} {}", settings.trust_domain);
    let certified = |by: &CaFile| {
        let not_after = now.saturating_add(millis(SIGNING_LIFE)).min(by.not_after);
        let params = ca_params(&name, BasicConstraints::Constrained(0), settings, now, not_after)?;
        Ok::<_, AuthorityError>(params.signed_by(&key, &by.issuer)?.pem())
    };
    let (crt_path, key_path) = signing_paths(dir, id);
    write(&key_path, key.serialize_pem().as_bytes(), SECRET_MODE)?;
    for (other, by) in others {
        write(&cross_path(dir, id, *other), certified(by)?.as_bytes(), PUBLIC_MODE)?;
    }
    write(&crt_path, certified(root)?.as_bytes(), PUBLIC_MODE)?;
    load_ca(&crt_path, &key_path)
}

/// The certificate of signing CA `id` by a root that is not the one in its own file, if there is one.
pub(super) fn load_cross(dir: &Path, id: u32, root: u32) -> Result<Option<Cross>, AuthorityError> {
    let path = cross_path(dir, id, root);
    let Some(pem) = read(&path)? else { return Ok(None) };
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| corrupt(&path, e.to_string()))?;
    Ok(Some(Cross { der: der.into_owned(), pem }))
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

/// Reads a certificate and its key, and checks that they belong together.
pub(super) fn load_ca(crt: &Path, key_path: &Path) -> Result<CaFile, AuthorityError> {
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
    Ok(CaFile { certificate_pem, certificate_der: der.into_owned(), issuer, not_after })
}

pub(super) fn root_paths(dir: &Path, id: u32) -> (PathBuf, PathBuf) {
    (dir.join(format!("root-{id}.crt")), dir.join(format!("root-{id}.key")))
}

pub(super) fn cross_path(dir: &Path, id: u32, root: u32) -> PathBuf {
    dir.join(format!("signing-{id}-by-{root}.crt"))
}

pub(super) fn signing_paths(dir: &Path, id: u32) -> (PathBuf, PathBuf) {
    (dir.join(format!("signing-{id}.crt")), dir.join(format!("signing-{id}.key")))
}

/// Random and positive (RFC 5280 section 4.1.2.2): a key that is certified again gets another number.
pub(super) fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = random::bytes::<16>()?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

/// Time since 1970 in whole seconds. Certificates know whole seconds only.
pub(super) fn seconds(at: UnixMs) -> Duration {
    Duration::from_secs(u64::try_from(at / 1_000).unwrap_or(0))
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn save(path: &Path, rotation: &Rotation) -> Result<(), AuthorityError> {
    let text = serde_json::to_string_pretty(rotation).map_err(|error| corrupt(path, error.to_string()))?;
    write(path, text.as_bytes(), PUBLIC_MODE)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), AuthorityError> {
    keys::write_atomic(path, content, mode).map_err(|source| file_error(path, source))
}

pub(super) fn read(path: &Path) -> Result<Option<String>, AuthorityError> {
    keys::read_optional(path).map_err(|source| file_error(path, source))
}

pub(super) fn file_error(path: &Path, source: io::Error) -> AuthorityError {
    AuthorityError::File { path: path.to_owned(), source }
}

pub(super) fn corrupt(path: &Path, reason: String) -> AuthorityError {
    AuthorityError::Corrupt { path: path.to_owned(), reason }
}
