//! The lease under which peers are sent here.

use super::client::{CALL_TIMEOUT, ControlClient};
use super::settings::Settings;
use outrigger_api::outrigger::v1::registration_service_client::RegistrationServiceClient;
use outrigger_api::outrigger::v1::{DeregisterRequest, HeartbeatRequest, RegisterRequest};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::{Code, Request};

/// Bounds of the wait after a failure.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The lease held at the moment.
pub struct Registration {
    client: Arc<ControlClient>,
    settings: Arc<Settings>,
    lease: Mutex<Option<String>>,
}

impl Registration {
    /// Not registered yet.
    pub fn new(client: Arc<ControlClient>, settings: Arc<Settings>) -> Self {
        Self { client, settings, lease: Mutex::new(None) }
    }

    /// Registers and renews until it is dropped. A lease that is gone is taken anew; while the control service is away
    /// nothing is lost, because it freezes leases until its proxies are back.
    pub async fn keep(&self) {
        let mut wait = RETRY_FIRST;
        loop {
            let step = match self.lease() {
                None => self.register().await,
                Some(lease) => self.heartbeat(lease).await,
            };
            match step {
                Ok(ttl) => {
                    wait = RETRY_FIRST;
                    tokio::time::sleep(ttl / 3).await;
                }
                Err(error) => {
                    self.client.forget();
                    tracing::warn!(error = format!("{error:#}"), "registration failed");
                    tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    wait = (wait * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Ends the lease: peers are told at once.
    ///
    /// # Errors
    /// When the control service cannot be reached; the lease then ends by itself.
    pub async fn leave(&self) -> anyhow::Result<()> {
        let Some(lease_id) = self.set_lease(None) else { return Ok(()) };
        let mut request = Request::new(DeregisterRequest { lease_id });
        request.set_timeout(CALL_TIMEOUT);
        self.service().await?.deregister(request).await?;
        tracing::info!("left the registry");
        Ok(())
    }

    async fn register(&self) -> anyhow::Result<Duration> {
        let mut request = Request::new(RegisterRequest { workload: Some(self.settings.workload.clone()) });
        request.set_timeout(CALL_TIMEOUT);
        let answer = self.service().await?.register(request).await?.into_inner();
        tracing::info!(lease = answer.lease_id, "registered");
        self.set_lease(Some(answer.lease_id));
        Ok(ttl(answer.ttl_ms))
    }

    async fn heartbeat(&self, lease_id: String) -> anyhow::Result<Duration> {
        let mut request = Request::new(HeartbeatRequest { lease_id, ..HeartbeatRequest::default() });
        request.set_timeout(CALL_TIMEOUT);
        match self.service().await?.heartbeat(request).await {
            Ok(answer) => Ok(ttl(answer.into_inner().ttl_ms)),
            Err(status) if status.code() == Code::NotFound => {
                self.set_lease(None);
                Ok(Duration::ZERO)
            }
            Err(status) => Err(status.into()),
        }
    }

    async fn service(&self) -> anyhow::Result<RegistrationServiceClient<tonic::transport::Channel>> {
        Ok(RegistrationServiceClient::new(self.client.channel().await?))
    }

    fn lease(&self) -> Option<String> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_lease(&self, lease: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.lease.lock().unwrap_or_else(PoisonError::into_inner), lease)
    }
}

/// At least a second, so that a mistaken answer cannot make this a busy loop.
fn ttl(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms)).max(Duration::from_secs(1))
}
