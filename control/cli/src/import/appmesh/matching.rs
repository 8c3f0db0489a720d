//! Which requests: matches of routes and of gateway routes.
//!
//! A condition that cannot be expressed makes the whole match fail: a route without one of its conditions would take
//! requests that are not meant for it.

use serde_json::{Map, Value, json};

use crate::import::resource::{escape, put};
use crate::import::trace::Cursor;

/// A path, or many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Prefix(String),
    Exact(String),
    Regex(String),
}

/// All that is given must hold.
#[derive(Clone, Debug)]
pub(super) struct Match {
    pub(super) path: Path,
    pub(super) method: Option<String>,
    pub(super) scheme: Option<String>,
    /// `StringMatch` of the host.
    pub(super) authority: Option<Value>,
    pub(super) headers: Map<String, Value>,
    pub(super) without: Map<String, Value>,
    pub(super) query: Map<String, Value>,
    pub(super) port: Option<u16>,
}

impl Match {
    /// As in a VirtualService; `None` where it takes everything.
    pub(super) fn value(&self) -> Option<Value> {
        let mut map = Map::new();
        let uri = match &self.path {
            Path::Prefix(path) if path == "/" => None,
            Path::Prefix(path) => Some(json!({"prefix": path})),
            Path::Exact(path) => Some(json!({"exact": path})),
            Path::Regex(pattern) => Some(json!({"regex": pattern})),
        };
        put(&mut map, "uri", uri);
        put(&mut map, "method", self.method.as_ref().map(|method| json!({"exact": method})));
        put(&mut map, "scheme", self.scheme.as_ref().map(|scheme| json!({"exact": scheme})));
        put(&mut map, "authority", self.authority.clone());
        for (field, entries) in
            [("headers", &self.headers), ("withoutHeaders", &self.without), ("queryParams", &self.query)]
        {
            put(&mut map, field, (!entries.is_empty()).then(|| entries.clone()));
        }
        put(&mut map, "port", self.port);
        (!map.is_empty()).then_some(Value::Object(map))
    }

    /// Both hold, with this path. `None`: nothing fulfils both.
    ///
    /// *Errors*: it cannot be expressed.
    pub(super) fn and(&self, inner: &Self, path: Path) -> Result<Option<Self>, String> {
        let mut both = Self { path, ..self.clone() };
        for (ours, theirs) in [(&mut both.method, &inner.method), (&mut both.scheme, &inner.scheme)] {
            match (ours.as_ref(), theirs) {
                (Some(a), Some(b)) if a != b => return Ok(None),
                (None, Some(b)) => *ours = Some(b.clone()),
                _ => {}
            }
        }
        for (ours, theirs) in [
            (&mut both.headers, &inner.headers),
            (&mut both.without, &inner.without),
            (&mut both.query, &inner.query),
        ] {
            for (name, wanted) in theirs {
                if ours.insert(name.clone(), wanted.clone()).is_some_and(|before| before != *wanted) {
                    return Err(format!(
                        "{name:?} is matched in two ways, by the gateway route and by the route behind it"
                    ));
                }
            }
        }
        Ok(Some(both))
    }
}

/// Reads `match` of a route or gateway route; absent, it takes everything.
///
/// *Errors*: why it cannot be expressed.
pub(super) fn read(at: Option<&Cursor<'_>>, grpc: bool) -> Result<Match, String> {
    let mut found = Match {
        path: Path::Prefix("/".to_owned()),
        method: None,
        scheme: None,
        authority: None,
        headers: Map::new(),
        without: Map::new(),
        query: Map::new(),
        port: None,
    };
    let Some(at) = at else { return Ok(found) };
    if at.get("port").is_some() {
        found.port = Some(at.port_of("port").ok_or("the port is not understood")?);
    }
    if at.get("hostname").is_some() {
        found.authority = Some(hostname(&at.get("hostname").ok_or("")?)?);
    }
    if grpc {
        found.path = grpc_path(at)?;
        headers(at, "metadata", &mut found)?;
    } else {
        found.path = path(at)?;
        headers(at, "headers", &mut found)?;
        for (field, place) in [("method", &mut found.method), ("scheme", &mut found.scheme)] {
            if let Some(value) = at.get(field) {
                let text = value.text().ok_or_else(|| format!("the {field} is not understood"))?;
                *place = Some(if field == "scheme" { text.to_ascii_lowercase() } else { text.to_owned() });
            }
        }
        for parameter in at.items("queryParameters") {
            let name = parameter.text_of("name").ok_or("a query parameter has no name")?;
            let wanted = match parameter.dig(&["match", "exact"]) {
                Some(exact) => {
                    json!({"exact": exact.text().ok_or("a query parameter's value is not understood")?})
                }
                None if parameter.get("match").is_none() => json!({}),
                None => return Err("a query parameter's match is not understood".to_owned()),
            };
            once(&mut found.query, name, wanted)?;
        }
    }
    known(at, grpc)?;
    Ok(found)
}

