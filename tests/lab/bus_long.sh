#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# bus_long.sh: fifty boots of Debian's kernel with each of 1, 2 and 4 virtual processors; none may stall.
# What the last run said is in docs/tests/running.md.
exec "$(dirname "$(readlink -f "$0")")/bus.sh" 50
