//! The authority on a real directory, its certificates checked by the verifier that peers use.

use std::os::unix::fs::PermissionsExt;

use rcgen::CertificateSigningRequest;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::UnixTime;

use super::*;
use crate::identity::csr;

const NOW: UnixMs = 1_800_000_000_000;
const HOUR: UnixMs = 3_600_000;

fn settings() -> AuthoritySettings {
    AuthoritySettings { svid_ttl: Duration::from_secs(3_600), ..AuthoritySettings::default() }
}

fn identity(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account).unwrap()
}

fn request() -> (KeyPair, CertificateSigningRequest) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["not-mine.example".to_owned()]).unwrap();
    let request = params.serialize_request(&key).unwrap();
    (key, request)
}

fn signed(authority: &Authority, now: UnixMs) -> Svid {
    let key = csr::verify(request().1.der()).unwrap();
    authority.sign(&identity("cart"), None, &key, now).unwrap()
}

/// Whether a member holding `bundle` accepts `svid` from a peer at `now`.
fn accepts(bundle: &TrustBundle, svid: &Svid, now: UnixMs) -> bool {
    let mut roots = RootCertStore::empty();
    for der in &bundle.der {
        roots.add(der.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let at = UnixTime::since_unix_epoch(Duration::from_millis(now.try_into().unwrap()));
    verifier.verify_client_cert(&svid.chain_der[0], &svid.chain_der[1..], at).is_ok()
}

#[test]
fn signed_certificate_names_the_identity_and_nothing_the_request_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), settings(), NOW).unwrap();
    let svid = signed(&authority, NOW);
    let (_, leaf) = x509_parser::parse_x509_certificate(&svid.chain_der[0]).unwrap();
    let san = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(san.critical, "the subject is empty: RFC 5280 section 4.2.1.6");
    let names: Vec<String> = san.value.general_names.iter().map(|name| format!("{name:?}")).collect();
    assert_eq!(names, ["URI(\"spiffe://cluster.local/ns/shop/sa/cart\")"]);
    assert_eq!(leaf.validity().not_after.timestamp() * 1_000, svid.expires_at);
    assert_eq!(svid.expires_at, NOW + HOUR);
    assert!(!leaf.is_ca());
    let bundle = authority.trust_bundle().borrow().clone();
    assert!(accepts(&bundle, &svid, NOW));
    assert!(accepts(&bundle, &svid, NOW + HOUR - 1_000));
    assert!(!accepts(&bundle, &svid, NOW + HOUR + 1_000));
}

#[test]
fn reopened_authority_is_the_same_one() {
    let dir = tempfile::tempdir().unwrap();
    let (svid, root) = {
        let authority = Authority::open(dir.path(), settings(), NOW).unwrap();
        (signed(&authority, NOW), authority.root_pem().to_owned())
    };
    let authority = Authority::open(dir.path(), settings(), NOW).unwrap();
    assert_eq!(authority.root_pem(), root);
    assert!(accepts(&authority.trust_bundle().borrow().clone(), &svid, NOW));
}

#[test]
fn rotation_never_shows_anybody_a_certificate_it_cannot_verify() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), settings(), NOW).unwrap();
    let bundle = || authority.trust_bundle().borrow().clone();
    let before = bundle();
    let old = signed(&authority, NOW);

    authority.rotate(Duration::from_secs(30), NOW).unwrap();
    let both = bundle();
    assert_eq!((before.der.len(), both.der.len()), (1, 2));
    assert!(both.version > before.version);
    authority.advance(NOW + 29_999).unwrap();
    let between = signed(&authority, NOW + 29_999);
    assert!(accepts(&before, &between, NOW + 29_999), "the new one must not sign before it is known");

    let due = authority.advance(NOW + 30_000).unwrap().unwrap();
    let new = signed(&authority, NOW + 30_000);
    assert!(!accepts(&before, &new, NOW + 30_000), "now the new one signs");
    for svid in [&old, &between, &new] {
        assert!(accepts(&bundle(), svid, NOW + 30_000));
    }
    assert!(due >= between.expires_at, "trusted until the last certificate it signed has expired");

    // A restart in the middle changes nothing.
    drop(authority);
    let authority = Authority::open(dir.path(), settings(), due).unwrap();
    assert_eq!(authority.trust_bundle().borrow().der.len(), 2);
    assert_eq!(authority.advance(due).unwrap(), None);
    let after = authority.trust_bundle().borrow().clone();
    assert_eq!(after.der.len(), 1);
    assert!(accepts(&after, &new, NOW + HOUR));
    assert!(!accepts(&after, &old, NOW + 1_000), "the retired one is trusted no more");
    assert!(!dir.path().join("signing-1.key").exists());
}

