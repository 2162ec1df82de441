#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Debian 12 as a guest of godwit-vm, inside a lab node: see debian.sh.

Prints `PASS name`, `FAIL name reason` lines, how long boots took, and what the worker says of its
devices when a guest stalls.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from boot_linux import CPU, Checks, Failure, Vm, connect

IMAGE = os.environ.get("DEBIAN_IMAGE", "")
WORKER, GODWIT = os.environ["GODWIT_VM"], os.environ["GODWIT"]
FOLDER = "/run/debian"
BASE = os.path.join(FOLDER, "debian.vhdx")
HOST, GUEST, PORT = "10.99.0.1", "10.99.0.2", 7000
LOGIN_SECONDS = 600
COMMAND_SECONDS = 180
END_SECONDS = 300


def run(*command):
    """A command of the node's; its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Debian(Vm):
    """One running guest and the dialogue on its console."""

    def __init__(self, name, *args, vcpus=1, memory="384M"):  # pylint: disable=super-init-not-called
        self.reference = False
        self.name = name
        self.control_path = os.path.join(FOLDER, f"{name}.control")
        console_path = os.path.join(FOLDER, f"{name}.console")
        self.started = time.monotonic()
        self.log = open(os.path.join(FOLDER, f"{name}.log"), "w+b")
        self.process = subprocess.Popen(
            [WORKER, "--name", name, "--memory", memory, "--vcpus", str(vcpus), "--cpu", CPU,
             "--state-dir", FOLDER, "--console", f"unix:{console_path}",
             "--control", self.control_path, *args],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT,
        )
        self.seen = b""
        self.done = 0
        try:
            self.console = connect(console_path, self.process, 120)
        except Failure:
            self.close()
            raise

    def shell(self, command, seconds=COMMAND_SECONDS):
        """As its parent, with more patience."""
        return super().shell(command, seconds)

    def command(self, cmd, **arguments):
        """A control command; its result, or Failure."""
        with connect(self.control_path, self.process, 10) as conn:
            conn.settimeout(300)
            lines = conn.makefile("rw")
            print(json.dumps({"id": 1, "cmd": cmd, **arguments}), file=lines, flush=True)
            answer = json.loads(lines.readline() or "{}")
        if not answer.get("ok"):
            raise Failure(f"{cmd}: {answer}")
        return answer["result"]

    def dump(self):
        """What one looks at when a guest has stalled."""
        for cmd in ("status", "devices", "dump"):
            try:
                result = self.command(cmd)
                print(f"--- {cmd}\n{result.get('text') or json.dumps(result)}", flush=True)
            except (Failure, OSError, ValueError) as failure:
                print(f"--- {cmd}: {failure}", flush=True)

    def login(self, seconds=LOGIN_SECONDS):
        """Wait for the login prompt (seconds since the start of the worker), then for the shell."""
        self.expect(rb"login:", seconds)
        took = time.monotonic() - self.started
        self.expect(rb":~# ", COMMAND_SECONDS)
        self.shell("stty cols 250; systemctl is-system-running --wait >/dev/null", LOGIN_SECONDS)
        return took


def overlay(name):
    """A differencing disk over the image: each boot writes into one of its own."""
    path = os.path.join(FOLDER, f"{name}.avhdx")
    if os.path.exists(path):
        os.unlink(path)
    run(GODWIT, "disk", "create", "-q", "-b", BASE, path)
    return path


def cloud_args():
    """The other kernel, from outside of the disk, with the command line of the disk's own entry."""
    with open(os.path.join(IMAGE, "cmdline"), encoding="ascii") as file:
        cmdline = file.read().strip()
    return ["--kernel", os.path.join(IMAGE, "cloud-kernel"),
            "--initrd", os.path.join(IMAGE, "cloud-initrd"), "--cmdline", cmdline]


def nic_args():
    return ["--nic", "bridge=br0,mac=02:00:00:00:00:02"]


def setup_image():
    """The image in a folder that can be written."""
    os.makedirs(FOLDER, exist_ok=True)
    if not os.path.exists(BASE):
        open(BASE, "wb").close()
        run("mount", "--bind", os.path.join(IMAGE, "debian.vhdx"), BASE)


