#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The test guest under QEMU, without anything of ours around it: it boots with 1, 2 and 4 vCPUs on
# KVM and on TCG, finds nothing wrong, and powers off; and it finds every page that is changed
# behind its back (its memory is a file here).
#
#   guest_qemu.sh [GUEST]       GUEST: the ELF, default $TEST_GUEST
#
# Exit 0 ok, 1 failed, 77 skipped with the reason.
# shellcheck disable=SC2317 # functions that are called by a name put together
set -u

GUEST=${1:-${TEST_GUEST:-}}
LIMIT_S=120 # a stuck guest, not a slow one
failed=0

[[ -n $GUEST && -r $GUEST ]] || { echo "FAIL guest image '$GUEST': expected a readable ELF"; exit 1; }
command -v qemu-system-x86_64 >/dev/null || {
	echo "SKIP guest_qemu: no qemu-system-x86_64 (Debian package qemu-system-x86)"
	exit 77
}

tmp=$(mktemp -d)
qemu_pid=
cleanup() {
	[[ -z $qemu_pid ]] || kill "$qemu_pid" 2>/dev/null
	rm -rf "$tmp"
}
trap cleanup EXIT

pass() { echo "PASS $1"; }
fail() { # fail NAME WHY
	echo "FAIL $1: $2"
	sed 's/^/    /' "$tmp/console"
	failed=1
}

qemu() { # qemu ACCEL CPUS APPEND [ARGS...]: the guest in the background, console in $tmp/console
	local accel=$1 cpus=$2 append=$3
	shift 3
	: >"$tmp/console"
	timeout "$LIMIT_S" qemu-system-x86_64 -nodefaults -display none -no-reboot -machine q35 \
		-accel "$accel" -smp "$cpus" -kernel "$GUEST" -append "$append" \
		-serial "file:$tmp/console" "$@" >"$tmp/qemu" 2>&1 &
	qemu_pid=$!
}

# --- it boots, works, and ends ---

boots() { # boots NAME ACCEL CPUS MEMORY APPEND
	local name=$1 accel=$2 cpus=$3 memory=$4 status
	qemu "$accel" "$cpus" "time=2000 exit=acpi $5" -m "$memory"
	wait "$qemu_pid"
	status=$?
	qemu_pid=
	if [[ $status != 0 ]]; then
		fail "$name" "QEMU ended with $status, expected 0: $(tail -1 "$tmp/qemu")"
	elif grep -qE 'BAD|FATAL|guest: bad' "$tmp/console"; then
		fail "$name" "the guest found something wrong"
	elif ! grep -q "guest: boot" "$tmp/console" ||
		! grep -q "guest: hello vcpus=$cpus " "$tmp/console" ||
		! grep -qE "guest: end .* vcpu=$cpus pages=[1-9][0-9]* .* bad=0 .* ticks=[1-9]" "$tmp/console"; then
		fail "$name" "expected the lines boot, hello and end"
	else
		pass "$name: $(grep 'guest: end' "$tmp/console" | tr -d '\r')"
	fi
}

boots_on() { # boots_on ACCEL
	boots "$1.1cpu.text" "$1" 1 256M "ws=16M"
	boots "$1.2cpu.random" "$1" 2 256M "ws=16M content=random stamp=word pattern=random"
	boots "$1.4cpu.zero" "$1" 4 256M "ws=16M fill=16M content=zero fill_content=text rate=2000 idle=halt"
}

ends_otherwise() { # ends_otherwise NAME APPEND LINE: what is wrong on the command line is said
	qemu "$accel" 1 "$2" -m 64M
	wait_for "$3" || fail "$1" "expected '$3'"
	grep -q "$3" "$tmp/console" && pass "$1"
	kill "$qemu_pid" 2>/dev/null
	wait "$qemu_pid"
	qemu_pid=
}

# --- it finds what is wrong ---

wait_for() { # wait_for PATTERN [SECONDS]: until the console shows it, or QEMU is gone
	local end=$((SECONDS + ${2:-LIMIT_S}))
	until grep -qE "$1" "$tmp/console"; do
		((SECONDS < end)) && kill -0 "$qemu_pid" 2>/dev/null || return 1
		sleep 0.05
	done
}

