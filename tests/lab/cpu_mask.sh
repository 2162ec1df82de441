#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# cpu_mask.sh [GODWIT-VM [TEST-GUEST]]: what a guest really reads by CPUID under --cpu host and the
# x86-64 baselines. Needs a processor that traps CPUID (SVM, VMX): on the host it starts a lab node,
# in a node it does the work. LAB_REFERENCE=1: QEMU's CPU models instead, to try the test itself.
set -u
# shellcheck source=lab_lib.sh source-path=SCRIPTDIR
. "$(dirname "$(readlink -f "$0")")/lab_lib.sh"
[[ -n ${LAB_NODE:-} ]] || exec "$LAB_TESTS/worker.sh" cpu_mask "$@"

worker=${1:-${GODWIT_VM:-}}
guest=${2:-${TEST_GUEST:-}}
work=$(mktemp -d /run/cpu_mask.XXXXXX)
pid=
trap '[[ -z $pid ]] || kill -KILL "$pid" 2>/dev/null; rm -rf "$work"' EXIT

# feature: leaf.subleaf, register (1 eax to 4 edx), bit (AMD64 Programmer's Manual volume 3, E.3)
declare -A where=(
	[pni]="0x1.0 3 0" [ssse3]="0x1.0 3 9" [fma]="0x1.0 3 12" [cx16]="0x1.0 3 13"
	[sse4_1]="0x1.0 3 19" [sse4_2]="0x1.0 3 20" [movbe]="0x1.0 3 22" [popcnt]="0x1.0 3 23"
	[aes]="0x1.0 3 25" [xsave]="0x1.0 3 26" [avx]="0x1.0 3 28" [f16c]="0x1.0 3 29"
	[fpu]="0x1.0 4 0" [cmov]="0x1.0 4 15" [sse]="0x1.0 4 25" [sse2]="0x1.0 4 26"
	[bmi1]="0x7.0 2 3" [avx2]="0x7.0 2 5" [smep]="0x7.0 2 7" [bmi2]="0x7.0 2 8"
	[adx]="0x7.0 2 19" [smap]="0x7.0 2 20" [clwb]="0x7.0 2 24"
	[lahf_lm]="0x80000001.0 3 0" [svm]="0x80000001.0 3 2" [abm]="0x80000001.0 3 5"
	[sse4a]="0x80000001.0 3 6" [nx]="0x80000001.0 4 20" [lm]="0x80000001.0 4 29"
)
base="fpu cmov sse sse2 nx lm"
v2="pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm"
v3="fma movbe xsave avx f16c bmi1 avx2 bmi2 abm"
beyond="aes smep adx smap clwb sse4a svm"

start_guest() { # start_guest MODEL: its console goes to $work/console
	# shellcheck disable=SC2054 # QEMU's commas
	local -A models=([host]=host [x86-64-v1]=kvm64,-pni,-cx16 [x86-64-v2]=Nehalem
		[x86-64-v3]=Nehalem,+fma,+movbe,+xsave,+avx,+f16c,+bmi1,+avx2,+bmi2,+abm [x86-64-v4]=none)
	rm -f "$work"/*
	if [[ -n ${LAB_REFERENCE:-} ]]; then
		qemu-system-x86_64 -accel kvm -cpu "${models[$1]}" -nodefaults -display none -m 128 \
			-kernel "$guest" -append dump=cpuid -serial "file:$work/console" >"$work/log" 2>&1 &
	else
		"$worker" --name cpu-mask --memory 128M --vcpus 1 --cpu "$1" --kernel "$guest" \
			--cmdline dump=cpuid --console "file:$work/console" --control "$work/control" \
			>"$work/log" 2>&1 </dev/null &
	fi
	pid=$!
}

stop_guest() {
	kill -KILL "$pid" 2>/dev/null
	wait "$pid" 2>/dev/null
	pid=
}

dump() { # dump MODEL: the guest's CPUID lines, in $work/console; fails if they do not come
	local tick
	start_guest "$1"
	for ((tick = 0; tick < 1200; tick++)); do
		grep -qs 'guest: cpuid end' "$work/console" && break
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.1
	done
	stop_guest
	grep -qs 'guest: cpuid end' "$work/console" && return
	tail -n 5 "$work/log" "$work/console" 2>/dev/null
	return 1
}

shown() { # shown FEATURE: does the dump have its bit?
	local leaf register bit values
	read -r leaf register bit <<<"${where[$1]}"
	read -ra values <<<"$(sed -n "s/^guest: cpuid $leaf //p" "$work/console" | tr -d '\r')"
	((${#values[@]} == 4)) || return 1
	(((16#${values[register - 1]#0x} >> bit & 1) == 1))
}

expect() { # expect MODEL SHOWN-FEATURES HIDDEN-FEATURES
	local feature wrong=''
	if ! dump "$1"; then
		fail "cpu-$1" "no CPUID dump"
		return
	fi
	for feature in $2; do
		shown "$feature" || wrong+=" $feature is hidden,"
	done
	for feature in $3; do
		! shown "$feature" || wrong+=" $feature is visible,"
	done
	if [[ -z $wrong ]]; then
		pass "cpu-$1"
	else
		fail "cpu-$1" "$wrong"
		grep -E 'cpuid 0x(1|7|80000001)\.0' "$work/console"
	fi
}

node_has() { # those of the features that the node's own processor has
	local feature
	for feature in "$@"; do
		! grep -m1 '^flags' /proc/cpuinfo | grep -qw "$feature" || echo "$feature"
	done
}

refused() { # a model that this processor cannot give: one line that names why, and an end
	local status=0
	timeout -k 5 60 "$worker" --name cpu-mask --memory 128M --cpu "$1" --kernel "$guest" \
		--cmdline dump=cpuid --console "file:$work/console" --control "$work/control" \
		>"$work/log" 2>&1 </dev/null || status=$?
	cat "$work/log"
	((status == 1 || status == 2)) && grep -q "$2" "$work/log"
}

if [[ ! -x $worker && -z ${LAB_REFERENCE:-} ]]; then
	skip cpu-mask "no godwit-vm at '$worker' (GODWIT_VM or the first argument)"
	exit 77
elif [[ ! -r $guest ]]; then
	skip cpu-mask "no test guest at '$guest' (TEST_GUEST or the second argument)"
	exit 77
fi

expect x86-64-v1 "$base" "$v2 $v3 $beyond"
expect x86-64-v2 "$base $v2" "$v3 $beyond"
# shellcheck disable=SC2086,SC2046
if [[ $(node_has $v3 | wc -w) == $(wc -w <<<"$v3") ]]; then
	expect x86-64-v3 "$base $v2 $v3" "$beyond"
else
	skip cpu-x86-64-v3 "this node's processor has only: $(node_has $v3 | tr '\n' ' ')"
fi
# shellcheck disable=SC2086
shows=$(node_has $v2 $v3 | tr '\n' ' ')
if [[ -n ${LAB_REFERENCE:-} ]]; then
	expect host "$base $shows" ""
	skip cpu-x86-64-v4-refused "QEMU would start it"
else
	expect host "$base $shows" svm
	if [[ -n $(node_has avx512f) ]]; then
		skip cpu-x86-64-v4-refused "this node's processor has AVX-512"
	else
		check cpu-x86-64-v4-refused refused x86-64-v4 avx512f
	fi
fi
checks_end
