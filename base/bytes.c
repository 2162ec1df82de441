/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Little-endian bytes.  Lengths are checked by subtraction, so that no size that a
 * caller took from outside can wrap.
 */
#include "base/bytes.h"

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define BUFFER_FIRST_BYTES 256 /* the first allocation; doubled from there on */

/* Stands in for a NULL pointer with size 0: arithmetic on NULL is undefined. */
static uint8_t nothing[1];

struct base_reader base_reader_over(const void *data, size_t size_bytes)
{
	base_assert(data != NULL || size_bytes == 0);
	return (struct base_reader){ .data = data != NULL ? data : nothing,
				     .size_bytes = size_bytes };
}

struct base_writer base_writer_over(void *data, size_t size_bytes)
{
	base_assert(data != NULL || size_bytes == 0);
	return (struct base_writer){ .data = data != NULL ? data : nothing,
				     .size_bytes = size_bytes };
}

size_t base_reader_left(const struct base_reader *in)
{
	return in->failed ? 0 : in->size_bytes - in->offset_bytes;
}

const uint8_t *base_read_span(struct base_reader *in, size_t size_bytes)
{
	const uint8_t *span = NULL;

	if (in->failed || size_bytes > in->size_bytes - in->offset_bytes) {
		in->failed = true;
		return NULL;
	}
	span = in->data + in->offset_bytes;
	in->offset_bytes += size_bytes;
	return span;
}

void base_read_bytes(struct base_reader *in, void *to, size_t size_bytes)
{
	const uint8_t *span = base_read_span(in, size_bytes);

	if (size_bytes == 0)
		return;
	if (span != NULL)
		memcpy(to, span, size_bytes);
	else
		memset(to, 0, size_bytes);
}

void base_read_skip(struct base_reader *in, size_t size_bytes)
{
	(void)base_read_span(in, size_bytes);
}

uint8_t base_read_u8(struct base_reader *in)
{
	const uint8_t *span = base_read_span(in, 1);

	return span != NULL ? span[0] : 0;
}

uint16_t base_read_le16(struct base_reader *in)
{
	const uint8_t *span = base_read_span(in, sizeof(uint16_t));

	return span != NULL ? base_get_le16(span) : 0;
}

uint32_t base_read_le32(struct base_reader *in)
{
	const uint8_t *span = base_read_span(in, sizeof(uint32_t));

	return span != NULL ? base_get_le32(span) : 0;
}

uint64_t base_read_le64(struct base_reader *in)
{
	const uint8_t *span = base_read_span(in, sizeof(uint64_t));

	return span != NULL ? base_get_le64(span) : 0;
}

/* The place of the next @size_bytes, counted as written; NULL when they do not fit. */
static uint8_t *write_span(struct base_writer *out, size_t size_bytes)
{
	uint8_t *span = NULL;

	if (out->failed || size_bytes > out->size_bytes - out->offset_bytes) {
		out->failed = true;
		return NULL;
	}
	span = out->data + out->offset_bytes;
	out->offset_bytes += size_bytes;
	return span;
}

void base_write_u8(struct base_writer *out, uint8_t value)
{
	uint8_t *span = write_span(out, 1);

	if (span != NULL)
		span[0] = value;
}

void base_write_le16(struct base_writer *out, uint16_t value)
{
	uint8_t *span = write_span(out, sizeof(value));

	if (span != NULL)
		base_put_le16(span, value);
}

void base_write_le32(struct base_writer *out, uint32_t value)
{
	uint8_t *span = write_span(out, sizeof(value));

	if (span != NULL)
		base_put_le32(span, value);
}

void base_write_le64(struct base_writer *out, uint64_t value)
{
	uint8_t *span = write_span(out, sizeof(value));

	if (span != NULL)
		base_put_le64(span, value);
}

void base_write_bytes(struct base_writer *out, const void *from, size_t size_bytes)
{
	uint8_t *span = write_span(out, size_bytes);

	if (span != NULL && size_bytes > 0)
		memcpy(span, from, size_bytes);
}

void base_write_zeros(struct base_writer *out, size_t size_bytes)
{
	uint8_t *span = write_span(out, size_bytes);

	if (span != NULL)
		memset(span, 0, size_bytes);
}

uint16_t base_get_le16(const void *from)
{
	const uint8_t *bytes = from;

	return (uint16_t)(bytes[0] | bytes[1] << 8);
}

uint32_t base_get_le32(const void *from)
{
	const uint8_t *bytes = from;

	return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
	       (uint32_t)bytes[3] << 24;
}

uint64_t base_get_le64(const void *from)
{
	const uint8_t *bytes = from;

	return (uint64_t)base_get_le32(bytes) | (uint64_t)base_get_le32(bytes + 4) << 32;
}

void base_put_le16(void *to, uint16_t value)
{
	uint8_t *bytes = to;

	bytes[0] = (uint8_t)value;
	bytes[1] = (uint8_t)(value >> 8);
}

void base_put_le32(void *to, uint32_t value)
{
	uint8_t *bytes = to;

	base_put_le16(bytes, (uint16_t)value);
	base_put_le16(bytes + 2, (uint16_t)(value >> 16));
}

void base_put_le64(void *to, uint64_t value)
{
	uint8_t *bytes = to;

	base_put_le32(bytes, (uint32_t)value);
	base_put_le32(bytes + 4, (uint32_t)(value >> 32));
}

uint16_t base_get_be16(const void *from)
{
	return __builtin_bswap16(base_get_le16(from));
}

uint32_t base_get_be32(const void *from)
{
	return __builtin_bswap32(base_get_le32(from));
}

uint64_t base_get_be64(const void *from)
{
	return __builtin_bswap64(base_get_le64(from));
}

