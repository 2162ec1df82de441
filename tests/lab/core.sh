#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# core.sh: inside a lab node: the unit tests that drive KVM, on a KVM with nested paging that honours
# processor models and TSC offsets. TEST_PROGRAMS: the folder of the test programs.
set -u
# shellcheck source=lab_lib.sh source-path=SCRIPTDIR
. "$(dirname "$(readlink -f "$0")")/lab_lib.sh"

if [[ ! -x ${TEST_PROGRAMS:-/nonexistent}/machine_save_test ]]; then
	skip core "no test programs at '${TEST_PROGRAMS:-}' (TEST_PROGRAMS)"
	exit 77
fi
# QEMU's software CPU does not hand XSETBV on from nested guests, so AVX cannot be relied on in one
# (docs/deploy/lab.md): a model without it.
export GUEST_VM_CPU=x86-64-v2

one() { # one NAME PROGRAM FILTER
	local log=/tmp/core.$1.log
	if timeout 400 "$TEST_PROGRAMS/$2" --filter "$3" -j1 >"$log" 2>&1; then
		pass "$1"
	else
		tail -20 "$log"
		fail "$1" "$2 --filter '$3'"
	fi
}
one svm-probe host_probe_test '*'
grep -a 'probe took' /tmp/core.svm-probe.log
one svm-vcpu-state vcpu_state_test '*'
one svm-dirty-log-exact slat_test 'slat_kvm/exact_on_huge_pages'
one svm-save-two-vcpus machine_save_test 'machine_save/two_vcpus_text_pages'
one svm-save-halted machine_save_test 'machine_save/idle_guest_in_halt'
one svm-exits-once machine_save_test 'machine_save/every_*_once'
one svm-tscs-equal machine_save_test 'machine_save/tscs_of_one_instant'
one svm-services machine_services_test '*'
one svm-throttle machine_throttle_test '*'
one svm-dump machine_dump_test '*'
one svm-guest-devices guest_machine_test '*'
one svm-golden golden_test '*'
checks_end
