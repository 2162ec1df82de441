/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decision to compress, on links and processors that are numbers: what a channel would take
 * with it, without, and with all compressed.
 */
#include "migrate/mig_squeeze.h"

#include <criterion/criterion.h>

#define RUN_BYTES    (1u << 20)
#define SAMPLE_BYTES 4096u
#define BUFFER_BYTES (4u << 20) /* of the socket */

/* Picoseconds a byte. */
struct world {
	const char *name;
	uint32_t link_ps; /* of what is sent */
	uint32_t raw_ps;  /* the thread's own work on what is sent: checksum, system calls */
	uint32_t lz4_ps;  /* compressing */
	uint32_t percent; /* that is left of it */
	uint32_t crowd;   /* threads that share a processor with this one: its work takes as long */
	uint64_t mib;
	uint32_t best_percent; /* of the time without compression, at most */
};

struct channel {
	struct world world;
	struct mig_squeeze squeeze;
	uint64_t wall_ns;
	uint64_t cpu_ns;
	uint64_t queued_ps; /* time until the socket is empty */
	uint64_t lz4_runs;
	uint64_t samples;
};

static void work(struct channel *channel, uint64_t ps)
{
	uint64_t wall_ps = ps * channel->world.crowd;

	channel->cpu_ns += ps / 1000;
	channel->wall_ns += wall_ps / 1000;
	channel->queued_ps -= channel->queued_ps < wall_ps ? channel->queued_ps : wall_ps;
}

static void send_bytes(struct channel *channel, uint64_t bytes)
{
	uint64_t room_ps = (uint64_t)BUFFER_BYTES * channel->world.link_ps;

	work(channel, bytes * channel->world.raw_ps);
	channel->queued_ps += bytes * channel->world.link_ps;
	if (channel->queued_ps > room_ps) {
		channel->wall_ns += (channel->queued_ps - room_ps) / 1000;
		channel->queued_ps = room_ps;
	}
}

static void send_lz4(struct channel *channel)
{
	work(channel, (uint64_t)RUN_BYTES * channel->world.lz4_ps);
	send_bytes(channel, (uint64_t)RUN_BYTES / 100 * channel->world.percent);
	channel->lz4_runs++;
}

static bool sample(struct channel *channel)
{
	uint64_t begin_ns = channel->wall_ns;

	channel->samples++;
	/* Too short to be interrupted: it takes what the processor needs. */
	channel->cpu_ns += SAMPLE_BYTES * channel->world.lz4_ps / 1000;
	channel->wall_ns += SAMPLE_BYTES * channel->world.lz4_ps / 1000;
	return mig_squeeze_judge(&channel->squeeze, SAMPLE_BYTES,
				 SAMPLE_BYTES * channel->world.percent / 100,
				 channel->wall_ns - begin_ns);
}

static void send_run(struct channel *channel)
{
	enum mig_squeeze_step step = mig_squeeze_next(&channel->squeeze, RUN_BYTES);

	if (step == MIG_SQUEEZE_SAMPLE)
		step = sample(channel) ? MIG_SQUEEZE_LZ4 : MIG_SQUEEZE_RAW;
	if (step == MIG_SQUEEZE_LZ4)
		send_lz4(channel);
	else
		send_bytes(channel, RUN_BYTES);
	if (mig_squeeze_sent(&channel->squeeze, RUN_BYTES))
		mig_squeeze_end(&channel->squeeze, channel->wall_ns, channel->cpu_ns);
}

static struct channel run(const struct world *world, enum mig_compress wish)
{
	struct channel channel = { .world = *world, .squeeze = mig_squeeze_begin(wish) };

	mig_squeeze_start(&channel.squeeze, 0, 0);
	for (uint64_t i = 0; i < world->mib; i++)
		send_run(&channel);
	channel.wall_ns += channel.queued_ps / 1000;
	return channel;
}

static struct world worlds[] = {
	/*                              link   raw   lz4  left crowd   MiB  at most */
	{ "text on 1 Gbit/s", 8000, 300, 2000, 50, 1, 1024, 55 },
	{ "text on a quarter of it", 32000, 300, 2000, 50, 1, 256, 60 },
	{ "text on 100 Mbit/s", 80000, 300, 2000, 50, 1, 256, 60 },
	{ "text on 10 Gbit/s", 800, 300, 2000, 50, 1, 4096, 101 },
	{ "text on 100 Gbit/s", 80, 300, 2000, 50, 1, 4096, 101 },
	{ "random on 1 Gbit/s", 8000, 300, 300, 100, 1, 1024, 101 },
	{ "random on loopback", 500, 300, 300, 100, 1, 4096, 101 },
	{ "nearly empty on 10 Gbit/s", 800, 300, 200, 5, 1, 4096, 75 },
	{ "text, three for a core", 3000, 400, 2000, 50, 3, 4096, 101 },
	{ "text, 1 Gbit/s, two a core", 8000, 300, 2000, 50, 2, 1024, 65 },
	{ "just not worth it", 2200, 300, 2000, 50, 1, 4096, 101 },
	{ "just worth it", 4000, 300, 2000, 50, 1, 4096, 75 },
};

