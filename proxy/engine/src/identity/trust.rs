//! Trust roots and SAN criteria, from a validation context.

use super::keypair::certificates;
use super::san::SanMatchers;
use outrigger_traffic::config::{SanMatch, ValidationContext};
use rustls::RootCertStore;
use std::sync::Arc;

/// A parsed [`ValidationContext`].
#[derive(Debug)]
pub(super) struct Trust {
    /// What was parsed; for comparing and combining.
    pub(super) source: ValidationContext,
    /// `None`: the chain is not verified.
    pub(super) roots: Option<Arc<RootCertStore>>,
    /// Names asked for.
    pub(super) sans: SanMatchers,
}

impl Trust {
    /// Parses; an error is (field, reason).
    pub(super) fn parse(source: &ValidationContext) -> Result<Self, (String, String)> {
        let roots = match (&source.trusted_ca_pem, source.system_roots) {
            (None, false) => None,
            (pem, system) => {
                let mut store = RootCertStore::empty();
                if system {
                    store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
                }
                if let Some(pem) = pem {
                    add(&mut store, pem).map_err(|reason| ("trusted_ca".to_owned(), reason))?;
                }
                Some(Arc::new(store))
            }
        };
        let sans = compile_sans(&source.sans)?;
        Ok(Self { source: source.clone(), roots, sans })
    }

    /// This context completed by a secret's: roots of the secret where it has any, criteria of both
    /// (Envoy: `combined_validation_context`).
    pub(super) fn combine(&self, secret: &Self) -> Result<Self, (String, String)> {
        let mut source = self.source.clone();
        source.sans.extend(secret.source.sans.iter().cloned());
        let roots = match &secret.roots {
            Some(roots) => {
                source.trusted_ca_pem.clone_from(&secret.source.trusted_ca_pem);
                source.system_roots = secret.source.system_roots;
                Some(roots.clone())
            }
            None => self.roots.clone(),
        };
        let sans = compile_sans(&source.sans)?;
        Ok(Self { source, roots, sans })
    }
}

fn compile_sans(sans: &[SanMatch]) -> Result<SanMatchers, (String, String)> {
    SanMatchers::compile(sans).map_err(|(i, reason)| (format!("match_typed_subject_alt_names[{i}]"), reason))
}

fn add(store: &mut RootCertStore, pem: &str) -> Result<(), String> {
    let certs = certificates(pem)?;
    if certs.is_empty() {
        return Err("no certificate in the trust roots".into());
    }
    for (i, cert) in certs.into_iter().enumerate() {
        store.add(cert).map_err(|error| format!("trust root {i} cannot be used: {error}"))?;
    }
    Ok(())
}
