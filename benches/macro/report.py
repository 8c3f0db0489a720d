"""From runs to one table with ratios: for people, as markdown."""

import statistics

from scenario import SCENARIOS, key

REFERENCES = ["haproxy", "envoy", "floor"]
BEGIN, END = "<!-- bench: table, written by cargo bench-proxy --markdown -->", "<!-- bench: end of table -->"


def by_scenario(data):
    """{scenario: {peer: [run, …]}}, in the order of SCENARIOS."""
    found = {}
    for run in data["runs"]:
        found.setdefault(run["scenario"], {}).setdefault(run["peer"], []).append(run)
    return {name: found[name] for name in SCENARIOS if name in found}


def median(runs, field):
    values = [run[field] for run in runs if field in run]
    return statistics.median(values) if values else None


def ratio(peers, name, subject, reference):
    """Median of the ratios within a round: what a slow minute did to both is not in it."""
    field = key(name)
    others = {run["round"]: run[field] for run in peers.get(reference, [])}
    ratios = [run[field] / others[run["round"]] for run in peers.get(subject, []) if others.get(run["round"])]
    return statistics.median(ratios) if ratios else None


def number(value):
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def order(data):
    """Peers in the order they were asked for, the subject first."""
    return list(dict.fromkeys(run["peer"] for run in sorted(data["runs"], key=lambda run: data["peers"].index(run["peer"]))))


def table(data):
    """One row per scenario; for each peer CPU µs per request (memory: KiB per connection) and the half range; ratios with
    their bounds; p99."""
    names = order(data)
    subject = "outrigger" if "outrigger" in names else names[0]
    references = [name for name in REFERENCES if name in names and name != subject]
    head = ["scenario", "", *names, *(f"/ {name}" for name in references), *(f"p99 {name}" for name in names)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, peers in by_scenario(data).items():
        field, scenario = key(name), SCENARIOS[name]
        row = [name, scenario["text"]]
        for peer in names:
            runs = peers.get(peer, [])
            values = [run[field] for run in runs]
            text = number(median(runs, field)) if runs else "–"
            if len(values) > 1:
                text += f" ±{number((max(values) - min(values)) / 2)}"
            if scenario.get("most") and peer == subject and runs:
                text += f" (≤ {scenario['most']}{'' if median(runs, field) <= scenario['most'] else ': over'})"
            row.append(text)
        for reference in references:
            row.append(judged(ratio(peers, name, subject, reference), scenario.get("bounds", {}).get(reference)))
        row += [number(median(peers.get(peer, []), "p99")) for peer in names]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def judged(value, bound):
    """A ratio beside its bound."""
    if value is None:
        return "–"
    return f"{value:.2f}" if bound is None else f"{value:.2f} (≤ {bound:.2f}{'' if value <= bound else ': over'})"


def extra(data):
    """The added cost of large route tables, resident memory, and what was wrong with the runs."""
    found = by_scenario(data)
    lines = []
    for name in ("S8h", "S8p"):
        for peer in order(data):
            with_table, without = (median(found.get(n, {}).get(peer, []), "cpu_us") for n in (name, "S1"))
            if with_table is not None and without is not None:
                lines.append(f"* {name}: {peer} {with_table - without:+.2f} µs against S1")
    memory = [f"{peer} {median(runs, 'rss_idle_kb') / 1024:.1f} MB" for peer, runs in found.get("S1", {}).items()]
    if memory:
        lines.append("* resident, idle, S1's configuration: " + ", ".join(memory))
    errors = sum(run.get("err", 0) for run in data["runs"])
    noisy = sum(1 for run in data["runs"] if run.get("noisy"))
    lines.append(f"* {len(data['runs'])} runs; {errors} failed requests; {noisy} runs that others disturbed (kept, marked in the JSON)")
    return "\n".join(lines)


def text(data):
    rounds = len({run["round"] for run in data["runs"]})
    meta = data["meta"]
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    return (f"CPU µs per request of the proxy alone (S7: KiB per connection), medians of {rounds} round{'s' * (rounds > 1)}, ± half their range; "
            f"p99 in µs at a fixed rate.\n{meta['machine']}; commit {meta['commit']}; {meta['began']}; {versions}\n\n{table(data)}\n\n{extra(data)}\n")


def write_markdown(data, path):
    """Puts the text between the markers of a file."""
    with open(path) as file:
        old = file.read()
    if BEGIN not in old or END not in old:
        raise SystemExit(f"{path} has no markers for the table")
    before, rest = old.split(BEGIN, 1)
    with open(path, "w") as file:
        file.write(before + BEGIN + "\n" + text(data) + END + rest.split(END, 1)[1])
