#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Disk images against programs that we did not write, in both directions: qemu-img and qemu-io
# (VHDX, VHD, qcow2, raw), libvhdi (VHDX and VHD with parents), and sample images.
#
#   disk_interop.sh [GODWIT DISK_IO]      or GODWIT, DISK_IO, GODWIT_SAMPLES in the environment
#
# GODWIT_SAMPLES names a folder of images packed with bzip2; without it only those cases skip.
# Prints PASS, FAIL or SKIP per case.  Exit 0 ok, 1 failed, 77 nothing could be run.
# shellcheck disable=SC2317,SC2329,SC2086 # cases are called by name; options are split on purpose
set -u

GODWIT=${1:-${GODWIT:?usage: disk_interop.sh GODWIT DISK_IO}}
DISK_IO=${2:-${DISK_IO:?usage: disk_interop.sh GODWIT DISK_IO}}
SAMPLES=${GODWIT_SAMPLES:-}
MIB=1048576
failed=0

tmp=$(mktemp -d)
mnt=$tmp/mnt
mkdir "$mnt"
unmount() {
	! mountpoint -q "$mnt" || umount "$mnt" 2>/dev/null || fusermount -u "$mnt"
}
cleanup() {
	[[ ! -s $tmp/writer ]] || kill -9 "$(cat "$tmp/writer")" 2>/dev/null
	unmount
	rm -rf "$tmp"
}
trap cleanup EXIT
cd "$tmp" || exit 1

for tool in qemu-img qemu-io; do
	if ! command -v $tool >/dev/null; then
		echo "SKIP disk_interop: $tool is not installed (package qemu-utils)"
		exit 77
	fi
done

# try NAME FUNCTION ARGS...: one case, in a folder of its own, ended by the first command that fails.
try() {
	local name=$1
	shift
	rm -rf "$tmp/case"
	mkdir "$tmp/case"
	(
		cd "$tmp/case" || exit 1
		set -eE
		trap 'echo "line $LINENO: $BASH_COMMAND"' ERR
		"$@"
	) > "$tmp/log" 2>&1
	# shellcheck disable=SC2181 # a condition would switch set -e off inside
	if [[ $? -eq 0 ]]; then
		echo "PASS $name"
	else
		echo "FAIL $name"
		tail -12 "$tmp/log" | sed 's/^/    /'
		failed=1
	fi
}

godwit() { "$GODWIT" disk "$@"; }

# A raw disk of 65 MiB with data, zeros that are written, and holes.
make_raw() {
	truncate -s 65M "$1"
	for at in 0 1 7 31 33 64; do
		dd if=/dev/urandom of="$1" bs=$MIB count=1 seek=$at conv=notrunc status=none
	done
	dd if=/dev/urandom of="$1" bs=512 count=3 seek=30001 conv=notrunc status=none
	dd if=/dev/zero of="$1" bs=$MIB count=1 seek=40 conv=notrunc status=none
}
make_raw "$tmp/disk.raw"

# --- they write, we read ---

qemu_to_us() { # FORMAT OPTIONS
	qemu-img convert -f raw -O "$1" ${2:+-o $2} ../disk.raw a.img
	godwit check -f "$1" a.img
	godwit compare -f "$1" -F raw a.img ../disk.raw
	godwit convert -f "$1" -O raw a.img back.raw
	truncate -s 65M back.raw # qemu rounds the size of some kinds up
	cmp back.raw ../disk.raw
}

qemu_io_to_us() { # FORMAT OPTIONS
	qemu-img create -q -f "$1" ${2:+-o $2} a.img 64M
	qemu-io -f "$1" -c 'write -P 0x11 0 4k' -c 'write -P 0x22 5M 3M' -c 'write -P 0x33 60M 512' \
		a.img
	"$DISK_IO" --format "${3:-$1}" a.img read 0 4K 17 read 4K 1M 0 read 5M 3M 34 read 60M 512 51
	godwit check -f "$1" a.img
}

# --- we write, they read ---

us_to_qemu() { # FORMAT QEMU_FORMAT OPTIONS
	godwit convert -O "$1" $3 -f raw ../disk.raw a.img
	[[ $2 != vhdx ]] || qemu-img check -f vhdx a.img
	qemu-img compare -f "$2" -F raw a.img ../disk.raw
	qemu-img convert -f "$2" -O raw a.img back.raw
	cmp -n $((65 * MIB)) back.raw ../disk.raw
	qemu-img info -f "$2" --output json a.img > info.json
	python3 - info.json $((65 * MIB)) <<'PY'
import json, sys
size = json.load(open(sys.argv[1]))["virtual-size"]
assert size == int(sys.argv[2]), f"virtual-size {size}"
PY
}

