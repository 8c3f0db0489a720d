//! Istio's bookinfo samples: each is accepted, or refused for the right reason.
//!
//! Reads `$OUTRIGGER_CORPORA/istio-bookinfo`; without the variable the test is ignored by its attribute and run by
//! `cargo xtask peers`, which sets it.

use std::path::Path;

use outrigger_plan::parse_documents;

/// Files with documents that are refused: a text that every refusal of the file must contain one of.
const REFUSED: &[(&str, &[&str])] = &[
    ("policy/", &["EnvoyFilter is not supported yet", "Kubernetes kind"]),
    // A database's password, which is no certificate.
    (
        "platform/kube/bookinfo-mysql.yaml",
        &["Kubernetes kind", "\"rootpasswd\"", "holds neither a certificate"],
    ),
    ("platform/", &["Kubernetes kind"]),
    ("gateway-api/", &["Gateway API is not supported yet"]),
    ("demo-profile-no-gateways.yaml", &["is no kind of Istio's API that is known here", "Kubernetes kind"]),
];

#[test]
#[ignore = "needs OUTRIGGER_CORPORA; run by `cargo xtask peers`"]
fn bookinfo_samples_are_accepted_or_refused_for_the_expected_reason() {
    let root =
        std::env::var("OUTRIGGER_CORPORA").expect("OUTRIGGER_CORPORA names the directory of the corpora");
    let root = Path::new(&root).join("istio-bookinfo");
    let (mut accepted, mut refused) = (0, 0);
    let mut wrong = Vec::new();
    for file in files(&root) {
        let name = file.strip_prefix(&root).expect("is below").to_string_lossy().into_owned();
        if name == "swagger.yaml" {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("can be read");
        let expected =
            REFUSED.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, reasons)| *reasons);
        let documents = parse_documents(&text);
        assert!(!documents.is_empty(), "{name} has no document");
        let mut file_refused = false;
        for document in documents {
            match (document, expected) {
                (Ok(_), _) => accepted += 1,
                (Err(errors), Some(reasons)) => {
                    file_refused = true;
                    refused += 1;
                    for error in errors.iter().map(ToString::to_string) {
                        if !reasons.iter().any(|reason| error.contains(reason)) {
                            wrong.push(format!("{name}: {error}"));
                        }
                    }
                }
                (Err(errors), None) => wrong.extend(errors.iter().map(|e| format!("{name}: {e}"))),
            }
        }
        if expected.is_some() && !file_refused {
            wrong.push(format!("{name}: nothing of it was refused"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(accepted >= 35 && refused >= 80, "{accepted} accepted, {refused} refused");
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut list = Vec::new();
    let entries =
        std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let path = entry.expect("can be read").path();
        if path.is_dir() {
            list.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "yaml") {
            list.push(path);
        }
    }
    list.sort();
    list
}