void base_put_be16(void *to, uint16_t value)
{
	base_put_le16(to, __builtin_bswap16(value));
}

void base_put_be32(void *to, uint32_t value)
{
	base_put_le32(to, __builtin_bswap32(value));
}

void base_put_be64(void *to, uint64_t value)
{
	base_put_le64(to, __builtin_bswap64(value));
}

/*
 * Zero scan.  Most pages that are not zero show it in their first line, so the first
 * 64 bytes are looked at alone; after that four vectors are joined per branch, and the
 * tail is read with vectors that end with the last byte and overlap what was seen.
 */
#define ZERO_LINE_BYTES 64UL

static __m128i load16(const uint8_t *from)
{
	return _mm_loadu_si128((const __m128i *)(const void *)from);
}

static bool line_is_zero_sse2(const uint8_t *line)
{
	__m128i all = _mm_or_si128(_mm_or_si128(load16(line), load16(line + 16)),
				   _mm_or_si128(load16(line + 32), load16(line + 48)));

	return _mm_movemask_epi8(_mm_cmpeq_epi8(all, _mm_setzero_si128())) == 0xffff;
}

static bool is_zero_sse2(const uint8_t *data, size_t size_bytes)
{
	size_t offset = 0;

	for (offset = 0; size_bytes - offset >= ZERO_LINE_BYTES; offset += ZERO_LINE_BYTES) {
		if (!line_is_zero_sse2(data + offset))
			return false;
	}
	return offset == size_bytes || line_is_zero_sse2(data + size_bytes - ZERO_LINE_BYTES);
}

__attribute__((target("avx2"))) static inline __m256i load32(const uint8_t *from)
{
	return _mm256_loadu_si256((const __m256i *)(const void *)from);
}

__attribute__((target("avx2"))) static inline __m256i load64_joined(const uint8_t *from)
{
	return _mm256_or_si256(load32(from), load32(from + 32));
}

__attribute__((target("avx2"))) static bool is_zero_avx2(const uint8_t *data, size_t size_bytes)
{
	size_t offset = ZERO_LINE_BYTES;
	__m256i all = load64_joined(data);

	if (!_mm256_testz_si256(all, all))
		return false;
	for (; size_bytes - offset >= 2 * ZERO_LINE_BYTES; offset += 2 * ZERO_LINE_BYTES) {
		all = _mm256_or_si256(load64_joined(data + offset),
				      load64_joined(data + offset + ZERO_LINE_BYTES));
		if (!_mm256_testz_si256(all, all))
			return false;
	}
	/* Fewer than two lines are left: the two last lines of the whole cover them. */
	all = load64_joined(data + size_bytes - ZERO_LINE_BYTES);
	if (size_bytes - offset > ZERO_LINE_BYTES)
		all = _mm256_or_si256(all, load64_joined(data + offset));
	return _mm256_testz_si256(all, all) != 0;
}

bool base_is_zero(const void *data, size_t size_bytes)
{
	const uint8_t *bytes = data;
	uint8_t joined = 0;

	if (size_bytes >= ZERO_LINE_BYTES)
		return __builtin_cpu_supports("avx2") ? is_zero_avx2(bytes, size_bytes)
						      : is_zero_sse2(bytes, size_bytes);
	for (size_t i = 0; i < size_bytes; i++)
		joined |= bytes[i];
	return joined == 0;
}

void base_buffer_fini(struct base_buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct base_buffer){ .data = NULL };
}

static bool buffer_reserve(struct base_buffer *buffer, size_t size_bytes)
{
	size_t capacity = buffer->capacity_bytes;
	uint8_t *data = NULL;

	if (buffer->data != NULL && size_bytes <= capacity - buffer->size_bytes)
		return true;
	if (size_bytes > SIZE_MAX / 2 - buffer->size_bytes)
		return false;
	capacity = capacity < BUFFER_FIRST_BYTES ? BUFFER_FIRST_BYTES : capacity;
	while (capacity - buffer->size_bytes < size_bytes)
		capacity *= 2; /* cannot wrap: the sum is at most SIZE_MAX / 2 */
	data = realloc(buffer->data, capacity);
	if (data == NULL)
		return false;
	buffer->data = data;
	buffer->capacity_bytes = capacity;
	return true;
}

uint8_t *base_buffer_extend(struct base_buffer *buffer, size_t size_bytes)
{
	uint8_t *room = NULL;

	if (buffer->failed || !buffer_reserve(buffer, size_bytes)) {
		buffer->failed = true;
		return NULL;
	}
	room = buffer->data + buffer->size_bytes;
	buffer->size_bytes += size_bytes;
	return room;
}

void base_buffer_append(struct base_buffer *buffer, const void *from, size_t size_bytes)
{
	uint8_t *room = base_buffer_extend(buffer, size_bytes);

	if (room != NULL && size_bytes > 0)
		memcpy(room, from, size_bytes);
}

void base_buffer_u8(struct base_buffer *buffer, uint8_t value)
{
	base_buffer_append(buffer, &value, sizeof(value));
}

void base_buffer_le16(struct base_buffer *buffer, uint16_t value)
{
	uint8_t bytes[sizeof(value)];

	base_put_le16(bytes, value);
	base_buffer_append(buffer, bytes, sizeof(bytes));
}

void base_buffer_le32(struct base_buffer *buffer, uint32_t value)
{
	uint8_t bytes[sizeof(value)];

	base_put_le32(bytes, value);
	base_buffer_append(buffer, bytes, sizeof(bytes));
}

void base_buffer_le64(struct base_buffer *buffer, uint64_t value)
{
	uint8_t bytes[sizeof(value)];

	base_put_le64(bytes, value);
	base_buffer_append(buffer, bytes, sizeof(bytes));
}