def setup_network():
    """A bridge with the host's address, and the echo server."""
    os.makedirs(FOLDER, exist_ok=True)
    # With an address of its own: else it takes that of a port, and changes it when a worker goes.
    run("ip", "link", "add", "br0", "address", "02:00:00:00:00:01", "type", "bridge")
    run("ip", "addr", "add", f"{HOST}/24", "dev", "br0")
    run("ip", "link", "set", "br0", "up")
    server = socket.create_server((HOST, PORT))
    threading.Thread(target=serve, args=(server,), daemon=True).start()


def serve(server):
    """Send back what comes."""
    while True:
        conn = server.accept()[0]
        threading.Thread(target=echo, args=(conn,), daemon=True).start()


def echo(conn):
    with conn:
        while data := conn.recv(65536):
            conn.sendall(data)


def guest_tells(vm, what, seconds=COMMAND_SECONDS):
    """Ask the worker for what the guest tells until WHAT(it) holds; the last answer."""
    deadline = time.monotonic() + seconds
    while True:
        told = vm.command("guest")
        if what(told) or time.monotonic() > deadline:
            return told
        vm.read(0.5)


def shut_down(vm, checks, name):
    """From outside, by the integration service."""
    how = vm.command("shutdown")["by"]
    status = vm.ended(END_SECONDS)
    clean = b"reboot: Power down" in vm.seen
    checks.that(name, status == 0 and clean and how == "service", f"by {how}: exit status {status}, powered down: {clean}")
    return clean


def look_around(vm, checks):
    """What a freshly booted Debian must show."""
    print("guest kernel:", vm.shell("uname -r")[1].strip())
    print(vm.shell("systemd-analyze; systemd-analyze blame | head -n 8")[1].rstrip())
    text = vm.shell("findmnt -n -o SOURCE / && cat /sys/block/sda/device/vendor && lsmod")[1]
    good = "/dev/sda2" in text and "Msft" in text and "hv_storvsc" in text and "hv_netvsc" in text
    checks.that("debian-root-on-storvsc", good, text)
    text = vm.shell("systemctl --failed --no-legend")[1]
    checks.that("debian-no-unit-failed", not text.strip(), text)
    status, text = vm.shell(f"ping -c 3 -i 0.3 {HOST}")
    checks.that("debian-ping-host", status == 0, text)
    status, text = vm.shell(f"talk {HOST} {PORT} 1000000", 240)
    checks.that("debian-tcp-echo", status == 0 and "talk: ok" in text, text)
    done = subprocess.run(["ping", "-c", "2", "-W", "5", GUEST], capture_output=True, text=True,
                          check=False)
    checks.that("debian-ping-guest", done.returncode == 0, done.stdout)
    told = guest_tells(vm, lambda told: told["heartbeat"] == "ok" and told["name"])
    checks.that("debian-heartbeat", told["heartbeat"] == "ok", f"{told}")
    checks.that("debian-kvp-name", told["name"] == "godwit-debian", f"{told}")
    print("guest tells:", json.dumps(told))
    bad = "BUG:|Oops|Call Trace|soft lockup|detected stall|I/O error"
    status, text = vm.shell(f"dmesg | grep -E -B 5 -A 12 '{bad}'")
    checks.that("debian-no-oops", status == 1, text)
    print("devices:", json.dumps(vm.command("devices")))


def load_lines(vm, count):
    """Read COUNT reports of the load; the last one's numbers."""
    for _ in range(count):
        match = vm.expect(rb"load: (ok writes=(\d+) reads=(\d+) bad=(\d+)|BAD[^\n]*)", COMMAND_SECONDS)
        if match[1].startswith(b"BAD"):
            raise Failure(match[1].decode())
    return int(match[2]), int(match[3]), int(match[4])


def save_under_load(vm, checks, disk):
    """Save while the guest writes and verifies, go on in a new worker, and read all back."""
    vm.console.sendall(b"load /root/load.bin 2048 &\n")
    before = load_lines(vm, 4)
    vm.command("save", file="loaded.state")
    status = vm.ended(END_SECONDS)
    checks.that("debian-save-under-load", status == 0, f"exit status {status}")
    vm.close()
    again = Debian("again", "--disk", disk, *nic_args(), "--restore",
                   os.path.join(FOLDER, "loaded.state"))
    try:
        after = load_lines(again, 5)
        good = after[0] > before[0] and after[1] > before[1] and after[2] == 0
        checks.that("debian-load-goes-on", good, f"before {before}, after {after}")
        again.console.sendall(b"kill %1\n")
        end = again.expect(rb"load: end bad=(\d+)", 240)
        checks.that("debian-load-verified", end[1] == b"0", f"{end[0]!r}")
        again.console.sendall(b"\n")
        again.expect(rb"# ", COMMAND_SECONDS)
        text = again.shell("date +now=%s")[1]
        off = int(text.split("now=")[-1].split()[0]) - time.time()
        checks.that("debian-clock-after-restore", abs(off) < 3, f"{off} s off")
        status, text = again.shell(f"ping -c 3 -i 0.3 {HOST}")
        checks.that("debian-ping-after-restore", status == 0, text)
        checks.lap("save and restore under load")
        shut_down(again, checks, "debian-shutdown")
    except Failure:
        again.dump()
        raise
    finally:
        again.close()


