"""Proves that every message, field, enumeration value and method of ours is the official one.

Usage: compare.py DESCRIPTORS [NAMES]
  DESCRIPTORS  output of `cargo run -p outrigger-api --example descriptors`
  NAMES        checked to be current; default: official_names.tsv in the sources

Compared: full names, field names, numbers, types, labels, oneof membership, type names, map entries, JSON names,
enumeration value names and numbers, method types and streaming. Exits 1 with every difference on a line of its own.
"""

import pathlib
import sys

import names
import official
from google.protobuf import descriptor_pb2


def proto(descriptor, kind):
    out = kind()
    descriptor.CopyToProto(out)
    return out


def field_facts(message, field):
    oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
    return {
        "name": field.name,
        "type": field.type,
        "label": field.label,
        "type name": field.type_name,
        "oneof": oneof,
        "proto3 optional": field.proto3_optional,
        "json name": field.json_name or camel(field.name),
    }


def camel(name):
    first, *rest = name.split("_")
    return first + "".join(r.capitalize() for r in rest)


def compare(path, pool):
    files = official.ours(path)
    counts = {"messages": 0, "fields": 0, "values": 0, "methods": 0}
    for file in files:
        if file.syntax != "proto3":
            yield f"{file.name}: not proto3"
    for name, message in official.messages(files):
        counts["messages"] += 1
        try:
            theirs = proto(pool.FindMessageTypeByName(name), descriptor_pb2.DescriptorProto)
        except KeyError:
            yield f"{name}: no such official message"
            continue
        by_number = {f.number: f for f in theirs.field}
        for field in message.field:
            counts["fields"] += 1
            other = by_number.get(field.number)
            if other is None:
                yield f"{name}.{field.name}: there is no official field #{field.number}"
                continue
            mine, official_facts = field_facts(message, field), field_facts(theirs, other)
            for fact, value in mine.items():
                if value != official_facts[fact]:
                    yield f"{name}.{field.name} #{field.number}: {fact} is {value!r}, officially {official_facts[fact]!r}"
    for name, enum in official.enums(files):
        try:
            # Several names may stand for one number.
            theirs = {v.name: v.number for v in pool.FindEnumTypeByName(name).values}
        except KeyError:
            yield f"{name}: no such official enumeration"
            continue
        for value in enum.value:
            counts["values"] += 1
            if theirs.get(value.name) != value.number:
                yield f"{name}.{value.name} = {value.number}: officially {theirs.get(value.name)!r}"
    for file in files:
        for service in file.service:
            full = f"{file.package}.{service.name}"
            try:
                theirs = pool.FindServiceByName(full)
            except KeyError:
                yield f"{full}: no such official service"
                continue
            for method in service.method:
                counts["methods"] += 1
                other = theirs.methods_by_name.get(method.name)
                if other is None:
                    yield f"{full}.{method.name}: no such official method"
                    continue
                mine = (method.input_type, method.output_type, method.client_streaming, method.server_streaming)
                facts = (
                    "." + other.input_type.full_name,
                    "." + other.output_type.full_name,
                    other.client_streaming,
                    other.server_streaming,
                )
                if mine != facts:
                    yield f"{full}.{method.name}: is {mine}, officially {facts}"
    if counts["fields"] < 400:
        yield f"only {counts['fields']} fields were compared: the descriptor set is not the whole one"
    print("compared", ", ".join(f"{n} {what}" for what, n in counts.items()))


def main():
    pool = official.pool()
    differences = list(compare(sys.argv[1], pool))
    default = pathlib.Path(__file__).resolve().parents[2] / "src" / "official_names.tsv"
    table = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else default
    if names.table(sys.argv[1], pool) != table.read_text():
        differences.append(f"{table} is not current: run names.py")
    for difference in differences:
        print(difference)
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main()
