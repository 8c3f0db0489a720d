//! Joining, renewing, registering: the mesh port of a running service, over real TLS.

mod support;

use std::time::Duration;

use outrigger_api::outrigger::v1;
use outrigger_api::outrigger::v1::certificate_service_client::CertificateServiceClient;
use support::{
    Operator, channel, channel_as, join, registration, root_of, sign, start, start_with, workload,
};
use tonic::Code;

#[tokio::test]
async fn host_joins_with_a_token_once_and_renews_with_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let token = operator.join_token("cart", 1).await;
    let nobody = channel(service.addresses.xds, &root_of(&service), None).await.unwrap();

    let refused = sign(nobody.clone(), "").await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let bad = v1::SignRequest { csr_der: b"not a request".to_vec(), join_token: token.clone(), proof: None };
    let refused = CertificateServiceClient::new(nobody.clone()).sign(bad).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument, "and the token is still good");

    let member = sign(nobody.clone(), &token).await.unwrap();
    assert_eq!(member.signed.spiffe_id, "spiffe://cluster.local/ns/shop/sa/cart");
    let refused = sign(nobody, &token).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated, "a single use");

    let renewed = sign(channel_as(&service, &member).await, "").await.unwrap();
    assert_eq!(renewed.signed.spiffe_id, member.signed.spiffe_id);
    assert_ne!(renewed.signed.certificate_chain_pem, member.signed.certificate_chain_pem);
    service.stop().await;
}

#[tokio::test]
async fn workload_registers_beats_and_leaves_only_as_itself() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let cart = join(&service, &operator, "cart").await;
    let evil = join(&service, &operator, "evil").await;
    let mut as_cart = registration(channel_as(&service, &cart).await);
    let mut as_evil = registration(channel_as(&service, &evil).await);
    let ask = |instance: &str| v1::RegisterRequest { workload: Some(workload(instance, "cart")) };

    let nobody = channel(service.addresses.xds, &root_of(&service), None).await.unwrap();
    let refused = registration(nobody).register(ask("one")).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(as_evil.register(ask("one")).await.err().unwrap().code(), Code::PermissionDenied);
    let empty = as_cart.register(v1::RegisterRequest::default()).await.err().unwrap();
    assert_eq!(empty.code(), Code::InvalidArgument);

    let lease = as_cart.register(ask("one")).await.unwrap().into_inner();
    assert_eq!(lease.ttl_ms, 30_000);
    assert_eq!(lease.workload.unwrap().address, "127.0.0.1", "where the call came from");
    let (_, listed) = operator.call("GET", "/api/v1/workloads", "").await;
    assert_eq!(listed["items"][0]["instanceId"], "one");
    assert_eq!(listed["items"][0]["labels"]["app"], "cart");

    let beat =
        |health: v1::Health| v1::HeartbeatRequest { lease_id: lease.lease_id.clone(), health: health.into() };
    assert_eq!(
        as_evil.heartbeat(beat(v1::Health::Draining)).await.err().unwrap().code(),
        Code::PermissionDenied
    );
    let answer = as_cart.heartbeat(beat(v1::Health::Draining)).await.unwrap().into_inner();
    assert_eq!(answer.trust_bundle_version, 1);
    let (_, listed) = operator.call("GET", "/api/v1/workloads", "").await;
    assert_eq!(listed["items"][0]["health"], "DRAINING");

    let leave = v1::DeregisterRequest { lease_id: lease.lease_id.clone(), ..Default::default() };
    as_cart.deregister(leave).await.unwrap();
    let gone = as_cart.heartbeat(beat(v1::Health::Unspecified)).await.err().unwrap();
    assert_eq!(gone.code(), Code::NotFound);

    // The host's agent ends it by the instance's name, with the same identity and without the lease's id.
    let again = as_cart.register(ask("one")).await.unwrap().into_inner();
    let withdraw = v1::DeregisterRequest { instance_id: "one".into(), ..Default::default() };
    let refused = as_evil.deregister(withdraw.clone()).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let both = v1::DeregisterRequest { lease_id: again.lease_id.clone(), instance_id: "one".into() };
    assert_eq!(as_cart.deregister(both).await.err().unwrap().code(), Code::InvalidArgument);
    as_cart.deregister(withdraw.clone()).await.unwrap();
    let (_, listed) = operator.call("GET", "/api/v1/workloads", "").await;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(0));
    as_cart.deregister(withdraw).await.expect("twice is no error");
    service.stop().await;
}

