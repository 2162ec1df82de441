/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images from a source to a destination over several channels, while a guest writes: images of this
 * test's own, a sector of which is data, zero, unmapped or a parent's.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "migrate/mig_copy.h"
#include "tests/support/alloc_fail.h"

#define CHANNELS 3u
#define OBJECTS  3u /* memory, and two images */
#define WORDS    4u

static const uint64_t sector_counts[OBJECTS] = { 0, 5u * 2048u + 3u, 9u * 2048u };

struct picture {
	uint64_t sector_count;
	uint8_t *bytes;
	uint8_t *kinds; /* enum mig_run_kind of each sector */
	_Atomic uint64_t marks[WORDS];
};

struct receiver {
	uint32_t channel;
	int code;
	uint64_t chunks;
	pthread_t thread;
	struct base_error err;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all pictures: requests are atomic */
static struct picture from[OBJECTS];
static struct picture to[OBJECTS];
static struct mig_object objects[OBJECTS] = { { .unit_count = 64 } };
static uint64_t no_pages[2];
static uint64_t map_calls;
static uint64_t cleared; /* sectors, at the destination */
static int read_code;    /* what reading gives */
static int fds[CHANNELS][2];
static struct mig_link *from_links[CHANNELS];
static struct mig_link *to_links[CHANNELS];
static struct receiver receivers[CHANNELS];
static struct mig_intake *intake;
static struct mig_image *image;
static struct mig_copy *copy;
static struct base_pool *pool;
static uint8_t *memory;
static struct base_error err;

/* --- the source's images --- */

static int harvest(void *context, uint16_t object, bool first, uint64_t *into,
		   struct base_error *errp)
{
	struct picture *picture = &from[object];

	(void)context;
	(void)errp;
	for (uint32_t word = 0; word < WORDS; word++) {
		uint64_t bits = atomic_exchange(&picture->marks[word], 0);

		if (!first && bits != 0)
			into[word] |= bits;
	}
	for (uint64_t sector = 0; first && sector < picture->sector_count; sector++) {
		uint64_t granule = sector / MIG_GRANULE_SECTORS;

		if (picture->kinds[sector] == MIG_RUN_DATA ||
		    picture->kinds[sector] == MIG_RUN_ZERO)
			into[granule / 64] |= 1ULL << granule % 64;
	}
	return 0;
}

static int map(void *context, uint16_t object, struct mig_map *map, struct base_error *errp)
{
	const struct picture *picture = &from[object];
	BASE_LOCKED(&lock);

	(void)context;
	(void)errp;
	map_calls++;
	cr_assert(map->count > 0 && map->first + map->count <= picture->sector_count);
	for (uint64_t at = map->first; at < map->first + map->count;) {
		uint64_t begin = at;

		if (map->run_count == MIG_RUNS_MAX)
			break;
		while (at < map->first + map->count && picture->kinds[at] == picture->kinds[begin])
			at++;
		map->runs[map->run_count++] = (struct mig_run){
			.first = begin,
			.count = (uint32_t)(at - begin),
			.kind = (enum mig_run_kind)picture->kinds[begin],
		};
	}
	return 0;
}

static int read_sectors(void *context, uint16_t object, uint64_t sector, uint8_t *into,
			uint32_t count, struct base_error *errp)
{
	BASE_LOCKED(&lock);

	(void)context;
	if (read_code != 0)
		return base_fail(errp, read_code, "the medium");
	memcpy(into, from[object].bytes + sector * MIG_SECTOR_BYTES,
	       (size_t)count * MIG_SECTOR_BYTES);
	return 0;
}

static const struct mig_image_ops ops = { .harvest = harvest, .map = map, .read = read_sectors };

/* The guest: what it did has happened before it is marked. */
static void guest_does(uint16_t object, uint64_t sector, uint32_t count, enum mig_run_kind kind,
		       uint8_t value)
{
	struct picture *picture = &from[object];

	(void)pthread_mutex_lock(&lock);
	memset(picture->bytes + sector * MIG_SECTOR_BYTES, kind == MIG_RUN_DATA ? value : 0,
	       (size_t)count * MIG_SECTOR_BYTES);
	memset(picture->kinds + sector, (int)kind, count);
	(void)pthread_mutex_unlock(&lock);
	for (uint64_t granule = sector / MIG_GRANULE_SECTORS;
	     granule <= (sector + count - 1) / MIG_GRANULE_SECTORS; granule++)
		atomic_fetch_or(&picture->marks[granule / 64], 1ULL << granule % 64);
}

/* --- the destination's --- */

static int write_sectors(void *context, uint16_t object, uint64_t sector, const uint8_t *bytes,
			 uint32_t count, struct base_error *errp)
{
	(void)context;
	(void)errp;
	cr_assert_eq((uintptr_t)bytes % 512, 0); /* as disks want it */
	memcpy(to[object].bytes + sector * MIG_SECTOR_BYTES, bytes,
	       (size_t)count * MIG_SECTOR_BYTES);
	memset(to[object].kinds + sector, MIG_RUN_DATA, count);
	return 0;
}

static int clear_sectors(void *context, uint16_t object, uint64_t sector, uint32_t count,
			 bool unmap, struct base_error *errp)
{
	(void)context;
	(void)errp;
	memset(to[object].bytes + sector * MIG_SECTOR_BYTES, 0, (size_t)count * MIG_SECTOR_BYTES);
	memset(to[object].kinds + sector, unmap ? MIG_RUN_UNMAPPED : MIG_RUN_ZERO, count);
	(void)__atomic_fetch_add(&cleared, count, __ATOMIC_RELAXED);
	return 0;
}

static const struct mig_disk_ops disk_ops = { .write = write_sectors, .clear = clear_sectors };

/* --- around it --- */

static void pictures_new(void)
{
	for (uint32_t i = 1; i < OBJECTS; i++) {
		objects[i].unit_count = sector_counts[i];
		from[i].sector_count = sector_counts[i];
		to[i].sector_count = sector_counts[i];
		from[i].bytes = calloc(sector_counts[i], MIG_SECTOR_BYTES);
		from[i].kinds = malloc(sector_counts[i]);
		to[i].bytes = calloc(sector_counts[i], MIG_SECTOR_BYTES);
		to[i].kinds = malloc(sector_counts[i]);
		cr_assert(from[i].bytes != NULL && from[i].kinds != NULL && to[i].bytes != NULL &&
			  to[i].kinds != NULL);
		/* The first one is a child of something, the second has no parent. */
		memset(from[i].kinds, i == 1 ? MIG_RUN_NOTHING : MIG_RUN_UNMAPPED,
		       sector_counts[i]);
		memset(to[i].kinds, i == 1 ? MIG_RUN_NOTHING : MIG_RUN_UNMAPPED, sector_counts[i]);
	}
}

static void links_new(void)
{
	for (uint32_t i = 0; i < CHANNELS; i++) {
		struct mig_link_options options = { .is_source = true, .timeout_ms = 20000 };

		cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds[i]), 0);
		options.fd = fds[i][0];
		cr_assert_eq(mig_link_new(&options, &from_links[i], &err), 0);
		options.is_source = false;
		options.fd = fds[i][1];
		cr_assert_eq(mig_link_new(&options, &to_links[i], &err), 0);
		mig_link_register(to_links[i], MIG_REGION_BOUNCE, mig_intake_bounce(intake, i + 1),
				  MIG_BOUNCE_BYTES);
		receivers[i] = (struct receiver){ .channel = i + 1 };
	}
}

