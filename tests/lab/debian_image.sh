#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# debian_image.sh GODWIT: makes the disk image of the lab's Debian guests and prints the folder it is in.
# Debian 12 from Debian's packages, nothing of them changed: a GPT disk with an ext4 root and the GRUB
# configuration that Debian writes, as VHDX. Kept below build/lab/ by a hash of all that goes into it.
#
#   debian.vhdx         the disk: kernel linux-image-amd64, systemd, hyperv-daemons
#   cloud-*             kernel and initrd of linux-image-cloud-amd64, for the same root
#   installer-*         kernel and initrd of debian-installer-12-netboot-amd64
#   cmdline             the root that the disk's own boot entry names
# GODWIT: the command line tool, for `disk convert`. As root; needs mmdebstrap, e2fsprogs, fdisk.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
parts=$here/debian.d
GODWIT=$(readlink -f "${1:?usage: debian_image.sh GODWIT}")
PACKAGES=linux-image-amd64,linux-image-cloud-amd64,systemd-sysv,udev,kmod,iproute2,iputils-ping
PACKAGES+=,python3,hyperv-daemons,grub2-common,grub-common,e2fsprogs,lz4
INSTALLER=debian-installer-12-netboot-amd64
ROOT_UUID=6a0d5c1e-59a1-4f6b-9c0e-71cc02d6e6d1
ROOT_OFFSET=2097152 # behind a BIOS boot partition, as Debian's installer lays disks out
DISK_SIZE=2G

candidates() { # what apt would install: a new kernel makes a new image
	apt-cache policy linux-image-amd64 linux-image-cloud-amd64 systemd hyperv-daemons "$INSTALLER" |
		grep -E '^[^ ]|Candidate:'
}

if ! apt-cache show linux-image-cloud-amd64 "$INSTALLER" >/dev/null 2>&1; then
	apt-get update >&2
fi
key=$({ candidates && cat "$0" "$parts"/*; } | sha256sum | head -c 16)
base=$here/../../build/lab
mkdir -p "$base"
base=$(readlink -f "$base")
out=$base/debian-$key
exec 9>"$base/lock"
flock 9
if [[ -e $out/done ]]; then
	echo "$out"
	exit
fi

work=$(mktemp -d "$base/work.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root

make_root() {
	mmdebstrap --quiet --variant=minbase --format=directory --include="$PACKAGES" \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
		--aptopt='APT::Install-Recommends "false"' \
		--essential-hook="install -D -m 0644 '$parts/initramfs.conf' \"\$1/etc/initramfs-tools/conf.d/lab\"" bookworm "$root" </dev/null >&2
}

fetch_installer() {
	local tree=usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64
	(cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$INSTALLER") >&2
	dpkg-deb --fsys-tarfile "$work/$INSTALLER"_*.deb |
		tar -x -C "$work" "./$tree/linux" "./$tree/initrd.gz"
	mv "$work/$tree/linux" "$work/out/installer-kernel"
	mv "$work/$tree/initrd.gz" "$work/out/installer-initrd"
}

configure_root() {
	echo godwit-debian >"$root/etc/hostname"
	printf '127.0.0.1 localhost\n127.0.1.1 godwit-debian\n' >"$root/etc/hosts"
	printf 'UUID=%s / ext4 errors=remount-ro 0 1\n' "$ROOT_UUID" >"$root/etc/fstab"
	install -D -m 0644 "$parts/lab.network" "$root/etc/systemd/network/10-lab.network"
	install -D -m 0644 "$parts/autologin.conf" \
		"$root/etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf"
	install -D -m 0644 "$parts/slow.conf" "$root/etc/systemd/system.conf.d/slow.conf"
	install -m 0755 "$parts/load.py" "$root/usr/local/bin/load"
	install -m 0755 "$parts/talk.py" "$root/usr/local/bin/talk"
	chroot "$root" systemctl --quiet enable systemd-networkd.service >&2
	# What a guest of minutes has no use for and a software CPU takes seconds for.
	chroot "$root" systemctl --quiet mask systemd-networkd-wait-online.service apt-daily.timer \
		apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
		e2scrub_reap.service systemd-binfmt.service systemd-pstore.service systemd-journal-flush.service \
		systemd-random-seed.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
		systemd-machine-id-commit.service sys-kernel-debug.mount sys-kernel-tracing.mount \
		dev-mqueue.mount dev-hugepages.mount modprobe@configfs.service modprobe@drm.service \
		getty-static.service modprobe@fuse.service modprobe@efi_pstore.service modprobe@dm_mod.service modprobe@loop.service >&2
	rm -rf "$root/var/cache/apt" "$root/var/lib/apt/lists"
	echo 5d1a3c9e7b2f4860a1c3e5f708192a3b >"$root/etc/machine-id"
	# Its caches are those of its packages: nothing to rebuild at the first start.
	touch -r "$root/usr" "$root/etc/.updated" "$root/var/.updated"
}

# Debian's own generator, with what grub-probe would say on the running guest.
write_grub_config() {
	local probe=$root/usr/sbin/grub-probe
	cp "$parts/grub.default" "$root/etc/default/grub"
	mv "$probe" "$work/grub-probe"
	sed "s/@UUID@/$ROOT_UUID/" "$parts/grub-probe" >"$probe"
	chmod 0755 "$probe"
	# It names the root by UUID where udev would have made that link.
	mkdir -p "$root/boot/grub" "$root/dev/disk/by-uuid"
	: >"$root/dev/disk/by-uuid/$ROOT_UUID"
	chroot "$root" grub-mkconfig -o /boot/grub/grub.cfg >&2
	rm -r "$root/dev/disk"
	mv "$work/grub-probe" "$probe"
	grep -q "root=UUID=$ROOT_UUID" "$root/boot/grub/grub.cfg"
}

make_disk() {
	truncate -s "$DISK_SIZE" "$work/disk.raw"
	sfdisk --quiet "$work/disk.raw" >&2 <<-P
		label: gpt
		start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649
		start=$((ROOT_OFFSET / 512)), type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
	P
	# One mebibyte at the end stays free for the second table.
	mke2fs -q -t ext4 -U "$ROOT_UUID" -E "offset=$ROOT_OFFSET,root_owner=0:0" -d "$root" \
		"$work/disk.raw" "$((2 * 1024 * 1024 - ROOT_OFFSET / 1024 - 1024))k" >&2
	"$GODWIT" disk convert -q -f raw "$work/disk.raw" "$work/out/debian.vhdx" >&2
}

mkdir "$work/out"
make_root
fetch_installer
# The cloud kernel's modules stay on the disk; its boot files do not, so that the disk has one entry.
mv "$root"/boot/vmlinuz-*-cloud-amd64 "$work/out/cloud-kernel"
mv "$root"/boot/initrd.img-*-cloud-amd64 "$work/out/cloud-initrd"
rm -f "$root"/boot/*-cloud-amd64 "$root"/vmlinuz* "$root"/initrd.img*
configure_root
write_grub_config
sed -n '/^[[:space:]]*linux[[:space:]]/{s/^[[:space:]]*linux[[:space:]]\+[^ ]* *//p;q}' "$root/boot/grub/grub.cfg" >"$work/out/cmdline"
make_disk
: >"$work/out/done"
find "$base" -maxdepth 1 -name 'debian-*' -exec rm -rf {} + # of earlier inputs
mv "$work/out" "$out"
echo "$out"