us_then_qemu_writes() { # FORMAT QEMU_FORMAT OPTIONS
	godwit create -f "$1" $3 a.img 64M
	"$DISK_IO" --format "$1" a.img write 0 64K 1 write 9M 2M 2 flush unmap 9M 1M zero 10M 4K
	qemu-io -f "$2" -c 'read -P 1 0 64k' -c 'read -P 0 10M 4k' -c 'read -P 2 10489856 4k' a.img
	qemu-io -f "$2" -c 'write -P 3 20M 1M' -c 'write -P 4 32k 4k' a.img
	[[ $2 != vhdx ]] || qemu-img check -f vhdx a.img
	"$DISK_IO" --format "$1" a.img read 0 32K 1 read 32K 4K 4 read 36K 28K 1 read 20M 1M 3
	godwit check -f "$1" a.img
	"$DISK_IO" --format "$1" a.img write 50M 1M 5 flush
	qemu-io -f "$2" -c 'read -P 5 50M 1M' -c 'read -P 3 20M 1M' a.img
}

resized_for_qemu() { # FORMAT QEMU_FORMAT
	godwit convert -O "$1" -f raw ../disk.raw a.img
	godwit resize -f "$1" a.img +100M # a VHD grows as far as its table has room: here to 256M
	truncate -s 165M grown.raw
	dd if=../disk.raw of=grown.raw conv=notrunc,sparse bs=$MIB status=none
	qemu-img compare -f "$2" -F raw a.img grown.raw
	# A VHD only grows.
	[[ $1 != vhdx ]] || godwit resize -f "$1" --shrink a.img 65M
	[[ $1 != vhdx ]] || qemu-img compare -f "$2" -F raw a.img ../disk.raw
	[[ $2 != vhdx ]] || qemu-img check -f vhdx a.img
}

compacted_for_qemu() { # FORMAT QEMU_FORMAT
	local before after
	godwit create -f "$1" a.img 256M
	"$DISK_IO" --format "$1" a.img write 0 128M 7 write 200M 1M 8 unmap 0 128M flush
	before=$(stat -c %s a.img)
	godwit compact -f "$1" a.img
	after=$(stat -c %s a.img)
	echo "file: $before bytes before, $after after"
	[[ $after -lt $((before / 2)) ]]
	qemu-io -f "$2" -c 'read -P 8 200M 1M' -c 'read -P 0 0 128M' a.img
	[[ $2 != vhdx ]] || qemu-img check -f vhdx a.img
	godwit check -f "$1" a.img
}

# --- qcow2 as a source ---

qcow2_source() { # OPTIONS
	qemu-img convert $1 -f raw -O qcow2 ../disk.raw a.qcow2
	godwit convert a.qcow2 b.vhdx
	godwit compare b.vhdx ../disk.raw
	godwit convert a.qcow2 b.raw
	cmp b.raw ../disk.raw
	[[ $(ls -A | sort | tr '\n' ' ') == "a.qcow2 b.raw b.vhdx " ]]
}

qcow2_backing() {
	qemu-img convert -f raw -O qcow2 ../disk.raw base.qcow2
	qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
	qemu-io -c 'write -P 9 2M 64k' top.qcow2
	! godwit convert top.qcow2 b.vhdx 2> err
	grep -q "takes content from another file" err
	[[ ! -e b.vhdx ]]
	godwit convert --with-backing top.qcow2 b.vhdx
	"$DISK_IO" b.vhdx read 2M 64K 9
	qemu-img compare -f vhdx -F qcow2 b.vhdx top.qcow2
}

# --- a log that was not closed ---

# A writer is killed in the middle; both sides replay its log, and must read the same.
killed_writer() {
	local writer
	godwit create --block-size 1M a.vhdx 512M
	"$DISK_IO" a.vhdx endless 90 > rounds &
	writer=$!
	echo $writer > ../writer
	for ((i = 0; i < 600; i++)); do
		[[ $(wc -l < rounds) -lt 2 ]] || break
		sleep 0.1
	done
	kill -9 $writer
	wait $writer || true
	: > ../writer
	[[ $(wc -l < rounds) -ge 2 ]]
	same_by_both_sides
}

aborted_writer() { # COMMANDS...
	godwit create --block-size 1M a.vhdx 512M
	"$DISK_IO" --abort a.vhdx "$@"
	same_by_both_sides
}