#[tokio::test]
async fn restart_keeps_identities_leases_and_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let (member, lease) = {
        let service = start(dir.path()).await;
        let operator = Operator::of(&service, dir.path());
        let member = join(&service, &operator, "cart").await;
        let request = v1::RegisterRequest { workload: Some(workload("one", "cart")) };
        let lease =
            registration(channel_as(&service, &member).await).register(request).await.unwrap().into_inner();
        assert!(service.first_token.is_some());
        service.stop().await;
        (member, lease)
    };
    let service = start(dir.path()).await;
    assert!(service.first_token.is_none(), "the token is made once");
    let operator = Operator::of(&service, dir.path());
    let (status, listed) = operator.call("GET", "/api/v1/workloads", "").await;
    assert_eq!((status, listed["items"].as_array().unwrap().len()), (200, 1));
    let beat = v1::HeartbeatRequest { lease_id: lease.lease_id, health: 0 };
    registration(channel_as(&service, &member).await).heartbeat(beat).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn rotation_of_the_signing_ca_reaches_members_and_disturbs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let service = start_with(dir.path(), Duration::from_secs(20)).await;
    let operator = Operator::of(&service, dir.path());
    let mut old = join(&service, &operator, "cart").await;
    let mut watcher = CertificateServiceClient::new(channel_as(&service, &old).await);
    let mut bundles = watcher.watch_trust_bundle(v1::WatchTrustBundleRequest {}).await.unwrap().into_inner();
    let certificates = |bundle: &v1::TrustBundle| bundle.pem.matches("BEGIN CERTIFICATE").count();
    let first = bundles.message().await.unwrap().unwrap();
    assert_eq!((first.version, certificates(&first)), (1, 1));

    let (status, shown) = operator.call("POST", "/api/v1/ca/rotate", r#"{"propagationSeconds": 0}"#).await;
    assert_eq!(status, 200, "{shown}");
    let (status, _) = operator.call("POST", "/api/v1/ca/rotate", r#"{"propagationSeconds": 60}"#).await;
    assert!(status == 200 || status == 409, "{status}");
    let second = bundles.message().await.unwrap().unwrap();
    assert!(certificates(&second) >= 2, "the new one is trusted beside the old one");
    old.signed.trust_bundle = Some(second);

    // The new CA takes over; what it signs is accepted by the port, and so is what the old one signed.
    let mut new = join(&service, &operator, "cart").await;
    for _ in 0..200 {
        if new.signed.certificate_chain_pem.rsplit("BEGIN").next()
            != old.signed.certificate_chain_pem.rsplit("BEGIN").next()
        {
            break;
        }
        tokio::task::yield_now().await;
        new = join(&service, &operator, "cart").await;
    }
    let by = |member: &support::Member| {
        member.signed.certificate_chain_pem.rsplit("BEGIN").next().map(str::to_owned)
    };
    assert_ne!(by(&new), by(&old), "signed by the new one");
    for member in [&old, &new] {
        sign(channel_as(&service, member).await, "").await.unwrap();
    }
    service.stop().await;
}

#[tokio::test]
async fn a_hundred_hosts_join_at_once_with_one_counted_token() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let token = operator.join_token("cart", 99).await;
    let nobody = channel(service.addresses.xds, &root_of(&service), None).await.unwrap();
    let mut jobs = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (nobody, token) = (nobody.clone(), token.clone());
        jobs.spawn(async move { sign(nobody, &token).await.map(drop).map_err(|status| status.code()) });
    }
    let outcomes = jobs.join_all().await;
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!(refused, [&Code::Unauthenticated], "as many join as the token has uses");
    service.stop().await;
}

