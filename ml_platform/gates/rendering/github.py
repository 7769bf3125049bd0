"""GitHub's workflow commands: a line in a log that becomes an annotation on the pull request.

Source: https://docs.github.com/actions/reference/workflow-commands-for-github-actions, and for what is escaped,
https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ml_platform.gates.rendering.finding import CheckedFile, Finding, findings


def render(pipeline: str, checked: Sequence[CheckedFile]) -> str:
    """One command a broken rule, one a rule that warns, and at the end a notice of how many files are accepted.

    GitHub shows ten errors and ten warnings of a step; the log has them all. So the files take turns: of each its
    worst rule comes before the second one of any.
    """
    turns = [
        (turn, place, _command(pipeline, file, finding))
        for place, file in enumerate(checked)
        for turn, finding in enumerate(findings(file.report))
    ]
    accepted = sum(file.report.accepted for file in checked)
    told = f"{accepted} of {len(checked)} files are accepted"
    notice = f"::notice title={_property(f'{pipeline}: the data gate')}::{_data(told)}"
    return "".join(f"{line}\n" for line in (*(line for _, _, line in sorted(turns)), notice))


def _command(pipeline: str, file: CheckedFile, finding: Finding) -> str:
    word = "rejected" if finding.level == "error" else "warning"
    title = f"{pipeline}: {file.subject} {word}: {', '.join(_named(finding))}"
    counts = f" ({finding.failures:,} of {finding.checked:,} rows)" if finding.failures else ""
    said = "" if not finding.rule or finding.rule in finding.text else f" Rule: {finding.rule}{counts}."
    message = f"{file.path}: {finding.text}{'.' if said else ''}{said}"
    return f"::{finding.level} file={_property(file.path)},title={_property(title)}::{_data(message)}"


def _named(finding: Finding) -> Iterator[str]:
    yield finding.family
    if finding.column:
        yield f"column {finding.column}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