#[test]
fn second_rotation_is_refused_while_one_is_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), settings(), NOW).unwrap();
    authority.rotate(Duration::from_secs(30), NOW).unwrap();
    let error = authority.rotate(Duration::from_secs(30), NOW).unwrap_err();
    assert!(matches!(error, AuthorityError::Rotate(RotateError::UnderWay)));
}

#[test]
fn signing_ca_near_its_end_is_rotated_without_being_asked() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), settings(), NOW).unwrap();
    let two_thirds = NOW + 2 * (millis(SIGNING_LIFE) / 3);
    assert_eq!(authority.advance(two_thirds - 60_000).unwrap(), None);
    let signs_from = authority.advance(two_thirds + 60_000).unwrap().unwrap();
    authority.advance(signs_from).unwrap();
    assert!(authority.status().iter().any(|line| line.id == 2 && line.stage == Stage::Signing));
}

#[test]
fn short_lived_certificate_has_most_of_its_life_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let settings = AuthoritySettings { svid_ttl: Duration::from_secs(20), ..AuthoritySettings::default() };
    let authority = Authority::open(dir.path(), settings, NOW).unwrap();
    let svid = signed(&authority, NOW);
    let (_, leaf) = x509_parser::parse_x509_certificate(&svid.chain_der[0]).unwrap();
    let begins = leaf.validity().not_before.timestamp() * 1_000;
    assert_eq!((NOW - begins, svid.expires_at - NOW), (5_000, 20_000));
}

#[test]
fn foreign_trust_domain_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), settings(), NOW).unwrap();
    let foreign = Identity::new("other.example", "shop", "cart").unwrap();
    let key = csr::verify(request().1.der()).unwrap();
    assert!(matches!(authority.sign(&foreign, None, &key, NOW), Err(AuthorityError::ForeignIdentity { .. })));
}

#[test]
fn issued_certificate_has_the_names_of_our_own_port() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), settings(), NOW).unwrap();
    let names =
        ServerNames { dns: vec!["control.example".to_owned()], ip: vec![IpAddr::from([127, 0, 0, 1])] };
    let issued =
        authority.issue(Subject { identity: &identity("control"), host: None, names: &names }, NOW).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&issued.svid.chain_der[0]).unwrap();
    assert_eq!(leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 3);
    assert!(issued.key_pem.contains("PRIVATE KEY"));
}

#[test]
fn key_readable_by_others_and_damaged_files_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    drop(Authority::open(dir.path(), settings(), NOW).unwrap());
    let key = dir.path().join("signing-1.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Authority::open(dir.path(), settings(), NOW), Err(AuthorityError::File { .. })));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();

    // Another pair's certificate: never sign with a key that does not belong to what peers trust.
    std::fs::copy(dir.path().join("root.crt"), dir.path().join("signing-1.crt")).unwrap();
    assert!(matches!(Authority::open(dir.path(), settings(), NOW), Err(AuthorityError::Corrupt { .. })));
    std::fs::write(dir.path().join("rotation.json"), "{").unwrap();
    assert!(matches!(Authority::open(dir.path(), settings(), NOW), Err(AuthorityError::Corrupt { .. })));
}

/// Whether a host that was given these roots accepts the service at `now`.
fn knows(roots_pem: &str, service: &KeyedSvid, now: UnixMs) -> bool {
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls_pki_types::pem::PemObject as _;
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(roots_pem.as_bytes()) {
        roots.add(der.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let at = UnixTime::since_unix_epoch(Duration::from_millis(now.try_into().unwrap()));
    let chain = &service.svid.chain_der;
    let name = "control.test".try_into().unwrap();
    verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], at).is_ok()
}

