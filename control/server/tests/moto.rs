//! The ECS source against moto's server, which speaks AWS's APIs. `cargo xtask peers sources` starts it and runs this;
//! the address is in `OUTRIGGER_MOTO`, and any credentials are in the environment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use outrigger_control::outward::{Origin, tls_of_the_web};
use outrigger_control::source::catalog::{Reading, Sink};
use outrigger_control::source::ecs::Reader;
use outrigger_control::source::register::Workloads;
use outrigger_control::source::settings::{ECS, SourcesFile};
use outrigger_control::source::{Catalog, Health, Reach};
use serde_json::{Value, json};

struct Moto {
    origin: Origin,
    url: String,
}

impl Moto {
    fn here() -> Self {
        let url = std::env::var("OUTRIGGER_MOTO").expect("OUTRIGGER_MOTO: run `cargo xtask peers sources`");
        Self { origin: Origin::parse(&url, tls_of_the_web).unwrap().0, url }
    }

    /// moto finds the service by the credential's scope and looks at no signature.
    async fn send(&self, service: &str, headers: &[(&str, &str)], body: String) -> String {
        let scope = format!("AWS4-HMAC-SHA256 Credential=test/20260101/eu-central-1/{service}/aws4_request");
        let mut request = Request::post("/").header("authorization", scope);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer =
            self.origin.call(request.body(Full::new(Bytes::from(body))).unwrap(), 64 << 20).await.unwrap();
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(answer.status.is_success(), "{text}");
        text
    }

    async fn ecs(&self, operation: &str, input: Value) -> Value {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        let headers = [("x-amz-target", target.as_str()), ("content-type", "application/x-amz-json-1.1")];
        serde_json::from_str(&self.send("ecs", &headers, input.to_string()).await).unwrap()
    }

    async fn subnet(&self) -> String {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let text = self.send("ec2", &headers, "Action=DescribeSubnets&Version=2016-11-15".into()).await;
        let (_, rest) = text.split_once("<subnetId>").unwrap();
        rest.split_once("</subnetId>").unwrap().0.to_owned()
    }

    async fn cluster(&self, name: &str) {
        self.ecs("CreateCluster", json!({"clusterName": name})).await;
    }

    async fn definition(&self, family: &str, mode: &str, labels: Value) {
        let container = json!({"name": "app", "image": "app", "cpu": 1, "memory": 1, "dockerLabels": labels,
            "portMappings": [{"containerPort": 8080, "protocol": "tcp", "name": "web", "appProtocol": "http"}]});
        let input = json!({"family": family, "networkMode": mode, "containerDefinitions": [container], "cpu": "256", "memory": "512"});
        self.ecs("RegisterTaskDefinition", input).await;
    }

    async fn run(&self, cluster: &str, family: &str, launch_type: &str, count: usize) -> Vec<String> {
        let mut arns = Vec::new();
        for part in (0..count).step_by(10) {
            let mut input = json!({"cluster": cluster, "taskDefinition": family, "launchType": launch_type, "count": 10.min(count - part)});
            if launch_type == "FARGATE" {
                let network = json!({"subnets": [self.subnet().await], "securityGroups": []});
                input["networkConfiguration"] = json!({"awsvpcConfiguration": network});
            }
            let answer = self.ecs("RunTask", input).await;
            arns.extend(
                answer["tasks"].as_array().unwrap().iter().map(|t| t["taskArn"].as_str().unwrap().to_owned()),
            );
        }
        arns
    }
}

struct Fixture {
    reader: Reader,
    sink: Sink,
    catalog: Arc<Catalog>,
}

async fn fixture(moto: &Moto, cluster: &str) -> Fixture {
    let text = format!(
        "sources: [{{name: cloud, ecs: {{region: eu-central-1, endpoint: '{}', clusters: [{cluster}], namespaces: [default, shop]}}}}]",
        moto.url
    );
    let file = SourcesFile::parse(&text).unwrap();
    let reader = Reader::new(file.sources[0].ecs.clone().unwrap()).unwrap();
    let registered = tokio::sync::watch::Sender::<Workloads>::new(Vec::new().into());
    let catalog = Catalog::new(registered.subscribe(), None);
    let sink = catalog.add("cloud", ECS).await;
    Fixture { reader, sink, catalog }
}

