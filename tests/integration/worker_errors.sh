#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Bad input to godwit-vm: each gives one line that names the thing, an exit code that is not
# zero, and leaves nothing behind.
#
#   worker_errors.sh GODWIT_VM
#
# Exit 0 ok, 1 failed.
# shellcheck disable=SC2317,SC2012,SC2094 # the trap calls cleanup; names are our own; read only
set -u

VM=${1:-${GODWIT_VM:?usage: worker_errors.sh GODWIT_VM}}
# A leak check makes a process to trace this one, which the lock-down forbids.
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0
LIMIT_S=60 # a stuck worker, not a slow one
failed=0
count=0

tmp=$(mktemp -d)
holder=
cleanup() {
	[[ -z $holder ]] || kill -9 "$holder" 2>/dev/null
	rm -rf "$tmp"
}
trap cleanup EXIT

mkdir "$tmp/work" "$tmp/run" # inputs, and where a worker may leave something
head -c 65536 /dev/urandom > "$tmp/work/garbage"
printf '\x7fELF' > "$tmp/work/cut"
: > "$tmp/work/empty"
mkfifo "$tmp/work/fifo"
printf 'HARMLESS' > "$tmp/work/state"

fail() {
	echo "FAIL $1: $2"
	sed 's/^/    /' "$tmp/err"
	failed=1
}

# check NAME EXIT PART ARGS...: run with ARGS; expect that exit code, and one line with PART.
check() {
	local name=$1 expected=$2 part=$3 got
	shift 3
	count=$((count + 1))
	timeout -k 5 "$LIMIT_S" "$VM" "$@" > "$tmp/out" 2> "$tmp/err" < /dev/null
	got=$?
	if [[ $got -ne $expected ]]; then
		fail "$name" "exit code $got: expected $expected"
	elif [[ $(wc -l < "$tmp/err") -ne 1 || -s $tmp/out ]]; then
		fail "$name" "expected one line on standard error and nothing on standard output"
	elif ! grep -q '^godwit-vm: ' "$tmp/err" || ! grep -qF -- "$part" "$tmp/err"; then
		fail "$name" "expected a line 'godwit-vm: ...' with '$part'"
	elif [[ -n $(ls -A "$tmp/run") ]]; then
		fail "$name" "left behind: $(ls -A "$tmp/run" | tr '\n' ' ')"
	else
		echo "PASS $name"
	fi
	rm -rf "${tmp:?}/run"
	mkdir "$tmp/run"
}

# The same with everything else in order: socket, console file and state directory asked for.
check_kernel() {
	local name=$1 part=$2 kernel=$3
	shift 3
	check "$name" 1 "$part" --memory 64M --kernel "$kernel" --control "$tmp/run/ctl" \
		--console "file:$tmp/run/con" --state-dir "$tmp/run" "$@"
}

check no-arguments 2 "key 'kernel': not given"
check unknown-key 2 "key 'colour': value 'red'" --colour red
check no-dashes 2 "argument 'kernel'" kernel
check memory-zero 2 "key 'memory': value '0': expected 64M to 64T" --kernel /k --memory 0
check memory-petabyte 2 "value '1024T': expected 64M to 64T" --kernel /k --memory 1024T
check vcpus-many 2 "key 'vcpus': value '65': expected 1 to 64" --kernel /k --vcpus 65
check no-config-file 2 "'$tmp/work/none'" --config "$tmp/work/none"

printf 'kernel = /k\n\nvcpus = two\n' > "$tmp/work/conf"
check config-line 2 "$tmp/work/conf:3: key 'vcpus': value 'two': expected 1 to 64" \
	--config "$tmp/work/conf"
printf 'kernel = /k\nshape = round\n' > "$tmp/work/conf"
check config-unknown-key 2 "$tmp/work/conf:2: key 'shape': value 'round'" --config "$tmp/work/conf"

check_kernel kernel-missing "key 'kernel': value '$tmp/work/none'" "$tmp/work/none"
check_kernel kernel-directory "$tmp/work" "$tmp/work"
check_kernel kernel-fifo "$tmp/work/fifo" "$tmp/work/fifo"
check_kernel initrd-missing "key 'initrd': value '$tmp/work/none'" "$tmp/work/garbage" \
	--initrd "$tmp/work/none"
check restore-missing 1 "key 'restore': value '$tmp/work/none'" --restore "$tmp/work/none"
check state-dir-missing 1 "key 'state-dir': value '$tmp/work/none'" \
	--kernel "$tmp/work/garbage" --state-dir "$tmp/work/none"
check state-dir-file 1 "key 'state-dir': value '$tmp/work/empty'" \
	--kernel "$tmp/work/garbage" --state-dir "$tmp/work/empty"
check incoming-name 2 "key 'incoming': value 'localhost:7011': expected ADDRESS:PORT in numbers" \
	--state-dir "$tmp/work" --incoming localhost:7011
