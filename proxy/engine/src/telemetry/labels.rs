//! Who is who in metrics: labels of this node, of a cluster, of an endpoint, of a SPIFFE id.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

/// Value of a label that is not known, as in Istio's metrics.
pub const UNKNOWN: &str = "unknown";

/// Who this proxy is: xDS node plus what metrics say of the workload beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeIdentity {
    /// `node.id`.
    pub id: String,
    /// `node.cluster`; also the default service name of spans.
    pub cluster: String,
    /// Labels of the workload beside this proxy.
    pub workload: WorkloadLabels,
    /// Its verified identity, where the labels do not say it: set as soon as the proxy has a certificate. Clones share it.
    pub principal: Arc<OnceLock<String>>,
    /// Further node metadata, for `/server_info`.
    pub metadata: BTreeMap<String, String>,
}

impl NodeIdentity {
    /// All that is known by now of the workload beside this proxy.
    pub fn labels(&self) -> WorkloadLabels {
        let mut labels = self.workload.clone();
        if let Some(principal) = self.principal.get().filter(|_| labels.principal.is_empty()) {
            labels.principal.clone_from(principal);
        }
        labels
    }
}

/// What metrics say of a workload. Empty: not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadLabels {
    /// Workload (deployment, ECS service).
    pub workload: String,
    /// Namespace.
    pub namespace: String,
    /// `app` label.
    pub app: String,
    /// `version` label.
    pub version: String,
    /// Verified identity, as in `spiffe://mesh/ns/shop/sa/cart`.
    pub principal: String,
    /// Name of the logical service it belongs to; empty: the app's, else the workload's.
    pub canonical_service: String,
    /// Site or cluster it runs in.
    pub cluster: String,
}

impl WorkloadLabels {
    /// Reads ordered pairs, as endpoints carry them. Pairs with other names say nothing here.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut labels = Self::default();
        for (name, value) in pairs {
            let place = match name {
                "workload" | "destination_workload" => &mut labels.workload,
                "namespace" | "destination_workload_namespace" => &mut labels.namespace,
                "app" | "destination_app" => &mut labels.app,
                "version" | "destination_version" => &mut labels.version,
                "principal" | "destination_principal" => &mut labels.principal,
                "canonical_service" | "destination_canonical_service" => &mut labels.canonical_service,
                "cluster" | "destination_cluster" => &mut labels.cluster,
                _ => continue,
            };
            value.clone_into(place);
        }
        labels
    }

    /// What a SPIFFE id alone says: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`, where the service
    /// account stands for the workload. Another form gives the principal alone.
    pub fn from_principal(principal: &str) -> Self {
        let mut labels = Self { principal: principal.to_owned(), ..Self::default() };
        let Some(rest) = principal.strip_prefix("spiffe://") else { return labels };
        let mut parts = rest.split('/').skip(1);
        if let (Some("ns"), Some(namespace), Some("sa"), Some(account), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        {
            namespace.clone_into(&mut labels.namespace);
            account.clone_into(&mut labels.workload);
        }
        labels
    }

    fn canonical_service(&self) -> &str {
        [&self.canonical_service, &self.app, &self.workload]
            .into_iter()
            .find(|v| !v.is_empty())
            .map_or("", |v| v)
    }
}

/// What metrics say of the service a cluster stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceLabels {
    /// Host name of the service.
    pub service: String,
    /// Its short name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

impl ServiceLabels {
    /// From the labels of a cluster; the cluster's name stands in for a service that has none.
    pub fn of_cluster(labels: &[(String, String)], cluster_name: &str) -> Self {
        let find =
            |name: &str| labels.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default();
        let mut service = Self {
            service: find("destination_service"),
            name: find("destination_service_name"),
            namespace: find("destination_service_namespace"),
        };
        if service.service.is_empty() {
            cluster_name.clone_into(&mut service.service);
        }
        if service.name.is_empty() {
            let short = service.service.split('.').next().unwrap_or_default();
            service.name = if short.is_empty() { service.service.clone() } else { short.to_owned() };
        }
        service
    }
}

/// Builds the text between the braces of a Prometheus series.
#[derive(Debug, Default)]
pub struct LabelText(String);

impl LabelText {
    /// Appends `name="value"`, escaped; an empty value becomes `unknown`.
    pub fn push(&mut self, name: &str, value: &str) {
        self.push_raw(name, if value.is_empty() { UNKNOWN } else { value });
    }

    /// Appends `name="value"`, escaped, empty or not.
    pub fn push_raw(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(name);
        self.0.push_str("=\"");
        escape_value(value, &mut self.0);
        self.0.push('"');
    }

    /// Appends a number.
    pub fn push_number(&mut self, name: &str, value: u64) {
        let separator = if self.0.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{separator}{name}=\"{value}\"");
    }

    /// Appends everything said of a workload; `side` is `source` or `destination`.
    pub fn push_workload(&mut self, side: &str, labels: &WorkloadLabels) {
        for (name, value) in [
            ("workload", labels.workload.as_str()),
            ("workload_namespace", &labels.namespace),
            ("principal", &labels.principal),
            ("app", &labels.app),
            ("version", &labels.version),
            ("cluster", &labels.cluster),
            ("canonical_service", labels.canonical_service()),
            ("canonical_revision", if labels.version.is_empty() { "latest" } else { &labels.version }),
        ] {
            if !self.0.is_empty() {
                self.0.push(',');
            }
            self.0.push_str(side);
            self.0.push('_');
            self.0.push_str(name);
            self.0.push_str("=\"");
            escape_value(if value.is_empty() { UNKNOWN } else { value }, &mut self.0);
            self.0.push('"');
        }
    }

    /// The text.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// Escapes a label value (Prometheus exposition format: backslash, quote, line feed).
pub fn escape_value(value: &str, out: &mut String) {
    if !value.bytes().any(|byte| matches!(byte, b'\\' | b'"' | b'\n')) {
        out.push_str(value);
        return;
    }
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principal_of_mesh_form_names_namespace_and_workload() {
        let labels = WorkloadLabels::from_principal("spiffe://mesh/ns/shop/sa/cart");
        assert_eq!((labels.namespace.as_str(), labels.workload.as_str()), ("shop", "cart"));
        for other in ["spiffe://mesh/web", "spiffe://mesh/ns/a/sa/b/c", "https://mesh/ns/a/sa/b", ""] {
            let labels = WorkloadLabels::from_principal(other);
            assert_eq!(labels, WorkloadLabels { principal: other.into(), ..WorkloadLabels::default() });
        }
    }

    #[test]
    fn label_value_hostile_is_escaped() {
        let mut text = LabelText::default();
        text.push("a", "x\"y\\z\n");
        text.push("b", "");
        assert_eq!(text.into_string(), r#"a="x\"y\\z\n",b="unknown""#);
    }

    #[test]
    fn service_without_labels_is_named_after_its_cluster() {
        let service = ServiceLabels::of_cluster(&[], "reviews.shop.mesh");
        assert_eq!((service.service.as_str(), service.name.as_str()), ("reviews.shop.mesh", "reviews"));
    }
}
