//! The ECS source against moto's server, which speaks AWS's APIs. `cargo xtask peers sources` starts it and runs this;
//! the address is in `OUTRIGGER_MOTO`, and any credentials are in the environment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign as sign_request};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use outrigger_api::outrigger::v1;
use outrigger_api::outrigger::v1::certificate_service_client::CertificateServiceClient;
use outrigger_api::outrigger::v1::proof::Kind;
use outrigger_control::identity::attest::aws::{AUDIENCE_HEADER, BODY, CONTENT_TYPE, CSR_HEADER};
use outrigger_control::outward::{Origin, tls_of_the_web};
use outrigger_control::service::Service;
use outrigger_control::source::catalog::{Reading, Sink};
use outrigger_control::source::ecs::Reader;
use outrigger_control::source::register::Workloads;
use outrigger_control::source::settings::{ECS, SourcesFile};
use outrigger_control::source::{Catalog, Health, Reach};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::{Operator, channel, root_of, settings};

mod support;

struct Moto {
    origin: Origin,
    url: String,
}

impl Moto {
    /// Its tasks would take a step towards their end at every look: here they stay where they are.
    async fn here() -> Self {
        let url = std::env::var("OUTRIGGER_MOTO").expect("OUTRIGGER_MOTO: run `cargo xtask peers sources`");
        let moto = Self { origin: Origin::parse(&url, tls_of_the_web).unwrap().0, url };
        let stay =
            json!({"model_name": "ecs::task", "transition": {"progression": "manual", "times": 1_000_000}});
        let request = Request::post("/moto-api/state-manager/set-transition")
            .header("content-type", "application/json");
        let request = request.body(Full::new(Bytes::from(stay.to_string()))).unwrap();
        let answer = moto.origin.call(request, 1 << 20).await.unwrap();
        assert!(answer.status.is_success(), "{answer:?}");
        moto
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

fn element<'a>(text: &'a str, name: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {text}"));
    rest.split_once(&format!("</{name}>")).unwrap().0
}

/// What a task with these credentials sends to be signed.
fn request(credentials: &Credentials, host: &str) -> v1::SignRequest {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let csr_hash: String = Sha256::digest(csr.der()).iter().map(|byte| format!("{byte:02x}")).collect();
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("eu-central-1")
        .name("sts")
        .time(std::time::SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .unwrap()
        .into();
    let headers = [
        ("host", host),
        ("content-type", CONTENT_TYPE),
        (AUDIENCE_HEADER, "cluster.local"),
        (CSR_HEADER, &csr_hash),
    ];
    let body = SignableBody::Bytes(BODY.as_bytes());
    let url = format!("http://{host}/");
    let signable = SignableRequest::new("POST", url, headers.into_iter(), body).unwrap();
    let (instructions, _) = sign_request(signable, &params).unwrap().into_parts();
    let mut signed = Request::post("/").body(()).unwrap();
    instructions.apply_to_request_http1x(&mut signed);
    let header = |name: &str| signed.headers()[name].to_str().unwrap().to_owned();
    let proof = v1::AwsProof {
        authorization: header("authorization"),
        date: header("x-amz-date"),
        security_token: header("x-amz-security-token"),
    };
    let proof =
        v1::Proof { namespace: "shop".into(), service_account: "cart".into(), kind: Some(Kind::Aws(proof)) };
    v1::SignRequest { csr_der: csr.der().to_vec(), join_token: String::new(), proof: Some(proof) }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask peers sources"]
async fn role_of_a_task_becomes_an_identity_when_a_rule_says_so() {
    let moto = Moto::here().await;
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let ask = "Action=AssumeRole&Version=2011-06-15&RoleArn=arn:aws:iam::123456789012:role/shop-cart&RoleSessionName=0123456789abcdef";
    let answer = moto.send("sts", &headers, ask.into()).await;
    let part = |name: &str| element(&answer, name).to_owned();
    let credentials = Credentials::new(
        part("AccessKeyId"),
        part("SecretAccessKey"),
        Some(part("SessionToken")),
        None,
        "test",
    );

    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(outrigger_control::service::ServiceSettings {
        sts: Some(("eu-central-1".into(), Some(moto.url.clone()))),
        ..settings(dir.path())
    })
    .await
    .unwrap();
    let operator = Operator::of(&service, dir.path());
    let nobody = channel(service.addresses.xds, &root_of(&service), None).await.unwrap();
    let mut client = CertificateServiceClient::new(nobody);
    let host = moto.origin.authority();
    let refused = client.sign(request(&credentials, host)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "no rule yet");

    let path = "/api/v1/attestation-rules/shop/cart";
    let (status, answer) =
        operator.call("PUT", path, r#"{"aws": [{"account": "123456789012", "role": "x/y"}]}"#).await;
    assert_eq!(status, 400, "{answer}");
    let rule = r#"{"aws": [{"account": "123456789012", "role": "shop-cart"}]}"#;
    let (status, answer) = operator.call("PUT", path, rule).await;
    assert_eq!(status, 200, "{answer}");
    let signed = client.sign(request(&credentials, host)).await.unwrap().into_inner();
    assert_eq!(signed.spiffe_id, "spiffe://cluster.local/ns/shop/sa/cart");
    // The same proof for another key: STS is told of another request than was signed. moto looks at no signature, so
    // this is tested against a server that does; here the user without a role is refused.
    let user = Credentials::new("AKIAUSER", "secret", Some("token".into()), None, "test");
    let refused = client.sign(request(&user, host)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    let (status, _) = operator.call("DELETE", path, "").await;
    assert_eq!(status, 200);
    let refused = client.sign(request(&credentials, host)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "the rule is gone");
    service.stop().await;
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
    let moto = Moto::here().await;
    moto.cluster("mixed").await;
    let attribute = |name: &str, value: &str| json!({"name": name, "value": value});
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let run = "Action=RunInstances&Version=2016-11-15&ImageId=ami-12c6146b&MinCount=1&MaxCount=1";
    let host = moto.send("ec2", &headers, run.into()).await;
    let document = json!({"instanceId": element(&host, "instanceId")}).to_string();
    let registered = moto
        .ecs("RegisterContainerInstance", json!({"cluster": "mixed", "instanceIdentityDocument": document}))
        .await;
    let instance = registered["containerInstance"]["containerInstanceArn"].as_str().unwrap();
    let instance = instance.rsplit('/').next().unwrap();
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
    let moto = Moto::here().await;
    moto.cluster("large").await;
    moto.definition("many", "awsvpc", json!({"outrigger.io/service": "many"})).await;
    assert_eq!(moto.run("large", "many", "FARGATE", 1_000).await.len(), 1_000);
    let mut fixture = fixture(&moto, "large").await;
    let began = Instant::now();
    fixture.read().await;
    let took = began.elapsed();
    println!("1000 tasks were discovered in {took:?}");
    let status = fixture.catalog.statuses().remove(0);
    assert_eq!(status.workloads, 1_000, "{status:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}
