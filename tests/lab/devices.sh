#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# devices.sh: inside a lab node: a worker with a disk, a DVD drive and a network card as its user has it:
# a configuration file, every command of the devices, checkpoints, save and restore, and what is refused
# how. The guest is the test guest, whose storage, network and integration drivers are in use all along.
set -u
# shellcheck source=lab_lib.sh source-path=SCRIPTDIR
. "$(dirname "$(readlink -f "$0")")/lab_lib.sh"
[[ -n ${LAB_NODE:-} ]] || exec "$LAB_TESTS/worker.sh" devices "$@"

worker=${1:-${GODWIT_VM:-}}
guest=${2:-${TEST_GUEST:-}}
godwit=${GODWIT:-$(dirname "$worker")/godwit}
if [[ ! -x $worker || ! -f $guest || ! -x $godwit ]]; then
	skip devices "needs godwit-vm, godwit and the test guest"
	exit 77
fi
work=/run/devices # a file system that takes direct I/O
mkdir -p "$work"/{disks,more,state}
cd "$work" || exit 1
"$godwit" disk create -q disks/web.vhdx 64M && "$godwit" disk create -q disks/data.img 16M &&
	"$godwit" disk create -q more/added.vhdx 32M && truncate -s 1M more/a.iso more/b.iso || exit 1
ip link add br0 type bridge 2>/dev/null && ip link set br0 up

config() { # config WEB DATA
	cat <<-C
		# a machine with all there is
		name = web
		memory = 64M
		kernel = $guest
		cpu = x86-64-v2
		cmdline = ws=4M rate=200 report=500 exit=acpi ic=on disk=stamp disk_bytes=4M net=10.9.0.2/24
		disk = $1
		disk = $2,lun=3
		disk = $work/more/a.iso,lun=7,dvd
		nic = bridge=br0,mac=00:15:5d:01:02:03
		store = $work/more
		control = $work/control
		state-dir = $work/state
		console = file:$work/console
	C
}
config "$work/disks/web.vhdx" "$work/disks/data.img" >web.conf

CTL=("$LAB_TESTS/../../deploy/ctl" "$work/control")
ctl() { "${CTL[@]}" "$@"; }
start() { # start ARG...
	"$worker" "$@" </dev/null >>log 2>&1 &
	pid=$!
}
until_true() { # until_true TENTHS COMMAND...: or the worker has ended
	local i
	for ((i = 0; i < $1; i++)); do
		"${@:2}" >/dev/null 2>&1 && return 0
		kill -0 "$pid" 2>/dev/null || return 1
		sleep 0.1
	done
	return 1
}
told() { # told FILTER: of the devices, by a line of Python over d
	ctl devices >devices.json && python3 -c 'import json,sys
d = json.load(open("devices.json"))
disks = {x["lun"]: x for x in d["disks"]}
sys.exit(0 if eval("(" + sys.argv[1] + ")") else 1)' "$1"
}
runs_on() { # the guest has done more on its disk since
	local n
	n=$(grep -ac 'guest: ok' console)
	until_true 150 eval "((\$(grep -ac 'guest: ok' console) > $n + 1))" && ! grep -aE 'BAD|FATAL|stalled' console
}
refuses() { # refuses TEXT COMMAND...: one line with TEXT, and not 0
	local status=0 said
	said=$(timeout 60 "${@:2}" 2>&1 </dev/null) || status=$?
	if ((status == 0)) || [[ $said != *"$1"* || $(wc -l <<<"$said") != 1 ]]; then
		echo "status $status: $said"
		return 1
	fi
}
ends() { # ends STATUS
	local status=0
	wait "$pid" || status=$?
	((status == $1)) || { echo "ended with $status"; return 1; }
}

# What is wrong in the configuration: one line, before anything is done.
bad() { refuses "$1" "$worker" --config web.conf "${@:2}"; }
check devices-no-image bad "$work/disks/none.vhdx" --disk "$work/disks/none.vhdx"
check devices-lun-twice bad "'$work/disks/data.img" --disk "$work/disks/web.vhdx,lun=1" --disk "$work/disks/data.img,lun=1"
check devices-no-bridge bad none0 --nic bridge=none0
check devices-bad-mac bad 01:00:00:00:00:01 --nic bridge=br0,mac=01:00:00:00:00:01
check devices-no-store bad /run/devices/nowhere --store /run/devices/nowhere
check devices-nothing-left test ! -e control

