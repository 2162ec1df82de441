/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vCPU 0's second job: commands from the test page, counters to it, status lines,
 * and the end of the run.  Only vCPU 0 calls these, guest_control_init() before
 * the other vCPUs run.
 */
#ifndef GUEST_CONTROL_H
#define GUEST_CONTROL_H

#include "tests/guest/guest_firmware.h"
#include "tests/guest/guest_work.h"

/** guest_control_init - map the test page if there is one and tell it the layout. */
void guest_control_init(const struct guest_firmware *fw);

/** guest_control_poll - do what is due at @now (the clock of @worker, TSC units). */
void guest_control_poll(struct guest_worker *worker, uint64_t now);

/** guest_control_ask_end - end the run as exit= says, or with a reset: after this round. */
void guest_control_ask_end(bool with_reset);

#endif
