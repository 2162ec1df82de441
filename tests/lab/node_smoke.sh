#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The lab itself: two nodes reach each other, share a disk and a folder, write by RDMA, and their
# exit status, death, cable, pause and timeout come back. Exit 0 ok, 77 skipped with the reason.
set -u
# shellcheck source=lab_lib.sh source-path=SCRIPTDIR
. "$(dirname "$(readlink -f "$0")")/lab_lib.sh"

# ---- in the nodes

two_nodes() { # runs in both nodes of the first lab
	local peer=n$((3 - LAB_NODE)) disk
	check ping busybox ping -c 3 -W 20 "$peer"
	for disk in /dev/disk/by-lab/disk0 /dev/disk/by-lab/disk1; do
		if [[ $LAB_NODE == 1 ]]; then
			head -c 4M /dev/urandom >"/run/data"
			sha256sum </run/data >"/lab/shared/sum-${disk##*/}"
			check "write-${disk##*/}" dd if=/run/data of="$disk" bs=1M oflag=direct status=none
		fi
		check "barrier-${disk##*/}" lab-barrier "written-${disk##*/}"
		if [[ $LAB_NODE == 2 ]]; then
			check "read-${disk##*/}" same_on_disk "$disk"
		fi
	done
	check own-disk test -b /dev/disk/by-lab/disk2
	check watchdog test -c /dev/watchdog
	check environment test "$SMOKE" = "two words"
	rdma_write
	checks_end
}

same_on_disk() {
	[[ $(dd if="$1" bs=1M count=4 iflag=direct status=none | sha256sum) == \
		$(cat "/lab/shared/sum-${1##*/}") ]]
}

rdma_write() {
	check rdma-link grep -q 'rxe0/1 state ACTIVE' <(rdma link)
	if ! command -v rping >/dev/null || [[ ! -d /etc/libibverbs.d ]]; then
		skip rdma-rping "Debian packages rdmacm-utils and ibverbs-providers"
		return
	fi
	if [[ $LAB_NODE == 1 ]]; then
		rping -s -C 10 -a 10.88.0.1 >/run/rping 2>&1 &
		until rdma resource show cm_id | grep -q LISTEN || ! kill -0 $!; do
			sleep 0.1
		done
		lab-barrier rping-listens
		check rdma-rping wait $!
	else
		lab-barrier rping-listens
		check rdma-rping rping -c -C 10 -a 10.88.0.1
	fi
}

cut_off() { # runs in the only node of the second lab: the host pulls its cable, then kills it
	check reach busybox ping -c 1 -W 20 10.88.0.254
	lab-barrier reached 2
	lab-barrier pulled 2
	check carrier-lost test "$(cat /sys/class/net/eth0/carrier)" = 0
	lab-barrier seen 2
	lab-barrier plugged 2
	check carrier-back test "$(cat /sys/class/net/eth0/carrier)" = 1
	checks_end || exit 1
	lab-barrier all-done 2
	sleep 1000
}

# ---- on the host

drive_cut_off() { # the other side of cut_off
	local run=$1
	"$LAB" barrier "$run" reached 2 120 && "$LAB" pull "$run" 1 && "$LAB" barrier "$run" pulled 2 &&
		"$LAB" barrier "$run" seen 2 && "$LAB" plug "$run" 1 && "$LAB" barrier "$run" plugged 2 &&
		"$LAB" barrier "$run" all-done 2 && "$LAB" pause "$run" 1 && "$LAB" resume "$run" 1 &&
		"$LAB" kill "$run" 1 42
}

nothing_left() { # nothing_left RUN
	[[ ! -e /run/netns/godwit-lab-$1 && ! -e ${TMPDIR:-/tmp}/godwit-lab.$1 ]]
}

on_host() {
	local me run driver status
	me=$(readlink -f "$0")
	lab_or_skip
	export SMOKE="two words"
	check two-nodes "$LAB" run --nodes 2 --mem 512 --rdma --watchdog i6300esb --disk 16M --lun 16M \
		--own-disk 16M --env SMOKE --timeout 240 -- "$me" two_nodes

	run=smoke$$
	"$LAB" run --run "$run" --smp 1 --mem 512 --timeout 240 -- "$me" cut_off &
	driver=$!
	until [[ -e ${TMPDIR:-/tmp}/godwit-lab.$run/run/barrier ]] || ! kill -0 "$driver" 2>/dev/null; do
		sleep 0.2
	done
	check drive drive_cut_off "$run"
	wait "$driver"
	status=$?
	check killed-status test "$status" = 42
	check nothing-left nothing_left "$run"

	"$LAB" run --run "$run" --lans 0 --smp 1 --mem 512 --timeout 5 --quiet -- sleep 1000
	status=$?
	check timeout-status test "$status" = 124
	check nothing-left-again nothing_left "$run"
	"$LAB" run --run "$run" --lans 0 --disk nonsense -- true
	status=$?
	check error-status test "$status" = 125
	checks_end
}

"${1:-on_host}"
