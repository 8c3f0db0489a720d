//! `outrigger import`

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Global;
use crate::failure::Failure;
use crate::import::trace::{Finding, Level};
use crate::import::{self, Imported, Settings, appmesh, service_connect};
use crate::output::{self, Format, cell};

/// Turns another mesh's configuration into resources, on standard output, without calling any server. What is not
/// carried over as it is, is named on standard error, field by field.
#[derive(clap::Subcommand)]
pub enum Import {
    /// AWS App Mesh: JSON of describe-mesh, -virtual-service, -virtual-node, -virtual-router, -route,
    /// -virtual-gateway and -gateway-route.
    #[command(name = "appmesh")]
    AppMesh(Input),
    /// ECS Service Connect: JSON of services (describe-services, or as they are created) and of their task
    /// definitions.
    ServiceConnect(Input),
}

/// What both take.
#[derive(clap::Args)]
pub struct Input {
    /// Files of JSON: one object, a list, or several one after the other; - for standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Namespace of all that is made. Default: the name of the mesh, or of the Service Connect namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Last part of the names of services, as the control service has it.
    #[arg(long, default_value = "mesh")]
    mesh_domain: String,
    /// Also write the report to this file, as JSON.
    #[arg(long)]
    report: Option<PathBuf>,
}

impl Import {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let (read, input): (import::Reader, Input) = match self {
            Self::AppMesh(input) => (appmesh::read, input),
            Self::ServiceConnect(input) => (service_connect::read, input),
        };
        let mut sources = Vec::new();
        for file in &input.files {
            let text = super::apply::read(file)?;
            sources.extend(import::sources(&file.display().to_string(), &text).map_err(Failure::Other)?);
        }
        let settings = Settings { namespace: input.namespace, mesh_domain: input.mesh_domain };
        let imported = import::import(read, &sources, &settings);
        if let Some(path) = &input.report {
            write_report(path, &imported.findings)?;
        }
        eprint!("{}", told(&imported));
        if imported.documents.is_empty() {
            return Err(Failure::Other("nothing in the input could be made into a resource".to_owned()));
        }
        match global.output {
            Format::Json => {
                println!("{:#}", json!({"apiVersion": "v1", "kind": "List", "items": imported.documents}));
            }
            Format::Table | Format::Yaml => {
                for document in &imported.documents {
                    print!("---\n{}", output::yaml(document)?);
                }
            }
        }
        Ok(())
    }
}

fn write_report(path: &Path, findings: &[Finding]) -> Result<(), Failure> {
    let findings: Vec<Value> = findings.iter().map(Finding::value).collect();
    let text = format!("{:#}\n", json!({"findings": findings}));
    std::fs::write(path, text).map_err(|error| Failure::file(path, &error))
}

/// The report for people: what is lost first.
fn told(imported: &Imported) -> String {
    let mut text = String::new();
    let of = |level: Level| imported.findings.iter().filter(move |finding| finding.level == level);
    for level in [Level::Lost, Level::Changed, Level::Record] {
        for finding in of(level) {
            let line = json!(format!("{}: {}: {}", level.word(), finding.path, finding.reason));
            text.push_str(&cell(&line));
            text.push('\n');
        }
    }
    let [lost, changed, record] = [Level::Lost, Level::Changed, Level::Record].map(|level| of(level).count());
    let made = imported.documents.len();
    text.push_str(&format!(
        "{made} resources; of the input's fields {lost} lost, {changed} changed, {record} bookkeeping\n"
    ));
    text
}
