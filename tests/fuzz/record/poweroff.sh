#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: Apache-2.0
# What the recorded guest's kernel runs when it is asked to power off: its drivers say good-bye first.
export PATH=/bin
killall hv_kvp_daemon hv_vss_daemon
ip link set eth0 down
for module in 8021q hv_netvsc sr_mod sd_mod hv_storvsc hv_utils hv_vmbus; do
	rmmod "$module" && echo "record: without $module" >/dev/console
done
poweroff -f
