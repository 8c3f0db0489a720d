//! Proofs against an STS that checks signatures, and a cluster that reviews tokens.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::rule::{AwsRole, KubernetesAccount, Rule};
use super::*;
use crate::random::to_hex;
use crate::source::settings::SourcesFile;
use crate::store::memory::MemoryStore;

const REGION: &str = "eu-central-1";

fn authorization(secret: &str, host: &str, date: SystemTime, headers: &[(&str, &str)]) -> (String, String) {
    let credentials = Credentials::new("AKID", secret, None, None, "test").into();
    let params = v4::SigningParams::builder()
        .identity(&credentials)
        .region(REGION)
        .name("sts")
        .time(date)
        .settings(SigningSettings::default())
        .build()
        .unwrap()
        .into();
    let all =
        [("host", host), ("content-type", aws::CONTENT_TYPE)].into_iter().chain(headers.iter().copied());
    let url = format!("http://{host}/");
    let signable = SignableRequest::new("POST", url, all, SignableBody::Bytes(aws::BODY.as_bytes())).unwrap();
    let (instructions, _) = sign(signable, &params).unwrap().into_parts();
    let mut request = http::Request::post("/").body(()).unwrap();
    instructions.apply_to_request_http1x(&mut request);
    let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
    (header("authorization"), header("x-amz-date"))
}

