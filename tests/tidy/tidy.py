#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""House rules that a machine can check.  One line per finding: FILE:LINE: what, and what instead."""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDERS = ["base", "hypervisor", "migrate", "cluster", "csv", "smbstore", "agent", "tests"]
# Who may include whom; every folder may include itself.
ARROWS = {
    "base": set(),
    "hypervisor": {"base"},
    "migrate": {"base"},
    "cluster": {"base"},
    "csv": {"base"},
    "smbstore": {"base"},
    "agent": {"base", "hypervisor", "migrate", "cluster", "csv", "smbstore"},
    "tests": {"base", "hypervisor", "migrate", "cluster", "csv", "smbstore", "agent", "tests"},
}
# Within hypervisor/: the machine knows nothing of the bus and the devices on it.
PARTS = {
    "hypervisor": {"hypervisor/disk"},
    "hypervisor/disk": set(),
    "hypervisor/vmbus": {"hypervisor", "hypervisor/disk"},
    "hypervisor/storvsp": {"hypervisor", "hypervisor/disk", "hypervisor/vmbus"},
    "hypervisor/netvsp": {"hypervisor", "hypervisor/disk", "hypervisor/vmbus"},
    "hypervisor/ic": {"hypervisor", "hypervisor/disk", "hypervisor/vmbus"},
    "hypervisor/bootdisk": {"hypervisor", "hypervisor/disk"},
}
STORE_HEADER = "hypervisor/disk/store.h"  # the one header that csv and smbstore share with a sibling
FILE_LINES = 800
COLUMNS = 100
# Banned outside base/: what to use instead.
BANNED = {
    r"\bclock_gettime\s*\(": "base_clock_boot_ns() or base_clock_real_ns()",
    r"\bgettimeofday\s*\(": "base_clock_real_ns()",
    r"\btime\s*\(\s*NULL\s*\)": "base_clock_real_ns()",
    r"\b(u|nano|clock_nano)?sleep\s*\(": "base_sleep_ns()",
    r"\b(rand|random|drand48|getrandom)\s*\(": "base_random_bytes()",
    r"\bgetenv\s*\(": "a configuration key",
    r"\bstrcpy\s*\(|\bstrcat\s*\(|\bsprintf\s*\(": "snprintf()",
    r"\bgets\s*\(|\bstrtok\s*\(|\batoi\s*\(": "a bounded, reentrant call",
    r"(?<!base_)\bassert\s*\(": "base_assert(), which release builds keep",
}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")

findings = []


def find(path, line, text):
    findings.append(f"{path}:{line}: {text}")


def tracked():
    out = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard"],
                         capture_output=True, text=True, check=False).stdout
    names = out.split("\n") if out else []
    if not names:  # no repository: an unpacked archive
        for folder, _, files in os.walk(ROOT):
            if "/build" in folder or "/.git" in folder:
                continue
            names += [os.path.relpath(os.path.join(folder, f), ROOT) for f in files]
    return [n for n in names if n and os.path.isfile(os.path.join(ROOT, n))]


def strip_comments(text):
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    return re.sub(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"", blank, text, flags=re.S)


def check_includes(path, lines):
    folder = path.split("/")[0]
    if folder not in ARROWS:
        return
    for number, line in enumerate(lines, 1):
        match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if not match:
            continue
        target = match.group(1)
        top = target.split("/")[0]
        if "/" not in target:
            if folder != "tests":
                find(path, number, f'include "{target}": expected a path from the root')
            continue
        part = os.path.dirname(path)
        if top == folder and part in PARTS and os.path.dirname(target) != part \
                and os.path.dirname(target) not in PARTS[part]:
            find(path, number, f'include "{target}": arrow {part} -> {os.path.dirname(target)} is not in docs/architecture.md')
            continue
        if top == folder or top in ARROWS[folder]:
            if target.endswith("_priv.h") and os.path.dirname(target) != os.path.dirname(path) \
                    and folder != "tests":
                find(path, number, f'include "{target}": private to {os.path.dirname(target)}/')
            continue
        if folder in ("csv", "smbstore") and target == STORE_HEADER:
            continue
        find(path, number, f'include "{target}": arrow {folder} -> {top} is not in docs/architecture.md')


