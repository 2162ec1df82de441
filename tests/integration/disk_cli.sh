#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# "godwit disk" as a user has it: every verb, every documented refusal with its exit code and
# text, JSON, progress on a terminal, sparse files, a full disk, interruption.
#
#   disk_cli.sh [GODWIT DISK_IO]      or GODWIT and DISK_IO in the environment
#
# Prints PASS, FAIL or SKIP per case.  Exit 0 ok, 1 failed.
# shellcheck disable=SC2317,SC2329 # cases are called by name
set -u

GODWIT=${1:-${GODWIT:?usage: disk_cli.sh GODWIT DISK_IO}}
DISK_IO=${2:-${DISK_IO:?usage: disk_cli.sh GODWIT DISK_IO}}
LIMIT_S=120 # a stuck command, not a slow one
failed=0

tmp=$(mktemp -d)
small=$tmp/small
mkdir "$small"
cleanup() {
	[[ ! -s $tmp/child ]] || kill -9 "$(cat "$tmp/child")" 2>/dev/null
	mountpoint -q "$small" && umount "$small"
	chattr -i "$tmp"/case/* 2>/dev/null
	rm -rf "$tmp"
}
trap cleanup EXIT
cd "$tmp" || exit 1

godwit() { timeout -k 5 "$LIMIT_S" "$GODWIT" disk "$@"; }

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

# refuse NAME EXIT TEXT ARGS...: exactly that line on standard error, that exit code, nothing
# on standard output, and no file made or changed.
refuse() {
	local name=$1 exit_code=$2 text=$3 before got
	shift 3
	before=$(find . -type f -printf '%p %s %T@\n' | sort)
	timeout -k 5 "$LIMIT_S" "$GODWIT" "$@" > "$tmp/out" 2> "$tmp/err" < /dev/null
	got=$?
	if [[ $got -ne $exit_code ]]; then
		echo "FAIL $name: exit code $got: expected $exit_code"
	elif [[ $(cat "$tmp/err") != "godwit: $text" || $(wc -l < "$tmp/err") -ne 1 ]]; then
		echo "FAIL $name: expected 'godwit: $text'"
	elif [[ -s $tmp/out ]]; then
		echo "FAIL $name: expected nothing on standard output"
	elif [[ $(find . -type f -printf '%p %s %T@\n' | sort) != "$before" ]]; then
		echo "FAIL $name: expected no file made or changed"
	else
		echo "PASS $name"
		return
	fi
	sed 's/^/    /' "$tmp/err"
	failed=1
}

# --- refusals: the command line ---

refusals_usage() {
	local one_of="expected a number of bytes, or one with suffix K, M, G, T or P"
	refuse no-command 2 "command '': expected a command; --help lists them"
	refuse bad-noun 2 "command 'disc': expected a known command; --help lists them" disc
	refuse no-verb 2 "command 'disk': expected a known command; --help lists them" disk
	refuse bad-verb 2 "command 'disk format': expected a known command; --help lists them" \
		disk format
	refuse create-nothing 2 "disk create: operand NAME: not given: expected the name of a file" \
		disk create
	refuse create-no-size 2 "disk create: operand SIZE: not given: $one_of" disk create a.vhdx
	refuse create-bad-size 2 "disk create: operand SIZE: value '10X': $one_of" \
		disk create a.vhdx 10X
	refuse create-no-format 2 "disk create: 'a.disk': no format given: expected an option that \
names it, or a name that ends in .vhdx, .vhd, .raw or .img" disk create a.disk 1G
	refuse create-kinds 2 "disk create: option '--fixed': with '-o subformat=dynamic': expected \
one of both" disk create --fixed -o subformat=dynamic a.vhdx 1G
	refuse create-raw-child 2 "disk create: option '--parent': format raw: expected vhdx or vhd, \
which know parents" disk create -b p.raw a.raw
	refuse create-fixed-child 2 "disk create: option '--parent': with a kind: expected one of \
both; a disk with a parent is differencing" disk create --fixed -b p.vhdx a.vhdx
	refuse create-parent-format 2 "disk create: option '--parent-format': without '--parent': \
expected both" disk create -F raw a.vhdx 1G
	refuse convert-to-qcow2 2 "disk convert: option '-O': value 'qcow2': expected vhdx, vhd, vpc \
or raw" disk convert -O qcow2 a b
	refuse check-mend 2 "disk check: option '-r': value 'some': expected leaks or all" \
		disk check -r some a
	refuse name-is-folder 2 "disk create: 'x/..': expected the name of a file" \
		disk create -f raw x/.. 1M
}

# --- refusals: the files ---

refusals_files() {
	local v
	"$GODWIT" disk create -q ok.vhdx 64M
	"$GODWIT" disk create -q ok.vhd 64M
	truncate -s 1M ok.raw
	mkdir folder
	printf 'KDMV%508s' '' > a.vmdk
	printf 'QFI\xfb\0\0\0\3\0\0\0\0\0\0\0\0%504s' '' > a.qcow2
	for v in info check map "resize --shrink" compact merge; do
		local more=
		[[ $v != resize* ]] || more=1G
		# shellcheck disable=SC2086 # a verb with its option
		refuse "missing.${v%% *}" 1 \
			"disk ${v%% *}: 'none.vhdx': No such file or directory" disk $v none.vhdx $more
		# shellcheck disable=SC2086
		refuse "folder.${v%% *}" 1 \
			"disk ${v%% *}: 'folder' is a folder: expected a disk image" disk $v folder $more
		# shellcheck disable=SC2086
		refuse "vmdk.${v%% *}" 1 "disk ${v%% *}: 'a.vmdk' is a vmdk image: expected vhdx, vhd or \
raw; make one with 'qemu-img convert -f vmdk -O raw'" disk $v a.vmdk $more
		# shellcheck disable=SC2086
		refuse "qcow2.${v%% *}" 1 "disk ${v%% *}: 'a.qcow2' is a qcow2 image: expected vhdx, vhd \
or raw; make one with 'godwit disk convert'" disk $v a.qcow2 $more
	done
	refuse compare-missing 3 "disk compare: 'none': No such file or directory" \
		disk compare ok.vhdx none
	refuse create-exists 1 "disk create: 'ok.vhdx' is there already: expected a new name" \
		disk create ok.vhdx 1G
	refuse create-no-folder 1 "disk create: 'no/a.vhdx': folder 'no/': No such file or directory" \
		disk create no/a.vhdx 1G
	refuse create-no-parent 1 "disk create: 'none.vhdx': No such file or directory" \
		disk create -b none.vhdx a.vhdx
	refuse convert-exists 1 "disk convert: 'ok.vhd' is there already: expected a new name, or \
--force" disk convert ok.vhdx ok.vhd
	refuse convert-itself 2 "disk convert: 'ok.vhdx' is the source, or a parent of it: expected \
another target" disk convert --force ok.vhdx ok.vhdx
	refuse convert-to-folder 1 "disk convert: 'folder' is no regular file: expected a new name" \
		disk convert -O raw ok.vhdx folder
	refuse resize-shrink 2 "disk resize: 'ok.vhdx': size 1048576: expected at least the 67108864 \
bytes it has, or --shrink" disk resize ok.vhdx 1M
	refuse resize-below 2 "disk resize: 'ok.vhdx': size -134217728: expected less than the \
67108864 bytes it has" disk resize ok.vhdx -128M
	refuse resize-odd 2 "disk resize: 'ok.vhdx': size 67108965: expected a multiple of 512" \
		disk resize ok.vhdx 67108965
	local most
	for v in "" -n; do
		most="expected above 0 and at most 70368744177664 (64 TiB), the most a vhdx can have"
		# shellcheck disable=SC2086 # an option or nothing
		refuse "resize-vhdx-limit$v" 2 "disk resize: 'ok.vhdx': size 71468255805440: $most" \
			disk resize $v ok.vhdx 65T
		most="expected above 0 and at most 2190433320960 (2040 GiB), the most a vhd can have"
		# shellcheck disable=SC2086
		refuse "resize-vhd-limit$v" 2 "disk resize: 'ok.vhd': size 3298534883328: $most" \
			disk resize $v ok.vhd 3T
		# shellcheck disable=SC2086
		refuse "resize-vhd-odd$v" 2 "disk resize: 'ok.vhd': size 67108965: expected a multiple \
of 512" disk resize $v ok.vhd 67108965
	done
	refuse merge-no-parent 1 "disk merge: 'ok.vhdx' is dynamic: expected a differencing disk, \
which has a parent" disk merge ok.vhdx
	refuse compact-raw 1 "disk compact: 'ok.raw' is raw, dynamic: expected a dynamic or \
differencing vhdx" disk compact ok.raw
}

# Texts that come from below are the formats': only the beginning is fixed here.
says() { # EXIT PATTERN ARGS...
	local exit_code=$1 pattern=$2 got=0
	shift 2
	timeout -k 5 "$LIMIT_S" "$GODWIT" "$@" > out 2> err < /dev/null || got=$?
	cat err
	[[ $got -eq $exit_code ]]
	[[ $(wc -l < err) -eq 1 ]]
	grep -q "^godwit: " err
	grep -qE -- "$pattern" err
}

wrong_sizes() {
	says 2 "3145728|3 MiB|3M" disk create --block-size 3M a.vhdx 1G
	says 2 "65 ?T|71468255805440" disk create a.vhdx 65T
	says 2 "vhd" disk create a.vhd 3T
	says 2 "1024" disk create --sector 1024 a.vhdx 1G
	says 2 "1000" disk create a.vhdx 1000
	[[ -z $(find . -name '*.vhd*') ]]
	# A dry run refuses the same.
	says 2 "'a.vhdx'.*3145728" disk create -n --block-size 3M a.vhdx 1G
	says 2 "'a.vhdx'.*64 TiB" disk create -n a.vhdx 65T
	says 2 "'a.vhd'.*2040 GiB" disk create -n a.vhd 3T
	says 2 "'a.vhdx'.*1024" disk create -n --sector 1024 a.vhdx 1G
	says 2 "'a.raw'.*1000" disk create -n a.raw 1000
	[[ -z $(find . -name '*.vhd*' -o -name '*.raw' -o -name '*.part') ]]
	godwit create ok.vhdx 1G
	says 2 "'p.vhdx'.*at least as large" disk create -n -b ok.vhdx p.vhdx 64M
	godwit create -n -b ok.vhdx p.vhdx
	(cd / && "$GODWIT" disk create -n /godwit-none.vhdx 1G)
	[[ ! -e /godwit-none.vhdx && ! -e p.vhdx ]]
}

# A damaged table entry: the text says which block, where its entry is, and what is in it.
damaged_entry() {
	local at got=0
	godwit create --block-size 1M a.vhdx 16M
	"$DISK_IO" a.vhdx write 0 4M 5 flush
	cp a.vhdx whole.vhdx
	# The BAT region's place is in the region table at 192 KiB, behind its GUID.
	at=$(python3 - <<'PY'
import struct, uuid
data = open("a.vhdx", "rb").read(1 << 20)
bat = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
at = data.index(bat, 192 << 10)
print(struct.unpack_from("<Q", data, at + 16)[0] + 2 * 8)
PY
	)
	printf '\x06\x00\x00\x00\x00\x01\x00\x00' | dd of=a.vhdx bs=1 seek="$at" conv=notrunc status=none
	local entry
	entry="BAT entry of block 2 at $(printf '0x%x' "$at"): 0x0000010000000006: outside the file"
	says 1 "'a.vhdx': $entry" disk convert a.vhdx b.raw
	says 3 "'a.vhdx': read at .*: $entry" disk compare a.vhdx whole.vhdx
	got=0
	"$DISK_IO" a.vhdx read 2M 64K 5 > io 2>&1 || got=$?
	cat io
	[[ $got -ne 0 ]]
	grep -q "$entry" io
}

damaged() {
	godwit create a.vhdx 64M
	dd if=/dev/urandom of=a.vhdx bs=64K seek=1 count=2 conv=notrunc status=none
	says 1 "'a.vhdx'.*header" disk info a.vhdx
	says 1 "'a.vhdx'|header" disk check a.vhdx
}

read_only() {
	godwit create a.vhdx 64M
	chattr +i a.vhdx
	says 1 "'a.vhdx'" disk resize a.vhdx 128M || { chattr -i a.vhdx; return 1; }
	godwit info a.vhdx || { chattr -i a.vhdx; return 1; }
	chattr -i a.vhdx
}

# Somebody writes it: every change is refused and says who; info says who, too.
held() {
	local holder
	godwit create a.vhdx 64M
	mkfifo in
	"$DISK_IO" --hold a.vhdx < in > held &
	holder=$!
	echo $holder > ../child
	exec 9> in
	for ((i = 0; i < 600; i++)); do
		[[ ! -s held ]] || break
		sleep 0.1
	done
	for v in "resize a.vhdx 128M" "compact a.vhdx" "check a.vhdx" "check --repair a.vhdx" "convert a.vhdx b.raw"; do
		# shellcheck disable=SC2086 # a verb with its operands
		says 1 "'a.vhdx'.*$holder" disk $v
	done
	says 3 "'a.vhdx'.*$holder" disk compare a.vhdx a.vhdx
	godwit info a.vhdx | tee info
	grep -q "held by: .*$holder" info
	godwit compare -U a.vhdx a.vhdx
	exec 9>&-
	wait $holder
	: > ../child
	godwit resize a.vhdx 128M
}

# --- what works ---

create_all() {
	local f
	for f in "a.vhdx 10G" "b.vhdx --fixed 16M" "c.vhd 1G" "d.vhd --fixed 16M" "e.raw 1G" \
		"f.img --fixed 16M" "-f vhdx g 64T" "--sector 4096 --block-size 1M h.vhdx 100M" \
		"-o subformat=dynamic,block_size=2M -f vpc i 16M"; do
		# shellcheck disable=SC2086
		godwit create $f
	done
	for f in a.vhdx b.vhdx c.vhd d.vhd e.raw f.img g h.vhdx; do
		godwit check "$f"
		godwit info "$f"
	done
	[[ $(stat -c %b f.img) -ge $((16 * 2048)) ]]
	[[ $(stat -c %b e.raw) -lt 2048 ]]
	[[ $(stat -c %s e.raw) -eq $((1 << 30)) ]]
	godwit create -n x.vhdx 1G | grep -q "Would create 'x.vhdx': vhdx, dynamic, 1 GiB"
	[[ ! -e x.vhdx ]]
	[[ -z $(godwit create -q y.vhdx 1G) && -e y.vhdx ]]
	[[ $(stat -c %a a.vhdx) == 600 ]]
	cd /
	"$GODWIT" disk info "$tmp/case/a.vhdx"
}

json() {
	godwit create base.vhdx 1G
	godwit create -b base.vhdx top.avhdx
	godwit info --json top.avhdx > 1.json
	godwit info --output json --backing-chain top.avhdx > 2.json
	godwit check --json top.avhdx > 3.json
	godwit map --json top.avhdx > 4.json
	python3 - <<'PY'
import json
one, chain, check, runs = (json.load(open(f"{i}.json")) for i in range(1, 5))
assert one["format"] == "vhdx" and one["kind"] == "differencing", one
assert one["virtual-size"] == 1 << 30 and not one["held"], one
assert [c["kind"] for c in chain] == ["differencing", "dynamic"], chain
assert chain[0] == one
assert chain[1]["filename"].endswith("/base.vhdx"), chain
assert check["damages"] == 0 and check["findings"] == [], check
assert runs[0] == {"start": 0, "length": 1 << 30, "kind": "unmapped", "data": False, "zero": True}
PY
}

convert_all() {
	local f
	truncate -s 100M a.raw
	for at in 0 3 50 99; do
		dd if=/dev/urandom of=a.raw bs=1M count=1 seek=$at conv=notrunc status=none
	done
	for f in "b.vhdx" "--fixed c.vhdx" "d.vhd" "--fixed e.vhd" "f.raw" "--fixed g.raw" \
		"--block-size 1M h.vhdx" "-O vhdx i"; do
		# shellcheck disable=SC2086
		godwit convert a.raw $f
		godwit compare a.raw "${f##* }"
		godwit check "${f##* }"
	done
	godwit convert b.vhdx j.vhd
	godwit convert j.vhd k.vhdx
	godwit convert k.vhdx l.raw
	cmp a.raw l.raw
	godwit convert --force a.raw l.raw
	godwit convert -n a.raw m.vhdx | grep -q "Would convert 'a.raw' to 'm.vhdx': vhdx, dynamic"
	[[ ! -e m.vhdx ]]
	[[ -z $(find . -name '.*.part' -o -name '.*.source' -o -name '*.lease') ]]
}

sparse() {
	truncate -s 20G a.raw
	for at in 1 9000 20000; do
		dd if=/dev/urandom of=a.raw bs=1M count=1 seek=$at conv=notrunc status=none
	done
	# Zeros that are written take no space either.
	dd if=/dev/zero of=a.raw bs=1M count=200 seek=3000 conv=notrunc status=none
	godwit convert --block-size 1M a.raw b.vhdx
	godwit convert b.vhdx c.raw
	du -k b.vhdx c.raw
	[[ $(du -k b.vhdx | cut -f 1) -lt 20480 ]]
	[[ $(du -k c.raw | cut -f 1) -lt 10240 ]]
	[[ $(stat -c %s c.raw) -eq $((20 << 30)) ]]
	godwit compare a.raw c.raw
}

compare_all() {
	truncate -s 10M a.raw
	truncate -s 12M b.raw
	godwit compare a.raw b.raw > out
	grep -q "The sizes differ (10485760 and 12582912 bytes), but" out
	! godwit compare -s a.raw b.raw > out
	grep -qx "The sizes differ: 10485760 and 12582912 bytes" out
	printf x | dd of=b.raw bs=1 seek=11000001 conv=notrunc status=none
	local rc=0
	godwit compare a.raw b.raw > out 2> err || rc=$?
	[[ $rc -eq 1 && ! -s err ]]
	grep -qx "The contents differ, first at offset 11000001" out
	printf y | dd of=a.raw bs=1 seek=4097 conv=notrunc status=none
	rc=0
	godwit compare b.raw a.raw > out || rc=$?
	[[ $rc -eq 1 ]]
	grep -qx "The contents differ, first at offset 4097" out
	rc=0
	[[ -z $(godwit compare -q a.raw b.raw) ]] || rc=1
	[[ $rc -eq 0 ]]
	# Sectors of 4096 against a size that is none of them.
	truncate -s $((1048576 + 512)) c.raw
	printf z | dd of=c.raw bs=1 seek=1048580 conv=notrunc status=none
	godwit convert --sector 4096 c.raw d.vhdx
	godwit compare c.raw d.vhdx
	godwit compare d.vhdx c.raw
}

resize_all() {
	local f
	for f in a.vhdx b.vhd c.raw "--fixed d.vhdx" "--fixed e.vhd" "--fixed f.raw"; do
		# shellcheck disable=SC2086
		godwit create $f 64M
		f=${f##* }
		"$DISK_IO" "$f" write 10M 64K 7 flush
		godwit resize "$f" +64M | grep -q "Resized '$f' from 64 MiB to 128 MiB"
		godwit resize -n "$f" 1G | grep -q "Would resize '$f' from 128 MiB to 1 GiB"
		"$DISK_IO" "$f" read 10M 64K 7 read 64M 64M 0
		godwit check "$f"
	done
	for f in "" -n; do
		# shellcheck disable=SC2086 # an option or nothing
		says 1 "'b.vhd': size 100663296: its format cannot do that in place" \
			disk resize $f --shrink b.vhd -32M
	done
	for f in a.vhdx c.raw; do
		godwit resize --shrink "$f" -32M
		"$DISK_IO" "$f" read 10M 64K 7
		# The tail is in use.
		says 1 "'$f': size 10485760: what lies beyond it is in use" disk resize --shrink "$f" 10M
		says 1 "'$f': size 10485760: what lies beyond it is in use" disk resize -n --shrink "$f" 10M
		godwit resize -n --shrink "$f" 11M
		"$DISK_IO" "$f" read 10M 64K 7
	done
}

compact_and_merge() {
	local before
	godwit create --block-size 1M a.vhdx 256M
	"$DISK_IO" a.vhdx write 0 100M 5 write 200M 2M 6 unmap 0 100M flush
	before=$(stat -c %s a.vhdx)
	godwit compact -n a.vhdx | grep -q "Would compact 'a.vhdx', now "
	[[ $(stat -c %s a.vhdx) -eq $before ]]
	godwit compact a.vhdx
	[[ $(stat -c %s a.vhdx) -lt $((before / 4)) ]]
	"$DISK_IO" a.vhdx read 0 100M 0 read 200M 2M 6
	godwit create -b a.vhdx b.avhdx
	"$DISK_IO" b.avhdx write 10M 1M 7 flush
	godwit convert b.avhdx want.raw
	godwit merge -n b.avhdx | grep -q "Would merge 'b.avhdx' into '$PWD/a.vhdx' and remove it"
	[[ -e b.avhdx ]]
	godwit merge b.avhdx | grep -q "Merged 'b.avhdx' into '$PWD/a.vhdx' and removed it"
	[[ ! -e b.avhdx ]]
	godwit compare a.vhdx want.raw
	godwit check a.vhdx
	# A parent that was written no longer fits its child.
	godwit create -b a.vhdx c.avhdx
	"$DISK_IO" a.vhdx write 0 4K 1 flush
	says 1 "a.vhdx" disk info c.avhdx
}

check_repairs() {
	godwit create a.vhdx 64M
	"$DISK_IO" --abort a.vhdx write 1M 64K 9 flush
	cp a.vhdx before.vhdx
	godwit check a.vhdx || true
	cmp a.vhdx before.vhdx
	godwit check --repair a.vhdx
	godwit check -r leaks a.vhdx
	godwit check a.vhdx | grep -q "No damage found"
	"$DISK_IO" a.vhdx read 1M 64K 9
}

# --- progress, interruption, a full disk ---

terminal() {
	truncate -s 400M a.raw
	dd if=/dev/urandom of=a.raw bs=1M count=100 conv=notrunc status=none
	python3 - "$GODWIT" <<'PY'
import os, pty, re, sys
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], ["godwit", "disk", "convert", "a.raw", "b.vhdx"])
seen = b""
while True:
    try:
        part = os.read(fd, 65536)
    except OSError:
        break
    if not part:
        break
    seen += part
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
text = seen.decode()
print(repr(text[-300:]))
assert status == 0, status
assert re.search(r"\rconvert \[#* *\] +[0-9.]+ %", text), "no bar"
assert "100.0 %" in text, "no end"
assert text.endswith("Converted 'a.raw' to 'b.vhdx': vhdx, dynamic, 400 MiB\r\n"), "no last line"
PY
	# No terminal: nothing but the outcome, unless asked for.
	[[ $(godwit convert a.raw c.vhdx | wc -l) -eq 1 ]]
	godwit convert -p a.raw d.vhdx | grep -q "^convert 100 %$"
	[[ -z $(godwit convert -pq a.raw e.vhdx) ]]
}

# A signal in the middle leaves nothing, and exit code 1 with one line.
interrupted() { # SIGNAL
	local child got=0
	truncate -s 3G a.raw
	for ((at = 0; at < 3072; at += 64)); do
		head -c 32M /dev/zero | tr '\0' x | dd of=a.raw bs=1M seek=$at conv=notrunc status=none
	done
	mkfifo out
	# A shell starts what runs in the background with SIGINT ignored.
	env --default-signal=INT "$GODWIT" disk convert -p a.raw b.vhdx > out 2> err &
	child=$!
	echo $child > ../child
	# The first line of progress says that it is in the middle.
	read -r line < out
	echo "$line"
	kill "-$1" $child
	wait $child || got=$?
	: > ../child
	cat err
	[[ $got -eq 1 ]]
	grep -qx "godwit: disk convert: 'b.vhdx': stopped: nothing was made" err
	[[ $(ls -A | sort | tr '\n' ' ') == "a.raw err out " ]]
}

full_disk() {
	truncate -s 200M a.raw
	head -c 100M /dev/urandom | dd of=a.raw bs=1M conv=notrunc status=none
	says 1 "No space|no space|full|ENOSPC" disk convert a.raw "$small/b.vhdx"
	says 1 "No space|no space|full|ENOSPC" disk convert --fixed a.raw "$small/b.raw"
	says 1 "No space|no space|full|ENOSPC" disk create --fixed "$small/c.vhdx" 1G
	[[ -z $(ls -A "$small") ]]
	local got=0
	"$GODWIT" disk info --json a.raw > /dev/full 2> err || got=$?
	cat err
	[[ $got -eq 1 ]]
	grep -qx "godwit: standard output: No space left on device" err
}

no_qemu() {
	printf 'QFI\xfb\0\0\0\3\0\0\0\0\0\0\0\0%504s' '' | tr ' ' '\0' > a.qcow2
	mkdir empty
	local got=0
	PATH=$PWD/empty "$GODWIT" disk convert a.qcow2 b.vhdx 2> err || got=$?
	cat err
	[[ $got -eq 1 ]]
	grep -q "qemu-img, which reads it, is not installed: expected the package qemu-utils" err
	[[ $(find . -name '*b.vhdx*' | wc -l) -eq 0 ]]
}

huge() {
	local began=$EPOCHREALTIME
	godwit create huge.vhdx 64T
	godwit info huge.vhdx > info
	echo "INFO huge: 64 TiB created and shown in $(bc <<< "$EPOCHREALTIME - $began") s" >&3
	grep -q "virtual size: 64 TiB (70368744177664 bytes)" info
}

help_texts() {
	"$GODWIT" --help | grep -q "^usage: godwit NOUN VERB"
	"$GODWIT" --version | grep -q "^godwit [0-9]"
	"$GODWIT" disk --help | grep -q "^  convert "
	for v in create info check convert resize compact merge compare map; do
		"$GODWIT" disk $v --help | grep -q "^usage: godwit disk $v \[OPTION\]"
	done
}

exec 3>&1
mkdir -p "$tmp/case"
cd "$tmp/case" || exit 1
refusals_usage
refusals_files
cd "$tmp" || exit 1
for name in wrong_sizes damaged damaged_entry held create_all json convert_all sparse compare_all \
	resize_all compact_and_merge check_repairs terminal no_qemu huge help_texts; do
	try "$name" "$name"
done
# A file that even root cannot write; not every file system has them.
: > "$tmp/immutable"
if chattr +i "$tmp/immutable" 2>/dev/null; then
	chattr -i "$tmp/immutable"
	try read_only read_only
else
	echo "SKIP read_only: no immutable files on this file system"
fi
try interrupted.INT interrupted INT
try interrupted.TERM interrupted TERM
if mount -t tmpfs -o size=32M tmpfs "$small" 2>/dev/null; then
	try full_disk full_disk
else
	echo "SKIP full_disk: a tmpfs cannot be mounted here"
fi
exit $failed
