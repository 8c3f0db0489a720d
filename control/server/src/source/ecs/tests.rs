//! The reader against a server that speaks the API's protocol: pages, throttling, failures.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::source::Catalog;
use crate::source::settings::{ECS, SourcesFile};

/// A cluster of this many Fargate tasks, a hundred a page.
#[derive(Default)]
struct Cloud {
    tasks: usize,
    /// What the next calls are answered with instead.
    refusals: VecDeque<(u16, &'static str)>,
    calls: Vec<String>,
}

type Shared = Arc<Mutex<Cloud>>;

async fn answer(State(cloud): State<Shared>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let mut cloud = cloud.lock().unwrap();
    let operation = headers["x-amz-target"].to_str().unwrap().rsplit('.').next().unwrap().to_owned();
    assert!(headers["authorization"].to_str().unwrap().starts_with("AWS4-HMAC-SHA256 Credential=test/"));
    cloud.calls.push(operation.clone());
    if let Some((status, code)) = cloud.refusals.pop_front() {
        let body = json!({"__type": code, "message": "no"}).to_string();
        return (StatusCode::from_u16(status).unwrap(), body);
    }
    let input: Value = serde_json::from_slice(&body).unwrap();
    let arn = |i: usize| format!("arn:aws:ecs:eu-central-1:1:task/prod/{i:032x}");
    let output = match operation.as_str() {
        "ListClusters" => json!({"clusterArns": ["prod"], "nextToken": null}),
        "ListTasks" => {
            let from: usize = input["nextToken"].as_str().map_or(0, |token| token.parse().unwrap());
            let to = (from + 100).min(cloud.tasks);
            let arns: Vec<String> = (from..to).map(arn).collect();
            json!({"taskArns": arns, "nextToken": (to < cloud.tasks).then(|| to.to_string())})
        }
        "DescribeTasks" => {
            let tasks = input["tasks"].as_array().unwrap();
            assert!(tasks.len() <= 100);
            let task = |arn: &Value| {
                let last = u64::from_str_radix(&arn.as_str().unwrap()[arn.as_str().unwrap().len() - 8..], 16)
                    .unwrap();
                let address = format!("10.{}.{}.{}", last >> 16, last >> 8 & 255, last & 255);
                json!({"taskArn": arn, "taskDefinitionArn": "d:1", "lastStatus": "RUNNING", "launchType": "FARGATE", "attachments": null,
                    "containers": [{"name": "app", "lastStatus": "RUNNING", "networkInterfaces": [{"privateIpv4Address": address}]}]})
            };
            json!({"tasks": tasks.iter().map(task).collect::<Vec<_>>()})
        }
        "DescribeTaskDefinition" => {
            json!({"taskDefinition": {"family": "cart", "networkMode": "awsvpc", "containerDefinitions": [
            {"name": "app", "dockerLabels": {"outrigger.io/service": "cart"}, "portMappings": [{"containerPort": 80}]}]}})
        }
        other => panic!("{other}"),
    };
    (StatusCode::OK, output.to_string())
}

struct Fixture {
    cloud: Shared,
    reader: Reader,
    sink: Sink,
    catalog: Arc<Catalog>,
}

async fn fixture(tasks: usize) -> Fixture {
    let cloud: Shared = Arc::new(Mutex::new(Cloud { tasks, ..Cloud::default() }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&cloud));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let text = format!(
        "sources: [{{name: cloud, ecs: {{region: eu-central-1, endpoint: '{endpoint}', callsPerSecond: 1000}}}}]"
    );
    let file = SourcesFile::parse(&text).unwrap();
    let mut reader = Reader::new(file.sources[0].ecs.clone().unwrap()).unwrap();
    reader.client.credentials = crate::aws::Credentials::fixed("test", "secret");
    let registered = tokio::sync::watch::Sender::new(Vec::new().into());
    let catalog = Catalog::new(registered.subscribe(), None);
    let sink = catalog.add("cloud", ECS).await;
    Fixture { cloud, reader, sink, catalog }
}

impl Fixture {
    async fn sync(&mut self) -> Result<Found, EcsError> {
        self.reader.sync(&self.sink, Reach::Network).await
    }

