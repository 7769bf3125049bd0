"""The lineage of one model as a graph: what landed, what was made of it by which stage, the version and its aliases.

Batches of a stage that are alike (verdict, code) are one node. As text for Mermaid, or as a page that draws itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any

from ml_platform.provenance.record import WEIGHTS, landed_files, version_of
from ml_platform.words import counted

if TYPE_CHECKING:
    from ml_platform.provenance.record import Record
    from ml_platform.registry.models import RegisteredVersion

Entry = Mapping[str, Any]
LANDED, MODEL, ALIAS, REJECTED, WAIVED = "landed", "model", "alias", "rejected", "waived"
SHORT = 12
WIDTH, GAP, LINE, PAD, BETWEEN = 186, 40, 15, 10, 18
"""Pixels of a node, between layers, of a line of text, around it, and between the nodes of a layer."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One box: a title, a few lines, what kind it is, and everything there is to say of it, such as each hash."""

    name: str
    title: str
    lines: Sequence[str] = ()
    kind: str = ""
    details: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes in the order of the chain, and edges from what was read to what was made of it, by node name."""

    title: str
    nodes: Sequence[Node]
    edges: Sequence[tuple[str, str]]


@dataclass
class _Drawing:
    nodes: list[Node] = field(default_factory=list)
    edges: dict[tuple[str, str], None] = field(default_factory=dict)
    of_artifact: dict[str, str] = field(default_factory=dict)

    def add(self, **fields: Any) -> str:
        self.nodes.append(Node(name=f"n{len(self.nodes)}", **fields))
        return self.nodes[-1].name


def graph(record: Record, version: RegisteredVersion) -> Graph:
    """The graph of a registered version."""
    drawing = _Drawing()
    for stage, entries in record["artifacts"].items():
        groups: dict[tuple[Any, ...], list[Entry]] = {}
        for entry in entries:
            groups.setdefault((entry["verdict"], entry["code_version"]), []).append(entry)
        for alike in groups.values():
            _add(drawing, stage, alike)
    if parent := record["parent"]:
        before = drawing.add(
            title="trained_model before",
            lines=[version_of(parent)[:SHORT]],
            details=[("data version", version_of(parent)), ("weights", parent["files"][WEIGHTS]["sha256"])],
        )
        drawing.edges[(before, drawing.of_artifact["trained_model"])] = None
    model = drawing.add(
        title=f"{version.name} version {version.version}",
        lines=[f"weights {record['model']['weights'][:SHORT]}"],
        kind=MODEL,
        details=[("weights, SHA-256", record["model"]["weights"]), *sorted(version.tags.items())],
    )
    for stage in ("trained_model", "evaluation"):
        drawing.edges[(drawing.of_artifact[stage], model)] = None
    for alias in version.aliases:
        drawing.edges[(model, drawing.add(title=f"@{alias}", kind=ALIAS))] = None
    title = f"{version.name} version {version.version}"
    return Graph(title=title, nodes=drawing.nodes, edges=list(drawing.edges))


def _add(drawing: _Drawing, stage: str, alike: Sequence[Entry]) -> None:
    """A node for artifacts that are alike, with edges from all that they were made of."""
    first = alike[0]
    batches = f"{first['batch']} to {alike[-1]['batch']}" if len(alike) > 1 else first["batch"]
    rows = sum(entry["facets"]["outputStatistics"].get("rowCount", 0) for entry in alike)
    count = counted(len(alike), "batch", "batches") if first["batch"] else version_of(first)[:SHORT]
    verdict = f", {first['verdict']}" if first["verdict"] else ""
    lines = [batches, f"{count}{verdict}", *([counted(rows, "row")] if rows else [])]
    details = [(entry["batch"] or "data version", version_of(entry)) for entry in alike]
    if not first["batch"]:
        details += [(f"{name}, SHA-256", file["sha256"]) for name, file in first["files"].items()]
    details.append(("code version", first["code_version"]))
    kind = first["verdict"] if first["verdict"] in (WAIVED, REJECTED) else ""
    own = drawing.add(title=stage, lines=[line for line in lines if line], kind=kind, details=details)
    feeds: dict[str, list[tuple[str, str]]] = {}
    for entry in alike:
        drawing.of_artifact["/".join(filter(None, (stage, entry["batch"])))] = own
        for feed, file in landed_files(entry).items():
            feeds.setdefault(feed, []).append((entry["batch"] or feed, file["sha256"]))
    for feed, hashes in feeds.items():
        landed = drawing.add(title=feed, lines=[counted(len(hashes), "landed file")], kind=LANDED, details=hashes)
        drawing.edges[(landed, own)] = None
    for entry in alike:
        for name in entry["inputs"]:
            if name in drawing.of_artifact and drawing.of_artifact[name] != own:
                drawing.edges[(drawing.of_artifact[name], own)] = None


def mermaid(drawn: Graph) -> str:
    """The graph as a flowchart of Mermaid (https://mermaid.js.org/syntax/flowchart.html)."""
    lines = ["---", f"title: {drawn.title}", "---", "flowchart LR"]
    for node in drawn.nodes:
        text = "<br/>".join(_quoted(line) for line in (node.title, *node.lines))
        shape = {LANDED: ('[("', '")]'), ALIAS: ('(["', '"])'), MODEL: ('[["', '"]]')}.get(node.kind, ('["', '"]'))
        lines.append(f"  {node.name}{shape[0]}{text}{shape[1]}")
    lines += [f"  {source} --> {target}" for source, target in drawn.edges]
    lines += [
        "  classDef waived fill:#fff3c4,stroke:#b58900,color:#333",
        "  classDef model fill:#d9ecff,stroke:#1c6dd0,color:#123",
        "  classDef alias fill:#d8f3dc,stroke:#2d8a4e,color:#123",
    ]
    for kind in (WAIVED, MODEL, ALIAS):
        if named := [node.name for node in drawn.nodes if node.kind == kind]:
            lines.append(f"  class {','.join(named)} {kind}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Text inside a quoted label: Mermaid has entity codes for what would end it."""
    return text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")


def page(drawn: Graph) -> str:
    """The graph as one HTML page that asks nothing of a network and runs no script."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = resources.files(__package__).joinpath("graph.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(graph=drawn, svg=_svg(drawn))


def _svg(drawn: Graph) -> str:
    """Boxes in layers from left to right: a node stands left of all that is made of it, as near as it can."""
    layers = _layers(drawn)
    heights = {node.name: 2 * PAD + LINE * (1 + len(node.lines)) for node in drawn.nodes}
    columns: dict[int, list[Node]] = {}
    for node in drawn.nodes:
        columns.setdefault(layers[node.name], []).append(node)
    tall = {at: sum(heights[n.name] + BETWEEN for n in some) - BETWEEN for at, some in columns.items()}
    height = max(tall.values()) + 2 * BETWEEN
    place: dict[str, tuple[int, int]] = {}
    for at, some in columns.items():
        y = (height - tall[at]) // 2
        for node in some:
            place[node.name] = (BETWEEN + at * (WIDTH + GAP), y)
            y += heights[node.name] + BETWEEN
    width = 2 * BETWEEN + len(columns) * (WIDTH + GAP) - GAP
    parts = [_curve(place[a], heights[a], place[b], heights[b]) for a, b in drawn.edges]
    parts += [box for node in drawn.nodes for box in _box(node, place[node.name], heights[node.name])]
    label = escape(f"Lineage of {drawn.title}", quote=True)
    size = f'viewBox="0 0 {width} {height}" style="max-width: {width}px"'
    return f'<svg {size} role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _layers(drawn: Graph) -> dict[str, int]:
    sources: dict[str, list[str]] = {node.name: [] for node in drawn.nodes}
    targets: dict[str, list[str]] = {node.name: [] for node in drawn.nodes}
    for source, target in drawn.edges:
        sources[target].append(source)
        targets[source].append(target)
    layers: dict[str, int] = {}

    def layer(name: str) -> int:
        if name not in layers:
            layers[name] = 1 + max(map(layer, sources[name]), default=-1)
        return layers[name]

    for name in sources:
        layer(name)
    for name in sorted(layers, key=lambda name: -layers[name]):  # near what is made of it: no line crosses a box
        layers[name] = min((layers[target] - 1 for target in targets[name]), default=layers[name])
    return layers


def _curve(start: tuple[int, int], tall: int, end: tuple[int, int], wide: int) -> str:
    x, y, to_x, to_y = start[0] + WIDTH, start[1] + tall // 2, end[0], end[1] + wide // 2
    middle = (x + to_x) // 2
    return f'<path class="edge" d="M{x} {y}C{middle} {y} {middle} {to_y} {to_x} {to_y}"/>'


def _box(node: Node, place: tuple[int, int], height: int) -> Iterator[str]:
    x, y = place
    told = "\n".join(f"{name}: {value}" for name, value in node.details[:40])
    more = f"\nand {len(node.details) - 40} more, below" if len(node.details) > 40 else ""
    yield f'<a href="#{node.name}"><g class="node {node.kind}"><title>{escape(told + more)}</title>'
    yield f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{height}" rx="5"/>'
    for number, line in enumerate((node.title, *node.lines)):
        kind = "" if number else ' class="title"'
        yield f'<text{kind} x="{x + PAD}" y="{y + PAD + LINE * number + 11}">{escape(line)}</text>'
    yield "</g></a>"
