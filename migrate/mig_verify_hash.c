/* SPDX-License-Identifier: Apache-2.0 */
/* The hashes of a verified move: SHA-256 of what lies in memory, and of what images read back. */
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "migrate/mig_verify_priv.h"

#define SPAN_LEAVES  (MIG_SPAN_BYTES / MIG_GRANULE_BYTES) /* of an image */
#define BUFFER_ALIGN 4096u                                /* of any store */
#define RUNS_MAX     (MIG_GRANULE_SECTORS / 2)            /* with something between them */
#define RUN_BYTES    8u
#define NOTE_BYTES   (RUNS_MAX * RUN_BYTES)

/* --- SHA-256 --- */

int mig_verify_lane_new(struct mig_verify_lane *lane, bool has_images)
{
	EVP_MD_CTX *digest = NULL;

	/* A worker that is locked down reads no configuration. */
	if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL) != 1)
		return -ENOTSUP;
	digest = EVP_MD_CTX_new();
	lane->digest = digest;
	if (has_images)
		lane->buffer = aligned_alloc(BUFFER_ALIGN, MIG_SPAN_BYTES);
	if (digest == NULL || (has_images && lane->buffer == NULL))
		return -ENOMEM;
	return EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1 ? 0 : -ENOTSUP;
}

void mig_verify_lane_fini(struct mig_verify_lane *lane)
{
	EVP_MD_CTX_free(lane->digest);
	free(lane->buffer);
}

static void looked(struct mig_verify_lane *lane, uint64_t more)
{
	atomic_fetch_add_explicit(&lane->looked, more, memory_order_relaxed);
}

struct content {
	const void *bytes;
	size_t size_bytes;
	const void *note; /* behind them */
	size_t note_bytes;
};

static int hash(struct mig_verify_lane *lane, const struct content *content,
		struct mig_digest *ret_digest, struct base_error *err)
{
	uint8_t whole[EVP_MAX_MD_SIZE];
	unsigned int whole_bytes = 0;

	if (EVP_DigestInit_ex(lane->digest, NULL, NULL) != 1 ||
	    EVP_DigestUpdate(lane->digest, content->bytes, content->size_bytes) != 1 ||
	    EVP_DigestUpdate(lane->digest, content->note, content->note_bytes) != 1 ||
	    EVP_DigestFinal_ex(lane->digest, whole, &whole_bytes) != 1 ||
	    whole_bytes < MIG_DIGEST_BYTES)
		return base_fail(err, -EIO, "migration: libcrypto gives no SHA-256");
	memcpy(ret_digest->bytes, whole, MIG_DIGEST_BYTES);
	atomic_fetch_add_explicit(&lane->bytes, content->size_bytes + content->note_bytes,
				  memory_order_relaxed);
	looked(lane, 1);
	return 0;
}

/* What stays zero takes no memory of the host. */
static void clear(struct mig_verify_lane *lane, struct mig_digest *digest)
{
	if (!base_is_zero(digest, sizeof(*digest)))
		memset(digest, 0, sizeof(*digest));
	looked(lane, 1);
}

int mig_verify_hash_node(struct mig_verify_lane *lane, const struct mig_digest *children,
			 uint32_t count, uint32_t level, struct mig_digest *ret_digest,
			 struct base_error *err)
{
	uint8_t note[8];
	const struct content content = { .bytes = children,
					 .size_bytes = count * sizeof(*children),
					 .note = note,
					 .note_bytes = sizeof(note) };

	if (base_is_zero(children, count * sizeof(*children))) {
		clear(lane, ret_digest);
		return 0;
	}
	base_put_le64(note, level);
	return hash(lane, &content, ret_digest, err);
}

/* --- memory --- */

int mig_verify_hash_memory(struct mig_verify *verify, struct mig_verify_lane *lane, uint64_t span,
			   struct base_error *err)
{
	struct mig_verify_level *leaves = &verify->trees[0].levels[0];
	uint64_t first = span * verify->trees[0].leaves_per_span;

