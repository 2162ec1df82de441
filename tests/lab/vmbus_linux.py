#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A small Linux with the kernel's Hyper-V drivers as a guest, inside a lab node: see vmbus_linux.sh."""

import glob
import os
import subprocess
import sys
import time

from boot_linux import Checks, Failure
from debian import (COMMAND_SECONDS, END_SECONDS, FOLDER, GODWIT, GUEST, HOST, Debian, guarded,
                    guest_tells, load_lines, nic_args, run, setup_network)

INITRD = os.path.join(FOLDER, "initrd")
DISK = os.path.join(FOLDER, "small.vhdx")
BOOT_SECONDS = 600
# No boot begins later than this after the first one: on a busy machine each takes minutes.
START_SECONDS = 300
CMDLINE = ("console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check audit=0 "
           "random.trust_cpu=on")


def start(name, kernel, vcpus, *args):
    """A worker with our disk and card."""
    return Debian(name, "--disk", DISK, *nic_args(), "--kernel", kernel, "--initrd", INITRD,
                  "--cmdline", CMDLINE, *args, vcpus=vcpus, memory="256M")


def look_around(vm, checks, label, vcpus):
    """All processors are there, and both services carry."""
    shown = vm.shell("nproc")[1].strip()
    checks.that(f"{label}-nproc", shown == str(vcpus), shown)
    status, text = vm.shell(f"ping -c 3 {HOST}")
    checks.that(f"{label}-ping-host", status == 0, text)
    done = subprocess.run(["ping", "-c", "2", "-W", "5", GUEST], capture_output=True, text=True,
                          check=False)
    checks.that(f"{label}-ping-guest", done.returncode == 0, done.stdout)
    text = vm.shell("cat /sys/block/sda/device/vendor /proc/modules")[1]
    checks.that(f"{label}-storvsc", "Msft" in text and "hv_storvsc" in text, text)
    told = guest_tells(vm, lambda told: told["heartbeat"] == "ok" and told["shutdown"])
    checks.that(f"{label}-heartbeat", told["heartbeat"] == "ok", f"{told}")


def save_under_load(vm, checks, label, kernel, vcpus):
    """Save while the guest writes and verifies; the worker that goes on with it."""
    vm.console.sendall(b"load &\n")
    before = load_lines(vm, 3)
    vm.command("save", file=f"{label}.state")
    status = vm.ended(END_SECONDS)
    checks.that(f"{label}-save", status == 0, f"exit status {status}")
    vm.close()
    again = start(f"{label}-again", kernel, vcpus, "--restore", os.path.join(FOLDER, f"{label}.state"))
    try:
        after = load_lines(again, 3)
        checks.that(f"{label}-load-goes-on", after[0] > before[0] and after[2] == 0,
                    f"before {before}, after {after}")
        again.console.sendall(b"touch /tmp/stop\n")
        end = again.expect(rb"load: end bad=(\d+)", COMMAND_SECONDS)
        checks.that(f"{label}-load-verified", end[1] == b"0", f"{end[0]!r}")
        again.console.sendall(b"\n")
        again.expect(rb"# ", COMMAND_SECONDS)
        status, text = again.shell(f"ping -c 3 {HOST}")
        checks.that(f"{label}-ping-after-restore", status == 0, text)
    except Failure:
        again.dump()
        again.close()
        raise
    return again


def one_boot(index, kernel, vcpus, checks):
    """Boot and look; the first of each kind is saved under load and restored, too."""
    label = f"vmbus-{vcpus}-vcpus-{index + 1}"
    if os.path.exists(DISK):
        os.unlink(DISK)
    run(GODWIT, "disk", "create", "-q", DISK, "64M")
    vm = start(label, kernel, vcpus)
    try:
        match = vm.expect(rb"guest ready after (\S+) s", BOOT_SECONDS)
        vm.expect(rb"# ", COMMAND_SECONDS)
        checks.lap(f"boot {index + 1} with {vcpus} vCPUs (guest's clock: {match[1].decode()} s)")
        look_around(vm, checks, label, vcpus)
        if index == 0:
            vm = save_under_load(vm, checks, label, kernel, vcpus)
        bad = "BUG:|Oops|Call Trace|soft lockup|detected stall|I/O error"
        status, text = vm.shell(f"dmesg | grep -E -B 5 -A 12 '{bad}'")
        checks.that(f"{label}-no-oops", status == 1, text)
        answer = vm.command("shutdown")
        status = vm.ended(END_SECONDS)
        checks.that(f"{label}-shutdown", status == 0 and answer["by"] == "service",
                    f"exit status {status}, {answer}")
    except Failure:
        vm.dump()
        raise
    finally:
        vm.close()
    checks.lap("looking around and shutdown")


def main():
    """vmbus_linux.py [ROUNDS [VCPUS...]]"""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    kinds = [int(text) for text in sys.argv[2:]] or [1, 2, 4]
    kernel = sorted(path for path in glob.glob("/boot/vmlinuz-*-amd64") if "cloud" not in path)[-1]
    checks = Checks()
    setup_network()
    here = os.path.dirname(os.path.abspath(__file__))
    run(os.path.join(here, "vmbus_initramfs.sh"), kernel.removeprefix("/boot/vmlinuz-"), INITRD)
    began = time.monotonic()
    for index in range(rounds):
        for vcpus in kinds:
            name = f"vmbus-{vcpus}-vcpus-{index + 1}"
            if time.monotonic() - began > START_SECONDS:
                print(f"SKIP {name} the machine is too busy: the boots so far have used up the time")
                continue
            guarded(name, checks, one_boot, index, kernel, vcpus)
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
