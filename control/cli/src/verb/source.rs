//! `outrigger source`

use serde_json::Value;

use crate::Global;
use crate::failure::Failure;
use crate::output::{self, Table, cell};
use crate::session;

/// Discovery sources.
#[derive(clap::Subcommand)]
pub enum Source {
    /// Every source: whether it is up to date, what it found, what cannot be used (all of it with `-o json`).
    List,
}

impl Source {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let Self::List = self;
        let answer = session::client(global)?.get("/api/v1/sources").await?;
        output::print(global.output, &answer, table)
    }
}

fn table(answer: &Value) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "KIND",
        "STATE",
        "LAST SYNC",
        "WORKLOADS",
        "UNUSABLE",
        "UNREGISTERED",
        "NOT RUNNING",
        "ERROR",
    ]);
    for item in output::items(answer) {
        let drift = &item["drift"];
        table.row(vec![
            cell(&item["name"]),
            cell(&item["kind"]),
            cell(&item["state"]),
            cell(&item["lastSync"]),
            cell(&item["workloads"]),
            cell(&item["unusableCount"]),
            cell(&drift["unregisteredCount"]),
            cell(&drift["notRunningCount"]),
            cell(&item["error"]),
        ]);
    }
    table
}
