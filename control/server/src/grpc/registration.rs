//! `outrigger.v1.RegistrationService`: the registry on the wire.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use outrigger_api::outrigger::v1;
use outrigger_api::outrigger::v1::registration_service_server::RegistrationService;
use tonic::{Request, Response, Status};

use super::peer;
use crate::clock;
use crate::identity::Authority;
use crate::source::lease::LeaseError;
use crate::source::{Health, Registry, RegistryError, Workload};
use crate::telemetry::Metrics;

/// See the module.
pub struct Registrations {
    /// Has the leases.
    pub registry: Arc<Registry>,
    /// Has the trust bundle's version.
    pub authority: Arc<Authority>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl RegistrationService for Registrations {
    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        let outcome = self.register_one(request).await;
        let counter = match &outcome {
            Ok(_) => &self.metrics.registrations,
            Err(_) => &self.metrics.registrations_refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let peer = peer::of(&request)?;
        let identity = peer::member(&peer, clock::unix_ms())?;
        let asked = request.into_inner();
        let health = match asked.health {
            0 => None,
            value => Some(
                Health::from_wire(value)
                    .ok_or_else(|| Status::invalid_argument(format!("health: unknown value {value}")))?,
            ),
        };
        self.registry
            .heartbeat(identity, &asked.lease_id, health)
            .await
            .map_err(|error| to_status(&error))?;
        let trust_bundle_version = self.authority.trust_bundle().borrow().version;
        Ok(Response::new(v1::HeartbeatResponse { ttl_ms: millis(self.registry.ttl()), trust_bundle_version }))
    }

    async fn deregister(
        &self,
        request: Request<v1::DeregisterRequest>,
    ) -> Result<Response<v1::DeregisterResponse>, Status> {
        let peer = peer::of(&request)?;
        let identity = peer::member(&peer, clock::unix_ms())?;
        let host = peer.host.as_ref().map_or("", |host| host.mark.name.as_str());
        let asked = request.get_ref();
        let ended = match (asked.lease_id.as_str(), asked.instance_id.as_str()) {
            (lease_id, "") => self.registry.deregister(identity, lease_id).await,
            ("", instance_id) => self.registry.withdraw(identity, host, instance_id).await,
            _ => return Err(Status::invalid_argument("lease_id or instance_id, not both")),
        };
        ended.map_err(|error| to_status(&error))?;
        Ok(Response::new(v1::DeregisterResponse {}))
    }
}

impl Registrations {
    async fn register_one(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        let peer = peer::of(&request)?;
        let identity = peer::member(&peer, clock::unix_ms())?;
        let announced =
            request.into_inner().workload.ok_or_else(|| Status::invalid_argument("workload: required"))?;
        let reach = self.registry.reach();
        let mut workload = Workload::from_wire(announced, peer.remote.ip(), reach).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(|error| format!("workload.{error}")).collect();
            Status::invalid_argument(lines.join("; "))
        })?;
        if let Some(host) = &peer.host {
            if !host.allows(workload.address) {
                let (address, name) = (workload.address, &host.mark.name);
                return Err(Status::permission_denied(format!(
                    "workload.address: {address} is not one of host {name}'s; `outrigger host list` shows them"
                )));
            }
            workload.host.clone_from(&host.mark.name);
        }
        let recorded = workload.to_wire();
        let lease_id = self.registry.register(identity, workload).await.map_err(|error| to_status(&error))?;
        let ttl_ms = millis(self.registry.ttl());
        Ok(Response::new(v1::RegisterResponse { lease_id, ttl_ms, workload: Some(recorded) }))
    }
}

/// The one mapping of [`RegistryError`] to gRPC.
fn to_status(error: &RegistryError) -> Status {
    match error {
        RegistryError::ForeignWorkload { .. }
        | RegistryError::NotGranted { .. }
        | RegistryError::Lease(LeaseError::NotYours) => Status::permission_denied(error.to_string()),
        RegistryError::Lease(LeaseError::Unknown) => Status::not_found(error.to_string()),
        RegistryError::Lease(LeaseError::Full) => Status::resource_exhausted(error.to_string()),
        RegistryError::Random(_) | RegistryError::Store(_) => {
            tracing::error!(%error, "registry");
            Status::unavailable("the registry could not write it down")
        }
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