same_by_both_sides() {
	cp a.vhdx qemu.vhdx
	cp a.vhdx ours.vhdx
	godwit info --json a.vhdx > info.json
	python3 -c 'import json; assert json.load(open("info.json"))["log-dirty"]'
	# Read without replaying: the file stays as it is, and what is read is after the log.
	godwit convert a.vhdx before.raw
	cmp a.vhdx qemu.vhdx
	qemu-img check -r all -f vhdx qemu.vhdx
	qemu-io -f vhdx -c 'read -P 90 100M 4k' -c 'read -P 90 0 4k' -c 'read -P 0 4k 4k' qemu.vhdx
	godwit check --repair ours.vhdx
	godwit check ours.vhdx
	qemu-img convert -f vhdx -O raw qemu.vhdx qemu.raw
	godwit convert ours.vhdx ours.raw
	cmp qemu.raw ours.raw
	cmp before.raw ours.raw
	qemu-img compare -f vhdx -F vhdx qemu.vhdx ours.vhdx
	godwit compare qemu.vhdx ours.vhdx
}

# --- libvhdi ---

vhdi_same() { # IMAGE RAW
	local rc=0
	vhdimount "$1" "$mnt"
	ls "$mnt"
	cmp -n "$(stat -c %s "$2")" "$mnt/$(ls "$mnt" | tail -1)" "$2" || rc=1
	unmount
	return $rc
}

vhdi_reads() { # NAME OPTIONS
	godwit convert $2 -f raw ../disk.raw "$1"
	vhdiinfo "$1"
	vhdiinfo "$1" | grep -q 65
	vhdi_same "$1" ../disk.raw
}

# A chain of three VHDs; libvhdi reads the top with its parents as we do.  Writes are multiples of
# 4 KiB: where a byte of a sector bitmap has bits of both kinds, libvhdi 20210425 reads zeros
# instead of the parent after the last sector that is set.
vhdi_chain() { # EXTENSION
	local e=$1
	godwit convert -f raw ../disk.raw "base.$e"
	godwit create -b "base.$e" "middle.$e"
	"$DISK_IO" "middle.$e" write 1M 64K 66 write 20M 3M 67 write 15360K 4K 68 flush
	godwit create -b "middle.$e" "top.$e"
	"$DISK_IO" "top.$e" write 20M 4K 70 write 64M 1M 71 flush
	for i in base middle top; do
		vhdiinfo "$i.$e"
		godwit check "$i.$e"
	done
	# It shows the name of a VHD's parent only.
	[[ $e != vhd ]] || vhdiinfo "top.$e" | grep -q "middle.$e"
	godwit convert "top.$e" top.raw
	"$DISK_IO" top.raw read 1M 64K 66 read 20M 4K 70 read 20484K 4K 67 read 15360K 4K 68 read 64M 1M 71
	vhdi_same "top.$e" top.raw
	# Merged, the parent has it all.
	godwit merge "top.$e"
	[[ ! -e top.$e ]]
	godwit merge "middle.$e"
	godwit compare "base.$e" top.raw
	vhdi_same "base.$e" top.raw
}

# libvhdi compares 12 of the 13 characters of the key relative_path, and so never finds it
# (docs/hypervisor/disk/interop.md).  Copies whose key is called volume_path it reads.
volume_key() { # FILE...
	python3 - "$@" <<'EOF'
import sys
for name in sys.argv[1:]:
    with open(name, "r+b") as file:
        head = bytearray(file.read(8 << 20))
        key = "relative_path".encode("utf-16le")
        at = head.find(key)
        if at < 0:
            continue  # the base
        start = head.rfind(bytes.fromhex("b7ef4ab09ed1814ab78925b8e9445913"), 0, at)
        count = int.from_bytes(head[start + 18:start + 20], "little")
        for i in range(count):
            entry = start + 20 + 12 * i
            if int.from_bytes(head[entry:entry + 4], "little") == at - start:
                head[entry + 8:entry + 10] = (22).to_bytes(2, "little")
        head[at:at + len(key)] = "volume_path".encode("utf-16le") + bytes(4)
        file.seek(0)
        file.write(head)
EOF
}

vhdi_vhdx_chain() {
	godwit convert -f raw ../disk.raw base.vhdx
	godwit create -b base.vhdx middle.vhdx
	"$DISK_IO" middle.vhdx write 1M 64K 66 write 20M 3M 67 write 15360K 4K 68 flush
	godwit create -b middle.vhdx top.vhdx
	"$DISK_IO" top.vhdx write 20M 4K 70 write 64M 1M 71 flush
	godwit convert top.vhdx top.raw
	mkdir theirs
	cp base.vhdx middle.vhdx top.vhdx theirs
	(
		cd theirs
		volume_key middle.vhdx top.vhdx
		vhdiinfo top.vhdx | grep -q "middle.vhdx"
		vhdi_same top.vhdx ../top.raw
	)
	godwit merge top.vhdx
	godwit merge middle.vhdx
	godwit compare base.vhdx top.raw
	vhdi_same base.vhdx top.raw
}

# --- samples ---

