"""How is the README's chart drawn? As SVG bars, from benchmarks/results (python -m benchmarks table)."""

from __future__ import annotations

from typing import NamedTuple
from xml.sax.saxutils import escape

from benchmarks.machine import ROOT
from benchmarks.table import load, machine_text

FILE = ROOT / "benchmarks" / "chart.svg"


class Panel(NamedTuple):
    """The bars of one group of a case: the number to show, and the label of each contender."""

    title: str
    case: str
    group: str
    number: str
    bars: dict[str, str]


PANELS = (
    Panel(
        "Random JPEG crops of 224 pixels, from the page cache, images/s",
        "images",
        "generated, random crop",
        "images_per_s",
        {
            "mx8shards, tiled": "mx8shards",
            "mx8shards, untouched files": "mx8shards, --no-tiles",
            "FFCV": "FFCV",
            "Pillow + torch DataLoader": "Pillow + DataLoader",
            "litdata + Pillow": "LitData + Pillow",
            "streaming + Pillow": "Streaming + Pillow",
        },
    ),
    Panel(
        "Shuffled batches of 100 KB samples, from the page cache, samples/s",
        "gather",
        "100 KB blobs",
        "samples_per_s",
        {
            "mx8shards Loader": "mx8shards",
            "FFCV": "FFCV",
            "litdata StreamingDataset": "LitData",
            "SPDL over mapped MDS": "SPDL",
            "streaming StreamingDataset": "Streaming",
            "WebDataset": "WebDataset",
        },
    ),
)

_WIDTH, _LEFT, _BAR, _STEP, _TOP = 720, 190, 18, 24, 34
_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.small { font-size: 11px; fill: #59636e; }
rect { fill: #8c959f; }
.ours { fill: #1f6feb; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .small { fill: #9198a1; } rect { fill: #6e7681; } }"""


def render() -> str:
    """The chart as SVG, from the stored results."""
    parts, y = [], 0
    for panel in PANELS:
        drawn, y = _panel(panel, y)
        parts += drawn
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" role="img">'
    return "\n".join([head, f"<style>\n{_STYLE}\n</style>", *parts, "</svg>", ""])


def _panel(panel: Panel, y: int) -> tuple[list[str], int]:
    """Draw a title, bars and the machine below `y`. Returns the elements and the new `y`."""
    results = load(panel.case)
    group = results["groups"][panel.group]
    values = {shown: group[name]["numbers"][panel.number]["median"] for name, shown in panel.bars.items()}
    parts = [_text(0, y + 20, panel.title, "title")]
    y += _TOP
    for shown, value in values.items():
        width = round((_WIDTH - _LEFT - 80) * value / max(values.values()), 1)
        ours = ' class="ours"' if shown.startswith("mx8shards") else ""
        parts.append(_text(_LEFT - 8, y + 14, shown, "", ' text-anchor="end"'))
        parts.append(f'<rect{ours} x="{_LEFT}" y="{y}" width="{width}" height="{_BAR}" rx="2"/>')
        parts.append(_text(_LEFT + width + 6, y + 14, f"{value:,.0f}"))
        y += _STEP
    parts.append(_text(0, y + 14, machine_text(results), "small"))
    return parts, y + 30


def _text(x: float, y: int, text: str, kind: str = "", more: str = "") -> str:
    chosen = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}"{chosen}{more}>{escape(text)}</text>'