def first_guest(checks):
    """All that takes a guest, with one boot."""
    disk = overlay("first")
    vm = Debian("first", "--disk", disk, *nic_args())
    try:
        print(f"time boot to login, 1 vCPU: {vm.login():.1f} s", flush=True)
        look_around(vm, checks)
        checks.lap("first boot and a look around")
        save_under_load(vm, checks, disk)
    except Failure:
        vm.dump()
        raise
    finally:
        vm.close()


def boots(rounds, vcpus, checks):
    """Boot again and again: none may stall."""
    for count in vcpus:
        times = []
        for index in range(rounds):
            vm = Debian(f"boot{count}", "--disk", overlay(f"boot{count}"), *nic_args(),
                        vcpus=count)
            try:
                times.append(vm.login())
                shown = vm.shell("nproc")[1].strip()
                if shown != str(count):
                    raise Failure(f"nproc says {shown}")
                if not shut_down(vm, checks, f"debian-boot-{count}-vcpus-{index + 1}"):
                    vm.dump()
            except Failure as failure:
                vm.dump()
                checks.that(f"debian-boot-{count}-vcpus-{index + 1}", False, str(failure))
            finally:
                vm.close()
        text = ", ".join(f"{seconds:.1f}" for seconds in times)
        checks.lap(f"{rounds} boots with {count} vCPUs (to login: {text} s)")


def cloud_guest(checks):
    """A kernel that nobody tuned for."""
    vm = Debian("cloud", "--disk", overlay("cloud"), *nic_args(), *cloud_args())
    try:
        print(f"time boot to login, cloud kernel: {vm.login():.1f} s", flush=True)
        text = vm.shell("uname -r")[1]
        checks.that("debian-cloud-kernel", "cloud" in text, text)
        status, text = vm.shell(f"ping -c 2 -i 0.3 {HOST}")
        checks.that("debian-cloud-ping", status == 0, text)
    finally:
        vm.process.send_signal(signal.SIGTERM)
        vm.close()
    checks.lap("cloud kernel")


def installer_guest(checks):
    """Another: a user land of its own, to its first screen."""
    vm = Debian("installer", "--disk", overlay("installer"), *nic_args(), "--kernel",
                os.path.join(IMAGE, "installer-kernel"), "--initrd",
                os.path.join(IMAGE, "installer-initrd"), "--cmdline",
                "console=ttyS0 quiet mitigations=off nokaslr random.trust_cpu=on DEBIAN_FRONTEND=text",
                memory="1280M") # with less it asks about low memory first
    try:
        vm.expect(rb"Select a language|Choose the language", LOGIN_SECONDS)
        checks.that("debian-installer-first-screen", True)
    finally:
        vm.process.send_signal(signal.SIGTERM)
        vm.close()
    checks.lap("installer")


def guarded(name, checks, part, *args):
    """One part's failure does not hide the others."""
    try:
        part(*args, checks)
    except (Failure, OSError, ValueError) as failure:
        checks.that(name, False, str(failure))


def main():
    """debian.py [ROUNDS [VCPUS...]]; DEBIAN_ONLY: of first, boots, cloud, installer, with commas."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    vcpus = [int(text) for text in sys.argv[2:]] or [1, 2, 4]
    only = (os.environ.get("DEBIAN_ONLY") or "first,boots,cloud,installer").split(",")
    checks = Checks()
    setup_image()
    setup_network()
    if "first" in only:
        guarded("debian-first", checks, first_guest)
    if "boots" in only:
        guarded("debian-boots", checks, boots, rounds, vcpus)
    if "cloud" in only:
        guarded("debian-cloud", checks, cloud_guest)
    if "installer" in only:
        guarded("debian-installer", checks, installer_guest)
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
