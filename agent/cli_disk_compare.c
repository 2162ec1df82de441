/* SPDX-License-Identifier: Apache-2.0 */
/*
 * godwit disk compare: what a guest would read of both, block maps first, so that what neither
 * holds is not read.  While one piece is compared the next one is being read.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cli_disk_priv.h"
#include "agent/cli_progress.h"
#include "base/cleanup.h"

#define PIECE_BYTES  (2U << 20)
#define PIECES       2
#define ALIGN_BYTES  4096U
#define SIDE_EXTENTS 256U

/* One of the two disks, with the runs that its map gave last. */
struct side {
	const char *path;
	struct disk *disk;
	uint64_t size_bytes;
	struct disk_extent extents[SIDE_EXTENTS];
	uint32_t extent_count;
	uint32_t extent_at;
};

/* A piece in flight; a side whose @reading is false holds only zeros there. */
struct piece {
	uint64_t offset_bytes;
	uint64_t length_bytes; /* 0: none */
	uint8_t *data[2];
	struct cli_disk_wait wait[2];
	bool reading[2];
};

struct compare {
	struct cli_disk *session;
	struct side sides[2];
	struct piece pieces[PIECES];
	uint32_t sector_bytes; /* the larger of both: pieces are multiples of it */
	uint64_t total_bytes;
	uint64_t at; /* next to be begun */
	bool differ;
	uint64_t difference_bytes;
};

static void compare_free(struct compare *compare)
{
	if (compare == NULL)
		return;
	for (size_t i = 0; i < PIECES; i++)
		for (size_t s = 0; s < 2; s++)
			free(compare->pieces[i].data[s]);
	for (size_t s = 0; s < 2; s++)
		disk_close(compare->sides[s].disk);
	free(compare);
}
BASE_DEFINE_FREEP(struct compare, compare_free);

static int compare_new(struct cli_disk *session, struct compare **ret_compare,
		       struct base_error *err)
{
	BASE_CLEANUP(compare_freep) struct compare *compare = calloc(1, sizeof(*compare));

	if (compare == NULL)
		return base_fail(err, -ENOMEM, "compare");
	compare->session = session;
	for (size_t i = 0; i < PIECES; i++)
		for (size_t s = 0; s < 2; s++) {
			compare->pieces[i].data[s] = aligned_alloc(ALIGN_BYTES, PIECE_BYTES);
			if (compare->pieces[i].data[s] == NULL)
				return base_fail(err, -ENOMEM, "compare: buffers of %u bytes",
						 PIECE_BYTES);
		}
	*ret_compare = base_take(&compare);
	return 0;
}

/* The run of @side at @at: how long, and whether it holds data. */
static int run_at(struct compare *compare, struct side *side, uint64_t at, uint64_t *ret_bytes,
		  bool *ret_data)
{
	int rc;

	if (at >= side->size_bytes) { /* the other one's runs end here, so pieces do not cross */
		*ret_bytes = compare->total_bytes - at;
		*ret_data = false;
		return 0;
	}
	for (;;) {
		for (; side->extent_at < side->extent_count; side->extent_at++) {
			const struct disk_extent *e = &side->extents[side->extent_at];

			if (at < e->offset_bytes || at - e->offset_bytes >= e->length_bytes)
				continue;
			*ret_bytes = e->length_bytes - (at - e->offset_bytes);
			*ret_data = e->kind == DISK_EXTENT_DATA;
			return 0;
		}
		side->extent_at = 0;
		rc = cli_disk_extents(compare->session, side->disk,
				      &(struct cli_disk_span){ at, side->size_bytes - at },
				      side->extents, SIDE_EXTENTS, &side->extent_count);
		if (rc < 0)
			return rc;
		if (side->extent_count == 0 || side->extents[0].offset_bytes != at)
			base_bug("a map that does not begin at %" PRIu64, at);
	}
}

