//! `outrigger.v1.RegistrationService`: the registry on the wire.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use outrigger_api::outrigger::v1;
use outrigger_api::outrigger::v1::registration_service_server::RegistrationService;
use tonic::{Request, Response, Status};

use super::peer;
use crate::clock;
use crate::identity::Authority;
use crate::publish::Publisher;
use crate::source::group;
use crate::source::lease::LeaseError;
use crate::source::{Health, Registry, RegistryError, Workload};
use crate::store::SharedStore;
use crate::telemetry::Metrics;

/// See the module.
pub struct Registrations {
    /// Has the leases.
    pub registry: Arc<Registry>,
    /// Has the WorkloadGroups.
    pub store: SharedStore,
    /// Has them in memory.
    pub publisher: Arc<Publisher>,
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
        let probe = self.registry.group_of(&asked.lease_id).and_then(|(namespace, group)| {
            group::known(&self.publisher.world(), &namespace, &group)?.probe.as_ref().map(group::to_wire)
        });
        let ttl_ms = millis(self.registry.ttl());
        Ok(Response::new(v1::HeartbeatResponse { ttl_ms, trust_bundle_version, probe }))
    }

    async fn report_health(
        &self,
        request: Request<v1::ReportHealthRequest>,
    ) -> Result<Response<v1::ReportHealthResponse>, Status> {
        let peer = peer::of(&request)?;
        let identity = peer::member(&peer, clock::unix_ms())?;
        let asked = request.get_ref();
        let health = match Health::from_wire(asked.health) {
            Some(health @ (Health::Healthy | Health::Unhealthy)) => health,
            _ => return Err(Status::invalid_argument("health: HEALTHY or UNHEALTHY")),
        };
        let host = peer.host.as_ref().map_or("", |host| host.mark.name.as_str());
        let noted = self.registry.report(identity, host, &asked.instance_id, health).await;
        noted.map_err(|error| to_status(&error))?;
        Ok(Response::new(v1::ReportHealthResponse {}))
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
        let mut announced =
            request.into_inner().workload.ok_or_else(|| Status::invalid_argument("workload: required"))?;
        let (vouched, probe) = self.fill_in(&mut announced).await?;
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
        let lease_id = self
            .registry
            .register_in(identity, workload, &vouched)
            .await
            .map_err(|error| to_status(&error))?;
        let ttl_ms = millis(self.registry.ttl());
        Ok(Response::new(v1::RegisterResponse { lease_id, ttl_ms, workload: Some(recorded), probe }))
    }

    /// What the workload has from its group: the labels, and the probe.
    async fn fill_in(
        &self,
        announced: &mut v1::Workload,
    ) -> Result<(BTreeMap<String, String>, Option<v1::Probe>), Status> {
        let (namespace, name) = (&announced.namespace, &announced.workload_group);
        if name.is_empty() {
            return Ok((BTreeMap::new(), None));
        }
        let group = group::stored(&self.store, namespace, name).await.map_err(|error| {
            tracing::error!(%error, "workload group not read");
            Status::unavailable("the workload group could not be read")
        })?;
        let Some(group) = group else {
            // The proxy tries again until somebody applies it.
            return Err(Status::failed_precondition(format!(
                "there is no WorkloadGroup {name:?} in {namespace:?}"
            )));
        };
        let vouched = group::apply(&group, announced).map_err(Status::permission_denied)?;
        Ok((vouched, group.probe.as_ref().map(group::to_wire)))
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
