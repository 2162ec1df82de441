#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The worker as its user sees it: start, console, commands, save and restore, kill -9 and start again.
# usage: worker_life.sh   (GODWIT_VM, TEST_GUEST: paths)
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
VM=${GODWIT_VM:?path of godwit-vm}
GUEST=${TEST_GUEST:?path of the test guest}
[ -e /dev/kvm ] || { echo "SKIP worker_life: /dev/kvm is not there"; exit 77; }

dir=$(mktemp -d "${TMPDIR:-/tmp}/godwit-life.XXXXXX")
pids=()
cleanup() {
	[ ${#pids[@]} -eq 0 ] || kill -9 "${pids[@]}" 2>/dev/null
	rm -rf "$dir"
}
trap cleanup EXIT
failed=0
check() { # check NAME COMMAND...
	local name=$1
	shift
	if "$@"; then
		echo "PASS $name"
	else
		echo "FAIL $name"
		failed=1
		tail -5 "$dir/log" "$dir/console" 2>/dev/null
	fi
}
ctl() { deploy/ctl "$dir/control" "$@" 2>>"$dir/ctl.err"; }
start() {
	"$VM" --name life --memory 96M --vcpus 2 --kernel "$GUEST" --test-page on \
		--cmdline "testpage=0xfed80000 ws=24M content=random rate=5000 report=100" \
		--console "file:$dir/console" --control "$dir/control" --state-dir "$dir" "$@" 2>>"$dir/log" &
	worker=$!
	pids=("$worker")
}
oks() { grep -c 'guest: ok' "$dir/console" 2>/dev/null || true; }
goes_on() { # the guest says it is well at least three times more
	local i n
	n=$(oks)
	for i in {1..900}; do
		[ "$(oks)" -ge $((n + 3)) ] && ! grep -qE 'BAD|FATAL|guest: bad' "$dir/console" && return 0
		kill -0 "$worker" 2>/dev/null || return 1
		sleep 0.1
	done
	return 1
}
state_is() { [ "$(ctl status | python3 -c 'import json,sys; print(json.load(sys.stdin)["state"])')" = "$1" ]; }
stands_still() {
	local n
	n=$(oks)
	sleep 0.5
	[ "$(oks)" = "$n" ] && state_is paused
}
ends_with() { # ends_with STATUS
	local status=0
	wait "$worker" || status=$?
	pids=()
	[ "$status" = "$1" ] || { echo "the worker ended with $status, expected $1"; return 1; }
}
nothing_left() { [ ! -e "$dir/control" ]; }

start
check boots goes_on
check status state_is running
ctl pause >"$dir/out"
check pauses stands_still
ctl resume >"$dir/out"
check resumes goes_on

ctl save file=a.state go_on=true >"$dir/out"
check save_that_goes_on test -s "$dir/a.state"
check goes_on_after_a_save goes_on
refused() { ! ctl save "file=$1" >"$dir/out"; }
check save_outside_the_folder_is_refused refused ../b.state
check save_refused_changes_nothing goes_on
ctl save file=b.state >"$dir/out"
check save_that_stays_paused stands_still
check nothing_temporary_left test -z "$(find "$dir" -name '*.tmp*')"

second() { # a second worker at the same socket is refused, and the first goes on
	! "$VM" --name other --memory 64M --kernel "$GUEST" --control "$dir/control" 2>"$dir/second" &&
		[ "$(wc -l <"$dir/second")" = 1 ] && grep -q "$worker" "$dir/second"
}
check second_worker_is_refused_by_pid second
ctl stop >"$dir/out"
check stop_ends_in_order ends_with 0
check no_socket_left nothing_left

start --restore "$dir/b.state"
check restores goes_on
check a_restore_is_no_boot test "$(grep -c 'guest: boot' "$dir/console")" = 1

kill -9 "$worker"
wait "$worker" 2>/dev/null
start --restore "$dir/b.state"
check starts_again_after_kill_9 goes_on
ctl reset >"$dir/out"
check resets_in_place goes_on
check a_reset_is_a_boot test "$(grep -c 'guest: boot' "$dir/console")" = 2
kill -TERM "$worker"
check sigterm_ends_in_order ends_with 0

flipped() { # one flipped bit in the saved state: refused, named, nothing left
	python3 - "$dir/b.state" "$dir/c.state" <<'P'
import sys
data = bytearray(open(sys.argv[1], "rb").read())
data[len(data) // 2] ^= 1
open(sys.argv[2], "wb").write(data)
P
	! "$VM" --name c --memory 96M --vcpus 2 --kernel "$GUEST" --test-page on --restore "$dir/c.state" \
		--control "$dir/control" 2>"$dir/refused" && nothing_left
}
check flipped_bit_is_refused flipped
truncated() {
	head -c 1000000 "$dir/b.state" >"$dir/c.state"
	! "$VM" --name c --memory 96M --vcpus 2 --kernel "$GUEST" --test-page on --restore "$dir/c.state" \
		--control "$dir/control" 2>"$dir/refused" && nothing_left
}
check truncated_file_is_refused truncated
other_size() {
	! "$VM" --name c --memory 128M --vcpus 2 --kernel "$GUEST" --test-page on --restore "$dir/b.state" \
		2>"$dir/refused" && grep -q 'memory: the saved VM has 96 MiB' "$dir/refused"
}
check other_configuration_is_refused other_size
exit $failed
