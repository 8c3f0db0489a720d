//! Writes `docs/xds-fields.md`: every message and field of the xDS API that is supported, from the descriptors.
//!
//! ```text
//! cargo run -p outrigger-xds --example supported_xds_fields > docs/xds-fields.md
//! cargo run -p outrigger-xds --example supported_xds_fields -- --check docs/xds-fields.md
//! ```

use outrigger_api::ignored::SAFE_TO_IGNORE;
use outrigger_api::official;
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let document = document();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.as_slice() {
        [] => {
            print!("{document}");
            ExitCode::SUCCESS
        }
        [flag, path] if flag == "--check" => match std::fs::read_to_string(path) {
            Ok(current) if current == document => ExitCode::SUCCESS,
            Ok(_) => {
                eprintln!(
                    "{path} is not current: cargo run -p outrigger-xds --example supported_xds_fields > {path}"
                );
                ExitCode::FAILURE
            }
            Err(error) => {
                eprintln!("{path}: {error}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("usage: supported_xds_fields [--check FILE]");
            ExitCode::from(2)
        }
    }
}

fn document() -> String {
    let mut out = String::from(
        "# Supported xDS fields\n\n\
         Generated from the descriptors; do not edit. What is not listed here is refused, with its path, in binary \
         resources as in YAML and JSON, unless it is among the [fields without effect](#fields-without-effect). Under \
         *Refused* stand the official fields of a message that it lacks here.\n\n",
    );
    ignored(&mut out);
    let mut packages: BTreeMap<String, Vec<MessageDescriptor>> = BTreeMap::new();
    for message in outrigger_api::pool().all_messages() {
        let package = message.package_name().to_owned();
        if (package.starts_with("envoy.") || package.starts_with("xds.")) && !message.is_map_entry() {
            packages.entry(package).or_default().push(message);
        }
    }
    for (package, mut messages) in packages {
        messages.sort_by(|a, b| a.full_name().cmp(b.full_name()));
        writeln!(out, "## {package}\n").unwrap_or_default();
        for message in messages {
            one(&message, &mut out);
        }
    }
    out
}

fn ignored(out: &mut String) {
    out.push_str(
        "## Fields without effect\n\nAccepted and reported, because ignoring them changes no request.\n\n",
    );
    out.push_str("| message | field | why it is harmless |\n|---|---|---|\n");
    for i in SAFE_TO_IGNORE {
        writeln!(out, "| {} | `{}` | {} |", i.message, i.field, i.reason).unwrap_or_default();
    }
    out.push('\n');
}

fn one(message: &MessageDescriptor, out: &mut String) {
    let name = message.full_name().trim_start_matches(message.package_name()).trim_start_matches('.');
    writeln!(out, "### {name}\n").unwrap_or_default();
    let mut fields: Vec<FieldDescriptor> = message.fields().collect();
    fields.sort_by_key(FieldDescriptor::number);
    if fields.is_empty() {
        out.push_str("No fields.\n\n");
    } else {
        out.push_str("| # | field | type |\n|---|---|---|\n");
        for field in fields {
            writeln!(out, "| {} | `{}` | {} |", field.number(), field.name(), type_of(&field))
                .unwrap_or_default();
        }
        out.push('\n');
    }
    let harmless = |field: &&str| outrigger_api::ignored::reason(message.full_name(), field).is_none();
    let refused: Vec<String> =
        official::fields(message.full_name()).filter(harmless).map(|f| format!("`{f}`")).collect();
    if !refused.is_empty() {
        writeln!(out, "Refused: {}.\n", refused.join(", ")).unwrap_or_default();
    }
}

fn type_of(field: &FieldDescriptor) -> String {
    let kind = match field.kind() {
        Kind::Message(m) if field.is_map() => {
            return format!("map to {}", kind_of(&m.map_entry_value_field().kind()));
        }
        kind => kind_of(&kind),
    };
    if field.is_list() { format!("list of {kind}") } else { kind }
}

fn kind_of(kind: &Kind) -> String {
    match kind {
        Kind::Message(m) => m.full_name().trim_start_matches("google.protobuf.").to_owned(),
        Kind::Enum(e) => format!("one of {}", values(e)),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn values(descriptor: &EnumDescriptor) -> String {
    let names: Vec<String> = descriptor.values().map(|v| format!("`{}`", v.name())).collect();
    names.join(", ")
}
