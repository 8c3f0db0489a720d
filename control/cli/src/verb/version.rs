//! `outrigger version`

use serde_json::{Value, json};

use crate::Global;
use crate::failure::Failure;
use crate::output::{self, Table, cell};
use crate::session;

/// The server is asked unless --client is given.
#[derive(clap::Args)]
pub struct Version {
    /// Only this program's.
    #[arg(long)]
    client: bool,
}

impl Version {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let mut versions = json!({"client": env!("CARGO_PKG_VERSION")});
        if !self.client {
            let document = session::client(global)?.get("/openapi.json").await?;
            versions["server"] = document["info"]["version"].clone();
        }
        output::print(global.output, &versions, |versions: &Value| {
            let mut table = Table::new(&["PROGRAM", "VERSION"]);
            for (program, version) in versions.as_object().into_iter().flatten() {
                table.row(vec![program.clone(), cell(version)]);
            }
            table
        })
    }
}
