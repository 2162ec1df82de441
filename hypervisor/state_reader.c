/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a saved state.  Everything is read in whole blocks into block-aligned
 * memory, so that a descriptor opened with O_DIRECT works too.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/file.h"
#include "hypervisor/state_file.h"
#include "hypervisor/state_section.h"

/* A section in the order of names. */
struct other {
	const struct hv_state_section *section;
};

struct hv_state_reader {
	int fd; /* borrowed */
	uint64_t file_bytes;
	struct hv_state_section *sections; /* in the order of the file */
	uint64_t section_count;
	uint64_t capacity;
	struct other *others; /* not "ram", sorted for find */
	size_t other_count;
};

BASE_DEFINE_FREEP(struct hv_state_reader, hv_state_reader_free);

void hv_state_reader_free(struct hv_state_reader *reader)
{
	if (reader == NULL)
		return;
	free(reader->others);
	free(reader->sections);
	free(reader);
}

static bool is_ram(const struct hv_state_section *section)
{
	return strcmp(section->name, HV_STATE_RAM_NAME) == 0;
}

/* One more section; memory grows with the headers that were really read. */
static int remember(struct hv_state_reader *reader, const struct hv_state_section *section,
		    struct base_error *err)
{
	if (reader->section_count == HV_STATE_SECTIONS_MAX)
		return base_fail(err, -EBADMSG, "more than %llu sections", HV_STATE_SECTIONS_MAX);
	if (reader->section_count == reader->capacity) {
		uint64_t capacity = reader->capacity == 0 ? 64 : 2 * reader->capacity;
		struct hv_state_section *grown =
			realloc(reader->sections, capacity * sizeof(*grown));

		if (grown == NULL)
			return base_fail(err, -ENOMEM, "list of sections");
		reader->sections = grown;
		reader->capacity = capacity;
	}
	reader->sections[reader->section_count++] = *section;
	if (is_ram(section))
		return 0;
	if (reader->other_count == HV_STATE_OTHERS_MAX)
		return base_fail(err, -EBADMSG, "more than %u sections that are not '%s'",
				 HV_STATE_OTHERS_MAX, HV_STATE_RAM_NAME);
	reader->other_count++;
	return 0;
}

static int compare(const void *a, const void *b)
{
	const struct hv_state_section *first = ((const struct other *)a)->section;
	const struct hv_state_section *second = ((const struct other *)b)->section;
	int order = strcmp(first->name, second->name);

	if (order != 0)
		return order;
	return (first->instance > second->instance) - (first->instance < second->instance);
}

static int sort_others(struct hv_state_reader *reader, struct base_error *err)
{
	size_t count = 0;

	reader->others = calloc(reader->other_count + 1, sizeof(reader->others[0]));
	if (reader->others == NULL)
		return base_fail(err, -ENOMEM, "list of sections");
	for (uint64_t i = 0; i < reader->section_count; i++) {
		if (!is_ram(&reader->sections[i]))
			reader->others[count++].section = &reader->sections[i];
	}
	qsort(reader->others, reader->other_count, sizeof(reader->others[0]), compare);
	for (size_t i = 1; i < reader->other_count; i++) {
		if (compare(&reader->others[i - 1], &reader->others[i]) == 0)
			return base_fail(err, -EBADMSG, "section '%s' %" PRIu32 " comes twice",
					 reader->others[i].section->name,
					 reader->others[i].section->instance);
	}
	return 0;
}

/* Check the zeros behind a payload; @block is left with the payload's last block. */
static int check_padding(const struct hv_state_reader *reader,
			 const struct hv_state_section *section, uint8_t *block,
			 struct base_error *err)
{
	uint64_t tail = section->payload_bytes % HV_STATE_ALIGN_BYTES;
	int r = 0;

	if (tail == 0)
		return 0;
	r = base_pread_all(reader->fd, block, HV_STATE_ALIGN_BYTES,
			   section->payload_offset + section->payload_bytes - tail);
	if (r < 0)
		return base_fail_errno(err, r, "padding of section '%s'", section->name);
	if (!base_is_zero(block + tail, HV_STATE_ALIGN_BYTES - tail))
		return base_fail(err, -EBADMSG, "section '%s' %" PRIu32 ": padding is not zero",
				 section->name, section->instance);
	return 0;
}

