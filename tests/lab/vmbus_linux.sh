#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# vmbus_linux.sh [ROUNDS [VCPUS...]]: an unmodified Debian kernel with its Hyper-V drivers and a small
# initramfs under godwit-vm in a lab node, ROUNDS (3) boots with each number of VCPUS (1 2 4): network, disk load
# over save and restore, heartbeat, shutdown from outside. GODWIT_VM and GODWIT name the binaries.
# Exit 0 ok, 77 cannot run here, else a failure.
set -u
# shellcheck source=lab_lib.sh source-path=SCRIPTDIR
. "$(dirname "$(readlink -f "$0")")/lab_lib.sh"
GODWIT_VM=$(readlink -f "${GODWIT_VM:-/nonexistent}")
GODWIT=$(readlink -f "${GODWIT:-$(dirname "$GODWIT_VM")/godwit}")
export GODWIT_VM GODWIT

if [[ -n ${LAB_NODE:-} ]]; then
	exec python3 "$LAB_TESTS/vmbus_linux.py" "$@"
fi
lab_or_skip
[[ -x $GODWIT_VM && -x $GODWIT ]] || { echo "skipped: no godwit-vm at '$GODWIT_VM'"; exit 77; }
exec "$LAB" run --mem 1024 --smp 1 --lans 0 --module kvm_amd --module tun --module bridge \
	--timeout 1700 --env GODWIT_VM --env GODWIT -- "$LAB_TESTS/vmbus_linux.sh" "$@"