static int fail_read(const struct side *side, uint64_t at, int rc, struct base_error *err)
{
	const char *damage = rc == -EBADMSG ? disk_damage(side->disk) : "";

	return base_fail_errno(err, rc, "'%s': read at %" PRIu64 "%s%s", side->path, at,
			       damage[0] != '\0' ? ": " : "", damage);
}

/* What of @piece is inside of @side: beyond it are zeros. */
static uint64_t held_bytes(const struct side *side, const struct piece *piece)
{
	if (piece->offset_bytes >= side->size_bytes)
		return 0;
	if (piece->length_bytes > side->size_bytes - piece->offset_bytes)
		return side->size_bytes - piece->offset_bytes;
	return piece->length_bytes;
}

/* Begin reading the next piece that either side holds; length 0 at the end. */
static int begin_piece(struct compare *compare, struct piece *piece, struct base_error *err)
{
	piece->length_bytes = 0;
	while (compare->at < compare->total_bytes && piece->length_bytes == 0) {
		uint64_t bytes = compare->total_bytes - compare->at;

		for (size_t s = 0; s < 2; s++) {
			uint64_t run = 0;
			int rc = run_at(compare, &compare->sides[s], compare->at, &run,
					&piece->reading[s]);

			if (rc < 0)
				return fail_read(&compare->sides[s], compare->at, rc, err);
			if (run < bytes)
				bytes = run;
		}
		if (!piece->reading[0] && !piece->reading[1]) {
			compare->at += bytes;
			continue;
		}
		if (bytes % compare->sector_bytes !=
		    0) { /* a run of one ends in a sector of the other */
			bytes += compare->sector_bytes - bytes % compare->sector_bytes;
			piece->reading[0] = true;
			piece->reading[1] = true;
		}
		piece->offset_bytes = compare->at;
		piece->length_bytes = bytes > PIECE_BYTES ? PIECE_BYTES : bytes;
		if (piece->length_bytes > compare->total_bytes - compare->at)
			piece->length_bytes = compare->total_bytes - compare->at;
		compare->at += piece->length_bytes;
	}
	for (size_t s = 0; s < 2 && piece->length_bytes > 0; s++) {
		uint64_t bytes = piece->reading[s] ? held_bytes(&compare->sides[s], piece) : 0;

		piece->reading[s] = bytes > 0;
		memset(piece->data[s] + bytes, 0, piece->length_bytes - bytes);
		if (bytes == 0)
			continue;
		piece->wait[s].request = (struct disk_request){
			.op = DISK_READ,
			.offset_bytes = piece->offset_bytes,
			.length_bytes = bytes,
		};
		cli_disk_start(compare->session, compare->sides[s].disk, &piece->wait[s],
			       piece->data[s]);
	}
	return 0;
}

/* Wait for a piece and look at it.  Always waits for both sides. */
static int end_piece(struct compare *compare, struct piece *piece, struct base_error *err)
{
	const uint8_t *a = piece->data[0];
	const uint8_t *b = piece->data[1];
	int rc = 0;

	for (size_t s = 0; s < 2 && piece->length_bytes > 0; s++) {
		int result = piece->reading[s] ? cli_disk_wait(&piece->wait[s]) : 0;

		if (result < 0 && rc == 0)
			rc = fail_read(&compare->sides[s], piece->offset_bytes, result, err);
	}
	if (rc < 0 || compare->differ || piece->length_bytes == 0 ||
	    memcmp(a, b, piece->length_bytes) == 0)
		return rc;
	for (uint64_t i = 0; i < piece->length_bytes; i++) {
		if (a[i] == b[i])
			continue;
		compare->differ = true;
		compare->difference_bytes = piece->offset_bytes + i;
		break;
	}
	return 0;
}

static int compare_all(struct compare *compare, struct cli_progress *progress,
		       struct base_error *err)
{
	size_t turn = 0;
	int rc = 0;

