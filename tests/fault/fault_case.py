# SPDX-License-Identifier: Apache-2.0
"""One migration with a fault between two processes, what an operator does about it, and what must
hold in the end.  docs/tests/faults.md."""
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

TIMEOUT_MS = 300
LONGER_S = 1.0  # than the timeouts, three of them
PORT = 7011
FOLDER_BYTES = "48m"
STATES = {1: "all-here", 2: "activating", 3: "runs", 4: "left", 5: "promised", 6: "resolved", 7: "over",
          8: "coming"}
OWNERS = {1: "source", 2: "destination"}


class Bad(Exception):
    """What must not happen."""


class Host:
    """One side's process."""

    def __init__(self, program, side, args, log):
        self.side = side
        self.log = log
        self.lines = []
        self.news = threading.Condition()
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen([program] + args, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def note(self, text):
        self.log.append(f"{time.monotonic() % 1000:8.3f} {self.side}: {text}")

    def read(self):
        for raw in self.process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self.note(line)
            with self.news:
                self.lines.append(line)
                self.news.notify_all()
        self.process.wait()
        self.note(f"exit {self.process.returncode}")
        with self.news:
            self.news.notify_all()

    def send(self, line):
        self.note(f"< {line}")
        try:
            self.process.stdin.write((line + "\n").encode())
            self.process.stdin.flush()
        except (BrokenPipeError, OSError):
            pass

    def seen(self, *starts):
        with self.news:
            return [line for line in self.lines if line.startswith(starts)]

    def is_over(self):
        return self.process.poll() is not None and not self.reader.is_alive()

    def wait(self, seconds, *starts):
        """The first line that begins so, or None: it has not come, or the process is over."""
        end = time.monotonic() + seconds
        with self.news:
            while True:
                for line in self.lines:
                    if line.startswith(starts):
                        return line
                left = end - time.monotonic()
                if left <= 0 or self.process.poll() is not None and not self.reader.is_alive():
                    return None
                self.news.wait(min(left, 0.2))

    def tell(self, line, answer="ok"):
        """A command, and its answer."""
        count = len(self.seen(answer))
        self.send(line)
        end = time.monotonic() + 20
        while len(self.seen(answer)) == count and not self.is_over():
            if time.monotonic() > end:
                raise Bad(f"{self.side} does not answer '{line}'")
            with self.news:
                self.news.wait(0.02)
        found = self.seen(answer)
        return found[-1] if len(found) > count else ""

    def kill(self):
        if self.process.poll() is None:
            self.note("killed")
            self.process.kill()
        self.process.wait()
        self.reader.join()

    def runs(self):
        """It is alive, and its VM runs: nothing of a migration is left to be decided here."""
        if self.is_over():
            return False
        with self.news:
            last = ""
            for line in self.lines:
                if line.startswith(("running", "end ")):
                    last = line
                elif line == "ok move":
                    last = ""
            return last.startswith("running")

    def status(self):
        line = self.tell("status", "status")
        return {k: int(v) for k, v in (word.split("=") for word in line.split()[1:])}


def set_loopback(up):
    """The one network that both sides are on, for everybody in this namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 1 if up else 0)
        fcntl.ioctl(control, 0x8914, request)  # SIOCSIFFLAGS


def mount(folder):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"fault", folder.encode(), b"tmpfs", 0, f"size={FOLDER_BYTES}".encode()) < 0:
        raise OSError(ctypes.get_errno(), f"mount {folder}")


def unmount(folder):
    ctypes.CDLL(None).umount2(folder.encode(), 2)


class Case:
    """@steps: side -> NAME:SKIP or rule=TEXT; the fault comes when the first of them is reached,
    but with @before, a pair of side and command: that is said there, and the fault comes at the
    other one.  @keys: side -> further keys.  @post: by post-copy.  @tls: sides that speak TLS, with made-up certificates."""

    def __init__(self, name, fault, steps, before=None, keys=None, must=None, tls=(), post=False):
        self.name = name
        self.fault = fault
        self.steps = steps
        self.before = before
        self.keys = keys or {}
        self.must = must  # how it has to end, where that is certain
        self.tls = tls
        self.post = post

    def title(self):
        return f"{self.name} / {self.fault}"


class Run:  # pylint: disable=too-many-instance-attributes
    """A case, carried out."""

    def __init__(self, case, number, program, cli, folder):
        self.case = case
        self.number = number
        self.program = program
        self.cli = cli
        self.folder = folder
        self.log = []
        self.hosts = {}
        self.killed = set()
        self.decided = set()
        self.reached = False
        self.outcome = ""
        self.full = None

    # --- life ---

    def path(self, side):
        return os.path.join(self.folder, side)

    def start(self, side):
        keys = list(self.case.keys.get(side, []))
        step = self.case.steps.get(side)
        if step:
            keys.append(step if step.startswith("rule=") else f"step={step}")
        if side == "source":
            keys.append("create=1")
        if self.case.post:
            keys.append("post=1")
        if side in self.case.tls:
            keys.append("tls=" + os.path.join(os.path.dirname(self.folder), "tls", side))
        timeout = str(5000 if self.case.fault == "none" else TIMEOUT_MS)
        args = [side, self.path(side), os.path.join(self.folder, "witness"), str(PORT), timeout]
        self.hosts[side] = Host(self.program, side, args + keys, self.log)

    def boot(self, side, name=None):
        """Switch it on from its disk, as who starts a worker does; None: its records forbid it."""
        args = ["boot", self.path(side), os.path.join(self.folder, "witness")]
        host = Host(self.program, name or f"{side} (again)", args, self.log)
        if host.wait(20, "running"):
            return host
        if not host.seen("refused"):
            raise Bad(f"{side} is not started again, and says nothing")
        host.kill()
        return None

    def alive(self, side):
        return not self.hosts[side].is_over()

    # --- faults ---

    def go(self):
        for side in self.hosts:
            if self.alive(side):
                self.hosts[side].send("go")

    def fill(self, side):
        self.full = os.path.join(self.path(side), "filler")
        with open(self.full, "wb", buffering=0) as file:
            block = bytes(1 << 20)
            try:
                while True:
                    file.write(block)
            except OSError:
                pass
            try:
                while True:
                    file.write(block[:512])
            except OSError:
                pass

    def apply(self):  # pylint: disable=too-many-branches
        kind, _, side = self.case.fault.partition(" ")
        side, _, number = side.partition(" ")
        if kind in ("cut", "blink"):
            self.hosts["source"].tell("cut")
            if kind == "blink":
                self.hosts["source"].tell("heal")
            self.go()
            if kind == "cut":
                time.sleep(LONGER_S)
                if self.alive("source"):
                    self.hosts["source"].tell("heal")
        elif kind == "kill":
            for each in ("source", "destination") if side == "both" else (side,):
                self.killed.add(each)
                self.hosts[each].kill()
            self.go()
        elif kind == "silence":
            set_loopback(False)
            self.go()
            time.sleep(LONGER_S)
            set_loopback(True)
        elif kind == "freeze":
            self.hosts[side].process.send_signal(signal.SIGSTOP)
            self.hosts[side].note("stopped")
            self.go()
            time.sleep(LONGER_S)
            self.hosts[side].note("continued")
            self.hosts[side].process.send_signal(signal.SIGCONT)
        elif kind == "slow":
            time.sleep(2.5)
            self.go()
        elif kind == "full":
            self.fill(side)
            self.go()
            time.sleep(LONGER_S)
            os.unlink(self.full)
        elif kind == "nomem":
            self.hosts[side].tell(f"nomem {number}")
            self.go()
        elif kind in ("cancel", "give-up"):
            self.hosts["source" if kind == "cancel" else "destination"].tell(kind)
            self.go()
        elif kind == "late":  # both sides wait for as long as it takes
            time.sleep(LONGER_S)
            self.go()
        elif kind == "refused":  # the source is told so; who waits there goes on, until it is told
            if not self.hosts["source"].wait(10, "end failed"):
                raise Bad("the source does not hear that it is refused")
            if self.hosts["destination"].is_over():
                raise Bad("the destination has ended because of a stranger")
            self.hosts["destination"].tell("give-up")
        elif kind not in ("none", "flip", "lost"):
            raise ValueError(kind)

    def wait_step(self, sides):
        """The step of one of @sides, or the end of what could come to it."""
        end = time.monotonic() + 20
        over = None
        while time.monotonic() < end:
            for side in sides:
                if self.hosts[side].seen("at "):
                    return side
            if over is None and (self.hosts["source"].seen("end ") or not self.alive("source")):
                over = time.monotonic()
            if over is not None and time.monotonic() > over + 2:  # the other side hears of it
                return None
            time.sleep(0.004)
        raise Bad("neither the step nor an end")

    def move(self):
        for side in ("destination", "source"):
            self.start(side)
        if not self.hosts["destination"].wait(20, "listening") or \
                not self.hosts["source"].wait(20, "running"):
            raise Bad("a side does not start")
        self.hosts["source"].send("move")
        sides = [s for s, step in self.case.steps.items() if not step.endswith("flip")]
        if self.case.before:
            side, command = self.case.before
            if self.wait_step([side]) is None:
                return
            self.hosts["source" if command == "cancel" else "destination"].tell(command)
            self.hosts[side].send("go")
            sides.remove(side)
        if sides and self.wait_step(sides) is None:
            return
        self.reached = True
        self.apply()

    # --- what comes of it ---

    def record(self, side):
        """(state, owner, epoch, epoch where it began), or None."""
        name = "vm.register" if side == "destination" else "vm.promise"
        try:
            with open(os.path.join(self.path(side), "state", name), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        if len(data) != 512:
            raise Bad(f"record {name}: {len(data)} bytes")
        return (STATES[data[7]], OWNERS[data[16]], struct.unpack_from("<Q", data, 8)[0],
                struct.unpack_from("<Q", data, 24)[0])

    def resolve(self, side, owner, word=False):
        args = [self.cli, "vm", "resolve", "--state-dir", os.path.join(self.path(side), "state"),
                "--name", "vm", "--owner", owner] + (["--other-is-dead"] if word else [])
        done = subprocess.run(args, capture_output=True, text=True, check=False)
        self.log.append(f"         operator at {side}: {owner}: exit {done.returncode} "
                        f"{(done.stdout + done.stderr).strip()}")
        self.decided.add(side)
        return done.returncode == 0

    def settled(self, side):
        host = self.hosts[side]
        return host.is_over() or host.runs()

    def settle(self, seconds):
        """Wait until both sides need nobody any more."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.settled("source") and self.settled("destination"):
                return True
            time.sleep(0.01)
        return False

    def runner(self):
        found = [side for side in self.hosts if self.hosts[side].runs()]
        if len(found) > 1:
            raise Bad("both sides run it")
        return found[0] if found else None

    def start_again(self, side):
        host = self.boot(side)
        if host is None:
            return False
        self.hosts[side] = host
        return True

    def give(self, side):
        """The operator has decided for @side: who waits there goes on, or it is started."""
        if self.alive(side):
            end = time.monotonic() + 10
            while not self.settled(side) and time.monotonic() < end:
                time.sleep(0.01)
            if not self.settled(side):
                raise Bad(f"{side} does not hear of the operator's decision")
        elif not self.start_again(side):
            raise Bad(f"{side} may not be started, after the operator's decision for it")

    def decide(self):  # pylint: disable=too-many-branches,too-many-return-statements
        """One look of an operator who follows docs/migrate/records.md, section 6; false: all is
        well."""
        here, there = self.record("source"), self.record("destination")
        running = self.runner()
        doubt = there is not None and there[0] == "all-here" and there[1] == "source" and \
            there[2] == there[3]
        if running == "source":
            if there is not None and there[1] == "destination":
                raise Bad("the source runs, and the register names the destination")
            if doubt and (self.alive("destination") or "destination" in self.killed):
                return self.resolve("destination", "there") and self.settle(10)
            return False
        if running == "destination":
            if here is not None and here[0] == "promised":
                return self.resolve("source", "there") and self.settle(10)
            return False
        if there is not None and there[0] in ("activating", "runs"):
            self.give("destination")
            return True
        if there is not None and there[1] == "destination":
            if self.alive("destination"):
                raise Bad("named, alive, and not running")
            if self.number % 2 == 0:
                self.give("destination")
                return True
            if not self.resolve("destination", "there"):
                raise Bad("what was not activated cannot be given back")
            return True
        if doubt and here is not None and here[0] == "promised" and self.number % 2 == 0:
            if not self.resolve("destination", "here", True):
                raise Bad("the operator may not take it")
            self.give("destination")
            return True
        if doubt:
            if not self.resolve("destination", "there"):
                raise Bad("a withdrawal is refused")
            return True
        if here is not None and here[0] == "promised" and \
                not self.resolve("source", "here", True):
            raise Bad("the operator may not take it back")
        self.give("source")
        return True

    def post_mend(self):
        """By post-copy, one worker is gone and the VM has begun to run: who manages it ends it where its pages
        cannot come, and starts it from its disks; a source that serves nobody is told so.  True: there was something."""
        if "source" in self.killed and self.alive("destination") and \
                self.hosts["destination"].runs() and self.hosts["destination"].status()["filling"] > 0:
            self.killed.add("destination")
            self.hosts["destination"].kill()
            return True
        there = self.record("destination")
        if "destination" in self.killed and "source" not in self.killed and there is not None and \
                there[0] in ("activating", "runs") and "source" not in self.decided:
            end = time.monotonic() + 10
            while self.alive("source") and not self.hosts["source"].runs() and time.monotonic() < end:
                self.hosts["source"].send("cancel")
                time.sleep(0.1)
            self.decided.add("source")
            return True
        return False

    def mend(self):
        """Nothing fails any more: it ends by itself where both live, else an operator looks."""
        by_itself = self.settle(2.5 if self.killed else 8)
        if self.case.post and self.killed:
            self.post_mend()
        if by_itself and self.runner() is not None and not self.killed:
            waits = self.record("source")
            if waits is not None and waits[0] == "promised":
                self.decide()
            return
        if not by_itself and not self.killed and self.runner() is None:
            raise Bad("both live, the fault is over, and nobody runs it")
        for _ in range(6):
            if not self.decide() and not (self.case.post and self.killed and self.post_mend()):
                return
        if self.runner() is None:
            raise Bad("an operator cannot bring it back")

    # --- what must hold ---

    def check_one(self, host):
        first = host.status()
        end = time.monotonic() + 10
        while True:
            status = host.status()
            if status["verified"] == 1 and status["writes"] > first["writes"] + 20:
                break
            if time.monotonic() > end:
                raise Bad(f"it does not go on: {status}")
            time.sleep(0.02)
        self.check_witness(status)

    @staticmethod
    def check_witness(status):
        for what in ("twice", "bad_pages", "bad_records"):
            if status[what] != 0:
                raise Bad(f"{what}: {status[what]}")

    def check_files(self, owner):
        other = "source" if owner == "destination" else "destination"
        files = [name for name in os.listdir(self.path(other)) if name != "state" and
                 not name.endswith(".lease")]
        # A dead destination's images are found at the next start, and an old image that an operator
        # has given up is his.
        if files and other not in self.killed and other not in self.decided:
            raise Bad(f"{other} has left {files}")
        files = sorted(name for name in os.listdir(self.path(owner)) if name != "state" and
                       not name.endswith(".lease"))
        if files != ["disk.vhdx"]:
            raise Bad(f"{owner} has {files}")
        states = [name for side in (owner, other)
                  for name in os.listdir(os.path.join(self.path(side), "state"))
                  if name not in ("vm.register", "vm.promise")]
        if states:
            raise Bad(f"left among records: {states}")
        promise = self.record("source")
        if promise is not None and promise[0] == "promised":
            raise Bad("the promise is still there")

    def check(self):
        owner = self.runner()
        if owner is None:
            raise Bad("nobody runs it")
        self.check_one(self.hosts[owner])
        host = self.hosts[owner]
        host.tell("stop", "stopped")
        host.process.wait()
        other = "source" if owner == "destination" else "destination"
        self.hosts[other].kill()
        self.check_files(owner)
        again = self.boot(owner, f"{owner} (at last)")
        if again is None:
            raise Bad(f"{owner} may not be started again")
        self.check_witness(again.status())
        again.kill()
        twin = self.boot(other, f"{other} (as a twin)")
        if twin is not None:
            twin.kill()
            raise Bad(f"{other} may be started as well")
        self.outcome = "moved" if owner == "destination" else "stayed"
        if self.decided:
            self.outcome += " by hand"
        if self.case.must and self.case.must != self.outcome:
            raise Bad(f"{self.outcome}, expected {self.case.must}")

    def execute(self):
        """What went wrong, or None."""
        for side in ("source", "destination"):
            os.makedirs(self.path(side))
            mount(self.path(side))
        try:
            self.move()
            if self.case.fault == "lost" or self.reached or not self.case.steps:
                self.mend()
                self.check()
                for host in self.hosts.values():
                    if host.process.returncode == -signal.SIGABRT:
                        raise Bad(f"{host.side} aborted")
            return None
        except Bad as bad:
            return str(bad)
        finally:
            set_loopback(True)
            for host in self.hosts.values():
                host.kill()
            for side in ("source", "destination"):
                unmount(self.path(side))
            shutil.rmtree(self.folder, ignore_errors=True)
