/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory to memory over loopback TCP through migrate's copy, channels and intake, against a bare
 * loop: send and receive of as many bytes over as many streams with a CRC-32C at both ends.
 *
 *   stream_bench [--quick] [--compression | --tls]
 *   stream_bench --bare MIB STREAMS [BLOCK_KIB]    only one bare loop of random data: milliseconds
 *                                                  that passed, and of processors
 *
 * Both begin with touched huge-page memory and end in untouched, so that populating it counts, and
 * both ends are threads of this process.  Runs that are compared take turns.  Then under TLS
 * against clear text (with --tls only that), handshakes counted; then (with --compression only
 * that) with compression as it decides for itself against none, on loopback and
 * on 1 Gbit/s, which is a token bucket on the loopback of a network namespace of this process's own
 * (root).
 */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/pool.h"
#include "hypervisor/memory_priv.h"
#include "migrate/mig_copy.h"
#include "tests/support/bench_move.h"
#include "tests/support/bench_table.h"
#include "tests/support/mig_tls_lab.h"

#define STREAMS_MAX 4u
#define TIMEOUT_MS  60000u
#define SEED        0x9e3779b97f4a7c15ULL

enum content {
	RANDOM,
	TEXT,
	ZERO,
	UNTOUCHED,
	SCATTERED, /* every second page, random; the rest was never touched */
	CONTENTS
};
static const char *const content_names[CONTENTS] = { "random", "text", "zeros", "never touched",
						     "every second page" };

struct bench {
	struct hv_memory *source;
	enum mig_compress compress; /* of ours */
	uint64_t size_bytes;
	uint64_t move_bytes; /* other than never touched; the bare loop moves as many */
	uint32_t runs;
	uint64_t *dirty;
	struct mig_tls *source_tls, *destination_tls; /* of ours; NULL: clear text */
};

/* One way of moving, in one run. */
struct cost {
	double seconds;
	double cpu_seconds;
	double compressed; /* share of pages */
};

struct stream {
	int from_fd, to_fd;
	uint32_t index, count;
	const uint8_t *from;
	uint8_t *to;
	uint64_t size_bytes;
	uint64_t block_bytes; /* bare loop */
	uint64_t bare_bytes;  /* as many as there are to move */
	uint32_t sum;
	struct mig_link *from_link, *to_link;
	struct mig_intake *intake;
	pthread_t sender, receiver;
	struct base_error err;
	int code;
};

/* --- filling --- */

static void fill(struct bench *bench, enum content content)
{
	static const enum bench_content kinds[CONTENTS] = { BENCH_RANDOM, BENCH_TEXT, BENCH_ZEROS,
							    BENCH_ZEROS, BENCH_ZEROS };
	uint8_t *to = hv_memory_base(bench->source);

	bench->move_bytes = content == SCATTERED ? bench->size_bytes / 2 : bench->size_bytes;
	bench_fill(to, bench->size_bytes, kinds[content], SEED);
	for (uint64_t at = 0; content == SCATTERED && at < bench->size_bytes;
	     at += 2 * MIG_PAGE_BYTES)
		bench_fill(to + at, MIG_PAGE_BYTES, BENCH_RANDOM, SEED + at);
	memset(bench->dirty,
	       content == UNTOUCHED   ? 0
	       : content == SCATTERED ? 0x55
				      : 0xff,
	       bench->size_bytes / MIG_PAGE_BYTES / 8);
}

/* --- streams --- */

static void socket_need(int r, const char *what)
{
	struct base_error err = { .code = 0 };

	if (r < 0)
		bench_need(base_fail_errno(&err, -errno, "%s", what), &err);
}

/* A connection over loopback. */
static void connect_pair(struct stream *stream)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(address);
	BASE_CLOSE int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	socket_need(bind(listener, (const struct sockaddr *)&address, length), "bind");
	socket_need(listen(listener, 1), "listen");
	socket_need(getsockname(listener, (struct sockaddr *)&address, &length), "name");
	stream->from_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socket_need(connect(stream->from_fd, (const struct sockaddr *)&address, length), "connect");
	stream->to_fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	socket_need(stream->to_fd, "accept");
}

