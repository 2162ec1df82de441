/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved-state container: named, versioned, length- and CRC-protected sections.
 *
 * Layout, validity and who may write: docs/hypervisor/saved-state.md.  The file is
 * hostile until every check there has passed.  The same sections, without those of
 * memory, travel in a live migration.
 *
 * A writer is used by any number of threads at once (hv_state_put, hv_state_putv);
 * new, finish and free belong to one.  A reader is immutable after open: any thread.
 */
#ifndef HYPERVISOR_STATE_FILE_H
#define HYPERVISOR_STATE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "base/error.h"

#define HV_STATE_NAME_BYTES 24 /* with its zero; lower case, digits, '-' */
#define HV_STATE_PAYLOAD_BYTES_MAX                                                                 \
	(8ULL << 20)                        /* a chunk of RAM with its descriptor is the largest */
#define HV_STATE_SECTIONS_MAX (64ULL << 20) /* more than 64 TiB of RAM needs */
#define HV_STATE_OTHERS_MAX   4096u /* sections that are not "ram"; devices and vCPUs: < 200 */
#define HV_STATE_ALIGN_BYTES                                                                       \
	4096ULL /* sections start page-aligned: direct I/O, reads straight into pages */
#define HV_STATE_PIECES_MAX 1000 /* one pwritev with the header; below IOV_MAX */

/* What a section is.  A value; @name is borrowed during the call. */
struct hv_state_key {
	const char *name;
	uint32_t instance; /* e.g. vCPU index */
	uint32_t version;  /* of this section's payload, from 1 */
	bool optional;     /* a reader that does not know it may leave it out */
};

struct hv_state_section {
	char name[HV_STATE_NAME_BYTES];
	uint32_t instance;
	uint32_t version;
	bool optional;
	uint64_t payload_bytes;
	uint64_t payload_offset; /* in the file; a multiple of HV_STATE_ALIGN_BYTES */
	uint32_t payload_crc;    /* CRC-32C */
};

struct hv_state_writer;

/* @fd: a new, empty regular file; borrowed.  -EINVAL it is none or holds something. */
BASE_MUST_CHECK int hv_state_writer_new(int fd, struct hv_state_writer **ret_writer,
					struct base_error *err);
void hv_state_writer_free(struct hv_state_writer *writer); /* NULL is fine */

/* Ask @may_write before each section: when it says no, put and finish fail with -EAGAIN. */
void hv_state_writer_gate(struct hv_state_writer *writer, bool (*may_write)(void *context),
			  void *context);

/**
 * hv_state_put - append one section.
 * @payload: borrowed during the call; at most HV_STATE_PAYLOAD_BYTES_MAX.
 * Any thread, several at once.  The order of the sections in the file is not defined.
 * -EFBIG too large or too many sections; -ENOSPC, -EIO, ... from the file.  After a
 * failure the file can no longer be finished.
 */
BASE_MUST_CHECK int hv_state_put(struct hv_state_writer *writer, const struct hv_state_key *key,
				 const void *payload, size_t payload_bytes, struct base_error *err);
/* The same from up to HV_STATE_PIECES_MAX pieces of memory, which must not change meanwhile. */
BASE_MUST_CHECK int hv_state_putv(struct hv_state_writer *writer, const struct hv_state_key *key,
				  const struct iovec *pieces, size_t piece_count,
				  struct base_error *err);

/**
 * hv_state_finish - write the end section (count, total), then the file header that
 * makes the file valid.  Once, when no put is running.  Not yet durable.
 * -EPROTO an earlier put failed; otherwise errno of the file.
 */
BASE_MUST_CHECK int hv_state_finish(struct hv_state_writer *writer, struct base_error *err);
/* Bytes of the file so far; after finish: of the whole file. */
uint64_t hv_state_written_bytes(const struct hv_state_writer *writer);

struct hv_state_reader;

/**
 * hv_state_reader_open - read and check every header of the file.
 * @fd: borrowed, outlives the reader.  May be open with O_DIRECT.
 * -EBADMSG malformed, truncated or corrupted (which section, at which offset);
 * -ENOTSUP written by a newer version (version seen, newest known); -EINVAL no regular file.
 */
BASE_MUST_CHECK int hv_state_reader_open(int fd, struct hv_state_reader **ret_reader,
					 struct base_error *err);
void hv_state_reader_free(struct hv_state_reader *reader); /* NULL is fine */
/* Sections without the end section. */
uint64_t hv_state_section_count(const struct hv_state_reader *reader);
/* In the order of the file; NULL out of range. */
const struct hv_state_section *hv_state_section_at(const struct hv_state_reader *reader,
						   uint64_t index);
/* The one section of that name and instance: NULL none.  (Duplicates were refused by open, "ram"
 * apart.) */
const struct hv_state_section *hv_state_find(const struct hv_state_reader *reader, const char *name,
					     uint32_t instance);

/* A section that the caller can read: @newest version, instances 0..@instance_count-1. */
struct hv_state_known {
	const char *name;
	uint32_t newest;
	uint32_t instance_count;
};
/**
 * hv_state_check_known - refuse what the caller does not know, before anything is restored.
 * Sections flagged optional are skipped when unknown or newer.
 * -ENOTSUP unknown section, or one of a newer version (names it, version seen and newest
 * known); -EBADMSG an instance out of range.
 */
BASE_MUST_CHECK int hv_state_check_known(const struct hv_state_reader *reader,
					 const struct hv_state_known *known, size_t known_count,
					 struct base_error *err);

/**
 * hv_state_get - read and verify a payload into a malloc'ed buffer the caller frees.
 * -EBADMSG it fails its checksum; otherwise errno of the file.
 */
BASE_MUST_CHECK int hv_state_get(const struct hv_state_reader *reader,
				 const struct hv_state_section *section, uint8_t **ret_payload,
				 struct base_error *err);
/* For who reads a payload piecewise: does @crc, computed over all of it, match?  -EBADMSG. */
BASE_MUST_CHECK int hv_state_check_crc(const struct hv_state_section *section, uint32_t crc,
				       struct base_error *err);
int hv_state_reader_fd(const struct hv_state_reader *reader);

#endif
