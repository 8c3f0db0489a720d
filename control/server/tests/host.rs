//! Hosts: what a token made for one gives is bound to it, and ends with it.

mod support;

use outrigger_api::envoy::config::core::v3::Node;
use outrigger_api::envoy::service::discovery::v3 as xds;
use outrigger_api::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use outrigger_api::outrigger::v1;
use outrigger_control::ads::catalog::Kind;
use serde_json::json;
use support::{Member, Operator, channel, channel_as, registration, root_of, sign, start, workload};
use tonic::Code;

/// A host of this name, and a token for `shop/ACCOUNT` on it.
async fn host_token(operator: &Operator, host: &str, addresses: &[&str], account: &str) -> String {
    let body = json!({"addresses": addresses}).to_string();
    let (status, answer) = operator.call("PUT", &format!("/api/v1/hosts/{host}"), &body).await;
    assert_eq!(status, 200, "{answer}");
    let body = json!({"namespace": "shop", "serviceAccount": account, "uses": 2, "host": host}).to_string();
    let (status, answer) = operator.call("POST", "/api/v1/tokens", &body).await;
    assert_eq!((status, answer["host"].as_str()), (200, Some(host)), "{answer}");
    answer["token"].as_str().unwrap().to_owned()
}

async fn register(
    service: &outrigger_control::service::Service,
    member: &Member,
    announced: v1::Workload,
) -> Result<v1::RegisterResponse, tonic::Status> {
    let mut client = registration(channel_as(service, member).await);
    let request = v1::RegisterRequest { workload: Some(announced) };
    client.register(request).await.map(tonic::Response::into_inner)
}

fn at(instance: &str, address: &str) -> v1::Workload {
    v1::Workload { address: address.to_owned(), ..workload(instance, "cart") }
}

#[tokio::test]
async fn revoked_host_loses_tokens_workloads_and_what_was_signed_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let token = host_token(&operator, "rack7", &[], "cart").await;
    let nobody = channel(service.addresses.xds, &root_of(&service), None).await.unwrap();
    let agent = sign(nobody.clone(), &token).await.unwrap();
    // What an agent has signed for its sidecars is bound to the host too.
    let sidecar = sign(channel_as(&service, &agent).await, "").await.unwrap();
    register(&service, &sidecar, at("task-1", "10.0.0.7")).await.unwrap();
    let elsewhere = host_token(&operator, "rack8", &[], "cart").await;
    let elsewhere = sign(nobody.clone(), &elsewhere).await.unwrap();
    register(&service, &elsewhere, at("task-2", "10.0.0.8")).await.unwrap();
    let held = channel_as(&service, &sidecar).await;

    let (status, answer) = operator.call("DELETE", "/api/v1/hosts/rack7", "").await;
    assert_eq!((status, answer["workloadsWithdrawn"].as_u64()), (200, Some(1)), "{answer}");
    assert_eq!(answer["tokensWithdrawn"].as_u64(), Some(1));
    let (_, listed) = operator.call("GET", "/api/v1/workloads", "").await;
    let left: Vec<_> = listed["items"].as_array().unwrap().iter().map(|item| &item["host"]).collect();
    assert_eq!(left, ["rack8"], "{listed}");

    let refused = register(&service, &sidecar, at("task-1", "10.0.0.7")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(sign(held, "").await.err().map(|status| status.code()), Some(Code::PermissionDenied));
    let used = sign(nobody.clone(), &token).await.err().map(|status| status.code());
    assert_eq!(used, Some(Code::Unauthenticated));
    register(&service, &elsewhere, at("task-2", "10.0.0.8")).await.unwrap();

    // Onboarded anew it is a member again; what it had before still is worth nothing.
    let token = host_token(&operator, "rack7", &[], "cart").await;
    let fresh = sign(nobody, &token).await.unwrap();
    register(&service, &fresh, at("task-1", "10.0.0.7")).await.unwrap();
    assert!(register(&service, &sidecar, at("task-1", "10.0.0.7")).await.is_err());
    service.stop().await;
}