static void start(pthread_t *thread, void *(*run)(void *context), void *context)
{
	struct base_error err = { .code = 0 };
	int r = pthread_create(thread, NULL, run, context);

	if (r != 0)
		bench_need(base_fail_errno(&err, -r, "thread"), &err);
}

/* --- the bare loop --- */

static void *bare_send(void *context)
{
	struct stream *stream = context;

	for (uint64_t at = stream->index * stream->block_bytes; at < stream->bare_bytes;
	     at += stream->count * stream->block_bytes) {
		uint64_t done = 0;

		stream->sum ^= base_crc32c(0, stream->from + at, stream->block_bytes);
		while (done < stream->block_bytes) {
			ssize_t sent = send(stream->from_fd, stream->from + at + done,
					    stream->block_bytes - done, MSG_NOSIGNAL);

			socket_need(sent < 0 ? -1 : 0, "send");
			done += (uint64_t)sent;
		}
	}
	return NULL;
}

static void *bare_receive(void *context)
{
	struct stream *stream = context;
	uint32_t sum = 0;

	for (uint64_t at = stream->index * stream->block_bytes; at < stream->bare_bytes;
	     at += stream->count * stream->block_bytes) {
		uint64_t done = 0;

		while (done < stream->block_bytes) {
			ssize_t got = recv(stream->to_fd, stream->to + at + done,
					   stream->block_bytes - done, MSG_WAITALL);

			socket_need(got <= 0 ? -1 : 0, "receive");
			done += (uint64_t)got;
		}
		sum ^= base_crc32c(0, stream->to + at, stream->block_bytes);
	}
	stream->code = (int)sum;
	return NULL;
}

static void bare_run(struct stream *streams, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		start(&streams[i].receiver, bare_receive, &streams[i]);
		start(&streams[i].sender, bare_send, &streams[i]);
	}
	for (uint32_t i = 0; i < count; i++) {
		(void)pthread_join(streams[i].sender, NULL);
		(void)pthread_join(streams[i].receiver, NULL);
		if ((uint32_t)streams[i].code != streams[i].sum)
			base_bug("bare loop: damaged");
	}
}

/* --- ours --- */

static void *move_receive(void *context)
{
	struct stream *stream = context;
	struct mig_received received = { .type = MIG_TYPE_INVALID };

	while (received.type != MIG_TYPE_BARRIER && stream->code >= 0) {
		stream->code = mig_link_receive(stream->to_link, &received, &stream->err);
		if (stream->code == 0 && received.type == MIG_TYPE_CHUNK)
			stream->code = mig_intake_chunk(stream->intake, stream->index + 1,
							received.body, &stream->err);
		else if (stream->code == 0)
			stream->code =
				mig_intake_barrier(stream->intake, stream->index + 1,
						   base_get_le32(received.body), &stream->err);
	}
	return NULL;
}

static struct mig_tls_stream *tls_end(struct mig_tls *tls, int fd)
{
	const struct mig_tls_stream_options options = { .tls = tls,
							.fd = fd,
							.may_use_kernel = true };
	struct mig_tls_stream *made = NULL;
	struct base_error err = { .code = 0 };

	bench_need(mig_tls_stream_new(&options, &made, &err), &err);
	bench_need(mig_tls_stream_widen(made, &err), &err);
	return made;
}

static char cipher[48]; /* of the last connection under TLS */

static void greet(struct mig_tls_stream *const ends[2])
{
	struct mig_tls_facts facts;
	int codes[2] = { -EAGAIN, -EAGAIN };
	struct base_error err = { .code = 0 };
	short events = 0;

	while (codes[0] == -EAGAIN || codes[1] == -EAGAIN)
		for (int i = 0; i < 2; i++)
			if (codes[i] == -EAGAIN)
				codes[i] = mig_tls_stream_greet(ends[i], &events, &err);
	bench_need(codes[0] < 0 ? codes[0] : codes[1], &err);
	mig_tls_stream_facts(ends[0], &facts);
	(void)snprintf(cipher, sizeof(cipher), "%s", facts.cipher);
}

