/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a saved state.  Threads take their place in the file from one counter and
 * write there with one call; nothing else is shared.
 */
#include "hypervisor/state_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/file.h"
#include "hypervisor/state_section.h"

struct hv_state_writer {
	int fd;                    /* borrowed */
	_Atomic uint64_t next;     /* where the next section begins */
	_Atomic uint64_t sections; /* given a place so far */
	_Atomic int failed;        /* errno of the first put that failed, 0 */
	bool finished;
	bool (*may_write)(void *context); /* NULL: always */
	void *may_write_context;
};

static const uint8_t zeros[HV_STATE_ALIGN_BYTES];

int hv_state_writer_new(int fd, struct hv_state_writer **ret_writer, struct base_error *err)
{
	struct hv_state_writer *writer = NULL;
	struct stat status;

	if (fstat(fd, &status) < 0)
		return base_fail_errno(err, -errno, "saved state");
	if (!S_ISREG(status.st_mode) || status.st_size != 0)
		return base_fail(err, -EINVAL, "saved state: not a new, empty file");

	writer = calloc(1, sizeof(*writer));
	if (writer == NULL)
		return base_fail(err, -ENOMEM, "saved state: writer");
	writer->fd = fd;
	atomic_init(&writer->next, HV_STATE_ALIGN_BYTES);
	*ret_writer = writer;
	return 0;
}

void hv_state_writer_free(struct hv_state_writer *writer)
{
	free(writer);
}

uint64_t hv_state_written_bytes(const struct hv_state_writer *writer)
{
	return atomic_load(&writer->next);
}

/* Write all pieces at @offset, over short writes; @pieces are used up.  0 or -errno. */
static int write_pieces(int fd, struct iovec *pieces, size_t piece_count, uint64_t offset)
{
	while (piece_count > 0) {
		ssize_t n = 0;

		if (pieces->iov_len == 0) {
			pieces++;
			piece_count--;
			continue;
		}
		n = pwritev(fd, pieces, (int)piece_count, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		offset += (uint64_t)n;
		for (size_t left = (size_t)n; left > 0;) {
			size_t step = left < pieces->iov_len ? left : pieces->iov_len;

			pieces->iov_base = (uint8_t *)pieces->iov_base + step;
			pieces->iov_len -= step;
			left -= step;
			if (pieces->iov_len == 0) {
				pieces++;
				piece_count--;
			}
		}
	}
	return 0;
}

static int put_failed(struct hv_state_writer *writer, int code)
{
	int none = 0;

	(void)atomic_compare_exchange_strong(&writer->failed, &none, code);
	return code;
}

/* Give @section its place and write it with its header and padding. */
static int append(struct hv_state_writer *writer, const struct hv_state_section *section,
		  const struct iovec *pieces, size_t piece_count, struct base_error *err)
{
	uint64_t padded = hv_state_padded(section->payload_bytes);
	struct iovec all[HV_STATE_PIECES_MAX + 2];
	uint8_t block[HV_STATE_ALIGN_BYTES];
	uint64_t offset = 0;
	int r = 0;

	if (writer->may_write != NULL && !writer->may_write(writer->may_write_context))
		return base_fail(err, put_failed(writer, -EAGAIN),
				 "saved state: the leash is not held");
	if (atomic_fetch_add(&writer->sections, 1) >= HV_STATE_SECTIONS_MAX)
		return base_fail(err, put_failed(writer, -EFBIG),
				 "saved state: more than %llu sections", HV_STATE_SECTIONS_MAX);
	offset = atomic_fetch_add(&writer->next, HV_STATE_ALIGN_BYTES + padded);

	hv_state_section_encode(section, block);
	all[0] = (struct iovec){ .iov_base = block, .iov_len = sizeof(block) };
	if (piece_count > 0)
		memcpy(all + 1, pieces, piece_count * sizeof(*pieces));
	memset(&all[piece_count + 1], 0, sizeof(all[0]));
	if (padded != section->payload_bytes) {
		/* pwritev only reads what iov_base names; the type cannot say so. */
		memcpy(&all[piece_count + 1].iov_base, &(const void *){ zeros }, sizeof(void *));
		all[piece_count + 1].iov_len = padded - section->payload_bytes;
	}
	r = write_pieces(writer->fd, all, piece_count + 2, offset);
	if (r < 0)
		return base_fail_errno(err, put_failed(writer, r),
				       "saved state: section '%s' %" PRIu32 " at offset %" PRIu64,
				       section->name, section->instance, offset);
	return 0;
}

void hv_state_writer_gate(struct hv_state_writer *writer, bool (*may_write)(void *context),
			  void *context)
{
	writer->may_write = may_write;
	writer->may_write_context = context;
}

int hv_state_putv(struct hv_state_writer *writer, const struct hv_state_key *key,
		  const struct iovec *pieces, size_t piece_count, struct base_error *err)
{
	struct hv_state_section section = { 0 };
	size_t name_bytes = strlen(key->name);

	base_assert(!writer->finished);
	base_assert(piece_count <= HV_STATE_PIECES_MAX);
	base_assert(name_bytes > 0 && name_bytes < HV_STATE_NAME_BYTES);
	base_assert(strcmp(key->name, HV_STATE_END_NAME) != 0);

	memcpy(section.name, key->name, name_bytes);
	section.instance = key->instance;
	section.version = key->version;
	section.optional = key->optional;
	for (size_t i = 0; i < piece_count; i++) {
		if (pieces[i].iov_len > HV_STATE_PAYLOAD_BYTES_MAX - section.payload_bytes)
			return base_fail(err, put_failed(writer, -EFBIG),
					 "saved state: section '%s' is larger than %llu bytes",
					 key->name, HV_STATE_PAYLOAD_BYTES_MAX);
		section.payload_bytes += pieces[i].iov_len;
		section.payload_crc =
			base_crc32c(section.payload_crc, pieces[i].iov_base, pieces[i].iov_len);
	}
	return append(writer, &section, pieces, piece_count, err);
}

int hv_state_put(struct hv_state_writer *writer, const struct hv_state_key *key,
		 const void *payload, size_t payload_bytes, struct base_error *err)
{
	struct iovec piece = { .iov_len = payload_bytes };

	memcpy(&piece.iov_base, &payload, sizeof(payload)); /* only read from, see append() */
	return hv_state_putv(writer, key, &piece, 1, err);
}

int hv_state_finish(struct hv_state_writer *writer, struct base_error *err)
{
	struct hv_state_section section = { .name = HV_STATE_END_NAME, .version = 1 };
	uint8_t block[HV_STATE_ALIGN_BYTES];
	uint8_t payload[HV_STATE_END_BYTES];
	struct iovec piece = { .iov_base = payload, .iov_len = sizeof(payload) };
	int r = 0;

	base_assert(!writer->finished);
	r = atomic_load(&writer->failed);
	if (r < 0)
		return base_fail_errno(err, -EPROTO,
				       "saved state: cannot be finished, an earlier write failed");

	base_put_le64(payload, atomic_load(&writer->sections));
	base_put_le64(payload + 8, atomic_load(&writer->next) + 2 * HV_STATE_ALIGN_BYTES);
	section.payload_bytes = sizeof(payload);
	section.payload_crc = base_crc32c(0, payload, sizeof(payload));
	r = append(writer, &section, &piece, 1, err);
	if (r < 0)
		return r;

	hv_state_file_header_encode(block);
	r = base_pwrite_all(writer->fd, block, sizeof(block), 0);
	if (r < 0)
		return base_fail_errno(err, put_failed(writer, r), "saved state: file header");
	writer->finished = true;
	return 0;
}
