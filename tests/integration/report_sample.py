#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a worker would tell of a move of 8 GiB that was cut off once, throttled and ended by post-copy.

usage: report_sample.py FILE.json
"""
import json
import random
import sys

MS = 1000000
MIB = 1 << 20
PHASES = {"pause_ns": 1.9, "last_round_ns": 31.4, "state_ns": 4.2, "let_go_ns": 0.6, "check_ns": 3.1,
          "commit_ns": 8.8, "activate_ns": 11.7}


class Move:
    """Samples, rounds and marks as time passes."""

    def __init__(self):
        self.now = self.sent = self.dirty = self.faults = self.throttle = 0
        self.left = 8 << 30
        self.samples, self.rounds, self.marks = [], [], []

    def mark(self, what):
        self.marks.append({"what": what, "at_ns": self.now})

    def sample(self):
        self.samples.append([self.now, self.sent, self.dirty, max(self.left, 0), self.faults, self.throttle])

    def copy(self):
        """Rounds, with no connection for 0.9 s."""
        begun, is_cut = self.now, False
        self.rounds.append([self.now, 0])
        while self.left > 60 * MIB or len(self.rounds) < 4:
            rate = 0 if 6000 * MS < self.now < 6900 * MS else 900 * MIB * random.uniform(0.9, 1.1)
            if is_cut != (rate == 0):
                is_cut = rate == 0
                self.mark("cut" if is_cut else "resumed")
            self.now += 80 * MS
            self.sent += int(rate * 0.08)
            self.left -= int(rate * 0.08)
            if self.left <= 0:
                self.left = int(220 * MIB * (self.now - begun) / 1e9 * (1 - self.throttle / 1000))
                self.dirty += self.left
                begun = self.now
                self.rounds.append([self.now, len(self.rounds)])
                if len(self.rounds) > 3:
                    self.throttle = min(800, self.throttle + 200)
            self.sample()

    def follow(self):
        """Pages that come when the guest runs there."""
        self.throttle = 0
        for i in range(20):
            self.now += 60 * MS
            self.faults += max(0, 400 - 20 * i)
            self.sent += 20 * MIB
            self.left = max(0, self.left - MIB)
            self.sample()


def main():
    random.seed(7)
    move = Move()
    move.left, left = 0, move.left
    move.mark("linking")
    move.sample()
    move.now = 60 * MS
    move.left = left
    move.mark("copying")
    move.copy()
    copied, blackout = move.now, int(sum(PHASES.values()) * MS)
    move.mark("pausing")
    move.now += blackout
    move.sent += 20 * MIB
    move.sample()
    move.mark("serving")
    move.follow()
    move.mark("moved")
    report = {"end": "moved", "to": "192.0.2.2:7011", "mode": "live", "epoch": 8, "total_ns": move.now, "queued_ns": 0,
              "prepare_ns": 60 * MS, "copy_ns": copied - 60 * MS, "blackout_ns": blackout,
              "rounds": len(move.rounds), "sent_bytes": move.sent, "pages": 2400000, "zero_pages": 310000,
              "lz4_pages": 1500000, "lz4_bytes": 1800 * MIB, "chunks": 90000, "resent_chunks": 12, "state_bytes": 91234,
              "cuts": 1, "cut_ns": 900 * MS, "again_bytes": 3 * MIB,
              "tls": {"cipher": "TLS_AES_128_GCM_SHA256", "peer": "host2", "kernel": True},
              "postcopy": {"owed_pages": 14000, "fault_pages": move.faults, "rest_pages": 14000 - move.faults,
                           "waits": move.faults, "wait_p50_ns": 210000, "wait_p99_ns": 1900000,
                           "wait_longest_ns": 7100000, "postcopy_ns": 1200 * MS}}
    report.update({key: int(value * MS) for key, value in PHASES.items()})
    told = {"form": 1, "name": "web1 <b>&", "from": "host1", "to": "192.0.2.2:7011", "over": True, "samples": move.samples,
            "rounds": move.rounds, "marks": move.marks, "lost_marks": 0,
            "throttle_permille_most": max(row[5] for row in move.samples), "report": report}
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        json.dump(told, out, separators=(",", ":"))


main()
