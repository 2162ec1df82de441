#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Migrations between two real processes, with a fault at each step: docs/tests/faults.md.

    faults.py [--long] [--only RE] [--jobs N] [--list] [--verbose]

Environment: FAULT_HOST and GODWIT, the programs.  PASS, FAIL and SKIP lines, as tests/run counts.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fault_case import Case, Run, set_loopback  # noqa: E402 pylint: disable=wrong-import-position

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))

SOURCE_STEPS = ["plan:0", "track:0", "dirty-get:0", "dirty-clear:0", "dirty-clear:5", "dirty-get:1", "image-harvest:0", "image-read:0",
                "hold:0", "held:0", "dirty-get:2", "state:0", "let-go:0", "let-gone:0", "promise:0",
                "promised:0", "give-up:0", "promise-end:0"]
DESTINATION_STEPS = ["prepare:0", "coming:0", "prepared:0", "image-write:0", "image-write:3", "check:0",
                     "images-named:0", "checked:0", "ask:0", "asked:0", "activate:0",
                     "activating:0", "active:0", "runs:0", "ran:0"]
# A frame: connection (0 control, 1 the first for data), way, type, how many before.
FRAMES = [(0, "forth", "open", 0), (0, "back", "opened", 0), (0, "forth", "plan", 0),
          (0, "back", "findings", 0), (1, "forth", "open", 0), (1, "back", "opened", 0),
          (0, "forth", "round", 0), (0, "forth", "round", 1), (1, "forth", "write", 0),
          (1, "forth", "write", 2), (1, "forth", "chunk", 0), (1, "forth", "chunk", 2),
          (1, "forth", "barrier", 0), (1, "forth", "barrier", 1), (0, "back", "round-done", 0),
          (0, "back", "round-done", 1), (0, "forth", "state", 0), (0, "forth", "sealed", 0),
          (0, "back", "ready", 0), (0, "forth", "ask", 0), (0, "back", "register", 0),
          (0, "forth", "commit", 0), (0, "back", "running", 0), (0, "forth", "bye", 0)]
# Only a migration that is cancelled comes there: where it is told so, and the step.
BACK_OUT = [("source", "take-back:0", ("destination", "check:0")),
            ("source", "promise-end:0", ("destination", "check:0")),
            ("destination", "leave:0", ("source", "let-gone:0"))]
# The VM runs, and nothing but a cut happens.  Not behind a confirmed round: it may be held the next
# moment, and let go of its disks.
WHILE_COPYING = ["source dirty-clear:5", "source dirty-get:1", "source image-read:0",
                 "destination image-write:0", "destination image-write:3", "round 1 before",
                 "round 1 behind", "data write 3 before", "data write 3 behind",
                 "data chunk 3 before", "data chunk 3 behind", "data barrier 1 before",
                 "data barrier 1 behind", "round-done 1 before"]
EACH = ["cut", "kill source", "kill destination"]


def rule(frame, place, what="stop"):
    index, way, kind, skip = frame
    return f"rule={index},{way},{kind},{skip},{place},{what}"


def frame_name(frame, place):
    index, _, kind, skip = frame
    return f"{'data ' if index else ''}{kind} {skip + 1} {place}"


def steps():
    """(name, steps, before), of each place where the fault can be."""
    for side, names in (("source", SOURCE_STEPS), ("destination", DESTINATION_STEPS)):
        for step in names:
            yield f"{side} {step}", {side: step}, None
    for side, step, (other, at) in BACK_OUT:
        yield f"{side} {step} (cancelled)", {side: step, other: at}, (other, "cancel")
    for frame in FRAMES:
        for place in ("before", "behind"):
            yield frame_name(frame, place), {"source": rule(frame, place)}, None


def rest():
    """The faults that are not combined with everything."""
    places = list(steps())
    hooks = [p for p in places if "rule=" not in p[1].get("source", "")]
    for name, at, before in places:
        for fault in ("kill both", "blink", "silence", "freeze source", "freeze destination", "cancel",
                      "give-up", "late"):
            yield Case(name, fault, at, before)
    for name, at, before in hooks:
        for side in ("source", "destination"):
            yield Case(name, f"full {side}", at, before)
            for skip in (0, 1, 3):
                yield Case(name, f"nomem {side} {skip}", at, before)
        for when in ("before", "after"):
            keys = {"destination": [f"lose-{when}=3"]}
            for fault in EACH:
                yield Case(f"{name}, answers lost {when}", fault, at, before, keys)
    for frame in FRAMES:
        for place in ("before", "behind"):
            yield Case(frame_name(frame, place), "flip", {"source": rule(frame, place, "flip")})
        if frame[0] == 1:
            yield Case(frame_name(frame, "before"), "slow", {"source": rule(frame, "before")})
    for when in ("before", "after"):
        for count in (1, 2, 5):
            yield Case(f"{count} answers lost {when}", "lost", {},
                       keys={"destination": [f"lose-{when}={count}"]})


def tls_cases():
    """The same over TLS, where a step and not a frame says when; and those who are not let in."""
    both = ("source", "destination")
    yield Case("tls: no fault", "none", {}, must="moved", tls=both)
    for name, at, before in steps():
        if "rule=" in at.get("source", ""):
            continue
        for fault in EACH + ["blink", "silence", "cancel", "freeze source", "freeze destination"]:
            yield Case(f"tls: {name}", fault, at, before, tls=both)
        for side in both:
            yield Case(f"tls: {name}", f"nomem {side} 0", at, before, tls=both)
    for side in both:
        yield Case(f"tls: {side} expects another host", "refused", {}, keys={side: ["peer=other"]},
                   must="stayed", tls=both)
        yield Case(f"tls: {side} only", "refused", {}, must="stayed", tls=(side,))