    fn refuse(&self, refusals: &[(u16, &'static str)]) {
        let mut cloud = self.cloud.lock().unwrap();
        cloud.refusals.extend(refusals);
        cloud.calls.clear();
    }

    fn calls(&self, operation: &str) -> usize {
        self.cloud.lock().unwrap().calls.iter().filter(|call| *call == operation).count()
    }
}

#[tokio::test]
async fn every_page_is_read_and_a_definition_only_once() {
    let mut fixture = fixture(250).await;
    let found = fixture.sync().await.unwrap();
    assert_eq!((found.workloads.len(), found.unusable.len()), (250, 0));
    assert_eq!(found.tasks.unwrap().all.len(), 250);
    assert_eq!((fixture.calls("ListTasks"), fixture.calls("DescribeTasks")), (3, 3));
    fixture.sync().await.unwrap();
    assert_eq!(fixture.calls("DescribeTaskDefinition"), 1);
    fixture.cloud.lock().unwrap().tasks = 0;
    assert!(fixture.sync().await.unwrap().workloads.is_empty());
    assert!(fixture.reader.definitions.is_empty(), "one that nobody uses is forgotten");
}

#[tokio::test]
async fn throttled_page_is_waited_for_and_the_list_not_begun_anew() {
    let mut fixture = fixture(250).await;
    fixture.sync().await.unwrap();
    // ListClusters and the first page work, the second page is throttled three times and then breaks once.
    fixture.refuse(&[]);
    let throttle = (400, "ThrottlingException");
    let cloud = Arc::clone(&fixture.cloud);
    let refusing = tokio::spawn(async move {
        loop {
            {
                let mut cloud = cloud.lock().unwrap();
                if cloud.calls.len() == 2 {
                    cloud.refusals.extend([throttle, throttle, throttle, (500, "ServerException")]);
                    return;
                }
            }
            tokio::task::yield_now().await;
        }
    });
    let found = fixture.sync().await.unwrap();
    refusing.await.unwrap();
    assert_eq!(found.workloads.len(), 250);
    let calls: usize = ["ListTasks", "DescribeTasks", "ListClusters"].iter().map(|o| fixture.calls(o)).sum();
    assert_eq!(calls, 3 + 3 + 1 + 4, "each refused call once more and nothing else");
    assert_eq!(fixture.catalog.statuses()[0].throttled, 3);
}

#[tokio::test]
async fn refusal_for_good_fails_the_reading_at_once() {
    let mut fixture = fixture(1).await;
    fixture.refuse(&[(400, "com.amazonaws.ecs#AccessDeniedException")]);
    let error = fixture.sync().await.unwrap_err().to_string();
    assert_eq!(error, "ListClusters: AccessDeniedException: no");
    assert_eq!(fixture.calls("ListClusters"), 1);
}

#[tokio::test(start_paused = true)]
async fn call_is_given_up_after_its_tries() {
    let mut fixture = fixture(1).await;
    fixture.refuse(&[(400, "ThrottlingException"); call::ATTEMPTS_MAX as usize]);
    assert!(fixture.sync().await.is_err());
    assert_eq!(fixture.calls("ListClusters"), call::ATTEMPTS_MAX as usize);
    fixture.refuse(&[(400, "ThrottlingException"); call::ATTEMPTS_MAX as usize - 1]);
    assert_eq!(fixture.sync().await.unwrap().workloads.len(), 1, "one fewer is survived");
}

#[tokio::test]
async fn region_without_a_server_makes_what_is_known_stale() {
    let mut fixture = fixture(3).await;
    let found = fixture.sync().await.unwrap();
    fixture.sink.replace(found, Reading::Full);
    let file =
        SourcesFile::parse("sources: [{name: cloud, ecs: {region: r, endpoint: 'http://127.0.0.1:1'}}]")
            .unwrap();
    let mut away = Reader::new(file.sources[0].ecs.clone().unwrap()).unwrap();
    away.client.credentials = crate::aws::Credentials::fixed("test", "secret");
    tokio::time::pause();
    let error = away.sync(&fixture.sink, Reach::Network).await.unwrap_err();
    fixture.sink.fail(&error.to_string());
    let status = fixture.catalog.statuses().remove(0);
    assert_eq!((status.state, status.workloads), (crate::source::status::State::Stale, 3));
    assert!(status.error.contains("connecting to 127.0.0.1:1"), "{}", status.error);
}
