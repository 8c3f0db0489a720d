//! The workload's own certificate as secrets of the proxy. How it is kept: [`outrigger_member::svid`].

use super::{SECRET_OWN, SECRET_ROOTS};
use outrigger_api::outrigger::v1::TrustBundle;
pub use outrigger_member::svid::{Bundle, Svid, anonymous_client_config};
use outrigger_traffic::config::{Secret, SecretValue, TlsCertificate, ValidationContext};

/// As the control service sends it.
pub fn bundle(wire: TrustBundle) -> Bundle {
    Bundle { pem: wire.pem, version: wire.version, roots_pem: wire.roots_pem }
}

/// The two secrets that the mesh's resources name.
pub fn secrets(svid: &Svid) -> Vec<Secret> {
    let own = TlsCertificate { chain_pem: svid.chain_pem.clone(), key_pem: svid.key_pem.clone() };
    let roots =
        ValidationContext { trusted_ca_pem: Some(svid.bundle.pem.clone()), ..ValidationContext::default() };
    vec![
        Secret { name: SECRET_OWN.into(), value: SecretValue::Certificate(own) },
        Secret { name: SECRET_ROOTS.into(), value: SecretValue::Validation(roots) },
    ]
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use std::time::{Duration, SystemTime};

    /// A certificate of somebody, PEM.
    pub fn certificate() -> String {
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(vec!["mesh.test".to_owned()]).unwrap().self_signed(&key).unwrap().pem()
    }

    /// A certificate with its key, and a trust bundle of this version.
    pub fn svid(version: u64) -> Svid {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["mesh.test".to_owned()]).unwrap();
        let bundle = Bundle { pem: certificate(), version, roots_pem: String::new() };
        // To the second, so that it is the same when it was read back from text of any precision.
        let received = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let chain_pem = params.self_signed(&key).unwrap().pem();
        Svid { chain_pem, key_pem: key.serialize_pem(), bundle, received }
    }

    #[test]
    fn secrets_are_the_certificate_with_its_key_and_the_roots() {
        let svid = svid(1);
        let [own, roots] = &secrets(&svid)[..] else { panic!("two secrets") };
        assert_eq!((own.name.as_str(), roots.name.as_str()), (SECRET_OWN, SECRET_ROOTS));
        assert!(matches!(&own.value, SecretValue::Certificate(c) if c.key_pem == svid.key_pem));
        let trusted = |value: &SecretValue| match value {
            SecretValue::Validation(roots) => roots.trusted_ca_pem.clone(),
            _ => None,
        };
        assert_eq!(trusted(&roots.value), Some(svid.bundle.pem));
    }
}
