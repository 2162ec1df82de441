#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# migrate.sh [GODWIT-VM [TEST-GUEST]]: two workers in two network namespaces that share nothing: the
# self-verifying guest moves there and back; what is refused, cancelled or killed leaves it running
# where it was. On the host it starts a lab node, in a node it does the work.
set -u
# shellcheck source=lab_lib.sh source-path=SCRIPTDIR
. "$(dirname "$(readlink -f "$0")")/lab_lib.sh"
[[ -n ${LAB_NODE:-} ]] || exec "$LAB_TESTS/worker.sh" migrate "$@"

worker=${1:-${GODWIT_VM:-}}
guest=${2:-${TEST_GUEST:-}}
if [[ ! -x $worker || ! -r $guest ]]; then
	skip migrate "no godwit-vm or test guest at '$worker', '$guest'"
	exit 77
fi
work=$(mktemp -d /run/migrate.XXXXXX)
ctl=$(dirname "$worker")/tests/worker_ctl # an interpreter takes a node a second to start
[[ -x $ctl ]] || ctl=$LAB_TESTS/../../deploy/ctl
with_disk=0 memory=96M vcpus=2 test_page=on
load='' # with a disk: records that the guest verifies, before and after
declare -A pid=([a]='' [b]='') address=([a]=10.99.0.1 [b]=10.99.0.2)
cleanup() {
	local side
	for side in a b; do
		[[ -z ${pid[$side]} ]] || kill -KILL "${pid[$side]}" 2>/dev/null
		ip netns del "gw-$side" 2>/dev/null
	done
	rm -rf "$work"
}
trap cleanup EXIT

ip netns add gw-a && ip netns add gw-b &&
	ip link add gw-va netns gw-a type veth peer name gw-vb netns gw-b || exit 1
for side in a b; do
	mkdir "$work/$side" && : >"$work/$side/log"
	ip -n "gw-$side" addr add "${address[$side]}/24" dev "gw-v$side"
	ip -n "gw-$side" link set "gw-v$side" up
done
"$LAB_TESTS/../../deploy/tls-ca" "$work/tls" "a,${address[a]}" "b,${address[b]}" || exit 1

ctl() { # ctl SIDE COMMAND [ARG...]
	"$ctl" "$work/$1/control" "${@:2}"
}

start() { # start SIDE [FLAG...]
	local side=$1 disk=()
	shift
	((with_disk == 0)) || disk=(--disk "$work/$side/d.vhdx")
	: >"$work/$side/console"
	ip netns exec "gw-$side" "$worker" --name mover --memory "$memory" --vcpus "$vcpus" --cpu x86-64-v2 --kernel "$guest" \
		--cmdline "testpage=0xfed80000 ws=16M fill=32M content=random rate=2000 report=200 $load" --test-page "$test_page" \
		"${disk[@]}" --console "file:$work/$side/console" --control "$work/$side/control" \
		--state-dir "$work/$side" --migrate-tls "$work/tls/$side" --migrate-peers "$(other "$side")" \
		"$@" >>"$work/$side/log" 2>&1 </dev/null &
	pid[$side]=$!
}

waits() { # waits WHAT COMMAND...: until it succeeds
	local tick
	for ((tick = 0; tick < 600; tick++)); do
		"${@:2}" && return
		sleep 0.2
	done
	echo "waited for $1"
	tail -n 3 "$work"/?/log "$work"/?/console
	return 1
}

incoming() { # incoming SIDE [FLAG...]
	local side=$1 before
	shift
	before=$(count "$side" 'evt=vm.arriving')
	start "$side" --incoming "${address[$side]}:7011" "$@"
	waits "$side listens" more "$side" 'evt=vm.arriving' "$before"
}

more() { # more SIDE TEXT COUNT: the log has it more often than that
	(($(count "$1" "$2") > $3)) || ! kill -0 "${pid[$1]}" 2>/dev/null
}

count() { # count SIDE TEXT: lines of the log that have it
	grep -c "$2" "$work/$1/log"
}

oks() {
	grep -c 'guest: ok' "$work/$1/console" 2>/dev/null
}

goes_on() { # goes_on SIDE: the guest says that it is well, twice more
	local n
	n=$(oks "$1")
	waits "the guest at $1" ok_more "$1" $((n + 2)) &&
		! grep -qE 'BAD|FATAL|guest: bad' "$work/$1/console"
}

ok_more() {
	(($(oks "$1") >= $2)) || ! kill -0 "${pid[$1]}" 2>/dev/null
}

