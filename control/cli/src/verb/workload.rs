//! `outrigger workload`

use serde_json::Value;

use crate::Global;
use crate::client::segment;
use crate::failure::Failure;
use crate::output::{self, Table, cell};
use crate::session;

/// Workloads.
#[derive(clap::Subcommand)]
pub enum Workload {
    /// Every workload that holds a lease, or that a source found.
    List {
        /// Only of this namespace.
        #[arg(short, long)]
        namespace: Option<String>,
    },
}

impl Workload {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let Self::List { namespace } = self;
        let query =
            namespace.map(|namespace| format!("?namespace={}", segment(&namespace))).unwrap_or_default();
        let answer = session::client(global)?.get(&format!("/api/v1/workloads{query}")).await?;
        output::print(global.output, &answer, table)
    }
}

pub(super) fn table(answer: &Value) -> Table {
    let mut table = Table::new(&[
        "NAMESPACE",
        "INSTANCE",
        "SERVICE",
        "VERSION",
        "ADDRESS",
        "PORTS",
        "HEALTH",
        "PROXY",
        "SOURCE",
    ]);
    for item in output::items(answer) {
        let ports: Vec<String> = item["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|port| format!("{}/{}", cell(&port["number"]), cell(&port["protocol"])))
            .collect();
        let proxy = match (item["nodeId"].as_str(), item["proxyConnected"].as_bool()) {
            (None | Some(""), _) => "none".to_owned(),
            (Some(_), Some(true)) => "connected".to_owned(),
            (Some(_), _) => "away".to_owned(),
        };
        let address = match item["inboundPort"].as_u64() {
            Some(port) => format!("{}:{port}", cell(&item["address"])),
            None => cell(&item["address"]),
        };
        table.row(vec![
            cell(&item["namespace"]),
            cell(&item["instanceId"]),
            cell(&item["service"]),
            cell(&item["version"]),
            address,
            if ports.is_empty() { "-".to_owned() } else { ports.join(",") },
            cell(&item["health"]),
            proxy,
            item["source"].as_str().unwrap_or("registered").to_owned(),
        ]);
    }
    table
}
