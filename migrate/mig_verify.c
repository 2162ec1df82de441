/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_verify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "migrate/mig_verify_priv.h"

/* --- shape --- */

static uint64_t divide_up(uint64_t value, uint64_t by)
{
	return value / by + (value % by != 0 ? 1 : 0);
}

/* Zeroed, and without memory of the host where it stays so. */
static int level_new(struct mig_verify_level *level, uint64_t count)
{
	level->count = count;
	level->nodes = calloc(count, sizeof(*level->nodes));
	level->stale = calloc(count / 64 + 1, sizeof(*level->stale));
	return level->nodes == NULL || level->stale == NULL ? -ENOMEM : 0;
}

static int tree_new(struct mig_verify_tree *tree, uint16_t object, uint64_t unit_count)
{
	uint64_t count = 0;

	tree->unit_count = unit_count;
	tree->units_per_leaf = object == 0 ? 1 : MIG_GRANULE_SECTORS;
	tree->leaves_per_span =
		object == 0 ? MIG_SPAN_BYTES / MIG_PAGE_BYTES : MIG_SPAN_BYTES / MIG_GRANULE_BYTES;
	count = divide_up(unit_count, tree->units_per_leaf);
	if (count == 0)
		return 0;
	for (;;) {
		base_assert(tree->level_count < MIG_VERIFY_LEVELS);
		if (level_new(&tree->levels[tree->level_count++], count) < 0)
			return -ENOMEM;
		if (tree->level_count > 1 && count == 1)
			return 0;
		count = divide_up(count, tree->level_count == 1 ? tree->leaves_per_span
								: MIG_VERIFY_FANOUT);
	}
}

static void tree_fini(struct mig_verify_tree *tree)
{
	for (uint32_t i = 0; i < tree->level_count; i++) {
		free(tree->levels[i].nodes);
		free(tree->levels[i].stale);
	}
}

static int trees_new(struct mig_verify *verify, const struct mig_verify_options *options)
{
	uint64_t spans = 0;

	verify->trees = calloc(options->object_count, sizeof(*verify->trees));
	if (verify->trees == NULL)
		return -ENOMEM;
	verify->object_count = options->object_count;
	for (uint32_t i = 0; i < options->object_count; i++) {
		struct mig_verify_tree *tree = &verify->trees[i];

		if (tree_new(tree, (uint16_t)i, options->objects[i].unit_count) < 0)
			return -ENOMEM;
		tree->first_span = spans;
		spans += tree->level_count > 0 ? tree->levels[1].count : 0;
	}
	verify->span_count = spans;
	return 0;
}

int mig_verify_new(const struct mig_verify_options *options, struct mig_verify **ret_verify,
		   struct base_error *err)
{
	struct mig_verify *verify = calloc(1, sizeof(*verify));
	int r = 0;

	base_assert(options->object_count > 0 && options->object_count <= MIG_OBJECTS_MAX);
	base_assert(options->lane_count > 0 && options->lane_count <= MIG_CHANNELS_MAX);
	if (verify == NULL)
		return base_fail(err, -ENOMEM, "migration: hash tree");
	verify->options = *options;
	verify->options.objects = NULL;
	r = trees_new(verify, options);
	for (uint32_t i = 0; i < options->lane_count && r == 0; i++)
		r = mig_verify_lane_new(&verify->lanes[i], options->object_count > 1);
	if (r < 0) {
		mig_verify_free(verify);
		return base_fail(err, r, "migration: hash trees of %" PRIu32 " objects",
				 options->object_count);
	}
	*ret_verify = verify;
	return 0;
}

void mig_verify_free(struct mig_verify *verify)
{
	if (verify == NULL)
		return;
	for (uint32_t i = 0; i < verify->options.lane_count; i++)
		mig_verify_lane_fini(&verify->lanes[i]);
	for (uint32_t i = 0; i < verify->object_count; i++)
		tree_fini(&verify->trees[i]);
	free(verify->trees);
	free(verify);
}

/* --- marks --- */

static void make_stale(struct mig_verify_level *level, uint64_t first, uint64_t end)
{
	for (uint64_t at = first; at < end; at = (at / 64 + 1) * 64) {
		uint64_t left = end - at / 64 * 64;
		uint64_t mask = (left < 64 ? (1ULL << left) - 1 : UINT64_MAX) & UINT64_MAX
											<< at % 64;

		(void)__atomic_fetch_or(&level->stale[at / 64], mask, __ATOMIC_RELAXED);
	}
}

void mig_verify_round(struct mig_verify *verify, bool sweep, bool paused)
{
	verify->paused = paused;
	verify->begin_ns = 0;
	atomic_store(&verify->next_span, 0);
	for (uint32_t i = 0; i < verify->options.lane_count; i++)
		verify->lanes[i].cursor.object = 0; /* what it saw may be older than a harvest */
#ifdef GODWIT_MUTANT_MIG_VERIFY_LEAF
	verify->kept = false;
#endif
	if (!sweep)
		return;
	verify->kept = true;
	for (uint32_t i = 1; i < verify->object_count; i++)
		make_stale(&verify->trees[i].levels[0], 0, verify->trees[i].levels[0].count);
}

