"""Finds Java, which Spark needs. Only the standard library: `make` runs this file before anything is installed.

    python3 -I ml_platform/java.py "$JAVA_HOME"

prints the Java it found, or what to install, and then ends with 1.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

OLDEST = 17
"""The first major version that PySpark 4 runs on."""

FIX = f"""install Java {OLDEST} or later:
    Debian, Ubuntu   sudo apt-get install -y openjdk-17-jre-headless   (where there is none: default-jre-headless)
    Fedora, RHEL     sudo dnf install -y java-21-openjdk-headless      (RHEL 8 and 9 have java-17-openjdk-headless too)
    macOS            brew install openjdk@17 && export JAVA_HOME="$(brew --prefix openjdk@17)"
  or point JAVA_HOME at one that is there already"""


@dataclass(frozen=True, kw_only=True)
class Java:
    """What was found: the path of `java`, its first line of version, and what is wrong with it ("" when nothing is)."""

    path: str = ""
    version: str = ""
    problem: str = ""


def find_java(java_home: str = "") -> Java:
    """The Java that Spark will use: the one in `java_home`, or else the first on the PATH."""
    named = f"{java_home}/bin/java"
    path = shutil.which(named) if java_home else shutil.which("java")
    if path is None:
        return Java(problem=f"JAVA_HOME is set, and there is no {named}" if java_home else "no java on the PATH")
    try:
        # Both streams: the version goes to stderr, and a shim without a Java behind it may speak on either.
        answer = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Java(path=path, problem=f"it does not start: {error}")
    text = (answer.stderr + answer.stdout).strip()
    found = re.search(r'version "(?:1\.)?(\d+)[^"]*"', text)
    if answer.returncode or found is None:
        return Java(path=path, problem=f"`java -version` ended with {answer.returncode}: {text[:200] or 'no output'}")
    if int(found[1]) < OLDEST:
        return Java(path=path, version=found[0], problem=f"it is Java {found[1]}, and Spark needs {OLDEST} or later")
    return Java(path=path, version=found[0])


def main(arguments: list[str]) -> int:
    """Print what was found. Returns the exit code."""
    java = find_java(arguments[0] if arguments else "")
    if not java.problem:
        sys.stdout.write(f"Java: {java.version} at {java.path}\n")
        return 0
    place = f" ({java.path})" if java.path else ""
    sys.stderr.write(f"Java {OLDEST} or later is needed, but {java.problem}{place}\n  fix: {FIX}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
