/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hash trees: one value for one content, whoever computed it in which order; a change shows up to
 * the root, if it was marked; what is not marked is not read; and the bytes hashed are bounded.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/pool.h"
#include "migrate/mig_body.h"
#include "migrate/mig_verify.h"
#include "tests/support/alloc_fail.h"

#define PAGES   (3u * 256u + 70u)
#define SECTORS (5u * 2048u + 131u)
#define WORDS   (PAGES / 64u + 1u)
#define LANES   3u

struct side {
	uint8_t memory[PAGES * MIG_PAGE_BYTES];
	uint8_t bytes[SECTORS * MIG_SECTOR_BYTES];
	uint8_t kinds[SECTORS]; /* enum mig_run_kind */
	uint32_t run_most;      /* sectors that a run has at most: how a format cuts it */
	int read_code;
	atomic_uint reads;
	struct mig_verify *verify;
};

static const struct mig_object objects[2] = { { .unit_count = PAGES }, { .unit_count = SECTORS } };
static struct side *a, *b;
static struct base_error err;

static int map_side(void *context, uint16_t object, struct mig_map *map, struct base_error *errp)
{
	const struct side *side = context;
	uint64_t sector = map->first;
	uint64_t end = map->first + map->count;

	(void)errp;
	cr_assert_eq(object, 1);
	cr_assert_leq(end, SECTORS);
	map->run_count = 0;
	while (sector < end && map->run_count < MIG_RUNS_MAX) {
		struct mig_run *run = &map->runs[map->run_count++];

		*run = (struct mig_run){ .first = sector, .kind = side->kinds[sector] };
		while (sector < end && side->kinds[sector] == side->kinds[run->first] &&
		       run->count < side->run_most) {
			sector++;
			run->count++;
		}
	}
	return 0;
}

static int read_side(void *context, uint16_t object, uint64_t sector, uint8_t *to, uint32_t count,
		     struct base_error *errp)
{
	struct side *side = context;

	cr_assert_eq(object, 1);
	cr_assert_leq(sector + count, SECTORS);
	atomic_fetch_add(&side->reads, 1);
	for (uint32_t i = 0; i < count; i++)
		cr_assert_eq(side->kinds[sector + i], MIG_RUN_DATA, "sector %lu is no data",
			     (unsigned long)sector + i);
	memcpy(to, side->bytes + sector * MIG_SECTOR_BYTES, (size_t)count * MIG_SECTOR_BYTES);
	return side->read_code < 0 ? base_fail(errp, side->read_code, "read") : 0;
}

static struct mig_verify_options options_of(struct side *side)
{
	return (struct mig_verify_options){ .memory = side->memory,
					    .objects = objects,
					    .object_count = 2,
					    .lane_count = LANES,
					    .map = map_side,
					    .read = read_side,
					    .context = side };
}

static struct side *side_new(void)
{
	struct side *side = calloc(1, sizeof(*side));
	struct mig_verify_options options;

	cr_assert_not_null(side);
	side->run_most = SECTORS;
	for (uint32_t page = 0; page < PAGES; page++)
		if (page % 3 != 0)
			memset(side->memory + (size_t)page * MIG_PAGE_BYTES, (int)(page % 250 + 1),
			       MIG_PAGE_BYTES);
	memset(side->kinds, MIG_RUN_UNMAPPED, sizeof(side->kinds));
	for (uint32_t sector = 1000; sector < 4000; sector++) {
		side->kinds[sector] = MIG_RUN_DATA;
		memset(side->bytes + (size_t)sector * MIG_SECTOR_BYTES, (int)(sector % 251),
		       MIG_SECTOR_BYTES);
	}
	side->kinds[SECTORS - 1] = MIG_RUN_DATA;
	options = options_of(side);
	cr_assert_eq(mig_verify_new(&options, &side->verify, &err), 0, "%s", err.text);
	return side;
}

static void side_free(struct side *side)
{
	mig_verify_free(side->verify);
	free(side);
}

static void setup(void)
{
	a = side_new();
	b = side_new();
}

static void teardown(void)
{
	side_free(a);
	side_free(b);
}