/* @payload: the end section's, read already.  @after: where the file should end. */
static int check_end(const struct hv_state_reader *reader, const struct hv_state_section *section,
		     const uint8_t *payload, uint64_t after, struct base_error *err)
{
	uint64_t count = 0;
	uint64_t total = 0;
	int r = 0;

	if (section->version != 1)
		return base_fail(err, -ENOTSUP,
				 "end section: version %" PRIu32 ", newest known is 1",
				 section->version);
	if (section->instance != 0 || section->optional ||
	    section->payload_bytes != HV_STATE_END_BYTES)
		return base_fail(err, -EBADMSG, "end section: malformed");
	r = hv_state_check_crc(section, base_crc32c(0, payload, HV_STATE_END_BYTES), err);
	if (r < 0)
		return r;
	count = base_get_le64(payload);
	total = base_get_le64(payload + 8);
	if (count != reader->section_count)
		return base_fail(err, -EBADMSG,
				 "end section: says %" PRIu64 " sections, there are %" PRIu64,
				 count, reader->section_count);
	if (total != after || reader->file_bytes != after)
		return base_fail(err, -EBADMSG,
				 "end section: says %" PRIu64 " bytes, ends at %" PRIu64
				 ", the file has %" PRIu64,
				 total, after, reader->file_bytes);
	return 0;
}

/* The section whose header is at @*offset; moves @*offset behind it.  1 at the end section. */
static int walk_one(struct hv_state_reader *reader, uint64_t *offset, uint8_t *block,
		    struct base_error *err)
{
	uint64_t left = reader->file_bytes - *offset;
	struct hv_state_section section;
	int r = 0;

	if (left < HV_STATE_ALIGN_BYTES)
		return base_fail(err, -EBADMSG, "truncated: no end section");
	r = base_pread_all(reader->fd, block, HV_STATE_ALIGN_BYTES, *offset);
	if (r < 0)
		return base_fail_errno(err, r, "section header");
	r = hv_state_section_decode(block, &section, err);
	if (r < 0)
		return r;
	left -= HV_STATE_ALIGN_BYTES;
	if (section.payload_bytes > left)
		return base_fail(err, -EBADMSG,
				 "truncated: section '%s' has %" PRIu64 " bytes, %" PRIu64
				 " are left in the file",
				 section.name, section.payload_bytes, left);
	section.payload_offset = *offset + HV_STATE_ALIGN_BYTES;
	r = check_padding(reader, &section, block, err);
	if (r < 0)
		return r;

	*offset = section.payload_offset + hv_state_padded(section.payload_bytes);
	if (strcmp(section.name, HV_STATE_END_NAME) != 0)
		return remember(reader, &section, err);
	r = check_end(reader, &section, block, *offset, err);
	return r < 0 ? r : 1;
}

static int walk(struct hv_state_reader *reader, struct base_error *err)
{
	BASE_FREE uint8_t *block = aligned_alloc(HV_STATE_ALIGN_BYTES, HV_STATE_ALIGN_BYTES);
	uint64_t offset = 0;
	int r = 0;

	if (block == NULL)
		return base_fail(err, -ENOMEM, "a block");
	if (reader->file_bytes < HV_STATE_ALIGN_BYTES ||
	    reader->file_bytes % HV_STATE_ALIGN_BYTES != 0)
		return base_fail(err, -EBADMSG,
				 "truncated: %" PRIu64 " bytes are no whole number of blocks",
				 reader->file_bytes);
	r = base_pread_all(reader->fd, block, HV_STATE_ALIGN_BYTES, 0);
	if (r < 0)
		return base_fail_errno(err, r, "file header");
	r = hv_state_file_header_decode(block, err);
	if (r < 0)
		return r;

	offset = HV_STATE_ALIGN_BYTES;
	do {
		uint64_t at = offset;

		r = walk_one(reader, &offset, block, err);
		if (r < 0)
			return base_fail_within(err, r, "offset %" PRIu64, at);
	} while (r == 0);
	return sort_others(reader, err);
}