page_out() { # page_out NUMBER FILE
	dd if="$tmp/ram" of="$2" bs=4096 skip=$((first + $1)) count=1 status=none
}

page_in() { # page_in NUMBER FILE [BYTES]: BYTES at the end of the page only
	local bytes=${3:-4096}
	dd if="$2" of="$tmp/ram" bs="$bytes" seek=$(((first + $1 + 1) * 4096 / bytes - 1)) count=1 \
		conv=notrunc status=none
}

page_sequence() { # page_sequence NUMBER
	od -An -tu8 -j $(((first + $1) * 4096 + 16)) -N 8 "$tmp/ram" | tr -d ' '
}

spoil_stale() { # an older state of page 3 comes back
	local before
	before=$(page_sequence 3)
	page_out 3 "$tmp/old"
	while (($(page_sequence 3) <= before + 1)); do
		kill -0 "$qemu_pid" 2>/dev/null || return 1
		sleep 0.05
	done
	page_in 3 "$tmp/old"
}
spoil_torn() { page_in 4 /dev/zero 2048; }
spoil_foreign() {
	page_out 6 "$tmp/other"
	page_in 5 "$tmp/other"
}
spoil_lost() { page_in 7 /dev/zero; }
spoil_table() {
	dd if=/dev/zero of="$tmp/ram" bs=8 seek=$((table / 8 + 8)) count=1 conv=notrunc status=none
}

finds() { # finds KIND PATTERN: what spoil_KIND does is reported
	local try
	# The guest may be rewriting that very page while it is spoilt: then it is spoilt again.
	for try in 1 2 3; do
		"spoil_$1" || break
		if wait_for "guest: BAD $2" 20; then
			pass "finds.$1: $(grep -E "guest: BAD $2" "$tmp/console" | tail -1 | tr -d '\r')"
			return
		fi
	done
	fail "finds.$1" "no line 'guest: BAD $2' after $try tries"
}

finds_all() {
	local line
	qemu "$accel" 2 "ws=1M rate=256 verify=2000" -m 64M -machine memory-backend=ram \
		-object "memory-backend-file,id=ram,size=64M,mem-path=$tmp/ram,share=on"
	if ! wait_for 'guest: ok'; then
		fail finds "the guest does not run: $(tail -1 "$tmp/qemu")"
		return
	fi
	line=$(grep 'guest: ready' "$tmp/console" | tr -d '\r')
	first=$(($(sed 's/.* at=\(0x[0-9a-f]*\),.*/\1/' <<<"$line") / 4096))
	table=$(($(sed 's/.* table=\(0x[0-9a-f]*\) .*/\1/' <<<"$line")))
	if grep -q BAD "$tmp/console"; then
		fail finds "a mismatch before anything was spoilt"
		return
	fi
	finds stale 'page=3 want=[0-9]+ got=[0-9]+ kind=stale'
	finds torn 'page=4 want=[0-9]+ got=[0-9]+ kind=torn'
	finds foreign 'page=5 want=5 got=6 kind=foreign'
	finds lost 'page=7 want=[0-9]+ got=0 kind=stale'
	finds table 'page=8 want=[0-9]+ got=0 kind=table'
	wait_for 'guest: bad t=.* bad=[5-9]' || fail finds.count "expected 'guest: bad' with 5 or more"
	kill "$qemu_pid"
	wait "$qemu_pid" 2>/dev/null
	qemu_pid=
}

accel=tcg
if [[ -r /dev/kvm && -w /dev/kvm ]]; then
	accel=kvm
	boots_on kvm
else
	echo "SKIP guest_qemu.kvm: no /dev/kvm"
fi
boots_on tcg
boots tcg.high "tcg" 2 3200M "ws=4M fill=2600M content=zero" # page numbers cross the 4 GiB mark
ends_otherwise unknown-key "foo=1" "FATAL cannot use the command line word foo=1"
ends_otherwise too-big "ws=1G" "FATAL ws= and fill= do not fit"
finds_all
exit "$failed"