	for (uint32_t i = 0; i < verify->trees[0].leaves_per_span / 64; i++) {
		uint64_t word = first / 64 + i;
		uint64_t bits = 0;

		if (word * 64 >= leaves->count)
			break;
		bits = __atomic_exchange_n(&leaves->stale[word], 0, __ATOMIC_RELAXED);
		for (; bits != 0; bits &= bits - 1) {
			uint64_t page = word * 64 + (uint64_t)__builtin_ctzll(bits);
			const struct content content = {
				.bytes = verify->options.memory + page * MIG_PAGE_BYTES,
				.size_bytes = MIG_PAGE_BYTES,
			};
			int r = 0;

			if (base_is_zero(content.bytes, MIG_PAGE_BYTES))
				clear(lane, &leaves->nodes[page]);
			else
				r = hash(lane, &content, &leaves->nodes[page], err);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* --- images --- */

/* A granule that is looked at: its bytes, and where a parent shows instead. */
struct granule {
	uint64_t first; /* sector */
	uint32_t count;
	uint8_t *bytes;
	bool has_data;
	uint32_t run_count;
	uint8_t note[NOTE_BYTES];
};

/* Runs that touch are one, however the image's format cut them. */
static void note_parent(struct granule *granule, uint64_t first, uint32_t count)
{
	uint32_t at = (uint32_t)(first - granule->first);
	uint8_t *behind = granule->note + granule->run_count * (size_t)RUN_BYTES;

	if (granule->run_count > 0 && base_get_le32(behind - 8) + base_get_le32(behind - 4) == at) {
		base_put_le32(behind - 4, base_get_le32(behind - 4) + count);
		return;
	}
	base_assert(granule->run_count < RUNS_MAX);
	base_put_le32(behind, at);
	base_put_le32(behind + 4, count);
	granule->run_count++;
}

static int read_run(struct mig_verify *verify, uint16_t object, struct granule *granule,
		    const struct mig_run *run, struct base_error *err)
{
	uint8_t *to = granule->bytes + (run->first - granule->first) * MIG_SECTOR_BYTES;

	if (run->kind == MIG_RUN_DATA) {
		granule->has_data = true;
		return verify->options.read(verify->options.context, object, run->first, to,
					    run->count, err);
	}
	if (run->kind == MIG_RUN_NOTHING)
		note_parent(granule, run->first, run->count);
	memset(to, 0, (size_t)run->count * MIG_SECTOR_BYTES);
	return 0;
}

static int read_granule(struct mig_verify *verify, struct mig_verify_lane *lane, uint16_t object,
			struct granule *granule, struct base_error *err)
{
	const struct mig_mapped mapped = { .map = verify->options.map,
					   .context = verify->options.context,
					   .object = object,
					   .sector_count = verify->trees[object].unit_count };
	uint64_t end = granule->first + granule->count;

	for (uint64_t sector = granule->first; sector < end;) {
		struct mig_run run;
		int r = mig_map_part(&lane->cursor, &mapped, sector, end, &run, err);

		if (r == 0)
			r = read_run(verify, object, granule, &run, err);
		if (r < 0)
			return r;
		sector += run.count;
	}
	return 0;
}

/* What nobody ever wrote is one run, and told without its bytes. */
static bool is_one_run(struct mig_verify_lane *lane, uint16_t object, const struct granule *granule,
		       enum mig_run_kind kind)
{
	const struct mig_run *run = mig_map_seen(&lane->cursor, object, granule->first);

	return run != NULL && run->kind == kind &&
	       run->first + run->count >= granule->first + granule->count;
}

static int hash_granule(struct mig_verify *verify, struct mig_verify_lane *lane, uint16_t object,
			struct granule *granule, struct mig_digest *ret_digest,
			struct base_error *err)
{
	struct content content = { .bytes = granule->bytes,
				   .size_bytes = (size_t)granule->count * MIG_SECTOR_BYTES,
				   .note = granule->note };
	int r = 0;

	if (is_one_run(lane, object, granule, MIG_RUN_UNMAPPED) ||
	    is_one_run(lane, object, granule, MIG_RUN_ZERO)) {
		clear(lane, ret_digest);
		return 0;
	}
	granule->has_data = false;
	granule->run_count = 0;
	if (is_one_run(lane, object, granule, MIG_RUN_NOTHING))
		note_parent(granule, granule->first, granule->count);
	else
		r = read_granule(verify, lane, object, granule, err);
	if (r < 0)
		return r;
	if (!granule->has_data || base_is_zero(granule->bytes, content.size_bytes))
		content.size_bytes = 0;
	if (content.size_bytes == 0 && granule->run_count == 0) {
		clear(lane, ret_digest);
		return 0;
	}
	content.note_bytes = granule->run_count * (size_t)RUN_BYTES;
	return hash(lane, &content, ret_digest, err);
}

int mig_verify_hash_image(struct mig_verify *verify, struct mig_verify_lane *lane, uint16_t object,
			  uint64_t span, struct base_error *err)
{
	const struct mig_verify_tree *tree = &verify->trees[object];
	struct mig_verify_level *leaves = &verify->trees[object].levels[0];
	uint64_t first = span * SPAN_LEAVES;
	uint64_t mask = ((1ULL << SPAN_LEAVES) - 1) << first % 64; /* words have whole spans */
	uint64_t bits =
		mask & __atomic_fetch_and(&leaves->stale[first / 64], ~mask, __ATOMIC_RELAXED);
	struct granule granule = { .bytes = lane->buffer };

	for (; bits != 0; bits &= bits - 1) {
		uint64_t leaf = first / 64 * 64 + (uint64_t)__builtin_ctzll(bits);
		uint64_t left = 0;
		int r = 0;

		granule.first = leaf * MIG_GRANULE_SECTORS;
		left = tree->unit_count - granule.first;
		granule.count = left < MIG_GRANULE_SECTORS ? (uint32_t)left : MIG_GRANULE_SECTORS;
		r = hash_granule(verify, lane, object, &granule, &leaves->nodes[leaf], err);
		if (r < 0)
			return r;
	}
	return 0;
}
