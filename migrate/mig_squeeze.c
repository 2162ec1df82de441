/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_squeeze.h"

#include "base/error.h"

#define PS_PER_NS        1000u
#define UNSAMPLED_BYTES  (64u << 10) /* while it is on: so little is compressed without a sample */
#define SKIPPED_WINDOWS  3u          /* more than a socket holds */
#define PATIENCE_WINDOWS 3u
#define BUDGET_NS_MAX    10000000000LL
#define SEEN_BYTES       ((MIG_SQUEEZE_SEEN - 1) * MIG_SQUEEZE_WINDOW_BYTES)
#define LOOK_BYTES                                                                                 \
	((SKIPPED_WINDOWS + MIG_SQUEEZE_SEEN + 1u) *                                               \
	 MIG_SQUEEZE_WINDOW_BYTES) /* raw, to know its cost again */

struct mig_squeeze mig_squeeze_begin(enum mig_compress wish)
{
	base_assert(wish < MIG_COMPRESSES);
	return (struct mig_squeeze){ .wish = wish,
				     .on = wish == MIG_COMPRESS_ALWAYS,
				     .skip = SKIPPED_WINDOWS };
}

void mig_squeeze_start(struct mig_squeeze *squeeze, uint64_t wall_ns, uint64_t cpu_ns)
{
	squeeze->begin_wall_ns = wall_ns;
	squeeze->begin_cpu_ns = cpu_ns;
	squeeze->bytes = 0;
	squeeze->mixed = false;
}

static uint64_t less_percent(uint64_t value, uint32_t percent)
{
	return value / 100 * (100 - percent);
}

enum mig_squeeze_step mig_squeeze_next(const struct mig_squeeze *squeeze, uint64_t bytes)
{
	if (squeeze->wish == MIG_COMPRESS_ALWAYS)
		return MIG_SQUEEZE_LZ4;
	if (squeeze->wish != MIG_COMPRESS_AUTO)
		return MIG_SQUEEZE_RAW;
	if (squeeze->on)
		return bytes <= UNSAMPLED_BYTES ? MIG_SQUEEZE_LZ4 : MIG_SQUEEZE_SAMPLE;
	if (squeeze->raw_ps == 0 || squeeze->budget_ns <= 0)
		return MIG_SQUEEZE_RAW;
	return MIG_SQUEEZE_SAMPLE;
}

bool mig_squeeze_judge(struct mig_squeeze *squeeze, uint64_t bytes, uint64_t stored_bytes,
		       uint64_t took_ns)
{
	uint64_t raw = squeeze->raw_ps;
	uint64_t work = 0;
	uint64_t link = 0;
	uint32_t gain = MIG_SQUEEZE_GAIN_PERCENT;

	base_assert(bytes > 0);
	if (!squeeze->on)
		squeeze->budget_ns -= (int64_t)took_ns;
	/* A thread compresses while its socket drains: the slower of the two is what counts. */
	work = took_ns * PS_PER_NS / bytes + squeeze->busy_ps;
	link = raw * stored_bytes / bytes;
	if (!squeeze->on &&
	    squeeze->budget_ns < (int64_t)(raw * MIG_SQUEEZE_WINDOW_BYTES / PS_PER_NS))
		gain = MIG_SQUEEZE_BOLD_PERCENT;
	if ((work > link ? work : link) > less_percent(raw, gain))
		return false;
	squeeze->mixed = squeeze->mixed || !squeeze->on;
	squeeze->on = true;
	return true;
}

bool mig_squeeze_sent(struct mig_squeeze *squeeze, uint64_t bytes)
{
	squeeze->bytes += bytes;
	return squeeze->wish == MIG_COMPRESS_AUTO && squeeze->bytes >= MIG_SQUEEZE_WINDOW_BYTES;
}

/* Sockets make room in bursts, and a neighbour may take the processor for a while: what raw costs
 * is the mean of several windows without the dearest. */
