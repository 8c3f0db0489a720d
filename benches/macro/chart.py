"""A bar chart as SVG: CPU per request of every peer, relative to the dearest of a scenario."""

from html import escape

from report import by_scenario, median, number, order
from scenario import key

COLOURS = ["#0b6e4f", "#e08e45", "#7d5ba6", "#3d6fb6", "#b23a48", "#6b7280", "#9aa51f", "#4aa3a2", "#222222"]
LABEL, WIDTH, BAR, GAP, TOP = 70, 620, 12, 14, 54


def svg(data):
    """The drawing."""
    names = order(data)
    parts, y = [], TOP
    for scenario, peers in by_scenario(data).items():
        values = {peer: median(peers.get(peer, []), key(scenario)) for peer in names}
        most = max((value for value in values.values() if value), default=0)
        if not most:
            continue
        rows = [peer for peer in names if values[peer] is not None]
        middle = y + len(rows) * BAR / 2 + 4
        parts.append(f'<text x="{LABEL - 8}" y="{middle:.0f}" text-anchor="end" font-weight="bold">{escape(scenario)}</text>')
        for peer in rows:
            width = max(1, WIDTH * values[peer] / most)
            colour = COLOURS[names.index(peer) % len(COLOURS)]
            parts.append(f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR - 2}" fill="{colour}"/>')
            parts.append(f'<text x="{LABEL + width + 5:.1f}" y="{y + BAR - 3}" font-size="10">{number(values[peer])}</text>')
            y += BAR
        y += GAP
    legend = "".join(
        f'<rect x="{LABEL + n * 110}" y="30" width="10" height="10" fill="{COLOURS[n % len(COLOURS)]}"/>'
        f'<text x="{LABEL + n * 110 + 15}" y="39">{escape(name)}</text>' for n, name in enumerate(names))
    width = max(LABEL + WIDTH + 70, LABEL + len(names) * 110)
    title = "CPU µs per request (S7: KiB per idle connection); each scenario to its own scale; shorter is better"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}" '
            f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
            f'<text x="{LABEL}" y="18" font-size="13">{title}</text>{legend}{"".join(parts)}</svg>\n')