int hv_state_reader_open(int fd, struct hv_state_reader **ret_reader, struct base_error *err)
{
	BASE_CLEANUP(hv_state_reader_freep) struct hv_state_reader *reader = NULL;
	struct stat status;
	int r = 0;

	if (fstat(fd, &status) < 0)
		return base_fail_errno(err, -errno, "saved state");
	if (!S_ISREG(status.st_mode))
		return base_fail(err, -EINVAL, "saved state: not a regular file");
	reader = calloc(1, sizeof(*reader));
	if (reader == NULL)
		return base_fail(err, -ENOMEM, "saved state: reader");
	reader->fd = fd;
	reader->file_bytes = (uint64_t)status.st_size;
	r = walk(reader, err);
	if (r < 0)
		return base_fail_within(err, r, "saved state");
	*ret_reader = base_take(&reader);
	return 0;
}

uint64_t hv_state_section_count(const struct hv_state_reader *reader)
{
	return reader->section_count;
}

const struct hv_state_section *hv_state_section_at(const struct hv_state_reader *reader,
						   uint64_t index)
{
	return index < reader->section_count ? &reader->sections[index] : NULL;
}

const struct hv_state_section *hv_state_find(const struct hv_state_reader *reader, const char *name,
					     uint32_t instance)
{
	struct hv_state_section wanted = { .instance = instance };
	const struct other key = { &wanted };
	const struct other *found = NULL;
	size_t length = strlen(name);

	if (length >= sizeof(wanted.name))
		return NULL;
	memcpy(wanted.name, name, length);
	found = bsearch(&key, reader->others, reader->other_count, sizeof(reader->others[0]),
			compare);
	return found == NULL ? NULL : found->section;
}

static int check_one_known(const struct hv_state_section *section,
			   const struct hv_state_known *known, size_t known_count,
			   struct base_error *err)
{
	size_t i = 0;

	while (i < known_count && strcmp(known[i].name, section->name) != 0)
		i++;
	if (section->optional && (i == known_count || section->version > known[i].newest))
		return 0;
	if (i == known_count)
		return base_fail(err, -ENOTSUP,
				 "saved state: unknown section '%s', version %" PRIu32,
				 section->name, section->version);
	if (section->version > known[i].newest)
		return base_fail(err, -ENOTSUP,
				 "saved state: section '%s' has version %" PRIu32
				 ", newest known is %" PRIu32,
				 section->name, section->version, known[i].newest);
	if (section->instance >= known[i].instance_count)
		return base_fail(err, -EBADMSG,
				 "saved state: section '%s' has instance %" PRIu32
				 ", expected below %" PRIu32,
				 section->name, section->instance, known[i].instance_count);
	return 0;
}

int hv_state_check_known(const struct hv_state_reader *reader, const struct hv_state_known *known,
			 size_t known_count, struct base_error *err)
{
	for (uint64_t i = 0; i < reader->section_count; i++) {
		int r = check_one_known(&reader->sections[i], known, known_count, err);

		if (r < 0)
			return r;
	}
	return 0;
}

int hv_state_check_crc(const struct hv_state_section *section, uint32_t crc, struct base_error *err)
{
#ifdef GODWIT_MUTANT_STATE_CRC
	(void)crc;
	(void)section;
	(void)err;
#else
	if (crc != section->payload_crc)
		return base_fail(err, -EBADMSG,
				 "saved state: section '%s' %" PRIu32 " at offset %" PRIu64
				 " is corrupted: CRC 0x%08" PRIx32 ", computed 0x%08" PRIx32,
				 section->name, section->instance, section->payload_offset,
				 section->payload_crc, crc);
#endif
	return 0;
}

int hv_state_get(const struct hv_state_reader *reader, const struct hv_state_section *section,
		 uint8_t **ret_payload, struct base_error *err)
{
	uint64_t padded = hv_state_padded(section->payload_bytes);
	BASE_FREE uint8_t *payload =
		aligned_alloc(HV_STATE_ALIGN_BYTES, padded == 0 ? HV_STATE_ALIGN_BYTES : padded);
	int r = 0;

	if (payload == NULL)
		return base_fail(err, -ENOMEM, "saved state: section '%s'", section->name);
	r = base_pread_all(reader->fd, payload, padded, section->payload_offset);
	if (r < 0)
		return base_fail_errno(err, r, "saved state: section '%s' %" PRIu32, section->name,
				       section->instance);
	r = hv_state_check_crc(section, base_crc32c(0, payload, section->payload_bytes), err);
	if (r < 0)
		return r;
	*ret_payload = base_take(&payload);
	return 0;
}

int hv_state_reader_fd(const struct hv_state_reader *reader)
{
	return reader->fd;
}
