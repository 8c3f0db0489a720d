//! What the walk over binary resources is held against: the same, slowly, on messages decoded by reflection.

use super::{DEPTH_MAX, Findings, join, resolve};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

/// The message inside an `Any`, or `None` with the reason among the findings.
pub(super) fn read(type_url: &str, bytes: &[u8], findings: &mut Findings) -> Option<DynamicMessage> {
    read_any(type_url, bytes, "", 0, findings)
}

fn read_any(
    type_url: &str,
    bytes: &[u8],
    path: &str,
    depth: usize,
    findings: &mut Findings,
) -> Option<DynamicMessage> {
    if depth > DEPTH_MAX {
        findings.refuse(path, format!("nested deeper than {DEPTH_MAX}"));
        return None;
    }
    let descriptor = match resolve(type_url) {
        Ok(descriptor) => descriptor,
        Err("") => {
            findings.refuse(path, "has no type");
            return None;
        }
        Err(name) => {
            findings.unknown_type(name, path);
            return None;
        }
    };
    match DynamicMessage::decode(descriptor, bytes) {
        Ok(message) => {
            walk(&message, path, depth, findings);
            Some(message)
        }
        Err(error) => {
            findings.refuse(path, format!("does not decode: {error}"));
            None
        }
    }
}

fn walk(message: &DynamicMessage, path: &str, depth: usize, findings: &mut Findings) {
    let descriptor = message.descriptor();
    let name = descriptor.full_name();
    if depth > DEPTH_MAX {
        findings.refuse(path, format!("nested deeper than {DEPTH_MAX}"));
        return;
    }
    if name == "google.protobuf.Any" {
        let type_url = message.get_field_by_name("type_url");
        let value = message.get_field_by_name("value");
        let type_url = type_url.as_deref().and_then(Value::as_str).unwrap_or_default();
        let bytes = value.as_deref().and_then(Value::as_bytes).cloned().unwrap_or_default();
        read_any(type_url, &bytes, path, depth + 1, findings);
        return;
    }
    let mut seen = Vec::new();
    for unknown in message.unknown_fields() {
        let number = unknown.number();
        if seen.contains(&number) {
            continue;
        }
        seen.push(number);
        match crate::official::field_by_number(name, number) {
            Some(field) => findings.official_field(name, field, number, &join(path, field)),
            None => findings.refuse(
                &join(path, &format!("#{number}")),
                format!("field #{number} of {name} is not known"),
            ),
        }
    }
    for (field, value) in message.fields() {
        let path = join(path, field.name());
        match value {
            Value::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    one(&field.kind(), item, &format!("{path}[{i}]"), depth, findings);
                }
            }
            Value::Map(entries) => map(&field, entries, &path, depth, findings),
            single => one(&field.kind(), single, &path, depth, findings),
        }
    }
}

fn map(
    field: &FieldDescriptor,
    entries: &std::collections::HashMap<MapKey, Value>,
    path: &str,
    depth: usize,
    findings: &mut Findings,
) {
    let Kind::Message(entry) = field.kind() else { return };
    let kind = entry.map_entry_value_field().kind();
    let mut named: Vec<(String, &Value)> =
        entries.iter().map(|(key, value)| (format!("{path}[{}]", key_text(key)), value)).collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, value) in named {
        one(&kind, value, &path, depth, findings);
    }
}

fn one(kind: &Kind, value: &Value, path: &str, depth: usize, findings: &mut Findings) {
    match (kind, value) {
        (_, Value::Message(message)) => walk(message, path, depth + 1, findings),
        (Kind::Enum(kind), Value::EnumNumber(number)) if kind.get_value(*number).is_none() => {
            let name = kind.full_name();
            match crate::official::value_by_number(name, *number) {
                Some(value) => findings.refuse(path, format!("`{value}` is not supported by Outrigger")),
                None => findings.refuse(path, format!("{number} is not a value of {name}")),
            }
        }
        _ => {}
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::String(text) => text.clone(),
        MapKey::Bool(value) => value.to_string(),
        MapKey::I32(value) => value.to_string(),
        MapKey::I64(value) => value.to_string(),
        MapKey::U32(value) => value.to_string(),
        MapKey::U64(value) => value.to_string(),
    }
}

use super::binary;
use crate::any;
use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use crate::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use crate::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use crate::strict::{Format, from_text};
use prost::Message;

/// Problems of a resource: by the walk, and by the oracle.
fn both(type_url: &str, bytes: &[u8]) -> (Vec<String>, Vec<String>) {
    let texts = |findings: Findings| {
        let all = findings.problems.iter().chain(&findings.notices);
        let mut all: Vec<String> = all.map(ToString::to_string).collect();
        all.sort();
        all
    };
    let (mut ours, mut theirs) = (Findings::default(), Findings::default());
    binary::walk(type_url, bytes, &mut ours);
    read(type_url, bytes, &mut theirs);
    (texts(ours), texts(theirs))
}

fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let hosts = (0..3).map(|n| VirtualHost {
        name: format!("v{n}"),
        domains: vec!["a".into(), "b".into()],
        routes: vec![Route { name: "r".into(), ..Route::default() }, Route::default()],
        require_tls: n,
        ..VirtualHost::default()
    });
    let hcm =
        HttpConnectionManager { stat_prefix: "in".into(), codec_type: 1, ..HttpConnectionManager::default() };
    let filter =
        |value| Filter { name: "h".into(), config_type: Some(filter::ConfigType::TypedConfig(value)) };
    let listener = Listener {
        name: "a".into(),
        filter_chains: vec![
            FilterChain {
                filters: vec![filter(any(&hcm)), filter(any(&Listener::default()))],
                ..FilterChain::default()
            },
            FilterChain::default(),
        ],
        ..Listener::default()
    };
    let cluster = "name: a\nmetadata: {filter_metadata: {outrigger: {labels: {x: '1', n: 2.5, l: [true, null]}}}}\n\
        typed_extension_protocol_options: {k: {'@type': x/envoy.extensions.upstreams.http.v3.HttpProtocolOptions}}\n\
        outlier_detection: {consecutive_5xx: 7, interval: 2s}\n";
    let cluster: Cluster =
        from_text::<Cluster>(cluster, Format::Yaml).expect("accepted").into_typed().expect("typed");
    vec![
        (
            "x/envoy.config.route.v3.RouteConfiguration",
            RouteConfiguration {
                name: "t".into(),
                virtual_hosts: hosts.collect(),
                ..RouteConfiguration::default()
            }
            .encode_to_vec(),
        ),
        ("x/envoy.config.listener.v3.Listener", listener.encode_to_vec()),
        ("x/envoy.config.cluster.v3.Cluster", cluster.encode_to_vec()),
    ]
}

#[test]
fn walk_and_oracle_find_nothing_in_good_resources_and_the_same_in_bad_ones() {
    for (url, bytes) in samples() {
        let (ours, theirs) = both(url, &bytes);
        assert_eq!(ours, theirs, "{url}");
        // A field that nobody has, and one of the official API that has no effect (28 of a listener).
        for more in [&[0xc0_u8, 0x3e, 0x01][..], &[0xe2, 0x01, 0x01, b'x']] {
            let with = [&bytes[..], more].concat();
            let (ours, theirs) = both(url, &with);
            assert!(!ours.is_empty() || more.len() == 4);
            assert_eq!(ours, theirs, "{url}");
        }
    }
    let table = RouteConfiguration {
        virtual_hosts: vec![
            VirtualHost::default(),
            VirtualHost { require_tls: 77, ..VirtualHost::default() },
        ],
        ..RouteConfiguration::default()
    };
    let (ours, theirs) = both("x/envoy.config.route.v3.RouteConfiguration", &table.encode_to_vec());
    assert_eq!(ours, theirs);
    assert!(ours[0].starts_with("virtual_hosts[1].require_tls: 77 is not a value"), "{ours:?}");
}

#[test]
fn mutant_that_passes_the_walk_passes_the_oracle_and_decodes() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    let (mut passed, mut refused) = (0, 0);
    for (url, bytes) in samples() {
        for _ in 0..4000 {
            let mut mutant = bytes.clone();
            for _ in 0..=random(2) {
                let at = random(mutant.len());
                match random(4) {
                    0 => mutant.truncate(at.max(1)),
                    1 => drop(mutant.drain(at..(at + random(4)).min(mutant.len()))),
                    2 => mutant.insert(at, random(256) as u8),
                    _ => mutant[at] ^= 1 << random(8),
                }
                if mutant.is_empty() {
                    break;
                }
            }
            let (ours, theirs) = both(url, &mutant);
            if !ours.is_empty() {
                refused += 1;
                continue;
            }
            assert!(theirs.is_empty(), "{url} {mutant:02x?}: {theirs:?}");
            let typed = crate::strict::from_binary(url, &mutant).expect("passed");
            let decodes = match url {
                "x/envoy.config.listener.v3.Listener" => typed.into_typed::<Listener>().is_ok(),
                "x/envoy.config.cluster.v3.Cluster" => typed.into_typed::<Cluster>().is_ok(),
                _ => typed.into_typed::<RouteConfiguration>().is_ok(),
            };
            assert!(decodes, "{url} {mutant:02x?}");
            passed += 1;
        }
    }
    assert!(passed > 100 && refused > 100, "{passed} passed, {refused} refused");
}