TestSuite(mig_verify, .init = setup, .fini = teardown, .timeout = 30);

static int lane_step(void *context, uint64_t index, struct base_error *errp)
{
	return mig_verify_hash(context, (uint32_t)index, errp);
}

static void hash_all(struct side *side)
{
	struct base_pool *pool = NULL;

	cr_assert_eq(base_pool_new(LANES, "lanes", &pool, &err), 0);
	cr_assert_eq(base_pool_each(pool, LANES, lane_step, side->verify, &err), 0, "%s", err.text);
	base_pool_free(pool);
	cr_assert_eq(mig_verify_settle(side->verify, &err), 0, "%s", err.text);
}

static void sweep(struct side *side)
{
	mig_verify_round(side->verify, true, false);
	mig_verify_mark(side->verify, 0, 0, PAGES);
	hash_all(side);
}

static bool same(uint16_t object)
{
	struct mig_digest one = mig_verify_root(a->verify, object);
	struct mig_digest other = mig_verify_root(b->verify, object);

	return memcmp(&one, &other, sizeof(one)) == 0;
}

/* The first leaf that differs, going down as sessions do. */
static uint64_t first_difference(uint16_t object)
{
	uint64_t index = 0;

	for (uint32_t level = mig_verify_top(a->verify, object); level > 0; level--) {
		uint64_t first = 0;
		uint32_t count = 0;
		const struct mig_digest *ours =
			mig_verify_children(a->verify, object, level, index, &first, &count);
		const struct mig_digest *theirs =
			mig_verify_children(b->verify, object, level, index, &first, &count);
		uint32_t i = 0;

		while (i < count && memcmp(&ours[i], &theirs[i], sizeof(*ours)) == 0)
			i++;
		cr_assert_lt(i, count, "no child of level %u differs", level);
		index = first + i;
	}
	return mig_verify_unit(a->verify, object, 0, index);
}

Test(mig_verify, one_content_has_one_tree)
{
	sweep(a);
	mig_verify_round(b->verify, true, false);
	for (uint64_t page = 0; page < PAGES; page++)
		mig_verify_mark(b->verify, 0, page, 1);
	hash_all(b);
	cr_assert(same(0));
	cr_assert(same(1));
	cr_assert(!base_is_zero(&(struct mig_digest[]){ mig_verify_root(a->verify, 0) },
				MIG_DIGEST_BYTES));
}

/* SHA-256 of a page of ones, cut: 'head -c 4096 /dev/zero | tr "\0" "\1" | sha256sum'. */
Test(mig_verify, a_leaf_is_a_hash_that_others_know)
{
	static const uint8_t expected[MIG_DIGEST_BYTES] = {
		0x34, 0x31, 0x38, 0x37, 0x21, 0x51, 0x0c, 0xf1,
		0xc2, 0x11, 0xde, 0x02, 0x7c, 0xf9, 0x58, 0xc1,
	};
	uint64_t first = 0;
	uint32_t count = 0;
	const struct mig_digest *leaves = NULL;

	memset(a->memory + 5u * MIG_PAGE_BYTES, 1, MIG_PAGE_BYTES);
	sweep(a);
	leaves = mig_verify_children(a->verify, 0, 1, 0, &first, &count);
	cr_assert_eq(count, 256);
	cr_assert_arr_eq(leaves[5].bytes, expected, sizeof(expected));
	cr_assert(base_is_zero(&leaves[3], sizeof(leaves[3])), "a page of zeros");
}

Test(mig_verify, a_changed_page_is_found_by_its_number)
{
	b->memory[700u * MIG_PAGE_BYTES + 4095u] ^= 1;
	sweep(a);
	sweep(b);
	cr_assert_not(same(0));
	cr_assert(same(1));
	cr_assert_eq(first_difference(0), 700);
}

Test(mig_verify, the_first_of_two_is_named)
{
	b->memory[700u * MIG_PAGE_BYTES] ^= 1;
	b->memory[299u * MIG_PAGE_BYTES] ^= 1;
	sweep(a);
	sweep(b);
	cr_assert_eq(first_difference(0), 299);
}

