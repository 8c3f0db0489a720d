//! The administration interface.

use crate::support::*;
use outrigger_engine::admin::{ConfigDumpSource, LogLevel, Sources};
use outrigger_testkit::{Authority, H1Client, Origin, client::get};
use outrigger_traffic::config::{
    CertificateSource, DownstreamTls, Secret, SecretValue, TlsCertificate, TlsParams,
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[tokio::test]
async fn readiness_follows_configuration_health_and_drain() {
    let proxy = start();
    let ready = async || {
        let response = admin(&proxy, "GET", "/ready").await;
        (response.status, response.text())
    };
    assert_eq!(ready().await, (503, "PRE_INITIALIZING\n".into()));
    proxy.apply(simple(&[])).unwrap();
    assert_eq!(ready().await, (200, "LIVE\n".into()));
    assert_eq!(
        admin(&proxy, "GET", "/healthcheck/fail").await.status,
        405,
        "what changes something is a POST"
    );
    assert_eq!(ready().await.0, 200);
    assert_eq!(admin(&proxy, "POST", "/healthcheck/fail").await.status, 200);
    assert_eq!(ready().await, (503, "DRAINING\n".into()));
    admin(&proxy, "POST", "/healthcheck/ok").await;
    assert_eq!(ready().await.0, 200);
}

#[tokio::test]
async fn unknown_path_is_404_with_help_and_every_path_answers() {
    let proxy = start();
    proxy.apply(simple(&[])).unwrap();
    let response = admin(&proxy, "GET", "/no-such").await;
    assert_eq!(response.status, 404);
    let help = admin_text(&proxy, "/help").await;
    assert!(response.text().contains("/config_dump") && help.contains("/config_dump"));
    let reads = help.lines().skip(1).filter(|line| !line.contains("(POST)"));
    for path in reads.map(|line| line.trim().split(':').next().unwrap()) {
        admin_text(&proxy, path).await;
    }
    let mut client = H1Client::connect(proxy.admin_addr().unwrap()).await;
    assert_eq!(client.request("GET", "/ready", &[("host", "x")], b"").await.unwrap().status, 200);
    assert_eq!(
        client.request("GET", "/ready", &[("host", "x")], b"").await.unwrap().status,
        200,
        "kept alive"
    );
}

#[tokio::test]
async fn clusters_and_listeners_have_envoys_fields() {
    let origin = Origin::h1("one").await;
    let proxy = start();
    proxy.apply(simple(&[origin.address()])).unwrap();
    get(address(&proxy), "h", "/").await;
    eventually("the request to be over", async || {
        admin_text(&proxy, "/clusters").await.contains("::rq_active::0\n").then_some(())
    })
    .await;
    let clusters = admin_json(&proxy, "/clusters?format=json").await;
    let status = &clusters["cluster_statuses"][0];
    assert_eq!(status["name"], "a");
    let host = &status["host_statuses"][0];
    assert_eq!(host["address"]["socket_address"]["port_value"], origin.address().port());
    assert_eq!(host["health_status"]["eds_health_status"], "HEALTHY");
    let stat = |name: &str| {
        let stats = host["stats"].as_array().unwrap();
        stats.iter().find(|s| s["name"] == name).unwrap()["value"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (stat("rq_total"), stat("rq_success"), stat("rq_error")),
        ("1".into(), "1".into(), "0".into())
    );
    let text = admin_text(&proxy, "/clusters").await;
    assert!(text.contains(&format!("a::{}::rq_total::1\n", origin.address())), "{text}");
    assert!(text.contains("a::default_priority::max_connections::1024\n"));
    let listeners = admin_json(&proxy, "/listeners?format=json").await;
    assert_eq!(listeners["listener_statuses"][0]["name"], "in");
    let port = &listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"];
    assert_eq!(*port, address(&proxy).port());
    assert_eq!(admin_text(&proxy, "/listeners").await, format!("in::{}\n", address(&proxy)));
}

#[derive(Debug)]
struct Raw;

impl ConfigDumpSource for Raw {
    fn configs(&self) -> Vec<Value> {
        vec![json!({
            "@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump",
            "dynamic_active_secrets": [{"name": "s", "secret": {"name": "s", "tls_certificate":
                {"private_key": {"inline_string": "SECRET-KEY"}, "certificate_chain": {"inline_string": "CHAIN"}}}}],
        })]
    }
}

#[tokio::test]
async fn config_dump_shows_everything_but_private_keys() {
    let authority = Authority::new("root");
    let leaf = authority.leaf(&["a.test"]);
    let pair = TlsCertificate { chain_pem: leaf.cert_pem.clone(), key_pem: leaf.key_pem.clone() };
    let proxy = start_with(|options| {
        options.admin_sources = Sources { config_dump: Some(Arc::new(Raw)), ..Sources::default() };
    });
    let mut config = simple(&[]);
    config.secrets = vec![Secret { name: "named".into(), value: SecretValue::Certificate(pair.clone()) }];
    let tls = |source| {
        Some(DownstreamTls {
            certificates: vec![source],
            validation: None,
            require_client_certificate: false,
            alpn: Vec::new(),
            params: TlsParams::default(),
            disable_stateless_session_resumption: false,
        })
    };
    let mut second = config.listeners[0].clone();
    second.name = "second".into();
    config.listeners[0].filter_chains[0].tls = tls(CertificateSource::Inline(pair));
    second.filter_chains[0].tls = tls(CertificateSource::Sds("named".into()));
    config.listeners.push(second);
    proxy.apply(config).unwrap();
    let dump = admin_text(&proxy, "/config_dump").await;
    let key_line = leaf.key_pem.lines().nth(1).unwrap();
    assert!(
        !dump.contains(key_line) && !dump.contains("PRIVATE KEY") && !dump.contains("SECRET-KEY"),
        "{dump}"
    );
    assert!(dump.contains("[redacted]") && dump.contains("CHAIN") && dump.contains("SecretsConfigDump"));
    let dump: Value = serde_json::from_str(&dump).unwrap();
    assert_eq!(dump["configs"][1]["config"]["listeners"][0]["name"], "in");
    let narrowed = admin_json(&proxy, "/config_dump?name_regex=^second$").await;
    assert_eq!(narrowed["configs"][1]["config"]["listeners"].as_array().unwrap().len(), 1);
    let resource = admin_json(&proxy, "/config_dump?resource=dynamic_active_secrets").await;
    assert_eq!(resource["configs"][0]["name"], "s");
    assert_eq!(admin(&proxy, "GET", "/config_dump?resource=no_such").await.status, 404);
    let certs = admin_json(&proxy, "/certs").await;
    let users: Vec<_> =
        certs["certificates"].as_array().unwrap().iter().map(|c| c["used_by"].clone()).collect();
    assert_eq!(users, ["listener/in", "listener/second"]);
    let chain = &certs["certificates"][0]["cert_chain"][0];
    assert_eq!(chain["subject_alt_names"][0]["dns"], "a.test");
    assert!(chain["days_until_expiration"].is_string() && chain["serial_number"].is_string());
}

#[tokio::test]
async fn server_info_names_node_version_and_state() {
    let proxy = start();
    proxy.apply(simple(&[])).unwrap();
    let info = admin_json(&proxy, "/server_info").await;
    assert_eq!((&info["state"], &info["node"]["id"]), (&json!("LIVE"), &json!("proxy-1")));
    assert_eq!(info["command_line_options"]["concurrency"], 2);
    assert!(info["version"].as_str().unwrap().starts_with("outrigger/"));
    assert_ne!(admin_json(&proxy, "/memory").await["allocated"], "0");
    assert_eq!(admin_json(&proxy, "/runtime").await["layers"], json!([]));
}

#[derive(Debug, Default)]
struct Level(Mutex<String>);

impl LogLevel for Level {
    fn level(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    fn set_level(&self, level: &str) -> Result<(), String> {
        if level == "nonsense" {
            return Err("nonsense is no level".into());
        }
        *self.0.lock().unwrap() = level.to_owned();
        Ok(())
    }
}

#[tokio::test]
async fn logging_shows_changes_and_refuses() {
    let level = Arc::new(Level(Mutex::new("info".into())));
    let proxy = start_with(|options| options.admin_sources.log_level = Some(level.clone()));
    assert_eq!(admin(&proxy, "GET", "/logging?level=debug").await.status, 405);
    assert!(admin(&proxy, "POST", "/logging?level=debug").await.text().contains("debug"));
    assert!(admin(&proxy, "POST", "/logging").await.text().contains("debug"));
    assert_eq!(admin(&proxy, "POST", "/logging?level=nonsense").await.status, 400);
    admin(&proxy, "POST", "/logging?paths=outrigger_engine:trace").await;
    assert_eq!(level.level(), "outrigger_engine=trace");
}

#[tokio::test]
async fn quitquitquit_asks_the_program_to_end() {
    let proxy = start();
    assert_eq!(admin(&proxy, "GET", "/quitquitquit").await.status, 405);
    admin(&proxy, "POST", "/quitquitquit").await;
    outrigger_testkit::within("the request to end", proxy.quit_requested()).await;
}

#[tokio::test]
async fn drain_listeners_closes_ports_and_leaves_the_proxy_up() {
    let origin = Origin::h1("one").await;
    let proxy = start();
    proxy.apply(simple(&[origin.address()])).unwrap();
    let port = address(&proxy);
    admin(&proxy, "POST", "/drain_listeners?inboundonly").await;
    assert_eq!(get(port, "h", "/").await.status, 200, "an outbound listener stays");
    admin(&proxy, "POST", "/drain_listeners?graceful").await;
    eventually("the port to close", async || tokio::net::TcpStream::connect(port).await.err()).await;
    assert_eq!(admin(&proxy, "GET", "/ready").await.status, 503);
}

#[tokio::test]
async fn drain_lets_a_request_under_way_finish_and_refuses_new_connections() {
    let origin = Origin::h1("one").await;
    let proxy = start();
    proxy.apply(simple(&[origin.address()])).unwrap();
    let port = address(&proxy);
    let mut idle = H1Client::connect(port).await;
    idle.request("GET", "/", &[("host", "h")], b"").await.unwrap();
    let mut busy = H1Client::connect(port).await;
    busy.send(b"GET /delay/300 HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    origin.wait_for_requests(2).await;
    let drained = tokio::spawn({
        let proxy = proxy.clone();
        async move { proxy.drain().await }
    });
    assert!(outrigger_testkit::within("the idle connection to close", idle.is_closed()).await);
    let response = busy.response("GET").await.unwrap();
    assert_eq!((response.status, response.field("connection")), (200, Some("close")));
    assert_eq!(drained.await.unwrap(), 0);
    assert!(tokio::net::TcpStream::connect(port).await.is_err());
}

#[tokio::test]
async fn drain_deadline_cuts_off_what_does_not_end() {
    let origin = Origin::h1("one").await;
    let proxy = start();
    proxy.apply(simple(&[origin.address()])).unwrap();
    let mut busy = H1Client::connect(address(&proxy)).await;
    busy.send(b"GET /delay/60000 HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    origin.wait_for_requests(1).await;
    assert_eq!(proxy.drain_within(Duration::from_millis(50)).await, 1);
    assert!(busy.response("GET").await.is_err());
}
