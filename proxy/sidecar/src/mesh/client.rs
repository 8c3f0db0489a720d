//! Calls to the control service: one channel, made anew when it fails or the certificate changes.

use super::settings::Settings;
use super::svid::{Svid, anonymous_client_config};
use arc_swap::ArcSwapOption;
use outrigger_channel::{ControlAddress, Transport};
use rustls::ClientConfig;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::transport::Channel;

/// Time for TCP and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a call.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The way to the control service.
pub struct ControlClient {
    settings: Arc<Settings>,
    tls: Arc<ArcSwapOption<ClientConfig>>,
    channel: Mutex<Option<Channel>>,
}

impl ControlClient {
    /// No connection is made yet.
    pub fn new(settings: Arc<Settings>) -> Self {
        Self { settings, tls: Arc::default(), channel: Mutex::new(None) }
    }

    /// From now on calls are made with this certificate.
    ///
    /// # Errors
    /// When it cannot be used for TLS.
    pub fn use_svid(&self, svid: &Svid) -> anyhow::Result<()> {
        self.tls.store(Some(svid.client_config(&self.settings.roots_pem)?));
        self.forget();
        Ok(())
    }

    /// The next call makes a new connection.
    pub fn forget(&self) {
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A transport for ADS, whose connections always use the current certificate.
    pub fn transport(&self) -> anyhow::Result<ControlAddress> {
        let anonymous = anonymous_client_config(&self.settings.roots_pem)?;
        let current = self.tls.clone();
        Ok(ControlAddress {
            addresses: self.settings.control.clone(),
            tls: Some(Arc::new(move || current.load_full().unwrap_or_else(|| anonymous.clone()))),
            server_name: self.settings.server_name(),
            connect_timeout: CONNECT_TIMEOUT,
        })
    }

    /// The channel in use, or a new one.
    pub async fn channel(&self) -> anyhow::Result<Channel> {
        let known = self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(channel) = known {
            return Ok(channel);
        }
        let made = self.transport()?.channel().await?;
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(made.clone());
        Ok(made)
    }
}
