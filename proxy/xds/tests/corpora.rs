//! Published bootstraps of Envoy's documentation, examples and tests: each is accepted, or refused for exactly the
//! reasons in `corpora/expected.txt`.
//!
//! Run by `cargo xtask peers`, which sets `OUTRIGGER_CORPORA` to the folder with `envoy-bootstraps/`. Rewrite the table
//! with `OUTRIGGER_UPDATE=1` and read the difference.

use outrigger_traffic::compile;
use outrigger_xds::bootstrap::{Format, load_bootstrap_with};
use outrigger_xds::translate::files::FileReader;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

const EXPECTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpora/expected.txt");

/// Certificates wherever a file says `@CERTS@`, and nothing elsewhere.
struct Certificates;

impl FileReader for Certificates {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        if path.starts_with("/certs/") {
            return Ok(b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".to_vec());
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "no such file"))
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

fn folder() -> PathBuf {
    let root =
        std::env::var("OUTRIGGER_CORPORA").expect("OUTRIGGER_CORPORA names the folder with the corpora");
    Path::new(&root).join("envoy-bootstraps")
}

#[test]
#[ignore = "needs the corpora: run by `cargo xtask peers`"]
fn published_bootstraps_are_accepted_or_refused_for_the_right_reason() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the folder envoy-bootstraps")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 33, "only {} bootstraps in the corpora", files.len());
    let mut found = String::new();
    for path in &files {
        let text = std::fs::read_to_string(path).expect("readable").replace("@CERTS@", "/certs");
        let name = path.file_name().expect("a name").to_string_lossy();
        match load_bootstrap_with(Some((&text, Format::Yaml)), None, &Certificates) {
            Ok(bootstrap) => {
                writeln!(found, "{name}: accepted").expect("text");
                for notice in bootstrap.notices {
                    writeln!(found, "    notice {notice}").expect("text");
                }
                for error in compile(&bootstrap.config, None).err().into_iter().flatten() {
                    writeln!(found, "    compiler: {error}").expect("text");
                }
            }
            Err(errors) => {
                writeln!(found, "{name}: refused").expect("text");
                for error in errors {
                    writeln!(found, "    {error}").expect("text");
                }
            }
        }
    }
    if std::env::var_os("OUTRIGGER_UPDATE").is_some() {
        std::fs::write(EXPECTED, &found).expect("written");
        return;
    }
    let expected = std::fs::read_to_string(EXPECTED).expect("the table");
    assert_eq!(found, expected, "the table in {EXPECTED} is not what was found");
}
