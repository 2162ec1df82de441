# SPDX-License-Identifier: Apache-2.0
"""What the comparisons with QEMU (migrate, mover) have in common: processes, their control sockets,
QEMU's settings, figures."""
import json
import os
import socket
import statistics
import subprocess
import time

WAIT_S = 300
MIB = 1 << 20
# What a setting's name stands for: capabilities, and parameters besides those of all.
SETTINGS = {
    "plain": ((), {}),
    "multifd": (("multifd",), {"multifd-channels": 2}),
    "multifd-zlib": (("multifd",), {"multifd-channels": 2, "multifd-compression": "zlib"}),
    "multifd-zstd": (("multifd",), {"multifd-channels": 2, "multifd-compression": "zstd"}),
    "xbzrle": (("xbzrle",), {}),
    "auto-converge": (("auto-converge",), {}),
    "postcopy": (("postcopy-ram",), {}),
}


class Failure(Exception):
    """A run that broke off."""


def wait_for(what, condition):
    """Until @condition() is true; its value."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise Failure(f"waited {WAIT_S} s for {what}")


def read_text(path):
    """What is there so far."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def cpu_seconds(pid):
    """Of a process that lives: all its threads, those that have ended too."""
    return time.clock_gettime((~pid << 3) | 2) # what clock_getcpuclockid() makes of it


class Lines:
    """A socket with a JSON object on each line."""

    def __init__(self, path, process):
        def connected():
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                link.connect(path)
                return link
            except OSError:
                link.close()
                if process.poll() is not None:
                    raise Failure(f"{path}: the process ended with {process.returncode}") from None
                return None

        self.link = wait_for(path, connected)
        self.link.settimeout(WAIT_S)
        self.file = self.link.makefile("rw", encoding="utf-8")

    def send(self, request):
        """One object."""
        self.file.write(json.dumps(request) + "\n")
        self.file.flush()

    def receive(self, wanted):
        """The next one for which @wanted is true."""
        for line in self.file:
            reply = json.loads(line)
            if wanted(reply):
                return reply
        raise Failure("the control socket was closed")

    def close(self):
        """Both."""
        self.file.close()
        self.link.close()


class Side:
    """A process with a guest, or one that waits for it."""

    def __init__(self, folder, arguments, console):
        self.folder, self.console = folder, console
        self.log = open(os.path.join(folder, "log"), "wb")
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        self.control = Lines(os.path.join(folder, "control"), self.process)

    def has(self, text):
        """Whether the guest has printed it."""
        said = read_text(self.console)
        if "BAD" in said or "FATAL" in said:
            raise Failure("the guest has found damage: " + said[-300:])
        return text in said

    def ready(self):
        """Its guest has written every page."""
        if self.process.poll() is not None:
            raise Failure("ended: " + read_text(os.path.join(self.folder, "log"))[-500:])
        return self.has("guest: ready")

    def end(self):
        """Nothing stays."""
        self.control.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()


class QemuProcess(Side):
    """A QEMU with a QMP socket. @arguments: besides what every one is given."""

    def __init__(self, folder, arguments, console=os.devnull, prefix=()):
        control = f"unix:{os.path.join(folder, 'control')},server=on,wait=off"
        super().__init__(folder, [*prefix, "qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot",
                                  "-qmp", control, *arguments], console)
        self.control.receive(lambda r: "QMP" in r)
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        """One command; its answer."""
        self.control.send({"execute": command, "arguments": arguments})
        reply = self.control.receive(lambda r: "return" in r or "error" in r)
        if "error" in reply:
            raise Failure(f"{command}: {reply['error']}")
        return reply["return"]

    def set_up(self, setting, goal_ms):
        """Before the clock starts."""
        names, parameters = SETTINGS[setting]
        self.ask("migrate-set-capabilities",
                 capabilities=[{"capability": name, "state": True} for name in (*names, "events")])
        self.ask("migrate-set-parameters", **{"downtime-limit": goal_ms, "max-bandwidth": 100 * 10**9, **parameters})

    def await_moved(self):
        """A source: blocks until it says that it is done."""
        reply = self.control.receive(
            lambda r: r.get("event") == "MIGRATION" and r["data"]["status"] in ("completed", "failed", "cancelled"))
        if reply["data"]["status"] != "completed":
            raise Failure(f"QEMU: {reply['data']['status']}")


def memory_backend(mib, path):
    """Arguments for guest memory in a file."""
    return ["-m", str(mib), "-object", f"memory-backend-file,id=ram,size={mib}M,mem-path={path},share=on,align=2M"]


def spread(values):
    """Median (smallest..largest)."""
    return f"{statistics.median(values):9.1f} ({min(values):.1f}..{max(values):.1f})"
