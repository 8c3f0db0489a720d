//! Services and slices as the API gives them.

use serde_json::{Value, json};

use super::*;

fn service(annotations: Value, spec: Value) -> Service {
    let metadata = json!({"name": "cart", "namespace": "shop", "annotations": annotations,
        "labels": {"team": "a", "app.kubernetes.io/name": "cart", "outrigger.io/export": "true"}});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

fn slice(address_type: &str, endpoints: Value) -> EndpointSlice {
    let value = json!({
        "metadata": {"name": "cart-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "cart"}},
        "addressType": address_type, "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "admin", "port": 9090}, {"name": "dns", "port": 53, "protocol": "UDP"}],
    });
    serde_json::from_value(value).unwrap()
}

fn spec() -> Value {
    json!({"type": "ClusterIP", "ports": [
        {"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"},
        {"name": "admin", "port": 90, "appProtocol": "kubernetes.io/h2c"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "unmatched", "port": 1}]})
}

fn pods() -> Value {
    json!([
        {"addresses": ["10.0.0.1"], "zone": "a", "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": "cart-1"}},
        {"addresses": ["10.0.0.2"], "conditions": {"ready": false}, "targetRef": {"kind": "Pod", "name": "cart-2"}},
        {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}, "targetRef": {"kind": "Pod", "name": "cart-3"}},
        {"addresses": ["10.0.0.4"], "conditions": {"ready": false, "serving": false, "terminating": true}},
        {"addresses": ["10.0.0.5"]}])
}

fn found(service: Service, slice: EndpointSlice, settings: &KubernetesSettings) -> Found {
    let services = [(service.metadata.key(), service)].into();
    let slices = [(slice.metadata.key(), slice)].into();
    read(&services, &slices, settings, "k8s", Reach::Network)
}

#[test]
fn pods_become_instances_with_the_services_ports_and_their_own_health() {
    let settings = KubernetesSettings { locality: "eu".into(), ..KubernetesSettings::default() };
    let found = found(service(Value::Null, spec()), slice("IPv4", pods()), &settings);
    assert_eq!(found.unusable, []);
    let lines: Vec<_> = found.workloads.iter().map(|w| (w.instance_id.as_str(), w.health)).collect();
    assert_eq!(
        lines,
        [
            ("k8s/cart/cart-1", Health::Healthy),
            ("k8s/cart/cart-2", Health::Unhealthy),
            ("k8s/cart/cart-3", Health::Draining),
            ("k8s/cart/10.0.0.5", Health::Healthy),
        ]
    );
    let one = &found.workloads[0];
    let ports: Vec<_> = one
        .ports
        .iter()
        .map(|p| (p.name.as_str(), p.number, p.target_port, p.protocol, p.inbound_port))
        .collect();
    assert_eq!(
        ports,
        [("http", 80, 8_080, Protocol::Http, None), ("admin", 90, 9_090, Protocol::Http2, None)]
    );
    assert_eq!((one.locality.region.as_str(), one.locality.zone.as_str()), ("eu", "a"));
    assert_eq!((one.service_account.as_str(), one.source.as_str()), ("default", "k8s"));
    assert_eq!(one.labels.keys().collect::<Vec<_>>(), ["app", "team"]);
}

#[test]
fn mesh_tls_is_used_where_the_service_says_so() {
    let annotations = json!({"outrigger.io/mesh-tls": "true", "outrigger.io/service-account": "cart"});
    let found = found(service(annotations, spec()), slice("IPv4", pods()), &KubernetesSettings::default());
    assert_eq!(
        (found.workloads[0].ports[0].inbound_port, found.workloads[0].service_account.as_str()),
        (Some(8_080), "cart")
    );
}

#[test]
fn service_is_exported_when_it_says_so_or_all_are() {
    let count = |mark: Value, settings: KubernetesSettings| {
        let mut service = service(Value::Null, spec());
        service.metadata.labels.remove("outrigger.io/export");
        if let Some(mark) = mark.as_str() {
            service.metadata.annotations.insert("outrigger.io/export".into(), mark.into());
        }
        found(service, slice("IPv4", pods()), &settings).workloads.len()
    };
    let all = || KubernetesSettings { export: Export::All, ..KubernetesSettings::default() };
    assert_eq!(count(Value::Null, KubernetesSettings::default()), 0);
    assert_eq!(count("true".into(), KubernetesSettings::default()), 4);
    assert_eq!(count(Value::Null, all()), 4);
    assert_eq!(count("false".into(), all()), 0);
    let elsewhere = KubernetesSettings { namespaces: ["zoo".to_owned()].into(), ..all() };
    assert_eq!(count("true".into(), elsewhere), 0);
}

#[test]
fn one_family_of_a_dual_stack_service_counts_and_names_cannot_be_reached() {
    let mut dual = spec();
    dual["ipFamilies"] = json!(["IPv6", "IPv4"]);
    let settings = KubernetesSettings::default();
    assert!(found(service(Value::Null, dual.clone()), slice("IPv4", pods()), &settings).workloads.is_empty());
    let six = json!([{"addresses": ["2001:db8::1"]}]);
    assert_eq!(found(service(Value::Null, dual), slice("IPv6", six), &settings).workloads.len(), 1);
    let named = found(service(Value::Null, spec()), slice("FQDN", pods()), &settings);
    assert_eq!((named.workloads.len(), named.unusable[0].object.as_str()), (0, "shop/cart-x"));
}

#[test]
fn nulls_of_the_server_are_as_nothing() {
    let value = json!({"metadata": {"name": "cart-x", "namespace": "shop", "labels": null}, "addressType": "IPv4", "endpoints": null, "ports": null});
    let slice: EndpointSlice = serde_json::from_value(value).unwrap();
    assert!(slice.endpoints.is_empty() && slice.metadata.labels.is_empty());
}