static void links_new(const struct bench *bench, struct stream *stream)
{
	struct mig_link_options options = { .fd = stream->from_fd,
					    .is_source = true,
					    .timeout_ms = TIMEOUT_MS };
	struct mig_tls_stream *ends[2] = { NULL, NULL };
	struct base_error err = { .code = 0 };

	if (bench->source_tls != NULL) {
		ends[0] = tls_end(bench->source_tls, stream->from_fd);
		ends[1] = tls_end(bench->destination_tls, stream->to_fd);
		greet(ends);
	}
	options.tls = ends[0];
	bench_need(mig_link_new(&options, &stream->from_link, &err), &err);
	bench_need(mig_link_greet(stream->from_link, TIMEOUT_MS, &err), &err);
	options.fd = stream->to_fd;
	options.is_source = false;
	options.tls = ends[1];
	bench_need(mig_link_new(&options, &stream->to_link, &err), &err);
	mig_link_register(stream->to_link, MIG_REGION_MEMORY, stream->to, stream->size_bytes);
	mig_link_register(stream->to_link, MIG_REGION_BOUNCE,
			  mig_intake_bounce(stream->intake, stream->index + 1), MIG_BOUNCE_BYTES);
}

static double move_run(const struct bench *bench, struct stream *streams, uint32_t count)
{
	struct mig_object object = { .unit_count = bench->size_bytes / MIG_PAGE_BYTES };
	struct mig_intake_options intake_options = { .memory = streams[0].to,
						     .objects = &object,
						     .object_count = 1,
						     .channel_count = count,
						     .bare = bench->source_tls != NULL };
	struct mig_link *links[STREAMS_MAX];
	struct mig_copy_options options = { .memory = streams[0].from,
					    .page_count = object.unit_count,
					    .links = links,
					    .channel_count = count,
					    .compress = bench->compress,
					    .bare = bench->source_tls != NULL };
	struct mig_intake *intake = NULL;
	struct mig_copy *copy = NULL;
	struct mig_copy_counts counts;
	struct base_error err = { .code = 0 };

	bench_need(mig_intake_new(&intake_options, &intake, &err), &err);
	bench_need(mig_intake_round(intake, 0, true, &err), &err);
	bench_need(base_pool_new(count, "mover", &options.pool, &err), &err);
	for (uint32_t i = 0; i < count; i++) {
		streams[i].intake = intake;
		links_new(bench, &streams[i]);
		links[i] = streams[i].from_link;
		start(&streams[i].receiver, move_receive, &streams[i]);
	}
	bench_need(mig_copy_new(&options, &copy, &err), &err);
	bench_need(mig_copy_round(copy, bench->dirty, 0, true, &err), &err);
	for (uint32_t i = 0; i < count; i++) {
		(void)pthread_join(streams[i].receiver, NULL);
		bench_need(streams[i].code, &streams[i].err);
		mig_link_free(streams[i].from_link);
		mig_link_free(streams[i].to_link);
	}
	if (!mig_intake_is_whole(intake))
		base_bug("move: not whole");
	counts = mig_copy_counts(copy);
	mig_copy_free(copy);
	base_pool_free(options.pool);
	mig_intake_free(intake);
	return (double)counts.lz4_pages / (double)object.unit_count;
}

/* @block_bytes 0: ours. */
static struct cost run(const struct bench *bench, uint32_t count, uint64_t block_bytes)
{
	struct stream streams[STREAMS_MAX];
	struct hv_memory *memory = NULL;
	struct base_error err = { .code = 0 };
	uint64_t begin_ns = 0;
	struct cost cost = { .seconds = 0 };

	bench_need(hv_memory_new(bench->size_bytes, HV_MEMORY_AUTO, &memory, &err), &err);
	for (uint32_t i = 0; i < count; i++) {
		streams[i] = (struct stream){ .index = i,
					      .count = count,
					      .from = hv_memory_base(bench->source),
					      .to = hv_memory_base(memory),
					      .size_bytes = bench->size_bytes,
					      .block_bytes = block_bytes,
					      .bare_bytes = bench->move_bytes };
		connect_pair(&streams[i]);
	}
	cost.cpu_seconds = -bench_cpu_seconds();
	begin_ns = bench_now_ns();
	if (block_bytes > 0)
		bare_run(streams, count);
	else
		cost.compressed = move_run(bench, streams, count);
	cost.seconds = (double)(bench_now_ns() - begin_ns) / 1e9;
	cost.cpu_seconds += bench_cpu_seconds();
	for (uint32_t i = 0; i < count; i++) {
		(void)close(streams[i].from_fd);
		(void)close(streams[i].to_fd);
	}
	if ((block_bytes == 0 || bench->move_bytes == bench->size_bytes) &&
	    memcmp(hv_memory_base(memory), hv_memory_base(bench->source), bench->size_bytes) != 0)
		base_bug("the destination is not the same");
	hv_memory_free(memory);
	return cost;
}

