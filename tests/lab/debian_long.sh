#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# debian_long.sh: all of debian.sh (a look around, save and restore under load, the cloud kernel, the
# installer), and three boots of Debian 12 with each of 1, 2 and 4 virtual processors.
# What the last run said is in docs/tests/running.md.
export DEBIAN_TIMEOUT=7200
exec "$(dirname "$(readlink -f "$0")")/debian.sh" 3 1 2 4
