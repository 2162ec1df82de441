#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What would be booted from disks in the forms of Ubuntu, openSUSE, Fedora and systemd-boot, on FAT16, with
# sectors of 4096 bytes, and what is said of disks that cannot be read (LVM, btrfs, xfs, LUKS). The
# configurations are written here in the style of those distributions.
#
#   boot_forms.sh [BOOTDISK_SHOW]
#
# Prints PASS, FAIL or SKIP per case.  Exit 0 ok, 1 failed, 77 nothing could be run.
set -u

SHOW=$(readlink -f "${1:-${BOOTDISK_SHOW:-$PWD/build/release/tests/bootdisk_show}}")
HERE=$(dirname "$(readlink -f "$0")")
UUID=22222222-3333-4444-5555-666666666666
failed=0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1

for tool in mke2fs mkfs.vfat mcopy sfdisk python3; do
	if ! command -v $tool >/dev/null; then
		echo "SKIP boot_forms: $tool is not installed"
		exit 77
	fi
done

# says NAME TEXT [ARG...]: what is shown of disk.img, or said about it, has a line with TEXT
says() {
	local shown
	shown=$("$SHOW" "${@:3}" disk.img kernel.out initrd.out 2>&1)
	if grep -qF -- "$2" <<<"$shown"; then
		echo "PASS $1"
	else
		printf 'FAIL %s: expected "%s" in:\n%s\n' "$1" "$2" "$shown"
		failed=1
	fi
}
same() {
	if cmp -s "$2" "$3"; then echo "PASS $1"; else echo "FAIL $1: $2 and $3 differ"; failed=1; fi
}
put() { dd if="$1" of=disk.img bs=512 seek="$2" conv=notrunc status=none; }
ext_of() { rm -f "$2"; truncate -s 24M "$2"; mke2fs -q -t ext4 "${@:3}" -U $UUID -d "$1" "$2"; }
# one_part FOLDER: a GPT disk with one ext4 partition
one_part() {
	rm -f disk.img
	truncate -s 32M disk.img
	sfdisk -q disk.img <<<$'label: gpt\nstart=2048, type=L'
	ext_of "$1" fs.img
	put fs.img 2048
}
env_of() { # env_of FILE LINE...: an environment block of 1024 bytes
	{ printf '# GRUB Environment Block\n'; printf '%s\n' "${@:2}"; printf '%1024s' '' | tr ' ' '#'; } | head -c 1024 >"$1"
}

# Ubuntu: functions, a menu of older kernels, savedefault, search with hints, an entry per kernel.
mkdir -p ubuntu/boot/grub
for v in 6.8.0-31 6.8.0-40; do
	echo "kernel $v" >ubuntu/boot/vmlinuz-$v-generic
	echo "initrd $v" >ubuntu/boot/initrd.img-$v-generic
done
cat >ubuntu/boot/grub/grub.cfg <<END
if [ -s \$prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "\${initrdfail}" = 2 ]; then
   set initrdfail=
elif [ "\${initrdfail}" = 1 ]; then
   set next_entry="\${prev_entry}"
   set prev_entry=
fi
if [ "\${next_entry}" ] ; then
   set default="\${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="\${saved_entry}"
