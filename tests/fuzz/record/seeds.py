#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Seeds of the fuzz targets from a recording (record.sh).

usage: seeds.py LOG CORPUS

LOG has lines "record KIND NAME HEX" among others. For each kind of message, command, request, object or answer
the first and simplest one of its kind is taken, into CORPUS/<target>/boot-*, in the form that the target
takes (each target's own head says which). Seeds of an earlier recording go.

Page numbers are changed, as the targets' guests are smaller than the recorded one: in lists of pages each
becomes one of the few pages the target has for it.
"""
import collections
import pathlib
import struct
import sys

SEED_BYTES_MAX = 4096
RING_PAGE = 0x900  # vmbus_bus_fuzz.c: four pages for the ring to us, four for the one to the guest
DATA_PAGE = 0x100  # storvsp_vstor_fuzz.c: where data goes
RUNS_MAX = 16

MESSAGES = {3: "request-offers", 5: "open", 7: "close", 8: "gpadl-header", 9: "gpadl-body", 11: "gpadl-teardown",
            13: "relid-released", 14: "contact", 16: "unload", 22: "modify"}
NVSP = {1: "init", 100: "ndis-version", 101: "receive-buffer", 103: "revoke-receive", 104: "send-buffer",
        106: "revoke-send", 107: "rndis", 108: "rndis-complete", 125: "ndis-config", 133: "subchannel"}
RNDIS = {2: "init", 3: "halt", 4: "query", 5: "set", 6: "reset", 8: "keepalive"}
SERVICES = ("heartbeat", "shutdown", "time", "kvp", "vss")


def le16(data, at):
    return struct.unpack_from("<H", data, at)[0]


def le32(data, at):
    return struct.unpack_from("<I", data, at)[0]


def le64(data, at):
    return struct.unpack_from("<Q", data, at)[0]


class Packet:
    """A packet of a ring: descriptor, header, payload."""

    def __init__(self, data):
        self.data = data
        self.type = le16(data, 0)
        self.payload_at = le16(data, 2) * 8
        self.payload = data[self.payload_at:]

    def runs(self):
        """Address and length of each page's part, of a packet with page ranges."""
        runs = []
        at = 24
        for _ in range(le32(self.data, 20) if self.type == 9 else 0):
            length, offset = struct.unpack_from("<II", self.data, at)
            count = (offset + length + 4095) // 4096
            at += 8
            for pfn in struct.unpack_from(f"<{count}Q", self.data, at):
                part = min(4096 - offset, length)
                runs.append((pfn * 4096 + offset, part))
                length -= part
                offset = 0
            at += 8 * count
        return runs


class Seeds:
    def __init__(self):
        self.kept = collections.defaultdict(dict)  # target: name: bytes

    def add(self, target, name, data):
        """The shortest of a name is kept, of equal ones the first."""
        before = self.kept[target].get(name)
        if len(data) <= SEED_BYTES_MAX and (before is None or len(data) < len(before)):
            self.kept[target][name] = bytes(data)

    def write(self, corpus):
        for target, seeds in sorted(self.kept.items()):
            folder = corpus / target
            for old in folder.glob("boot-*"):
                old.unlink()
            for name, data in seeds.items():
                (folder / f"boot-{name}").write_bytes(data)
            print(f"{target}: {len(seeds)} seeds, {sum(map(len, seeds.values()))} bytes")


# --- the bus ---

def message_name(data):
    return MESSAGES.get(le32(data, 0), str(le32(data, 0)))


def gpadl_list(data):
    """Where the page list of a message begins: behind the range's head in a header."""
    return 28 if le32(data, 0) == 8 else 16


class Channel:
    """What was said about one channel, and in it, until it was closed."""

    def __init__(self):
        self.messages = []  # before it was opened
        self.open = None
        self.after = []
        self.packets = []

    def relid(self):
        return le32(self.open, 8)


def dialogues(lines):
    """Channels by the order in which they were opened; packets are told apart by channel names, which come in
    the same order as the opens of channels that nothing is known of yet."""
    channels = []
    by_relid = {}
    by_gpadl = {}
    for kind, name, data in lines:
        if kind != "message":
            continue
        what = le32(data, 0)
        if what == 8:
            by_relid.setdefault(le32(data, 8), Channel()).messages.append(data)
            by_gpadl[le32(data, 12)] = le32(data, 8)
        elif what == 9 and le32(data, 12) in by_gpadl:
            by_relid[by_gpadl[le32(data, 12)]].messages.append(data)
        elif what == 5:
            channel = by_relid.setdefault(le32(data, 8), Channel())
            if channel.open is None:
                channel.open = data
                channels.append(channel)
        elif what in (7, 11, 13, 22):
            by_relid.setdefault(le32(data, 8), Channel()).after.append(data)
    return channels


def record(what, data=b""):
    return bytes((what, len(data))) + data


def moved(data, relid_at=8):
    """The same message about channel 1."""
    out = bytearray(data)
    struct.pack_into("<I", out, relid_at, 1)
    return out


def page_messages(channel):
    """The page list of its rings, each page moved to the target's."""
    down = le32(channel.open, 24)
    gpadl = le32(channel.open, 16)
    index = 0
    for data in channel.messages:
        if le32(data, 12) != gpadl:
            continue
        out = moved(data) if le32(data, 0) == 8 else bytearray(data)
        for at in range(gpadl_list(data), len(data) - 7, 8):
            page = min(index, 3) if index < down else 4 + min(index - down, 3)
            struct.pack_into("<Q", out, at, RING_PAGE + page)
            index += 1
        yield bytes(out)


def ring_records(packets):
    """The packets as the guest would have put them into the ring, and the signal."""
    at = 0
    for data in packets:
        whole = data + struct.pack("<II", 0, at)
        if at + len(whole) > 3 * 4096:
            return
        for part in range(0, len(whole), 200):
            yield record(2, struct.pack("<H", 4096 + at + part) + whole[part:part + 200])
        at += len(whole)
        yield record(2, struct.pack("<HI", 0, at))
        yield record(1, struct.pack("<I", 0x10001))
        yield record(6)


def bus_seeds(seeds, lines):
    opening = {}
    for kind, _, data in lines:
        if kind == "message" and le32(data, 0) in (3, 14, 16):
            opening.setdefault(le32(data, 0), data)
    names = []
    packets = collections.defaultdict(list)
    for kind, name, data in lines:
        if kind == "packet":
            if name not in names:
                names.append(name)
            packets[name].append(data)
    shapes = set()
    for channel in dialogues(lines):
        shape = (len(channel.messages), le32(channel.open, 24))
        if shape in shapes:
            continue
        shapes.add(shape)
        out = b"\0" + record(0, opening[14]) + record(6) + record(0, opening[3]) + record(6)
        out += b"".join(record(0, m) for m in page_messages(channel))
        out += record(0, moved(channel.open)) + record(6)
        name = f"pages-{shape[0]}-{shape[1]}"
        after = b"".join(record(0, moved(m)) + record(6) for m in channel.after)
        seeds.add("vmbus_bus", name, out + after + record(0, opening.get(16, struct.pack("<II", 16, 0))))
    for name in names:
        channel = min((c for c in dialogues(lines)), key=lambda c: len(c.messages))
        out = b"\0" + record(0, opening[14]) + record(0, opening[3])
        out += b"".join(record(0, m) for m in page_messages(channel))
        out += record(0, moved(channel.open))
        kinds = {}
        for data in packets[name]:
            packet = Packet(data)
            if packet.runs():
                continue_at = (packet.type, len(packet.runs()))
            else:
                continue_at = (packet.type, packet.payload[:4])
            if len(data) <= 600:
                kinds.setdefault(continue_at, data)
        out += b"".join(ring_records(list(kinds.values())[:8])) + record(8)
        out += b"".join(record(0, moved(m)) for m in channel.after)
        seeds.add("vmbus_bus", f"ring-{name}", out)


def packet_seeds(seeds, lines):
    for kind, name, data in lines:
        if kind == "message":
            seeds.add("vmbus_packet", f"message-{message_name(data)}", data)
        elif kind == "packet":
            packet = Packet(data)
            runs = len(packet.runs())
            seeds.add("vmbus_packet", f"packet-{name}-{packet.type}-{min(runs, 3)}", data)


# --- storage ---

def storage_record(packet):
    """A packet as storvsp_vstor_fuzz.c takes it: kind, count, 64 bytes, runs."""
    runs = packet.runs()
    if len(runs) > RUNS_MAX:
        return None
    message = packet.payload[:64].ljust(64, b"\0")
    out = bytes((1 if packet.type == 9 else 0, len(runs))) + message
    for index, (gpa, length) in enumerate(runs):
        out += struct.pack("<IH", (DATA_PAGE + index) * 4096 + gpa % 4096, length)
    return out


def storage_seeds(seeds, lines):
    firsts = {}  # per channel: what it began with, then one of each command
    for kind, name, data in lines:
        if kind != "packet" or not name.startswith("scsi"):
            continue
        packet = Packet(data)
        operation = le32(packet.payload, 0)
        key = (operation,)
        if operation == 3:
            cdb = packet.payload[28:44]
            key = (operation, packet.payload[19], cdb[0], cdb[1:3] if cdb[0] in (0x12, 0x1a, 0x5a, 0x9e) else b"")
        entry = storage_record(packet)
        chosen = firsts.setdefault(name, {})
        if entry is not None and (key not in chosen or len(entry) < len(chosen[key])):
            chosen[key] = entry
    settle = bytes((2, 0)) + bytes(64)
    for name, chosen in firsts.items():
        setup = b"".join(e for k, e in chosen.items() if k[0] != 3)
        commands = [e for k, e in chosen.items() if k[0] == 3]
        for index in range(0, max(len(commands), 1), 10):
            part = b"".join(commands[index:index + 10])
            seeds.add("storvsp_vstor", f"{name}-{index // 10}", setup + settle + part + settle)


def command_seeds(seeds, lines):
    for kind, name, data in lines:
        if kind != "scsi":
            continue
        cdb, flags, attention, size, transfer = struct.unpack_from("<16sBBQI", data)
        parameters = data[30:]
        detail = cdb[1:3].hex() if cdb[0] in (0x12, 0x1a, 0x5a, 0x9e) else ""
        order = max(0, (size // 4096).bit_length() - 1)
        out = cdb + bytes((flags, attention, order)) + struct.pack("<I", transfer) + parameters
        seeds.add("scsi_cdb", f"{cdb[0]:02x}{detail}-{flags:02x}" + ("-attention" if attention else ""), out)


# --- network ---

def frame_name(frame):
    """What is in a frame: EtherType, then the protocol."""
    at = 12
    ethertype = int.from_bytes(frame[at:at + 2], "big")
    if ethertype == 0x8100:
        at += 4
    if ethertype == 0x0800 and len(frame) > at + 12:
        return f"ip4-{frame[at + 2 + 9]}"
    if ethertype == 0x86dd and len(frame) > at + 9:
        return f"ip6-{frame[at + 2 + 6]}"
    return f"{ethertype:04x}"


def information_kinds(data):
    """The kinds of a packet's per-packet information."""
    at = 8 + le32(data, 28)
    end = at + le32(data, 32)
    kinds = []
    while at + 12 <= end and le32(data, at) >= 12:
        kinds.append(str(le32(data, at + 4)))
        at += le32(data, at)
    return "+".join(kinds) or "none"


def network_seeds(seeds, lines):
    for kind, name, data in lines:
        if kind == "nvsp":
            what = NVSP.get(le32(data, 0), str(le32(data, 0)))
            detail = f"-{le32(data, 4)}-{'ranges' if le32(data, 8) == 0xffffffff else 'section'}"
            seeds.add("nvsp_message", what + (detail if what == "rndis" else ""), data)
        elif kind == "rndis" and name == "control":
            what = RNDIS.get(le32(data, 0), str(le32(data, 0)))
            detail = f"-{le32(data, 12):08x}" if what in ("query", "set") else ""
            seeds.add("rndis_message", what + detail, data)
        elif kind == "rndis" and name == "sent":
            frame = data[8 + le32(data, 8):]
            seeds.add("rndis_message", f"sent-{frame_name(frame)}-{information_kinds(data)}", data)
        elif kind == "rndis":
            seeds.add("rndis_message", f"received-{data[0]}-{frame_name(data[12:])}", data)


# --- integration services ---

def service_seeds(seeds, lines):
    for kind, name, data in lines:
        if kind != "ic" or len(data) < 28:
            continue
        service, what = name.split(":")
        service = int(service)
        packet = bytearray(data)
        packet[24] = 0  # the target's port is new: transaction 0
        if what == "negotiate":
            seeds.add("ic_answer", f"{SERVICES[service]}-negotiate", bytes((130 + service, 0)) + packet)
            continue
        body = packet[28:]
        asked = 0
        detail = ""
        if service == 0 and len(body) >= 8:
            asked = body[0]
            body[:8] = struct.pack("<Q", asked)
        elif service == 3 and len(body) >= 8:
            asked = body[4]
            detail = f"-{body[0]}-{body[1]}-{asked}"
        elif service == 4 and body:
            asked = body[0]
            detail = f"-{asked}"
        packet[28:] = body
        if le32(packet, 20) != 0:
            detail += f"-{le32(packet, 20):08x}"
        seeds.add("ic_answer", f"{SERVICES[service]}{detail}", bytes((service, asked)) + packet)


# --- the hypervisor's own interface ---

def hypervisor_seeds(seeds, lines):
    operations = {}
    for kind, _, data in lines:
        if kind == "msr":
            vp, msr, value = struct.unpack("<IIQ", data)
            if vp > 1:
                continue
            if value & 1 and value >> 12:  # a page: one that the target's guest has
                value = value & 0xfff | value >> 12 & 0x3fff << 12
            head = (0x80 if vp else 0) | (4 if msr >= 0x40000100 else 0)
            head += -head % 3  # a write
            if (head & 0x84) != ((0x80 if vp else 0) | (4 if msr >= 0x40000100 else 0)):
                continue
            operations.setdefault(("msr", vp, msr), struct.pack("<BBQQ", head, msr & 0xff, value, 0))
        elif kind == "call":
            control, given, _ = struct.unpack("<QQQ", data)
            operations.setdefault(("call", control), struct.pack("<BBQQ", 2, 0, control, given & 0x3ffffff))
    if operations:
        seeds.add("hyperv", "registers", b"\0" + b"".join(operations.values()))


def read_lines(path):
    lines = []
    with open(path, "rb") as log:
        for line in log:
            parts = line.split()
            if len(parts) == 4 and parts[0] == b"record":
                lines.append((parts[1].decode(), parts[2].decode(), bytes.fromhex(parts[3].decode())))
    return lines


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    lines = read_lines(sys.argv[1])
    print(f"{len(lines)} records: " + str(dict(collections.Counter(kind for kind, _, _ in lines))))
    seeds = Seeds()
    packet_seeds(seeds, lines)
    bus_seeds(seeds, lines)
    storage_seeds(seeds, lines)
    command_seeds(seeds, lines)
    network_seeds(seeds, lines)
    service_seeds(seeds, lines)
    hypervisor_seeds(seeds, lines)
    seeds.write(pathlib.Path(sys.argv[2]))


main()
