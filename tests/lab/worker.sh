#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# worker.sh [CHECK...] [GODWIT-VM [TEST-GUEST]]: boots one lab node and runs the worker's lab checks
# in it: devices, boot_linux, disk_boot, cpu_mask, core and migrate (default: all but devices, which takes
# minutes: worker_long.sh). Exit 0 ok, 77 nothing could run,
# else a failure.
# GODWIT_VM and TEST_GUEST name the binaries when the arguments do not; TEST_PROGRAMS is the folder of
# the unit tests, beside the worker by default.
set -u
# shellcheck source=lab_lib.sh source-path=SCRIPTDIR
. "$(dirname "$(readlink -f "$0")")/lab_lib.sh"

checks=()
while [[ ${1:-} =~ ^(devices|boot_linux|disk_boot|cpu_mask|core|migrate)$ ]]; do
	checks+=("$1")
	shift
done
((${#checks[@]} > 0)) || checks=(boot_linux disk_boot cpu_mask core migrate)
GODWIT_VM=$(readlink -f "${1:-${GODWIT_VM:-/nonexistent}}")
TEST_GUEST=$(readlink -f "${2:-${TEST_GUEST:-/nonexistent}}")
export GODWIT_VM TEST_GUEST
export TEST_PROGRAMS=${TEST_PROGRAMS:-$(dirname "$GODWIT_VM")/tests}

lab_or_skip
if [[ -z ${LAB_REFERENCE:-} && ! -x $GODWIT_VM ]]; then
	echo "skipped: no godwit-vm at '$GODWIT_VM' (GODWIT_VM or an argument)"
	exit 77
fi
exec "$LAB" run --mem 1536 --smp 1 --lans 0 --module kvm_amd --module tun --module bridge --module veth --module sch_tbf --timeout 1700 \
	--env GODWIT_VM --env TEST_GUEST --env TEST_PROGRAMS --env LAB_REFERENCE -- "$LAB_TESTS/worker_node.sh" "${checks[@]}"
