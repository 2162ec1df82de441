#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# disk_boot.sh: inside a lab node: the worker boots what GRUB's configuration on the disk says, without a
# kernel of its own; the guest changes that configuration and reboots, and the change takes effect.
set -u
# shellcheck source=lab_lib.sh source-path=SCRIPTDIR
. "$(dirname "$(readlink -f "$0")")/lab_lib.sh"
[[ -n ${LAB_NODE:-} ]] || exec "$LAB_TESTS/worker.sh" disk_boot "$@"

worker=${1:-${GODWIT_VM:-}}
godwit=${GODWIT:-$(dirname "$worker")/godwit}
if [[ ! -x $worker || ! -x $godwit ]] || ! command -v mke2fs >/dev/null; then
	skip disk-boot "needs godwit-vm, godwit and mke2fs"
	exit 77
fi
work=/run/disk-boot # a file system that takes direct I/O
mkdir -p "$work"/{root/boot/grub,more}
kernel=$(find /boot -maxdepth 1 -name 'vmlinuz-*-amd64' ! -name '*-cloud-*' | sort -V | tail -n 1)
version=${kernel#/boot/vmlinuz-}

# The initramfs of bus.sh for its drivers; the second archive in the file replaces its init.
"$LAB_TESTS/bus_initramfs.sh" "$version" "$work/root/boot/initrd.img" ext4 || {
	fail disk-boot "no initramfs"
	exit 1
}
truncate -s %512 "$work/root/boot/initrd.img"
cat >"$work/more/init" <<'I'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do
	insmod "/modules/$module" 2>/dev/null
done </modules/order
for _ in 1 2 3 4 5 6 7 8 9 10; do
	[ -b /dev/sda ] && break
	sleep 1
done
echo "booted with: $(cat /proc/cmdline)"
if grep -q entry=first /proc/cmdline; then
	mkdir /mnt && mount -t ext4 /dev/sda /mnt &&
		sed -i s/entry=first/entry=second/ /mnt/boot/grub/grub.cfg && umount /mnt && echo changed
	reboot -f
fi
poweroff -f
I
chmod 0755 "$work/more/init"
(cd "$work/more" && find . | busybox cpio -o -H newc 2>/dev/null) >>"$work/root/boot/initrd.img"
cp "$kernel" "$work/root/boot/"
cat >"$work/root/boot/grub/grub.cfg" <<G
set default="0"
menuentry 'first of the menu' {
	linux /boot/vmlinuz-$version console=ttyS0 quiet panic=-1 mitigations=off audit=0 random.trust_cpu=on entry=first
	initrd /boot/initrd.img
}
G
mke2fs -q -t ext4 -d "$work/root" "$work/disk.raw" 64M
"$godwit" disk convert -q -f raw "$work/disk.raw" "$work/disk.vhdx"
rm -r "$work/root" "$work/disk.raw"

status=0
timeout 240 "$worker" --name disk-boot --memory 256M --cpu x86-64-v2 --disk "$work/disk.vhdx" \
	--console "file:$work/console" </dev/null >"$work/log" 2>&1 || status=$?
check disk-boot-entry grep -aq 'booted with: BOOT_IMAGE=/boot/vmlinuz-.* entry=first' "$work/console"
check disk-boot-changed-by-the-guest grep -aq 'booted with: .* entry=second' "$work/console"
check disk-boot-end test "$status" = 0
checks_end || tail -n 30 "$work/console" "$work/log"
rm -rf "$work"
checks_end
