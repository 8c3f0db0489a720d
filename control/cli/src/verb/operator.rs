//! `outrigger operator`

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::Global;
use crate::client::segment;
use crate::failure::Failure;
use crate::output::{self, Format, Table, cell};
use crate::session;

/// Operators' tokens.
#[derive(clap::Subcommand)]
pub enum Operator {
    /// Make a token for the operator API. It is shown this once.
    Create {
        /// Who or what it is for.
        description: String,
        /// What it opens.
        #[arg(long, value_enum, default_value_t = Role::Admin)]
        role: Role,
    },
    /// Operators' tokens, without their secrets.
    List,
    /// Withdraw an operator's token. The last one of an administrator stays.
    Revoke {
        /// Its id, as `operator list` shows it.
        id: String,
    },
}

/// What a token opens.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Role {
    /// Everything.
    Admin,
    /// What changes nothing.
    Viewer,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Viewer => "viewer",
        }
    }
}

impl Operator {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = session::client(global)?;
        match self {
            Self::Create { description, role } => {
                let asked = json!({"description": description, "role": role.name()});
                let answer = client.post("/api/v1/operator-tokens", &asked).await?;
                if global.output == Format::Table {
                    // Alone on standard output, for scripts.
                    println!("{}", cell(&answer["token"]));
                    eprintln!(
                        "{} {} for {}",
                        cell(&answer["role"]),
                        cell(&answer["id"]),
                        cell(&answer["description"])
                    );
                    return Ok(());
                }
                output::print(global.output, &answer, table)
            }
            Self::List => output::print(global.output, &client.get("/api/v1/operator-tokens").await?, table),
            Self::Revoke { id } => {
                let path = format!("/api/v1/operator-tokens/{}", segment(&id));
                client.call(Method::DELETE, &path, "", Duration::ZERO).await?;
                println!("operator token {id} withdrawn");
                Ok(())
            }
        }
    }
}

fn table(answer: &Value) -> Table {
    let mut table = Table::new(&["ID", "ROLE", "DESCRIPTION", "CREATED"]);
    for item in output::items(answer) {
        let fields = ["id", "role", "description", "createdAt"];
        table.row(fields.iter().map(|field| cell(&item[*field])).collect());
    }
    table
}
