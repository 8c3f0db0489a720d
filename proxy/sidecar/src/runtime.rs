//! Runtime values: what the administration shows and changes, and the files of disk layers.

use outrigger_engine::admin::RuntimeValues;
use outrigger_xds::bootstrap::runtime_tree;
use outrigger_xds::feed::Feed;
use outrigger_xds::files::LOOK_EVERY;
use outrigger_xds::runtime::{LayerKind, Runtime};
use serde_json::{Map, Value, json};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// The feed's runtime values. It exists before the feed does.
#[derive(Clone, Default)]
pub struct RuntimeView(Arc<OnceLock<Arc<Mutex<Feed>>>>);

impl fmt::Debug for RuntimeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeView").finish_non_exhaustive()
    }
}

impl RuntimeView {
    /// The feed is there.
    pub fn set(&self, feed: Arc<Mutex<Feed>>) {
        let _ = self.0.set(feed);
    }
}

impl RuntimeValues for RuntimeView {
    fn layers(&self) -> Value {
        let Some(feed) = self.0.get() else { return shown(&Runtime::default()) };
        shown(locked(feed).runtime())
    }

    fn modify(&self, changes: &[(String, String)]) -> Result<(), String> {
        let feed = self.0.get().ok_or("no admin layer specified")?;
        let changed = locked(feed).change_runtime(Instant::now(), |runtime| runtime.modify(changes));
        changed.map_err(|reasons| reasons.join("; "))
    }
}

/// As Envoy prints them.
fn shown(runtime: &Runtime) -> Value {
    let layers: Vec<&String> = runtime.layers.iter().map(|layer| &layer.name).collect();
    let mut entries = Map::new();
    for (key, entry) in runtime.keys() {
        let of_layer = |layer: &outrigger_xds::runtime::Layer| {
            layer.values.get(key).map_or(String::new(), |entry| entry.raw.clone())
        };
        let values: Vec<String> = runtime.layers.iter().map(of_layer).collect();
        entries.insert(key.clone(), json!({"layer_values": values, "final_value": entry.raw}));
    }
    json!({"layers": layers, "entries": entries})
}

/// Looks at the files of disk layers and takes them in when they have changed, for ever.
pub async fn follow_disk(feed: Arc<Mutex<Feed>>) {
    let roots: Vec<String> = {
        let feed = locked(&feed);
        let layers = feed.runtime().layers.iter();
        layers
            .filter_map(
                |layer| if let LayerKind::Disk(root) = &layer.kind { Some(root.clone()) } else { None },
            )
            .collect()
    };
    let mut known = vec![None; roots.len()];
    while !roots.is_empty() {
        tokio::time::sleep(LOOK_EVERY).await;
        for (root, known) in roots.iter().zip(&mut known) {
            let found = runtime_tree(root);
            if known.as_ref() == Some(&found) {
                continue;
            }
            let kind = LayerKind::Disk(root.clone());
            let changed = match &found {
                Ok(values) => locked(&feed).change_runtime(Instant::now(), |runtime| {
                    runtime.replace(&kind, values);
                    Ok(())
                }),
                Err(reason) => Err(vec![reason.clone()]),
            };
            if let Err(reasons) = changed {
                tracing::warn!(root, ?reasons, "runtime files refused, the last good values stay");
            }
            *known = Some(found);
        }
    }
}

fn locked(feed: &Mutex<Feed>) -> std::sync::MutexGuard<'_, Feed> {
    feed.lock().unwrap_or_else(PoisonError::into_inner)
}