field() { # field KEY <JSON, of one line: the first of that name
	grep -oE "\"$1\": \"?[^\",}]*" | head -n 1 | sed 's/^"[^"]*": "\{0,1\}//'
}

number=0
verified() { # verified SIDE: the guest looks at every page, and finds none that is bad
	number=$((number + 1))
	ctl "$1" test-set reg=1 value=$((number << 8 | 3)) >/dev/null || return 1
	waits "the verification" acknowledged "$1" || return 1
	[[ $(register "$1" 33) == 0 && $(register "$1" 38) == 0 ]]
}

register() { # register SIDE NUMBER
	echo $(($(ctl "$1" test-get reg="$2" | field value)))
}

acknowledged() {
	[[ $(register "$1" 32) == $((number << 8 | 3)) ]]
}

ends_with() { # ends_with SIDE STATUS
	local status=0
	wait "${pid[$1]}" || status=$?
	pid[$1]=
	((status == $2)) || {
		echo "the worker at $1 ended with $status, expected $2"
		tail -5 "$work/$1/log"
		return 1
	}
}

nothing_in_doubt() {
	local side
	for side in a b; do
		"${GODWIT:-$(dirname "$worker")/godwit}" vm resolve --state-dir "$work/$side" || return
	done
}

other() {
	[[ $1 == a ]] && echo b || echo a
}

moves() { # moves FROM [ARG...]
	local to
	to=$(other "$1")
	if ctl "$1" migrate to="${address[$to]}:7011" "${@:2}" >"$work/report" 2>"$work/refused"; then
		cat "$work/report"
	else
		cat "$work/refused"
		return 1
	fi
}

fails() {
	! "$@"
}

costs() { # the last move was verified: memory and disk were hashed on both sides, little of it in the pause
	python3 - "$work/report" <<-'END'
		import json, sys
		report = json.load(open(sys.argv[1]))
		report = report.get("result", report)
		cost = report["verify"]
		assert cost["verified"], cost
		for side in ("", "there_"):
		    assert cost[side + "bytes"] >= 32 << 20, cost
		    assert cost[side + "running_ns"] > 0 and cost[side + "blackout_ns"] > 0, cost
		    assert cost[side + "blackout_ns"] <= report["blackout_ns"], cost
		print("verify:", cost, "blackout_ns:", report["blackout_ns"])
	END
}

slow() { # a link over which a move takes a minute
	ip netns exec gw-a tc qdisc replace dev gw-va root tbf rate 8mbit burst 64k latency 400ms
}

medium() { # a link over which a move takes seconds
	ip netns exec gw-a tc qdisc replace dev gw-va root tbf rate 40mbit burst 64k latency 50ms
}

both_carry() { # a MiB has gone over each of the two networks
	local device
	for device in gw-va gw-wa; do
		(($(ip netns exec gw-a cat "/sys/class/net/$device/statistics/tx_bytes") > carried[$device] + (1 << 20))) || return 1
	done
}

slowed() { # the guest at a is kept from writing as fast as it would
	[[ $(ctl a migrate-timeline 2>/dev/null | field throttle_permille_most) -gt 0 ]]
}

serving() { # it runs at b, and not all of its memory is there
	[[ $(ctl a migrate-status | field state) == serving ]]
}

fast() {
	ip netns exec gw-a tc qdisc del dev gw-va root
}

copying() { # the move from a is under way, and nothing is decided
	[[ $(ctl a migrate-status | field state) == copying ]]
}

start a
check migrate-boots waits 'the guest' grep -qs 'guest: ok' "$work/a/console"

# Everything that stands against it is said at once, and nothing has moved.
memory=64M vcpus=1 test_page=off
incoming b
memory=96M vcpus=2 test_page=on
check migrate-refused fails moves a
check migrate-refused-ends-there ends_with b 1
for what in 'vcpus: the VM has 2' 'memory: the VM has 96 MiB' 'test-page: the VM has it on'; do
	check "migrate-finding-${what%%:*}" grep -q "evt=vm.move-finding .*$what" "$work/a/log"
done
check migrate-refused-goes-on goes_on a

# Another host than was meant, and clear text that the other side does not want: neither has begun
# anything, and who waits goes on waiting.
incoming b
check migrate-another-name fails moves a peer=c
check migrate-another-name-says-so grep -q "certificate of 'b', '${address[b]}': another host, expected 'c'" "$work/refused"
check migrate-clear-is-refused fails moves a clear=true
check migrate-clear-says-so grep -q 'clear text, expected TLS' "$work/refused"
check migrate-clear-is-logged grep -q 'evt=vm.move-clear' "$work/a/log"
check migrate-refused-is-logged grep -q 'evt=vm.move-refused' "$work/b/log"
check migrate-waits-on kill -0 "${pid[b]}"
check migrate-refused-goes-on-again goes_on a
kill -KILL "${pid[b]}"
wait "${pid[b]}" 2>/dev/null