/// A condition that is not known must not be passed over: without it the route would take more than it is meant to.
fn known(at: &Cursor<'_>, grpc: bool) -> Result<(), String> {
    let fields: &[&str] = if grpc {
        &["serviceName", "methodName", "metadata", "port", "hostname"]
    } else {
        &["prefix", "path", "method", "scheme", "headers", "queryParameters", "port", "hostname"]
    };
    match at.fields().iter().find(|(key, child)| !fields.contains(key) && !child.peek().is_null()) {
        Some((key, _)) => Err(format!("the condition {key:?} is not known")),
        None => Ok(()),
    }
}

fn once(map: &mut Map<String, Value>, name: &str, wanted: Value) -> Result<(), String> {
    match map.insert(name.to_owned(), wanted) {
        None => Ok(()),
        Some(_) => Err(format!("{name:?} is matched twice")),
    }
}

fn path(at: &Cursor<'_>) -> Result<Path, String> {
    if let Some(path) = at.get("path") {
        if let Some(exact) = path.text_of("exact") {
            return Ok(Path::Exact(exact.to_owned()));
        }
        return match path.text_of("regex") {
            Some(pattern) => Ok(Path::Regex(pattern.to_owned())),
            None => Err("the path's match is not understood".to_owned()),
        };
    }
    match at.get("prefix") {
        None => Ok(Path::Prefix("/".to_owned())),
        Some(prefix) => match prefix.text() {
            Some(text) if text.starts_with('/') => Ok(Path::Prefix(text.to_owned())),
            _ => Err("the prefix does not begin with \"/\"".to_owned()),
        },
    }
}

/// gRPC over HTTP/2: the path is `/package.Service/Method`.
fn grpc_path(at: &Cursor<'_>) -> Result<Path, String> {
    let given = |field: &str| match at.get(field) {
        None => Ok(None),
        Some(value) => match value.text() {
            Some(text) => Ok(Some(text)),
            None => Err(format!("{field} is not understood")),
        },
    };
    match (given("serviceName")?, given("methodName")?) {
        (Some(service), Some(method)) => Ok(Path::Exact(format!("/{service}/{method}"))),
        (Some(service), None) => Ok(Path::Prefix(format!("/{service}/"))),
        (None, None) => Ok(Path::Prefix("/".to_owned())),
        (None, Some(_)) => Err("a method without a service cannot be matched".to_owned()),
    }
}

fn headers(at: &Cursor<'_>, field: &str, found: &mut Match) -> Result<(), String> {
    for header in at.items(field) {
        let name = header.text_of("name").ok_or("a header has no name")?.to_ascii_lowercase();
        let invert = match header.get("invert") {
            None => false,
            Some(_) => header.flag_of("invert").ok_or("invert is not understood")?,
        };
        let wanted = match header.get("match") {
            None => json!({}),
            Some(wanted) => text_match(&wanted)?,
        };
        match name.as_str() {
            ":authority" | "host" if !invert && found.authority.is_none() => found.authority = Some(wanted),
            _ => once(if invert { &mut found.without } else { &mut found.headers }, &name, wanted)?,
        }
    }
    Ok(())
}

fn text_match(at: &Cursor<'_>) -> Result<Value, String> {
    for field in ["exact", "prefix", "regex"] {
        if let Some(text) = at.text_of(field) {
            return Ok(json!({field: text}));
        }
    }
    if let Some(text) = at.text_of("suffix") {
        return Ok(json!({"regex": format!(".*{}", escape(text))}));
    }
    if at.get("range").is_some() {
        return Err("ranges of numbers in headers cannot be matched".to_owned());
    }
    Err("a header's match is not understood".to_owned())
}

/// Hosts of requests may carry a port, which App Mesh does not look at.
fn hostname(at: &Cursor<'_>) -> Result<Value, String> {
    if let Some(exact) = at.text_of("exact") {
        return Ok(json!({"regex": format!("{}(:[0-9]+)?", escape(exact))}));
    }
    match at.text_of("suffix") {
        Some(suffix) => Ok(json!({"regex": format!(".*{}(:[0-9]+)?", escape(suffix))})),
        None => Err("the host name's match is not understood".to_owned()),
    }
}
