//! Other meshes' configuration into resources of this one.
//!
//! Pure: texts in, resources and a report out. In reading order: [`trace`] (reading so that nothing gets lost
//! silently), [`resource`] (what is made), [`appmesh`], [`service_connect`].

pub mod appmesh;
pub mod resource;
pub mod service_connect;
pub mod trace;

#[cfg(test)]
mod tests;

use serde_json::Value;

use resource::Made;
use trace::{Cursor, Finding, Trace};

/// One JSON value of the input.
pub struct Source {
    /// Its file; with several values in it, and their number.
    pub name: String,
    /// What it says.
    pub value: Value,
}

/// What the names of resources are made with.
pub struct Settings {
    /// Namespace of all that is made; none: the input's own (mesh, or Service Connect namespace).
    pub namespace: Option<String>,
    /// Last part of the hosts of services that register themselves.
    pub mesh_domain: String,
}

/// What came of it.
pub struct Imported {
    /// Resources.
    pub documents: Vec<Value>,
    /// What was not carried over as it is.
    pub findings: Vec<Finding>,
}

/// The JSON values of a text, one after the other, as the output of several commands in one file.
///
/// # Errors
/// What is not JSON, with its line.
pub fn sources(name: &str, text: &str) -> Result<Vec<Source>, String> {
    let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
    let values = values.map_err(|error| format!("{name}: {error}"))?;
    if values.is_empty() {
        return Err(format!("{name}: is empty"));
    }
    let many = values.len() > 1;
    let named = |(i, value)| {
        let name = if many { format!("{name}#{}", i + 1) } else { name.to_owned() };
        Source { name, value }
    };
    Ok(values.into_iter().enumerate().map(named).collect())
}

/// [`appmesh::read`] or [`service_connect::read`].
pub type Reader = fn(&[Cursor<'_>], &Settings, &mut Made);

/// Imports with one of the readers.
pub fn import(read: Reader, inputs: &[Source], settings: &Settings) -> Imported {
    let trace = Trace::default();
    let mut made = Made::default();
    let roots: Vec<Cursor<'_>> = inputs.iter().map(|input| trace.root(&input.name, &input.value)).collect();
    read(&roots, settings, &mut made);
    let documents = made.finish(&trace);
    let findings = inputs.iter().flat_map(|input| trace.findings(&input.name, &input.value)).collect();
    Imported { documents, findings }
}
