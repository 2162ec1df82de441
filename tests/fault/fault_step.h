/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a process of a fault test stops, and who tells it to go on: lines on standard input and
 * output.  A step has a name; the one that was asked for is told ("at NAME"), and whoever comes
 * there waits for the line "go".
 *
 * Threads: any.
 */
#ifndef TESTS_FAULT_STEP_H
#define TESTS_FAULT_STEP_H

#include <stdint.h>

#include "base/error.h"

/* Stop the @skip-th time after the first at @name; NULL: nowhere. */
void fault_step_at(const char *name, uint32_t skip);
/* Here is step @name. */
void fault_step(const char *name);
/* The same, for who does not come to it by itself: it was reached, and waits. */
void fault_step_reached(const char *name);
void fault_step_go(void);
/* A line to who watches. */
void fault_say(const char *format, ...) BASE_PRINTF(1, 2);

#endif
