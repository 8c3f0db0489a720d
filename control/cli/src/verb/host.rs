//! `outrigger host`

use serde_json::Value;

use crate::Global;
use crate::failure::Failure;
use crate::output::{self, Table, cell};
use crate::session;

/// Hosts.
#[derive(clap::Subcommand)]
pub enum HostVerb {
    /// Every host that was onboarded, those too that were revoked.
    List,
}

impl HostVerb {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let Self::List = self;
        let answer = session::client(global)?.get("/api/v1/hosts").await?;
        output::print(global.output, &answer, hosts)
    }
}

fn hosts(answer: &Value) -> Table {
    let mut table = Table::new(&["NAME", "ADDRESSES", "WORKLOADS", "REVOKED"]);
    for item in output::items(answer) {
        let fields = ["name", "addresses", "workloads", "revokedAt"];
        table.row(fields.iter().map(|field| cell(&item[*field])).collect());
    }
    table
}