static void setup(void)
{
	struct mig_intake_options intake_options = { .objects = objects,
						     .object_count = OBJECTS,
						     .channel_count = CHANNELS,
						     .disk = &disk_ops };
	struct mig_image_options image_options = {
		.ops = &ops, .objects = objects, .object_count = OBJECTS, .channel_count = CHANNELS
	};
	struct mig_copy_options copy_options = { .page_count = 64,
						 .links = from_links,
						 .channel_count = CHANNELS };

	pictures_new();
	memory = calloc(64, MIG_PAGE_BYTES);
	intake_options.memory = memory;
	copy_options.memory = memory;
	cr_assert_eq(mig_intake_new(&intake_options, &intake, &err), 0);
	links_new();
	cr_assert_eq(base_pool_new(CHANNELS, "mover", &pool, &err), 0);
	copy_options.pool = pool;
	cr_assert_eq(mig_image_new(&image_options, &image, &err), 0);
	copy_options.images = image;
	cr_assert_eq(mig_copy_new(&copy_options, &copy, &err), 0);
}

static void teardown(void)
{
	mig_copy_free(copy);
	mig_image_free(image);
	base_pool_free(pool);
	for (uint32_t i = 0; i < CHANNELS; i++) {
		mig_link_free(from_links[i]);
		mig_link_free(to_links[i]);
		(void)close(fds[i][0]);
		(void)close(fds[i][1]);
	}
	mig_intake_free(intake);
	for (uint32_t i = 1; i < OBJECTS; i++) {
		free(from[i].bytes);
		free(from[i].kinds);
		free(to[i].bytes);
		free(to[i].kinds);
	}
	free(memory);
}

TestSuite(mig_image, .init = setup, .fini = teardown, .timeout = 240);