void mig_verify_mark(struct mig_verify *verify, uint16_t object, uint64_t first, uint64_t count)
{
	struct mig_verify_tree *tree = &verify->trees[object];

	if (!verify->kept || count == 0)
		return;
	base_assert(first < tree->unit_count && count <= tree->unit_count - first);
	make_stale(&tree->levels[0], first / tree->units_per_leaf,
		   (first + count - 1) / tree->units_per_leaf + 1);
}

void mig_verify_mark_word(struct mig_verify *verify, uint16_t object, uint64_t word, uint64_t bits)
{
	if (verify->kept && bits != 0)
		(void)__atomic_fetch_or(&verify->trees[object].levels[0].stale[word], bits,
					__ATOMIC_RELAXED);
}

void mig_verify_mark_bits(struct mig_verify *verify, uint16_t object, const uint64_t *bits)
{
	const struct mig_verify_tree *tree = &verify->trees[object];
	uint64_t words = tree->level_count > 0 ? divide_up(tree->levels[0].count, 64) : 0;

	for (uint64_t word = 0; word < words; word++)
		mig_verify_mark_word(verify, object, word, bits[word]);
}

/* --- the threads --- */

static bool is_stale(const struct mig_verify_tree *tree, uint64_t span)
{
	const uint64_t *stale = tree->levels[0].stale;
	uint64_t first = span * tree->leaves_per_span;

	if (tree->leaves_per_span < 64) /* others clear other spans' bits of the word */
		return (__atomic_load_n(&stale[first / 64], __ATOMIC_RELAXED) >> first % 64 &
			((1ULL << tree->leaves_per_span) - 1)) != 0;
	for (uint64_t word = first / 64; word < (first + tree->leaves_per_span) / 64; word++)
		if (word <= tree->levels[0].count / 64 &&
		    __atomic_load_n(&stale[word], __ATOMIC_RELAXED) != 0)
			return true;
	return false;
}

/* The first span from @span on with a mark; the count of all: none. */
static uint64_t find_span(const struct mig_verify *verify, uint64_t span)
{
	for (uint32_t i = 0; i < verify->object_count; i++) {
		const struct mig_verify_tree *tree = &verify->trees[i];
		uint64_t count = tree->level_count > 0 ? tree->levels[1].count : 0;

		for (; span < tree->first_span + count; span++)
			if (is_stale(tree, span - tree->first_span))
				return span;
	}
	return verify->span_count;
}

/* One that no other lane has taken. */
static uint64_t take_span(struct mig_verify *verify)
{
	uint_fast64_t from = atomic_load(&verify->next_span);
	uint64_t span = 0;

	do {
		span = find_span(verify, from);
		if (span == verify->span_count)
			return span;
	} while (!atomic_compare_exchange_weak(&verify->next_span, &from, span + 1));
	return span;
}

static uint16_t object_at(const struct mig_verify *verify, uint64_t span)
{
	uint32_t object = verify->object_count - 1;

	while (verify->trees[object].level_count == 0 || span < verify->trees[object].first_span)
		object--;
	return (uint16_t)object;
}

/* A node of @level from its children; and its parent is to be made anew. */
static int make_node(struct mig_verify *verify, struct mig_verify_lane *lane, uint16_t object,
		     uint32_t level, uint64_t index, struct base_error *err)
{
	struct mig_verify_tree *tree = &verify->trees[object];
	uint64_t first = 0;
	uint32_t count = 0;
	const struct mig_digest *children =
		mig_verify_children(verify, object, level, index, &first, &count);
	int r = mig_verify_hash_node(lane, children, count, level,
				     &tree->levels[level].nodes[index], err);

	if (r == 0 && level + 1 < tree->level_count)
		make_stale(&tree->levels[level + 1], index / MIG_VERIFY_FANOUT,
			   index / MIG_VERIFY_FANOUT + 1);
	return r;
}

static int hash_span(struct mig_verify *verify, struct mig_verify_lane *lane, uint64_t span,
		     struct base_error *err)
{
	uint16_t object = object_at(verify, span);
	uint64_t own = span - verify->trees[object].first_span;
	int r = object == 0 ? mig_verify_hash_memory(verify, lane, own, err)
			    : mig_verify_hash_image(verify, lane, object, own, err);

	return r == 0 ? make_node(verify, lane, object, 1, own, err) : r;
}

