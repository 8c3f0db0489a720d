//! Compiles every file under `proto/` with a pure-Rust compiler: messages, clients, servers, the descriptor set that the
//! documentation is made from, a smaller one for reading text, and the tables that binary resources are checked by.

use prost_reflect::prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, EnumOptions, FileDescriptorSet, MessageOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("proto");
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    let mut compiler = protox::Compiler::new([&root])?;
    // Well-known types belong in the set, so that reflection can resolve them.
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(&files)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let set = FileDescriptorSet::decode(&*compiler.encode_file_descriptor_set())?;
    std::fs::write(out.join("schema.rs"), Tables::of(&set).source())?;
    // Options of messages are read by the descriptors of options: without these in the set, the reader would build and
    // keep a set of its own.
    compiler.open_file("google/protobuf/descriptor.proto")?;
    let lean = lean(FileDescriptorSet::decode(&*compiler.encode_file_descriptor_set())?);
    std::fs::write(out.join("reflection.bin"), lean.encode_to_vec())?;
    let mut config = prost_build::Config::new();
    // Names make `Any` values; ordered maps make encoding deterministic, so that versions can be digests.
    config.enable_type_names().btree_map(["."]).include_file("packages.rs");
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .emit_rerun_if_changed(false)
        .compile_fds_with_config(set, config)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    Ok(())
}

/// The set without comments, services and options, apart from what makes a map a map.
fn lean(mut set: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut set.file {
        (file.source_code_info, file.options) = (None, None);
        file.service.clear();
        file.extension.clear();
        file.enum_type.iter_mut().for_each(lean_enum);
        file.message_type.iter_mut().for_each(lean_message);
    }
    set
}

fn lean_message(message: &mut DescriptorProto) {
    let is_map = message.options.as_ref().and_then(|o| o.map_entry).filter(|is_map| *is_map);
    message.options = is_map.map(|_| MessageOptions { map_entry: Some(true), ..MessageOptions::default() });
    message.extension.clear();
    message.extension_range.clear();
    message.field.iter_mut().for_each(|field| field.options = None);
    message.oneof_decl.iter_mut().for_each(|oneof| oneof.options = None);
    message.enum_type.iter_mut().for_each(lean_enum);
    message.nested_type.iter_mut().for_each(lean_message);
}

fn lean_enum(descriptor: &mut EnumDescriptorProto) {
    let has_aliases = descriptor.options.as_ref().is_some_and(|options| options.allow_alias());
    descriptor.options =
        has_aliases.then(|| EnumOptions { allow_alias: Some(true), ..EnumOptions::default() });
    descriptor.value.iter_mut().for_each(|value| value.options = None);
}

/// What `src/strict/schema.rs` declares, as source: flat arrays of numbers and one text, without a pointer, so that they
/// cost nothing to load.
#[derive(Default)]
struct Tables<'a> {
    messages: BTreeMap<String, &'a DescriptorProto>,
    enums: BTreeMap<String, &'a EnumDescriptorProto>,
}

impl<'a> Tables<'a> {
    fn of(set: &'a FileDescriptorSet) -> Self {
        let mut tables = Self::default();
        for file in &set.file {
            tables.add(file.package(), &file.message_type, &file.enum_type);
        }
        tables
    }

    fn add(&mut self, scope: &str, messages: &'a [DescriptorProto], enums: &'a [EnumDescriptorProto]) {
        self.enums.extend(enums.iter().map(|e| (format!("{scope}.{}", e.name()), e)));
        for message in messages {
            let name = format!("{scope}.{}", message.name());
            self.add(&name, &message.nested_type, &message.enum_type);
            self.messages.insert(name, message);
        }
    }

    fn source(&self) -> String {
        let mut names = Names::default();
        let (mut messages, mut fields) = (String::new(), String::new());
        let (mut enums, mut values) = (String::new(), String::new());
        let (mut first_field, mut first_value, mut slots_max) = (0, 0, 0);
        for (name, message) in &self.messages {
            let is_map = message.options.as_ref().is_some_and(|o| o.map_entry());
            let name = names.at(name);
            let mut sorted: Vec<_> = message.field.iter().collect();
            sorted.sort_by_key(|field| field.number());
            assert!(sorted.len() <= 128, "more fields than a set of bits has");
            writeln!(
                messages,
                "Message {{ name: {name}, is_map: {is_map}, first: {first_field}, count: {} }},",
                sorted.len()
            )
            .unwrap();
            first_field += sorted.len();
            let mut slots = 0;
            for field in sorted {
                let repeated = field.label() == Label::Repeated;
                let kind = match field.r#type() {
                    Type::Double | Type::Fixed64 | Type::Sfixed64 => "Fixed64".to_owned(),
                    Type::Float | Type::Fixed32 | Type::Sfixed32 => "Fixed32".to_owned(),
                    Type::String => "Text".to_owned(),
                    Type::Bytes => "Bytes".to_owned(),
                    Type::Message => format!("Message({})", position(&self.messages, field.type_name())),
                    Type::Enum => format!("Enum({})", position(&self.enums, field.type_name())),
                    Type::Group => panic!("groups are not supported"),
                    _ => "Varint".to_owned(),
                };
                let counted = repeated && matches!(field.r#type(), Type::Message | Type::Enum);
                let slot = if counted {
                    slots += 1;
                    format!("Some({})", slots - 1)
                } else {
                    "None".to_owned()
                };
                writeln!(
                    fields,
                    "Field {{ number: {}, name: {}, kind: Kind::{kind}, repeated: {repeated}, slot: {slot} }},",
                    field.number(),
                    names.at(field.name())
                )
                .unwrap();
            }
            slots_max = slots_max.max(slots);
        }
        for (name, descriptor) in &self.enums {
            let numbers: BTreeSet<i32> = descriptor.value.iter().map(|value| value.number()).collect();
            let name = names.at(name);
            writeln!(enums, "Enum {{ name: {name}, first: {first_value}, count: {} }},", numbers.len())
                .unwrap();
            first_value += numbers.len();
            for number in numbers {
                write!(values, "{number}, ").unwrap();
            }
        }
        let text = &names.text;
        format!(
            "pub(super) static TEXT: &str = {text:?};\n\
             pub(super) static MESSAGES: [Message; {}] = [\n{messages}];\n\
             pub(super) static FIELDS: [Field; {first_field}] = [\n{fields}];\n\
             pub(super) static ENUMS: [Enum; {}] = [\n{enums}];\n\
             pub(super) static VALUES: [i32; {first_value}] = [{values}];\n\
             /// Most fields of one message that are counted.\n\
             pub(super) const SLOTS_MAX: usize = {slots_max};\n",
            self.messages.len(),
            self.enums.len(),
        )
    }
}

/// Where the name (with a dot in front) stands.
fn position<V>(all: &BTreeMap<String, V>, name: &str) -> usize {
    all.keys().position(|one| one == name.trim_start_matches('.')).expect("a type of the set")
}

/// All names in one text, each once.
#[derive(Default)]
struct Names {
    text: String,
    known: BTreeMap<String, String>,
}

impl Names {
    fn at(&mut self, name: &str) -> String {
        let text = &mut self.text;
        let known = self.known.entry(name.to_owned()).or_insert_with(|| {
            let start = text.len();
            text.push_str(name);
            format!("Name {{ start: {start}, len: {} }}", name.len())
        });
        known.clone()
    }
}
