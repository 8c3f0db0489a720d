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
        /// Only this one, with what it rejected: its node id, or NAMESPACE/SERVICE-ACCOUNT/NODE-ID.
        id: Option<String>,
    },
    /// What a proxy is to hold. Private keys are left out.
    Config {
        /// Its node id, or NAMESPACE/SERVICE-ACCOUNT/NODE-ID where several identities use the same.
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
                    answer = one(output::items(&answer), id)?;
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

/// The proxy meant by a whole name, or by a node id that only one identity uses.
fn one(items: &[Value], text: &str) -> Result<Value, Failure> {
    if let Some(item) = items.iter().find(|item| item["name"] == *text) {
        return Ok(item.clone());
    }
    let found: Vec<&Value> = items.iter().filter(|item| item["id"] == *text).collect();
    match found.as_slice() {
        [] => Err(Failure::NotFound(format!("proxy {text} is not known"))),
        [item] => Ok((*item).clone()),
        several => {
            let names: Vec<String> = several.iter().map(|item| cell(&item["name"])).collect();
            let text = format!("several identities use node id {text}; name one of {}", names.join(", "));
            Err(Failure::Usage(text))
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn node_id_is_enough_unless_several_identities_use_it() {
        let item = |name: &str, id: &str| json!({"name": name, "id": id});
        let items = [item("shop/a/x", "x"), item("zoo/a/x", "x"), item("zoo/a/y", "y")];
        assert_eq!(one(&items, "y").unwrap()["name"], "zoo/a/y");
        assert_eq!(one(&items, "shop/a/x").unwrap()["name"], "shop/a/x");
        let several = one(&items, "x").unwrap_err();
        assert!(several.to_string().ends_with("shop/a/x, zoo/a/x"), "{several}");
        assert_eq!((several.exit_code(), one(&items, "z").unwrap_err().exit_code()), (2, 5));
    }
}
