/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The leash page: bytes and sequence lock.
 *
 * The shared page is only ever touched as 64-bit atomics.  The writer stores an odd
 * sequence, then the words, then the even sequence; every store but the first is a
 * release, every load of the reader but the last an acquire.  So a reader that saw any
 * word of an update sees its odd sequence (or a later one) in its last load.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/leash_priv.h"

#define PAGE_MAGIC     0x00485341454c5747ULL /* the bytes "GWLEASH" and a zero */
#define PAGE_VERSION   1U
#define SEQUENCE_BYTES 16 /* offset of the sequence */
#define CRC_BYTES      64 /* offset of the checksum, which covers what is before it */
#define WORD_COUNT     (BASE_LEASH_PAGE_BYTES / sizeof(uint64_t))

typedef _Atomic uint64_t shared_word;
_Static_assert(sizeof(shared_word) == sizeof(uint64_t), "a word is a word");

void base_leash_page_encode(const struct base_leash_page *page, uint8_t to[BASE_LEASH_PAGE_BYTES])
{
	struct base_writer out = base_writer_over(to, BASE_LEASH_PAGE_BYTES);

	base_write_le64(&out, PAGE_MAGIC);
	base_write_le32(&out, PAGE_VERSION);
	base_write_le32(&out, 0); /* flags: none defined */
	base_write_le64(&out, page->sequence);
	base_write_le64(&out, page->terms.epoch);
	base_write_le64(&out, page->terms.soft_ns);
	base_write_le64(&out, page->terms.hard_ns);
	base_write_le64(&out, page->terms.thaw_count);
	base_write_le64(&out, page->terms.thaw_until_ns);
	base_write_le32(&out, base_crc32c(0, to, CRC_BYTES));
	base_write_zeros(&out, BASE_LEASH_PAGE_BYTES - out.offset_bytes);
}

int base_leash_page_decode_all(const uint8_t page[BASE_LEASH_PAGE_BYTES],
			       struct base_leash_page *ret_page, struct base_error *err)
{
	struct base_reader in = base_reader_over(page, BASE_LEASH_PAGE_BYTES);
	uint64_t magic = base_read_le64(&in);
	uint32_t version = base_read_le32(&in);
	uint32_t flags = base_read_le32(&in);
	struct base_leash_page decoded;
	uint32_t crc = 0;

	decoded.sequence = base_read_le64(&in);
	decoded.terms.epoch = base_read_le64(&in);
	decoded.terms.soft_ns = base_read_le64(&in);
	decoded.terms.hard_ns = base_read_le64(&in);
	decoded.terms.thaw_count = base_read_le64(&in);
	decoded.terms.thaw_until_ns = base_read_le64(&in);
	crc = base_read_le32(&in);

	if (magic != PAGE_MAGIC)
		return base_fail(err, -EBADMSG, "leash page: magic 0x%016" PRIx64, magic);
	if (version != PAGE_VERSION)
		return base_fail(err, -EBADMSG, "leash page: version %" PRIu32 ", not %u", version,
				 PAGE_VERSION);
	if ((decoded.sequence & 1) != 0) /* before the checksum, which is of no use then */
		return base_fail(err, -EAGAIN, "leash page: update %" PRIu64 " is under way",
				 decoded.sequence);
	if (crc != base_crc32c(0, page, CRC_BYTES))
		return base_fail(err, -EBADMSG, "leash page: checksum 0x%08" PRIx32 " is wrong",
				 crc);
	if (flags != 0)
		return base_fail(err, -EBADMSG, "leash page: flags 0x%" PRIx32, flags);
	if (decoded.sequence == 0)
		return base_fail(err, -EBADMSG, "leash page: sequence 0");
	if (decoded.terms.soft_ns > decoded.terms.hard_ns)
		return base_fail(err, -EBADMSG,
				 "leash page: soft deadline %" PRIu64
				 " after the hard one %" PRIu64,
				 decoded.terms.soft_ns, decoded.terms.hard_ns);
	if (!base_is_zero(page + in.offset_bytes, base_reader_left(&in)))
		return base_fail(err, -EBADMSG, "leash page: reserved bytes are not zero");

	*ret_page = decoded;
	return 0;
}

int base_leash_page_decode(const uint8_t page[BASE_LEASH_PAGE_BYTES],
			   struct base_leash_terms *ret_terms, struct base_error *err)
{
	struct base_leash_page decoded;
	int code = base_leash_page_decode_all(page, &decoded, err);

	if (code == 0)
		*ret_terms = decoded.terms;
	return code;
}

void base_leash_page_write(void *shared, const struct base_leash_page *page)
{
	shared_word *words = shared;
	uint64_t bytes[WORD_COUNT]; /* words in memory order; x86 is little-endian */

	base_leash_page_encode(page, (uint8_t *)bytes);
	atomic_store_explicit(&words[SEQUENCE_BYTES / 8], page->sequence - 1, memory_order_relaxed);
	for (size_t i = 0; i < WORD_COUNT; i++) {
		if (i != SEQUENCE_BYTES / 8)
			atomic_store_explicit(&words[i], bytes[i], memory_order_release);
	}
	atomic_store_explicit(&words[SEQUENCE_BYTES / 8], page->sequence, memory_order_release);
}

int base_leash_page_read(const void *shared, struct base_leash_page *ret_page,
			 struct base_error *err)
{
	const shared_word *words = shared;
	uint64_t bytes[WORD_COUNT];
	uint64_t after = 0;

	bytes[SEQUENCE_BYTES / 8] =
		atomic_load_explicit(&words[SEQUENCE_BYTES / 8], memory_order_acquire);
	for (size_t i = 0; i < WORD_COUNT; i++) {
		if (i != SEQUENCE_BYTES / 8)
			bytes[i] = atomic_load_explicit(&words[i], memory_order_acquire);
	}
	after = atomic_load_explicit(&words[SEQUENCE_BYTES / 8], memory_order_relaxed);
	if (after != bytes[SEQUENCE_BYTES / 8])
		return base_fail(err, -EAGAIN, "leash page: update %" PRIu64 " is under way",
				 after);
	return base_leash_page_decode_all((const uint8_t *)bytes, ret_page, err);
}
