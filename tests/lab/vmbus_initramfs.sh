#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# vmbus_initramfs.sh KERNEL-VERSION OUT: an initramfs of busybox and the kernel's Hyper-V drivers, with a
# shell on the serial console; `load` in it writes to /dev/sda and reads back what it wrote.
set -euo pipefail
version=$1 out=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work"/{bin,sbin,modules,proc,sys,dev,tmp}
cp "$(command -v busybox)" "$work/bin/busybox"
for module in hv_vmbus hv_utils hv_storvsc sd_mod hv_netvsc; do
	modprobe -S "$version" -a --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
done | awk '!seen[$0]++' | while read -r path; do
	cp "$path" "$work/modules/"
	echo "${path##*/}" >>"$work/modules/order"
done

# What the kernel calls when the host asks for a shutdown.
cat >"$work/sbin/poweroff" <<'I'
#!/bin/busybox sh
exec /bin/busybox poweroff -f
I
# Like debian.d/load.py in its output; blocks of 64 KiB at changing places, until a file /tmp/stop is there.
cat >"$work/bin/load" <<'I'
#!/bin/busybox sh
n=0 bad=0
differs() { # differs BLOCK: from what was written last
	dd if=/dev/sda of=/tmp/back bs=64k skip="$1" count=1 iflag=direct 2>/dev/null
	! cmp -s /tmp/back "/tmp/pattern$1"
}
while [ ! -e /tmp/stop ]; do
	block=$((n * 37 % 256))
	dd if=/dev/urandom of="/tmp/pattern$block" bs=64k count=1 2>/dev/null
	dd if="/tmp/pattern$block" of=/dev/sda bs=64k seek="$block" oflag=direct 2>/dev/null
	if differs "$block"; then
		bad=$((bad + 1))
		echo "load: BAD block $block"
	fi
	n=$((n + 1))
	[ $((n % 8)) != 0 ] || echo "load: ok writes=$n reads=$n bad=$bad"
done
block=0
while [ $block -lt 256 ]; do
	[ ! -e /tmp/pattern$block ] || ! differs $block || bad=$((bad + 1))
	block=$((block + 1))
done
echo "load: end bad=$bad"
I
cat >"$work/init" <<'I'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin HOME=/ PS1='guest# '
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do
	insmod "/modules/$module"
done </modules/order
n=0
while [ $n -lt 600 ] && ! { [ -b /dev/sda ] && [ -e /sys/class/net/eth0 ]; }; do
	usleep 100000
	n=$((n + 1))
done
ifconfig lo 127.0.0.1
ifconfig eth0 10.99.0.2 netmask 255.255.255.0 up
read -r uptime rest </proc/uptime
echo "guest ready after $uptime s"
exec setsid cttyhack sh -c 'stty cols 250 && exec sh'
I
chmod 0755 "$work/init" "$work/bin/load" "$work/sbin/poweroff"
(cd "$work" && find . | busybox cpio -o -H newc 2>/dev/null) >"$out"
