//! `layered_runtime`.

use crate::ads::Kind as Followed;
use crate::runtime::{CONNECTIONS_MAX, Entry, Layer, LayerKind, Runtime, is_harmless, values};
use crate::translate::At;
use crate::translate::source::want;
use outrigger_api::envoy::config::bootstrap::v3::LayeredRuntime;
use outrigger_api::envoy::config::bootstrap::v3::runtime_layer::LayerSpecifier;
use outrigger_traffic::config::ConfigError;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// Most files read for one layer, and the largest of them.
const FILES_MAX: usize = 10_000;
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Deepest folder of a layer.
const DEPTH_MAX: usize = 16;

/// The layers, and a notice for each key that is about Envoy's own code.
pub(super) fn runtime(message: &LayeredRuntime, cluster: &str, at: &At<'_>) -> (Runtime, Vec<ConfigError>) {
    let (mut layers, mut notices): (Vec<Layer>, _) = (Vec::new(), Vec::new());
    for (i, layer) in message.layers.iter().enumerate() {
        let at = at.item("layers", i);
        at.field("name").need_text(&layer.name);
        if layers.iter().any(|other| other.name == layer.name) {
            at.field("name").refuse(format!("`{}` is given twice", layer.name));
        }
        let mut of_file = BTreeMap::new();
        let kind = match &layer.layer_specifier {
            Some(LayerSpecifier::AdminLayer(_)) => {
                if layers.iter().any(|other| other.kind == LayerKind::Admin) {
                    at.field("admin_layer").refuse("there is one already");
                }
                LayerKind::Admin
            }
            Some(LayerSpecifier::StaticLayer(given)) => {
                let (given, connections) = without_connections(given);
                of_file.extend(connections);
                match values(&given) {
                    Ok(found) => of_file.extend(found),
                    Err(wrong) => {
                        for (key, reason) in wrong {
                            at.field("static_layer").field(&key).refuse(reason);
                        }
                    }
                }
                for key in of_file.keys().filter(|key| is_harmless(key)) {
                    let path = format!("layered_runtime.layers[{i}].static_layer.{key}");
                    notices.push(ConfigError::new("", path, "has no effect: it is about Envoy's own code"));
                }
                LayerKind::Static
            }
            Some(LayerSpecifier::RtdsLayer(rtds)) => {
                let at = at.field("rtds_layer");
                at.field("name").need_text(&rtds.name);
                let at_source = at.field("rtds_config");
                if let Some(source) = at_source.need(rtds.rtds_config.as_ref()) {
                    want(Followed::Runtime, &rtds.name, source, &at_source);
                }
                LayerKind::Followed(rtds.name.clone())
            }
            Some(LayerSpecifier::DiskLayer(disk)) => {
                let at = at.field("disk_layer");
                at.field("symlink_root").need_text(&disk.symlink_root);
                let mut root = Path::new(&disk.symlink_root).join(&disk.subdirectory);
                if disk.append_service_cluster {
                    root.push(cluster);
                }
                let root = root.display().to_string();
                match tree(&root) {
                    Ok(found) => of_file = found,
                    Err(reason) => at.field("subdirectory").refuse(reason),
                }
                LayerKind::Disk(root)
            }
            None => {
                at.refuse("one of `static_layer`, `disk_layer`, `admin_layer` and `rtds_layer` is required");
                continue;
            }
        };
        layers.push(Layer { name: layer.name.clone(), kind, values: of_file });
    }
    (Runtime::new(layers), notices)
}

/// The one value that only the file may hold, taken out of a layer: `overload.global_downstream_max_connections`.
fn without_connections(given: &Struct) -> (Struct, Option<(String, Entry)>) {
    let mut rest = given.clone();
    let mut found = rest.fields.remove(CONNECTIONS_MAX);
    if let Some(Value { kind: Some(Kind::StructValue(inner)) }) = rest.fields.get_mut("overload") {
        found = inner.fields.remove("global_downstream_max_connections").or(found);
        if inner.fields.is_empty() {
            rest.fields.remove("overload");
        }
    }
    let text = match found.and_then(|value| value.kind) {
        Some(Kind::NumberValue(number)) => number.to_string(),
        Some(Kind::StringValue(text)) => text,
        _ => return (rest, None),
    };
    (rest, Some((CONNECTIONS_MAX.to_owned(), Entry::of_text(&text))))
}

/// The values of a tree of files: the path is the key, the content the value; lines that begin with `#` are left out. A
/// root that is not there has no values, as in Envoy.
///
/// # Errors
/// A file that cannot be read, too many of them, or a key without effect.
pub fn tree(root: &str) -> Result<BTreeMap<String, Entry>, String> {
    let mut found = BTreeMap::new();
    if Path::new(root).is_dir() {
        folder(Path::new(root), "", 0, &mut found)?;
    }
    Ok(found)
}

fn folder(
    path: &Path,
    prefix: &str,
    depth: usize,
    found: &mut BTreeMap<String, Entry>,
) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot read `{}`: {error}", path.display());
    if depth > DEPTH_MAX {
        return Err(format!("`{}` lies deeper than {DEPTH_MAX} folders", path.display()));
    }
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Kubernetes keeps its own links beside the files.
        if name.starts_with("..") {
            continue;
        }
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        let meta = std::fs::metadata(entry.path()).map_err(failed)?;
        if meta.is_dir() {
            folder(&entry.path(), &key, depth + 1, found)?;
            continue;
        }
        if meta.len() > FILE_BYTES_MAX || found.len() >= FILES_MAX {
            return Err(format!("`{}` is too large, or one file too many", entry.path().display()));
        }
        if let Some(reason) = crate::runtime::without_effect(&key) {
            return Err(format!("{key}: {reason}"));
        }
        let text = std::fs::read_to_string(entry.path()).map_err(failed)?;
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        found.insert(key, Entry::of_text(&lines.join("\n")));
    }
    Ok(())
}