static void compare(const struct bench *bench, enum content content, uint32_t count)
{
	static const uint64_t blocks[] = { 0, 1ULL << 20, 256ULL << 10 };
	struct bench_series rates[3] = { { .count = 0 } };
	struct bench_series cpus[3] = { { .count = 0 } };
	struct bench_series ratios = { .count = 0 };
	double gib = (double)bench->move_bytes / (1 << 30);

	for (uint32_t i = 0; i < bench->runs; i++) {
		double seconds[3] = { 0 };

		for (uint32_t turn = 0; turn < 3; turn++) {
			uint32_t which = (i + turn) % 3;
			struct cost cost = run(bench, count, blocks[which]);

			seconds[which] = cost.seconds;
			bench_add(&rates[which], gib / cost.seconds);
			bench_add(&cpus[which], cost.cpu_seconds);
		}
		bench_add(&ratios,
			  (seconds[1] < seconds[2] ? seconds[1] : seconds[2]) / seconds[0]);
	}
	bench_title("%s, %" PRIu64 " MiB, %" PRIu32 " channels", content_names[content],
		    bench->size_bytes >> 20, count);
	bench_row("  move", &rates[0], "GiB/s", "%.2f s of processors", bench_median(&cpus[0]));
	bench_row("  bare loop, 1 MiB", &rates[1], "GiB/s", "%.2f s of processors",
		  bench_median(&cpus[1]));
	bench_row("  bare loop, 256 KiB", &rates[2], "GiB/s", "%.2f s of processors",
		  bench_median(&cpus[2]));
	bench_row("  move against the faster bare loop", &ratios, "", "%s",
		  content == RANDOM ? "goal >= 0.75" : "");
}

/* Under TLS and in clear text, in turns. */
static void compare_tls(struct bench *bench, uint32_t count)
{
	struct mig_tls *tls[2] = { bench->source_tls, bench->destination_tls };
	struct bench_series times[2] = { { .count = 0 } };
	struct bench_series cpus[2] = { { .count = 0 } };
	struct bench_series ratios = { .count = 0 };
	double gib = (double)bench->move_bytes / (1 << 30);

	for (uint32_t i = 0; i < bench->runs; i++) {
		struct cost costs[2];

		for (uint32_t turn = 0; turn < 2; turn++) {
			uint32_t which = (i + turn) % 2;

			bench->source_tls = which == 0 ? NULL : tls[0];
			bench->destination_tls = which == 0 ? NULL : tls[1];
			costs[which] = run(bench, count, 0);
			bench_add(&times[which], costs[which].seconds / gib * 1e3);
			bench_add(&cpus[which], costs[which].cpu_seconds / gib);
		}
		bench_add(&ratios, costs[1].seconds / costs[0].seconds);
	}
	bench->source_tls = tls[0];
	bench->destination_tls = tls[1];
	bench_title("TLS: random, %" PRIu64 " MiB, %" PRIu32 " channels, %s",
		    bench->size_bytes >> 20, count, cipher);
	bench_row("  clear text", &times[0], "ms/GiB", "%.2f s of processors",
		  bench_median(&cpus[0]));
	bench_row("  TLS", &times[1], "ms/GiB", "%.2f s of processors", bench_median(&cpus[1]));
	bench_row("  time, TLS by clear text", &ratios, "", "%s", "goal <= 3");
}

