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

/// A few blind changes: what a fuzzer begins with, small enough for every test run.
fn mutate(rng: &mut fastrand::Rng, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(1..data.len().max(2)).min(data.len());
        let end = (at + rng.usize(0..24)).min(data.len());
        match rng.u8(0..6) {
            0 => data.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << rng.u8(0..8)),
            1 => data.iter_mut().skip(at).take(1).for_each(|byte| *byte = rng.u8(..)),
            2 => drop(data.drain(at..end)),
            3 => {
                let part = data[at..end].to_vec();
                data.splice(at..at, part);
            }
            4 => {
                let from = rng.usize(0..other.len());
                let until = (from + rng.usize(0..40)).min(other.len());
                data.splice(at..end, other[from..until].iter().copied());
            }
            _ => data.truncate(at),
        }
    }
    data
}

/// How many mutants of each kind: 200, or what `OUTRIGGER_MUTANTS` says.
fn mutants() -> usize {
    std::env::var("OUTRIGGER_MUTANTS").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

/// Runs `check` on mutants of the seeds; a failure names the number that brings the mutant back.
fn each_mutant(target: &str, check: impl Fn(&[u8])) {
    let all = seeds(target);
    let start = fastrand::u64(..);
    for number in 0..mutants() as u64 {
        let mut rng = fastrand::Rng::with_seed(start.wrapping_add(number));
        let (_, seed) = &all[rng.usize(0..all.len())];
        let (_, other) = &all[rng.usize(0..all.len())];
        let mutant = mutate(&mut rng, seed, other);
        let bears = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&mutant)));
        assert!(bears.is_ok(), "seed {start} + {number}: {:?}", String::from_utf8_lossy(&mutant));
    }
}

#[test]
fn mutants_of_resources_are_translated_or_refused_with_reasons() {
    each_mutant("xds_resource", |data| {
        let Some((choice, bytes)) = data.split_first() else { return };
        let kind = Kind::ALL[usize::from(*choice) % Kind::ALL.len()];
        let around = Surroundings { files: &OneFile, ..Surroundings::default() };
        match translate_any_with(kind.type_url(), bytes, &around) {
            Ok(resource) => {
                let config =
                    outrigger_xds::feed::held::merge(&Default::default(), std::iter::once(&resource));
                let _ = outrigger_traffic::compile(&config, None);
            }
            Err(reasons) => assert!(!reasons.is_empty()),
        }
    });
}

#[test]
fn mutants_of_bootstraps_are_read_or_refused_with_reasons() {
    each_mutant("bootstrap", |data| {
        let Some((choice, text)) = data.split_first() else { return };
        let format = if choice & 1 == 0 { Format::Yaml } else { Format::Json };
        let Ok(text) = std::str::from_utf8(text) else { return };
        match load_bootstrap_with(Some((text, format)), None, &OneFile) {
            Ok(loaded) => drop(outrigger_traffic::compile(&loaded.config, None)),
            Err(reasons) => assert!(!reasons.is_empty()),
        }
    });
}
