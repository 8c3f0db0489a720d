//! The lease under which peers are sent here.

use super::client::{CALL_TIMEOUT, ControlClient};
use super::probe::Prober;
use super::settings::Settings;
use outrigger_api::outrigger::v1::registration_service_client::RegistrationServiceClient;
use outrigger_api::outrigger::v1::{DeregisterRequest, HeartbeatRequest, RegisterRequest};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tonic::{Code, Request};

/// Bounds of the wait after a failure.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The lease held at the moment.
pub struct Registration {
    client: Arc<ControlClient>,
    settings: Arc<Settings>,
    lease: Mutex<Lease>,
    left: Notify,
    prober: Prober,
}

/// Where the lease stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lease {
    /// None yet, or none any more.
    None,
    /// Held, by this id.
    Held(String),
    /// Given up for good: from here on nothing may register again, for peers would be sent to a proxy that drains.
    Left,
}

impl Lease {
    /// Takes note of a registration; returns whether it is wanted: not after leaving.
    fn hold(&mut self, id: &str) -> bool {
        if *self == Self::Left {
            return false;
        }
        *self = Self::Held(id.to_owned());
        true
    }

    /// The control service does not know this id any more.
    fn lose(&mut self, id: &str) {
        if matches!(self, Self::Held(held) if held == id) {
            *self = Self::None;
        }
    }

    /// Leaves; returns the lease that is to be ended.
    fn leave(&mut self) -> Option<String> {
        match std::mem::replace(self, Self::Left) {
            Self::Held(id) => Some(id),
            Self::None | Self::Left => None,
        }
    }
}

impl Registration {
    /// Not registered yet.
    pub fn new(client: Arc<ControlClient>, settings: Arc<Settings>) -> Self {
        let prober = Prober::new(settings.app_address, !settings.workload.workload_group.is_empty());
        Self { client, settings, lease: Mutex::new(Lease::None), left: Notify::new(), prober }
    }

    /// Registers and renews until it is dropped or [`Self::leave`] is called. A lease that is gone is taken anew; while the control service is away
    /// nothing is lost, because it freezes leases until its proxies are back.
    pub async fn keep(&self) {
        tokio::select! {
            () = self.keep_lease() => {}
            () = self.prober.run() => {}
        }
    }

    async fn keep_lease(&self) {
        let mut health = self.prober.changes();
        let mut wait = RETRY_FIRST;
        loop {
            let lease = self.lease().clone();
            health.mark_unchanged();
            let step = match lease {
                Lease::None => self.register().await,
                Lease::Held(lease) => self.heartbeat(lease).await,
                Lease::Left => return,
            };
            let pause = match step {
                Ok(ttl) => {
                    wait = RETRY_FIRST;
                    ttl / 3
                }
                Err(error) => {
                    self.client.forget();
                    tracing::warn!(error = format!("{error:#}"), "registration failed");
                    let pause = wait.mul_f64(0.5 + fastrand::f64() / 2.0);
                    wait = (wait * 2).min(RETRY_MAX);
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.left.notified() => {}
                // Peers are to know at once. The sender is this registration's own.
                _ = health.changed() => {}
            }
        }
    }

    /// Ends the lease: peers are told at once.
    ///
    /// # Errors
    /// When the control service cannot be reached; the lease then ends by itself.
    pub async fn leave(&self) -> anyhow::Result<()> {
        let held = self.lease().leave();
        self.left.notify_one();
        let Some(lease_id) = held else { return Ok(()) };
        self.deregister(lease_id).await?;
        tracing::info!("left the registry");
        Ok(())
    }

    async fn deregister(&self, lease_id: String) -> anyhow::Result<()> {
        let mut request = Request::new(DeregisterRequest { lease_id, ..DeregisterRequest::default() });
        request.set_timeout(CALL_TIMEOUT);
        self.service().await?.deregister(request).await?;
        Ok(())
    }

    async fn register(&self) -> anyhow::Result<Duration> {
        let mut workload = self.settings.workload.clone();
        workload.health = self.prober.health().into();
        let mut request = Request::new(RegisterRequest { workload: Some(workload) });
        request.set_timeout(CALL_TIMEOUT);
        let answer = self.service().await?.register(request).await?.into_inner();
        self.prober.ask(answer.probe.clone());
        if self.lease().hold(&answer.lease_id) {
            // Its id is known to its holder only, so it is not logged.
            tracing::info!("registered");
        } else {
            self.deregister(answer.lease_id).await?;
        }
        Ok(ttl(answer.ttl_ms))
    }

    async fn heartbeat(&self, lease_id: String) -> anyhow::Result<Duration> {
        let asked = HeartbeatRequest { lease_id: lease_id.clone(), health: self.prober.health().into() };
        let mut request = Request::new(asked);
        request.set_timeout(CALL_TIMEOUT);
        match self.service().await?.heartbeat(request).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                self.prober.ask(answer.probe);
                Ok(ttl(answer.ttl_ms))
            }
            Err(status) if status.code() == Code::NotFound => {
                self.lease().lose(&lease_id);
                Ok(Duration::ZERO)
            }
            Err(status) => Err(status.into()),
        }
    }

    async fn service(&self) -> anyhow::Result<RegistrationServiceClient<tonic::transport::Channel>> {
        Ok(RegistrationServiceClient::new(self.client.channel().await?))
    }

    fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At least a second, so that a mistaken answer cannot make this a busy loop.
fn ttl(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms)).max(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_that_was_left_is_never_taken_again() {
        let mut lease = Lease::None;
        assert!(lease.hold("one"));
        lease.lose("another");
        assert_eq!(lease, Lease::Held("one".into()));
        assert_eq!(lease.leave().as_deref(), Some("one"));
        // The answers to a heartbeat and to a registration that were under way.
        lease.lose("one");
        assert_eq!(lease, Lease::Left);
        assert!(!lease.hold("two"));
        assert_eq!((lease.leave(), lease), (None, Lease::Left));
    }
}
