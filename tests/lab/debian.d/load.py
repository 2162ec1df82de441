#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Verified disk load: stamped blocks at random places, read back past every cache.

usage: load FILE BLOCKS [SECONDS]      writes and reads until SECONDS have passed or SIGTERM comes,
                                       then reads every block back.

A block's content follows from its number and how often it was written; what it must be is known in
memory alone. Each line "load: ok ..." tells what was written and verified so far; "load: BAD ..."
what did not fit. Several writes are in flight at a time: one thread each.
"""
import mmap
import os
import random
import signal
import struct
import sys
import threading
import time

BLOCK = 4096
THREADS = 4


def content(number, generation):
    head = struct.pack("<QQ", number, generation)
    word = (number * 0x9E3779B97F4A7C15 + generation * 0xC2B2AE3D27D4EB4F) & (2**64 - 1)
    return head + struct.pack("<Q", word) * ((BLOCK - len(head)) // 8)


class Load:
    def __init__(self, path, blocks):
        self.path, self.blocks = path, blocks
        self.generation = [0] * blocks
        self.writes = self.reads = self.bad = 0
        self.stop = threading.Event()
        self.lock = threading.Lock()

    def complain(self, number, got):
        self.bad += 1
        print(f"load: BAD block {number} want generation {self.generation[number]} "
              f"got {struct.unpack('<QQ', got[:16])}", flush=True)

    def check(self, fd, page, number):
        os.preadv(fd, [page], number * BLOCK)
        if bytes(page) != content(number, self.generation[number]):
            self.complain(number, bytes(page))
        self.reads += 1

    def work(self, index):
        """A thread owns the blocks that leave its index at division."""
        rng = random.Random(index)
        fd = os.open(self.path, os.O_RDWR | os.O_DIRECT)
        page = mmap.mmap(-1, BLOCK)
        while not self.stop.is_set():
            number = rng.randrange(self.blocks // THREADS) * THREADS + index
            if rng.random() < 0.6:
                page[:] = content(number, self.generation[number] + 1)
                os.pwritev(fd, [page], number * BLOCK)
                self.generation[number] += 1
                self.writes += 1
                if rng.random() < 0.05:
                    os.fdatasync(fd)
            else:
                self.check(fd, page, number)
        os.close(fd)

    def report(self):
        print(f"load: ok writes={self.writes} reads={self.reads} bad={self.bad}", flush=True)

    def run(self, seconds):
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        for number in range(self.blocks):
            os.pwrite(fd, content(number, 0), number * BLOCK)
        os.fsync(fd)
        os.close(fd)
        threads = [threading.Thread(target=self.work, args=(i,)) for i in range(THREADS)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.stop.wait(1):
            self.report()
        self.stop.set()
        for thread in threads:
            thread.join()
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECT)
        page = mmap.mmap(-1, BLOCK)
        for number in range(self.blocks):
            self.check(fd, page, number)
        self.report()
        print(f"load: end bad={self.bad}", flush=True)
        return 1 if self.bad else 0


def main():
    load = Load(sys.argv[1], int(sys.argv[2]))
    signal.signal(signal.SIGTERM, lambda *_: load.stop.set())
    return load.run(float(sys.argv[3]) if len(sys.argv) > 3 else 1e9)


sys.exit(main())
