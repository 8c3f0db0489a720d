//! The shell scripts that do it on the host: POSIX sh, with nothing but `base64`, `cmp`, `mktemp` and what is started.
//!
//! Both are good to be run again: a file that is as it should be is left alone, and what is gone already is no error.
//! With `ROOT` set, files go below it and nothing is started: for images, and for tests.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::bundle::{BINARY, Bundle, ETC, File, STATE, UNIT};
use super::host::RunBy;

/// What the last line of a successful start begins with; the number of tasks that are to be members follows.
pub const MEMBERS: &str = "outrigger: members ";

/// How far a host's clock may be behind, seconds: as much as certificates begin in the past, and what delivery takes.
const CLOCK_BEHIND_MAX: i64 = 60;

/// Columns of encoded files.
const COLUMNS: usize = 100;

/// Puts a host's files in place and starts its agent.
pub fn install(bundle: &Bundle) -> String {
    let mut out = head(&bundle.name, "Brings this host into the mesh");
    out.push_str(&clock(bundle.good));
    match bundle.run_by {
        RunBy::Docker => out.push_str(NEED_DOCKER),
        RunBy::Systemd if bundle.files.iter().any(|file| file.path == BINARY) => out.push_str(NEED_SYSTEMD),
        RunBy::Systemd => {
            let _ = writeln!(
                out,
                "{NEED_SYSTEMD}[ -x \"$ROOT{BINARY}\" ] || fail \"{BINARY} is not there: give --agent-binary\""
            );
        }
    }
    out.push_str(&place(&bundle.files));
    let _ = write!(
        out,
        r#"say "checking this host"
mkdir -p {STATE} && chmod 0700 {STATE}
{} || fail "this host lacks something; nothing was started"
# What was signed for an earlier onboarding is not used again.
rm -rf {STATE}/identity
{}
say "agent started"
left=60
until {} >/dev/null 2>&1; do
  left=$((left - 1))
  [ "$left" -gt 0 ] || fail "the agent is not ready after 60 s: see its log"
  sleep 1
done
found=$({}) || fail "the agent does not say what it found"
printf '{MEMBERS}%s\n' "$(printf '%s' "$found" | grep -o '"state":"member"' | wc -l | tr -d ' ')"
"#,
        bundle.once("check"),
        bundle.start().join("\n"),
        bundle.ask("health"),
        bundle.ask("containers"),
    );
    out
}

/// Refuses a host whose clock is wrong, and a bundle that is too old.
pub fn clock((made, ends): (i64, i64)) -> String {
    let earliest = made.saturating_sub(CLOCK_BEHIND_MAX);
    format!(
        r#"now=$(date +%s)
[ "$now" -ge {earliest} ] || fail "the clock of this host is behind (or the bundle's maker's is ahead): set it first"
[ "$now" -lt {ends} ] || fail "the join tokens have expired, or the clock of this host is ahead: onboard again"
"#
    )
}

/// Puts files in place. With a root that is all.
pub fn place(files: &[File]) -> String {
    let mut out = PLACE.to_owned();
    let _ = writeln!(out, "mkdir -p \"$ROOT{ETC}\" && chmod 0755 \"$ROOT{ETC}\"");
    for file in files {
        let _ = writeln!(out, "place {:04o} {} <<'END'", file.mode, file.path);
        let encoded = BASE64.encode(&file.bytes);
        for line in encoded.as_bytes().chunks(COLUMNS) {
            let _ = writeln!(out, "{}", String::from_utf8_lossy(line));
        }
        out.push_str("END\n");
    }
    out.push_str(PLACED);
    out
}

/// Takes a host out of the mesh.
pub fn offboard(bundle: &Bundle) -> String {
    let mut out = head(&bundle.name, "Takes this host out of the mesh; its applications run on");
    let _ = write!(
        out,
        r#"if [ -z "$ROOT" ] && [ -e {ETC}/agent.yaml ]; then
  {} >/dev/null 2>&1 || true
  say "agent stopped"
  {} || fail "tasks were not all given back; run this again"
  say "tasks given back: redirection and sidecars are gone"
fi
"#,
        bundle.stop(),
        bundle.once("offboard"),
    );
    let mut paths: Vec<&str> = bundle
        .files
        .iter()
        .map(|file| file.path.as_str())
        .filter(|path| !path.contains("/tokens/"))
        .collect();
    paths.sort_unstable();
    for path in paths {
        let _ = writeln!(out, "rm -f \"$ROOT{path}\"");
    }
    let _ = writeln!(out, "rm -rf \"$ROOT{ETC}/tokens\" \"$ROOT{STATE}\"");
    let _ = writeln!(out, "rmdir \"$ROOT{ETC}\" 2>/dev/null || true");
    if bundle.files.iter().any(|file| file.path == UNIT) {
        out.push_str("[ -n \"$ROOT\" ] || systemctl daemon-reload\n");
    }
    // The shell may read the rest of a script only when it gets there.
    let _ = writeln!(
        out,
        "rm -f \"$ROOT{}\"; rmdir \"$ROOT{ETC}\" 2>/dev/null || true; say \"host left the mesh\"; exit 0",
        offboard_file(&bundle.name)
    );
    out
}

/// Where a host has the script that takes it out.
pub fn offboard_file(name: &str) -> String {
    format!("{ETC}/offboard-{name}.sh")
}

/// What every script begins with.
pub fn head(name: &str, about: &str) -> String {
    format!(
        r#"#!/bin/sh
# {about} (host {name}). Made by `outrigger onboard`; may be run again.
set -eu
umask 077
ROOT="${{ROOT:-}}"
say() {{ printf 'outrigger: %s\n' "$1"; }}
fail() {{ say "FAILED: $1" >&2; exit 1; }}
[ -n "$ROOT" ] || [ "$(id -u)" -eq 0 ] || fail "must run as root"
"#
    )
}

const NEED_DOCKER: &str = r#"if [ -z "$ROOT" ]; then
  docker version >/dev/null 2>&1 || fail "docker does not answer on this host"
fi
"#;

/// Refuses a host without systemd.
pub const NEED_SYSTEMD: &str = r#"if [ -z "$ROOT" ]; then
  command -v systemctl >/dev/null || fail "this host has no systemd: use --run docker"
fi
"#;

const PLACED: &str = r#"if [ -n "$ROOT" ]; then
  say "files are below $ROOT; nothing was started"
  exit 0
fi
"#;

/// In one step each, so that an agent that reads meanwhile sees the old file or the new one.
const PLACE: &str = r#"place() {
  file="$ROOT$2"
  mkdir -p "${file%/*}"
  new=$(mktemp "${file%/*}/.new.XXXXXX")
  base64 -d > "$new"
  chmod "$1" "$new"
  if cmp -s "$new" "$file"; then rm -f "$new"; chmod "$1" "$file"; else mv -f "$new" "$file"; say "wrote $2"; fi
}
"#;