/// Signs again what it is sent, with the secret it knows, and compares: as the real one does.
async fn sts(arn: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = move |headers: HeaderMap, body: Bytes| async move {
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(&body[..], aws::BODY.as_bytes());
        let date = header("x-amz-date");
        let at = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", &date).unwrap().to_datetime().unwrap();
        let at = SystemTime::from(at.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp());
        let bound = [
            (aws::AUDIENCE_HEADER, header(aws::AUDIENCE_HEADER)),
            (aws::CSR_HEADER, header(aws::CSR_HEADER)),
        ];
        let bound: Vec<(&str, &str)> = bound.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (expected, _) = authorization("secret", &header("host"), at, &bound);
        if header("authorization") != expected {
            return (StatusCode::FORBIDDEN, "<Code>SignatureDoesNotMatch</Code>".to_owned());
        }
        let text = format!("<GetCallerIdentityResult><Arn>{arn}</Arn></GetCallerIdentityResult>");
        (StatusCode::OK, text)
    };
    let app = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

fn proof(secret: &str, url: &str, audience: &str, csr: &[u8]) -> v1::Proof {
    let csr = to_hex(&Sha256::digest(csr));
    let bound = [(aws::AUDIENCE_HEADER, audience), (aws::CSR_HEADER, csr.as_str())];
    let host = url.strip_prefix("http://").unwrap();
    let (authorization, date) = authorization(secret, host, SystemTime::now(), &bound);
    let kind = Kind::Aws(v1::AwsProof { authorization, date, security_token: String::new() });
    v1::Proof { namespace: "shop".into(), service_account: "cart".into(), kind: Some(kind) }
}

/// Where a role and a service account may be `shop/cart`.
async fn store() -> SharedStore {
    let store = SharedStore::new(MemoryStore::default());
    let role = AwsRole { account: "123456789012".into(), role: "shop-cart".into() };
    let account =
        KubernetesAccount { cluster: "k8s".into(), namespace: "prod".into(), service_account: "cart".into() };
    let rule = Rule { aws: [role].into(), kubernetes: [account].into() };
    rule.check().unwrap();
    rule::write(&store, "shop", "cart", Some(&rule), 0).await.unwrap();
    store
}

async fn attestor(url: &str, clusters: Clusters) -> Attestor {
    let store = store().await;
    Attestor::new(store, "cluster.local", Some(AwsVerifier::new(REGION, Some(url)).unwrap()), clusters)
}

#[tokio::test]
async fn role_that_a_rule_names_becomes_the_identity_and_nothing_else_does() {
    let url = sts("arn:aws:sts::123456789012:assumed-role/shop-cart/0123").await;
    let attestor = attestor(&url, Clusters::default()).await;
    let good = || proof("secret", &url, "cluster.local", b"csr");
    let identity = attestor.verify(good(), b"csr").await.unwrap();
    assert_eq!(identity.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");

    let error = async |proof: v1::Proof, csr: &[u8]| attestor.verify(proof, csr).await.unwrap_err();
    for (proof, csr, why) in [
        (good(), b"another key".as_slice(), "STS answered 403"),
        (proof("secret", &url, "another.mesh", b"csr"), b"csr", "STS answered 403"),
        (proof("guessed", &url, "cluster.local", b"csr"), b"csr", "STS answered 403"),
        (v1::Proof { service_account: "bank".into(), ..good() }, b"csr", "may not be"),
        (v1::Proof { namespace: "../x".into(), ..good() }, b"csr", "namespace"),
        (v1::Proof { kind: None, ..good() }, b"csr", "empty"),
    ] {
        let error = error(proof, csr).await;
        assert!(error.to_string().contains(why) && !error.is_passing(), "{error}");
    }
    let other = sts("arn:aws:sts::123456789012:assumed-role/other/0123").await;
    let others = attestor_of(&other).await;
    let refused = others.verify(proof("secret", &other, "cluster.local", b"csr"), b"csr").await.unwrap_err();
    assert!(refused.to_string().contains("AWS role other of account 123456789012 may not be"), "{refused}");
}

async fn attestor_of(url: &str) -> Attestor {
    attestor(url, Clusters::default()).await
}

#[tokio::test]
async fn sts_that_is_away_is_no_verdict() {
    let attestor = attestor("http://127.0.0.1:1", Clusters::default()).await;
    let error = attestor.verify(proof("secret", "http://127.0.0.1:1", "cluster.local", b"c"), b"c").await;
    assert!(error.unwrap_err().is_passing());
    let off = Attestor::new(store().await, "cluster.local", None, Clusters::default());
    let refused = off.verify(proof("secret", "http://127.0.0.1:1", "cluster.local", b"c"), b"c").await;
    assert!(matches!(refused, Err(AttestError::Aws(AwsError::Off))));
}

#[tokio::test]
async fn service_account_is_who_its_cluster_says_it_is() {
    let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
    let seen = Arc::clone(&asked);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let review = move |headers: HeaderMap, body: Bytes| {
        let seen = Arc::clone(&seen);
        async move {
            assert_eq!(headers["authorization"], "Bearer abc");
            let review: Value = serde_json::from_slice(&body).unwrap();
            let token = review["spec"]["token"].as_str().unwrap().to_owned();
            seen.lock().unwrap().push(review);
            let user = format!("system:serviceaccount:prod:{token}");
            let status = json!({"authenticated": token != "stolen", "audiences": ["cluster.local"], "user": {"username": user}});
            (StatusCode::CREATED, json!({"status": status}).to_string())
        }
    };
    let app =
        axum::Router::new().route("/apis/authentication.k8s.io/v1/tokenreviews", axum::routing::post(review));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    let text = format!(
        "current-context: x\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\nclusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}]\nusers: [{{name: u, user: {{token: abc}}}}]\n"
    );
    std::fs::write(&path, text).unwrap();
    let sources = format!("sources: [{{name: k8s, kubernetes: {{kubeconfig: {}}}}}]", path.display());
    let clusters = Clusters::of(&SourcesFile::parse(&sources).unwrap());
    let attestor = attestor("http://127.0.0.1:1", clusters).await;
    let proof = |cluster: &str, token: &str| v1::Proof {
        namespace: "shop".into(),
        service_account: "cart".into(),
        kind: Some(Kind::Kubernetes(v1::KubernetesProof { cluster: cluster.into(), token: token.into() })),
    };
    attestor.verify(proof("k8s", "cart"), b"csr").await.unwrap();
    assert_eq!(asked.lock().unwrap()[0]["spec"]["audiences"], json!(["cluster.local"]));
    for (cluster, token, why) in [
        ("k8s", "stolen", "not accepted"),
        ("k8s", "other", "may not be"),
        ("k9s", "cart", "no discovery source"),
        ("k8s", "", "empty"),
    ] {
        let error = attestor.verify(proof(cluster, token), b"csr").await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn rule_that_names_nobody_real_is_refused() {
    let aws = |account: &str, role: &str| Rule {
        aws: [AwsRole { account: account.into(), role: role.into() }].into(),
        ..Rule::default()
    };
    assert!(aws("123456789012", "shop-cart@x").check().is_ok());
    assert!(aws("12345678901", "r").check().is_err());
    assert!(aws("123456789012", "*").check().is_err());
    assert!(aws("123456789012", "arn:aws:iam::1:role/x").check().is_err());
    let account = |i: usize| KubernetesAccount {
        cluster: "k".into(),
        namespace: "n".into(),
        service_account: format!("a{i}"),
    };
    let many = |count| Rule { kubernetes: (0..count).map(account).collect(), ..Rule::default() };
    assert!(many(rule::ENTRIES_MAX).check().is_ok());
    assert!(many(rule::ENTRIES_MAX + 1).check().is_err());
}