static void compare_all_tls(struct bench *bench)
{
	struct mig_tls_lab lab;
	struct base_error err = { .code = 0 };

	mig_tls_lab_init(&lab);
	mig_tls_lab_host(&lab, &(struct mig_tls_lab_host){ .folder = "a", .names = "DNS:a" });
	bench_need(mig_tls_lab_open(&lab, "a", true, "a", &bench->source_tls, &err), &err);
	bench_need(mig_tls_lab_open(&lab, "a", false, "a", &bench->destination_tls, &err), &err);
	fill(bench, RANDOM);
	for (uint32_t count = 1; count <= STREAMS_MAX; count *= 2)
		compare_tls(bench, count);
	mig_tls_free(bench->source_tls);
	mig_tls_free(bench->destination_tls);
	bench->source_tls = bench->destination_tls = NULL;
	mig_tls_lab_fini(&lab);
}

/* With and without compression, in turns. */
static void compare_compression(struct bench *bench, enum content content, uint32_t count,
				const char *link)
{
	struct bench_series times[2] = { { .count = 0 } };
	struct bench_series cpus[2] = { { .count = 0 } };
	struct bench_series ratios = { .count = 0 };
	struct bench_series cpu_ratios = { .count = 0 };
	struct bench_series shares = { .count = 0 };

	for (uint32_t i = 0; i < bench->runs; i++) {
		struct cost costs[2];

		for (uint32_t turn = 0; turn < 2; turn++) {
			uint32_t which = (i + turn) % 2;

			bench->compress = which == 0 ? MIG_COMPRESS_NEVER : MIG_COMPRESS_AUTO;
			costs[which] = run(bench, count, 0);
			bench_add(&times[which], costs[which].seconds);
			bench_add(&cpus[which], costs[which].cpu_seconds);
		}
		bench_add(&shares, costs[1].compressed * 100);
		bench_add(&ratios, costs[1].seconds / costs[0].seconds);
		bench_add(&cpu_ratios, costs[1].cpu_seconds / costs[0].cpu_seconds);
	}
	bench->compress = MIG_COMPRESS_NEVER;
	bench_title("compression: %s, %" PRIu64 " MiB, %" PRIu32 " channels, %s",
		    content_names[content], bench->size_bytes >> 20, count, link);
	bench_row("  without", &times[0], "s", "%.2f s of processors", bench_median(&cpus[0]));
	bench_row("  decided by chunk", &times[1], "s", "%.2f s of processors",
		  bench_median(&cpus[1]));
	bench_row("  pages compressed", &shares, "%", "%s", "");
	bench_row("  time, with by without", &ratios, "", "%s",
		  content == TEXT && link[0] == '1' ? "goal <= 0.65" : "goal <= 1.01");
	bench_row("  processor time, with by without", &cpu_ratios, "", "%s",
		  link[0] == '1' ? "" : "goal <= 1.03");
}

static void compare_compressions(struct bench *bench, const char *link)
{
	for (int content = RANDOM; content <= TEXT; content++) {
		fill(bench, (enum content)content);
		for (uint32_t count = 1; count <= STREAMS_MAX; count *= 4)
			compare_compression(bench, (enum content)content, count, link);
	}
}

/* What it costs to find that nothing of a VM of 64 GiB is dirty. */
static void empty_round(const struct bench *bench)
{
	struct stream stream = { .from_fd = -1 };
	struct mig_link *links[1];
	struct mig_link_options link_options = { .is_source = true, .timeout_ms = TIMEOUT_MS };
	struct mig_copy_options options = { .page_count = 16ULL << 20,
					    .links = links,
					    .channel_count = 1 };
	struct mig_copy *copy = NULL;
	struct bench_series times = { .count = 0 };
	uint64_t *dirty = calloc(options.page_count / 64 + 1, sizeof(*dirty));
	struct base_error err = { .code = 0 };

	if (dirty == NULL)
		return;
	connect_pair(&stream);
	link_options.fd = stream.from_fd;
	bench_need(mig_link_new(&link_options, &links[0], &err), &err);
	bench_need(base_pool_new(1, "mover", &options.pool, &err), &err);
	bench_need(mig_copy_new(&options, &copy, &err), &err);
	for (uint32_t i = 0; i < bench->runs; i++) {
		uint64_t begin_ns = bench_now_ns();

		bench_need(mig_copy_round(copy, dirty, i, true, &err), &err);
		bench_add(&times, (double)(bench_now_ns() - begin_ns) / 1e6);
	}
	bench_title("%s", "last round, 64 GiB, 1 channel");
	bench_row("  nothing is dirty", &times, "ms", "%s", "");
	mig_copy_free(copy);
	base_pool_free(options.pool);
	mig_link_free(links[0]);
	(void)close(stream.from_fd);
	(void)close(stream.to_fd);
	free(dirty);
}

