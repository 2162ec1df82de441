/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A destination's data channel and what it makes of chunks, from a hostile source.  The input is a
 * list of frames (mig_compose.h).  Nothing is written outside memory and bounce region, and
 * images are asked for their sectors only.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "migrate/mig_intake.h"
#include "migrate/mig_link.h"
#include "tests/fuzz/mig_compose.h"

#define PAGES        300u /* two spans */
#define SECTORS      5000u
#define STREAM_BYTES (64u << 10) /* goes into a socket at once */
#define FLAG_LAST    2u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t memory[PAGES * MIG_PAGE_BYTES];
static const struct mig_object objects[] = { { .unit_count = PAGES }, { .unit_count = SECTORS } };

static void in_image(uint64_t sector, uint32_t count)
{
	if (count == 0 || count > SECTORS || sector > SECTORS - count)
		abort();
}

static int disk_write(void *context, uint16_t object, uint64_t sector, const uint8_t *bytes,
		      uint32_t count, struct base_error *err)
{
	(void)context;
	(void)err;
	in_image(sector, count);
	(void)base_crc32c(0, bytes, (size_t)count * MIG_SECTOR_BYTES); /* may be read */
	return object == 1 ? 0 : -1;
}

static int disk_clear(void *context, uint16_t object, uint64_t sector, uint32_t count, bool unmap,
		      struct base_error *err)
{
	(void)context;
	(void)unmap;
	(void)err;
	in_image(sector, count);
	return object == 1 ? 0 : -1;
}

/* One message for the intake; false: the migration has failed. */
static bool take(struct mig_intake *intake, const struct mig_received *received, uint32_t *round,
		 bool last)
{
	int r = 0;

	if (received->type == MIG_TYPE_CHUNK)
		return mig_intake_chunk(intake, 1, received->body, NULL) == 0;
	if (received->type != MIG_TYPE_BARRIER)
		return true;
	r = mig_intake_barrier(intake, 1, base_get_le32(received->body), NULL);
	if (r == 1 && !mig_intake_is_whole(intake))
		return mig_intake_round(intake, ++*round, last, NULL) == 0;
	return r == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t stream[STREAM_BYTES];
	const struct mig_disk_ops ops = { .write = disk_write, .clear = disk_clear };
	const struct mig_intake_options options = { .memory = memory,
						    .objects = objects,
						    .object_count = 2,
						    .channel_count = 1,
						    .disk = &ops };
	struct mig_link_options link_options = { .timeout_ms = 1000 };
	struct mig_intake *intake = NULL;
	struct mig_link *link = NULL;
	struct mig_received received;
	uint32_t round = 0;
	size_t bytes = 0;
	bool last = false;
	int fds[2];

	if (size < 1)
		return 0;
	last = (data[0] & FLAG_LAST) != 0;
	bytes = mig_compose(data + 1, size - 1, stream, sizeof(stream));
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0)
		abort();
	link_options.fd = fds[1];
	if (mig_intake_new(&options, &intake, NULL) < 0 ||
	    mig_link_new(&link_options, &link, NULL) < 0 ||
	    mig_intake_round(intake, 0, false, NULL) < 0)
		abort();
	mig_link_register(link, MIG_REGION_MEMORY, memory, sizeof(memory));
	mig_link_register(link, MIG_REGION_BOUNCE, mig_intake_bounce(intake, 1), MIG_BOUNCE_BYTES);
	if (write(fds[0], stream, bytes) != (ssize_t)bytes)
		abort();
	(void)close(fds[0]);
	while (mig_link_receive(link, &received, NULL) == 0 &&
	       take(intake, &received, &round, last))
		continue;
	mig_link_free(link);
	mig_intake_free(intake);
	(void)close(fds[1]);
	return 0;
}
