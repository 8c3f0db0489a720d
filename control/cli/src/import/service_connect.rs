//! ECS Service Connect: services as they are created or described, and the task definitions of their ports.
//!
//! A name that clients use becomes a ServiceEntry whose workloads are the tasks that register as the ECS service's
//! name; limits and TLS become a VirtualService, a DestinationRule and a PeerAuthentication.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_plan::Kind;
use serde_json::{Map, Value, json};

use super::Settings;
use super::resource::{self, Made, filled, put};
use super::trace::Cursor;

/// Service Connect's limit for requests where a service gives none.
const TIMEOUT_DEFAULT: &str = "15s";

/// Longest time taken, seconds: a year.
const SECONDS_MAX: u64 = 366 * 24 * 3600;

/// Deepest nesting of lists and objects around a service.
const DEPTH_MAX: usize = 8;

const PROTOCOLS: [(&str, &str); 3] = [("http", "HTTP"), ("http2", "HTTP2"), ("grpc", "GRPC")];

/// A named port of a task definition.
struct TaskPort<'a> {
    family: &'a str,
    name: &'a str,
    number: u16,
    protocol: &'static str,
}

/// A service with Service Connect.
struct Service<'a> {
    name: &'a str,
    at: Cursor<'a>,
    configuration: Cursor<'a>,
    /// Family of its task definition.
    family: &'a str,
}

#[derive(Default)]
struct Input<'a> {
    ports: Vec<TaskPort<'a>>,
    services: Vec<Service<'a>>,
}

/// A service's port under the name that clients use.
struct Offer<'a> {
    service: &'a str,
    name: &'a str,
    number: u16,
    target: u16,
    protocol: &'static str,
    timeout: String,
    idle: Option<String>,
    tls: bool,
    at: Cursor<'a>,
}

/// Reads Service Connect.
pub fn read(roots: &[Cursor<'_>], settings: &Settings, made: &mut Made) {
    let mut input = Input::default();
    roots.iter().for_each(|root| collect(root, 0, &mut input));
    let mut offers: BTreeMap<(String, String), Vec<Offer<'_>>> = BTreeMap::new();
    for service in &input.services {
        read_service(&input, service, settings, &mut offers);
    }
    for ((namespace, host), offers) in &offers {
        make(namespace, host, offers, made);
    }
}

fn collect<'a>(at: &Cursor<'a>, depth: usize, input: &mut Input<'a>) {
    if depth > DEPTH_MAX {
        return;
    }
    at.list().iter().for_each(|child| collect(child, depth + 1, input));
    let has = |field: &str| at.peek().get(field).is_some_and(|value| !value.is_null());
    if has("containerDefinitions") {
        task_definition(at, input);
    } else if has("serviceName") {
        ecs_service(at, input);
    } else {
        at.fields().iter().for_each(|(_, child)| collect(child, depth + 1, input));
    }
}

fn task_definition<'a>(at: &Cursor<'a>, input: &mut Input<'a>) {
    const OURS: &str = "of the task, not of the mesh: it stays in the task definition";
    let family = at.text_of("family").unwrap_or_default();
    for (key, child) in at.fields() {
        if !matches!(key, "family" | "containerDefinitions") {
            child.record(OURS);
        }
    }
    for container in at.items("containerDefinitions") {
        for (key, child) in container.fields() {
            if key != "portMappings" {
                child.record(OURS);
            }
        }
        for mapping in container.items("portMappings") {
            for field in ["hostPort", "protocol", "containerPortRange"] {
                if let Some(at) = mapping.get(field) {
                    at.record(OURS);
                }
            }
            let (Some(name), Some(number)) = (mapping.text_of("name"), mapping.port_of("containerPort"))
            else {
                mapping.record("a port without a name is not one of Service Connect");
                continue;
            };
            let protocol = mapping.word_of("appProtocol", &PROTOCOLS).unwrap_or("TCP");
            if input.ports.iter().any(|port| (port.family, port.name) == (family, name)) {
                mapping.lost(format!("port {name:?} is given twice: the first one counts"));
                continue;
            }
            input.ports.push(TaskPort { family, name, number, protocol });
        }
    }
}