static void *receive(void *context)
{
	struct receiver *receiver = context;
	struct mig_link *link = to_links[receiver->channel - 1];
	struct mig_received received;

	for (;;) {
		int r = mig_link_receive(link, &received, &receiver->err);

		if (r == 0 && received.type == MIG_TYPE_CHUNK) {
			receiver->chunks++;
			r = mig_intake_chunk(intake, receiver->channel, received.body,
					     &receiver->err);
		} else if (r == 0 && received.type == MIG_TYPE_BARRIER) {
			r = mig_intake_barrier(intake, receiver->channel,
					       base_get_le32(received.body), &receiver->err);
		}
		receiver->code = r;
		if (r < 0 || received.type == MIG_TYPE_BARRIER)
			return NULL;
	}
}

static void send_round(uint32_t number, bool last)
{
	cr_assert_eq(mig_intake_round(intake, number, last, &err), 0, "%s", err.text);
	for (uint32_t i = 0; i < CHANNELS; i++) {
		receivers[i].chunks = 0;
		cr_assert_eq(pthread_create(&receivers[i].thread, NULL, receive, &receivers[i]), 0);
	}
	cr_assert_eq(mig_copy_round(copy, no_pages, number, last, &err), 0, "%s", err.text);
	for (uint32_t i = 0; i < CHANNELS; i++) {
		cr_assert_eq(pthread_join(receivers[i].thread, NULL), 0);
		cr_assert_geq(receivers[i].code, 0, "%s", receivers[i].err.text);
	}
	mig_copy_confirmed(copy);
}

static uint64_t take_harvest(void)
{
	uint64_t bytes = 0;

	cr_assert_eq(mig_image_harvest(image, &bytes, &err), 0);
	return bytes;
}

static void check_same(void)
{
	for (uint32_t i = 1; i < OBJECTS; i++)
		for (uint64_t sector = 0; sector < sector_counts[i]; sector++) {
			bool zero = from[i].kinds[sector] != MIG_RUN_DATA;

			cr_assert_arr_eq(from[i].bytes + sector * MIG_SECTOR_BYTES,
					 to[i].bytes + sector * MIG_SECTOR_BYTES, MIG_SECTOR_BYTES,
					 "image %u sector %lu", i, (unsigned long)sector);
			/* Zeros that were written as data may be cleared; nothing else differs. */
			if (zero)
				cr_assert_eq(from[i].kinds[sector], to[i].kinds[sector],
					     "image %u sector %lu: %d became %d", i,
					     (unsigned long)sector, from[i].kinds[sector],
					     to[i].kinds[sector]);
		}
}

Test(mig_image, nothing_of_an_empty_image_is_sent)
{
	cr_assert_eq(take_harvest(), 0);
	send_round(0, false);
	cr_assert_eq(take_harvest(), 0);
	send_round(1, true);
	cr_assert_eq(mig_image_counts(image).chunks, 0);
	cr_assert(mig_intake_is_whole(intake));
	check_same();
}

Test(mig_image, what_is_there_goes_once_and_as_what_it_is)
{
	struct mig_image_counts counts;

	guest_does(1, 7, 3, MIG_RUN_DATA, 1);
	guest_does(1, 5u * 2048u, 3, MIG_RUN_DATA, 2); /* the end, which is no whole granule */
	guest_does(2, 2047, 2, MIG_RUN_DATA, 3);       /* over the border of a span */
	guest_does(2, 8192, 128, MIG_RUN_ZERO, 0);
	guest_does(2, 4096, 4096, MIG_RUN_DATA, 0); /* zeros that were written */
	(void)take_harvest();
	send_round(0, false);
	check_same();
	counts = mig_image_counts(image);
	cr_assert_eq(counts.block_bytes, (3u + 3u + 2u) * 512u);
	/* What is around it in the same granules is not this image's, or unmapped. */
	cr_assert_eq(counts.clear_bytes, (128u + 4096u) * 512u);
	cr_assert_eq(mig_copy_counts(copy).chunks, counts.chunks);
	cr_assert_eq(take_harvest(), 0, "sent once");
}

Test(mig_image, a_map_is_asked_for_many_spans_but_anew_in_each_round)
{
	guest_does(2, 0, 9u * 2048u, MIG_RUN_DATA, 9);
	(void)take_harvest();
	send_round(0, false);
	check_same();
	cr_assert_eq(map_calls, CHANNELS, "%lu", (unsigned long)map_calls);
	guest_does(2, 5, 4000, MIG_RUN_UNMAPPED, 0);
	(void)take_harvest();
	send_round(1, false);
	check_same();
	cr_assert_leq(map_calls, 2u * CHANNELS);
}

