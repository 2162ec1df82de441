#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Disks and files for boot_forms.sh that no tool at hand makes.

boot_forms.py uki FILE VERSION CMDLINE LINUX INITRD     a unified kernel image
boot_forms.py gpt4k FILE ESP ROOT                       a GPT disk with sectors of 4096 bytes
"""
import binascii
import struct
import sys
import uuid

ALIGN = 512
SECTOR = 4096


def uki(path, version, cmdline, linux, initrd):
    sections = [(b".osrel", f'ID=os\nVERSION_ID={version}\nPRETTY_NAME="OS {version}"\n'.encode()),
                (b".cmdline", cmdline.encode() + b"\0"),
                (b".linux", open(linux, "rb").read()),
                (b".initrd", open(initrd, "rb").read())]
    head = bytearray(b"MZ" + bytes(58) + struct.pack("<I", 64))
    head += b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, len(sections), 0, 0, 0, 240, 0x22) + bytes(240)
    offset = 1024
    table, body = b"", b""
    for name, data in sections:
        raw = -(-len(data) // ALIGN) * ALIGN
        table += struct.pack("<8sIIIIIIHHI", name, len(data), offset, raw, offset, 0, 0, 0, 0, 0x40000040)
        body += data + bytes(raw - len(data))
        offset += raw
    with open(path, "wb") as out:
        out.write(bytes(head + table).ljust(1024, b"\0") + body)


def gpt4k(path, esp, root):
    types = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "0fc63daf-8483-4772-8e79-3d69d8477de4")
    parts = [open(esp, "rb").read(), open(root, "rb").read()]
    first = 256
    entries, at = b"", first
    for kind, data in zip(types, parts):
        count = len(data) // SECTOR
        entries += uuid.UUID(kind).bytes_le + uuid.uuid4().bytes_le + struct.pack("<QQQ", at, at + count - 1, 0) + bytes(72)
        at += count
    entries = entries.ljust(128 * 128, b"\0")
    table = len(entries) // SECTOR
    last = at + table + 1

    def header(here, other, where):
        body = b"EFI PART" + struct.pack("<IIIIQQQQ", 0x10000, 92, 0, 0, here, other, first, at - 1)
        body += bytes(16) + struct.pack("<QIII", where, 128, 128, binascii.crc32(entries))
        return (body[:16] + struct.pack("<I", binascii.crc32(body)) + body[20:]).ljust(SECTOR, b"\0")

    mbr = bytes(446) + struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, last) + bytes(48) + b"\x55\xaa"
    with open(path, "wb") as out:
        out.write(mbr.ljust(SECTOR, b"\0") + header(1, last, 2) + entries)
        out.seek(first * SECTOR)
        for data in parts:
            out.write(data)
        out.write(entries + header(last, 1, at))


def main(argv):
    {"uki": uki, "gpt4k": gpt4k}[argv[1]](*argv[2:])


if __name__ == "__main__":
    main(sys.argv)