impl Fixture {
    async fn read(&mut self) {
        let found = self.reader.sync(&self.sink, Reach::Network).await.unwrap();
        self.sink.replace(found, Reading::Full);
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask peers sources"]
async fn tasks_of_every_launch_type_are_what_they_are_to_the_mesh() {
    let moto = Moto::here();
    moto.cluster("mixed").await;
    let attribute = |name: &str, value: &str| json!({"name": name, "value": value});
    let document = json!({"instanceId": "i-0123456789abcdef0"}).to_string();
    let registered = moto
        .ecs("RegisterContainerInstance", json!({"cluster": "mixed", "instanceIdentityDocument": document}))
        .await;
    let instance = registered["containerInstance"]["containerInstanceArn"].as_str().unwrap();
    let mut attributes =
        vec![attribute("outrigger.address", "10.9.0.1"), attribute("outrigger.locality", "hq/rack7")];
    for attribute in &mut attributes {
        attribute["targetId"] = json!(instance);
        attribute["targetType"] = json!("container-instance");
    }
    moto.ecs("PutAttributes", json!({"cluster": "mixed", "attributes": attributes})).await;
    moto.definition("cloudy", "awsvpc", json!({"outrigger.io/service": "cloudy.shop"})).await;
    moto.definition("hosted", "host", json!({"outrigger.io/service": "hosted"})).await;
    moto.definition("outside", "host", json!({"outrigger.io/service": "outside"})).await;
    moto.definition("other", "host", json!({})).await;
    let cloudy = moto.run("mixed", "cloudy", "FARGATE", 200).await;
    moto.run("mixed", "hosted", "EC2", 1).await;
    moto.run("mixed", "outside", "EXTERNAL", 2).await;
    moto.run("mixed", "other", "EC2", 1).await;

    let mut fixture = fixture(&moto, "mixed").await;
    fixture.read().await;
    fixture.read().await;
    let status = fixture.catalog.statuses().remove(0);
    assert_eq!((status.workloads, status.unusable_count), (201, 0), "{status:?}");
    let drift = status.drift.unwrap();
    assert_eq!((drift.unregistered_count, drift.not_running_count), (2, 0), "{drift:?}");
    let workloads = fixture.catalog.workloads().borrow().clone();
    let hosted = workloads.iter().find(|w| w.service == "hosted").unwrap();
    assert_eq!((hosted.address.to_string(), hosted.ports[0].target_port), ("10.9.0.1".into(), 8_080));
    assert_eq!((hosted.locality.region.as_str(), hosted.locality.zone.as_str()), ("hq", "rack7"));
    let one = workloads.iter().find(|w| w.service == "cloudy").unwrap();
    assert_eq!(
        (one.namespace.as_str(), one.health, one.ports[0].name.as_str()),
        ("shop", Health::Healthy, "web")
    );
    assert_eq!(one.locality.region, "eu-central-1");

    moto.ecs("StopTask", json!({"cluster": "mixed", "task": cloudy[0]})).await;
    fixture.read().await;
    assert_eq!(
        fixture.catalog.statuses()[0].workloads,
        200,
        "a task that was stopped is gone at the next reading"
    );
    moto.ecs("DeleteCluster", json!({"cluster": "mixed"})).await;
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask peers sources"]
async fn thousand_tasks_are_discovered_within_ten_seconds() {
    let moto = Moto::here();
    moto.cluster("large").await;
    moto.definition("many", "awsvpc", json!({"outrigger.io/service": "many"})).await;
    assert_eq!(moto.run("large", "many", "FARGATE", 1_000).await.len(), 1_000);
    let mut fixture = fixture(&moto, "large").await;
    let began = Instant::now();
    fixture.read().await;
    let took = began.elapsed();
    println!("1000 tasks were discovered in {took:?}");
    assert_eq!(fixture.catalog.statuses()[0].workloads, 1_000);
    assert!(took < Duration::from_secs(10), "{took:?}");
}
