#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# record.sh [LOG]: boots the unmodified Debian kernel on a worker that writes down what the guest sends
# it, and makes seeds of the fuzz targets of that (docs/tests/fuzzing.md). With LOG: from a recording made
# before, else one is made in a lab node and kept as build/record/log.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$here/../../..
# shellcheck source=../../lab/lab_lib.sh source-path=SCRIPTDIR
. "$top/tests/lab/lab_lib.sh"
DAEMONS=(hv_kvp_daemon hv_vss_daemon)
BOOT_SECONDS=240

on_the_host() { # build the recorder, make a recording in a node
	local daemon out=$top/build/record
	lab_or_skip
	for daemon in "${DAEMONS[@]}"; do
		command -v "$daemon" >/dev/null && continue
		echo "record.sh: no $daemon: install the Debian package hyperv-daemons" >&2
		exit 2
	done
	cmake --preset release >/dev/null
	cmake --build "$top/build/release" --target godwit-vm-recorder godwit
	mkdir -p "$out"
	GODWIT_VM=$(readlink -f "$top/build/release/tests/godwit-vm-recorder")
	GODWIT=$(readlink -f "$top/build/release/godwit")
	export GODWIT_VM GODWIT
	"$LAB" run --mem 1536 --smp "${RECORD_SMP:-2}" --lans 0 --module kvm_amd --module tun --module bridge \
		--timeout 900 --shared "$out" --env GODWIT_VM --env GODWIT -- "$here/record.sh"
}

make_initrd() { # make_initrd OUT: the initramfs of bus.sh, and what is behind it takes the place of files in it
	local kernel=${1:?} more file
	more=$work/more
	"$LAB_TESTS/bus_initramfs.sh" "${kernel#/boot/vmlinuz-}" "$work/initrd" sr_mod 8021q
	mkdir -p "$more"/{bin,sbin,var/lib/hyperv}
	install -m 0755 "$here/guest.sh" "$more/init"
	install -m 0755 "$here/poweroff.sh" "$more/sbin/poweroff"
	for file in "${DAEMONS[@]}"; do
		install -m 0755 "$(command -v "$file")" "$more/sbin/"
		ldd "$more/sbin/$file" | grep -oE '/[^ ]+' | while read -r library; do
			install -D -m 0755 "$library" "$more$library"
		done
	done
	(cd "$more" && find . | busybox cpio -o -H newc 2>/dev/null) >>"$work/initrd"
}

until_console() { # until_console TEXT: the worker is there, and the console has it in time
	local end=$((SECONDS + BOOT_SECONDS))
	until grep -aqF "$1" "$work/console"; do
		if ((SECONDS >= end)) || ! kill -0 "$worker" 2>/dev/null; then
			echo "record.sh: the guest did not say '$1'" >&2
			tail -n 30 "$work/console" >&2
			grep -v '^record ' "$work/log" | tail -n 30 >&2
			exit 1
		fi
		sleep 0.3
	done
}

tell() { # tell COMMAND...: to the worker; whatever comes of it
	"$LAB_TESTS/../../deploy/ctl" "$work/control" "$@" || true
	sleep 2
}

in_the_node() {
	local kernel
	work=/run/record
	mkdir -p "$work/state"
	for _ in {1..100}; do
		[[ -c /dev/kvm ]] && break
		sleep 0.1
	done
	kernel=$(find /boot -maxdepth 1 -name 'vmlinuz-*-amd64' ! -name '*-cloud-*' | sort -V | tail -n 1)
	make_initrd "$kernel"
	ip link add br0 address 02:00:00:00:00:01 type bridge
	ip addr add 10.99.0.1/24 dev br0
	ip addr add fd99::1/64 dev br0 nodad
	ip link set br0 up
	socat -U TCP-LISTEN:7000,reuseaddr,fork "EXEC:echo hello" &
	server=$!
	"$GODWIT" disk create "$work/disk.vhdx" 64M >/dev/null
	"$GODWIT" disk create "$work/more.vhdx" 8M >/dev/null
	truncate -s 1M "$work/dvd.iso"
	: >"$work/console"
	"$GODWIT_VM" --name record --memory 224M --vcpus 2 --cpu x86-64-v2 --kernel "$kernel" \
		--initrd "$work/initrd" --disk "$work/disk.vhdx" --disk "$work/dvd.iso,dvd" \
		--nic bridge=br0,mac=02:00:00:00:00:02,queues=2 \
		--cmdline "console=ttyS0 quiet panic=-1 mitigations=off audit=0 random.trust_cpu=on" \
		--console "file:$work/console" --control "$work/control" --state-dir "$work/state" \
		>>"$work/log" 2>&1 &
	worker=$!
	trap 'kill "$server" "$worker" 2>/dev/null' EXIT
	until_console "record: ready"
	tell guest
	tell time-sync
	tell checkpoint name=record
	tell disk-resize lun=0 size=134217728
	tell disk-add "disk=$work/more.vhdx"
	tell link nic=0 up=false
	tell link nic=0 up=true
	tell guest
	tell shutdown
	for _ in {1..300}; do
		kill -0 "$worker" 2>/dev/null || break
		sleep 0.2
	done
	grep -a 'record: ' "$work/console"
	cp "$work/log" /lab/shared/log
	grep -c '^record ' "$work/log"
}

if [[ -n ${LAB_NODE:-} ]]; then
	in_the_node
	exit
fi
log=${1:-}
if [[ -z $log ]]; then
	on_the_host
	log=$top/build/record/log
fi
python3 "$here/seeds.py" "$log" "$top/tests/fuzz/corpus"