static void raw_cost(struct mig_squeeze *squeeze)
{
	uint64_t wall_ns = 0;
	uint64_t cpu_ns = 0;
	uint32_t dearest = 0;

	for (uint32_t i = 0; i < MIG_SQUEEZE_SEEN; i++) {
		wall_ns += squeeze->seen_wall_ns[i];
		cpu_ns += squeeze->seen_cpu_ns[i];
		if (squeeze->seen_wall_ns[i] > squeeze->seen_wall_ns[dearest])
			dearest = i;
	}
	wall_ns -= squeeze->seen_wall_ns[dearest];
	cpu_ns -= squeeze->seen_cpu_ns[dearest];
	squeeze->raw_ps = 0;
	if (cpu_ns > less_percent(wall_ns, MIG_SQUEEZE_IDLE_PERCENT))
		return;
	squeeze->raw_ps = wall_ns * PS_PER_NS / SEEN_BYTES;
	squeeze->busy_ps = cpu_ns * PS_PER_NS / SEEN_BYTES;
}

static void raw_window(struct mig_squeeze *squeeze, uint64_t wall_ns, uint64_t cpu_ns)
{
	uint32_t at = squeeze->seen_count % MIG_SQUEEZE_SEEN;

	if (squeeze->skip > 0) {
		squeeze->skip--;
		return;
	}
	squeeze->seen_count++;
	/* Windows end with a run, so they are a little longer. */
	squeeze->seen_wall_ns[at] = wall_ns * MIG_SQUEEZE_WINDOW_BYTES / squeeze->bytes;
	squeeze->seen_cpu_ns[at] = cpu_ns * MIG_SQUEEZE_WINDOW_BYTES / squeeze->bytes;
	if (squeeze->seen_count >= MIG_SQUEEZE_SEEN)
		raw_cost(squeeze);
}

static void off(struct mig_squeeze *squeeze)
{
	squeeze->on = false;
	squeeze->seen_count = 0;
	squeeze->raw_ps = 0;
	squeeze->skip = SKIPPED_WINDOWS;
	squeeze->lost_ns = 0;
	squeeze->on_ns = 0;
	squeeze->on_bytes = 0;
}

/* A window with compression: go on, or see what raw costs now. */
static void lz4_window(struct mig_squeeze *squeeze, uint64_t wall_ns, uint64_t cpu_ns)
{
	uint64_t raw_ns = squeeze->raw_ps * squeeze->bytes / PS_PER_NS;
	uint64_t keep_ns = less_percent(raw_ns, MIG_SQUEEZE_KEEP_PERCENT);
	bool plain = wall_ns > raw_ns && cpu_ns > less_percent(wall_ns, MIG_SQUEEZE_IDLE_PERCENT);
	uint64_t look_ns = 0;

	squeeze->lost_ns += wall_ns;
	squeeze->lost_ns -= squeeze->lost_ns < keep_ns ? squeeze->lost_ns : keep_ns;
	/* Where it waited, that may be a socket's burst or a neighbour's turn. */
	if (squeeze->lost_ns > (plain ? raw_ns / 2 : PATIENCE_WINDOWS * raw_ns)) {
		squeeze->budget_ns -= (int64_t)squeeze->lost_ns;
		off(squeeze);
		return;
	}
	squeeze->on_ns += wall_ns;
	squeeze->on_bytes += squeeze->bytes;
	raw_ns = squeeze->on_bytes * squeeze->raw_ps / PS_PER_NS;
	if (squeeze->on_bytes < LOOK_BYTES || squeeze->on_ns >= raw_ns)
		return;
	look_ns = (raw_ns - squeeze->on_ns) / (squeeze->on_bytes / LOOK_BYTES);
	if (squeeze->budget_ns < (int64_t)look_ns)
		return;
	squeeze->budget_ns -= (int64_t)look_ns;
	off(squeeze);
}

void mig_squeeze_end(struct mig_squeeze *squeeze, uint64_t wall_ns, uint64_t cpu_ns)
{
	uint64_t took_ns = wall_ns - squeeze->begin_wall_ns;
	uint64_t work_ns = cpu_ns - squeeze->begin_cpu_ns;

	squeeze->budget_ns += (int64_t)(took_ns / MIG_SQUEEZE_BUDGET);
	if (squeeze->budget_ns > BUDGET_NS_MAX)
		squeeze->budget_ns = BUDGET_NS_MAX;
	if (squeeze->on && !squeeze->mixed)
		lz4_window(squeeze, took_ns, work_ns);
	else if (!squeeze->on)
		raw_window(squeeze, took_ns, work_ns);
	mig_squeeze_start(squeeze, wall_ns, cpu_ns);
}
