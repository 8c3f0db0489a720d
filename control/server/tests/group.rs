//! WorkloadGroups: what registered workloads have from them, and how healthy they are.

mod support;

use std::time::Duration;

use outrigger_api::outrigger::v1;
use serde_json::Value;
use support::{Operator, channel_as, join, registration, start, workload};
use tonic::Code;

const GROUP: &str = "apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: vms, namespace: shop}
spec:
  metadata: {labels: {tier: front}}
  template: {serviceAccount: cart, labels: {app: cart}, locality: hq/rack7, weight: 7, ports: {http-web: 8080, db: 5432}}
  probe: {periodSeconds: 5, failureThreshold: 2, httpGet: {port: 8080, path: /ready}}
";

fn announced(instance: &str) -> v1::Workload {
    v1::Workload {
        workload_group: "vms".to_owned(),
        ports: Vec::new(),
        address: "10.0.0.7".to_owned(),
        ..workload(instance, "cart")
    }
}

async fn shown(operator: &Operator) -> Value {
    let (_, listed) = operator.call("GET", "/api/v1/workloads", "").await;
    listed["items"][0].clone()
}

async fn apply(operator: &Operator, text: &str) {
    let (status, answer) = operator.call("POST", "/api/v1/apply", text).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn workload_has_from_its_group_what_it_does_not_say_and_is_unhealthy_until_its_probe_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let cart = join(&service, &operator, "cart").await;
    let mut client = registration(channel_as(&service, &cart).await);
    let ask = || v1::RegisterRequest { workload: Some(announced("vm-1")) };

    let early = client.register(ask()).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition, "the proxy tries again until the group is there");
    apply(&operator, GROUP).await;
    let answer = client.register(ask()).await.unwrap().into_inner();
    let probe = answer.probe.unwrap();
    assert_eq!((probe.period_ms, probe.timeout_ms, probe.failure_threshold), (5_000, 1_000, 2));

    let seen = shown(&operator).await;
    assert_eq!((seen["health"].as_str(), seen["weight"].as_u64()), (Some("UNHEALTHY"), Some(7)));
    assert_eq!((seen["group"].as_str(), seen["locality"]["zone"].as_str()), (Some("vms"), Some("rack7")));
    assert_eq!(seen["labels"]["tier"], "front", "a label of the operator's needs no grant");
    let ports: Vec<_> =
        seen["ports"].as_array().unwrap().iter().map(|port| port["protocol"].as_str()).collect();
    assert_eq!(ports, [Some("TCP"), Some("HTTP")]);

    let beat = |health: v1::Health| v1::HeartbeatRequest {
        lease_id: answer.lease_id.clone(),
        health: health.into(),
    };
    client.heartbeat(beat(v1::Health::Unspecified)).await.unwrap();
    assert_eq!(shown(&operator).await["health"], "UNHEALTHY", "nothing is known yet");
    client.heartbeat(beat(v1::Health::Healthy)).await.unwrap();
    assert_eq!(shown(&operator).await["health"], "HEALTHY");

    // The probe may change at any time; without one the proxy is told so.
    apply(
        &operator,
        &GROUP.replace(
            "  probe: {periodSeconds: 5, failureThreshold: 2, httpGet: {port: 8080, path: /ready}}\n",
            "",
        ),
    )
    .await;
    let told = async {
        while client.heartbeat(beat(v1::Health::Healthy)).await.unwrap().into_inner().probe.is_some() {}
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("told with a heartbeat");
    service.stop().await;
}

#[tokio::test]
async fn group_is_for_its_service_account_alone() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    apply(&operator, GROUP).await;
    let evil = join(&service, &operator, "evil").await;
    let mut client = registration(channel_as(&service, &evil).await);
    let asked = v1::Workload { workload_group: "vms".to_owned(), ..workload("vm-1", "evil") };
    let refused = client.register(v1::RegisterRequest { workload: Some(asked) }).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    service.stop().await;
}

#[tokio::test]
async fn instance_is_as_healthy_as_the_worse_of_what_its_proxy_and_its_host_say_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let cart = join(&service, &operator, "cart").await;
    let other = join(&service, &operator, "other").await;
    let mut client = registration(channel_as(&service, &cart).await);
    let report =
        |health: v1::Health| v1::ReportHealthRequest { instance_id: "one".to_owned(), health: health.into() };
    let ask = || v1::RegisterRequest { workload: Some(workload("one", "cart")) };

    let early = client.report_health(report(v1::Health::Unhealthy)).await.unwrap_err();
    assert_eq!(early.code(), Code::NotFound, "the agent tries again");
    let lease = client.register(ask()).await.unwrap().into_inner().lease_id;
    assert_eq!(shown(&operator).await["health"], "HEALTHY");
    client.report_health(report(v1::Health::Unhealthy)).await.unwrap();
    assert_eq!(shown(&operator).await["health"], "UNHEALTHY");
    let beat = |health: v1::Health| v1::HeartbeatRequest { lease_id: lease.clone(), health: health.into() };
    client.heartbeat(beat(v1::Health::Healthy)).await.unwrap();
    assert_eq!(shown(&operator).await["health"], "UNHEALTHY", "the host's word counts too");
    client.register(ask()).await.unwrap();
    assert_eq!(shown(&operator).await["health"], "UNHEALTHY", "a proxy that registers again changes nothing");
    let draining = client.report_health(report(v1::Health::Draining)).await.unwrap_err();
    assert_eq!(draining.code(), Code::InvalidArgument);
    let mut foreign = registration(channel_as(&service, &other).await);
    let refused = foreign.report_health(report(v1::Health::Healthy)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    service.stop().await;

    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    assert_eq!(shown(&operator).await["health"], "UNHEALTHY", "over a restart of the service");
    let mut client = registration(channel_as(&service, &cart).await);
    client.report_health(report(v1::Health::Healthy)).await.unwrap();
    assert_eq!(shown(&operator).await["health"], "HEALTHY");
    service.stop().await;
}
