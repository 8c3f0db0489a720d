//! What embedding programs build on, as a listing that is compared: a change of it is then seen in a review, not by those
//! who upgrade.
//!
//! The listing is read from the sources, in no time and without a compiler: every declaration that begins with `pub`, up to
//! its body, of the files that docs/embedding.md speaks of. Whether a change breaks anybody is for the reviewer to say.

use anyhow::{Context, bail};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Where the listing is kept.
const LISTING: &str = "docs/api.txt";

/// The files that embedders use.
const FILES: &[&str] = &[
    "proxy/traffic/src/lib.rs",
    "proxy/traffic/src/balance/mod.rs",
    "proxy/traffic/src/balance/locality.rs",
    "proxy/traffic/src/breaker.rs",
    "proxy/traffic/src/cluster/mod.rs",
    "proxy/traffic/src/cluster/host.rs",
    "proxy/traffic/src/compile/mod.rs",
    "proxy/traffic/src/outcome.rs",
    "proxy/traffic/src/retry/policy.rs",
    "proxy/traffic/src/route/mod.rs",
    "proxy/traffic/src/route/action.rs",
    "proxy/traffic/src/snapshot.rs",
    "proxy/traffic/src/view.rs",
    "proxy/engine/src/lib.rs",
    "proxy/engine/src/filter/registered.rs",
    "proxy/engine/src/listener/handed.rs",
    "proxy/engine/src/proxy.rs",
    "proxy/engine/src/service.rs",
    "proxy/pingora/src/lib.rs",
    "proxy/pingora/src/decisions.rs",
    "proxy/pingora/src/gateway.rs",
];

/// Compares the listing with the sources, or writes it.
pub fn run(args: &[String]) -> anyhow::Result<()> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().context("the repository")?.to_owned();
    let listed = listing(&root)?;
    let path = root.join(LISTING);
    if args.iter().any(|arg| arg == "--write") {
        return std::fs::write(&path, listed).context(LISTING);
    }
    let held = std::fs::read_to_string(&path).context(LISTING)?;
    if held == listed {
        println!("{LISTING} lists {} declarations", listed.lines().filter(|l| l.starts_with("    ")).count());
        return Ok(());
    }
    let (old, new): (Vec<_>, Vec<_>) = (held.lines().collect(), listed.lines().collect());
    old.iter().filter(|line| !new.contains(line)).for_each(|line| println!("- {line}"));
    new.iter().filter(|line| !old.contains(line)).for_each(|line| println!("+ {line}"));
    bail!("what embedding programs use has changed: if it is meant, run `cargo xtask api --write`")
}

fn listing(root: &Path) -> anyhow::Result<String> {
    let mut out = String::from(
        "Declarations that embedding programs use: see docs/embedding.md. Written by `cargo xtask api --write`.\n",
    );
    for file in FILES {
        let text = std::fs::read_to_string(root.join(file)).context(*file)?;
        writeln!(out, "\n{file}")?;
        for declaration in declarations(&text) {
            writeln!(out, "    {declaration}")?;
        }
    }
    Ok(out)
}

/// Every public declaration, on one line each, without its body. Tests stand at the end of a file.
fn declarations(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut all = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim();
        let method = line.starts_with("fn ")
            && all.last().is_some_and(|last: &String| last.contains("trait ") || last.starts_with("fn "));
        if !(line.starts_with("pub ") || method) {
            continue;
        }
        let mut whole = line.to_owned();
        while !ends(&whole) {
            let Some(next) = lines.next() else { break };
            whole.push(' ');
            whole.push_str(next.trim());
        }
        let end = whole.find(" {").filter(|_| !whole.starts_with("pub use")).unwrap_or(whole.len());
        all.push(whole.get(..end).unwrap_or_default().trim_end_matches([';', ',']).to_owned());
    }
    all
}

fn ends(declaration: &str) -> bool {
    let is_field = !declaration.contains("fn ") && !declaration.starts_with("pub use");
    (declaration.ends_with([';', '}']) || declaration.ends_with(" {"))
        || (is_field && declaration.ends_with(','))
}

#[cfg(test)]
mod tests {
    use super::declarations;

    #[test]
    fn declarations_are_listed_without_bodies_and_tests() {
        let text = "pub use a::{B,\n  C};\npub struct S {\n    /// doc\n    pub field: u8,\n    private: u8,\n}\npub trait T: Send {\n    fn f(\n        &self,\n    ) -> u8;\n}\nimpl S {\n    pub fn g(&self) -> u8 {\n        1\n    }\n    fn h() {}\n    pub(crate) fn i() {}\n}\n#[cfg(test)]\nmod tests { pub fn x() {} }\n";
        let expected = [
            "pub use a::{B, C}",
            "pub struct S",
            "pub field: u8",
            "pub trait T: Send",
            "fn f( &self, ) -> u8",
            "pub fn g(&self) -> u8",
        ];
        assert_eq!(declarations(text), expected);
    }
}
