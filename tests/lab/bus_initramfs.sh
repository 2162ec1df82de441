#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# bus_initramfs.sh KERNEL-VERSION OUT [MODULE...]: an initramfs that loads the kernel's own drivers for
# VMBus (and MODULEs), uses disk and network, says what it found, and waits to be shut down from outside.
set -euo pipefail
version=$1 out=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work"/{bin,sbin,modules,proc,sys,dev}
cp "$(command -v busybox)" "$work/bin/busybox"
for module in hv_vmbus hv_utils hv_storvsc sd_mod hv_netvsc "${@:3}"; do
	modprobe -S "$version" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r path; do
	cp "$path" "$work/modules/" && echo "${path##*/}" >>"$work/modules/order"
done

# What the kernel runs when the host asks it to power off.
printf '#!/bin/busybox sh\nexec /bin/busybox poweroff -f\n' >"$work/sbin/poweroff"
chmod 0755 "$work/sbin/poweroff"
cat >"$work/init" <<'I'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
say() {
	echo "bus: $*" >/dev/console
}
while read -r module; do
	insmod "/modules/$module" 2>/dev/null # some are for other processors
done </modules/order
wait_for() { # wait_for FILE
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
		[ -e "$1" ] && return 0
		sleep 1
	done
	say "missing $1"
	return 1
}
disk() { # what is written with a flush comes back from the disk
	dd if=/dev/urandom of=/data bs=64k count=32 2>/dev/null
	dd if=/data of=/dev/sda bs=64k conv=fsync 2>/dev/null || return 1
	echo 3 >/proc/sys/vm/drop_caches
	dd if=/dev/sda of=/again bs=64k count=32 iflag=direct 2>/dev/null || return 1
	cmp /data /again
}
network() {
	ifconfig eth0 10.99.0.2 netmask 255.255.255.0 up && ping -c 3 10.99.0.1 >/dev/null &&
		[ "$(nc -w 10 10.99.0.1 7000 </dev/null)" = hello ]
}
wait_for /dev/sda && disk && say disk ok
wait_for /sys/class/net/eth0 && network && say network ok
dmesg | grep -E 'BUG:|Oops|Call Trace|soft lockup|detected stall' && say oops
say "vcpus $(nproc) vmbus $(ls /sys/bus/vmbus/devices | wc -l) up $(cut -d' ' -f1 /proc/uptime)"
say ready
round=0
while grep -q bus_load /proc/cmdline; do # disk and network without a pause; the date of each round
	round=$((round + 1))
	dd if=/dev/urandom of=/data bs=64k count=8 2>/dev/null
	dd if=/data of=/dev/sda bs=64k seek=$((round % 64 * 8)) conv=fsync 2>/dev/null || say load BAD write
	dd if=/dev/sda of=/again bs=64k skip=$((round % 64 * 8)) count=8 iflag=direct 2>/dev/null
	cmp /data /again || say load BAD data
	[ "$(nc -w 10 10.99.0.1 7000 </dev/null)" = hello ] || say load BAD network
	say "load $round at $(date +%s)"
done
while :; do
	sleep 60
done
I
chmod 0755 "$work/init"
(cd "$work" && find . | busybox cpio -o -H newc 2>/dev/null) >"$out"