def check_source(path, text):
    lines = text.split("\n")
    folder = path.split("/")[0]
    if len(lines) - 1 > FILE_LINES:
        find(path, len(lines), f"{len(lines) - 1} lines, expected at most {FILE_LINES}")
    if "SPDX-License-Identifier: Apache-2.0" not in "\n".join(lines[:2]):
        find(path, 1, "expected an SPDX line")
    for number, line in enumerate(lines, 1):
        if len(line.expandtabs(8)) > COLUMNS:
            find(path, number, f"{len(line.expandtabs(8))} columns, expected at most {COLUMNS}")
    check_includes(path, lines)
    if folder in ("base", "tests"):
        return
    for number, line in enumerate(strip_comments(text).split("\n"), 1):
        for pattern, instead in BANNED.items():
            if re.search(pattern, line):
                find(path, number, f"'{re.search(pattern, line).group(0).strip()}': use {instead}")


def check_headers_documented(path, text):
    if not path.endswith(".h") or path.endswith("_priv.h") or path.startswith("tests/"):
        return
    head = text[:400]
    if head.count("/*") < 2:
        find(path, 1, "expected a file head: what it is, owning thread, invariants")


def check_decoders(sources):
    """Every public decoder of outside bytes is reached by a fuzz target."""
    fuzzers = "\n".join(t for p, t in sources.items() if p.startswith("tests/fuzz/"))
    for path, text in sources.items():
        if not path.endswith(".h") or path.startswith("tests/"):
            continue
        for name in re.findall(r"\b(\w+_decode)\s*\(", strip_comments(text)):
            if not re.search(rf"\b{name}\b", fuzzers):
                find(path, 1, f"{name}() has no fuzz target in tests/fuzz/")


def check_events(sources):
    path = "docs/events.md"
    listed = ""
    if os.path.exists(os.path.join(ROOT, path)):
        listed = open(os.path.join(ROOT, path), encoding="utf-8").read()
    for source, text in sources.items():
        if source.startswith("tests/") or not source.endswith(".c"):
            continue
        for match in re.finditer(r"\bbase_log\s*\(\s*\w+\s*,\s*\"([^\"]+)\"", text):
            if f"`{match.group(1)}`" not in listed:
                line = text[:match.start()].count("\n") + 1
                find(source, line, f"event '{match.group(1)}' is not in {path}")


def check_stems(names):
    seen = {}
    for name in names:
        if not name.endswith(".c") or name.split("/")[0] not in FOLDERS:
            continue
        stem = os.path.basename(name)[:-2]
        if stem in seen:
            find(name, 1, f"stem '{stem}' is also {seen[stem]}: stems are unique in the tree")
        seen[stem] = name


def main():
    names = tracked()
    sources = {}
    for name in names:
        full = os.path.join(ROOT, name)
        if name.endswith((".c", ".h", ".S")) and name.split("/")[0] in FOLDERS:
            sources[name] = open(full, encoding="utf-8").read()
        elif name.endswith((".sh", ".py", ".cmake")) or os.path.basename(name) == "CMakeLists.txt":
            head = open(full, encoding="utf-8").read(300)
            if "SPDX-License-Identifier: Apache-2.0" not in head:
                find(name, 1, "expected an SPDX line")
        if name.endswith((".c", ".h", ".S", ".sh", ".md")) and not name.startswith("tests/tidy/"):
            for number, line in enumerate(open(full, encoding="utf-8"), 1):
                if UNFINISHED.search(line):
                    find(name, number, "unfinished work is an issue, not a comment")
    for path, text in sources.items():
        check_source(path, text)
        check_headers_documented(path, text)
    check_decoders(sources)
    check_events(sources)
    check_stems(names)
    for line in findings:
        print(line)
    print(f"tidy: {len(sources)} sources, {len(findings)} findings")
    return 1 if findings else 0


sys.exit(main())
