#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# debian_long.sh: all of debian.sh (a look around, save and restore under load, the cloud kernel, the
# installer), and fifty boots of Debian 12 with each of 1, 2 and 4 virtual processors; none may stall.
# What the last run said is in docs/tests/running.md.
export DEBIAN_TIMEOUT=43200 DEBIAN_ONLY=first,others,boots
exec "$(dirname "$(readlink -f "$0")")/debian.sh" 50 1 2 4
