//! The SPIFFE identity of a workload.
//!
//! Source: the SPIFFE-ID specification, sections 2.1 to 2.4; the path layout is Istio's.

use std::fmt;

pub use outrigger_member::label::{LABEL_BYTES_MAX, is_label};

/// Longest trust domain, in bytes (SPIFFE-ID section 2.1).
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`, its parts already checked.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Identity {
    trust_domain: String,
    namespace: String,
    service_account: String,
}

/// Why a text is no identity.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not of the form `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    #[error("not of the form spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT")]
    Shape,
    /// The trust domain has a character that SPIFFE does not allow, is empty or too long.
    #[error("the trust domain must be 1 to 255 characters of a-z, 0-9, '.', '-' and '_'")]
    TrustDomain,
    /// A namespace or service account is not a DNS label.
    #[error(
        "{part} must be a DNS label: 1 to 63 characters of a-z, 0-9 and '-', not starting or ending with '-'"
    )]
    Label {
        /// Which one: `namespace` or `service account`.
        part: &'static str,
    },
}

impl Identity {
    /// Puts an identity together.
    ///
    /// *Errors*: [`IdentityError`] when a part has a character or a length that is not allowed.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, IdentityError> {
        check_trust_domain(trust_domain)?;
        check_label(namespace, "namespace")?;
        check_label(service_account, "service account")?;
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        })
    }

    /// Reads the URI form.
    ///
    /// *Errors*: [`IdentityError::Shape`] and the errors of [`Identity::new`].
    pub fn parse(uri: &str) -> Result<Self, IdentityError> {
        let rest = uri.strip_prefix("spiffe://").ok_or(IdentityError::Shape)?;
        let mut parts = rest.split('/');
        let (Some(domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(IdentityError::Shape);
        };
        Self::new(domain, namespace, account)
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

fn check_label(text: &str, part: &'static str) -> Result<(), IdentityError> {
    if is_label(text) { Ok(()) } else { Err(IdentityError::Label { part }) }
}

fn check_trust_domain(text: &str) -> Result<(), IdentityError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if (1..=TRUST_DOMAIN_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(())
    } else {
        Err(IdentityError::TrustDomain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_identity_reads_back_the_same() {
        let identity = Identity::new("cluster.local", "shop", "cart").unwrap();
        assert_eq!(identity.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
        assert_eq!(Identity::parse(&identity.to_string()).unwrap(), identity);
    }

    #[test]
    fn malformed_identity_is_refused() {
        for text in [
            "",
            "https://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local",
            "spiffe://cluster.local/ns/a/sa",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns/a/sa/b/",
            "spiffe://cluster.local//ns/a/sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://Cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/A/sa/b",
            "spiffe://cluster.local/ns/../sa/b",
            "spiffe://cluster.local/ns/a/sa/b?x",
            "spiffe://user@cluster.local/ns/a/sa/b",
            "spiffe://cluster.local:80/ns/a/sa/b",
        ] {
            assert!(Identity::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn label_at_its_limit_passes_and_one_past_it_does_not() {
        assert!(is_label(&"a".repeat(LABEL_BYTES_MAX)));
        assert!(!is_label(&"a".repeat(LABEL_BYTES_MAX + 1)));
        assert!(!is_label(""));
        assert!(Identity::new(&"a".repeat(TRUST_DOMAIN_BYTES_MAX), "a", "b").is_ok());
        assert!(Identity::new(&"a".repeat(TRUST_DOMAIN_BYTES_MAX + 1), "a", "b").is_err());
    }
}
