"""An evaluation on one page of Markdown, from its facts alone: Dagster shows it, and so may a model card.

Each section is a function of the facts that gives "" where there is nothing to tell; a further one is one more entry of
SECTIONS. What is not known is said so, and never left blank where a figure belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ml_platform.evaluation.gallery import called
from ml_platform.pipeline import METRICS, MORE_METRICS

Facts = Mapping[str, Any]

NOT_KNOWN = "not known"
WORST = 5
"""Slices, features and batches in a table."""


def report(facts: Facts, plots: Iterable[str] = ()) -> str:
    """The page.

    Args:
        facts: of an evaluation's manifest.
        plots: pictures as Markdown, shown at the end.
    """
    told = [text for section in SECTIONS if (text := section(facts))]
    return "\n\n".join([*told, *([" ".join(plots)] if plots else [])])


def metric_rows(facts: Facts) -> list[dict[str, Any]]:
    """One row for each metric: `metric`, `model`, `low`, `high`, `baseline`, `constant`; None is not known."""
    rows = []
    task = facts["task"]
    for name in (*METRICS[task], *MORE_METRICS[task]):
        value = facts["metrics"][name]
        low, high = facts["intervals"].get(name, (None, None))
        beside = {who: _known(facts.get(who, {}).get(name)) for who in ("baseline", "constant")}
        rows.append({"metric": name, "model": _known(value), "low": low, "high": high, **beside})
    return rows


def _metrics(facts: Facts) -> str:
    rows = [
        [row["metric"], _figure(row["model"]), _interval(row), _figure(row["baseline"]), _figure(row["constant"])]
        for row in metric_rows(facts)
    ]
    table = _table(["metric", "model", "interval", "baseline", "constant"], rows)
    few = facts.get("too_few")
    return f"{table}\n\nToo few rows to tell how sure this is: {few}." if few else table


def _gates(facts: Facts) -> str:
    said = [
        f"- Gate {g['name']}: {_figure(g['value'])}, {'passed' if g['passed'] else '**MISSED**'}"
        for g in facts["gates"]
    ]
    if beats := facts.get("beats_constant"):
        around = f"{_figure(beats['gain'])} ({_interval(beats)})"
        sure = "Surely better than" if beats["passed"] else "**Not surely better than**"
        said.append(f"- {sure} the constant predictor: {beats['metric']} gains {around}")
    return "\n".join(said)


def _threshold(facts: Facts) -> str:
    found = facts.get("threshold")
    if not found:
        return ""
    if found["value"] is None:
        return f"### Threshold\n\nIt is {NOT_KNOWN}: no threshold gives {found['rule']} on these rows."
    cells = found["confusion"]
    around = f"; draws of the rows chose {_interval(found)}" if found["low"] is not None else ""
    rows = [
        ["came true", f"{cells['true positive']:,}", f"{cells['false negative']:,}"],
        ["did not", f"{cells['false positive']:,}", f"{cells['true negative']:,}"],
    ]
    told = f"{found['value']:.4f}, for {found['rule']}{around}."
    flattered = found["optimism"].get("f1", 0.0)
    how = (
        "It was chosen on the rows that it is judged by; what that flatters (F1 by "
        f"{max(flattered, 0.0):.4f}) is taken off the intervals of precision, recall and F1."
        if around
        else ""
    )
    table = _table(["rows", "called positive", "called negative"], rows)
    return "\n\n".join(filter(None, ["### Threshold", f"{told} {how}".strip(), table]))


def _classes(facts: Facts) -> str:
    if not facts.get("classes"):
        return ""
    rows = [
        [row["class"], f"{row['rows']:,}", f"{row['called']:,}"]
        + [f"{_figure(row[n])} ({_ends(row[f'{n}_low'], row[f'{n}_high'])})" for n in ("precision", "recall", "f1")]
        for row in facts["classes"]
    ]
    return "### By class\n\n" + _table(["class", "rows", "called", "precision", "recall", "F1"], rows)


def _slices(facts: Facts) -> str:
    title = "### Slices by column, the worst"
    if not facts.get("slices"):
        return f"{title}\n\nNone: no column is looked at by its values, or none of these has enough rows."
    rows = [
        [
            f"{s['column']} {s['value']}",
            f"{s['rows']:,}",
            _figure(s["figure"]),
            _interval(s),
            _figure(s["baseline"]),
            s["bad"],
        ]
        for s in facts["slices"][:WORST]
    ]
    return f"{title}\n\n" + _table(["slice", "rows", "model", "interval", "baseline", ""], rows)


def _found(facts: Facts) -> str:
    found = facts.get("found_slices")
    if not found or not found["looks"]:
        return ""
    title = "### Worst slices found"
    looked = f"{found['looks']:,} values, ranges and pairs were looked at"
    if not found["slices"]:
        return f"{title}\n\nNone: {looked}, and none has a {found['loss']} above that of the other rows beyond noise."
    rows = [
        [
            called(s["where"]),
            f"{s['rows']:,}",
            _figure(s["loss"]),
            _figure(s["others"]),
            _figure(s["worse_by"]),
            _figure(s["figure"]),
            _figure(s["baseline"]),
        ]
        for s in found["slices"][:WORST]
    ]
    header = ["slice", "rows", found["loss"], "of the others", "worse by at least", "model", "baseline"]
    return f"{title}\n\n{looked}; the bound holds for all of them together.\n\n{_table(header, rows)}"


def _over_time(facts: Facts) -> str:
    found = facts.get("over_time", ())
    known = [row for row in found if row["figure"] is not None]
    if len(found) < 2:
        return ""
    if not known:
        return f"### Over time\n\n{NOT_KNOWN} in any of {len(found)} batches."
    names: dict[str, list[str]] = {}
    shown = {row["batch"]: row for row in found}
    for name, row in (
        ("first", found[0]),
        ("least", min(known, key=lambda row: row["figure"])),
        ("most", max(known, key=lambda row: row["figure"])),
        ("last", found[-1]),
    ):
        names.setdefault(row["batch"], []).append(name)
    rows = [
        [", ".join(why), batch, f"{row['rows']:,}", _figure(row["figure"]), _interval(row), _figure(row["baseline"])]
        for batch, why in names.items()
        for row in (shown[batch],)
    ]
    missing = len(found) - len(known)
    told = f"{facts['metric']} in {len(found)} batches" + (f", {missing} of them {NOT_KNOWN}" if missing else "")
    return f"### Over time\n\n{told}.\n\n" + _table(["", "batch", "rows", "model", "interval", "baseline"], rows)


def _importance(facts: Facts) -> str:
    found = facts.get("importance", ())
    rows = [[row["feature"], _figure(row["drop"]), _figure(row["spread"])] for row in found[:WORST]]
    if not rows:
        return ""
    return "### What the model owes to a feature\n\n" + _table(["feature shuffled", "worse by", "spread"], rows)


def _candidates(facts: Facts) -> str:
    """How the candidates stood when one of them was chosen (`evaluation.candidates.compare`)."""
    found = facts.get("candidates")
    if not found:
        return ""
    rows = []
    for row in found["rows"]:
        gain = [_figure(row["gain"]), _ends(row["gain_low"], row["gain_high"])] if not row["chosen"] else ["", ""]
        name = f"**{row['candidate']}**" if row["chosen"] else row["candidate"]
        rows.append([name, _figure(row[found["metric"]]), _interval(row), *gain, f"{row['parameters']:,}"])
    header = ["candidate", found["metric"], "interval", "gain over the one chosen", "its interval", "parameters"]
    return "### Candidates\n\n" + _table(header, rows)


SECTIONS: tuple[Callable[[Facts], str], ...] = (
    _metrics,
    _gates,
    _threshold,
    _classes,
    _over_time,
    _slices,
    _found,
    _importance,
    _candidates,
)
"""What the page says, from above to below."""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _figure(value: float | None) -> str:
    return NOT_KNOWN if _known(value) is None else f"{value:.4f}"


def _interval(row: Mapping[str, Any]) -> str:
    return _ends(row["low"], row["high"])


def _ends(low: float | None, high: float | None) -> str:
    return NOT_KNOWN if low is None or high is None else f"{low:.4f} to {high:.4f}"


def _known(value: float | None) -> float | None:
    return None if value is None or value != value else value
