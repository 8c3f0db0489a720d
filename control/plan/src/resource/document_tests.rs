use super::*;

fn reasons(text: &str) -> Vec<String> {
    parse_documents(text).into_iter().filter_map(Result::err).flatten().map(|e| e.to_string()).collect()
}

#[test]
fn documents_are_split_and_empty_ones_left_out() {
    let text = "# nothing\n---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: a}\nspec: {address: 10.0.0.1}\n---\n\n--- # note\napiVersion: networking.istio.io/v1beta1\nkind: WorkloadEntry\nmetadata: {name: b, namespace: demo}\nspec: {address: host.example.com}\n...\n";
    let objects: Vec<Object> = parse_documents(text).into_iter().map(|o| o.expect("is valid")).collect();
    let labels: Vec<String> = objects.iter().map(Object::label).collect();
    assert_eq!(labels, ["WorkloadEntry/default/a", "WorkloadEntry/demo/b"]);
    let again = Object::from_value(objects[0].value.clone()).expect("is valid");
    assert_eq!(again, objects[0]);
}

#[test]
fn syntax_error_names_the_line_in_the_whole_text_and_does_not_hide_others() {
    let text = "apiVersion: v1\nkind: Service\n---\na: [1\nb: 2\n";
    let found = parse_documents(text);
    assert_eq!(found.len(), 2);
    let second = found[1].as_ref().expect_err("is not YAML");
    assert!(second[0].path.starts_with("line ") && second[0].path != "line 1, column 1", "{second:?}");
}

#[test]
fn duplicate_key_is_refused() {
    let text = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: a}\nspec:\n  address: 10.0.0.1\n  address: 10.0.0.2\n";
    assert_eq!(reasons(text).len(), 1, "{:?}", reasons(text));
}

#[test]
fn kubernetes_and_unknown_kinds_are_refused_by_name() {
    for (api, kind, expected) in [
        ("apps/v1", "Deployment", "Kubernetes kind"),
        ("v1", "Service", "Kubernetes kind"),
        ("networking.istio.io/v1alpha3", "EnvoyFilter", "not supported yet"),
        ("networking.istio.io/v1", "AuthorizationPolicy", "belongs to the group"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", "Gateway API is not supported yet"),
        ("networking.istio.io/v3", "VirtualService", "version"),
        ("", "VirtualService", "is required"),
    ] {
        let found = reasons(&format!("apiVersion: {api:?}\nkind: {kind}\nmetadata: {{name: x}}\n"));
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
    }
}

#[test]
fn list_gives_its_items() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: a}, spec: {address: 10.0.0.1}}\n- {apiVersion: v1, kind: Pod, metadata: {name: p}}\n";
    let found = parse_documents(text);
    assert!(found.len() == 2 && found[0].is_ok() && found[1].is_err());
}

#[test]
fn all_problems_of_a_document_are_told_at_once() {
    let text = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: demo}
spec:
  hosts: [b, b]
  http:
  - delegate: {name: other}
    timeout: 1 second
    retries: {attempts: 3, retryOn: "5xx,gateway_error"}
    route:
    - destination: {host: b, subset: v1}
      weight: -1
    - destination: {hst: b}
"#;
    assert_eq!(
        reasons(text),
        [
            "VirtualService/demo/b: spec.hosts[1]: \"b\" is named twice",
            "VirtualService/demo/b: spec.http[0].route[0].weight: must be between 0 and 1000000",
            "VirtualService/demo/b: spec.http[0].route[1].destination.host: is required",
            "VirtualService/demo/b: spec.http[0].route[1].destination.hst: unknown field; did you mean \"host\"?",
            "VirtualService/demo/b: spec.http[0].route: the weights add up to 0: nothing could be sent anywhere",
            "VirtualService/demo/b: spec.http[0].timeout: \"1 second\" is no duration; write it as 1.5s, 100ms, 2m or 1h30m",
            "VirtualService/demo/b: spec.http[0].retries.retryOn: unknown retry condition \"gateway_error\"",
            "VirtualService/demo/b: spec.http[0].delegate: not supported yet",
        ]
    );
}

#[test]
fn empty_authorization_policy_is_an_allow_policy_without_rules() {
    let text = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: none, namespace: demo}\nspec: {}\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: none}\n";
    for object in parse_documents(text) {
        let Spec::AuthorizationPolicy(policy) = object.expect("is valid").spec else {
            panic!("another kind")
        };
        assert!(
            policy.rules.is_empty() && policy.action == super::super::authorization_policy::Action::Allow
        );
    }
}

#[test]
fn kind_is_found_by_plural_and_short_form() {
    for (text, kind) in [
        ("vs", Kind::VirtualService),
        ("VirtualServices", Kind::VirtualService),
        ("gateways", Kind::Gateway),
        ("authorizationpolicies", Kind::AuthorizationPolicy),
        ("serviceentries", Kind::ServiceEntry),
    ] {
        assert_eq!(Kind::parse(text), Some(kind), "{text}");
    }
    assert_eq!(Kind::parse("pods"), None);
}

#[test]
fn names_that_no_host_can_have_are_refused() {
    for bad in ["", "a b", "-a", "a..b", "*.*", "a.*", "a/b"] {
        assert!(!is_host_pattern(bad), "{bad:?}");
    }
    for good in ["a", "a.b", "*.b", "*", "A_b.c"] {
        assert!(is_host_pattern(good), "{good:?}");
    }
}

#[test]
fn words_that_older_yaml_took_for_booleans_are_texts() {
    for word in ["on", "no", "y", "n", "yes", "off"] {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: a}}\nspec: {{address: 10.0.0.1, labels: {{k: {word}}}}}\n"
        );
        let Spec::WorkloadEntry(entry) = parse_documents(&text).remove(0).expect("is valid").spec else {
            panic!("another kind")
        };
        assert_eq!(entry.labels["k"], word);
    }
}