sample_qemu() { # NAME QEMU_FORMAT
	bzip2 -dc "$SAMPLES/$1.bz2" > "$1"
	cp "$1" "copy-$1"
	godwit info "$1"
	godwit check "$1"
	qemu-img convert -f "$2" -O raw "$1" qemu.raw
	godwit convert "$1" ours.raw
	godwit compare ours.raw qemu.raw
	cmp "$1" "copy-$1"
	# And it can be written.
	"$DISK_IO" "$1" write 10M 1M 85 flush
	qemu-io -f "$2" -c 'read -P 85 10M 1M' "$1"
	godwit check "$1"
}

sample_chain() {
	bzip2 -dc "$SAMPLES/image.vhd.bz2" > image.vhd
	bzip2 -dc "$SAMPLES/image-differential.vhd.bz2" > image-differential.vhd
	godwit info --backing-chain image-differential.vhd
	# Their checksums are wrong: read, and reported.
	godwit check image.vhd || true
	godwit check image-differential.vhd || true
	godwit convert image-differential.vhd ours.raw
	vhdi_same image-differential.vhd ours.raw
	godwit convert image.vhd base.raw
	vhdi_same image.vhd base.raw
}

for block in 1 2 16 256; do
	try "qemu.vhdx.dynamic.$block" qemu_to_us vhdx "block_size=${block}M"
done
try qemu.vhdx.fixed qemu_to_us vhdx subformat=fixed
try qemu.vhdx.states qemu_to_us vhdx block_state_zero=off
try qemu.vpc.dynamic qemu_to_us vpc ""
try qemu.vpc.dynamic-exact qemu_to_us vpc force_size=on
try qemu.vpc.fixed qemu_to_us vpc subformat=fixed,force_size=on
try qemu.raw qemu_to_us raw ""
try qemu-io.vhdx qemu_io_to_us vhdx block_size=2M
try qemu-io.vhdx-fixed qemu_io_to_us vhdx subformat=fixed
try qemu-io.vpc qemu_io_to_us vpc force_size=on vhd

for block in 1M 2M 32M 256M; do
	try "to-qemu.vhdx.dynamic.$block" us_to_qemu vhdx vhdx "--block-size $block"
done
try to-qemu.vhdx.fixed us_to_qemu vhdx vhdx --fixed
try to-qemu.vhdx.big-log us_to_qemu vhdx vhdx "--log-size 8M"
try to-qemu.vhd.dynamic us_to_qemu vhd vpc ""
try to-qemu.vhd.fixed us_to_qemu vhd vpc --fixed
try to-qemu.raw us_to_qemu raw raw ""
try shared.vhdx us_then_qemu_writes vhdx vhdx "--block-size 1M"
try shared.vhdx-fixed us_then_qemu_writes vhdx vhdx --fixed
try shared.vhd us_then_qemu_writes vhd vpc ""
try resized.vhdx resized_for_qemu vhdx vhdx
try resized.vhd resized_for_qemu vhd vpc
try compacted.vhdx compacted_for_qemu vhdx vhdx

try qcow2.plain qcow2_source ""
try qcow2.compressed qcow2_source -c
try qcow2.backing qcow2_backing

try log.killed killed_writer
try log.aborted aborted_writer fill 400 90 flush
try log.aborted-unmap aborted_writer fill 400 90 flush unmap 200M 50M flush
try log.aborted-resize aborted_writer fill 400 90 flush resize 600M flush

if ! command -v vhdimount >/dev/null || [[ ! -e /dev/fuse ]]; then
	echo "SKIP libvhdi: vhdimount (package libvhdi-utils) or /dev/fuse is missing"
else
	try vhdi.vhdx.dynamic vhdi_reads a.vhdx ""
	try vhdi.vhdx.fixed vhdi_reads a.vhdx --fixed
	try vhdi.vhd.dynamic vhdi_reads a.vhd ""
	try vhdi.vhd.fixed vhdi_reads a.vhd --fixed
	try vhdi.vhdx.chain vhdi_vhdx_chain
	try vhdi.vhd.chain vhdi_chain vhd
fi

if [[ -z $SAMPLES || ! -d $SAMPLES ]]; then
	echo "SKIP samples: GODWIT_SAMPLES names no folder"
else
	for sample in iotest-dynamic-1G.vhdx:vhdx hyperv2012r2-dynamic.vhd:vpc \
		virtualpc-dynamic.vhd:vpc; do
		if [[ -e $SAMPLES/${sample%:*}.bz2 ]]; then
			try "sample.${sample%:*}" sample_qemu "${sample%:*}" "${sample#*:}"
		else
			echo "SKIP sample.${sample%:*}: not in $SAMPLES"
		fi
	done
	if [[ -e $SAMPLES/image-differential.vhd.bz2 ]]; then
		try sample.chain sample_chain
	else
		echo "SKIP sample.chain: not in $SAMPLES"
	fi
fi
exit $failed