#[tokio::test]
async fn grant_made_with_a_token_bounds_what_its_bearer_may_register() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let cart = join(&service, &operator, "cart").await;
    let mut client = registration(channel_as(&service, &cart).await);
    let gateway = || v1::Workload {
        labels: [("istio".to_owned(), "ingressgateway".to_owned())].into(),
        gateway: true,
        service: String::new(),
        ..workload("one", "cart")
    };
    let ask = |workload| v1::RegisterRequest { workload: Some(workload) };
    let refused = client.register(ask(gateway())).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("gateway") && refused.message().contains("istio"), "{refused}");
    let foreign = v1::Workload { service: "payment".to_owned(), ..workload("one", "cart") };
    let refused = client.register(ask(foreign)).await.err().unwrap();
    assert!(refused.message().contains("granted: cart"), "{refused}");
    client.register(ask(workload("one", "cart"))).await.unwrap();

    let body = r#"{"namespace": "shop", "serviceAccount": "cart", "labels": {"istio": ["ingressgateway"]}, "gateway": true}"#;
    let (status, made) = operator.call("POST", "/api/v1/tokens", body).await;
    assert_eq!((status, made["grant"]["gateway"].as_bool()), (200, Some(true)), "{made}");
    assert_eq!(made["grant"]["services"][0], "cart");
    client.register(ask(gateway())).await.unwrap();
    let (_, listed) = operator.call("GET", "/api/v1/grants", "").await;
    assert_eq!(listed["items"][0]["serviceAccount"], "cart", "{listed}");
    service.stop().await;
}

#[tokio::test]
async fn loopback_address_is_refused_unless_the_service_was_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let service = support::start_for(dir.path(), outrigger_control::source::Reach::Network).await;
    let operator = Operator::of(&service, dir.path());
    let cart = join(&service, &operator, "cart").await;
    let mut client = registration(channel_as(&service, &cart).await);
    for address in ["", "127.0.0.1", "169.254.169.254", "0.0.0.0"] {
        let asked = v1::Workload { address: address.to_owned(), ..workload("one", "cart") };
        let refused = client.register(v1::RegisterRequest { workload: Some(asked) }).await.err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument, "{address}");
        assert!(refused.message().starts_with("workload.address"), "{refused}");
    }
    let asked = v1::Workload { address: "192.0.2.9".to_owned(), ..workload("one", "cart") };
    client.register(v1::RegisterRequest { workload: Some(asked) }).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn host_that_was_given_the_old_root_joins_while_the_root_is_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    let service = start_with(dir.path(), Duration::from_secs(20)).await;
    let operator = Operator::of(&service, dir.path());
    let old_root = root_of(&service);
    let mut cart = join(&service, &operator, "cart").await;
    let mut watcher = CertificateServiceClient::new(channel_as(&service, &cart).await);
    let mut bundles = watcher.watch_trust_bundle(v1::WatchTrustBundleRequest {}).await.unwrap().into_inner();
    assert_eq!(bundles.message().await.unwrap().unwrap().roots_pem, old_root);
    let body = r#"{"root": true, "propagationSeconds": 0, "rootOverlapSeconds": 3600}"#;
    let (status, shown) = operator.call("POST", "/api/v1/ca/rotate", body).await;
    assert_eq!((status, shown["roots"].as_array().map(Vec::len)), (200, Some(2)), "{shown}");
    assert_eq!(operator.call("POST", "/api/v1/ca/rotate", body).await.0, 409);
    let told = bundles.message().await.unwrap().unwrap();
    assert!(told.roots_pem.ends_with(&old_root) && told.roots_pem.len() > old_root.len());
    assert_eq!(root_of(&service), told.roots_pem);
    cart.signed.trust_bundle = Some(told.clone());
    // Until the new CA signs, and after that, whoever has the old root, or both, joins.
    for _ in 0..500 {
        for root in [&old_root, &told.roots_pem] {
            let token = operator.join_token("cart", 1).await;
            let nobody = channel(service.addresses.xds, root, None).await.unwrap();
            sign(nobody, &token).await.unwrap();
        }
        let (_, shown) = operator.call("GET", "/api/v1/ca", "").await;
        let signing = shown["signing"].as_array().unwrap().iter().find(|line| line["stage"] == "SIGNING");
        if signing.is_some_and(|line| line["id"] == 2) {
            break;
        }
    }
    sign(channel_as(&service, &cart).await, "").await.unwrap();
    for wrong in [r#"{"rootOverlapSeconds": 5}"#, r#"{"root": true, "rootOverlapSeconds": 99999999999}"#] {
        assert_eq!(operator.call("POST", "/api/v1/ca/rotate", wrong).await.0, 400, "{wrong}");
    }
    service.stop().await;
}
