/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether to compress: pure, from what the link and the processors were seen to do.
 *
 * One for each data channel.  It watches windows of a few MiB: how long a byte of memory took, and
 * how much of that time the channel's thread was waiting.  A thread that does not wait has nothing
 * to gain.  One that waits may try a page, then chunks, and goes on for as long as memory moves
 * faster than it did raw.  Whatever it finds out costs time, and that comes out of a budget of a
 * small share of the time that has passed: so it is never slower than that share.
 * docs/migrate/compression.md.
 *
 * Threads: values.
 */
#ifndef MIGRATE_MIG_SQUEEZE_H
#define MIGRATE_MIG_SQUEEZE_H

#include <stdbool.h>
#include <stdint.h>

enum mig_compress {
	MIG_COMPRESS_INVALID, /* as never */
	MIG_COMPRESS_NEVER,
	MIG_COMPRESS_AUTO,   /* where it pays */
	MIG_COMPRESS_ALWAYS, /* whatever shrinks */
	MIG_COMPRESSES
};

#define MIG_SQUEEZE_WINDOW_BYTES (2ULL << 20) /* of memory, without zeros */
#define MIG_SQUEEZE_BUDGET       256u         /* one part of so many may be spent on finding out */
#define MIG_SQUEEZE_IDLE_PERCENT 20u          /* that a thread waits: less leaves nothing to gain */
#define MIG_SQUEEZE_GAIN_PERCENT 15u          /* that has to be foreseen before it is tried */
#define MIG_SQUEEZE_BOLD_PERCENT 50u          /* the same, while no failure can be paid for */
#define MIG_SQUEEZE_KEEP_PERCENT 5u           /* that has to be there to go on */
#define MIG_SQUEEZE_SEEN         5u           /* raw windows that its cost is taken from */

enum mig_squeeze_step {
	MIG_SQUEEZE_INVALID,
	MIG_SQUEEZE_RAW,    /* send as it is */
	MIG_SQUEEZE_SAMPLE, /* compress a page and ask mig_squeeze_judge() */
	MIG_SQUEEZE_LZ4,    /* compress; what does not shrink goes raw */
	MIG_SQUEEZE_STEPS
};

struct mig_squeeze {
	enum mig_compress wish;
	bool on;    /* chunks are compressed now */
	bool mixed; /* in the window under way that began: it says nothing */

	/* The window under way. */
	uint64_t begin_wall_ns;
	uint64_t begin_cpu_ns;
	uint64_t bytes;

	/* The raw windows seen last, a ring; those of a changed mind are forgotten. */
	uint64_t seen_wall_ns[MIG_SQUEEZE_SEEN];
	uint64_t seen_cpu_ns[MIG_SQUEEZE_SEEN];
	uint32_t seen_count;
	uint32_t skip; /* windows not to keep: they fill buffers that were empty */

	/* What follows from them, picoseconds for a byte of memory; 0: nothing yet, or there is
	 * nothing to gain. */
	uint64_t raw_ps;
	uint64_t busy_ps; /* of it what the thread does itself */

	/* Since it is on. */
	uint64_t lost_ns; /* against raw, since it last was no loss */
	uint64_t on_ns;   /* of the windows on_bytes went in */
	uint64_t on_bytes;
	int64_t budget_ns;
};

struct mig_squeeze mig_squeeze_begin(enum mig_compress wish);

/* A round begins (or goes on after something else): by the clock, and of this thread's processor
 * time.  What was seen stays. */
void mig_squeeze_start(struct mig_squeeze *squeeze, uint64_t wall_ns, uint64_t cpu_ns);

/* What to do with the next @bytes of memory, which are not zeros. */
enum mig_squeeze_step mig_squeeze_next(const struct mig_squeeze *squeeze, uint64_t bytes);

/* @bytes of them were compressed to @stored_bytes in @took_ns: whether to do so with all. */
bool mig_squeeze_judge(struct mig_squeeze *squeeze, uint64_t bytes, uint64_t stored_bytes,
		       uint64_t took_ns);

/* So many were sent, this way or that.  True: the window is full, mig_squeeze_end() is next. */
bool mig_squeeze_sent(struct mig_squeeze *squeeze, uint64_t bytes);
/* The window ends now, and the next begins. */
void mig_squeeze_end(struct mig_squeeze *squeeze, uint64_t wall_ns, uint64_t cpu_ns);

#endif
