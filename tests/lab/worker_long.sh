#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# worker_long.sh: the worker's lab check that takes minutes: every command to its disks and network cards.
exec "$(dirname "$(readlink -f "$0")")/worker.sh" devices
