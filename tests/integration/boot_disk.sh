#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What would be booted from disks as distributions lay them out, read by the locked-down helper.
#
#   boot_disk.sh [BOOTDISK_SHOW]
#
# Prints PASS, FAIL or SKIP per case.  Exit 0 ok, 1 failed, 77 nothing could be run.
set -u

SHOW=${1:-${BOOTDISK_SHOW:-$PWD/build/release/tests/bootdisk_show}}
UUID=11111111-2222-3333-4444-555555555555
failed=0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1

for tool in mke2fs mkfs.vfat mcopy sfdisk; do
	if ! command -v $tool >/dev/null; then
		echo "SKIP boot_disk: $tool is not installed"
		exit 77
	fi
done

# expect NAME LINE: what is shown of disk.img has LINE
expect() {
	local shown
	shown=$("$SHOW" disk.img kernel.out initrd.out 2>&1)
	if grep -qxF "$2" <<<"$shown"; then
		echo "PASS $1"
	else
		printf 'FAIL %s: expected "%s" in:\n%s\n' "$1" "$2" "$shown"
		failed=1
	fi
}
same() {
	if cmp -s "$2" "$3"; then echo "PASS $1"; else echo "FAIL $1: $2 and $3 differ"; failed=1; fi
}
# put IMAGE SECTOR
put() { dd if="$1" of=disk.img bs=512 seek="$2" conv=notrunc status=none; }
fat_of() { rm -f "$2"; truncate -s 32M "$2"; mkfs.vfat "$2" >fat.log && mcopy -s -i "$2" "$1"/* ::; }
ext_of() { rm -f "$2"; truncate -s 60M "$2"; mke2fs -q -t ext4 -U $UUID -d "$1" "$2"; }
new_disk() { rm -f disk.img; truncate -s 120M disk.img; sfdisk -q disk.img; }

# Debian: the system partition's grub.cfg leads to the one on the root file system.
mkdir -p root/boot/grub esp/EFI/debian
head -c 3000001 /dev/urandom >root/boot/vmlinuz-1
head -c 5000003 /dev/urandom >root/boot/initrd-1
cat >esp/EFI/debian/grub.cfg <<END
search.fs_uuid $UUID root hd0,gpt2
set prefix=(\$root)'/boot/grub'
configfile \$prefix/grub.cfg
END
cat >root/boot/grub/grub.cfg <<'END'
if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ]; then
  set default="${next_entry}"
else
  set default="0"
fi
function video {
  if [ x$feature_all_video_module = xy ]; then insmod all_video; else insmod vga; fi
}
menuentry 'System' --class os $menuentry_id_option 'simple' {
	video
	search --no-floppy --fs-uuid --set=root 11111111-2222-3333-4444-555555555555
	linux /boot/vmlinuz-1 root=UUID=11111111-2222-3333-4444-555555555555 ro  quiet
	initrd /boot/initrd-1
}
submenu 'More' $menuentry_id_option 'more' {
	menuentry 'Rescue' $menuentry_id_option 'rescue' {
		linux /boot/vmlinuz-1 single
	}
}
END
debian() {
	new_disk <<<$'label: gpt\nstart=2048, size=65536, type=U\nstart=67584, size=122880, type=L'
	fat_of esp esp.img
	ext_of root root.img
	put esp.img 2048
	put root.img 67584
}
debian
expect gpt-esp-to-ext4 "cmdline: BOOT_IMAGE=/boot/vmlinuz-1 root=UUID=$UUID ro quiet"
same kernel-bytes kernel.out root/boot/vmlinuz-1
same initrd-bytes initrd.out root/boot/initrd-1
dd if=/dev/zero of=disk.img bs=512 seek=1 count=1 conv=notrunc status=none
expect gpt-backup "title: System"
printf '# GRUB Environment Block\nnext_entry=more>rescue\n####' >root/boot/grub/grubenv
debian
expect next-entry "cmdline: BOOT_IMAGE=/boot/vmlinuz-1 single"

# Fedora: /boot in a logical partition, loader entries, the saved one.
mkdir -p boot/grub2 boot/loader/entries
cat >boot/grub2/grub.cfg <<END
load_env -f \${config_directory}/grubenv
set default="\${saved_entry}"
search --no-floppy --fs-uuid --set=boot $UUID
blscfg
END
for v in 6.5 6.11; do
	printf 'title F %s\nversion %s\nlinux /vm-%s\ninitrd /in $tuned_initrd\noptions $kernelopts rhgb\n' \
		$v $v $v >boot/loader/entries/4a5b-$v.conf
	echo $v >boot/vm-$v
done
echo initrd >boot/in
fedora() {
	new_disk <<<$'label: dos\nstart=2048, size=2048, type=83\nstart=6144, size=190000, type=5\nstart=8192, size=122880, type=83'
	ext_of boot boot.img
	put boot.img 8192
}
printf '# GRUB Environment Block\nkernelopts=root=x ro\n####' >boot/grub2/grubenv
fedora
expect loader-entries-newest "cmdline: BOOT_IMAGE=/vm-6.11 root=x ro rhgb"
printf '# GRUB Environment Block\nkernelopts=root=x ro\nsaved_entry=4a5b-6.5\n####' >boot/grub2/grubenv
fedora
expect loader-entries-saved "cmdline: BOOT_IMAGE=/vm-6.5 root=x ro rhgb"

# systemd-boot: version order, boot counting, a default.
mkdir -p sd/loader/entries sd/EFI/systemd
touch sd/EFI/systemd/systemd-bootx64.efi
echo one >sd/k
entry() { printf 'title %s\nversion %s\nsort-key x\nlinux /k\ninitrd /k\ninitrd /k\noptions v=%s\n' "$2" "$2" "$2" >"sd/loader/entries/$1.conf"; }
entry a-6.9 6.9
entry a-6.10+3-1 6.10
entry a-6.11+0-3 6.11
echo 'timeout 3' >sd/loader/loader.conf
sdboot() {
	new_disk <<<$'label: gpt\nstart=2048, size=65536, type=U'
	fat_of sd sd.img
	put sd.img 2048
}
sdboot
expect systemd-boot-newest-good "cmdline: v=6.10"
printf 'one\none\n' >joined
head -c 8 initrd.out | cmp -s - joined && echo "PASS initrds-joined" || { echo "FAIL initrds-joined"; failed=1; }
echo 'default a-6.9*' >>sd/loader/loader.conf
sdboot
expect systemd-boot-default "cmdline: v=6.9"
exit $failed