Test(mig_image, a_later_round_sends_what_was_written_since)
{
	guest_does(2, 0, 2048, MIG_RUN_DATA, 9);
	(void)take_harvest();
	send_round(0, false);
	guest_does(2, 100, 1, MIG_RUN_DATA, 4);
	guest_does(2, 128, 128, MIG_RUN_UNMAPPED, 0);
	guest_does(2, 256, 128, MIG_RUN_ZERO, 0);
	guest_does(1, 4000, 1, MIG_RUN_DATA, 5);
	cr_assert_eq(take_harvest(), 4u * MIG_GRANULE_BYTES);
	send_round(1, false);
	check_same();
	cr_assert_eq(mig_image_counts(image).unmap_bytes, 128u * 512u);
	cr_assert_eq(mig_image_counts(image).clear_bytes, 128u * 512u);
}

Test(mig_image, harvests_add_up_until_a_round_sends_them)
{
	(void)take_harvest();
	send_round(0, false);
	guest_does(2, 100, 1, MIG_RUN_DATA, 4);
	cr_assert_eq(take_harvest(), MIG_GRANULE_BYTES);
	guest_does(1, 100, 1, MIG_RUN_DATA, 5);
	cr_assert_eq(take_harvest(), 2u * MIG_GRANULE_BYTES);
	send_round(1, true);
	check_same();
}

Test(mig_image, the_last_round_is_on_all_channels)
{
	uint64_t all = 0;

	(void)take_harvest();
	send_round(0, false);
	for (uint32_t object = 1; object < OBJECTS; object++)
		for (uint64_t sector = 0; sector < sector_counts[object]; sector += 256)
			guest_does((uint16_t)object, sector, 1, MIG_RUN_DATA, 7);
	(void)take_harvest();
	send_round(1, true);
	check_same();
	for (uint32_t i = 0; i < CHANNELS; i++)
		all += receivers[i].chunks;
	cr_assert_eq(all, mig_image_counts(image).chunks);
	cr_assert_eq(all, 41u + 2u * 72u, "each once, with the unmapped rest of its granule");
}

static atomic_bool over;

/* Several kinds of requests, at random, in what the first round found as well as outside. */
static void *guest(void *context)
{
	uint32_t seed = 12345;

	(void)context;
	while (!atomic_load(&over)) {
		uint16_t object = 0;
		uint64_t sector = 0;
		uint32_t count = 0;

		seed = seed * 1103515245u + 12345u;
		object = (uint16_t)(1 + (seed >> 16) % 2);
		seed = seed * 1103515245u + 12345u;
		sector = (seed >> 8) % sector_counts[object];
		seed = seed * 1103515245u + 12345u;
		count = 1 + (seed >> 16) % 300;
		if (count > sector_counts[object] - sector)
			count = (uint32_t)(sector_counts[object] - sector);
		guest_does(object, sector, count,
			   seed % 8 == 0   ? MIG_RUN_UNMAPPED
			   : seed % 8 == 1 ? MIG_RUN_ZERO
					   : MIG_RUN_DATA,
			   (uint8_t)(1 + (seed >> 20) % 200));
	}
	return NULL;
}

Test(mig_image, what_a_guest_writes_meanwhile_arrives)
{
	pthread_t thread;
	uint32_t round = 0;

	for (uint64_t sector = 0; sector < sector_counts[2]; sector += 3)
		guest_does(2, sector, 1, MIG_RUN_DATA, (uint8_t)(sector % 255 + 1));
	cr_assert_eq(pthread_create(&thread, NULL, guest, NULL), 0);
	for (; round < 6; round++) {
		(void)take_harvest();
		send_round(round, false);
	}
	atomic_store(&over, true);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	(void)take_harvest();
	send_round(round, true);
	check_same();
	cr_assert(mig_intake_is_whole(intake));
}

Test(mig_image, an_image_that_cannot_be_read_ends_the_round)
{
	guest_does(2, 0, 1, MIG_RUN_DATA, 9);
	(void)take_harvest();
	read_code = -EIO;
	cr_assert_eq(mig_copy_round(copy, no_pages, 0, false, &err), -EIO);
	cr_assert_str_eq(err.text, "the medium");
	cr_assert_eq(take_harvest(), MIG_GRANULE_BYTES, "it was not sent");
}

Test(mig_image, without_memory_there_is_no_sender)
{
	struct mig_image_options options = {
		.ops = &ops, .objects = objects, .object_count = OBJECTS, .channel_count = CHANNELS
	};

	for (unsigned int k = 0;; k++) {
		struct mig_image *other = NULL;
		int r = 0;

		alloc_fail_at(k);
		r = mig_image_new(&options, &other, &err);
		if (!alloc_fail_done()) {
			cr_assert_eq(r, 0);
			mig_image_free(other);
			break;
		}
		cr_assert_eq(r, -ENOMEM);
	}
	mig_image_free(NULL);
}