Test(mig_verify, a_changed_sector_is_found_by_its_granule)
{
	b->bytes[3000u * MIG_SECTOR_BYTES + 7] ^= 1;
	sweep(a);
	sweep(b);
	cr_assert(same(0));
	cr_assert_not(same(1));
	cr_assert_eq(first_difference(1), 3000 - 3000 % MIG_GRANULE_SECTORS);
}

Test(mig_verify, what_is_zero_is_zero_however_it_is_kept)
{
	b->kinds[9000] = MIG_RUN_ZERO;
	b->kinds[9001] = MIG_RUN_DATA; /* of zeros */
	memset(b->kinds + 7000, MIG_RUN_DATA, 300);
	b->run_most = 17;
	sweep(a);
	sweep(b);
	cr_assert(same(1));
}

Test(mig_verify, zeros_are_not_what_a_parent_shows)
{
	a->kinds[9000] = MIG_RUN_NOTHING;
	sweep(a);
	sweep(b);
	cr_assert_not(same(1));
	cr_assert_eq(first_difference(1), 9000 - 9000 % MIG_GRANULE_SECTORS);
}

Test(mig_verify, whole_granules_of_a_parent_too)
{
	memset(a->kinds + 8192, MIG_RUN_NOTHING, 1024);
	sweep(a);
	sweep(b);
	cr_assert_not(same(1));
	memset(b->kinds + 8192, MIG_RUN_NOTHING, 1024);
	b->run_most = 100; /* runs that touch are one */
	sweep(b);
	cr_assert(same(1));
}

Test(mig_verify, every_other_sector_of_a_parent)
{
	for (uint32_t sector = 1024; sector < 1024 + MIG_GRANULE_SECTORS; sector += 2)
		a->kinds[sector] = b->kinds[sector] = MIG_RUN_NOTHING;
	sweep(a);
	sweep(b);
	cr_assert(same(1));
}

Test(mig_verify, nothing_is_kept_before_the_sweep)
{
	mig_verify_round(a->verify, false, false);
	mig_verify_mark(a->verify, 0, 0, PAGES);
	mig_verify_mark(a->verify, 1, 0, SECTORS);
	hash_all(a);
	cr_assert_eq(mig_verify_counts(a->verify).bytes, 0);
	cr_assert_eq(mig_verify_counts(a->verify).looked, 0);
	cr_assert_eq(a->reads, 0);
}

Test(mig_verify, a_marked_change_changes_the_root)
{
	struct mig_verify_counts before, after;

	sweep(a);
	sweep(b);
	before = mig_verify_counts(a->verify);
	a->memory[401u * MIG_PAGE_BYTES] ^= 1;
	a->bytes[2000u * MIG_SECTOR_BYTES] ^= 1;
	mig_verify_round(a->verify, false, true);
	mig_verify_mark(a->verify, 0, 401, 1);
	mig_verify_mark(a->verify, 1, 2000, 1);
	hash_all(a);
	cr_assert_not(same(0));
	cr_assert_not(same(1));
	cr_assert_eq(first_difference(0), 401);
	cr_assert_eq(first_difference(1), 2000 - 2000 % MIG_GRANULE_SECTORS);
	after = mig_verify_counts(a->verify);
	/* A page, a granule, and no more than a node above each, on each level. */
	cr_assert_leq(after.bytes - before.bytes,
		      MIG_PAGE_BYTES + MIG_GRANULE_BYTES + 4 * (256 * MIG_DIGEST_BYTES + 8));
	cr_assert_eq(before.blackout_ns, 0);
	cr_assert_gt(before.running_ns, 0);
	cr_assert_gt(after.blackout_ns, 0);
	cr_assert_eq(after.running_ns, before.running_ns);
	sweep(b);
	cr_assert_not(same(0));
	b->memory[401u * MIG_PAGE_BYTES] ^= 1;
	b->bytes[2000u * MIG_SECTOR_BYTES] ^= 1;
	sweep(b);
	cr_assert(same(0), "leaves that came one by one give the tree of a sweep");
	cr_assert(same(1));
}