fn ecs_service<'a>(at: &Cursor<'a>, input: &mut Input<'a>) {
    // Described services have it in their deployments, of which the primary one counts.
    let deployments = at.items("deployments");
    let primary = deployments.iter().find(|d| d.peek().get("status").is_some_and(|s| s == "PRIMARY"));
    let deployed = primary.or(deployments.first()).and_then(|d| d.get("serviceConnectConfiguration"));
    let configuration = at.get("serviceConnectConfiguration").or(deployed);
    for (key, child) in at.fields() {
        match key {
            "serviceName" | "taskDefinition" | "serviceConnectConfiguration" => {}
            "deployments" => {
                for (_, child) in deployments.iter().flat_map(Cursor::fields) {
                    if configuration.as_ref().is_none_or(|c| c.path() != child.path()) {
                        child.record("state of a deployment");
                    }
                }
            }
            _ => child.record("of the ECS service, not of the mesh: it stays there"),
        }
    }
    let Some(configuration) = configuration else {
        at.record("a service without Service Connect");
        return;
    };
    let Some(name) = at.text_of("serviceName") else { return };
    let family = at.text_of("taskDefinition").unwrap_or_default();
    // `arn:aws:ecs:region:account:task-definition/family:7`
    let family = family.rsplit('/').next().unwrap_or_default();
    let family = family.split(':').next().unwrap_or_default();
    input.services.push(Service { name, at: at.clone(), configuration, family });
}

fn read_service<'a>(
    input: &Input<'a>,
    service: &Service<'a>,
    settings: &Settings,
    offers: &mut BTreeMap<(String, String), Vec<Offer<'a>>>,
) {
    let at = &service.configuration;
    if let Some(logs) = at.get("logConfiguration") {
        logs.lost("logs of the proxy are a setting of the proxy, not of resources");
    }
    if let Some(logs) = at.get("accessLogConfiguration") {
        logs.lost("access logs are a setting of the proxy, not of resources");
    }
    match at.flag_of("enabled") {
        Some(true) => {}
        Some(false) => {
            at.record("Service Connect is switched off");
            return;
        }
        None => {
            at.lost("it is not said whether it is enabled");
            return;
        }
    }
    // A name, or `arn:aws:servicediscovery:region:account:namespace/ns-…`.
    let given = at.text_of("namespace").unwrap_or("default");
    let cloud = given.rsplit('/').next().unwrap_or(given);
    if cloud != given
        && let Some(at) = at.get("namespace")
    {
        at.note("an ARN has the namespace's id, not its name: names without an alias are made with the id");
    }
    let namespace = settings.namespace.clone().unwrap_or_else(|| resource::label(cloud));
    for offer in at.items("services") {
        if let Err(reason) = read_offer(input, service, &offer, cloud, &namespace, offers) {
            offer.lost(format!("left out: {reason}"));
        }
    }
}

fn read_offer<'a>(
    input: &Input<'a>,
    service: &Service<'a>,
    at: &Cursor<'a>,
    cloud: &str,
    namespace: &str,
    offers: &mut BTreeMap<(String, String), Vec<Offer<'a>>>,
) -> Result<(), String> {
    let name = at.text_of("portName").ok_or("it has no portName")?;
    let mut ports = input.ports.iter().filter(|port| port.name == name);
    let own = ports.clone().find(|port| port.family == service.family);
    let port = match own {
        Some(port) => port,
        None => match (ports.next(), ports.next()) {
            (Some(port), None) if service.family.is_empty() || port.family.is_empty() => port,
            _ => {
                return Err(format!("no task definition of the input names a port {name:?} of this service"));
            }
        },
    };
    if let Some(task) = service.at.get("taskDefinition") {
        task.note("names the task definition that its ports were looked up in");
    }
    let aliases = at.items("clientAliases");
    // Where every alias has a name of its own, nobody is told of this one.
    let is_told = aliases.is_empty() || aliases.iter().any(|alias| alias.get("dnsName").is_none());
    let found = match at.get("discoveryName") {
        Some(discovery) if !is_told => {
            discovery.changed("callers know the service by the names of its aliases");
            name
        }
        _ => at.text_of("discoveryName").unwrap_or(name),
    };
    if let Some(over) = at.get("ingressPortOverride") {
        over.changed("the port the sidecar listens at is chosen by the agent; callers learn it from the control service");
    }
    let tls = at.get("tls");
    if let Some(tls) = &tls {
        tls.changed("TLS with the mesh's own authority, and with certificates on both sides");
    }
    let is_http = port.protocol != "TCP";
    let seconds = |field: &str| at.dig(&["timeout", field]).and_then(|at| at.number(0, SECONDS_MAX));
    let timeout = if is_http { seconds("perRequestTimeoutSeconds") } else { None };
    let timeout = timeout.map_or(TIMEOUT_DEFAULT.to_owned(), |seconds| format!("{seconds}s"));
    let idle = at.dig(&["timeout", "idleTimeoutSeconds"]);
    let idle = if is_http {
        let number = idle.as_ref().and_then(|at| at.number(1, SECONDS_MAX));
        if number.is_none()
            && let Some(at) = &idle
        {
            at.lost("connections without a limit of idle time are not to be had: the default holds");
        }
        number.map(|seconds| format!("{seconds}s"))
    } else {
        if let Some(at) = &idle {
            at.lost("there is no limit for the idle time of connections of bytes");
        }
        None
    };
    let offer = |number| Offer {
        service: service.name,
        name,
        number,
        target: port.number,
        protocol: port.protocol,
        timeout: timeout.clone(),
        idle: idle.clone(),
        tls: tls.is_some(),
        at: at.clone(),
    };
    let default = format!("{found}.{cloud}");
    if aliases.is_empty() {
        // Without an alias there is a name, but clients find it at the container's own port.
        let host = resource::host(&default).ok_or_else(|| format!("{default:?} is no host name"))?;
        return add(offers, namespace, host, offer(port.number));
    }
    for alias in aliases {
        let host = alias.text_of("dnsName").unwrap_or(&default);
        let host = resource::host(host).ok_or_else(|| format!("{host:?} is no host name"))?;
        let number = alias.port_of("port").ok_or("an alias has no port")?;
        if let Some(test) = alias.get("testTrafficRules") {
            test.lost("blue/green deployments are steered with weights and headers of a VirtualService");
        }
        add(offers, namespace, host, offer(number))?;
    }
    Ok(())
}

