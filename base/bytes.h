/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading and writing little-endian bytes field by field.
 *
 * Reader and writer are values over memory that the caller owns; both fail
 * stickily: after the first access that does not fit, `failed` stays set, reads
 * give zeros and writes do nothing, so one check covers a whole record.  Nothing
 * is ever read or written outside the given bytes.  Not shared between threads.
 */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct base_reader {
	const uint8_t *data;
	size_t size_bytes;
	size_t offset_bytes; /* of the next byte; <= size_bytes */
	bool failed;
};

struct base_writer {
	uint8_t *data;
	size_t size_bytes;   /* capacity */
	size_t offset_bytes; /* bytes written so far */
	bool failed;
};

struct base_reader base_reader_over(const void *data, size_t size_bytes);
struct base_writer base_writer_over(void *data, size_t size_bytes);

/* Bytes not read yet; 0 once the reader failed. */
size_t base_reader_left(const struct base_reader *in);

uint8_t base_read_u8(struct base_reader *in);
uint16_t base_read_le16(struct base_reader *in);
uint32_t base_read_le32(struct base_reader *in);
uint64_t base_read_le64(struct base_reader *in);
/* Copies exactly @size_bytes to @to; zeros there when that does not fit. */
void base_read_bytes(struct base_reader *in, void *to, size_t size_bytes);
/* Borrowed pointer to the next @size_bytes, which are skipped; NULL when that does not fit. */
const uint8_t *base_read_span(struct base_reader *in, size_t size_bytes);
void base_read_skip(struct base_reader *in, size_t size_bytes);

void base_write_u8(struct base_writer *out, uint8_t value);
void base_write_le16(struct base_writer *out, uint16_t value);
void base_write_le32(struct base_writer *out, uint32_t value);
void base_write_le64(struct base_writer *out, uint64_t value);
void base_write_bytes(struct base_writer *out, const void *from, size_t size_bytes);
void base_write_zeros(struct base_writer *out, size_t size_bytes);

/* One value at an address, little-endian, unaligned. */
uint16_t base_get_le16(const void *from);
uint32_t base_get_le32(const void *from);
uint64_t base_get_le64(const void *from);
void base_put_le16(void *to, uint16_t value);
void base_put_le32(void *to, uint32_t value);
void base_put_le64(void *to, uint64_t value);
/* The same, big-endian: SCSI, VHD and network headers. */
uint16_t base_get_be16(const void *from);
uint32_t base_get_be32(const void *from);
uint64_t base_get_be64(const void *from);
void base_put_be16(void *to, uint16_t value);
void base_put_be32(void *to, uint32_t value);
void base_put_be64(void *to, uint64_t value);

/* True when all @size_bytes are zero.  Fast (vectorised); reads nothing outside. */
bool base_is_zero(const void *data, size_t size_bytes);

/*
 * A growing buffer.  Zero-initialised is empty.  base_buffer_fini() releases.
 * An allocation that fails sets `failed` (sticky), and later appends do nothing.
 */
struct base_buffer {
	uint8_t *data;
	size_t size_bytes;
	size_t capacity_bytes;
	bool failed;
};

void base_buffer_fini(struct base_buffer *buffer);
void base_buffer_append(struct base_buffer *buffer, const void *from, size_t size_bytes);
/* Room for @size_bytes more, counted as written; NULL when there is no memory. */
uint8_t *base_buffer_extend(struct base_buffer *buffer, size_t size_bytes);
void base_buffer_u8(struct base_buffer *buffer, uint8_t value);
void base_buffer_le16(struct base_buffer *buffer, uint16_t value);
void base_buffer_le32(struct base_buffer *buffer, uint32_t value);
void base_buffer_le64(struct base_buffer *buffer, uint64_t value);

#endif
