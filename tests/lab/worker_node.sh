#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# worker_node.sh CHECK...: inside a lab node, runs <check>.sh one after the other. Exit 0 when none
# failed and at least one ran, 77 when all were skipped.
set -u
# shellcheck source=lab_lib.sh source-path=SCRIPTDIR
. "$(dirname "$(readlink -f "$0")")/lab_lib.sh"

ran=0 kvm_found=0
for _ in {1..100}; do
	[[ -c /dev/kvm ]] && kvm_found=1 && break
	sleep 0.1
done
check node-kvm test "$kvm_found" = 1
for name in "$@"; do
	started=$SECONDS
	status=0
	"$LAB_TESTS/$name.sh" || status=$?
	echo "time $name: $((SECONDS - started)) s, status $status"
	((status == 77)) && continue
	ran=$((ran + 1))
	((status == 0)) || fail "$name" "status $status"
done
checks_end || exit 1
((ran > 0)) || exit 77