# Cancelled in the middle.
check migrate-slow-link slow
incoming b
moves a &
mover=$!
check migrate-copies waits 'the first bytes' copying
check migrate-save-is-refused fails ctl a save file=x.state
check migrate-cancel ctl a migrate-cancel
check migrate-cancelled fails wait "$mover"
check migrate-cancelled-ends-there ends_with b 1
check migrate-cancelled-goes-on goes_on a

# Killed in the middle.
incoming b
moves a &
mover=$!
check migrate-copies-again waits 'the first bytes' copying
kill -KILL "${pid[b]}"
check migrate-destination-killed fails wait "$mover"
check migrate-destination-killed-goes-on goes_on a
wait "${pid[b]}" 2>/dev/null

fast

# There, and back, and there again while it is paused.
incoming b
"${GODWIT:-$(dirname "$worker")/godwit}" vm report --control "$work/a/control" --wait --report "$work/page.html" 2>"$work/page.log" &
page=$!
check migrate-there moves a downtime_ms=3000 # a processor in software enciphers slowly
check migrate-there-is-not-under-the-kernels test "$(field kernel <"$work/report")" = false
check migrate-there-is-under-tls test "$(field peer <"$work/report")" = "${address[b]}"
check migrate-there-has-a-page wait "$page"
check migrate-there-page-is-whole grep -q 'id="phase-table"' "$work/page.html"
check migrate-there-page-is-sampled grep -q 'id="sent" class="sent line"' "$work/page.html"
check migrate-there-ends-here ends_with a 7
check migrate-there-goes-on goes_on b
check migrate-there-verified verified b
check migrate-there-epoch grep -q 'evt=vm.arrived .*epoch=2' "$work/b/log"
incoming a
check migrate-back moves b channels=1 downtime_ms=3000
check migrate-back-ends-there ends_with b 7
check migrate-back-goes-on goes_on a
check migrate-back-verified verified a
check migrate-back-epoch grep -q 'evt=vm.arrived .*epoch=3' "$work/a/log"

# Over two networks; one dies in the midst of it, and what went over it goes over the other.
ip link add gw-wa netns gw-a type veth peer name gw-wb netns gw-b
for side in a b; do
	ip -n "gw-$side" addr add "${address[$side]/10.99.0/10.99.1}/24" dev "gw-w$side"
	ip -n "gw-$side" link set "gw-w$side" up
done
slow
ip netns exec gw-a tc qdisc replace dev gw-wa root tbf rate 8mbit burst 64k latency 400ms
declare -A carried
both=${address[b]}:7011,${address[b]/10.99.0/10.99.1}:7011
before=$(count b 'evt=vm.arriving')
start b --incoming "$both"
check networks-listen waits 'b listens' more b 'evt=vm.arriving' "$before"
for device in gw-va gw-wa; do
	carried[$device]=$(ip netns exec gw-a cat "/sys/class/net/$device/statistics/tx_bytes")
