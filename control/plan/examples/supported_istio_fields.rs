//! Prints the reference of supported fields of Istio's API: `docs/istio-fields.md`.

use outrigger_plan::protocol::Protocol;
use outrigger_plan::resource::shape::SHAPES;
use outrigger_plan::{Kind, retry};

fn main() {
    println!("# Fields of Istio's API that Outrigger takes\n");
    println!("Printed by `cargo run -p outrigger-plan --example supported_istio_fields`; do not edit.\n");
    println!(
        "Every field is either supported, and then has its full effect, or refused by its path when it is applied."
    );
    println!("Fields in the last column are official ones that are refused as \"not supported yet\".\n");
    let kinds: Vec<String> =
        Kind::ALL.into_iter().map(|k| format!("`{}` ({})", k.name(), k.short())).collect();
    println!("Kinds: {}.\n", kinds.join(", "));
    println!("| message | supported | not yet |");
    println!("|---|---|---|");
    let list = |names: &[&str]| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(" ");
    for shape in SHAPES {
        println!("| {} | {} | {} |", shape.message, list(shape.supported), list(shape.not_yet));
    }
    println!("\n## Words\n");
    let protocols: Vec<String> = Protocol::names().map(|name| format!("`{name}`")).collect();
    println!("Protocols of ports: {}.\n", protocols.join(" "));
    let conditions: Vec<String> = retry::CONDITIONS.iter().map(|(name, _)| format!("`{name}`")).collect();
    println!("Conditions of `retryOn`: {}, and status codes.", conditions.join(" "));
}