fi
if [ x"\${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
function savedefault {
  if [ -z "\${boot_once}" ]; then
    saved_entry="\${chosen}"
    save_env saved_entry
  fi
}
function recordfail {
  set recordfail=1
  if [ -n "\${have_grubenv}" ]; then if [ -z "\${boot_once}" ]; then save_env recordfail; fi; fi
}
function load_video {
  if [ x\$feature_all_video_module = xy ]; then insmod all_video; else insmod efi_gop; fi
}
if [ x\$feature_default_font_path = xy ] ; then font=unicode; else font="/usr/share/grub/unicode.pf2"; fi
if loadfont \$font ; then set gfxmode=auto; load_video; insmod gfxterm; fi
terminal_output gfxterm
if [ "\${recordfail}" = 1 ] ; then
  set timeout=30
else
  if [ x\$feature_timeout_style = xy ] ; then set timeout_style=hidden; set timeout=0; else set timeout=0; fi
fi
function gfxmode { set gfxpayload="\${1}"; }
export linux_gfx_mode
menuentry 'Ubuntu' --class ubuntu --class gnu-linux \$menuentry_id_option 'gnulinux-simple-$UUID' {
	recordfail
	savedefault
	load_video
	gfxmode \$linux_gfx_mode
	insmod gzio
	if [ x\$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	insmod part_gpt
	insmod ext2
	set root='hd0,gpt1'
	if [ x\$feature_platform_search_hint = xy ]; then
	  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt1 --hint-efi=hd0,gpt1 --hint-baremetal=ahci0,gpt1  $UUID
	else
	  search --no-floppy --fs-uuid --set=root $UUID
	fi
	linux	/boot/vmlinuz-6.8.0-40-generic root=UUID=$UUID ro  quiet splash \$vt_handoff
	initrd	/boot/initrd.img-6.8.0-40-generic
}
submenu 'Advanced options for Ubuntu' \$menuentry_id_option 'gnulinux-advanced-$UUID' {
	menuentry 'Ubuntu, with Linux 6.8.0-40-generic' --class os \$menuentry_id_option 'gnulinux-6.8.0-40-generic-advanced-$UUID' {
		recordfail
		search --no-floppy --fs-uuid --set=root $UUID
		linux	/boot/vmlinuz-6.8.0-40-generic root=UUID=$UUID ro
		initrd	/boot/initrd.img-6.8.0-40-generic
	}
	menuentry 'Ubuntu, with Linux 6.8.0-31-generic' --class os \$menuentry_id_option 'gnulinux-6.8.0-31-generic-advanced-$UUID' {
		recordfail
		search --no-floppy --fs-uuid --set=root $UUID
		linux	/boot/vmlinuz-6.8.0-31-generic root=UUID=$UUID ro old
		initrd	/boot/initrd.img-6.8.0-31-generic
	}
}
menuentry 'Memory test' { linux16 /boot/memtest86+.bin }
END
one_part ubuntu
says ubuntu-first "cmdline: BOOT_IMAGE=/boot/vmlinuz-6.8.0-40-generic root=UUID=$UUID ro quiet splash"
same ubuntu-kernel kernel.out ubuntu/boot/vmlinuz-6.8.0-40-generic
same ubuntu-initrd initrd.out ubuntu/boot/initrd.img-6.8.0-40-generic
env_of ubuntu/boot/grub/grubenv "saved_entry=gnulinux-advanced-$UUID>gnulinux-6.8.0-31-generic-advanced-$UUID"
one_part ubuntu
says ubuntu-saved-in-submenu "cmdline: BOOT_IMAGE=/boot/vmlinuz-6.8.0-31-generic root=UUID=$UUID ro old"
env_of ubuntu/boot/grub/grubenv "saved_entry=Advanced options for Ubuntu>Ubuntu, with Linux 6.8.0-31-generic"
one_part ubuntu
says ubuntu-saved-by-title "ro old"
env_of ubuntu/boot/grub/grubenv "saved_entry=0" "next_entry=1>1" "recordfail=1"
one_part ubuntu
says ubuntu-next-by-number "ro old"
env_of ubuntu/boot/grub/grubenv "saved_entry=gone"
one_part ubuntu
says ubuntu-saved-is-gone "quiet splash"

# openSUSE: grub2 folder, linux through variables, hints with several disks, a comment in the environment.
mkdir -p suse/boot/grub2
echo kernel >suse/boot/vmlinuz-6.4.0-default
echo initrd >suse/boot/initrd-6.4.0-default
cat >suse/boot/grub2/grub.cfg <<END
set btrfs_relative_path="y"
export btrfs_relative_path
if [ -f  \${config_directory}/grubenv ]; then
  load_env -f \${config_directory}/grubenv
elif [ -s \$prefix/grubenv ]; then
  load_env
fi
if [ "\${env_block}" ] ; then
  set env_block="(\${root})\${env_block}"
  load_env -f "\${env_block}"
fi
if [ "\${next_entry}" ] ; then
   set default="\${next_entry}"
else
   set default="\${saved_entry}"
fi
if [ -z "\${boot_once}" ]; then true; fi
set linux=linux
set initrd=initrd
if [ "\${grub_cpu}" = "x86_64" -o "\${grub_cpu}" = "i386" ]; then
  if [ "\${grub_platform}" = "efi" ]; then set linux=linuxefi; set initrd=initrdefi; fi
fi
export linux initrd
menuentry 'openSUSE Leap'  --class opensuse --class gnu \$menuentry_id_option 'gnulinux-simple-$UUID' {
	load_video
	set gfxpayload=keep
	search --no-floppy --fs-uuid --set=root --hint='hd0,gpt1' --hint='hd1,gpt1' $UUID
	echo	'Loading Linux ...'
	\$linux	/boot/vmlinuz-6.4.0-default root=UUID=$UUID  \${extra_cmdline} splash=silent mitigations=auto
	echo	'Loading initial ramdisk ...'
	\$initrd	/boot/initrd-6.4.0-default
}
submenu 'Advanced options for openSUSE Leap' --hotkey=1 \$menuentry_id_option 'gnulinux-advanced-$UUID' {
	menuentry 'openSUSE Leap, with Linux (recovery mode)' --hotkey=2 \$menuentry_id_option 'recovery' {
		search --no-floppy --fs-uuid --set=root $UUID
		\$linux	/boot/vmlinuz-6.4.0-default root=UUID=$UUID single
		\$initrd	/boot/initrd-6.4.0-default
	}
}
if [ -f \${config_directory}/custom.cfg ]; then
  source \${config_directory}/custom.cfg
fi
END
one_part suse
says suse-first "cmdline: BOOT_IMAGE=/boot/vmlinuz-6.4.0-default root=UUID=$UUID splash=silent mitigations=auto"
same suse-initrd initrd.out suse/boot/initrd-6.4.0-default
env_of suse/boot/grub2/grubenv "# a comment" "saved_entry=gnulinux-advanced-$UUID>recovery"
one_part suse
says suse-saved "single"

# Fedora: a stub on the system partition, /boot with entries, blscfg below conditions, a kernel that is newer.
mkdir -p fedora/grub2 fedora/loader/entries esp/EFI/fedora
cat >esp/EFI/fedora/grub.cfg <<END
search --no-floppy --root-dev-only --fs-uuid --set=dev $UUID
set prefix=(\$dev)/grub2
export \$prefix
configfile \$prefix/grub.cfg
END
cat >fedora/grub2/grub.cfg <<END
set pager=1
if [ -f \${config_directory}/grubenv ]; then
  load_env -f \${config_directory}/grubenv
elif [ -s \$prefix/grubenv ]; then
  load_env
fi
if [ "\${next_entry}" ] ; then
   set default="\${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="\${saved_entry}"
fi
insmod part_gpt
insmod ext2
search --no-floppy --fs-uuid --set=root $UUID
if [ -z "\${kernelopts}" ]; then
  set kernelopts="root=UUID=other ro from-the-file "
fi
insmod blscfg
blscfg
if [ "\${boot_success}" = "1" -o "\${boot_indeterminate}" = "1" ]; then
  set menu_hide_ok=1
else
  set menu_hide_ok=0
fi
menuentry 'UEFI Firmware Settings' \$menuentry_id_option 'uefi-firmware' {
	fwsetup
}
END
M=0123456789abcdef0123456789abcdef
for v in 6.9.4-200.fc40 6.10.3-200.fc40; do
	cat >fedora/loader/entries/$M-$v.x86_64.conf <<END
title Fedora Linux ($v.x86_64) 40
version $v.x86_64
linux /vmlinuz-$v.x86_64
initrd /initramfs-$v.x86_64.img \$tuned_initrd
options root=UUID=$UUID ro rhgb quiet v=$v
grub_users \$grub_users
grub_arg --unrestricted
grub_class fedora
END
	echo "kernel $v" >fedora/vmlinuz-$v.x86_64
	echo "initrd $v" >fedora/initramfs-$v.x86_64.img
done
cat >fedora/loader/entries/$M-0-rescue.conf <<END
title Fedora Linux (0-rescue) 40
version 0-rescue
linux /vmlinuz-6.9.4-200.fc40.x86_64
initrd /initramfs-6.9.4-200.fc40.x86_64.img
options \$kernelopts rescue
END
fedora() {
	rm -f disk.img esp.img
	truncate -s 64M disk.img
	sfdisk -q disk.img <<<$'label: gpt\nstart=2048, size=32768, type=U\nstart=34816, type=L'
	truncate -s 16M esp.img
	mkfs.vfat -F 16 esp.img >/dev/null && mcopy -s -i esp.img esp/* ::
	ext_of fedora fs.img
	put esp.img 2048
	put fs.img 34816
}
fedora
says fedora-newest "cmdline: BOOT_IMAGE=/vmlinuz-6.10.3-200.fc40.x86_64 root=UUID=$UUID ro rhgb quiet v=6.10.3-200.fc40"
same fedora-initrd initrd.out fedora/initramfs-6.10.3-200.fc40.x86_64.img
says fedora-fat16-esp "from: gpt partition 1, "
env_of fedora/grub2/grubenv "saved_entry=$M-6.9.4-200.fc40.x86_64" "boot_success=1"
fedora
says fedora-saved "v=6.9.4-200.fc40"
env_of fedora/grub2/grubenv "saved_entry=$M-0-rescue"
fedora
says fedora-kernelopts "root=UUID=other ro from-the-file rescue"

# systemd-boot: a unified kernel beside an entry, and alone; sections that are padded.
uki() { python3 "$HERE/boot_forms.py" uki "$@"; }
mkdir -p sd/EFI/systemd sd/EFI/Linux sd/loader
touch sd/EFI/systemd/systemd-bootx64.efi
head -c 70001 /dev/urandom >uki.linux
head -c 90001 /dev/urandom >uki.initrd
sd() { # sd FAT-BITS MIB
	rm -f disk.img esp.img
	truncate -s 96M disk.img
	sfdisk -q disk.img <<<$'label: gpt\nstart=2048, type=U'
	truncate -s "$2M" esp.img
	mkfs.vfat -F "$1" esp.img >/dev/null && mcopy -s -i esp.img sd/* ::
	put esp.img 2048
}
uki sd/EFI/Linux/os-1.efi 1 'root=/dev/sda2 uki=1' uki.linux uki.initrd
uki sd/EFI/Linux/os-2.efi 2 'root=/dev/sda2 uki=2' uki.linux uki.initrd
sd 16 24
says uki-newest "cmdline: root=/dev/sda2 uki=2"
same uki-kernel kernel.out uki.linux
same uki-initrd initrd.out uki.initrd
sd 32 64
says uki-fat32 "cmdline: root=/dev/sda2 uki=2"
printf 'default os-1*\ntimeout 5\n' >sd/loader/loader.conf
sd 16 24
says uki-default "cmdline: root=/dev/sda2 uki=1"
head -c 3000 sd/EFI/Linux/os-1.efi >cut && mv cut sd/EFI/Linux/os-1.efi # a broken one is passed over
sd 16 24
says uki-cut-off "uki=2"

# Sectors of 4096 bytes: GPT, FAT16 and ext4.
rm -f disk.img esp.img
truncate -s 80M esp.img
mkfs.vfat -S 4096 -s 1 -F 16 esp.img >/dev/null && mcopy -s -i esp.img esp/* ::
ext_of fedora fs.img -b 4096
python3 "$HERE/boot_forms.py" gpt4k disk.img esp.img fs.img
says sectors-of-4096 "root=UUID=other ro from-the-file rescue" --sector 4096
says sectors-of-4096-read-as-512 "GPT: "

# What cannot be read is named.
none() { # none NAME OFFSET BYTES
	rm -f disk.img
	truncate -s 32M disk.img
	sfdisk -q disk.img <<<$'label: gpt\nstart=2048, type=L'
	printf "$3" | dd of=disk.img bs=1 seek=$((2048 * 512 + $2)) conv=notrunc status=none
	says "$1" "gpt1: $4: expected ext2/3/4 or FAT"
}
none lvm 512 'LABELONE\1\0\0\0\0\0\0\0\0\0\0\0\040\0\0\0LVM2 001' LVM
none btrfs 65600 _BHRfS_M btrfs
none xfs 0 XFSB XFS
none luks 0 'LUKS\272\276\0\002' 'encrypted (LUKS)'
none unknown 0 something 'unknown content'
exit $failed
