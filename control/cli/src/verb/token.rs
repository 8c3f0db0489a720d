//! `outrigger token`

use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

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
    },
    /// Join tokens that are still good, without their secrets.
    List,
    /// Withdraw a join token.
    Delete {
        /// Its id, as `token list` shows it.
        id: String,
    },
}

impl Token {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = session::client(global)?;
        match self {
            Self::Create { namespace, service_account, uses, ttl } => {
                let asked = json!({
                    "namespace": namespace, "serviceAccount": service_account, "uses": uses, "ttlSeconds": ttl,
                });
                let answer = client.post("/api/v1/tokens", &asked).await?;
                if global.output == Format::Table {
                    // Alone on standard output, for scripts.
                    println!("{}", cell(&answer["token"]));
                    let (identity, expires) = (cell(&answer["identity"]), cell(&answer["expiresAt"]));
                    eprintln!("for {identity}, {uses} use(s), until {expires}");
                    return Ok(());
                }
                output::print(global.output, &answer, table)
            }
            Self::List => output::print(global.output, &client.get("/api/v1/tokens").await?, table),
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
