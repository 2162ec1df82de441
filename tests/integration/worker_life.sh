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
memory=96M
words=
start() {
	"$VM" --name life --memory "$memory" --vcpus 2 --kernel "$GUEST" --test-page on \
		--cmdline "testpage=0xfed80000 ws=24M content=random rate=5000 report=100 $words" \
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
dumps() { # dumps HOLDS: both processors, and it stays as it was
	ctl dump >"$dir/out" && grep -q "^machine: holds: $1" "$dir/out" && grep -q '^vmbus: connected=' "$dir/out" &&
		[ "$(grep -c '^  local APIC: base=0x' "$dir/out")" = 2 ]
}
check dumps_a_running_one dumps "none; runs"
check goes_on_after_a_dump goes_on
ctl pause >"$dir/out"
check pauses stands_still
check dumps_a_paused_one dumps "user; stands still"
check still_paused_after_a_dump stands_still
ctl resume >"$dir/out"
check resumes goes_on

ctl save file=a.state go_on=true >"$dir/out"
check save_that_goes_on test -s "$dir/a.state"
check goes_on_after_a_save goes_on
refused() { ! ctl save "file=$1" >"$dir/out"; }
check save_outside_the_folder_is_refused refused ../b.state
check save_refused_changes_nothing goes_on
check nothing_temporary_left test -z "$(find "$dir" -name '*.part')"

second() { # a second worker at the same socket is refused, and the first goes on
	! "$VM" --name other --memory 64M --kernel "$GUEST" --control "$dir/control" 2>"$dir/second" &&
		[ "$(wc -l <"$dir/second")" = 1 ] && grep -q "$worker" "$dir/second"
}
check second_worker_is_refused_by_pid second

# A save that is not told to go on hands the machine to the file: the worker ends, and says so first.
: >"$dir/events"
deploy/ctl "$dir/control" --events >"$dir/events" 2>/dev/null &
listener=$!
for _ in {1..600}; do # until it is heard
	grep -q paused "$dir/events" && break
	ctl pause >"$dir/out"
	sleep 0.05
done
ctl resume >"$dir/out"
check goes_on_with_a_listener goes_on
ctl save file=b.state >"$dir/out"
check save_answers grep -q '"file": "b.state"' "$dir/out"
check save_ends_the_worker ends_with 0
wait "$listener"
check save_tells_subscribers grep -q '"saved".*"go_on": false' "$dir/events"
check save_is_the_reason grep -q 'evt=vm.ending .*why=saved' "$dir/log"
check no_socket_left nothing_left

start --restore "$dir/b.state"
check restores goes_on
twice() { # two workers must not go on from one saved state at once
	! "$VM" --name twice --memory 96M --vcpus 2 --kernel "$GUEST" --test-page on \
		--restore "$dir/b.state" 2>"$dir/refused" && grep -q 'another worker' "$dir/refused"
}
check a_second_restore_of_the_same_file_is_refused twice
check a_restore_is_no_boot test "$(grep -c 'guest: boot' "$dir/console")" = 1

kill -9 "$worker"
wait "$worker" 2>/dev/null
start --restore "$dir/b.state"
check starts_again_after_kill_9 goes_on
ctl reset >"$dir/out"
check resets_in_place goes_on
check a_reset_is_a_boot test "$(grep -c 'guest: boot' "$dir/console")" = 2
ctl stop >"$dir/out"
check stop_ends_in_order ends_with 0
check no_socket_left_by_stop nothing_left

start
check boots_again goes_on
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

# --- killed in the middle of a save ---

memory=384M
words="fill=224M"
kill_while_saving() { # kill_while_saving NAME: kill -9 while .NAME.part is being written
	local try saver
	for try in {1..20}; do
		ctl save "file=$1" go_on=true >"$dir/out" &
		saver=$!
		until [ -s "$dir/.$1.part" ]; do
			kill -0 "$saver" 2>/dev/null || break
		done
		kill -STOP "$worker" # nothing moves while we look
		until grep -q '^State:.T' "/proc/$worker/status"; do
			kill -0 "$worker" || return 1
			sleep 0.01
		done
		if [ -s "$dir/.$1.part" ]; then
			kill -9 "$worker"
			wait "$worker" 2>/dev/null
			wait "$saver"
			return 0
		fi
		kill -CONT "$worker"
		wait "$saver"
	done
	echo "never found .$1.part in $try tries"
	return 1
}
: >"$dir/console"
start
check larger_one_boots goes_on
check killed_in_a_save kill_while_saving new.state
check killed_save_left_its_part test -s "$dir/.new.state.part"
whole_or_absent() { [ ! -e "$dir/$1" ] || head -c 8 "$dir/$1" | grep -q GODWITSV; }
check name_has_no_half_file whole_or_absent new.state
: >"$dir/log"
start
check starts_after_a_killed_save goes_on
check start_sweeps_the_part test ! -e "$dir/.new.state.part"
check sweep_is_logged grep -q 'evt=vm.swept .*files=1' "$dir/log"
ctl save file=d.state go_on=true >"$dir/out"
check killed_in_a_later_save kill_while_saving d.state
: >"$dir/console"
start --restore "$dir/d.state"
check file_of_the_name_is_whole goes_on
ctl save file=d.state >"$dir/out"
check save_over_it_ends_the_worker ends_with 0

# --- commands and signals while a state is read ---

early() { # early LINES: connect as soon as there is a socket; its answers, until the worker ends
	python3 - "$dir/control" "$1" <<'P'
import socket
import sys
import time
print("up", flush=True)
link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
end = time.monotonic() + 60
while True:
    try:
        link.connect(sys.argv[1])
        break
    except OSError:
        if time.monotonic() > end:
            sys.exit("no socket")
        time.sleep(0.001)
link.sendall((sys.argv[2] + "\n").encode())
for line in link.makefile("r"):
    print(line.strip(), flush=True)
P
}
: >"$dir/log"
: >"$dir/out"
early '{"id":1,"cmd":"status"}
{"id":2,"cmd":"pause"}
{"id":3,"cmd":"stop"}' >"$dir/out" &
client=$!
until [ -s "$dir/out" ]; do sleep 0.01; done
start --restore "$dir/d.state"
check stop_while_restoring_ends ends_with 0
wait "$client"
check status_while_restoring grep -q '"state":"restoring"' "$dir/out"
check change_while_restoring_is_refused grep -q '"code":"EAGAIN".*loaded' "$dir/out"
check stopped_before_it_ran test "$(grep -c 'evt=vm.ready' "$dir/log")" = 0
check nothing_left_of_the_restore nothing_left
: >"$dir/out"
early '{"id":1,"cmd":"status"}' >"$dir/out" &
client=$!
until [ -s "$dir/out" ]; do sleep 0.01; done
start --restore "$dir/d.state"
for _ in {1..6000}; do
	grep -q '"ok":true' "$dir/out" && break
	sleep 0.01
done
kill -TERM "$worker"
check sigterm_after_an_early_status_ends ends_with 0
wait "$client"
check nothing_left_of_it_either nothing_left

# --- quit while a state is being saved is carried out after it ---

: >"$dir/console"
start --restore "$dir/d.state" --quit-timeout 0
check restores_again goes_on
early '{"id":1,"cmd":"save","file":"e.state","go_on":true}
{"id":2,"cmd":"quit"}' >"$dir/out"
check quit_during_a_save_ends ends_with 0
check quit_is_accepted grep -q '"id":2,"ok":true' "$dir/out"
check save_is_finished_first grep -q '"id":1,"ok":true' "$dir/out"
check save_before_the_quit_is_there test -s "$dir/e.state"
exit $failed
