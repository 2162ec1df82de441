#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Second half of a lab node's start, as process 1 on the node's own root: mounts, modules, network,
# then the command. $lab_node (the node's number) comes from the kernel command line.

# shellcheck disable=SC2015,SC2153,SC2154 # the variables come from $state/env
export LAB_NODE=$lab_node
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root TERM=dumb LANG=C.UTF-8
state=/lab/run/n$LAB_NODE

end() { # leave by a power-off; what the host must know has been written before
	sync
	echo o >/proc/sysrq-trigger
	sleep 120
}

fail() {
	echo "$*" >"$state/failed"
	end
}

mount_all() {
	mount -t tmpfs -o mode=0755 tmpfs /run && mkdir -p /run/lock /dev/pts /dev/shm /dev/hugepages &&
		mount -t devpts devpts /dev/pts &&
		mount -t tmpfs -o mode=1777 tmpfs /dev/shm &&
		mount -t tmpfs -o mode=1777 tmpfs /var/tmp &&
		mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
		mount -t debugfs debugfs /sys/kernel/debug || fail "mount the usual file systems"
	ln -sfn /proc/self/fd /dev/fd
	ln -sf /proc/self/fd/0 /dev/stdin
	ln -sf /proc/self/fd/1 /dev/stdout
	ln -sf /proc/self/fd/2 /dev/stderr
}

name_all() { # this node's name, and everybody's addresses
	local lan node
	hostname "n$LAB_NODE"
	{
		echo "127.0.0.1 localhost"
		for ((lan = 0; lan < LAB_LANS; lan++)); do
			for ((node = 1; node <= LAB_NODES; node++)); do
				((lan > 0)) && echo "10.88.$lan.$node n$node-lan$lan"
				((lan == 0)) && echo "10.88.$lan.$node n$node n$node-lan$lan"
			done
			echo "10.88.$lan.254 host-lan$lan"
		done
	} >/etc/hosts
}

load_modules() {
	local module
	for module in $LAB_MODULES; do
		modprobe "$module" || fail "modprobe $module"
	done
}

disks() { # /dev/disk/by-lab/disk<i>, by the serial numbers that the lab gave; there is no udev here
	local block serial found
	mkdir -p /dev/disk/by-lab
	for _ in {1..300}; do
		found=0
		for block in /sys/block/*; do
			serial=$(cat "$block/serial" 2>/dev/null ||
				tr -cd '[:alnum:]-' 2>/dev/null <"$block/device/vpd_pg80") 2>/dev/null
			[[ $serial == *lab-disk* ]] || continue
			ln -sf "/dev/${block##*/}" "/dev/disk/by-lab/disk${serial##*lab-disk}"
			found=$((found + 1))
		done
		((found >= LAB_DISKS)) && return
		sleep 0.1
	done
	fail "only $found of $LAB_DISKS disks came up"
}

network() {
	local lan
	ip link set lo up
	for ((lan = 0; lan < LAB_LANS; lan++)); do
		ip addr add "10.88.$lan.$LAB_NODE/24" dev "eth$lan" && ip link set "eth$lan" up ||
			fail "bring up eth$lan"
	done
	[[ $LAB_RDMA == 0 ]] && return
	modprobe -a rdma_rxe ib_uverbs rdma_ucm || fail "modprobe rdma_rxe"
	rdma link add rxe0 type rxe netdev eth0 || fail "add rxe0 on eth0"
	ulimit -l unlimited
}

watchdog() {
	[[ -z $LAB_WATCHDOG ]] && return
	modprobe "$LAB_WATCHDOG" || fail "modprobe $LAB_WATCHDOG"
	for _ in {1..100}; do
		[[ -c /dev/watchdog ]] && return
		sleep 0.1
	done
	fail "no /dev/watchdog after modprobe $LAB_WATCHDOG"
}

port() { # the virtio port that is the command's output
	local dir
	for _ in {1..100}; do
		for dir in /sys/class/virtio-ports/*; do
			[[ $(cat "$dir/name" 2>/dev/null) == lab-out ]] && echo "/dev/${dir##*/}" && return
		done
		sleep 0.1
	done
	fail "no virtio port 'lab-out'"
}

# shellcheck source=/dev/null
. "$state/env" || fail "read $state/env"
mount_all
name_all
ulimit -c 0
load_modules
disks
network
watchdog
mkdir -p /usr/local/bin
cp /lab/run/lab-barrier /usr/local/bin/lab-barrier
out=$(port)
cd "$LAB_PWD" 2>/dev/null || cd /

read -r uptime _ </proc/uptime
echo "$uptime" >"$state/booted.new" && mv "$state/booted.new" "$state/booted"
exec 9>"$out"
setsid bash "$state/command" </dev/null >&9 2>&1 9>&-
status=$?
sync
echo "$status" >"$state/status.new" && mv "$state/status.new" "$state/status"
# The host ends the node when it has read this line: what is before it cannot get lost.
printf '%s\n' "$LAB_END" >&9
for _ in {1..600}; do
	sleep 0.1
done
end
