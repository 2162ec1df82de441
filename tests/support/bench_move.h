/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For benchmarks: whole sessions of a migration over loopback TCP, from memory that is there to
 * memory that was never touched.  The VM is none: nobody writes, the device state is 64 KiB of
 * zeros, the register is a value.  Failure ends the program.
 *
 * Threads: out and in on one each, or in a process each.
 */
#ifndef SUPPORT_BENCH_MOVE_H
#define SUPPORT_BENCH_MOVE_H

#include <netinet/in.h>
#include <pthread.h>

#include "agent/vm_migrate_ahead.h"
#include "hypervisor/memory.h"
#include "migrate/mig_in.h"
#include "migrate/mig_out.h"

enum bench_content {
	BENCH_RANDOM,
	BENCH_TEXT, /* words of eight letters out of 64, which LZ4 about halves */
	BENCH_ZEROS,
	BENCH_UNTOUCHED,
	BENCH_CONTENTS
};
extern const char *const bench_content_names[BENCH_CONTENTS];

/* Memory that reads zero; untouched stays so.  @seed: other than 0. */
void bench_fill(uint8_t *to, uint64_t size_bytes, enum bench_content content, uint64_t seed);

/* To be zeroed, but for what is said; both ends may be in it. */
struct bench_move {
	uint64_t size_bytes;
	struct sockaddr_in address; /* of the destination: bench_move_listen() */
	uint32_t timeout_ms;

	/* Source. */
	const uint8_t *from;
	bool untouched;             /* nobody ever wrote to it */
	struct mig_out_options out; /* but for the VM, connect, epoch and timeout */
	struct mig_out_report report;

	/* Destination. */
	int listen_fd;
	struct hv_memory *to;   /* NULL: made when the plan comes */
	struct vm_ahead *ahead; /* populates what the plan names */
	struct mig_in *in;
	struct mig_arbiter arbiter;
	pthread_mutex_t lock; /* a leaf: the register */
	struct mig_register owner;
};

/* On @port of the loopback; 0: any. */
void bench_move_listen(struct bench_move *move, uint16_t port);
/* The address of a destination in another process. */
void bench_move_address(struct bench_move *move, uint16_t port);
/* Until it has moved. */
void bench_move_out(struct bench_move *move);
/* Until it would run here; then until the source has heard of it. */
void bench_move_in(struct bench_move *move);
void bench_move_in_end(struct bench_move *move);

#endif
