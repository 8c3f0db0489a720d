//! Certificates with keys made here, for xDS clients that cannot make certificate requests (Envoy, gRPC).
//!
//! They are delivered over SDS, and only on a connection whose client certificate has that very
//! identity: whoever holds the one may hold the other. Each identity has one certificate at a time,
//! shared by its subscribers and renewed at half its life; when nobody asks any more it is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::ca::{Authority, AuthorityError, KeyedSvid, ServerNames, Subject};
use super::host::HostMark;
use super::spiffe::Identity;
use crate::clock;

/// How long to wait after a renewal that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

type Shared = watch::Sender<Arc<KeyedSvid>>;

/// Whom a certificate is for, and where.
type Holder = (Identity, Option<HostMark>);

/// Gives out generated certificates.
pub struct SvidSource {
    authority: Arc<Authority>,
    held: Mutex<HashMap<Holder, Weak<Shared>>>,
}

/// A certificate and its renewals; keeps it alive.
pub struct SvidWatch {
    /// Changes at every renewal.
    pub receiver: watch::Receiver<Arc<KeyedSvid>>,
    _sender: Arc<Shared>,
}

impl SvidSource {
    /// Certificates of this authority.
    pub fn new(authority: Arc<Authority>) -> Self {
        Self { authority, held: Mutex::default() }
    }

    /// The certificate of `identity` on `host`, made when nobody has it yet, and its renewals.
    ///
    /// *Errors*: as [`Authority::issue`].
    pub fn watch(&self, identity: &Identity, host: Option<&HostMark>) -> Result<SvidWatch, AuthorityError> {
        let holder = (identity.clone(), host.cloned());
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, sender| sender.strong_count() > 0);
        if let Some(sender) = held.get(&holder).and_then(Weak::upgrade) {
            return Ok(SvidWatch { receiver: sender.subscribe(), _sender: sender });
        }
        let first = issue(&self.authority, &holder)?;
        let (sender, receiver) = watch::channel(Arc::new(first));
        let sender = Arc::new(sender);
        held.insert(holder.clone(), Arc::downgrade(&sender));
        tokio::spawn(renew(Arc::clone(&self.authority), holder, Arc::downgrade(&sender)));
        Ok(SvidWatch { receiver, _sender: sender })
    }
}

/// Renews one certificate at half its life, and at once when the signing CA was exchanged, until nobody
/// holds it.
async fn renew(authority: Arc<Authority>, holder: Holder, sender: Weak<Shared>) {
    let mut wait = half_life(&authority);
    loop {
        tokio::time::sleep(wait).await;
        let Some(sender) = sender.upgrade() else { return };
        wait = match issue(&authority, &holder) {
            Ok(next) => {
                sender.send_replace(Arc::new(next));
                half_life(&authority)
            }
            Err(error) => {
                tracing::error!(identity = %holder.0, %error, "certificate not renewed");
                RETRY_AFTER
            }
        };
    }
}

fn issue(authority: &Authority, (identity, host): &Holder) -> Result<KeyedSvid, AuthorityError> {
    let subject = Subject { identity, host: host.as_ref(), names: &ServerNames::default() };
    authority.issue(subject, clock::unix_ms())
}

fn half_life(authority: &Authority) -> Duration {
    authority.settings().svid_ttl / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::AuthoritySettings;

    #[tokio::test(start_paused = true)]
    async fn certificate_is_shared_renewed_at_half_its_life_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            AuthoritySettings { svid_ttl: Duration::from_secs(20), ..AuthoritySettings::default() };
        let authority = Arc::new(Authority::open(dir.path(), settings, clock::unix_ms()).unwrap());
        let source = SvidSource::new(authority);
        let identity = Identity::new("cluster.local", "shop", "cart").unwrap();
        let mut one = source.watch(&identity, None).unwrap();
        let two = source.watch(&identity, None).unwrap();
        let first = one.receiver.borrow_and_update().clone();
        assert!(Arc::ptr_eq(&first, &two.receiver.borrow()), "one certificate for both");
        let before = tokio::time::Instant::now();
        one.receiver.changed().await.unwrap();
        assert_eq!(before.elapsed().as_secs(), 10);
        assert_ne!(one.receiver.borrow().svid.chain_der[0], first.svid.chain_der[0]);
        drop((one, two));
        let again = source.watch(&identity, None).unwrap();
        assert_eq!(source.held.lock().unwrap().len(), 1);
        assert!(!Arc::ptr_eq(&first, &again.receiver.borrow()));
    }
}