fn service(authority: &Authority, now: UnixMs) -> KeyedSvid {
    let names = ServerNames { dns: vec!["control.test".to_owned()], ip: Vec::new() };
    authority.issue(Subject { identity: &identity("control"), host: None, names: &names }, now).unwrap()
}

fn files(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn root_is_exchanged_with_both_known_side_by_side_and_members_notice_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut authority = Authority::open(dir.path(), settings(), NOW).unwrap();
    let old_root = authority.root_pem();
    let member = signed(&authority, NOW);
    let hour = Duration::from_secs(3_600);
    authority.rotate_root(hour, 24 * hour, NOW).unwrap();
    assert!(matches!(
        authority.rotate_root(hour, hour, NOW),
        Err(AuthorityError::Rotate(RotateError::RootUnderWay))
    ));
    assert!(matches!(authority.rotate(hour, NOW), Err(AuthorityError::Rotate(RotateError::UnderWay))));
    let both = authority.root_pem();
    let new_root = both.strip_suffix(&old_root).expect("the new one first, then the old one").to_owned();
    assert_eq!(std::fs::read_to_string(dir.path().join("root.crt")).unwrap(), both);
    assert_eq!(authority.trust_bundle().borrow().roots_pem, both, "members are told");
    for (hours, old_knows, new_knows) in
        [(0, true, false), (1, true, true), (24, true, true), (25, false, true), (26, false, true)]
    {
        let now = NOW + hours * HOUR;
        authority.advance(now).unwrap();
        for reopened in [false, true] {
            if reopened {
                drop(authority);
                authority = Authority::open(dir.path(), settings(), now).unwrap();
            }
            let service = service(&authority, now);
            let who = (knows(&old_root, &service, now), knows(&new_root, &service, now));
            assert_eq!(who, (old_knows, new_knows), "after {hours} h, reopened: {reopened}");
            assert!(knows(&authority.root_pem(), &service, now), "who has what is given out, always");
            let bundle = authority.trust_bundle().borrow().clone();
            assert!(accepts(&bundle, &signed(&authority, now), now));
            assert!(accepts(&bundle, &service.svid, now));
            assert_eq!(bundle.roots_pem, authority.root_pem());
            if hours == 0 {
                assert!(accepts(&bundle, &member, now));
            }
        }
    }
    assert_eq!(authority.root_pem(), new_root);
    let expected =
        ["root-2.crt", "root-2.key", "root.crt", "rotation.json", "signing-2.crt", "signing-2.key"];
    assert_eq!(files(dir.path()), expected, "nothing of the old one is left");
    let workload = signed(&authority, NOW + 26 * HOUR);
    assert_eq!(workload.chain_der.len(), 2, "workloads are not known by roots");
}

#[test]
fn signing_ca_that_is_exchanged_while_an_old_root_is_known_is_certified_by_both() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), settings(), NOW).unwrap();
    let old_root = authority.root_pem();
    authority.rotate_root(Duration::ZERO, Duration::from_secs(86_400), NOW).unwrap();
    authority.advance(NOW).unwrap();
    authority.rotate(Duration::ZERO, NOW + HOUR).unwrap();
    authority.advance(NOW + HOUR).unwrap();
    let service = service(&authority, NOW + HOUR);
    assert!(knows(&old_root, &service, NOW + HOUR));
    assert_eq!(authority.status().iter().map(|line| line.id).max(), Some(3));
}

#[test]
fn files_of_a_version_with_one_root_are_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let root = Authority::open(dir.path(), settings(), NOW).unwrap().root_pem();
    let path = |name: &str| dir.path().join(name);
    std::fs::rename(path("root-1.key"), path("root.key")).unwrap();
    std::fs::remove_file(path("root-1.crt")).unwrap();
    let mut state: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path("rotation.json")).unwrap()).unwrap();
    state.as_object_mut().unwrap().shift_remove("roots");
    std::fs::write(path("rotation.json"), state.to_string()).unwrap();
    let authority = Authority::open(dir.path(), settings(), NOW).unwrap();
    assert_eq!(authority.root_pem(), root);
    assert!(knows(&root, &service(&authority, NOW), NOW));
    assert!(!path("root.key").exists());
}
