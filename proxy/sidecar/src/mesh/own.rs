//! The certificate in use. Renewals and changed trust bundles come from two streams of events; both go through here, one
//! after another, so that neither undoes what the other brought.

use super::client::ControlClient;
use super::svid::{Bundle, Svid};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// See the module.
pub struct OwnSvid {
    client: Arc<ControlClient>,
    state_dir: PathBuf,
    current: watch::Sender<Svid>,
    /// Held while the certificate is exchanged: in the client, on disk, for whoever watches.
    changing: Mutex<()>,
}

impl OwnSvid {
    /// Begins with the one `client` uses and `state_dir` holds already.
    pub fn new(client: Arc<ControlClient>, state_dir: &Path, first: Svid) -> Self {
        let state_dir = state_dir.to_owned();
        Self { client, state_dir, current: watch::Sender::new(first), changing: Mutex::default() }
    }

    /// The certificate and its changes.
    pub fn watch(&self) -> watch::Receiver<Svid> {
        self.current.subscribe()
    }

    /// The certificate.
    pub fn current(&self) -> Svid {
        self.current.borrow().clone()
    }

    /// A new certificate was signed. The trust bundle that came with it is taken only when it is newer than the one held:
    /// the answer may have been overtaken by the stream of bundles.
    ///
    /// # Errors
    /// When it cannot be used; then the old one stays.
    pub fn renewed(&self, mut signed: Svid) -> anyhow::Result<()> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.current.borrow().bundle.clone();
        if signed.bundle.version <= held.version {
            signed.bundle = held;
        }
        self.exchange(signed)
    }

    /// The stream of trust bundles brought this one. It is in order, so it is taken whatever its number: a control service
    /// that was restored from a backup counts from there. Returns whether it is another one.
    ///
    /// # Errors
    /// When it cannot be used; then the old one stays.
    pub fn trust(&self, bundle: Bundle) -> anyhow::Result<bool> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.current();
        if held.bundle == bundle {
            return Ok(false);
        }
        let other = held.bundle.pem != bundle.pem;
        self.exchange(Svid { bundle, ..held })?;
        Ok(other)
    }

    fn exchange(&self, next: Svid) -> anyhow::Result<()> {
        self.client.use_svid(&next)?;
        if let Err(error) = next.save(&self.state_dir) {
            tracing::warn!(error = format!("{error:#}"), "certificate cannot be kept on disk");
        }
        self.current.send_replace(next);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Role;
    use crate::mesh::settings::Settings;
    use crate::mesh::svid::tests::{certificate, svid};
    use outrigger_api::outrigger::v1::Workload;

    fn own(state_dir: &Path, first: Svid) -> OwnSvid {
        let settings = Settings {
            control: vec!["127.0.0.1:9".to_owned()],
            roots_pem: certificate(),
            join_token: None,
            proof: None,
            state_dir: state_dir.to_owned(),
            workload: Workload::default(),
            app_address: std::net::Ipv4Addr::LOCALHOST.into(),
            role: Role::Sidecar,
        };
        OwnSvid::new(Arc::new(ControlClient::new(Arc::new(settings))), state_dir, first)
    }

    fn bundle(version: u64) -> Bundle {
        Bundle { pem: certificate(), version, roots_pem: String::new() }
    }

    #[test]
    fn renewal_that_was_overtaken_does_not_bring_an_older_trust_bundle_back() {
        let folder = tempfile::tempdir().unwrap();
        let own = own(folder.path(), svid(1));
        let newer = bundle(2);
        assert!(own.trust(newer.clone()).unwrap());
        let late = svid(1);
        own.renewed(late.clone()).unwrap();
        let held = own.current();
        assert_eq!((&held.chain_pem, &held.bundle), (&late.chain_pem, &newer));
        assert_eq!(Svid::load(folder.path()).unwrap().bundle, newer, "on disk too");
        let renewed = svid(3);
        own.renewed(renewed.clone()).unwrap();
        assert_eq!(own.current().bundle, renewed.bundle, "a newer one is taken");
    }

    #[test]
    fn stream_of_bundles_has_the_last_word_whatever_it_counts() {
        let folder = tempfile::tempdir().unwrap();
        let own = own(folder.path(), svid(7));
        let chain = own.current().chain_pem;
        let restored = bundle(3);
        assert!(own.trust(restored.clone()).unwrap());
        assert!(!own.trust(restored.clone()).unwrap(), "the same again");
        assert_eq!((own.current().chain_pem, own.current().bundle), (chain, restored));
    }

    #[test]
    fn what_cannot_be_used_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let own = own(folder.path(), svid(1));
        let before = own.current();
        let watch = own.watch();
        assert!(own.trust(Bundle { pem: "nonsense".to_owned(), ..bundle(2) }).is_err());
        assert!(own.renewed(Svid { key_pem: String::new(), ..svid(2) }).is_err());
        assert_eq!(own.current(), before);
        assert!(!watch.has_changed().unwrap());
        assert!(Svid::load(folder.path()).is_none(), "nothing was written");
    }
}
