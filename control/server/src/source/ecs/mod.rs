//! Amazon ECS as a source: tasks on EC2 and Fargate, and a cross-check of those on external hosts.
//!
//! ECS tells nobody of changes, so everything is read again every few seconds: `ListTasks` (what is to run), then
//! `DescribeTasks` a hundred at a time. What does not change, the revisions of task definitions, is read once. A call
//! that fails is made again, with full jitter, so a page that was throttled is waited for and not the whole list
//! begun anew; a reading that fails as a whole changes nothing.
//!
//! Reading order: [`wire`] (answers) · [`call`] (signed calls) · [`read`] (what a task is) · here.

pub mod call;
pub mod read;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::json;
use tokio::time::Instant;

use super::catalog::{Found, Reading, RunningTasks, Sink};
use super::settings::EcsSettings;
use super::workload::Reach;
use crate::outward::CallError;
use call::{Client, EcsError, without_null};
use wire::{Clusters, Definition, DefinitionAnswer, Instance, Instances, Task, TaskArns, Tasks};

/// Most tasks of one source, in all clusters.
pub const TASKS_MAX: usize = 50_000;

/// Most clusters, which is also AWS's own limit.
const CLUSTERS_MAX: usize = 10_000;

/// Most ARNs that one call lists or describes (ECS API reference).
const PAGE: usize = 100;

/// See the module.
pub struct Reader {
    settings: EcsSettings,
    client: Client,
    /// By ARN; those that are in use.
    definitions: HashMap<String, Definition>,
}

impl Reader {
    /// With these settings. Nothing is called yet.
    ///
    /// *Errors*: an endpoint or CA file that cannot be used.
    pub fn new(settings: EcsSettings) -> Result<Self, CallError> {
        let client = Client::new(&settings)?;
        Ok(Self { settings, client, definitions: HashMap::new() })
    }

    /// Reads every interval, for ever.
    pub async fn run(mut self, sink: Sink, reach: Reach) {
        loop {
            let began = Instant::now();
            match self.sync(&sink, reach).await {
                Ok(found) => {
                    tracing::debug!(source = sink.name(), workloads = found.workloads.len(), took = ?began.elapsed(), "ecs read");
                    sink.replace(found, Reading::Full);
                }
                Err(error) => sink.fail(&error.to_string()),
            }
            // A tenth of jitter: several sources, or services, must not keep step.
            let interval = self.settings.interval().mul_f64(0.95 + fastrand::f64() / 10.0);
            let next = began.checked_add(interval).unwrap_or(began);
            tokio::time::sleep_until(next).await;
        }
    }

    /// Reads everything once.
    ///
    /// *Errors*: [`EcsError`]; what was learnt of task definitions stays for the next time.
    pub async fn sync(&mut self, sink: &Sink, reach: Reach) -> Result<Found, EcsError> {
        let mut found = Found::default();
        let mut running = RunningTasks::default();
        let mut used: BTreeSet<String> = BTreeSet::new();
        for cluster in self.clusters(sink).await? {
            let arns = self.task_arns(&cluster, running.all.len(), sink).await?;
            let mut tasks: Vec<Task> = Vec::with_capacity(arns.len());
            for page in arns.chunks(PAGE) {
                let input = json!({"cluster": cluster, "tasks": page});
                let answer: Tasks = self.client.call("DescribeTasks", &input, sink).await?;
                tasks.extend(answer.tasks);
            }
            let instances = self.instances(&cluster, &tasks, sink).await?;
            for task in &tasks {
                self.learn(&task.task_definition_arn, sink).await?;
                running.all.insert(read::task_id(&task.task_arn).to_owned());
                used.insert(task.task_definition_arn.clone());
                let Some(definition) = self.definitions.get(&task.task_definition_arn) else { continue };
                let instance = task.container_instance_arn.as_ref().and_then(|arn| instances.get(arn));
                let known = read::Known { task, definition, instance, settings: &self.settings };
                let read = read::read(&known);
                if read.is_expected {
                    running.expected.insert(read::task_id(&task.task_arn).to_owned());
                }
                found.unusable.extend(read.unusable);
                for draft in read.drafts {
                    match draft.check(sink.name(), reach) {
                        Ok(workload) => found.workloads.push(workload),
                        Err(unusable) => found.unusable.push(unusable),
                    }
                }
            }
        }
        self.definitions.retain(|arn, _| used.contains(arn));
        found.tasks = Some(running);
        Ok(found)
    }

    async fn clusters(&self, sink: &Sink) -> Result<Vec<String>, EcsError> {
        if !self.settings.clusters.is_empty() {
            return Ok(self.settings.clusters.clone());
        }
        let mut clusters: Vec<String> = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let input = json!({"maxResults": PAGE, "nextToken": token});
            let page: Clusters = self.client.call("ListClusters", &without_null(input), sink).await?;
            clusters.extend(page.cluster_arns);
            token = page.next_token.filter(|token| !token.is_empty());
            if token.is_none() || clusters.len() >= CLUSTERS_MAX {
                return Ok(clusters);
            }
        }
    }

    /// Tasks that are to run. One that is to stop is left out at once, although it may still run.
    async fn task_arns(&self, cluster: &str, known: usize, sink: &Sink) -> Result<Vec<String>, EcsError> {
        let mut arns: Vec<String> = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let input = json!({
                "cluster": cluster, "desiredStatus": "RUNNING", "maxResults": PAGE, "nextToken": token,
            });
            let page: TaskArns = self.client.call("ListTasks", &without_null(input), sink).await?;
            arns.extend(page.task_arns);
            if known + arns.len() > TASKS_MAX {
                return Err(EcsError::TooMany);
            }
            token = page.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(arns);
            }
        }
    }

    /// The container instances of tasks, by ARN.
    async fn instances(
        &self,
        cluster: &str,
        tasks: &[Task],
        sink: &Sink,
    ) -> Result<BTreeMap<String, Instance>, EcsError> {
        let wanted = tasks.iter().filter(|task| task.launch_type != "EXTERNAL");
        let arns: BTreeSet<&str> = wanted.filter_map(|task| task.container_instance_arn.as_deref()).collect();
        let arns: Vec<&str> = arns.into_iter().collect();
        let mut instances = BTreeMap::new();
        for page in arns.chunks(PAGE) {
            let input = json!({"cluster": cluster, "containerInstances": page});
            let answer: Instances = self.client.call("DescribeContainerInstances", &input, sink).await?;
            let by_arn = answer.container_instances.into_iter();
            instances.extend(by_arn.map(|instance| (instance.container_instance_arn.clone(), instance)));
        }
        Ok(instances)
    }

    /// Reads a task definition that is not known yet. One that is gone is as one without labels.
    async fn learn(&mut self, arn: &str, sink: &Sink) -> Result<(), EcsError> {
        if arn.is_empty() || self.definitions.contains_key(arn) {
            return Ok(());
        }
        let input = json!({"taskDefinition": arn});
        let answer = self.client.call::<DefinitionAnswer>("DescribeTaskDefinition", &input, sink).await;
        let definition = match answer {
            Ok(answer) => answer.task_definition,
            Err(EcsError::Refused { code, .. }) if code == "ClientException" => Definition::default(),
            Err(error) => return Err(error),
        };
        self.definitions.insert(arn.to_owned(), definition);
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