/* Within a hundredth of doing without, and where it pays near to what compressing all gives. */
Test(mig_squeeze, never_slower)
{
	for (size_t i = 0; i < sizeof(worlds) / sizeof(worlds[0]); i++) {
		struct channel without = run(&worlds[i], MIG_COMPRESS_NEVER);
		struct channel chosen = run(&worlds[i], MIG_COMPRESS_AUTO);

		cr_expect_eq(without.lz4_runs, 0);
		cr_expect_leq(chosen.wall_ns, without.wall_ns / 100 * worlds[i].best_percent,
			      "%s: %lu us without, %lu us with (%lu runs compressed, %lu samples)",
			      worlds[i].name, without.wall_ns / 1000, chosen.wall_ns / 1000,
			      chosen.lz4_runs, chosen.samples);
	}
}

Test(mig_squeeze, never_and_always)
{
	struct mig_squeeze never = mig_squeeze_begin(MIG_COMPRESS_NEVER);
	struct mig_squeeze none = mig_squeeze_begin(MIG_COMPRESS_INVALID);
	struct mig_squeeze always = mig_squeeze_begin(MIG_COMPRESS_ALWAYS);
	struct mig_squeeze chosen = mig_squeeze_begin(MIG_COMPRESS_AUTO);

	cr_assert_eq(mig_squeeze_next(&never, RUN_BYTES), MIG_SQUEEZE_RAW);
	cr_assert_eq(mig_squeeze_next(&none, RUN_BYTES), MIG_SQUEEZE_RAW);
	cr_assert_eq(mig_squeeze_next(&always, RUN_BYTES), MIG_SQUEEZE_LZ4);
	cr_assert_eq(mig_squeeze_next(&chosen, RUN_BYTES), MIG_SQUEEZE_RAW);
	cr_assert(!mig_squeeze_sent(&never, 1ULL << 40)); /* nothing is measured */
	cr_assert(!mig_squeeze_sent(&always, 1ULL << 40));
	cr_assert(mig_squeeze_sent(&chosen, MIG_SQUEEZE_WINDOW_BYTES));
}

/* A clock that stands still, or a thread that seems to have worked more than time has passed. */
Test(mig_squeeze, clocks_that_say_nothing)
{
	struct mig_squeeze squeeze = mig_squeeze_begin(MIG_COMPRESS_AUTO);

	mig_squeeze_start(&squeeze, 5, 5);
	for (uint32_t i = 0; i < 100; i++) {
		cr_assert_eq(mig_squeeze_next(&squeeze, RUN_BYTES), MIG_SQUEEZE_RAW);
		if (mig_squeeze_sent(&squeeze, RUN_BYTES))
			mig_squeeze_end(&squeeze, 5, 5 + i);
	}
}

/* It was right to compress, and then the link is another. */
Test(mig_squeeze, a_link_that_becomes_fast)
{
	struct channel channel = run(&worlds[0], MIG_COMPRESS_AUTO);
	uint64_t begin_ns = channel.wall_ns;
	uint64_t runs = 0;

	cr_assert(channel.squeeze.on);
	channel.world.link_ps = 80;
	for (; channel.squeeze.on && runs < 100000; runs++)
		send_run(&channel);
	cr_assert_lt(channel.wall_ns - begin_ns, 120 * 1000000000ULL, "%lu runs", runs);
	runs = channel.lz4_runs;
	for (uint32_t i = 0; i < 1000; i++)
		send_run(&channel);
	cr_assert_eq(channel.lz4_runs, runs);
}

/* Nothing shrinks at first, then all does: on a slow link it is looked at all the time. */
Test(mig_squeeze, memory_that_becomes_text)
{
	struct channel channel = run(&worlds[5], MIG_COMPRESS_AUTO);

	cr_assert_eq(channel.lz4_runs, 0);
	channel.world.percent = 50;
	channel.world.lz4_ps = 2000;
	for (uint32_t i = 0; i < 100; i++)
		send_run(&channel);
	cr_assert_geq(channel.lz4_runs, 98);
}

/* And the other way round: what does not shrink goes raw, by its sample alone. */
Test(mig_squeeze, memory_that_becomes_random)
{
	struct channel channel = run(&worlds[0], MIG_COMPRESS_AUTO);
	uint64_t runs = channel.lz4_runs;

	channel.world.percent = 100;
	channel.world.lz4_ps = 300;
	for (uint32_t i = 0; i < 100; i++)
		send_run(&channel);
	cr_assert_leq(channel.lz4_runs, runs);
}
