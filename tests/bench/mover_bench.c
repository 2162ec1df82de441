/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One side of a whole migration without a VM, for tests/bench/mover, which says when.
 *
 *   mover_bench source PORT FILE CONTENT CHANNELS COMPRESSION
 *   mover_bench destination PORT MIB
 *   mover_bench fill FILE MIB CONTENT    random, text, zeros or untouched
 *   mover_bench compare FILE FILE        exit status 1: they differ
 *   mover_bench touch MIB                take memory from the host, and give it back
 *
 * The source's memory is FILE, a VM's on a tmpfs; it says "ready", and moves when it reads a line.
 * The destination's is its own; it says "listening", "runs" when it would, and then takes lines
 * with a file's name to say whether its memory is the same.  Both stay until their input ends, so
 * that their processor time can be read.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "hypervisor/memory_priv.h"
#include "tests/support/bench_move.h"
#include "tests/support/bench_table.h"

#define TIMEOUT_MS 60000u
#define SEED       0x9e3779b97f4a7c15ULL

static void need(bool good, const char *what)
{
	struct base_error err = { .code = 0 };

	if (!good)
		bench_need(base_fail_errno(&err, errno != 0 ? -errno : -EINVAL, "%s", what), &err);
}

static void say(const char *what)
{
	(void)puts(what);
	(void)fflush(stdout);
}

static enum bench_content content_of(const char *name)
{
	for (int content = 0; content < BENCH_CONTENTS; content++)
		if (strcmp(bench_content_names[content], name) == 0)
			return (enum bench_content)content;
	need(false, name);
	return BENCH_CONTENTS;
}

/* At an address where huge pages fit. */
static uint8_t *map_file(const char *path, int protection, uint64_t *ret_size_bytes)
{
	BASE_CLOSE int fd = open(path, (protection & PROT_WRITE) != 0 ? O_RDWR | O_CLOEXEC
								      : O_RDONLY | O_CLOEXEC);
	struct stat stat = { .st_size = 0 };
	uint8_t *at = NULL;

	need(fd >= 0 && fstat(fd, &stat) == 0, path);
	*ret_size_bytes = (uint64_t)stat.st_size;
	at = mmap(NULL, *ret_size_bytes + HV_HUGE_PAGE_BYTES, PROT_NONE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	need(at != MAP_FAILED, path);
	at += -(uintptr_t)at & (HV_HUGE_PAGE_BYTES - 1);
	at = mmap(at, *ret_size_bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0);
	need(at != MAP_FAILED, path);
	return at;
}

static int fill(const char *path, const char *mib, const char *content)
{
	BASE_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	uint64_t size_bytes = strtoull(mib, NULL, 10) << 20;

	need(fd >= 0 && ftruncate(fd, (off_t)size_bytes) == 0, path);
	bench_fill(map_file(path, PROT_READ | PROT_WRITE, &size_bytes), size_bytes,
		   content_of(content), SEED);
	return 0;
}

static int compare(const char *a, const char *b)
{
	uint64_t a_bytes = 0;
	uint64_t b_bytes = 0;
	const uint8_t *a_at = map_file(a, PROT_READ, &a_bytes);
	const uint8_t *b_at = map_file(b, PROT_READ, &b_bytes);

	return a_bytes == b_bytes && memcmp(a_at, b_at, a_bytes) == 0 ? 0 : 1;
}

/* Where this machine is itself a guest its host may have to find the memory, which takes much
 * longer than a move: what was in use a moment ago is there. */
static int touch(const char *mib)
{
	struct hv_memory *memory = NULL;
	struct base_error err = { .code = 0 };

	bench_need(hv_memory_new(strtoull(mib, NULL, 10) << 20, HV_MEMORY_AUTO, &memory, &err),
		   &err);
	bench_need(hv_memory_populate(memory, &err), &err);
	hv_memory_free(memory);
	return 0;
}

static bool next_line(char *line, int bytes)
{
	if (fgets(line, bytes, stdin) == NULL)
		return false;
	line[strcspn(line, "\n")] = '\0';
	return true;
}

/* A guest that has written its memory has it mapped. */
static void look_at(const volatile uint8_t *memory, uint64_t size_bytes)
{
	for (uint64_t at = 0; at < size_bytes; at += HV_HUGE_PAGE_BYTES)
		(void)memory[at];
}

static int source(char **words)
{
	struct bench_move move = { .timeout_ms = TIMEOUT_MS };
	char line[256];

	bench_move_address(&move, (uint16_t)strtoul(words[0], NULL, 10));
	move.from = map_file(words[1], PROT_READ, &move.size_bytes);
	move.untouched = content_of(words[2]) == BENCH_UNTOUCHED;
	if (!move.untouched)
		look_at(move.from, move.size_bytes);
	move.out.channel_count = (uint32_t)strtoul(words[3], NULL, 10);
	move.out.compress = strcmp(words[4], "auto") == 0 ? MIG_COMPRESS_AUTO : MIG_COMPRESS_NEVER;
	move.out.pace.downtime_goal_ns = 300 * BASE_NS_PER_MS;
	say("ready");
	if (!next_line(line, sizeof(line)))
		return 1;
	bench_move_out(&move);
	(void)printf("moved total_ns=%" PRIu64 " prepare_ns=%" PRIu64 " copy_ns=%" PRIu64
		     " blackout_ns=%" PRIu64 " sent_bytes=%" PRIu64 " lz4_pages=%" PRIu64 "\n",
		     move.report.total_ns, move.report.prepare_ns, move.report.copy_ns,
		     move.report.blackout_ns, move.report.sent_bytes, move.report.lz4_pages);
	(void)fflush(stdout);
	while (next_line(line, sizeof(line)))
		continue;
	return 0;
}

static int destination(const char *port, const char *mib)
{
	struct bench_move move = { .timeout_ms = TIMEOUT_MS,
				   .size_bytes = strtoull(mib, NULL, 10) << 20 };
	struct base_error err = { .code = 0 };
	char line[256];

	bench_need(hv_memory_new(move.size_bytes, HV_MEMORY_AUTO, &move.to, &err), &err);
	bench_move_listen(&move, (uint16_t)strtoul(port, NULL, 10));
	say("listening");
	bench_move_in(&move);
	say("runs");
	bench_move_in_end(&move);
	while (next_line(line, sizeof(line))) {
		uint64_t size_bytes = 0;
		const uint8_t *from = map_file(line, PROT_READ, &size_bytes);
		bool same = size_bytes == move.size_bytes &&
			    memcmp(from, hv_memory_base(move.to), size_bytes) == 0;

		say(same ? "same" : "different");
	}
	hv_memory_free(move.to);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 7 && strcmp(argv[1], "source") == 0)
		return source(argv + 2);
	if (argc == 4 && strcmp(argv[1], "destination") == 0)
		return destination(argv[2], argv[3]);
	if (argc == 5 && strcmp(argv[1], "fill") == 0)
		return fill(argv[2], argv[3], argv[4]);
	if (argc == 4 && strcmp(argv[1], "compare") == 0)
		return compare(argv[2], argv[3]);
	if (argc == 3 && strcmp(argv[1], "touch") == 0)
		return touch(argv[2]);
	(void)fputs("mover_bench: expected source PORT FILE CONTENT CHANNELS auto|never, "
		    "destination PORT MIB, fill FILE MIB CONTENT, compare FILE FILE or touch MIB\n",
		    stderr);
	return 2;
}
