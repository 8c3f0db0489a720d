//! Texts into objects: documents are split, parsed and recognised by `apiVersion` and `kind`.

use outrigger_traffic::config::ConfigError;
use serde_json::Value;

use super::read::{Fields, Node, Problems};
use super::{
    AuthorizationPolicy, DestinationRule, Gateway, Kind, Metadata, Object, PeerAuthentication,
    RequestAuthentication, Secret, ServiceEntry, Spec, VirtualService, WorkloadEntry, WorkloadGroup, shape,
};

/// Where a resource without a namespace belongs, as in Kubernetes.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Most documents in one text.
pub const DOCUMENTS_MAX: usize = 10_000;

/// Longest text, bytes.
pub const TEXT_BYTES_MAX: usize = 16 << 20;

const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha3"];

/// Reads every document of a YAML or JSON text, in order. Empty documents are left out; a `List` gives its items.
///
/// Each result stands for one document: a bad one does not hide the others. Problems of syntax name the line in the text.
pub fn parse_documents(text: &str) -> Vec<Result<Object, Vec<ConfigError>>> {
    parse_documents_in(text, DEFAULT_NAMESPACE)
}

/// As [`parse_documents`], with the namespace of documents that name none.
pub fn parse_documents_in(text: &str, namespace: &str) -> Vec<Result<Object, Vec<ConfigError>>> {
    let refuse = |reason: String| vec![Err(vec![ConfigError::new("", "", reason)])];
    if text.len() > TEXT_BYTES_MAX {
        return refuse(format!("longer than {TEXT_BYTES_MAX} bytes"));
    }
    let documents = split(text);
    if documents.len() > DOCUMENTS_MAX {
        return refuse(format!("more than {DOCUMENTS_MAX} documents"));
    }
    let mut results = Vec::new();
    for (first_line, document) in documents {
        match parse_value(document, first_line) {
            Ok(Value::Null) => {}
            Ok(value) => read_value(value, namespace, &mut results),
            Err(error) => results.push(Err(vec![error])),
        }
    }
    results
}

/// Document markers stand at the beginning of a line and cannot occur inside a scalar there (YAML 1.2 §9.1.2), so lines
/// are enough to split by. Returns the line number of each document's first line.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut offset) = (0, 1, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let end = offset + line.len();
        let marker = |m: &str| {
            line.strip_prefix(m)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']))
        };
        if marker("---") || marker("...") {
            documents.push((first_line, &text[start..offset]));
            // What follows the marker on its line belongs to the new document.
            start = offset + 3;
            first_line = number + 1;
        }
        offset = end;
    }
    documents.push((first_line, &text[start..]));
    documents
}

fn parse_value(document: &str, first_line: usize) -> Result<Value, ConfigError> {
    let only_comments = document.lines().all(|l| {
        let l = l.trim();
        l.is_empty() || l.starts_with('#') || l.starts_with('%')
    });
    if only_comments {
        return Ok(Value::Null);
    }
    // YAML 1.2: `on`, `no` and `n` are texts, as header values and names often are.
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    serde_saphyr::from_str_with_options(document, options).map_err(|error| {
        let at = error.location().map(|place| {
            let line = first_line as u64 + place.line().saturating_sub(1);
            format!("line {line}, column {}", place.column())
        });
        let text = error.to_string();
        let reason = text.lines().next().unwrap_or("not YAML").trim();
        ConfigError::new("", at.unwrap_or_else(|| format!("line {first_line}")), reason)
    })
}

fn read_value(mut value: Value, namespace: &str, results: &mut Vec<Result<Object, Vec<ConfigError>>>) {
    let is_list = value.get("kind").and_then(Value::as_str) == Some("List");
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => {
            results.extend(items.into_iter().map(|item| read_object(item, namespace)));
        }
        Some(items) => {
            if let Value::Object(map) = &mut value {
                map.insert("items".into(), items);
            }
            results.push(read_object(value, namespace));
        }
        None => results.push(read_object(value, namespace)),
    }
}

/// Annotation of policies that are to be tried only.
const DRY_RUN: &str = "istio.io/dry-run";

