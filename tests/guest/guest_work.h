/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each vCPU does in ring 3: it stamps and checks its own slice of the pages,
 * watches the TSC, its timer tick and its vector registers, and carries out the
 * commands that vCPU 0 publishes.  A worker's fields are written by its vCPU
 * only; vCPU 0 reads the first block (relaxed) for the reports.
 */
#ifndef GUEST_WORK_H
#define GUEST_WORK_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/guest/guest_cmdline.h"
#include "tests/guest/guest_super.h"
#include "tests/guest/testpage.h"

#define GUEST_FPU_BYTES 512 /* 16 registers of 32 bytes */

struct guest_worker {
	/* read by vCPU 0 */
	uint64_t rounds, written, checked, bad, gap_tsc, ready;
	uint64_t command_done; /* number of the last command carried out ... */
	uint64_t command_result;

	uint64_t vcpu;
	uint64_t run_tsc;    /* sum of all TSC steps forward: the clock of everything below */
	uint64_t active_tsc; /* the same without long gaps: time in which it ran */
	uint64_t last_tsc;
	uint64_t first, count, fill_first, fill_count; /* the slice, page numbers */
	uint64_t cursor, check_cursor;
	uint64_t since_check;                /* stamps since the last background check */
	uint64_t due_fixed, check_due_fixed; /* on run_tsc, 8 fractional bits */
	uint64_t interval_fixed, check_interval_fixed;
	uint64_t sequence_sum; /* of all expectations in the slice: counted, not read from the table
				*/
	uint64_t tick_seen, tick_run_tsc, fpu_due_tsc;
	uint64_t exit_sequence, exit_read;
	uint64_t lines; /* BAD lines printed */
	bool paused, has_avx;
	uint8_t fpu_want[GUEST_FPU_BYTES] __attribute__((aligned(32)));
} __attribute__((aligned(64)));

/* Published by vCPU 0; @number is stored last, and only when all have done the one before. */
struct guest_command {
	uint64_t number;
	enum testpage_opcode opcode;
	uint64_t args[3];
};

extern struct guest_options guest_options; /* constant once the vCPUs are started */
extern uint64_t guest_vcpu_count, guest_tsc_khz, guest_lapic_khz;
extern struct guest_worker guest_workers[SUPER_VCPUS_MAX];
extern struct guest_command guest_command;

/** guest_work_run - stamp the slice of @vcpu for the first time, say ready, work for ever. */
_Noreturn void guest_work_run(uint64_t vcpu);

/** guest_work_stop - this vCPU stops for good; the others follow at their next round. */
_Noreturn void guest_work_stop(void);

/** guest_work_bad - one more mismatch: counted always, printed while there are not too many. */
void guest_work_bad(struct guest_worker *worker, const char *what, uint64_t which,
		    const uint64_t *want_got, const char *kind);

/** guest_work_ticks - timer ticks that @vcpu has had. */
uint64_t guest_work_ticks(uint64_t vcpu);

/** guest_work_observe - read the TSC, note gaps and ticks.  Return: the worker's clock, TSC units.
 */
uint64_t guest_work_observe(struct guest_worker *worker);

#endif
