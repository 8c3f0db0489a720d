"""Writes official_names.tsv: what the official API has and our subset lacks.

Usage: names.py DESCRIPTORS OUTPUT    (DESCRIPTORS: output of the example `descriptors`)
"""

import pathlib
import sys

import official


def table(path, pool):
    files = official.ours(path)
    lines = []
    known = set()
    for name, message in official.messages(files):
        known.add(name)
        if message.options.map_entry:
            continue
        have = {f.number for f in message.field}
        for field in pool.FindMessageTypeByName(name).fields:
            if field.number not in have:
                lines.append((f"field\t{name}", field.number, field.name))
    for name, enum in official.enums(files):
        have = {v.number for v in enum.value}
        for value in pool.FindEnumTypeByName(name).values:
            if value.number not in have:
                lines.append((f"value\t{name}", value.number, value.name))
    out = [f"{a}\t{b}\t{c}" for a, b, c in sorted(lines)]
    site = pathlib.Path(sys.modules["xds"].__path__[0]).parent
    others = set()
    for path in (site / "envoy").rglob("*_pb2.py"):
        if "/v3/" not in str(path) or not ("/extensions/" in str(path) or "/config/" in str(path)):
            continue
        proto = str(path.relative_to(site)).replace("_pb2.py", ".proto")
        try:
            file = pool.FindFileByName(proto)
        except KeyError:
            continue
        others |= {m.full_name for m in file.message_types_by_name.values()} - known
    return "\n".join(out + [f"message\t{m}" for m in sorted(others)]) + "\n"


if __name__ == "__main__":
    pathlib.Path(sys.argv[2]).write_text(table(sys.argv[1], official.pool()))
