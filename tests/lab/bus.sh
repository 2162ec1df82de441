#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# bus.sh [BOOTS]: the unmodified Debian kernel boots with 1, 2 and 4 vCPUs, BOOTS times each (1), on a
# VHDX on the storage service and a network card in a bridge; disk and network are used, the guest's
# heartbeat is seen, and it is shut down from outside. Before that one is saved and restored twice (in a
# long run three times) under load. On the host it starts a lab node for that; in a node it does it. A
# boot that stalls shows rings and channels (the command dump).
set -u
# shellcheck source=lab_lib.sh source-path=SCRIPTDIR
. "$(dirname "$(readlink -f "$0")")/lab_lib.sh"

boots=${1:-1}
GODWIT_VM=$(readlink -f "${GODWIT_VM:-/nonexistent}")
GODWIT=${GODWIT:-$(dirname "$GODWIT_VM")/godwit}
export GODWIT_VM GODWIT
if [[ -z ${LAB_NODE:-} ]]; then
	lab_or_skip
	if [[ ! -x $GODWIT_VM ]]; then
		echo "skipped: no godwit-vm at '$GODWIT_VM' (GODWIT_VM)"
		exit 77
	fi
	exec "$LAB" run --mem 1536 --smp 1 --lans 0 --module kvm_amd --module tun --module bridge \
		--timeout $((300 + boots * 300)) --env GODWIT_VM --env GODWIT -- "$LAB_TESTS/bus.sh" "$boots"
fi

CTL=$LAB_TESTS/../../deploy/ctl
BOOT_SECONDS=600 # a node that gets a third of a processor took 203
work=/run/bus # a file system that takes direct I/O
mkdir -p "$work/state"
for _ in {1..100}; do
	[[ -c /dev/kvm ]] && break
	sleep 0.1
done
kernel=$(find /boot -maxdepth 1 -name 'vmlinuz-*-amd64' ! -name '*-cloud-*' | sort -V | tail -n 1)
# What its boot code would unpack, which takes a software CPU ten seconds each time.
python3 - "$kernel" "$work/vmlinux" <<'P' || { fail bus-kernel "cannot be unpacked"; exit 1; }
import lzma, struct, sys
image = open(sys.argv[1], "rb").read()
offset, size = struct.unpack_from("<II", image, 0x248)  # payload_offset, payload_length
offset += (image[0x1F1] + 1) * 512                      # setup_sects
open(sys.argv[2], "wb").write(lzma.LZMADecompressor().decompress(image[offset:offset + size]))
P
"$LAB_TESTS/bus_initramfs.sh" "${kernel#/boot/vmlinuz-}" "$work/initrd" || {
	fail bus-initramfs "cannot be made"
	exit 1
}
# An address of its own: otherwise it changes with the ports, and the guest's neighbour entry is wrong.
ip link add br0 address 02:00:00:00:00:01 type bridge && ip addr add 10.99.0.1/24 dev br0 && ip link set br0 up
echo hello >"$work/hello"
socat -U TCP-LISTEN:7000,reuseaddr,fork "OPEN:$work/hello,rdonly" &
server=$!
trap 'kill $server' EXIT

wait_console() { # wait_console TEXT: whether the console has it in time, while the worker runs
	local end=$((SECONDS + BOOT_SECONDS))
	until grep -aqF "$1" "$work/console"; do
		((SECONDS < end)) && kill -0 "$worker" 2>/dev/null || return 1
		sleep 0.3
	done
}

heartbeat() { # the first one comes some seconds after the driver
	for _ in {1..100}; do
		"$CTL" "$work/control" guest >"$work/answer" && grep -q '"heartbeat": *"ok"' "$work/answer" &&
			return 0
		sleep 0.3
	done
	return 1
}