static void compare_all(struct bench *bench)
{
	empty_round(bench);
	for (int content = 0; content < CONTENTS; content++) {
		fill(bench, (enum content)content);
		for (uint32_t count = 1; count <= STREAMS_MAX; count *= 2)
			compare(bench, (enum content)content, count);
	}
}

/* A network namespace of this process's own, whose loopback carries 1 Gbit/s. */
static bool cap_link(void)
{
	return unshare(CLONE_NEWNET) == 0 &&
	       system("ip link set lo mtu 1500 up && "
		      "tc qdisc add dev lo root tbf rate 1gbit burst 256k latency 20ms") == 0;
}

/* Of whole huge pages. */
static int bare_only(const char *mib, const char *streams, const char *block_kib)
{
	struct bench bench = { .size_bytes = strtoull(mib, NULL, 10) << 20 };
	uint32_t count = (uint32_t)strtoul(streams, NULL, 10);
	uint64_t block_bytes = strtoull(block_kib, NULL, 10) << 10;
	struct hv_memory *memory = NULL;
	struct base_error err = { .code = 0 };
	struct cost cost;

	bench.size_bytes &= ~(HV_HUGE_PAGE_BYTES - 1);
	if (bench.size_bytes == 0 || count == 0 || count > STREAMS_MAX || block_bytes == 0 ||
	    HV_HUGE_PAGE_BYTES % block_bytes != 0) {
		(void)fprintf(stderr,
			      "stream_bench: '%s' MiB, '%s' streams, '%s' KiB: expected 2 or more, "
			      "1 to %u, a part of 2 MiB\n",
			      mib, streams, block_kib, STREAMS_MAX);
		return 2;
	}
	bench_need(hv_memory_new(bench.size_bytes, HV_MEMORY_AUTO, &bench.source, &err), &err);
	bench.dirty = malloc(bench.size_bytes / MIG_PAGE_BYTES / 8);
	if (bench.dirty == NULL)
		return 1;
	fill(&bench, RANDOM);
	/* Where this machine is a guest its host may have to find the memory: what was in use a
	 * moment ago is there. */
	bench_need(hv_memory_new(bench.size_bytes, HV_MEMORY_AUTO, &memory, &err), &err);
	bench_need(hv_memory_populate(memory, &err), &err);
	hv_memory_free(memory);
	cost = run(&bench, count, block_bytes);
	(void)printf("%.3f %.3f\n", cost.seconds * 1e3, cost.cpu_seconds * 1e3);
	free(bench.dirty);
	hv_memory_free(bench.source);
	return 0;
}

int main(int argc, char **argv)
{
	struct bench bench = { .size_bytes = 1ULL << 30, .runs = 9 };
	struct base_error err = { .code = 0 };

	if ((argc == 4 || argc == 5) && strcmp(argv[1], "--bare") == 0)
		return bare_only(argv[2], argv[3], argc == 5 ? argv[4] : "1024");
	if (bench_has_word(argc, argv, "--quick")) {
		bench.size_bytes >>= 1;
		bench.runs = 5;
	}
	bench_need(hv_memory_new(bench.size_bytes, HV_MEMORY_AUTO, &bench.source, &err), &err);
	bench.dirty = malloc(bench.size_bytes / MIG_PAGE_BYTES / 8);
	if (bench.dirty == NULL)
		return 1;
	if (!bench_has_word(argc, argv, "--compression") && !bench_has_word(argc, argv, "--tls"))
		compare_all(&bench);
	if (!bench_has_word(argc, argv, "--compression"))
		compare_all_tls(&bench);
	if (bench_has_word(argc, argv, "--tls"))
		return 0;
	compare_compressions(&bench, "loopback");
	if (cap_link())
		compare_compressions(&bench, "1 Gbit/s");
	else
		(void)puts("SKIP 1 Gbit/s: no network namespace with tbf (root)");
	free(bench.dirty);
	hv_memory_free(bench.source);
	return 0;
}