int mig_verify_hash(struct mig_verify *verify, uint32_t lane, struct base_error *err)
{
	uint64_t begin_ns = base_clock_boot_ns(&base_clock_system);
	uint_fast64_t unset = 0;
	uint64_t span = 0;
	int r = 0;

	base_assert(lane < verify->options.lane_count);
	(void)atomic_compare_exchange_strong(&verify->begin_ns, &unset, begin_ns);
	while (r == 0) {
		if (atomic_load(&verify->cancelled))
			return base_fail(err, -ECANCELED, "migration: hashing was stopped");
		span = take_span(verify);
		if (span == verify->span_count)
			break;
		r = hash_span(verify, &verify->lanes[lane], span, err);
	}
	if (!verify->paused)
		atomic_fetch_add(&verify->running_ns,
				 base_clock_boot_ns(&base_clock_system) - begin_ns);
	return r;
}

static int settle_tree(struct mig_verify *verify, uint16_t object, struct base_error *err)
{
	struct mig_verify_tree *tree = &verify->trees[object];
	int r = 0;

	for (uint32_t level = 2; level < tree->level_count; level++) {
		uint64_t *stale = tree->levels[level].stale;

		for (uint64_t word = 0; word <= (tree->levels[level].count - 1) / 64; word++)
			for (; r == 0 && stale[word] != 0; stale[word] &= stale[word] - 1)
				r = make_node(verify, &verify->lanes[0], object, level,
					      word * 64 + (uint64_t)__builtin_ctzll(stale[word]),
					      err);
	}
	return r;
}

int mig_verify_settle(struct mig_verify *verify, struct base_error *err)
{
	uint64_t begin_ns = base_clock_boot_ns(&base_clock_system);
	int r = 0;

	for (uint32_t i = 0; i < verify->object_count && r == 0; i++)
		r = settle_tree(verify, (uint16_t)i, err);
	if (!verify->paused) {
		atomic_fetch_add(&verify->running_ns,
				 base_clock_boot_ns(&base_clock_system) - begin_ns);
	} else {
		uint64_t first_ns = atomic_load(&verify->begin_ns);

		atomic_fetch_add(&verify->blackout_ns,
				 base_clock_boot_ns(&base_clock_system) -
					 (first_ns != 0 ? first_ns : begin_ns));
	}
	return r;
}

void mig_verify_cancel(struct mig_verify *verify)
{
	atomic_store(&verify->cancelled, true);
}

void mig_verify_restart(struct mig_verify *verify)
{
	atomic_store(&verify->cancelled, false);
	verify->kept = false;
}

struct mig_verify_counts mig_verify_counts(const struct mig_verify *verify)
{
	struct mig_verify_counts counts = {
		.running_ns = atomic_load(&verify->running_ns),
		.blackout_ns = atomic_load(&verify->blackout_ns),
	};

	for (uint32_t i = 0; i < verify->options.lane_count; i++) {
		counts.bytes += atomic_load(&verify->lanes[i].bytes);
		counts.looked += atomic_load(&verify->lanes[i].looked);
	}
	return counts;
}

/* --- the tree --- */

uint32_t mig_verify_object_count(const struct mig_verify *verify)
{
	return verify->object_count;
}

uint32_t mig_verify_top(const struct mig_verify *verify, uint16_t object)
{
	uint32_t levels = verify->trees[object].level_count;

	return levels > 0 ? levels - 1 : 0;
}

uint64_t mig_verify_node_count(const struct mig_verify *verify, uint16_t object, uint32_t level)
{
	const struct mig_verify_tree *tree = &verify->trees[object];

	return level < tree->level_count ? tree->levels[level].count : 0;
}

struct mig_digest mig_verify_root(const struct mig_verify *verify, uint16_t object)
{
	const struct mig_verify_tree *tree = &verify->trees[object];

	return tree->level_count > 0 ? tree->levels[tree->level_count - 1].nodes[0]
				     : (struct mig_digest){ .bytes = { 0 } };
}

const struct mig_digest *mig_verify_children(const struct mig_verify *verify, uint16_t object,
					     uint32_t level, uint64_t index, uint64_t *ret_first,
					     uint32_t *ret_count)
{
	const struct mig_verify_tree *tree = &verify->trees[object];
	uint32_t fanout = level == 1 ? tree->leaves_per_span : MIG_VERIFY_FANOUT;
	uint64_t first = index * fanout;
	uint64_t left = 0;

	base_assert(level > 0 && level < tree->level_count && index < tree->levels[level].count);
	left = tree->levels[level - 1].count - first;
	*ret_first = first;
	*ret_count = left < fanout ? (uint32_t)left : fanout;
	return tree->levels[level - 1].nodes + first;
}

uint64_t mig_verify_unit(const struct mig_verify *verify, uint16_t object, uint32_t level,
			 uint64_t index)
{
	const struct mig_verify_tree *tree = &verify->trees[object];
	uint64_t unit = index * tree->units_per_leaf;

	for (uint32_t i = 1; i <= level; i++)
		unit *= i == 1 ? tree->leaves_per_span : MIG_VERIFY_FANOUT;
	return unit;
}
