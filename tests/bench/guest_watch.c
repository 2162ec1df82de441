/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks at a test guest from outside, through the files that its memory is in at the source and at
 * the destination of a migration: how long it made no step, and how much work it did.  What movers
 * say of themselves plays no part, nor does a clock inside the guest, which a mover may set.
 *
 *   guest_watch OFFSET FILE FILE
 *
 * OFFSET: of the guest's first worker in guest memory (guest_work.h: rounds, written).  A worker's
 * counters only rise, so the larger one is of the place where it runs.  Commands on standard input,
 * one a line: "mark" answers "mark NS ROUNDS WRITTEN GAP_NS RESOLUTION_NS" and begins anew; the end
 * of input ends.  Gap: between two steps that were seen; resolution: the longest time between two
 * looks, both since the last mark.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"

#define SIDES   2
#define PAGE    4096u
#define LOOK_NS (100 * BASE_NS_PER_US)

struct watch {
	const _Atomic uint64_t *counters[SIDES]; /* rounds, written */
	uint64_t rounds;
	uint64_t step_ns; /* when the last step was seen */
	uint64_t look_ns;
	uint64_t gap_ns, resolution_ns;
};

static const _Atomic uint64_t *map_counters(const char *name, uint64_t offset)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	void *page = MAP_FAILED;

	if (fd >= 0)
		page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, (off_t)(offset / PAGE * PAGE));
	if (page == MAP_FAILED) {
		fprintf(stderr, "guest_watch: '%s' at %" PRIu64 ": %s\n", name, offset,
			strerror(errno));
		exit(1);
	}
	(void)close(fd);
	return (const _Atomic uint64_t *)((const char *)page + offset % PAGE);
}

static uint64_t newest(const struct watch *watch, unsigned int which)
{
	uint64_t a = atomic_load(&watch->counters[0][which]);
	uint64_t b = atomic_load(&watch->counters[1][which]);

	return a > b ? a : b;
}

static void look(struct watch *watch)
{
	uint64_t rounds = newest(watch, 0);
	uint64_t now_ns = base_clock_boot_ns(&base_clock_system);

	if (now_ns - watch->look_ns > watch->resolution_ns)
		watch->resolution_ns = now_ns - watch->look_ns;
	watch->look_ns = now_ns;
	if (rounds == watch->rounds)
		return;
	if (now_ns - watch->step_ns > watch->gap_ns)
		watch->gap_ns = now_ns - watch->step_ns;
	watch->rounds = rounds;
	watch->step_ns = now_ns;
}

static void mark(struct watch *watch)
{
	look(watch);
	printf("mark %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", watch->look_ns,
	       watch->rounds, newest(watch, 1), watch->gap_ns, watch->resolution_ns);
	(void)fflush(stdout);
	watch->gap_ns = 0;
	watch->resolution_ns = 0;
}

int main(int argc, char **argv)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	struct watch watch = { .rounds = 0 };
	char line[16];

	if (argc != 2 + SIDES) {
		fprintf(stderr, "usage: guest_watch OFFSET FILE FILE\n");
		return 2;
	}
	for (int i = 0; i < SIDES; i++)
		watch.counters[i] = map_counters(argv[2 + i], strtoull(argv[1], NULL, 0));
	watch.rounds = newest(&watch, 0);
	watch.look_ns = base_clock_boot_ns(&base_clock_system);
	watch.step_ns = watch.look_ns;
	for (;;) {
		look(&watch);
		if (poll(&input, 1, 0) > 0) {
			ssize_t n = read(STDIN_FILENO, line, sizeof(line));

			if (n <= 0)
				return 0;
			mark(&watch);
			continue;
		}
		base_sleep_ns(LOOK_NS);
	}
}
