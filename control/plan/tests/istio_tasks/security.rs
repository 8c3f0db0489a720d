//! Tasks of the security section.

use super::*;

#[test]
fn security_tasks() {
    check(SECURITY);
}

const SECURITY: &[Task] = &[
    (
        "strict for the mesh",
        PA,
        "metadata: {name: default, namespace: outrigger-system}\nspec: {mtls: {mode: STRICT}}",
        Accepted,
    ),
    (
        "strict for a workload, one port plain",
        PA,
        "metadata: {name: httpbin}\nspec: {selector: {matchLabels: {app: httpbin}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}}}",
        Accepted,
    ),
    ("nothing is allowed", AP, "metadata: {name: allow-nothing}\nspec: {}", Accepted),
    ("everything is allowed", AP, "metadata: {name: allow-all}\nspec: {rules: [{}]}", Accepted),
    ("everything is denied", AP, "metadata: {name: deny-all}\nspec: {action: DENY, rules: [{}]}", Accepted),
    (
        "HTTP: viewer",
        AP,
        "metadata: {name: productpage-viewer}\nspec: {selector: {matchLabels: {app: productpage}}, action: ALLOW, rules: [{to: [{operation: {methods: [GET]}}]}]}",
        Accepted,
    ),
    (
        "HTTP: principal",
        AP,
        "metadata: {name: ratings-viewer}\nspec: {selector: {matchLabels: {app: ratings}}, action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/reviews]}}], to: [{operation: {methods: [GET], paths: ['/ratings/*', '*.html']}}]}]}",
        Accepted,
    ),
    (
        "TCP: ports",
        AP,
        "metadata: {name: tcp-policy}\nspec: {selector: {matchLabels: {app: tcp-echo}}, action: ALLOW, rules: [{to: [{operation: {ports: ['9000', '9001']}}]}]}",
        Accepted,
    ),
    (
        "TCP: method as well",
        AP,
        "metadata: {name: tcp-policy}\nspec: {selector: {matchLabels: {app: tcp-echo}}, action: DENY, rules: [{to: [{operation: {methods: [GET], ports: ['9000']}}]}]}",
        Accepted,
    ),
    (
        "deny by header",
        AP,
        "metadata: {name: deny-method-get}\nspec: {selector: {matchLabels: {app: httpbin}}, action: DENY, rules: [{to: [{operation: {methods: [GET]}}], when: [{key: 'request.headers[x-token]', notValues: [admin]}]}]}",
        Accepted,
    ),
    (
        "ingress by address",
        AP,
        "metadata: {name: ingress-policy}\nspec: {selector: {matchLabels: {istio: ingressgateway}}, action: ALLOW, rules: [{from: [{source: {ipBlocks: [1.2.3.4, 5.6.7.0/24]}}]}, {from: [{source: {remoteIpBlocks: [9.9.9.9]}}]}]}",
        Accepted,
    ),
    (
        "namespaces",
        AP,
        "metadata: {name: from-foo}\nspec: {rules: [{from: [{source: {namespaces: [foo], notNamespaces: [bar]}}]}]}",
        Accepted,
    ),
    (
        "path template",
        AP,
        "metadata: {name: template}\nspec: {rules: [{to: [{operation: {paths: ['/foo/{*}']}}]}]}",
        Refused("paths[0]: path templates are not supported yet"),
    ),
    (
        "JWT: requests",
        AP,
        "metadata: {name: require-jwt}\nspec: {action: ALLOW, rules: [{from: [{source: {requestPrincipals: ['testing@secure.istio.io/*']}}]}]}",
        Accepted,
    ),
    (
        "JWT: claims",
        AP,
        "metadata: {name: require-jwt}\nspec: {action: ALLOW, rules: [{when: [{key: 'request.auth.claims[groups]', values: [group1]}]}]}",
        Accepted,
    ),
    (
        "JWT: rules",
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n",
        "metadata: {name: jwt}\nspec: {selector: {matchLabels: {istio: ingressgateway}}, jwtRules: [{issuer: testing@secure.istio.io, jwksUri: 'https://keys.example.com/jwks.json', outputClaimToHeaders: [{header: x-jwt-claim-foo, claim: nested.key}]}]}",
        Accepted,
    ),
    (
        "JWT: rules whose keys the issuer's discovery document names",
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n",
        "metadata: {name: jwt}\nspec: {jwtRules: [{issuer: testing@secure.istio.io}]}",
        Refused("one of jwks and jwksUri is needed"),
    ),
    (
        "external authorization",
        AP,
        "metadata: {name: ext-authz}\nspec: {action: CUSTOM, provider: {name: sample-ext-authz}, rules: [{to: [{operation: {paths: [/headers]}}]}]}",
        Refused("\"CUSTOM\" is not supported yet"),
    ),
    (
        "audit",
        AP,
        "metadata: {name: audit}\nspec: {action: AUDIT, rules: [{}]}",
        Refused("\"AUDIT\" is not supported yet"),
    ),
    (
        "dry run",
        AP,
        "metadata: {name: deny-path, annotations: {istio.io/dry-run: 'true'}}\nspec: {action: DENY, rules: [{to: [{operation: {paths: [/headers]}}]}]}",
        Refused("metadata.annotations[istio.io/dry-run]: not supported yet"),
    ),
    (
        "dry run ended",
        AP,
        "metadata: {name: deny-path, annotations: {istio.io/dry-run: 'false'}}\nspec: {action: DENY, rules: [{to: [{operation: {paths: [/headers]}}]}]}",
        Accepted,
    ),
    (
        "target",
        AP,
        "metadata: {name: waypoint}\nspec: {targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}], rules: [{}]}",
        Refused("spec.targetRefs: not supported yet"),
    ),
    (
        "telemetry",
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\n",
        "metadata: {name: mesh-default}\nspec: {accessLogging: [{}]}",
        Refused("Telemetry is not supported yet"),
    ),
];