fn add<'a>(
    offers: &mut BTreeMap<(String, String), Vec<Offer<'a>>>,
    namespace: &str,
    host: String,
    offer: Offer<'a>,
) -> Result<(), String> {
    let all = offers.entry((namespace.to_owned(), host)).or_default();
    if all.iter().any(|other| other.number == offer.number || other.name == offer.name) {
        return Err("the same name and port are offered twice: the first one counts".to_owned());
    }
    if all.iter().any(|other| other.service != offer.service) {
        return Err("the same name is offered by another service: the first one counts".to_owned());
    }
    all.push(offer);
    Ok(())
}

fn make(namespace: &str, host: &str, offers: &[Offer<'_>], made: &mut Made) {
    let Some(first) = offers.first() else { return };
    let (service, from) =
        (first.service, format!("Service Connect name {host} of ECS service {}", first.service));
    let ports: Vec<Value> = offers
        .iter()
        .map(|o| json!({"number": o.number, "name": o.name, "protocol": o.protocol, "targetPort": o.target}))
        .collect();
    let app = resource::label(service);
    let entry = json!({
        "hosts": [host],
        "ports": ports,
        "location": "MESH_INTERNAL",
        "resolution": "STATIC",
        "workloadSelector": {"labels": {"app": app}},
    });
    made.add(Kind::ServiceEntry, namespace, host, &from, &first.at, entry);

    let routes: Vec<Value> = offers
        .iter()
        .filter(|o| o.protocol != "TCP")
        .map(|o| {
            let destination = json!({"host": host, "port": {"number": o.number}});
            json!({"name": o.name, "match": [{"port": o.number}], "route": [{"destination": destination}], "timeout": o.timeout})
        })
        .collect();
    if !routes.is_empty() {
        let spec = json!({"hosts": [host], "http": routes});
        made.add(Kind::VirtualService, namespace, host, &from, &first.at, spec);
    }

    let mut policy = Map::new();
    // Service Connect takes hosts in turn.
    policy.insert("loadBalancer".to_owned(), json!({"simple": "ROUND_ROBIN"}));
    let levels: Vec<Value> = offers
        .iter()
        .filter_map(|o| {
            let mut level = Map::new();
            put(
                &mut level,
                "connectionPool",
                o.idle.as_ref().map(|idle| json!({"http": {"idleTimeout": idle}})),
            );
            put(&mut level, "tls", o.tls.then(|| json!({"mode": "ISTIO_MUTUAL"})));
            let mut level = filled(level)?;
            level["port"] = json!({"number": o.number});
            level["loadBalancer"] = json!({"simple": "ROUND_ROBIN"});
            Some(level)
        })
        .collect();
    put(&mut policy, "portLevelSettings", (!levels.is_empty()).then_some(levels));
    let spec = json!({"host": host, "trafficPolicy": policy});
    made.add(Kind::DestinationRule, namespace, host, &from, &first.at, spec);

    let strict: BTreeSet<u16> = offers.iter().filter(|o| o.tls).map(|o| o.target).collect();
    if !strict.is_empty() {
        let levels: Map<String, Value> =
            strict.iter().map(|port| (port.to_string(), json!({"mode": "STRICT"}))).collect();
        let spec = json!({"selector": {"matchLabels": {"app": app}}, "portLevelMtls": levels});
        made.add(Kind::PeerAuthentication, namespace, host, &from, &first.at, spec);
    }
}
