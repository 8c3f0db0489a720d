//! `outrigger apply`

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::wait;
use crate::Global;
use crate::client::problem_line;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::{diff, session};

/// Longest input, in bytes; the server's limit.
const INPUT_BYTES_MAX: u64 = 16 << 20;

/// All resources of all files are applied together or not at all.
#[derive(clap::Args)]
pub struct Apply {
    /// File with resources in YAML or JSON, directory of such files, or - for standard input. May be
    /// repeated.
    #[arg(short = 'f', long = "filename", required = true)]
    files: Vec<PathBuf>,
    /// Check and show what would change, store nothing.
    #[arg(long)]
    dry_run: bool,
    /// Show what changes, line by line. Implies --dry-run unless --wait is given too.
    #[arg(long)]
    diff: bool,
    /// Wait until every connected proxy has acknowledged the change.
    #[arg(long)]
    wait: bool,
    /// How long to wait at most.
    #[arg(long, default_value = "30s", value_parser = super::wait_seconds)]
    timeout: u64,
}

impl Apply {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let text = read_all(&self.files)?;
        let dry_run = self.dry_run || (self.diff && !self.wait);
        let path = format!("/api/v1/apply?dryRun={dry_run}");
        let client = session::client(global)?;
        let answer = client.call(Method::POST, &path, &text, Duration::ZERO).await?;
        show(global.output, &answer, self.diff, dry_run)?;
        if self.wait && !dry_run {
            let revision = answer["revision"].as_u64().unwrap_or(0);
            wait::acknowledged(&client, revision, self.timeout).await?;
        }
        Ok(())
    }
}

/// Prints what became of each resource.
pub(super) fn show(format: Format, answer: &Value, with_diff: bool, dry_run: bool) -> Result<(), Failure> {
    if format != Format::Table {
        return output::print(format, answer, |_| output::Table::new(&[]));
    }
    let suffix = if dry_run { " (dry run)" } else { "" };
    for change in answer["resources"].as_array().into_iter().flatten() {
        let name = ["kind", "namespace", "name"].map(|field| output::cell(&change[field])).join("/");
        println!("{name} {}{suffix}", output::cell(&change["action"]));
        if with_diff {
            let side = |field: &str| match &change[field] {
                Value::Null => Ok(String::new()),
                value => output::yaml(value),
            };
            print!("{}", diff::lines(&side("before")?, &side("after")?));
        }
    }
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        eprintln!("warning: {}", problem_line(warning));
    }
    if with_diff && let Some(proxies) = answer["affectedProxies"].as_array() {
        eprintln!("{} connected proxies are affected", proxies.len());
    }
    Ok(())
}

/// All files as one text. Each is read here first, so that a mistake is told with its file.
pub(super) fn read_all(files: &[PathBuf]) -> Result<String, Failure> {
    let mut texts = Vec::new();
    for path in expand(files)? {
        let text = read(&path)?;
        let problems: Vec<String> = outrigger_plan::parse_documents(&text)
            .into_iter()
            .filter_map(Result::err)
            .flatten()
            .map(|error| format!("{}: {error}", path.display()))
            .collect();
        if !problems.is_empty() {
            return Err(Failure::Refused(problems));
        }
        texts.push(text);
    }
    Ok(texts.join("\n---\n"))
}

/// Directories become the YAML and JSON files in them, in the order of their names.
fn expand(files: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut all = Vec::new();
    for path in files {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).map_err(|error| Failure::file(path, &error))?;
            let mut found = Vec::new();
            for entry in entries {
                let entry = entry.map_err(|error| Failure::file(path, &error))?.path();
                let known = ["yaml", "yml", "json"];
                if entry.is_file() && entry.extension().is_some_and(|ext| known.iter().any(|k| ext == *k)) {
                    found.push(entry);
                }
            }
            if found.is_empty() {
                return Err(Failure::Usage(format!(
                    "{}: no .yaml, .yml or .json file in it",
                    path.display()
                )));
            }
            found.sort();
            all.extend(found);
        } else {
            all.push(path.clone());
        }
    }
    Ok(all)
}

/// One file, or standard input, of limited length.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let limit = INPUT_BYTES_MAX + 1;
    let outcome = if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text))
    };
    outcome.map_err(|error| Failure::file(path, &error))?;
    if text.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::Usage(format!("{}: longer than {INPUT_BYTES_MAX} bytes", path.display())));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_becomes_its_files_in_order_and_others_are_left_alone() {
        let dir = std::env::temp_dir().join(format!("outrigger-apply-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for name in ["b.yaml", "a.json", "notes.txt"] {
            std::fs::write(dir.join(name), "").unwrap();
        }
        let names: Vec<String> = expand(std::slice::from_ref(&dir))
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["a.json", "b.yaml"]);
        std::fs::write(dir.join("b.yaml"), "kind: Nonsense\napiVersion: v1\nmetadata: {name: x}\n").unwrap();
        let refused = read_all(&[dir.join("b.yaml")]).unwrap_err();
        assert_eq!(refused.exit_code(), 3);
        assert!(refused.to_string().contains("b.yaml"), "{refused}");
        assert_eq!(read_all(&[dir.join("none.yaml")]).unwrap_err().exit_code(), 1);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
