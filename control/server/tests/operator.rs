//! The operator API of a running service.

mod support;

use serde_json::Value;
use support::{Operator, settings, start};

const ENTRY: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: NAME, namespace: shop}
spec:
  hosts: [NAME.example.com]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 192.0.2.1}]
";

fn entry(name: &str) -> String {
    ENTRY.replace("NAME", name)
}

#[tokio::test]
async fn only_a_token_opens_the_api_and_probes_need_none() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let stranger = operator.with_token("oat_0011223344556677_00");
    for route in outrigger_control::api::route::table() {
        let path = route.path.replace("{kind}", "vs").replace("{namespace}", "a").replace("{name}", "b");
        let path = path.replace("{id}", "x");
        let (status, answer) = stranger.call(&route.method.to_uppercase(), &path, "").await;
        if route.public {
            assert_eq!(status, 200, "{path}");
        } else {
            assert_eq!((status, answer["error"]["code"].as_str()), (401, Some("unauthorized")), "{path}");
        }
        let (status, _) = operator.call(&route.method.to_uppercase(), &path, "").await;
        assert!(!matches!(status, 401 | 405 | 500), "{} {path}: {status}", route.method);
    }
    let (status, _) = operator.call("GET", "/api/v1/nothing", "").await;
    assert_eq!(status, 404);
    service.stop().await;
}

#[tokio::test]
async fn resources_are_applied_shown_changed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let (status, tried) = operator.call("POST", "/api/v1/apply?dryRun=true", &entry("one")).await;
    assert_eq!((status, tried["resources"][0]["action"].as_str()), (200, Some("created")), "{tried}");
    let (status, _) = operator.call("GET", "/api/v1/resources/se/shop/one", "").await;
    assert_eq!(status, 404, "a dry run stores nothing");

    let both = format!("{}---{}", entry("one"), entry("two"));
    let (status, applied) = operator.call("POST", "/api/v1/apply", &both).await;
    assert_eq!((status, applied["resources"].as_array().unwrap().len()), (200, 2), "{applied}");
    let (_, again) = operator.call("POST", "/api/v1/apply", &both).await;
    assert_eq!(again["resources"][1]["action"], "unchanged");
    assert_eq!(again["revision"], applied["revision"]);

    // What is shown can be changed and applied again, and only once from the same version.
    let (_, mut shown) = operator.call("GET", "/api/v1/resources/serviceentries/shop/one", "").await;
    shown["spec"]["ports"][0]["number"] = Value::from(81);
    let (status, changed) = operator.call("POST", "/api/v1/apply", &shown.to_string()).await;
    assert_eq!((status, changed["resources"][0]["action"].as_str()), (200, Some("configured")), "{changed}");
    shown["spec"]["ports"][0]["number"] = Value::from(82);
    let (status, conflict) = operator.call("POST", "/api/v1/apply", &shown.to_string()).await;
    assert_eq!((status, conflict["error"]["code"].as_str()), (409, Some("conflict")));

    let (_, listed) = operator.call("GET", "/api/v1/resources?namespace=shop", "").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    let wait = format!("/api/v1/wait?version={}&timeout=5", changed["revision"]);
    let (status, waited) = operator.call("GET", &wait, "").await;
    assert_eq!((status, waited["done"].as_bool()), (200, Some(true)));
    let (status, _) = operator.call("DELETE", "/api/v1/resources/se/shop/one", "").await;
    assert_eq!(status, 200);
    let (status, _) = operator.call("DELETE", "/api/v1/resources/se/shop/one", "").await;
    assert_eq!(status, 404);
    service.stop().await;
}

