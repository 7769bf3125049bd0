"""JUnit's XML: one suite a file, one case a family of rules.

There is no standard; the elements and attributes are those that Jenkins, GitLab and GitHub's reporters read:
https://github.com/testmoapp/junitxml.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from ml_platform.gates.rendering.finding import CheckedFile, findings
from ml_platform.gates.report import FamilyResult

_NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")
"""Characters that no XML document may hold, escaped or not: https://www.w3.org/TR/xml/#charsets."""


def render(pipeline: str, checked: Sequence[CheckedFile]) -> str:
    """The whole document. What warns has passed, and its words are the case's output."""
    root = ET.Element("testsuites", name=f"ml-platform check {pipeline}")
    for file in checked:
        suite = ET.SubElement(root, "testsuite", name=_clean(file.subject), file=_clean(file.path))
        for family in file.report.families:
            _case(suite, pipeline, file, family)
        _count(suite, file.report.families)
    _count(root, [family for file in checked for family in file.report.families])
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _case(suite: ET.Element, pipeline: str, file: CheckedFile, family: FamilyResult) -> None:
    case = ET.SubElement(suite, "testcase", name=family.name, classname=_clean(f"{pipeline}.{file.report.feed}"))
    case.set("file", _clean(file.path))
    if family.status == "failed":
        first = f"{file.path}: {family.message}"
        failure = ET.SubElement(case, "failure", message=_clean(first), type=", ".join(family.codes))
        failure.text = _clean("\n".join(_lines(file, family)))
    elif family.status == "not reached":
        ET.SubElement(case, "skipped", message=_clean(family.message or "not reached"))
    elif family.status == "warned":
        ET.SubElement(case, "system-out").text = _clean(f"warning: {family.message}")


def _lines(file: CheckedFile, family: FamilyResult) -> list[str]:
    lines = [file.path]
    for finding in findings(file.report):
        if finding.family == family.name:
            rule = finding.rule or finding.family
            lines.append(
                f"column {finding.column or '-'}, rule {rule}, {finding.failures:,} of {finding.checked:,} rows"
            )
            lines.append(f"  {finding.text}")
    return lines


def _count(element: ET.Element, families: Sequence[FamilyResult]) -> None:
    statuses = [family.status for family in families]
    element.set("tests", str(len(statuses)))
    element.set("failures", str(statuses.count("failed")))
    element.set("skipped", str(statuses.count("not reached")))
    element.set("errors", "0")


def _clean(text: str) -> str:
    return _NOT_IN_XML.sub(lambda match: match.group().encode("unicode_escape").decode(), text)