check incoming-without-records 2 "key 'incoming': expected key 'state-dir' with it" --incoming 127.0.0.1:7011
check incoming-from-nobody 2 "key 'incoming': value '127.0.0.1:7011': expected key 'migrate-peers' with it" \
	--state-dir "$tmp/work" --incoming 127.0.0.1:7011
check incoming-without-certificates 1 "key 'migrate-tls': value '$tmp/no': No such file or directory: expected the folder" \
	--state-dir "$tmp/work" --incoming 127.0.0.1:7011 --migrate-peers a --migrate-tls "$tmp/no" --memory 64M --control "$tmp/run/ctl" --kvm-fd 9 9< /dev/null
check incoming-no-such-address 1 "key 'incoming': listen on 192.0.2.1:7011" \
	--state-dir "$tmp/work" --incoming 192.0.2.1:7011 --migrate-clear on --memory 64M --control "$tmp/run/ctl" --kvm-fd 9 9< /dev/null
printf 'no record' > "$tmp/work/vm.promise"
check start-with-a-bad-record 1 "vm.promise" --state-dir "$tmp/work" --kernel "$tmp/work/garbage" \
	--memory 64M --control "$tmp/run/ctl" --kvm-fd 9 9< /dev/null
rm "$tmp/work/vm.promise"
check memory-more-than-host 1 "memory" --kernel "$tmp/work/garbage" --memory 32T \
	--control "$tmp/run/ctl" --console "file:$tmp/run/con"
check kvm-fd-not-open 1 "descriptor 900" --kernel "$tmp/work/garbage" --kvm-fd 900

if [[ -c /dev/kvm && -w /dev/kvm ]]; then
	check_kernel kernel-garbage "$tmp/work/garbage" "$tmp/work/garbage"
	check_kernel kernel-cut "$tmp/work/cut" "$tmp/work/cut"
	check_kernel kernel-empty "$tmp/work/empty" "$tmp/work/empty"
	check restore-garbage 1 "$tmp/work/state" --restore "$tmp/work/state" --memory 64M \
		--control "$tmp/run/ctl" --console "file:$tmp/run/con"
	check console-no-directory 1 "console file '$tmp/work/none/con'" --memory 64M \
		--kernel "$tmp/work/garbage" --control "$tmp/run/ctl" \
		--console "file:$tmp/work/none/con"
	check console-fifo 1 "$tmp/work/fifo" --memory 64M --kernel "$tmp/work/garbage" \
		--control "$tmp/run/ctl" --console "file:$tmp/work/fifo"
	check control-no-directory 1 "control socket '$tmp/work/none/ctl'" --memory 64M \
		--kernel "$tmp/work/garbage" --control "$tmp/work/none/ctl"
	check control-is-a-file 1 "something else is there" --memory 64M \
		--kernel "$tmp/work/garbage" --control "$tmp/work/empty"
	check leash-fds-no-leash 1 "leash" --memory 64M --kernel "$tmp/work/garbage" \
		--leash-page-fd 8 --leash-event-fd 9 --epoch 1 \
		--control "$tmp/run/ctl" 8< "$tmp/work/garbage" 9< /dev/null

	# A living worker's socket is refused by its process id; a dead one's is taken over.
	(exec 9> "$tmp/work/ctl.lock"; flock 9; echo $BASHPID >&9; exec sleep 600) &
	holder=$!
	until [[ -s $tmp/work/ctl.lock ]]; do read -rt 0.05 < <(:) || true; done
	check control-in-use 1 "process $holder uses it" --memory 64M \
		--kernel "$tmp/work/garbage" --control "$tmp/work/ctl"
	kill -9 "$holder"
	wait "$holder" 2>/dev/null
	holder=
	check control-of-a-dead-one 1 "garbage" --memory 64M \
		--kernel "$tmp/work/garbage" --control "$tmp/work/ctl"
	if [[ -e $tmp/work/ctl || -e $tmp/work/ctl.lock ]]; then
		fail control-of-a-dead-one "left behind: ctl or ctl.lock"
	fi
else
	echo "SKIP kernel, restore, console, control: this machine has no /dev/kvm we can open"
fi

# No /dev/kvm: in a mount namespace that has none.
if unshare -m true 2>/dev/null; then
	cat > "$tmp/work/no-kvm" <<-WRAP
		#!/bin/bash
		exec unshare -m bash -c 'mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec "\$@"' \
			godwit "$VM" "\$@"
	WRAP
	chmod +x "$tmp/work/no-kvm"
	VM=$tmp/work/no-kvm
	check no-kvm 1 "/dev/kvm" --memory 64M --kernel "$tmp/work/garbage" \
		--control "$tmp/run/ctl" --console "file:$tmp/run/con"
else
	echo "SKIP no-kvm: no mount namespace to be had (root is needed)"
fi

echo "$count cases"
exit "$failed"
