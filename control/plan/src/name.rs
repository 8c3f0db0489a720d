//! How hosts and clusters are called.

/// Name of the cluster for a port of a host, or for a subset of it (Istio's form): `outbound|8080|v1|b.demo.mesh`.
pub fn outbound_cluster(host: &str, port: u16, subset: Option<&str>) -> String {
    format!("outbound|{port}|{}|{host}", subset.unwrap_or_default())
}

/// Name of the cluster that leads from a sidecar to its application.
pub fn inbound_cluster(port: u16) -> String {
    format!("inbound|{port}||")
}

/// The server name by which one sidecar tells another which port of which service it means (Istio's form).
pub fn server_name(host: &str, port: u16) -> String {
    format!("outbound_.{port}_._.{host}")
}

/// Host of a registered service.
pub fn service_host(service: &str, namespace: &str, mesh_domain: &str) -> String {
    format!("{service}.{namespace}.{mesh_domain}")
}

/// Further names of a registered service, good in every namespace.
pub fn aliases(service: &str, namespace: &str) -> [String; 3] {
    let host = format!("{service}.{namespace}");
    [format!("{host}.svc.cluster.local"), format!("{host}.svc"), host]
}

/// The service and namespace of a name that can only mean a service of the mesh: `b.demo.svc`, `b.demo.svc.cluster.local`.
pub fn kubernetes_parts(host: &str) -> Option<(&str, &str)> {
    let rest = host.strip_suffix(".svc.cluster.local").or_else(|| host.strip_suffix(".svc"))?;
    rest.split_once('.').filter(|(service, namespace)| {
        !service.is_empty() && !namespace.is_empty() && !namespace.contains('.')
    })
}

/// Whether `pattern` (a name, `*.suffix` or `*`) covers `host`, which may be a pattern itself.
pub fn covers(pattern: &str, host: &str) -> bool {
    if pattern == "*" || pattern == host {
        return true;
    }
    let Some(suffix) = pattern.strip_prefix('*') else { return false };
    let host = host.strip_prefix('*').unwrap_or(host);
    // `*.a.b` covers `*.a.b` and `x.a.b`, not `a.b`: the suffix begins with its dot.
    host.len() >= suffix.len() && host.ends_with(suffix)
}

/// The hosts that both patterns cover, as a pattern.
pub fn overlap<'a>(a: &'a str, b: &'a str) -> Option<&'a str> {
    if covers(a, b) {
        Some(b)
    } else if covers(b, a) {
        Some(a)
    } else {
        None
    }
}

/// How specific a pattern is, for choosing among those that cover a host: names before suffixes, long before short.
pub fn specificity(pattern: &str) -> (bool, usize) {
    (!pattern.starts_with('*'), pattern.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_covers_what_its_suffix_ends() {
        for (pattern, host, expected) in [
            ("*", "a", true),
            ("a.b", "a.b", true),
            ("*.b", "a.b", true),
            ("*.b", "x.a.b", true),
            ("*.b", "b", false),
            ("*.b", "ab", false),
            ("*.b", "*.a.b", true),
            ("*.a.b", "*.b", false),
            ("a.b", "*.b", false),
            ("a.b", "*", false),
        ] {
            assert_eq!(covers(pattern, host), expected, "{pattern} {host}");
        }
        assert_eq!(overlap("*", "a.b"), Some("a.b"));
        assert_eq!(overlap("a.b", "*.b"), Some("a.b"));
        assert_eq!(overlap("*.a.b", "*.b"), Some("*.a.b"));
        assert_eq!(overlap("a.b", "c.b"), None);
    }

    #[test]
    fn kubernetes_name_gives_service_and_namespace() {
        assert_eq!(kubernetes_parts("b.demo.svc.cluster.local"), Some(("b", "demo")));
        assert_eq!(kubernetes_parts("b.demo.svc"), Some(("b", "demo")));
        assert_eq!(kubernetes_parts("b.demo"), None);
        assert_eq!(kubernetes_parts("x.b.demo.svc"), None);
    }
}