/// A stream of a member's proxy that has had its first answer.
async fn followed(
    service: &outrigger_control::service::Service,
    member: &Member,
    id: &str,
) -> (tokio::sync::mpsc::Sender<xds::DeltaDiscoveryRequest>, tonic::Streaming<xds::DeltaDiscoveryResponse>) {
    let (requests, receiver) = tokio::sync::mpsc::channel(4);
    let first = xds::DeltaDiscoveryRequest {
        node: Some(Node { id: id.to_owned(), user_agent_name: "outrigger".to_owned(), ..Node::default() }),
        type_url: Kind::Cluster.type_url().to_owned(),
        ..xds::DeltaDiscoveryRequest::default()
    };
    requests.send(first).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut client = AggregatedDiscoveryServiceClient::new(channel_as(service, member).await);
    let mut responses = client.delta_aggregated_resources(stream).await.unwrap().into_inner();
    assert!(responses.message().await.unwrap().is_some());
    (requests, responses)
}

#[tokio::test]
async fn revoked_host_has_its_open_configuration_stream_ended_and_gets_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let nobody = channel(service.addresses.xds, &root_of(&service), None).await.unwrap();
    let mut members = Vec::new();
    for (host, instance, address) in [("rack7", "task-1", "10.0.0.7"), ("rack8", "task-2", "10.0.0.8")] {
        let token = host_token(&operator, host, &[], "cart").await;
        let member = sign(nobody.clone(), &token).await.unwrap();
        register(&service, &member, at(instance, address)).await.unwrap();
        members.push(member);
    }
    let (_seven, mut of_seven) = followed(&service, &members[0], "task-1").await;
    let (_eight, mut of_eight) = followed(&service, &members[1], "task-2").await;
    let (status, answer) = operator.call("DELETE", "/api/v1/hosts/rack7", "").await;
    assert_eq!(status, 200, "{answer}");
    let end = async {
        loop {
            match of_seven.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status.code()),
            }
        }
    };
    let end = tokio::time::timeout(std::time::Duration::from_secs(10), end).await.expect("the stream ends");
    assert_eq!(end, Some(Code::PermissionDenied));
    let again = async {
        let (_requests, receiver) = tokio::sync::mpsc::channel::<xds::DeltaDiscoveryRequest>(1);
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut client = AggregatedDiscoveryServiceClient::new(channel_as(&service, &members[0]).await);
        let opened = client.delta_aggregated_resources(stream).await;
        opened.err().map(|status| status.code())
    };
    assert_eq!(again.await, Some(Code::PermissionDenied));
    // The other host's goes on: nothing but news comes, and no end.
    let more = tokio::time::timeout(std::time::Duration::from_millis(300), async {
        while of_eight.message().await.expect("no error").is_some() {}
    });
    assert!(more.await.is_err(), "the stream of another host ended");
    service.stop().await;
}

#[tokio::test]
async fn host_announces_its_own_addresses_and_takes_no_instance_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let nobody = channel(service.addresses.xds, &root_of(&service), None).await.unwrap();
    let token = host_token(&operator, "rack7", &["10.0.0.7"], "cart").await;
    let seven = sign(nobody.clone(), &token).await.unwrap();
    let token = host_token(&operator, "rack8", &["10.0.0.8"], "cart").await;
    let eight = sign(nobody, &token).await.unwrap();

    let refused = register(&service, &seven, at("task-1", "10.0.0.8")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    register(&service, &seven, at("task-1", "10.0.0.7")).await.unwrap();
    let refused = register(&service, &eight, at("task-1", "10.0.0.8")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let mut client = registration(channel_as(&service, &eight).await);
    let request =
        v1::DeregisterRequest { instance_id: "task-1".to_owned(), ..v1::DeregisterRequest::default() };
    assert_eq!(client.deregister(request).await.unwrap_err().code(), Code::PermissionDenied);
    service.stop().await;
}

#[tokio::test]
async fn token_for_a_host_that_is_not_known_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let body = r#"{"namespace": "shop", "serviceAccount": "cart", "host": "rack7"}"#;
    assert_eq!(operator.call("POST", "/api/v1/tokens", body).await.0, 404);
    assert_eq!(operator.call("PUT", "/api/v1/hosts/Rack7", "{}").await.0, 400);
    assert_eq!(operator.call("DELETE", "/api/v1/hosts/rack7", "").await.0, 404);
    service.stop().await;
}