start --config web.conf
check devices-starts until_true 300 grep -aq 'guest: disk running' console
if ! kill -0 "$pid"; then
	tail -n 30 console log
	exit 1
fi
check devices-network until_true 100 told 'd["nics"][0]["connected"]'
check devices-tells told "d['bus']['connected'] and d['nics'][0]['mac'] == '00:15:5d:01:02:03' and
	disks[0]['path'] == '$work/disks/web.vhdx' and disks[0]['state'] == 'active' and
	disks[0]['guest']['writes'] > 0 and disks[7]['kind'] == 'dvd'"
check devices-second-worker refuses "$work/disks/web.vhdx" "$worker" --name other --memory 64M --kernel "$guest" \
	--cpu x86-64-v2 --disk "$work/disks/web.vhdx"

check devices-disk-add eval "ctl disk-add disk=$work/more/added.vhdx,lun=5 >/dev/null && told \"disks[5]['state'] == 'active'\""
check devices-disk-add-taken refuses 'LUN 5: taken' "${CTL[@]}" disk-add "disk=$work/more/added.vhdx,lun=5"
check devices-disk-add-elsewhere refuses '/etc/passwd' "${CTL[@]}" disk-add disk=/etc/passwd
check devices-resize eval "ctl disk-resize lun=5 size=$((48 << 20)) >/dev/null && told \"disks[5]['size_bytes'] == 48 << 20\""
check devices-disk-remove eval 'ctl disk-remove lun=5 >/dev/null && told "5 not in disks"'
check devices-remove-none refuses 'LUN 5: nothing there' "${CTL[@]}" disk-remove lun=5
check devices-medium eval "ctl medium lun=7 path=$work/more/b.iso >/dev/null && told \"disks[7]['path'].endswith('b.iso')\""
check devices-medium-out eval "ctl medium lun=7 >/dev/null && told \"disks[7]['state'] == 'empty'\""
check devices-medium-disk refuses 'expected a DVD drive' "${CTL[@]}" medium lun=3
check devices-link eval 'ctl link nic=0 up=false >/dev/null && told "not d[\"nics\"][0][\"link_up\"]" && ctl link nic=0 up=true >/dev/null'
check devices-no-nic refuses "argument 'nic'" "${CTL[@]}" link nic=9 up=true

# Checkpoints: consistent, told, and the guest goes on.
check devices-vss until_true 100 eval 'ctl guest | grep -q "\"vss\": true"'
check devices-checkpoint eval 'ctl checkpoint >taken.json && grep -q "\"consistent\": true" taken.json'
check devices-checkpoint-named eval 'ctl checkpoint name=second >taken.json && grep -q "\"consistent\": true" taken.json'
check devices-tops told "disks[0]['path'] == '$work/disks/web.second.avhdx' and
	disks[3]['path'] == '$work/disks/data.second.avhdx'"
check devices-checkpoint-again refuses "'web.second.avhdx'" "${CTL[@]}" checkpoint name=second
check devices-goes-on runs_on
check devices-save eval 'ctl save file=web >/dev/null && ends 0'

# The newest images, and no others.
check devices-old-images refuses "web.second.avhdx" "$worker" --config web.conf
check devices-old-images-restore refuses "web.second.avhdx" "$worker" --config web.conf --restore "$work/state/web"
check devices-old-image-cli refuses "web.second.avhdx" "$godwit" disk resize "$work/disks/web.vhdx" 80M
config "$work/disks/web.second.avhdx" "$work/disks/data.second.avhdx" >web.conf
start --config web.conf --restore "$work/state/web"
check devices-restored until_true 200 told "disks[0]['guest']['seen'] and d['nics'][0]['connected']"
check devices-restored-goes-on runs_on

# A command that waits for the guest holds up no other; then the machine ends in good order.
check devices-shutdown eval 'until_true 100 eval "ctl guest | grep -q \"\\\"shutdown\\\": true\"" && ctl shutdown | grep -q service && ends 0'
check devices-written-since eval "start --config web.conf; until_true 200 told \"disks[0]['guest']['writes'] > 0\"; ctl stop >/dev/null; ends 0;
	refuses 'written since' '$worker' --config web.conf --restore $work/state/web"
checks_end || tail -n 30 console log devices.json
ip link del br0 2>/dev/null
cd / && rm -rf "$work"
checks_end