/// Keys of conditions as Istio's reference lists them, with a value each: in effect, or refused by name.
#[test]
fn every_condition_of_the_reference_is_in_effect_or_refused_by_its_key() {
    let of = |key: &str, list: &str, value: &str| {
        let text = format!(
            "{AP}metadata: {{name: p}}\nspec: {{selector: {{matchLabels: {{app: httpbin}}}}, rules: [{{when: [{{key: '{key}', {list}: ['{value}']}}]}}]}}"
        );
        let found = problems(&text);
        if !found.is_empty() {
            return Err(found.join("; "));
        }
        let world = world(services(), &text);
        let node = sidecar(&world, "httpbin-v1-6");
        Ok(serde_json::to_string(&planned(&world, &node).config).unwrap())
    };
    // The value, and what of it is to be found in the rules of the workload.
    for (key, value, shown) in [
        ("request.headers[x-Token]", "adm-in*", "x-token"),
        ("source.ip", "203.0.113.0/24", "203.0.113.0"),
        ("remote.ip", "203.0.113.7", "203.0.113.7"),
        ("source.namespace", "elsewhere", "/ns/elsewhere/sa/"),
        ("source.principal", "cluster.local/ns/x/sa/someone", "/ns/x/sa/someone"),
        ("source.serviceAccount", "x/someone", "/ns/x/sa/someone"),
        ("destination.ip", "198.51.100.0/24", "198.51.100.0"),
        ("connection.sni", "www.Example.com", "www.Example.com"),
        ("request.auth.principal", "issuer/subject", "subject"),
        ("request.auth.audiences", "us-all", "us-all"),
        ("request.auth.presenter", "someone", "azp"),
        ("request.auth.claims[iss]", "me-too", "me-too"),
        ("request.auth.claims[nested][claim]", "x", "nested"),
    ] {
        for list in ["values", "notValues"] {
            let config = of(key, list, value).unwrap_or_else(|problems| panic!("{key}: {problems}"));
            assert!(config.contains(shown), "{key} {list}: {shown} is in no rule");
        }
    }
    // A port is known when a rule is made: one that is another's leaves nothing to allow.
    assert!(of("destination.port", "values", "8080").is_ok());
    assert_ne!(of("destination.port", "values", "8080"), of("destination.port", "values", "9999"));
    for (key, reason) in [
        ("request.auth.claims[]", "unknown condition"),
        ("request.auth.claims[a", "unknown condition"),
        ("experimental.envoy.filters.network.mysql_proxy[db.table]", "not supported yet"),
        ("destination.labels[app]", "unknown condition"),
        ("request.headers[]", "unknown condition"),
        ("source.IP", "unknown condition"),
    ] {
        let refused = of(key, "values", "x").expect_err(key);
        assert!(refused.contains("spec.rules[0].when[0].key") && refused.contains(reason), "{refused}");
    }
    for (key, value) in
        [("source.ip", "nowhere"), ("destination.port", "http"), ("destination.ip", "10.0.0.0/33")]
    {
        let refused = of(key, "values", value).expect_err(key);
        assert!(refused.contains("spec.rules[0].when[0].values[0]"), "{refused}");
    }
}

/// A star asks for a value, whatever it is; it does not hold where there is none.
#[test]
fn star_as_a_value_asks_for_a_value() {
    let allowed_by = |when: &str| {
        let text = format!(
            "{AP}metadata: {{name: p}}\nspec: {{selector: {{matchLabels: {{app: tcp-echo}}}}, rules: [{{when: [{when}]}}]}}"
        );
        let world = world(services(), &text);
        serde_json::to_string(&planned(&world, &sidecar(&world, "tcp-echo-v1-9")).config).unwrap()
    };
    let any = allowed_by("{key: connection.sni, values: ['*']}");
    assert!(any.contains(r#""pattern":{"regex":".+"}"#) || any.contains(r#"{"Regex":".+"}"#), "{any}");
    assert!(!any.contains(r#""suffix":"""#) && !any.contains(r#"{"Suffix":""}"#), "{any}");
}
