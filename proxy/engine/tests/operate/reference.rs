//! The documentation lists every metric. `OUTRIGGER_WRITE_DOCS=1` writes the list instead of comparing it.

use outrigger_engine::telemetry::reference::markdown;

const BEGIN: &str = "<!-- metrics: generated, do not edit -->\n";
const END: &str = "<!-- end of metrics -->\n";

#[test]
fn operations_document_lists_every_metric() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (listed, after) = rest.split_once(END).unwrap();
    let wanted = format!("\n{}\n", markdown());
    if std::env::var_os("OUTRIGGER_WRITE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        return;
    }
    assert!(listed == wanted, "docs/operations.md is out of date: run this test with OUTRIGGER_WRITE_DOCS=1");
}
