//! The labels the agent reads.

/// The five labels of the ECS agent.
pub mod ecs {
    /// ARN of the task.
    pub const TASK_ARN: &str = "com.amazonaws.ecs.task-arn";
    /// Cluster: its short name, or its ARN.
    pub const CLUSTER: &str = "com.amazonaws.ecs.cluster";
    /// Name of the container in the task definition.
    pub const CONTAINER: &str = "com.amazonaws.ecs.container-name";
    /// Family of the task definition.
    pub const FAMILY: &str = "com.amazonaws.ecs.task-definition-family";
    /// Revision of the task definition.
    pub const REVISION: &str = "com.amazonaws.ecs.task-definition-version";
}

/// What all of ours begin with.
pub const PREFIX: &str = "outrigger.io/";

/// `SERVICE` or `SERVICE.NAMESPACE`; selects the container.
pub const SERVICE: &str = "outrigger.io/service";
/// Namespace, where `service` has none.
pub const NAMESPACE: &str = "outrigger.io/namespace";
/// Service account; default: the service's name.
pub const SERVICE_ACCOUNT: &str = "outrigger.io/service-account";
/// Version of the application.
pub const VERSION: &str = "outrigger.io/version";
/// WorkloadGroup of its namespace.
pub const WORKLOAD_GROUP: &str = "outrigger.io/workload-group";
/// `false`: the container is left alone.
pub const INJECT: &str = "outrigger.io/inject";
/// `port.NAME`: `[NUMBER:]CONTAINER_PORT/PROTOCOL`.
pub const PORT: &str = "outrigger.io/port.";
/// `false`: nothing is redirected.
pub const CAPTURE: &str = "outrigger.io/capture";
/// Destination ports that are not redirected, separated by commas.
pub const EXCLUDE_OUTBOUND_PORTS: &str = "outrigger.io/exclude-outbound-ports";
/// Destinations that are not redirected, separated by commas.
pub const EXCLUDE_OUTBOUND_CIDRS: &str = "outrigger.io/exclude-outbound-cidrs";
/// Ports of the application that are not redirected, separated by commas. Peers are not sent there.
pub const EXCLUDE_INBOUND_PORTS: &str = "outrigger.io/exclude-inbound-ports";
/// `open` or `closed`: what becomes of traffic while the sidecar does not run.
pub const ON_FAILURE: &str = "outrigger.io/on-failure";
/// Host mode: the port at which the sidecar takes the application's calls.
pub const OUTBOUND_PORT: &str = "outrigger.io/outbound-port";

/// All of an application's, but for [`PORT`].
pub const KNOWN: &[&str] = &[
    SERVICE,
    NAMESPACE,
    SERVICE_ACCOUNT,
    VERSION,
    WORKLOAD_GROUP,
    INJECT,
    CAPTURE,
    EXCLUDE_OUTBOUND_PORTS,
    EXCLUDE_OUTBOUND_CIDRS,
    EXCLUDE_INBOUND_PORTS,
    ON_FAILURE,
    OUTBOUND_PORT,
];

/// Labels of the sidecars the agent starts; by these it finds them again.
pub mod sidecar {
    /// Always `sidecar`.
    pub const ROLE: &str = "outrigger.io/role";
    /// Value of the above.
    pub const ROLE_SIDECAR: &str = "sidecar";
    /// Id of the application's container.
    pub const FOR: &str = "outrigger.io/for";
    /// For people: the application's container by name.
    pub const FOR_NAME: &str = "outrigger.io/for-name";
    /// For people: the task.
    pub const TASK_ARN: &str = "outrigger.io/task-arn";
    /// Digest of all that makes this sidecar what it is; another digest is another sidecar.
    pub const SPEC: &str = "outrigger.io/spec";
    /// The network namespace it was started in; an application that restarted has another one.
    pub const SANDBOX: &str = "outrigger.io/sandbox";
    /// Name under which it registers.
    pub const INSTANCE: &str = "outrigger.io/instance";
    /// `NAMESPACE/SERVICE_ACCOUNT` it has.
    pub const IDENTITY: &str = "outrigger.io/identity";
    /// Port of its admin interface.
    pub const ADMIN_PORT: &str = "outrigger.io/admin-port";
    /// Host mode: first of the ports it has taken.
    pub const HOST_PORT: &str = "outrigger.io/host-port";
}