done
ctl a migrate to="$both" spread=true downtime_ms=3000 >"$work/report" 2>"$work/refused" &
mover=$!
check networks-both-carry waits 'both networks' both_carry
ip -n gw-b link set gw-wb down
fast
check networks-moves wait "$mover"
check networks-was-cut test "$(field cuts <"$work/report")" -ge 1
check networks-ends-here ends_with a 7
check networks-goes-on goes_on b
check networks-verified verified b
incoming a
check networks-back moves b downtime_ms=3000
check networks-back-ends-there ends_with b 7
check networks-back-goes-on goes_on a
ctl a pause >/dev/null
incoming b
check migrate-paused moves a
check migrate-paused-ends-here ends_with a 7
check migrate-paused-stays-so test "$(ctl b status | field state)" = paused
ctl b resume >/dev/null
check migrate-resumed-goes-on goes_on b
check migrate-resumed-verified verified b
check migrate-nothing-in-doubt nothing_in_doubt
start a # where it has left
check migrate-gone-is-not-started ends_with a 1
ctl b stop >/dev/null
check migrate-stops ends_with b 0
rm -f "$work"/*/mover.*

# The same with a disk that comes along, and is gone from where it was refused.
with_disk=1
load='disk=stamp disk_bytes=8M disk_depth=4'
"${GODWIT:-$(dirname "$worker")/godwit}" disk create -q "$work/a/d.vhdx" 64M || exit 1
written() { # written SIDE: the guest has written more records than it had
	local before
	before=$(register "$1" 65)
	waits "writes at $1" more_written "$1" "$before" && [[ $(register "$1" 68) == 0 ]]
}

more_written() {
	(($(register "$1" 65) > $2))
}

adds_up() { # the parts of the blackout are all of it
	local part sum=0
	for part in pause last_round state let_go check commit activate; do
		sum=$((sum + $(field "${part}_ns" <"$work/report")))
	done
	((sum == $(field blackout_ns <"$work/report")))
}
start a
check migrate-disk-boots waits 'the disk load' grep -qs 'guest: disk running' "$work/a/console"
check migrate-disk-written written a
incoming b
slow
moves a &
mover=$!
check migrate-disk-copies waits 'the first bytes' copying
ctl a migrate-cancel >/dev/null
check migrate-disk-cancelled fails wait "$mover"
check migrate-disk-cancelled-ends-there ends_with b 1
fast
check migrate-disk-cancelled-leaves-nothing test -z "$(find "$work/b" -name 'd.vhdx*')"
check migrate-disk-cancelled-goes-on written a
incoming b
check migrate-disk-there moves a verify=true downtime_ms=3000 # a processor in software hashes slowly
check migrate-disk-there-says-what-verifying-cost costs
check migrate-disk-there-ends-here ends_with a 7
check migrate-disk-there-goes-on goes_on b
check migrate-disk-there-written written b
check migrate-disk-there-verified verified b
check migrate-disk-there-leaves-nothing test -z "$(find "$work/a" -name 'd.vhdx*')"
incoming a
# Quick: held, and moved as a whole in one round.
check migrate-quick-has-no-goal fails ctl b migrate to="${address[a]}:7011" mode=quick downtime_ms=5
check migrate-disk-back moves b mode=quick
check migrate-disk-back-is-quick test "$(field mode <"$work/report") $(field rounds <"$work/report")" = 'quick 1'
check migrate-disk-back-adds-up adds_up
check migrate-disk-back-ends-there ends_with b 7
check migrate-limits-of-the-host test -e /run/godwit/migrations/outgoing
check migrate-limits-are-kept fails grep -q 'evt=vm.move-host-none' "$work/a/log" "$work/b/log"
check migrate-disk-back-written written a
check migrate-disk-back-verified verified a

# Over a link that it is too fast for it is slowed, and not once the move is cancelled.
medium
incoming b
moves a throttle=90 downtime_ms=50 late=cancel &
mover=$!
check migrate-throttle-slows waits 'it is slowed' slowed
ctl a migrate-cancel >/dev/null
check migrate-throttle-cancelled fails wait "$mover"
check migrate-throttle-cancelled-ends-there ends_with b 1
check migrate-throttle-goes-on written a

# By post-copy, over a link that is cut meanwhile: it runs there before all of its memory has come.
medium
incoming b
moves a late=postcopy downtime_ms=1 time_limit_ms=1 &
mover=$!
check migrate-postcopy-serves waits 'serving' serving
ip -n gw-b link set gw-vb down
# What follows may have come whole before the link was down, on a node that was busy just then; with the
# link down it does not end any more.
state=$(ctl b migrate-status | field state)
echo "behind the link that is down: $state"
if [[ $state != none ]]; then
	check migrate-postcopy-says-so test "$state" = filling
	check migrate-postcopy-save-is-refused fails ctl b save file=x.state
fi
sleep 1
ip -n gw-b link set gw-vb up
check migrate-postcopy-moves wait "$mover"
fast
check migrate-postcopy-owed test "$(field owed_pages <"$work/report")" -gt 0
check migrate-postcopy-ends-here ends_with a 7
check migrate-postcopy-complete waits 'all pages' grep -q 'evt=vm.postcopy-complete' "$work/b/log"
grep 'evt=vm.postcopy-complete' "$work/b/log"
check migrate-postcopy-written written b
check migrate-postcopy-verified verified b

# The VM stays, its disk goes to another folder.
mkdir "$work/b/new"
check disk-move-moves ctl b disk-move lun=0 to="$work/b/new"
check disk-move-goes-on written b
check disk-move-is-there test -e "$work/b/new/d.vhdx" -a ! -e "$work/b/d.vhdx"
check disk-move-verified verified b
ctl b stop >/dev/null
check migrate-disk-stops ends_with b 0
check migrate-disk-is-whole "${GODWIT:-$(dirname "$worker")/godwit}" disk check "$work/b/new/d.vhdx"
checks_end
