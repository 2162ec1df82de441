#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: Apache-2.0
# The init of the guest that is recorded: uses what the worker gives it in as many ways as a small
# initramfs can, says "record: ready", and is shut down from outside. Made for variety, not for checks.
/bin/busybox --install -s /bin
export PATH=/bin:/sbin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
say() {
	echo "record: $*" >/dev/console
}
while read -r module; do
	insmod "/modules/$module" 2>/dev/null # some are for other processors
done </modules/order
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	[ -e /dev/sda ] && [ -e /dev/sr0 ] && [ -e /sys/class/net/eth0 ] && break
	sleep 1
done
hv_kvp_daemon -n >/dev/null 2>&1 &
hv_vss_daemon -n >/dev/null 2>&1 &

storage() {
	dd if=/dev/urandom of=/data bs=64k count=16 2>/dev/null
	dd if=/data of=/dev/sda bs=64k conv=fsync 2>/dev/null
	dd if=/data of=/dev/sda bs=512 count=3 seek=9001 oflag=direct 2>/dev/null
	dd if=/dev/sda of=/dev/null bs=1M count=4 iflag=direct 2>/dev/null
	blkdiscard -o 4194304 -l 8388608 /dev/sda
	blkdiscard -z -o 1048576 -l 2097152 /dev/sda
	blockdev --flushbufs /dev/sda
	dd if=/dev/sr0 of=/dev/null bs=2048 count=8 2>/dev/null
}
network() {
	ifconfig eth0 10.99.0.2 netmask 255.255.255.0 up
	ip -6 addr add fd99::2/64 dev eth0 nodad
	ping -c 2 10.99.0.1 >/dev/null
	ping -c 1 -s 4000 10.99.0.1 >/dev/null
	ping6 -c 1 fd99::1 >/dev/null
	nc -w 5 10.99.0.1 7000 </dev/null >/dev/null
	dd if=/dev/zero bs=3000 count=1 2>/dev/null | nc -w 2 10.99.0.1 7000 >/dev/null
	nslookup -timeout=1 godwit.test 10.99.0.1 >/dev/null 2>&1
	nslookup -timeout=1 godwit.test fd99::1 >/dev/null 2>&1
	vconfig add eth0 5 >/dev/null && ifconfig eth0.5 10.98.0.2 netmask 255.255.255.0 up &&
		ping -c 1 -W 1 10.98.0.1 >/dev/null
	ip link set eth0 promisc on
	ip link set eth0 promisc off
	ip link set eth0 allmulticast on
	ip link set eth0 down
	ip link set eth0 mtu 1400
	ip link set eth0 address 02:00:00:00:00:03
	ip link set eth0 up
	ping -c 1 -W 2 10.99.0.1 >/dev/null
}
storage && say storage
network
say network
say ready
while :; do
	sleep 60
done