/// Reads one document.
///
/// *Errors*: every problem found.
pub fn read_object(mut value: Value, namespace: &str) -> Result<Object, Vec<ConfigError>> {
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api, kind_name) = (text(&value, "apiVersion"), text(&value, "kind"));
    let name = value.get("metadata").map(|m| text(m, "name")).unwrap_or_default();
    let resource = match (kind_name.as_str(), name.as_str()) {
        ("", "") => String::new(),
        (kind, "") => kind.to_owned(),
        ("", name) => name.to_owned(),
        (kind, name) => format!("{kind}/{name}"),
    };
    let kind = recognise(&api, &kind_name)
        .map_err(|(path, reason)| vec![ConfigError::new(resource, path, reason)])?;
    fill_in(&mut value, namespace);
    let place = value.get("metadata").map(|m| text(m, "namespace")).unwrap_or_default();
    let problems = Problems::of(format!("{}/{place}/{name}", kind.name()));
    let read = read_kind(kind, &Node::root(&value, &problems));
    let problems = problems.into_list();
    match read {
        Some((metadata, spec)) if problems.is_empty() => Ok(Object { kind, metadata, spec, value }),
        _ => Err(problems),
    }
}

/// The kind, or the field that is wrong and why.
fn recognise(api: &str, kind_name: &str) -> Result<Kind, (&'static str, String)> {
    if kind_name.is_empty() {
        return Err(("kind", "is required".into()));
    }
    if api.is_empty() {
        return Err(("apiVersion", "is required".into()));
    }
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    let Some(kind) = Kind::ALL.into_iter().find(|k| k.name() == kind_name && k.group() == group) else {
        return Err(("kind", unknown_kind(api, group, kind_name)));
    };
    let fits = if group.is_empty() { version == "v1" } else { VERSIONS.contains(&version) };
    // The security group never had a v1alpha3.
    if !fits || (group == "security.istio.io" && version == "v1alpha3") {
        return Err(("apiVersion", format!("version {version:?} of {kind_name} is not known; use v1")));
    }
    Ok(kind)
}

fn unknown_kind(api: &str, group: &str, kind_name: &str) -> String {
    const ISTIO_NOT_YET: [&str; 7] = [
        "EnvoyFilter",
        "Sidecar",
        "ProxyConfig",
        "RequestAuthentication",
        "Telemetry",
        "WasmPlugin",
        "ServiceEntryStatus",
    ];
    if group.ends_with("istio.io") {
        if ISTIO_NOT_YET.contains(&kind_name) {
            return format!("{kind_name} is not supported yet");
        }
        return match Kind::ALL.into_iter().find(|k| k.name() == kind_name) {
            Some(kind) => format!("{kind_name} belongs to the group {:?}, not {group:?}", kind.group()),
            None => format!("{kind_name} is no kind of Istio's API that is known here"),
        };
    }
    if group == "gateway.networking.k8s.io" {
        return format!(
            "{kind_name} of the Kubernetes Gateway API is not supported yet; use Gateway and VirtualService of networking.istio.io"
        );
    }
    format!(
        "{kind_name} of {api:?} is a Kubernetes kind, which Outrigger does not take: workloads register themselves, and \
         services that cannot are declared with ServiceEntry"
    )
}

/// Fills in the namespace and drops what a server adds, so that what `get` printed can be applied again.
fn fill_in(value: &mut Value, namespace: &str) {
    let Value::Object(document) = value else { return };
    document.shift_remove("status");
    if let Some(Value::Object(metadata)) = document.get_mut("metadata") {
        metadata.shift_remove("managedFields");
        let absent = metadata.get("namespace").is_none_or(|n| n.is_null() || n == "");
        if absent {
            metadata.insert("namespace".into(), Value::String(namespace.into()));
        }
    }
}

fn read_kind(kind: Kind, root: &Node<'_>) -> Option<(Metadata, Spec)> {
    let shape = if kind == Kind::Secret { &shape::SECRET } else { &shape::DOCUMENT };
    root.message(shape, |f| {
        // Both were looked at to recognise the kind.
        let _ = (f.field("apiVersion"), f.field("kind"));
        let metadata = f.required("metadata").map(|n| read_metadata(kind, &n)).unwrap_or_default();
        Some((metadata, read_spec(kind, f)?))
    })
    .flatten()
}

