#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# disks.sh: makes the seeds of bootdisk_parts and bootdisk_fat with the tools that people partition and
# format disks with: what is not zero of a disk, as records of tests/fuzz/fuzz_disk.h. Needs sfdisk (fdisk),
# mkfs.fat (dosfstools), mtools. The same tools give the same seeds.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
corpus=$here/../corpus
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export MTOOLS_SKIP_CHECK=1 SOURCE_DATE_EPOCH=1700000000

seed() { # seed TARGET NAME IMAGE HEAD-IN-HEX: the image's runs that are not zero, behind a head
	mkdir -p "$corpus/$1"
	python3 - "$3" "$corpus/$1/$2" "$4" <<-'P'
		import struct, sys
		image, out, head = sys.argv[1:]
		data = open(image, "rb").read()
		seed = bytes.fromhex(head)
		step = 16
		at = 0
		while at < len(data):
		    if not any(data[at:at + 4096]):
		        at += 4096
		        continue
		    if not any(data[at:at + step]):
		        at += step
		        continue
		    end = at
		    while end < len(data) and any(data[end:end + step]) and end - at < 32768:
		        end += step
		    seed += struct.pack("<IH", at, end - at) + data[at:end]
		    at = end
		open(out, "wb").write(seed)
	P
}

sectors() { # sectors IMAGE BYTES-PER-SECTOR: their number as two bytes
	local count=$(($(stat -c %s "$1") / $2))
	printf '%02x%02x' $((count & 255)) $((count >> 8))
}

table() { # table NAME FLAGS BYTES-PER-SECTOR <SCRIPT: a partition table on 4 MiB
	truncate -s 0 "$work/disk"
	truncate -s 4M "$work/disk"
	sfdisk --quiet --no-tell-kernel "$work/disk"
	[[ $3 == 512 ]] || widen "$work/disk"
	seed bootdisk_parts "$1" "$work/disk" "$2$(sectors "$work/disk" "$3")"
}

widen() { # widen IMAGE: table and GPT to sectors of 4096 bytes; the target makes checksums right
	cp "$1" "$work/narrow"
	truncate -s 0 "$1"
	truncate -s 4M "$1"
	dd if="$work/narrow" of="$1" bs=512 count=1 conv=notrunc status=none
	dd if="$work/narrow" of="$1" bs=512 skip=1 seek=8 count=1 conv=notrunc status=none
	dd if="$work/narrow" of="$1" bs=512 skip=2 seek=16 count=2 conv=notrunc status=none
}

UUIDS="label-id: 11111111-2222-4333-8444-555555555555"
ESP=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
XBOOTLDR=BC13C2FF-59E6-4262-A352-B275FD6F7172
part() { # part NUMBER FIELDS: a GPT line with an identity of its own
	echo "$2, uuid=0000000$1-2222-4333-8444-555555555555"
}
gpt() { # gpt SCALE: sectors are so many times larger
	printf '%s\n' "label: gpt" "table-length: 8" "$UUIDS"
	part 1 "start=$((320 / $1)), size=$((2048 / $1)), type=$ESP"
	part 2 "start=$((2368 / $1)), size=$((2048 / $1)), type=$XBOOTLDR, attrs=LegacyBIOSBootable"
	part 3 "start=$((4416 / $1)), size=$((2048 / $1)), type=0FC63DAF-8483-4772-8E79-3D69D8477DE4"
}
gpt 1 | table gpt 06 512
gpt 8 | table gpt-4k 07 4096
printf '%s\n' "label: dos" "label-id: 0x12345678" "64,2000,ef" "2100,1000,83,*" "3200,4000,5" "3300,300,83" \
	"3700,500,ea" "4300,100,82" | table mbr 00 512

files() { # files IMAGE: long and short names, folders
	printf 'menuentry A {\n linux /k a\n}\n' >"$work/grub.cfg"
	head -c 3000 /dev/zero | tr '\0' k >"$work/kernel"
	mmd -i "$1" ::boot ::boot/grub ::EFI ::EFI/Linux ::loader
	mcopy -i "$1" "$work/grub.cfg" ::boot/grub/grub.cfg
	mcopy -i "$1" "$work/kernel" ::k
	mcopy -i "$1" "$work/kernel" "::EFI/Linux/a-kernel-with-a-long-name.efi"
}
fat() { # fat NAME BITS KIB OPTION...
	truncate -s 0 "$work/disk"
	truncate -s "${3}k" "$work/disk"
	mkfs.fat -F "$2" -i 1234ABCD -n LABEL --invariant "${@:4}" "$work/disk" >/dev/null
	files "$work/disk"
	seed bootdisk_fat "$1" "$work/disk" "$(printf '%02x%02x' $((($3 / 4 - 1) & 255)) $((($3 / 4 - 1) >> 8)))"
}
fat fat12 12 256 -s 1 -r 64
fat fat16 16 4096 -s 1 -r 64
fat fat32 32 36864 -s 1
fat fat12-4k 12 2048 -S 4096 -s 1
ls -l "$corpus/bootdisk_parts" "$corpus/bootdisk_fat"
