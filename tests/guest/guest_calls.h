/* SPDX-License-Identifier: Apache-2.0 */
/* Hypercalls made to be counted or refused: TESTPAGE_CALL_LOOP. */
#ifndef GUEST_CALLS_H
#define GUEST_CALLS_H

#include "tests/guest/guest_work.h"

uint64_t guest_calls_run(struct guest_worker *worker, const struct guest_command *command);

#endif
