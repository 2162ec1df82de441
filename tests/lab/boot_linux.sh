#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# boot_linux.sh [GODWIT-VM]: the unmodified Debian kernel boots under godwit-vm to a busybox shell
# on the serial console with 2 vCPUs, reboots in place, and powers off by itself and by the ACPI button.
# On the host it starts a lab node for that; in a node it does it. LAB_REFERENCE=1: QEMU instead
# of godwit-vm, to try the lab and the dialogue themselves.
set -u
# shellcheck source=lab_lib.sh source-path=SCRIPTDIR
. "$(dirname "$(readlink -f "$0")")/lab_lib.sh"
[[ -n ${LAB_NODE:-} ]] || exec "$LAB_TESTS/worker.sh" boot_linux "$@"

worker=${1:-${GODWIT_VM:-}}
kernel=$(find /boot -maxdepth 1 -name 'vmlinuz-*-amd64' ! -name '*-cloud-*' | sort -V | tail -n 1)
initrd=/run/guest-initramfs
"$LAB_TESTS/linux_initramfs.sh" "${kernel#/boot/vmlinuz-}" "$initrd" || {
	fail linux-initramfs "cannot be made"
	exit 1
}
if [[ -n ${LAB_REFERENCE:-} ]]; then
	exec python3 "$LAB_TESTS/boot_linux.py" --reference --kernel "$kernel" --initrd "$initrd"
elif [[ ! -x $worker ]]; then
	skip linux-boot "no godwit-vm at '$worker' (GODWIT_VM or the first argument)"
	exit 77
fi
exec python3 "$LAB_TESTS/boot_linux.py" --godwit-vm "$worker" --kernel "$kernel" --initrd "$initrd"
