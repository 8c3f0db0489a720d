//! `outrigger token`

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::Global;
use crate::client::segment;
use crate::failure::Failure;
use crate::output::{self, Format, Table, cell};
use crate::session;

/// Join tokens.
#[derive(clap::Subcommand)]
pub enum Token {
    /// Make a join token for a service account. It is shown this once.
    Create {
        /// Namespace of whoever joins with it.
        #[arg(short, long)]
        namespace: String,
        /// Service account of whoever joins with it.
        #[arg(short, long)]
        service_account: String,
        /// How many hosts may join with it.
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// How long it is good for.
        #[arg(long, default_value = "1h", value_parser = super::seconds)]
        ttl: u64,
        #[command(flatten)]
        grant: GrantFlags,
    },
    /// Join tokens that are still good, without their secrets.
    List,
    /// What service accounts may say of their workloads, where it is not just "the service of the same name".
    Grants,
    /// Withdraw a join token.
    Delete {
        /// Its id, as `token list` shows it.
        id: String,
    },
}

/// What the workloads of a service account may say of themselves. Given none of these, the service account keeps what it
/// has; at first that is to be the service of its own name, and no gateway. Given any, they replace what it has.
#[derive(clap::Args)]
pub struct GrantFlags {
    /// A service it may be an instance of; * is every service of the namespace. May be repeated. Default: the one of the
    /// service account's name.
    #[arg(long = "service")]
    services: Vec<String>,
    /// A label it may have besides app and version, as KEY=VALUE, or KEY for any value. May be repeated.
    #[arg(long = "label")]
    labels: Vec<String>,
    /// It may be a gateway: be selected by Gateway resources and be sent their certificates and keys.
    #[arg(long)]
    gateway: bool,
}

impl GrantFlags {
    /// Adds what was given to the request.
    fn add_to(&self, asked: &mut Value) {
        if self.services.is_empty() && self.labels.is_empty() && !self.gateway {
            return;
        }
        if !self.services.is_empty() {
            asked["services"] = json!(self.services);
        }
        let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut any: BTreeSet<&str> = BTreeSet::new();
        for label in &self.labels {
            match label.split_once('=') {
                Some((key, value)) => drop(labels.entry(key).or_default().insert(value)),
                None => drop(any.insert(label)),
            }
        }
        // A key without a value allows all of them, whatever else is said about it.
        labels.extend(any.into_iter().map(|key| (key, BTreeSet::new())));
        asked["labels"] = json!(labels);
        asked["gateway"] = json!(self.gateway);
    }
}

/// A grant in words.
fn in_words(grant: &Value) -> [String; 3] {
    let labels = grant["labels"].as_object().into_iter().flatten().map(|(key, values)| {
        let values: Vec<String> = values.as_array().into_iter().flatten().map(cell).collect();
        if values.is_empty() { key.clone() } else { format!("{key}={}", values.join("|")) }
    });
    let labels: Vec<String> = labels.collect();
    let gateway = if grant["gateway"] == Value::Bool(true) { "yes" } else { "no" };
    let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(" ") };
    [cell(&grant["services"]), labels, gateway.to_owned()]
}

impl Token {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = session::client(global)?;
        match self {
            Self::Create { namespace, service_account, uses, ttl, grant } => {
                let mut asked = json!({
                    "namespace": namespace, "serviceAccount": service_account, "uses": uses, "ttlSeconds": ttl,
                });
                grant.add_to(&mut asked);
                let answer = client.post("/api/v1/tokens", &asked).await?;
                if global.output == Format::Table {
                    // Alone on standard output, for scripts.
                    println!("{}", cell(&answer["token"]));
                    let (identity, expires) = (cell(&answer["identity"]), cell(&answer["expiresAt"]));
                    eprintln!("for {identity}, {uses} use(s), until {expires}");
                    let [services, labels, gateway] = in_words(&answer["grant"]);
                    eprintln!("it may be: service {services}; further labels {labels}; gateway: {gateway}");
                    return Ok(());
                }
                output::print(global.output, &answer, table)
            }
            Self::List => output::print(global.output, &client.get("/api/v1/tokens").await?, table),
            Self::Grants => output::print(global.output, &client.get("/api/v1/grants").await?, grants),
            Self::Delete { id } => {
                let path = format!("/api/v1/tokens/{}", segment(&id));
                client.call(Method::DELETE, &path, "", Duration::ZERO).await?;
                println!("token {id} withdrawn");
                Ok(())
            }
        }
    }
}

fn table(answer: &Value) -> Table {
    let mut table = Table::new(&["ID", "NAMESPACE", "SERVICE ACCOUNT", "USES LEFT", "EXPIRES"]);
    for item in output::items(answer) {
        let fields = ["id", "namespace", "serviceAccount", "usesLeft", "expiresAt"];
        table.row(fields.iter().map(|field| cell(&item[*field])).collect());
    }
    table
}

fn grants(answer: &Value) -> Table {
    let mut table = Table::new(&["NAMESPACE", "SERVICE ACCOUNT", "SERVICES", "FURTHER LABELS", "GATEWAY"]);
    for item in output::items(answer) {
        let [services, labels, gateway] = in_words(&item["grant"]);
        table.row(vec![cell(&item["namespace"]), cell(&item["serviceAccount"]), services, labels, gateway]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(services: &[&str], labels: &[&str], gateway: bool) -> Value {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let mut asked = json!({});
        GrantFlags { services: owned(services), labels: owned(labels), gateway }.add_to(&mut asked);
        asked
    }

    #[test]
    fn no_flag_asks_for_no_grant_and_any_for_a_whole_one() {
        assert_eq!(asked(&[], &[], false), json!({}));
        assert_eq!(asked(&[], &[], true), json!({"labels": {}, "gateway": true}));
        let labels = ["tier=db", "tier=cache", "track", "track=x", "a=b=c"];
        let expected = json!({
            "services": ["b"],
            "labels": {"tier": ["cache", "db"], "track": [], "a": ["b=c"]},
            "gateway": false,
        });
        assert_eq!(asked(&["b"], &labels, false), expected);
    }

    #[test]
    fn grant_is_told_in_words() {
        let grant = json!({"services": ["a", "b"], "labels": {"t": ["x", "y"], "u": []}, "gateway": true});
        assert_eq!(in_words(&grant), ["a,b", "t=x|y u", "yes"]);
        assert_eq!(in_words(&json!({"services": ["a"], "labels": {}, "gateway": false})), ["a", "-", "no"]);
    }
}