#[tokio::test]
async fn one_bad_resource_refuses_all_and_names_its_field() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let bad = entry("bad").replace("location: MESH_EXTERNAL", "locationn: MESH_EXTERNAL");
    let (status, refused) =
        operator.call("POST", "/api/v1/apply", &format!("{}---{bad}", entry("good"))).await;
    assert_eq!((status, refused["error"]["code"].as_str()), (422, Some("refused")), "{refused}");
    let problem = &refused["error"]["problems"][0];
    assert_eq!(problem["resource"], "ServiceEntry/shop/bad");
    assert!(problem["path"].as_str().unwrap().contains("locationn"), "{problem}");
    let (_, listed) = operator.call("GET", "/api/v1/resources", "").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 0, "nothing changed");
    for (method, path, body) in [
        ("POST", "/api/v1/apply", ""),
        ("POST", "/api/v1/apply?dry=1", "x"),
        ("GET", "/api/v1/resources/deployments", ""),
        ("GET", "/api/v1/resources/~OperatorToken", ""),
        ("GET", "/api/v1/wait?version=999999", ""),
        ("GET", "/api/v1/wait?version=0&timeout=601", ""),
        ("POST", "/api/v1/tokens", "{}"),
        ("POST", "/api/v1/tokens", r#"{"namespace": "UPPER", "serviceAccount": "a"}"#),
        ("POST", "/api/v1/tokens", r#"{"namespace": "a", "serviceAccount": "a", "uses": 0}"#),
    ] {
        let (status, answer) = operator.call(method, path, body).await;
        assert!((400..500).contains(&status), "{method} {path}: {status} {answer}");
        assert!(answer["error"]["message"].is_string(), "{method} {path}: {answer}");
    }
    service.stop().await;
}

#[tokio::test]
async fn tokens_are_shown_once_listed_without_secret_and_withdrawn() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let token = operator.join_token("cart", 3).await;
    let (_, listed) = operator.call("GET", "/api/v1/tokens", "").await;
    assert!(!listed.to_string().contains(token.rsplit('_').next().unwrap()));
    let id = listed["items"][0]["id"].as_str().unwrap();
    assert_eq!(operator.call("DELETE", &format!("/api/v1/tokens/{id}"), "").await.0, 200);
    assert_eq!(operator.call("DELETE", &format!("/api/v1/tokens/{id}"), "").await.0, 404);

    let body = r#"{"description": "pipeline"}"#;
    let (_, made) = operator.call("POST", "/api/v1/operator-tokens", body).await;
    let other = operator.with_token(made["token"].as_str().unwrap());
    let (status, held) = other.call("GET", "/api/v1/operator-tokens", "").await;
    assert_eq!((status, held["items"].as_array().unwrap().len()), (200, 2));
    let path = format!("/api/v1/operator-tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(operator.call("DELETE", &path, "").await.0, 200);
    assert_eq!(other.call("GET", "/api/v1/ca", "").await.0, 401);
    let (_, held) = operator.call("GET", "/api/v1/operator-tokens", "").await;
    let last = format!("/api/v1/operator-tokens/{}", held["items"][0]["id"].as_str().unwrap());
    assert_eq!(operator.call("DELETE", &last, "").await.0, 409, "the last one stays");
    service.stop().await;
}

#[tokio::test]
async fn body_passes_at_its_limit_and_not_one_past_it() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let most = outrigger_control::api::route::BODY_BYTES_MAX;
    let mut text = entry("one");
    text.push('#');
    text.push_str(&"x".repeat(most - text.len()));
    let (status, answer) = operator.call("POST", "/api/v1/apply", &text).await;
    assert_eq!(status, 200, "{answer}");
    text.push('x');
    assert_eq!(operator.call("POST", "/api/v1/apply", &text).await.0, 413);
    service.stop().await;
}

#[tokio::test]
async fn viewer_may_look_and_an_administrator_remains() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let body = r#"{"description": "dashboard", "role": "viewer"}"#;
    let (status, made) = operator.call("POST", "/api/v1/operator-tokens", body).await;
    assert_eq!((status, made["role"].as_str()), (200, Some("viewer")), "{made}");
    let viewer = operator.with_token(made["token"].as_str().unwrap());
    for path in ["/api/v1/proxies", "/api/v1/resources", "/api/v1/operator-tokens", "/api/v1/ca"] {
        assert_eq!(viewer.call("GET", path, "").await.0, 200, "{path}");
    }
    let own = format!("/api/v1/operator-tokens/{}", made["id"].as_str().unwrap());
    for (method, path, body) in [
        ("POST", "/api/v1/apply?dryRun=true", entry("one")),
        ("POST", "/api/v1/tokens", r#"{"namespace": "a", "serviceAccount": "a"}"#.to_owned()),
        ("POST", "/api/v1/operator-tokens", body.to_owned()),
        ("POST", "/api/v1/ca/rotate", "{}".to_owned()),
        ("DELETE", own.as_str(), String::new()),
    ] {
        let (status, answer) = viewer.call(method, path, &body).await;
        assert_eq!((status, answer["error"]["code"].as_str()), (403, Some("forbidden")), "{method} {path}");
    }
    // The viewer's token does not make the last administrator's one that can be missed.
    let (_, listed) = operator.call("GET", "/api/v1/operator-tokens", "").await;
    let admin = listed["items"].as_array().unwrap().iter().find(|item| item["role"] == "admin").unwrap();
    let last = format!("/api/v1/operator-tokens/{}", admin["id"].as_str().unwrap());
    assert_eq!(operator.call("DELETE", &last, "").await.0, 409);
    assert_eq!(operator.call("DELETE", &own, "").await.0, 200);
    assert_eq!(viewer.call("GET", "/api/v1/ca", "").await.0, 401);
    let wrong = r#"{"description": "x", "role": "king"}"#;
    assert_eq!(operator.call("POST", "/api/v1/operator-tokens", wrong).await.0, 400);
    service.stop().await;
}

#[tokio::test]
async fn health_is_that_of_the_running_service_with_tls_and_without() {
    use outrigger_control::{health, service::Service};
    let patience = std::time::Duration::from_secs(5);
    for api_tls in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = settings(dir.path());
        settings.api_tls = api_tls;
        let service = Service::start(settings).await.unwrap();
        health::check(dir.path(), patience).await.unwrap();
        service.stop().await;
        assert!(health::check(dir.path(), patience).await.is_err(), "it has stopped");
    }
}
