//! `outrigger proxy`

use serde_json::{Map, Value};

use crate::Global;
use crate::client::segment;
use crate::failure::Failure;
use crate::output::{self, Format, Table, age, cell, short};
use crate::session;

/// Proxies.
#[derive(clap::Subcommand)]
pub enum Proxy {
    /// Every proxy: the version it holds, whether it acknowledged or rejected it, how far it is behind.
    Status {
        /// Only this one, with what it rejected.
        id: Option<String>,
    },
    /// What a proxy is to hold. Private keys are left out.
    Config {
        /// Its node id.
        id: String,
        /// Only this part.
        #[arg(long = "type", value_enum)]
        part: Option<Part>,
    },
}

/// Parts of a configuration.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Part {
    Listeners,
    Routes,
    Clusters,
    Endpoints,
    Secrets,
}

impl Part {
    fn field(self) -> &'static str {
        match self {
            Self::Listeners => "listeners",
            Self::Routes => "route_configs",
            Self::Clusters => "clusters",
            Self::Endpoints => "endpoints",
            Self::Secrets => "secrets",
        }
    }
}

impl Proxy {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = session::client(global)?;
        match self {
            Self::Status { id } => {
                let mut answer = client.get("/api/v1/proxies").await?;
                if let Some(id) = &id {
                    let found = output::items(&answer).iter().find(|item| item["id"] == **id).cloned();
                    answer = found.ok_or_else(|| Failure::NotFound(format!("proxy {id} is not known")))?;
                    let format = if global.output == Format::Table { Format::Yaml } else { global.output };
                    return output::print(format, &answer, table);
                }
                output::print(global.output, &answer, table)
            }
            Self::Config { id, part } => {
                let mut answer = client.get(&format!("/api/v1/proxies/{}/config", segment(&id))).await?;
                if let Some(part) = part {
                    let only = answer["config"][part.field()].take();
                    let mut config = Map::new();
                    config.insert(part.field().to_owned(), only);
                    answer["config"] = Value::Object(config);
                }
                let format = if global.output == Format::Table { Format::Yaml } else { global.output };
                output::print(format, &answer, table)
            }
        }
    }
}

fn table(answer: &Value) -> Table {
    let now = jiff::Timestamp::now();
    let mut table =
        Table::new(&["ID", "IDENTITY", "STATE", "VERSION", "ACKED", "REVISION", "LAG", "CONNECTED", "SAYS"]);
    for item in output::items(answer) {
        let says = match &item["rejected"]["error"] {
            Value::Null => &item["planProblems"][0]["reason"],
            error => error,
        };
        let lag = item["lagMs"].as_i64().unwrap_or(0);
        table.row(vec![
            cell(&item["id"]),
            format!("{}/{}", cell(&item["namespace"]), cell(&item["serviceAccount"])),
            cell(&item["state"]),
            short(&item["version"], 12),
            short(&item["ackedVersion"], 12),
            format!("{}/{}", cell(&item["ackedRevision"]), cell(&item["revision"])),
            if lag == 0 { "-".to_owned() } else { format!("{lag}ms") },
            age(&item["connectedAt"], now),
            short(says, 60),
        ]);
    }
    table
}
