# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Common to the lab tests, on the host and in the nodes: results are lines `PASS name`, `FAIL name
# reason`, `SKIP name reason`. Sourced.

LAB_TESTS=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck disable=SC2034 # used by those who source this
LAB=$LAB_TESTS/../../deploy/lab
checks_failed=0

pass() {
	echo "PASS $1${2:+ $2}"
}

fail() {
	echo "FAIL $1 ${*:2}"
	checks_failed=$((checks_failed + 1))
}

skip() {
	echo "SKIP $1 ${*:2}"
}

check() { # check NAME COMMAND [ARG...]: the command's success is the check's
	local status=0
	"${@:2}" || status=$?
	if ((status == 0)); then
		pass "$1"
	else
		fail "$1" "status $status of: ${*:2}"
	fi
}

checks_end() { # the exit status of a test that has counted its failures
	((checks_failed == 0))
}

lab_or_skip() { # on the host: leaves with 77 where the lab cannot run
	local program package
	while read -r program package; do
		command -v "$program" >/dev/null && continue
		echo "skipped: no $program: install the Debian package $package"
		exit 77
	done <<-'P'
		qemu-system-x86_64 qemu-system-x86
		busybox busybox-static
		modprobe kmod
		ip iproute2
		socat socat
		python3 python3
	P
	if ! compgen -G '/boot/vmlinuz-*-amd64' >/dev/null; then
		echo "skipped: no kernel in /boot: install the Debian package linux-image-amd64"
		exit 77
	fi
	if ((EUID != 0)) || [[ ! -c /dev/net/tun ]]; then
		echo "skipped: the lab's networks need root and /dev/net/tun"
		exit 77
	fi
}