fn read_spec(kind: Kind, f: &Fields<'_>) -> Option<Spec> {
    if kind == Kind::Secret {
        return Some(Spec::Secret(Secret::read(f)));
    }
    // An absent spec is an empty one: `AuthorizationPolicy` without a spec denies everything.
    let empty_allowed =
        matches!(kind, Kind::AuthorizationPolicy | Kind::PeerAuthentication | Kind::RequestAuthentication);
    let empty = Value::Object(serde_json::Map::new());
    let none = Problems::default();
    let spec = match f.field("spec") {
        Some(spec) => spec,
        None if empty_allowed => return read_typed(kind, &Node::root(&empty, &none)),
        None => f.required("spec")?,
    };
    read_typed(kind, &spec)
}

fn read_typed(kind: Kind, spec: &Node<'_>) -> Option<Spec> {
    match kind {
        Kind::AuthorizationPolicy => AuthorizationPolicy::read(spec).map(Spec::AuthorizationPolicy),
        Kind::DestinationRule => DestinationRule::read(spec).map(Box::new).map(Spec::DestinationRule),
        Kind::Gateway => Gateway::read(spec).map(Spec::Gateway),
        Kind::PeerAuthentication => PeerAuthentication::read(spec).map(Spec::PeerAuthentication),
        Kind::RequestAuthentication => RequestAuthentication::read(spec).map(Spec::RequestAuthentication),
        Kind::ServiceEntry => ServiceEntry::read(spec).map(Spec::ServiceEntry),
        Kind::VirtualService => VirtualService::read(spec).map(Spec::VirtualService),
        Kind::WorkloadEntry => WorkloadEntry::read(spec).map(Spec::WorkloadEntry),
        Kind::WorkloadGroup => WorkloadGroup::read(spec).map(Spec::WorkloadGroup),
        Kind::Secret => None,
    }
}

fn read_metadata(kind: Kind, node: &Node<'_>) -> Metadata {
    let read = node.message(&shape::METADATA, |f| {
        refuse_dry_run(kind, f);
        let name = f.required("name").map(|n| n.name()).unwrap_or_default();
        if !name.is_empty() && !is_name(&name) {
            f.problem("name", "must be 1 to 253 characters of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit");
        }
        let namespace = f.text("namespace");
        if !is_label(&namespace) {
            f.problem("namespace", "must be 1 to 63 characters of a-z, 0-9 and '-', beginning and ending with a letter or digit");
        }
        Metadata {
            name,
            namespace,
            labels: f.texts_by_key("labels"),
            annotations: f.texts_by_key("annotations"),
            resource_version: f.field("resourceVersion").map(|n| n.text()),
        }
    });
    read.unwrap_or_default()
}

/// An annotation that, ignored, would turn what it is for into its opposite.
fn refuse_dry_run(kind: Kind, f: &Fields<'_>) {
    let dry_run = f.texts_by_key("annotations").get(DRY_RUN).is_some_and(|value| value != "false");
    if kind == Kind::AuthorizationPolicy && dry_run {
        f.problem(&format!("annotations[{DRY_RUN}]"), "not supported yet: the policy would be in force");
    }
}

/// A DNS label in lower case (RFC 1123 §2.1).
pub(crate) fn is_label(text: &str) -> bool {
    let inside = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(inside)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A DNS name in lower case.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// A DNS name in lower case, or `*.` before one, or `*`.
pub(crate) fn is_host_pattern(text: &str) -> bool {
    text == "*" || is_host(text.strip_prefix("*.").unwrap_or(text))
}

/// A host name: labels may hold underscores and capitals, which names in DNS do have.
pub(crate) fn is_host(text: &str) -> bool {
    let inside = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    let label = |l: &str| {
        !l.is_empty() && l.len() <= 63 && l.bytes().all(inside) && !l.starts_with('-') && !l.ends_with('-')
    };
    !text.is_empty() && text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
