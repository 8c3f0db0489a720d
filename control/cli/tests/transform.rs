//! `outrigger transform taskdef` as a program: files, standard streams, exit codes.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

const DEFINITION: &str = r#"{
    "family": "b",
    "networkMode": "host",
    "executionRoleArn": "arn:aws:iam::1:role/exec",
    "containerDefinitions": [
        {
            "name": "app",
            "portMappings": [
                {
                    "containerPort": 8080
                }
            ]
        }
    ]
}
"#;
const FLAGS: [&str; 3] = ["--control=mesh:15012", "--image=r/p:1", "--join-token-secret=arn:x"];

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(["transform", "taskdef"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without having read all.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn with<'a>(file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [file].into_iter().chain(FLAGS).chain(more.iter().copied()).collect()
}

#[test]
fn pipe_gives_json_out_and_notes_on_the_other_stream() {
    let first = run(&with("-", &[]), DEFINITION);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let text = String::from_utf8(first.stdout).unwrap();
    assert!(text.starts_with("{\n    \"family\"") && text.contains("outrigger-proxy"), "{text}");
    assert!(String::from_utf8_lossy(&first.stderr).contains("note: outbound: nothing is redirected"));
    let again = run(&["-"], &text);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), text);
}

#[test]
fn diff_is_unified_and_tells_by_its_exit_code() {
    let first = run(&with("-", &["--diff"]), DEFINITION);
    let text = String::from_utf8(first.stdout).unwrap();
    assert_eq!(first.status.code(), Some(1));
    assert!(text.starts_with("--- taskdef.json\n+++ taskdef.json\n@@ -"), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("-    \"family\"")));
    let done = String::from_utf8(run(&with("-", &[]), DEFINITION).stdout).unwrap();
    let same = run(&["-", "--diff"], &done);
    assert_eq!((same.status.code(), same.stdout.len()), (Some(0), 0));
}

#[test]
fn file_is_written_in_place_or_elsewhere_and_left_alone_when_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("task.json"), dir.path().join("out.json"));
    std::fs::write(&file, DEFINITION).unwrap();
    let (name, out_name) = (file.to_str().unwrap(), out.to_str().unwrap());
    assert_eq!(run(&[name, "--in-place"], "").status.code(), Some(3), "no --control");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), DEFINITION);
    assert!(run(&with(name, &["--out", out_name]), "").status.success());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), DEFINITION);
    assert!(run(&with(name, &["--in-place"]), "").status.success());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), std::fs::read_to_string(&out).unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside them");
}

#[test]
fn what_is_no_definition_is_told() {
    assert_eq!(run(&["-"], "{").status.code(), Some(2));
    assert_eq!(run(&["/nowhere/task.json"], "").status.code(), Some(2));
    assert_eq!(run(&["-", "--in-place"], "{}").status.code(), Some(2));
    let refused = run(&with("-", &[]), &DEFINITION.replace("\"host\"", "\"none\""));
    assert_eq!(refused.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("networkMode:"));
    let told = run(&["-", "--network-mode-check"], DEFINITION);
    assert!(told.status.success() && told.stdout.starts_with(b"network mode host\n"));
}
