//! `outrigger ca`

use serde_json::{Value, json};

use crate::Global;
use crate::failure::Failure;
use crate::output::{self, Format, Table, cell};
use crate::session;

/// The certificate authority.
#[derive(clap::Subcommand)]
pub enum Ca {
    /// The signing CAs and what each is doing.
    Show {
        /// Print the root certificates (PEM), the newest first: what a host needs before it joins.
        #[arg(long)]
        root: bool,
        /// Print the trust bundle (PEM): what members accept their peers by.
        #[arg(long, conflicts_with = "root")]
        bundle: bool,
    },
    /// Exchange the signing CA: a new one is trusted at once, signs after a while, and the old one stays
    /// trusted until everything it signed has expired.
    Rotate {
        /// How long the new one is trusted before it signs. Default: the life of a workload certificate.
        #[arg(long, value_parser = super::seconds)]
        propagation: Option<u64>,
        /// Exchange the root too: hosts that join later need the new one, which `ca show --root` prints; until the old
        /// one retires, those that have only that one can join as well.
        #[arg(long)]
        root: bool,
        /// How long the old root is known after the new signing CA has taken over. Default: 30d.
        #[arg(long, requires = "root", value_parser = super::seconds)]
        root_overlap: Option<u64>,
    },
}

impl Ca {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = session::client(global)?;
        match self {
            Self::Show { root, bundle } => {
                let answer = client.get("/api/v1/ca").await?;
                if root {
                    print!("{}", answer["rootCertificate"].as_str().unwrap_or_default());
                } else if bundle {
                    print!("{}", answer["trustBundle"]["pem"].as_str().unwrap_or_default());
                } else {
                    show(global.output, &answer)?;
                }
                Ok(())
            }
            Self::Rotate { propagation, root, root_overlap } => {
                let mut asked = json!({"root": root});
                if let Some(seconds) = propagation {
                    asked["propagationSeconds"] = json!(seconds);
                }
                if let Some(seconds) = root_overlap {
                    asked["rootOverlapSeconds"] = json!(seconds);
                }
                show(global.output, &client.post("/api/v1/ca/rotate", &asked).await?)
            }
        }
    }
}

fn show(format: Format, answer: &Value) -> Result<(), Failure> {
    if format == Format::Table {
        println!("Trust domain:      {}", cell(&answer["trustDomain"]));
        println!("Certificates live: {} s", cell(&answer["svidTtlSeconds"]));
        println!("Trust bundle:      version {}", cell(&answer["trustBundle"]["version"]));
        for root in answer["roots"].as_array().into_iter().flatten() {
            let (id, expires) = (cell(&root["id"]), cell(&root["expiresAt"]));
            let stage = match root["retiresAt"].as_str() {
                Some(at) => format!("retires {at}"),
                None => "certifies".to_owned(),
            };
            println!("Root {id}:            {stage}, expires {expires}");
        }
        println!();
    }
    output::print(format, answer, |answer| {
        let mut table = Table::new(&["SIGNING CA", "STAGE", "UNTIL", "EXPIRES"]);
        for line in answer["signing"].as_array().into_iter().flatten() {
            table
                .row(["id", "stage", "until", "expiresAt"].iter().map(|field| cell(&line[*field])).collect());
        }
        table
    })
}
