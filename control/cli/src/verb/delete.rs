//! `outrigger delete`

use std::path::PathBuf;
use std::time::Duration;

use http::Method;

use super::get::path_of;
use super::{apply, wait};
use crate::Global;
use crate::failure::Failure;
use crate::session;

/// Deletes one resource by name, or those a file names.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["kind", "files"])))]
pub struct Delete {
    /// Kind, plural or short form.
    #[arg(requires = "name")]
    kind: Option<String>,
    /// Its name.
    name: Option<String>,
    /// Its namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    /// File with resources, directory of such files, or - for standard input. Deleted one after another;
    /// those that are gone already are passed over.
    #[arg(short = 'f', long = "filename", conflicts_with = "kind")]
    files: Vec<PathBuf>,
    /// Check and show what would be deleted.
    #[arg(long)]
    dry_run: bool,
    /// Wait until every connected proxy has acknowledged it.
    #[arg(long)]
    wait: bool,
    /// How long to wait at most.
    #[arg(long, default_value = "30s", value_parser = super::wait_seconds)]
    timeout: u64,
}

impl Delete {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = session::client(global)?;
        let mut revision = 0;
        let by_file = self.kind.is_none();
        for path in self.paths()? {
            let path = format!("{path}?dryRun={}", self.dry_run);
            match client.call(Method::DELETE, &path, "", Duration::ZERO).await {
                Ok(answer) => {
                    apply::show(global.output, &answer, false, self.dry_run)?;
                    revision = answer["revision"].as_u64().unwrap_or(0);
                }
                Err(Failure::NotFound(what)) if by_file => eprintln!("{what}"),
                Err(failure) => return Err(failure),
            }
        }
        if self.wait && !self.dry_run && revision > 0 {
            wait::acknowledged(&client, revision, self.timeout).await?;
        }
        Ok(())
    }

    fn paths(&self) -> Result<Vec<String>, Failure> {
        if let (Some(kind), Some(name)) = (&self.kind, &self.name) {
            return Ok(vec![path_of(kind, self.namespace.as_deref(), name)]);
        }
        let objects = outrigger_plan::parse_documents(&apply::read_all(&self.files)?);
        let paths = objects.into_iter().flatten().map(|object| {
            path_of(object.kind.name(), Some(&object.metadata.namespace), &object.metadata.name)
        });
        Ok(paths.collect())
    }
}
