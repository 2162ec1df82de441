#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# linux_initramfs.sh KERNEL-VERSION OUT: an initramfs with a busybox shell on the serial console
# and a reader of the ACPI power button, made from the installed Debian packages.
set -euo pipefail
version=$1 out=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work"/{bin,modules,proc,sys,dev}
cp "$(command -v busybox)" "$work/bin/busybox"
while read -r path; do
	cp "$path" "$work/modules/" && echo "${path##*/}" >>"$work/modules/order"
done < <(modprobe -S "$version" -a --show-depends button evdev |
	awk '$1 == "insmod" && !seen[$2]++ { print $2 }')

cat >"$work/init" <<'I'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ PS1='guest# '
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do
	insmod "/modules/$module"
done </modules/order
for event in /sys/class/input/event*; do
	[ "$(cat "$event/device/name")" = "Power Button" ] || continue
	echo "power button: ${event##*/}"
	(head -c 24 "/dev/input/${event##*/}" >/dev/null && echo "power button pressed" && poweroff -f) &
done
read -r uptime rest </proc/uptime
echo "guest ready after $uptime s"
exec setsid cttyhack sh -c 'stty cols 250 && exec sh'
I
chmod 0755 "$work/init"
(cd "$work" && find . | busybox cpio -o -H newc 2>/dev/null) >"$out"
