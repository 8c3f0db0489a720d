//! The seeds of the fuzz targets are accepted: from one that is refused at its first field, nothing deep is ever found.

use outrigger_api::Kind;
use outrigger_xds::bootstrap::{Format, load_bootstrap_with};
use outrigger_xds::translate::files::FileReader;
use outrigger_xds::translate::{Surroundings, translate_any_with};
use std::io;
use std::path::Path;

/// The disk of the targets.
struct OneFile;

impl FileReader for OneFile {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        if path == "/a" { Ok(b"content".to_vec()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "A").then(|| "value".to_owned())
    }
}

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    let seeds = files.filter(|file| file.file_name().to_string_lossy().starts_with("seed-"));
    seeds.map(|file| (file.path().display().to_string(), std::fs::read(file.path()).unwrap())).collect()
}

#[test]
fn every_seed_of_a_resource_is_accepted() {
    let all = seeds("xds_resource");
    assert!(all.len() >= 7);
    for (name, data) in all {
        let (choice, bytes) = data.split_first().unwrap();
        let around = Surroundings { files: &OneFile, ..Surroundings::default() };
        let found = translate_any_with(Kind::ALL[usize::from(*choice)].type_url(), bytes, &around);
        assert!(found.is_ok(), "{name}: {found:?}");
    }
}

#[test]
fn every_seed_of_a_bootstrap_is_accepted() {
    let all = seeds("bootstrap");
    assert!(all.len() >= 3);
    for (name, data) in all {
        let (choice, text) = data.split_first().unwrap();
        let format = if choice & 1 == 0 { Format::Yaml } else { Format::Json };
        let text = std::str::from_utf8(text).unwrap();
        let found = load_bootstrap_with(Some((text, format)), None, &OneFile);
        assert!(found.is_ok(), "{name}: {:?}", found.err());
    }
}