def resumed():
    """A cut is not the end, if the sides are back in time (docs/migrate/resume.md)."""
    keys = {side: ["resume=1500"] for side in ("source", "destination")}
    for name, at, before in steps():
        for fault in EACH + ["blink", "silence", "freeze source", "freeze destination"]:
            must = "moved" if name in WHILE_COPYING and fault in ("cut", "blink") else None
            yield Case(f"{name}, resumes", fault, at, before, keys, must)
        if "rule=" not in at.get("source", ""):
            must = "moved" if name in WHILE_COPYING else None
            yield Case(f"tls: {name}, resumes", "blink", at, before, keys, must,
                       tls=("source", "destination"))


# By post-copy: connection 4 is the one on which pages come that nobody asked for.  Whether one is asked for, on 3,
# before it comes on 4 is chance, and no step.
POST_STEPS = [("source", "hold:0"), ("source", "let-gone:0"), ("source", "promised:0"), ("source", "serve:0"),
              ("source", "served:0"), ("source", "give-up:0"), ("destination", "check:0"), ("destination", "activating:0"),
              ("destination", "runs:0"), ("destination", "ran:0")]
POST_FRAMES = [(0, "forth", "owed", 0), (4, "back", "lacks", 0),
               (4, "forth", "pages", 0), (4, "forth", "pages", 3), (4, "back", "got", 2), (0, "back", "complete", 0)]


def post_cases():
    yield Case("post-copy: no fault", "none", {}, must="moved", post=True)
    places = [(f"{side} {step}", {side: step}) for side, step in POST_STEPS]
    places += [(frame_name(frame, place), {"source": rule(frame, place)})
               for frame in POST_FRAMES for place in ("before", "behind")]
    for name, at in places:
        for fault in EACH + ["blink", "silence", "freeze source", "freeze destination"]:
            yield Case(f"post-copy: {name}", fault, at, post=True)
    for frame in POST_FRAMES:
        yield Case(f"post-copy: {frame_name(frame, 'behind')}", "flip", {"source": rule(frame, "behind", "flip")}, post=True)


def all_cases():
    yield Case("no fault", "none", {}, must="moved")
    for name, at, before in steps():
        for fault in EACH:
            yield Case(name, fault, at, before)
    yield from rest()
    yield from tls_cases()
    yield from resumed()
    yield from post_cases()


# What every run has.
SHORT = re.compile(
    r"^(no fault / none"
    r"|(source (let-gone|promised|give-up):0|destination (images-named|checked|asked|active):0"
    r"|data chunk 3 before|running 1 before) / (cut|kill source|kill destination)"
    r"|data write 3 before / slow|data write 1 behind / flip|sealed 1 behind / flip"
    r"|destination asked:0 / (freeze source|freeze destination|silence)"
    r"|destination check:0 / full destination|source promise:0 / full source"
    r"|destination activating:0 / nomem destination 0|source take-back:0 .cancelled. / kill source"
    r"|post-copy: (no fault / none|(source serve:0|destination ran:0) / (cut|kill source|kill destination))"
    r"|tls: (no fault / none|.* / refused|(source image-read:0|destination asked:0) / (cut|kill destination))"
    r"|(data chunk 3 before|round-done 1 behind|state 1 before|sealed 1 behind), resumes / cut"
    r"|data chunk 3 before, resumes / kill source"
    r"|5 answers lost (before|after) / lost)$")


def run_part(args, cases):
    """In namespaces of its own: every so manieth case."""
    set_loopback(True)
    worst = 0
    with tempfile.TemporaryDirectory(prefix="fault-") as folder:
        subprocess.run([os.path.join(ROOT, "deploy/tls-ca"), os.path.join(folder, "tls"), "source", "destination"],
                       check=True)
        for number, case in cases:
            for _ in range(5):  # on a machine that is busy a timeout may come first
                run = Run(case, number, args.host, args.cli, os.path.join(folder, str(number)))
                began = time.monotonic()
                why = run.execute()
                took = time.monotonic() - began
                reached = run.reached or not case.steps or case.fault == "flip"
                if why is not None or reached:
                    break
            if why is None and not reached:
                why = "the step was not reached"
            if why is None:
                print(f"PASS fault {case.title()}: {run.outcome} ({took:.1f} s)", flush=True)
            else:
                worst = 1
                print(f"FAIL fault {case.title()}: {why} ({took:.1f} s)", flush=True)
            if why is not None or args.verbose:
                print("".join(f"    {line}\n" for line in run.log), end="", flush=True)
    return worst


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only", default=".")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--part", type=int, default=-1)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    args.host = os.environ.get("FAULT_HOST", os.path.join(ROOT, "build/release/tests/fault_host"))
    args.cli = os.environ.get("GODWIT", os.path.join(ROOT, "build/release/godwit"))
    cases = [(number, case) for number, case in enumerate(all_cases())
             if (args.long or SHORT.match(case.title())) and re.search(args.only, case.title())]
    if args.list:
        for _, case in cases:
            print(case.title())
        return 0
    if args.part >= 0:
        return run_part(args, cases[args.part::args.jobs])
    if subprocess.run(["unshare", "--net", "--mount", "true"], check=False).returncode != 0:
        print("SKIP no namespaces can be made here")
        return 77
    parts = [subprocess.Popen(["unshare", "--net", "--mount", sys.executable, __file__,
                               *sys.argv[1:], "--jobs", str(args.jobs), "--part", str(part)])
             for part in range(args.jobs)]
    return max(part.wait() for part in parts)


if __name__ == "__main__":
    sys.exit(main())
