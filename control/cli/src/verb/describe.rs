//! `outrigger describe`

use serde_json::Value;

use super::get::path_of;
use crate::Global;
use crate::failure::Failure;
use crate::output::{self, Format, Table, cell};
use crate::session;

/// Shows a resource, its history in numbers and its spec.
#[derive(clap::Args)]
pub struct Describe {
    /// Kind, plural or short form.
    kind: String,
    /// Its name.
    name: String,
    /// Its namespace.
    #[arg(short, long)]
    namespace: Option<String>,
}

impl Describe {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = session::client(global)?;
        let answer = client.get(&path_of(&self.kind, self.namespace.as_deref(), &self.name)).await?;
        if global.output != Format::Table {
            return output::print(global.output, &answer, |_| Table::new(&[]));
        }
        let metadata = &answer["metadata"];
        for (title, value) in [
            ("Kind", &answer["kind"]),
            ("Name", &metadata["name"]),
            ("Namespace", &metadata["namespace"]),
            ("Version", &metadata["resourceVersion"]),
            ("Generation", &metadata["generation"]),
            ("Created", &metadata["creationTimestamp"]),
        ] {
            println!("{:12} {}", format!("{title}:"), cell(value));
        }
        for field in ["labels", "annotations"] {
            if let Some(values) = metadata[field].as_object().filter(|values| !values.is_empty()) {
                println!("{field}:");
                values.iter().for_each(|(key, value)| println!("  {key}={}", cell(value)));
            }
        }
        println!("Spec:");
        let spec =
            if answer["spec"] == Value::Null { "{}\n".to_owned() } else { output::yaml(&answer["spec"])? };
        spec.lines().for_each(|line| println!("  {line}"));
        Ok(())
    }
}
