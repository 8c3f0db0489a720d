//! `outrigger get`

use serde_json::Value;

use crate::Global;
use crate::client::segment;
use crate::failure::Failure;
use crate::output::{self, Format, Table, age, cell, short};
use crate::session;

/// Without a name all resources of the kind are listed.
#[derive(clap::Args)]
pub struct Get {
    /// Kind, plural or short form (VirtualService, virtualservices, vs), or `all`.
    kind: String,
    /// Name of one resource.
    name: Option<String>,
    /// Namespace. Default: `default` for one resource, all namespaces for a list.
    #[arg(short, long)]
    namespace: Option<String>,
}

impl Get {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = session::client(global)?;
        if let Some(name) = &self.name {
            let answer = client.get(&path_of(&self.kind, self.namespace.as_deref(), name)).await?;
            let format = if global.output == Format::Table { Format::Yaml } else { global.output };
            return output::print(format, &answer, |_| Table::new(&[]));
        }
        let mut path = "/api/v1/resources".to_owned();
        if self.kind != "all" {
            path = format!("{path}/{}", segment(&self.kind));
        }
        if let Some(namespace) = &self.namespace {
            path = format!("{path}?namespace={}", segment(namespace));
        }
        let answer = client.get(&path).await?;
        output::print(global.output, &answer, table)
    }
}

/// The path of one resource.
pub(super) fn path_of(kind: &str, namespace: Option<&str>, name: &str) -> String {
    let namespace = namespace.unwrap_or(outrigger_plan::resource::DEFAULT_NAMESPACE);
    format!("/api/v1/resources/{}/{}/{}", segment(kind), segment(namespace), segment(name))
}

fn table(answer: &Value) -> Table {
    let now = jiff::Timestamp::now();
    let mut table = Table::new(&["KIND", "NAMESPACE", "NAME", "HOSTS", "VERSION", "AGE"]);
    for item in output::items(answer) {
        let metadata = &item["metadata"];
        let hosts = match &item["spec"]["hosts"] {
            Value::Null => &item["spec"]["host"],
            hosts => hosts,
        };
        table.row(vec![
            cell(&item["kind"]),
            cell(&metadata["namespace"]),
            cell(&metadata["name"]),
            short(hosts, 40),
            cell(&metadata["resourceVersion"]),
            age(&metadata["creationTimestamp"], now),
        ]);
    }
    table
}
