//! Answers of the ECS API: the fields that are used, all of them optional as in the API.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `ListClusters`.
#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
pub struct Clusters {
    /// ARNs.
    pub cluster_arns: Vec<String>,
    /// More of them.
    pub next_token: Option<String>,
}

/// `ListTasks`.
#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskArns {
    /// ARNs.
    pub task_arns: Vec<String>,
    /// More of them.
    pub next_token: Option<String>,
}

/// `DescribeTasks`.
#[derive(Deserialize, Default, Debug)]
#[serde(default)]
pub struct Tasks {
    /// Those that are there.
    pub tasks: Vec<Task>,
}

/// `DescribeContainerInstances`.
#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
pub struct Instances {
    /// Those that are there.
    pub container_instances: Vec<Instance>,
}

/// `DescribeTaskDefinition`.
#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
pub struct DefinitionAnswer {
    /// It.
    pub task_definition: Definition,
}

/// A task.
#[derive(Deserialize, Clone, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct Task {
    pub task_arn: String,
    pub task_definition_arn: String,
    pub group: String,
    pub last_status: String,
    pub desired_status: String,
    pub health_status: String,
    pub launch_type: String,
    pub availability_zone: String,
    pub container_instance_arn: Option<String>,
    pub containers: Vec<Container>,
    pub attachments: Vec<Attachment>,
}

/// A container of a task.
#[derive(Deserialize, Clone, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct Container {
    pub name: String,
    pub last_status: String,
    pub health_status: String,
    pub network_bindings: Vec<Binding>,
    pub network_interfaces: Vec<Interface>,
}

/// A mapped port of a container in bridge or host mode.
#[derive(Deserialize, Clone, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct Binding {
    #[serde(rename = "bindIP")]
    pub bind_ip: String,
    pub container_port: Option<i64>,
    pub host_port: Option<i64>,
    pub protocol: String,
}

/// An elastic network interface, of a container in awsvpc mode.
#[derive(Deserialize, Clone, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct Interface {
    pub private_ipv4_address: Option<String>,
    pub ipv6_address: Option<String>,
}

/// What is attached to a task: an elastic network interface.
#[derive(Deserialize, Clone, Default, Debug)]
#[serde(default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct Attachment {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub details: Vec<Pair>,
}

/// A name with a value: a detail of an attachment, or an attribute of an instance.
#[derive(Deserialize, Clone, Default, Debug)]
#[serde(default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct Pair {
    pub name: String,
    pub value: Option<String>,
}

/// A container instance.
#[derive(Deserialize, Clone, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct Instance {
    pub container_instance_arn: String,
    pub ec2_instance_id: String,
    pub attributes: Vec<Pair>,
}

impl Instance {
    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|pair| pair.name == name).and_then(|pair| pair.value.as_deref())
    }
}

/// A port number as the API gives it; 0 is "none".
pub fn port(number: Option<i64>) -> Option<u16> {
    number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0)
}

/// A revision of a task definition. It never changes.
#[derive(Deserialize, Clone, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct Definition {
    pub family: String,
    pub revision: i64,
    pub network_mode: Option<String>,
    pub container_definitions: Vec<ContainerDefinition>,
}

/// A container of a task definition.
#[derive(Deserialize, Clone, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct ContainerDefinition {
    pub name: String,
    pub docker_labels: Option<BTreeMap<String, String>>,
    pub port_mappings: Vec<PortMapping>,
}

/// A port of a container of a task definition.
#[derive(Deserialize, Clone, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct PortMapping {
    pub name: Option<String>,
    pub container_port: Option<i64>,
    pub host_port: Option<i64>,
    pub protocol: Option<String>,
    pub app_protocol: Option<String>,
}