Test(mig_verify, what_is_not_marked_is_not_read)
{
	uint64_t bits[WORDS] = { 0 };

	sweep(a);
	sweep(b);
	a->memory[401u * MIG_PAGE_BYTES] ^= 1;
	mig_verify_round(a->verify, false, true);
	bits[402 / 64] = 1ULL << 402 % 64;
	mig_verify_mark_bits(a->verify, 0, bits);
	hash_all(a);
	cr_assert(same(0));
	mig_verify_round(a->verify, false, true);
	mig_verify_mark_word(a->verify, 0, 401 / 64, 1ULL << 401 % 64);
	hash_all(a);
	cr_assert_not(same(0));
}

Test(mig_verify, the_last_units_count)
{
	sweep(a);
	b->memory[(PAGES - 1) * MIG_PAGE_BYTES + 9] ^= 1;
	b->bytes[(SECTORS - 1) * MIG_SECTOR_BYTES] ^= 1;
	sweep(b);
	cr_assert_eq(first_difference(0), PAGES - 1);
	cr_assert_eq(first_difference(1), SECTORS - 1 - (SECTORS - 1) % MIG_GRANULE_SECTORS);
}

Test(mig_verify, an_image_that_cannot_be_read)
{
	a->read_code = -EIO;
	mig_verify_round(a->verify, true, false);
	cr_assert_eq(mig_verify_hash(a->verify, 0, &err), -EIO);
	cr_assert_str_eq(err.text, "read");
}

Test(mig_verify, cancelled)
{
	mig_verify_cancel(a->verify);
	mig_verify_round(a->verify, true, false);
	cr_assert_eq(mig_verify_hash(a->verify, 2, &err), -ECANCELED);
}

Test(mig_verify, of_large_objects)
{
	const struct mig_object large[2] = { { .unit_count = 1ULL << 24 },
					     { .unit_count = 1ULL << 28 } };
	struct mig_verify_options options = options_of(a);
	struct mig_verify *verify = NULL;

	options.objects = large;
	cr_assert_eq(mig_verify_new(&options, &verify, &err), 0, "%s", err.text);
	cr_assert_eq(mig_verify_top(verify, 0), 3);
	cr_assert_eq(mig_verify_node_count(verify, 0, 0), 1ULL << 24);
	cr_assert_eq(mig_verify_node_count(verify, 0, 1), 1ULL << 16);
	cr_assert_eq(mig_verify_node_count(verify, 0, 3), 1);
	cr_assert_eq(mig_verify_node_count(verify, 0, 4), 0);
	cr_assert_eq(mig_verify_top(verify, 1), 4);
	cr_assert_eq(mig_verify_node_count(verify, 1, 0), 1ULL << 21);
	cr_assert_eq(mig_verify_node_count(verify, 1, 1), 1ULL << 17);
	cr_assert_eq(mig_verify_unit(verify, 0, 2, 3), 3u * 65536u);
	cr_assert_eq(mig_verify_unit(verify, 1, 1, 3), 3u * 2048u);
	mig_verify_free(verify);
}

Test(mig_verify, without_memory)
{
	const struct mig_object some[2] = { { .unit_count = 0 }, { .unit_count = SECTORS } };
	struct mig_verify_options options = options_of(a);
	struct mig_digest root;

	mig_verify_free(a->verify);
	options.objects = some;
	cr_assert_eq(mig_verify_new(&options, &a->verify, &err), 0, "%s", err.text);
	mig_verify_round(a->verify, true, false);
	hash_all(a);
	sweep(b);
	cr_assert(same(1));
	root = mig_verify_root(a->verify, 0);
	cr_assert(base_is_zero(&root, sizeof(root)));
	cr_assert_eq(mig_verify_top(a->verify, 0), 0);
}

Test(mig_verify, no_memory)
{
	struct mig_verify_options options = options_of(a);

	for (unsigned int k = 0;; k++) {
		struct mig_verify *verify = NULL;
		int r = 0;

		alloc_fail_at(k);
		r = mig_verify_new(&options, &verify, &err);
		if (!alloc_fail_done()) {
			cr_assert_eq(r, 0);
			mig_verify_free(verify);
			break;
		}
		cr_assert_eq(r, -ENOMEM);
	}
}
