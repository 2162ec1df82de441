#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# debian.sh [ROUNDS [VCPUS...]]: unmodified Debian 12 under godwit-vm in a lab node: boots from a VHDX on
# the storage service, network on the network service, save and restore under verified load, shutdown
# from outside, ROUNDS boots (1) with each number of VCPUS (1 2 4); the cloud kernel and the installer.
# GODWIT_VM and GODWIT name the binaries; DEBIAN_ONLY: some parts, of
# first, boots, cloud and installer. Exit 0 ok, 77 cannot run here, else a failure.
set -u
# shellcheck source=lab_lib.sh source-path=SCRIPTDIR
. "$(dirname "$(readlink -f "$0")")/lab_lib.sh"
GODWIT_VM=$(readlink -f "${GODWIT_VM:-/nonexistent}")
GODWIT=$(readlink -f "${GODWIT:-$(dirname "$GODWIT_VM")/godwit}")
export GODWIT_VM GODWIT

if [[ -n ${LAB_NODE:-} ]]; then
	exec python3 "$LAB_TESTS/debian.py" "$@"
fi
lab_or_skip
while read -r program package; do
	command -v "$program" >/dev/null && continue
	echo "skipped: no $program: install the Debian package $package"
	exit 77
done <<-'P'
	mmdebstrap mmdebstrap
	sfdisk fdisk
	mke2fs e2fsprogs
P
[[ -x $GODWIT_VM && -x $GODWIT ]] || { echo "skipped: no godwit-vm at '$GODWIT_VM'"; exit 77; }
packages_come() { # can Debian's packages be had here at all?
	local folder status=0
	folder=$(mktemp -d)
	(cd "$folder" && apt-get download -qq -o APT::Sandbox::User=root hyperv-daemons) || status=$?
	rm -rf "$folder"
	return "$status"
}
if ! DEBIAN_IMAGE=$("$LAB_TESTS/debian_image.sh" "$GODWIT"); then
	packages_come || { echo "skipped: Debian's packages cannot be downloaded"; exit 77; }
	fail debian-image "cannot be made"
	exit 1
fi
export DEBIAN_IMAGE
node() { # node PARTS [ROUNDS [VCPUS...]]: those parts of debian.py in a node of their own
	DEBIAN_ONLY=$1 "$LAB" run --mem 2560 --smp 1 --lans 0 --module kvm_amd --module tun --module bridge \
		--timeout "${DEBIAN_TIMEOUT:-1500}" --env GODWIT_VM --env GODWIT --env DEBIAN_IMAGE \
		--env DEBIAN_ONLY -- "$LAB_TESTS/debian.sh" "${@:2}"
}
if [[ -n ${DEBIAN_ONLY:-} ]]; then
	node "$DEBIAN_ONLY" "$@"
	exit
fi
# A node is busy with one processor: two of them side by side take half the time.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
node boots "${1:-1}" "${@:2}" >"$log" 2>&1 &
status=0
node first,cloud,installer || status=$?
wait "$!" || status=$?
cat "$log"
exit "$status"
