#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Boot an unmodified Linux under godwit-vm and talk to its shell over the serial console.

Runs inside a lab node (real SVM). With --reference the same dialogue is held with QEMU on the
node's KVM: it tells a fault of the worker from a fault of the lab, the kernel or the initramfs.
Prints `PASS name`, `FAIL name reason` lines and how long each phase took.
"""

import argparse
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

KVM_CREATE_VM, KVM_CREATE_VCPU, KVM_GET_TSC_KHZ = 0xAE01, 0xAE41, 0xAEA3  # linux/kvm.h

# No XSAVE: QEMU's software CPU does not trap XSETBV for a nested hypervisor (docs/deploy/lab.md),
# and Linux warns of the inconsistency that follows.
CPU, REFERENCE_CPU = "x86-64-v2", "Nehalem"
BOOT_SECONDS = 240
COMMAND_SECONDS = 60
END_SECONDS = 90


def tsc_khz():
    """What KVM says of the TSC here."""
    fds = [os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)]
    try:
        fds.append(fcntl.ioctl(fds[0], KVM_CREATE_VM, 0))
        fds.append(fcntl.ioctl(fds[1], KVM_CREATE_VCPU, 0))
        return fcntl.ioctl(fds[2], KVM_GET_TSC_KHZ, 0)
    finally:
        for fd in reversed(fds):
            os.close(fd)


def cmdline():
    """The guest kernel's command line.

    quiet: every character on the console is an exit. No KASLR: the kernel stays where it was
    unpacked. TSC: on a software CPU an exit takes so long that measuring it against PIT and PM timer
    fails, and without a TSC it counts loops per tick for minutes. The rest spares seconds.
    """
    return (
        "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check audit=0 "
        f"random.trust_cpu=on tsc=reliable tsc_early_khz={tsc_khz()}"
    )


class Failure(Exception):
    """A check that failed: name and reason."""


def reference_args(opts, console, control):
    """QEMU in the place of godwit-vm."""
    return [
        "qemu-system-x86_64", "-accel", "kvm", "-cpu", REFERENCE_CPU, "-machine", "q35,usb=off",
        "-nodefaults", "-display", "none", "-m", "256", "-smp", "2", "-kernel", opts.kernel,
        "-initrd", opts.initrd, "-append", cmdline(),
        "-serial", f"unix:{console},server=on,wait=off",
        "-qmp", f"unix:{control},server=on,wait=off",
    ]


def worker_args(opts, console, control):
    """godwit-vm as a user would start it."""
    return [
        opts.godwit_vm, "--name", "lab-linux", "--memory", "256M", "--vcpus", "2",
        "--cpu", CPU, "--kernel", opts.kernel, "--initrd", opts.initrd, "--cmdline", cmdline(),
        "--console", f"unix:{console}", "--control", control,
    ]


def connect(path, process, seconds):
    """A connection to a Unix socket that the process is about to make."""
    deadline = time.monotonic() + seconds
    while True:
        conn = socket.socket(socket.AF_UNIX)
        try:
            conn.connect(path)
            return conn
        except OSError as error:
            conn.close()
            if process.poll() is not None:
                raise Failure(f"the worker ended with status {process.returncode}") from error
            if time.monotonic() > deadline:
                raise Failure(f"no socket {path} after {seconds} s: {error}") from error
            time.sleep(0.02)


class Vm:
    """One running worker and the dialogue on its console."""

    def __init__(self, opts, folder, name):
        self.reference = opts.reference
        self.control_path = os.path.join(folder, f"{name}.control")
        console_path = os.path.join(folder, f"{name}.console")
        make = reference_args if opts.reference else worker_args
        self.started = time.monotonic()
        self.log = open(os.path.join(folder, f"{name}.log"), "w+b")
        self.process = subprocess.Popen(
            make(opts, console_path, self.control_path),
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT,
        )
        self.seen = b""  # everything the console has said
        self.done = 0  # how much of it has been dealt with
        try:
            self.console = connect(console_path, self.process, 60)
        except Failure:
            self.close()
            raise

    def close(self):
        """End the worker if it still runs; show what it printed itself."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.log.seek(0)
        for line in self.log.read().decode(errors="replace").splitlines()[-20:]:
            print(f"worker: {line}")

    def read(self, seconds):
        """Take what the console says within this time; False at its end."""
        self.console.settimeout(seconds)
        try:
            data = self.console.recv(65536)
        except socket.timeout:
            return True
        except OSError:
            return False
        self.seen += data
        return bool(data)

    def expect(self, pattern, seconds, nudge=False):
        """Wait until the console has said the pattern; returns the match."""
        deadline = time.monotonic() + seconds
        nudge_at = time.monotonic() + 20
        while True:
            match = re.compile(pattern, re.S).search(self.seen, self.done)
            if match:
                self.done = match.end()
                return match
            if time.monotonic() > deadline:
                tail = self.seen[-3000:].decode(errors="replace")
                raise Failure(f"no {pattern!r} within {seconds} s; console: ...{tail!r}")
            if not self.read(0.5):
                raise Failure(f"the console closed before {pattern!r}: {self.seen[-3000:]!r}")
            if nudge and time.monotonic() > nudge_at:
                self.console.sendall(b"\n")  # what came before we were connected may be lost
                nudge_at = time.monotonic() + 20

    def shell(self, command, seconds=COMMAND_SECONDS):
        """Run a command in the guest's shell; returns (exit status, output)."""
        # The marks stand alone on their lines only in the output, not in the echo of the command.
        self.console.sendall(b"echo '<<'; " + command.encode() + b"; echo $?'>>'\n")
        match = self.expect(rb"\n<<\r?\n(.*?)(\d+)>>\r?\n", seconds)
        self.expect(rb"# ", seconds)
        return int(match[2]), match[1].decode(errors="replace").replace("\r", "")

    def control(self, command):
        """One request on the control socket; returns the answer."""
        with connect(self.control_path, self.process, 10) as conn:
            conn.settimeout(30)
            lines = conn.makefile("rw")
            if self.reference:
                lines.readline()
                for line in ('{"execute":"qmp_capabilities"}', '{"execute":"system_powerdown"}'):
                    print(line, file=lines, flush=True)
                    answer = lines.readline()
                return answer
            print(json.dumps({"id": 1, "cmd": command}), file=lines, flush=True)
            return lines.readline()

    def ended(self, seconds):
        """Wait for the worker's own end, reading on; returns its exit status."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                tail = self.seen[-3000:].decode(errors="replace")
                raise Failure(f"still running after {seconds} s; console: ...{tail!r}")
            if not self.read(0.2):
                time.sleep(0.1)
        return self.process.returncode


class Checks:
    """Names, results and times."""

    def __init__(self):
        self.failed = 0
        self.mark = time.monotonic()

    def lap(self, phase):
        """Print how long the phase took that ends now."""
        now = time.monotonic()
        print(f"time {phase}: {now - self.mark:.1f} s", flush=True)
        self.mark = now

    def that(self, name, good, reason=""):
        """One result line."""
        if not good:
            self.failed += 1
        print(f"PASS {name}" if good else f"FAIL {name} {reason}", flush=True)


def wait_for_shell(vm, checks, phase):
    """From the start of a boot to the first prompt."""
    match = vm.expect(rb"guest ready after (\S+) s|guest# ", BOOT_SECONDS, nudge=True)
    if match[1]:
        print(f"guest's own clock at the shell: {match[1].decode()} s")
        vm.expect(rb"# ", COMMAND_SECONDS)
    checks.lap(phase)


def look_at_hyperv(vm, checks):
    """The guest took us for Hyper-V and keeps its time by our page."""
    text = vm.shell("dmesg | grep -i -E 'hypervisor|hyper-v|clocksource'")[1]
    print(text.rstrip())
    checks.that("linux-hyperv-detected", "Hypervisor detected: Microsoft Hyper-V" in text, text)
    text = vm.shell("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")[1]
    checks.that("linux-hyperv-clock", text.strip() == "hyperv_clocksource_tsc_page", text)
    with open("/sys/devices/system/clocksource/clocksource0/current_clocksource") as own:
        print(f"the node's own clock source: {own.read().strip()}")


def look_around(vm, checks):
    """What a freshly booted guest must show."""
    status, text = vm.shell("nproc")
    checks.that("linux-nproc", (status, text.strip()) == (0, "2"), f"want 2: {text!r}")
    status, text = vm.shell("date +%s")
    off = abs(int(text) - time.time()) if text.strip().isdigit() else None
    checks.that("linux-date", off is not None and off < 120, f"{text!r} is {off} s off")
    status, text = vm.shell("uname -r")
    print(f"guest kernel: {text.strip()}")
    status, text = vm.shell("grep -m1 flags /proc/cpuinfo")
    flags = text.split()
    checks.that("linux-cpu-flags", "sse4_2" in flags and "xsave" not in flags, text)
    print(text.strip())
    if not vm.reference:
        look_at_hyperv(vm, checks)
    status, text = vm.shell("cat /proc/interrupts")
    print(text.rstrip())
    # Both CPUs must see ticks and, having been woken by each other, rescheduling calls.
    ticks = re.search(r"LOC:\s+(\d+)\s+(\d+)", text)
    checks.that("linux-timer-ticks", ticks and min(map(int, ticks.groups())) > 0, text)
    vm.shell("up() { cut -d. -f1 /proc/uptime; }")
    status, text = vm.shell("a=$(up); sleep 2; echo $(($(up) - a))")
    checks.that("linux-sleep", text.strip() in ("1", "2", "3", "4", "5"), f"2 s took {text!r}")
    bad = "BUG:|Oops|Call Trace|soft lockup|detected stall"
    status, text = vm.shell(f"dmesg | grep -E -B 9 -A 12 '{bad}'")
    checks.that("linux-no-oops", status == 1, text)
    checks.lap("commands in the shell")


def reboot_and_power_off(opts, folder, checks):
    """Boot, look, reboot in place, power off."""
    vm = Vm(opts, folder, "first")
    try:
        wait_for_shell(vm, checks, "first boot to the shell")
        look_around(vm, checks)
        boot_id = vm.shell("cat /proc/sys/kernel/random/boot_id")[1]
        vm.console.sendall(b"reboot -f\n")
        vm.expect(rb"reboot -f\r?\n", COMMAND_SECONDS)
        wait_for_shell(vm, checks, "reboot in place to the shell")
        again = vm.shell("cat /proc/sys/kernel/random/boot_id")[1]
        checks.that("linux-reboot", again != boot_id and vm.process.poll() is None, f"{again!r}")
        text = vm.shell("nproc")[1]
        checks.that("linux-nproc-after-reboot", text.strip() == "2", f"want 2: {text!r}")
        vm.console.sendall(b"poweroff -f\n")
        status = vm.ended(END_SECONDS)
        checks.that("linux-poweroff", status == 0, f"worker's exit status {status}, want 0")
        checks.lap("power off")
    finally:
        vm.close()


def power_button(opts, folder, checks):
    """Boot, press the ACPI power button; the guest powers itself off."""
    vm = Vm(opts, folder, "second")
    try:
        wait_for_shell(vm, checks, "second boot to the shell")
        text = vm.shell("cat /sys/class/input/event*/device/name")[1]
        checks.that("linux-power-button-device", "Power Button" in text, f"{text!r}")
        answer = vm.control("power-button")
        print(f"control answered: {answer.strip()}")
        status = vm.ended(END_SECONDS)
        said = b"power button pressed" in vm.seen
        why = f"exit status {status}, event seen: {said}"
        checks.that("linux-power-button", status == 0 and said, why)
        checks.lap("power button to the end")
    finally:
        vm.close()


def main():
    """Returns the exit status: 0 when every check passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--godwit-vm")
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--initrd", required=True)
    opts = parser.parse_args()
    checks = Checks()
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        for step in (reboot_and_power_off, power_button):
            try:
                step(opts, folder, checks)
            except (Failure, OSError) as error:
                checks.that(step.__name__.replace("_", "-"), False, str(error))
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