	for (size_t i = 0; i < PIECES && rc == 0; i++)
		rc = begin_piece(compare, &compare->pieces[i], err);
	while (rc == 0 && !compare->differ && compare->pieces[turn].length_bytes > 0) {
		struct piece *piece = &compare->pieces[turn];

		rc = end_piece(compare, piece, err);
		if (rc == 0 &&
		    cli_progress_step(progress, piece->offset_bytes + piece->length_bytes,
				      compare->total_bytes) != 0)
			rc = base_fail(err, -ECANCELED, "stopped: not known whether they differ");
		piece->length_bytes = 0;
		if (rc == 0 && !compare->differ)
			rc = begin_piece(compare, piece, err);
		turn = (turn + 1) % PIECES;
	}
	/* What is still being read must land before the buffers go. */
	for (size_t i = 0; i < PIECES; i++)
		(void)end_piece(compare, &compare->pieces[i], NULL);
	return rc;
}

static int open_side(struct compare *compare, size_t index, const char *path, int format,
		     const struct cli_disk_args *args, struct base_error *err)
{
	struct side *side = &compare->sides[index];
	struct disk_geometry geometry;
	int rc = cli_disk_open(compare->session, path, format, true, &side->disk, err);

	if (rc == 0 && !args->force_share)
		rc = cli_disk_not_in_use(compare->session, path, err);
	if (rc < 0)
		return rc;
	disk_geometry(side->disk, &geometry);
	side->path = path;
	side->size_bytes = geometry.size_bytes;
	if (geometry.logical_sector_bytes > compare->sector_bytes)
		compare->sector_bytes = geometry.logical_sector_bytes;
	if (side->size_bytes > compare->total_bytes)
		compare->total_bytes = side->size_bytes;
	return 0;
}

static int outcome(const struct compare *compare, const struct cli_disk_args *args)
{
	if (compare->differ) {
		if (!args->quiet)
			(void)printf("The contents differ, first at offset %" PRIu64 "\n",
				     compare->difference_bytes);
		return CLI_EXIT_FAILED;
	}
	if (!args->quiet && compare->sides[0].size_bytes != compare->sides[1].size_bytes)
		(void)printf("The sizes differ (%" PRIu64 " and %" PRIu64
			     " bytes), but what the longer one has more is zeros\n",
			     compare->sides[0].size_bytes, compare->sides[1].size_bytes);
	if (!args->quiet)
		(void)printf("The contents are the same\n");
	return CLI_EXIT_DONE;
}

static int compare_files(struct cli_disk *session, const struct cli_disk_args *args,
			 struct base_error *err)
{
	BASE_CLEANUP(compare_freep) struct compare *compare = NULL;
	struct cli_progress progress;
	int rc = compare_new(session, &compare, err);

	if (rc < 0 || compare == NULL)
		return rc;
	rc = open_side(compare, 0, args->name, args->format, args, err);
	if (rc == 0)
		rc = open_side(compare, 1, args->other, args->other_format, args, err);
	if (rc < 0)
		return rc;
	if (args->strict && compare->sides[0].size_bytes != compare->sides[1].size_bytes) {
		if (!args->quiet)
			(void)printf("The sizes differ: %" PRIu64 " and %" PRIu64 " bytes\n",
				     compare->sides[0].size_bytes, compare->sides[1].size_bytes);
		return CLI_EXIT_FAILED;
	}
	cli_stop_catch();
	cli_progress_begin(&progress, stdout, "compare", args->progress, args->quiet);
	rc = compare_all(compare, &progress, err);
	cli_progress_end(&progress);
	return rc < 0 ? rc : outcome(compare, args);
}

int cli_disk_compare(const void *arguments, struct base_error *err)
{
	struct cli_disk session = { 0 };
	int rc = cli_disk_begin(&session, err);

	if (rc == 0)
		rc = compare_files(&session, arguments, err);
	cli_disk_end(&session);
	/* 1 says that they differ; without an answer the outcome is not known. */
	return rc < 0 ? CLI_EXIT_UNKNOWN : rc;
}