fresh() { # no disk, no console of before
	rm -f "$work"/{console,log,control,control.lock,disk.vhdx,state/*}
	: >"$work/console"
	"$GODWIT" disk create "$work/disk.vhdx" 64M >/dev/null
}

start() { # start NAME VCPUS MORE-ON-THE-CMDLINE [OPTION...]: the worker
	"$GODWIT_VM" --name "$1" --memory 192M --vcpus "$2" --cpu x86-64-v2 --kernel "$kernel" \
		--initrd "$work/initrd" --disk "$work/disk.vhdx" --nic bridge=br0,mac=02:00:00:00:00:02 \
		--cmdline "console=ttyS0 quiet panic=-1 mitigations=off audit=0 random.trust_cpu=on $3" \
		--console "file:$work/console" --control "$work/control" --state-dir "$work/state" \
		"${@:4}" >>"$work/log" 2>&1 &
	worker=$!
}

ended() { # whether the worker ends by itself; its status is in $status
	for _ in {1..600}; do
		kill -0 "$worker" 2>/dev/null || break
		sleep 0.1
	done
	if kill -KILL "$worker" 2>/dev/null; then
		wait "$worker"
		status=137
		return 1
	fi
	status=0
	wait "$worker" || status=$?
}

round() { # the number of the last round of load, 0: none
	local last
	last=$(grep -aoE 'bus: load [0-9]+ at' "$work/console" | tail -n 1 | grep -oE '[0-9]+')
	echo "${last:-0}"
}

rounds() { # rounds COUNT: whether so many more come in time
	local first end=$((SECONDS + BOOT_SECONDS))
	first=$(round)
	until (($(round) >= first + $1)); do
		((SECONDS < end)) && kill -0 "$worker" 2>/dev/null || return 1
		sleep 0.3
	done
}

off_by() { # how far the guest's clock is behind ours, seconds: the least of some rounds, as we may be late to look
	local line last= now best=1000 end=$((SECONDS + 60))
	for ((seen = 0; seen < 4 && SECONDS < end;)); do
		line=$(grep -aoE 'bus: load [0-9]+ at [0-9]+' "$work/console" | tail -n 1)
		now=$((EPOCHSECONDS - ${line##* }))
		now=${now#-}
		((now < best)) && best=$now
		[[ $line != "$last" ]] && seen=$((seen + 1)) && last=$line
		sleep 0.2
	done
	echo "$best"
}

FAULTS='bus: load BAD|BUG:|soft lockup|detected stall' # what a guest says that something is wrong

save_restore() { # save_restore VCPUS TIMES: saved and restored under load, nothing is lost
	local name=bus-save-$1-vcpus began=$SECONDS reason= off=
	fresh
	start "$name" "$1" bus_load
	rounds 3 || reason="no load after $((SECONDS - began)) s"
	for ((i = 1; i <= $2; i++)); do
		[[ -z $reason ]] || break
		"$CTL" "$work/control" save "file=s$i" >"$work/answer" 2>&1 || reason="save: $(cat "$work/answer")"
		ended && [[ $status == 0 ]] || reason=${reason:-the worker ended with $status after the save}
		sleep $((i == 2 ? 30 : 3)) # time goes on meanwhile, once for longer than Linux' watchdogs wait
		[[ -n $reason ]] || start "$name" "$1" bus_load --restore "$work/state/s$i"
		[[ -n $reason ]] || rounds 4 || reason="no load after restore $i"
		off=$(off_by)
		((off <= 2)) || reason=${reason:-the clock is $off s late after restore $i}
	done
	grep -aqE "$FAULTS" "$work/console" &&
		reason=${reason:-the guest found a fault}
	[[ -z $reason ]] || "$CTL" "$work/control" dump
	kill -KILL "$worker" 2>/dev/null && wait "$worker" 2>/dev/null
	if [[ -n $reason ]]; then
		grep -aE -B5 -A40 "$FAULTS" "$work/console"
		tail -n 30 "$work/console" "$work/log"
		fail "$name" "$reason"
	else
		pass "$name" "$((SECONDS - began)) s, $(round) rounds, clock off by at most 2 s"
	fi
}

boot() { # boot VCPUS NUMBER
	local name=bus-$1-vcpus-$2 began=$SECONDS reason=
	fresh
	start "$name" "$1" ""
	if ! wait_console "bus: ready"; then
		reason="not ready after $((SECONDS - began)) s"
	elif ! grep -aqF "bus: disk ok" "$work/console"; then
		reason="the disk failed"
	elif ! grep -aqF "bus: network ok" "$work/console"; then
		reason="the network failed"
	elif ! grep -aqF "bus: vcpus $1 " "$work/console" || grep -aqF "bus: oops" "$work/console"; then
		reason="the kernel complained"
	elif ! heartbeat; then
		reason="no heartbeat: $(cat "$work/answer")"
	elif ! "$CTL" "$work/control" shutdown >"$work/answer"; then
		reason="shutdown: $(cat "$work/answer")"
	fi
	if [[ -n $reason ]]; then
		"$CTL" "$work/control" dump
		kill -KILL "$worker" 2>/dev/null
	fi
	ended || reason=${reason:-still running 60 s after the shutdown}
	[[ -n $reason || $status == 0 ]] || reason="worker's exit status $status"
	if [[ -n $reason ]]; then
		tail -n 30 "$work/console" "$work/log"
		fail "$name" "$reason"
	else
		pass "$name" "$((SECONDS - began)) s, $(grep -aoE 'up [0-9.]+' "$work/console") s"
	fi
}

kernel=$work/vmlinux
save_restore 2 $((boots > 3 ? 3 : 2))
for ((n = 1; n <= boots; n++)); do
	for vcpus in 1 2 4; do
		boot "$vcpus" "$n"
	done
done
checks_end
