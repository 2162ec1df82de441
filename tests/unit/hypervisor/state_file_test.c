/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved-state container: what is written comes back, and nothing else is taken.
 */
#include "hypervisor/state_file.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/file.h"
#include "base/pool.h"
#include "hypervisor/state_section.h"
#include "tests/support/alloc_fail.h"

#define BLOCK HV_STATE_ALIGN_BYTES

static int new_file(void)
{
	int fd = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	cr_assert_geq(fd, 0);
	return fd;
}

static void put(struct hv_state_writer *writer, const char *name, uint32_t instance,
		const void *payload, size_t size_bytes)
{
	struct hv_state_key key = { .name = name, .instance = instance, .version = 1 };
	struct base_error err = { 0 };

	cr_assert_eq(hv_state_put(writer, &key, payload, size_bytes, &err), 0, "%s", err.text);
}

/* "one" with 5 bytes, "two" instance 7 with a whole block: 8 blocks in all. */
static int small_file(void)
{
	struct hv_state_writer *writer = NULL;
	struct base_error err = { 0 };
	uint8_t block[BLOCK];
	int fd = new_file();

	for (size_t i = 0; i < sizeof(block); i++)
		block[i] = (uint8_t)(i * 7 + i / 256);
	cr_assert_eq(hv_state_writer_new(fd, &writer, &err), 0, "%s", err.text);
	put(writer, "one", 0, "hello", 5);
	put(writer, "two", 7, block, sizeof(block));
	cr_assert_eq(hv_state_finish(writer, &err), 0, "%s", err.text);
	cr_assert_eq(hv_state_written_bytes(writer), 7 * BLOCK);
	hv_state_writer_free(writer);
	return fd;
}

/* Open and read all payloads; the first error. */
static int read_all(int fd, struct base_error *err)
{
	struct hv_state_reader *reader = NULL;
	int r = hv_state_reader_open(fd, &reader, err);

	for (uint64_t i = 0; r == 0 && i < hv_state_section_count(reader); i++) {
		BASE_FREE uint8_t *payload = NULL;

		r = hv_state_get(reader, hv_state_section_at(reader, i), &payload, err);
	}
	hv_state_reader_free(reader);
	return r;
}

static void refused(int fd, int code, const char *text)
{
	struct base_error err = { 0 };

	cr_assert_eq(read_all(fd, &err), code, "%s", err.text);
	cr_assert_not_null(strstr(err.text, text), "'%s' is not in '%s'", text, err.text);
	close(fd);
}

/* Change bytes of a header block and make its CRC right again. */
static void patch_header(int fd, uint64_t block_offset, size_t at, const void *bytes, size_t count)
{
	uint8_t block[BLOCK];

	cr_assert_eq(base_pread_all(fd, block, BLOCK, block_offset), 0);
	memcpy(block + at, bytes, count);
	base_put_le32(block + 60, base_crc32c(0, block, 60));
	cr_assert_eq(base_pwrite_all(fd, block, BLOCK, block_offset), 0);
}

static void patch_header32(int fd, uint64_t block_offset, size_t at, uint32_t value)
{
	uint8_t bytes[4];

	base_put_le32(bytes, value);
	patch_header(fd, block_offset, at, bytes, sizeof(bytes));
}

Test(state_file, round_trip)
{
	struct hv_state_reader *reader = NULL;
	struct base_error err = { 0 };
	const struct hv_state_section *section = NULL;
	uint8_t *payload = NULL;
	int fd = small_file();

	cr_assert_eq(hv_state_reader_open(fd, &reader, &err), 0, "%s", err.text);
	cr_assert_eq(hv_state_section_count(reader), 2);
	cr_assert_eq(hv_state_reader_fd(reader), fd);
	cr_assert_null(hv_state_section_at(reader, 2));
	cr_assert_null(hv_state_find(reader, "one", 1));
	cr_assert_null(hv_state_find(reader, "three", 0));
	cr_assert_null(hv_state_find(reader, "a-name-that-is-far-too-long", 0));
	section = hv_state_find(reader, "one", 0);
	cr_assert_not_null(section);
	cr_assert_eq(section->payload_bytes, 5);
	cr_assert_eq(section->payload_offset % BLOCK, 0);
	cr_assert_eq(hv_state_get(reader, section, &payload, &err), 0, "%s", err.text);
	cr_assert_arr_eq(payload, "hello", 5);
	free(payload);
	section = hv_state_find(reader, "two", 7);
	cr_assert_not_null(section);
	cr_assert_eq(section->payload_bytes, BLOCK);
	cr_assert_eq(hv_state_get(reader, section, &payload, &err), 0, "%s", err.text);
	cr_assert_eq(payload[BLOCK - 1], (uint8_t)((BLOCK - 1) * 7 + (BLOCK - 1) / 256));
	free(payload);
	hv_state_reader_free(reader);
	close(fd);
}

Test(state_file, no_section_and_empty_section)
{
	struct hv_state_writer *writer = NULL;
	struct hv_state_reader *reader = NULL;
	struct base_error err = { 0 };
	uint8_t *payload = NULL;
	int fd = new_file();

	cr_assert_eq(hv_state_writer_new(fd, &writer, &err), 0);
	put(writer, "empty", 3, NULL, 0);
	cr_assert_eq(hv_state_finish(writer, &err), 0, "%s", err.text);
	hv_state_writer_free(writer);
	cr_assert_eq(hv_state_reader_open(fd, &reader, &err), 0, "%s", err.text);
	cr_assert_eq(hv_state_get(reader, hv_state_find(reader, "empty", 3), &payload, &err), 0);
	free(payload);
	hv_state_reader_free(reader);
	close(fd);

	fd = new_file();
	cr_assert_eq(hv_state_writer_new(fd, &writer, &err), 0);
	cr_assert_eq(hv_state_finish(writer, &err), 0, "%s", err.text);
	hv_state_writer_free(writer);
	cr_assert_eq(read_all(fd, &err), 0, "%s", err.text);
	close(fd);
}

struct parallel {
	struct hv_state_writer *writer;
};

static int put_one(void *context, uint64_t index, struct base_error *err)
{
	struct parallel *parallel = context;
	struct hv_state_key key = { .name = "p", .instance = (uint32_t)index, .version = 2 };
	uint8_t bytes[9000];
	struct iovec pieces[3] = { { bytes, 100 }, { bytes, 0 }, { bytes + 100, index * 8 } };

	memset(bytes, (int)(index & 0xff), sizeof(bytes));
	return hv_state_putv(parallel->writer, &key, pieces, 3, err);
}

Test(state_file, many_threads_write)
{
	struct parallel parallel = { NULL };
	struct hv_state_reader *reader = NULL;
	struct base_pool *pool = NULL;
	struct base_error err = { 0 };
	int fd = new_file();

	cr_assert_eq(base_pool_new(4, "test", &pool, &err), 0, "%s", err.text);
	cr_assert_eq(hv_state_writer_new(fd, &parallel.writer, &err), 0);
	cr_assert_eq(base_pool_each(pool, 1000, put_one, &parallel, &err), 0, "%s", err.text);
	cr_assert_eq(hv_state_finish(parallel.writer, &err), 0, "%s", err.text);
	hv_state_writer_free(parallel.writer);
	base_pool_free(pool);

	cr_assert_eq(hv_state_reader_open(fd, &reader, &err), 0, "%s", err.text);
	cr_assert_eq(hv_state_section_count(reader), 1000);
	for (uint32_t i = 0; i < 1000; i++) {
		const struct hv_state_section *section = hv_state_find(reader, "p", i);
		BASE_FREE uint8_t *payload = NULL;

		cr_assert_not_null(section);
		cr_assert_eq(section->payload_bytes, 100 + i * 8);
		cr_assert_eq(hv_state_get(reader, section, &payload, &err), 0, "%s", err.text);
		for (size_t k = 0; k < section->payload_bytes; k++)
			cr_assert_eq(payload[k], (uint8_t)i);
	}
	hv_state_reader_free(reader);
	close(fd);
}

Test(state_file, truncation_at_every_byte_is_refused)
{
	struct base_error err = { 0 };
	int fd = small_file();

	cr_assert_eq(read_all(fd, &err), 0);
	for (off_t size = 7 * (off_t)BLOCK - 1; size >= 0; size--) {
		cr_assert_eq(ftruncate(fd, size), 0);
		cr_assert_eq(read_all(fd, &err), -EBADMSG, "%ld bytes: %s", size, err.text);
	}
	close(fd);
}

Test(state_file, flip_of_every_bit_is_refused)
{
	size_t size = 7 * BLOCK;
	int fd = small_file();
	uint8_t *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	cr_assert_neq(bytes, MAP_FAILED);
	for (size_t i = 0; i < size * 8; i++) {
		struct base_error err = { 0 };

		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
		cr_assert_eq(read_all(fd, &err), -EBADMSG, "bit %zu of byte %zu: %s", i % 8, i / 8,
			     err.text);
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	munmap(bytes, size);
	close(fd);
}

/* The only thing between these bytes and the guest is the payload's checksum. */
Test(state_file, changed_payload_fails_its_checksum)
{
	int fd = small_file();

	cr_assert_eq(pwrite(fd, "J", 1, 2 * (off_t)BLOCK), 1);
	refused(fd, -EBADMSG, "is corrupted");
}

Test(state_file, unfinished_is_refused)
{
	struct hv_state_writer *writer = NULL;
	struct base_error err = { 0 };
	int fd = new_file();

	cr_assert_eq(hv_state_writer_new(fd, &writer, &err), 0);
	put(writer, "one", 0, "hello", 5);
	hv_state_writer_free(writer);
	refused(fd, -EBADMSG, "not finished");
}

Test(state_file, other_files_are_refused)
{
	struct base_error err = { 0 };
	struct hv_state_writer *writer = NULL;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int fd = small_file();

	cr_assert_eq(read_all(null, &err), -EINVAL);
	cr_assert_eq(hv_state_writer_new(null, &writer, &err), -EINVAL);
	cr_assert_eq(hv_state_writer_new(fd, &writer, &err), -EINVAL);
	cr_assert_eq(hv_state_writer_new(-1, &writer, &err), -EBADF);
	cr_assert_eq(read_all(-1, &err), -EBADF);
	close(null);
	patch_header(fd, 0, 0, "GODWITSX", 8);
	refused(fd, -EBADMSG, "no saved state");
}

Test(state_file, file_header_fields)
{
	int fd = small_file();

	patch_header32(fd, 0, 8, 2);
	refused(fd, -ENOTSUP, "format version 2, newest known is 1");
	fd = small_file();
	patch_header32(fd, 0, 8, 0);
	refused(fd, -EBADMSG, "format version 0");
	fd = small_file();
	patch_header32(fd, 0, 12, 1);
	refused(fd, -EBADMSG, "unknown flags");
	fd = small_file();
	patch_header32(fd, 0, 56, 1);
	refused(fd, -EBADMSG, "unknown flags");
}

Test(state_file, section_header_fields)
{
	char name[HV_STATE_NAME_BYTES];
	int fd = small_file();

	patch_header(fd, BLOCK, 0, "SECX", 4);
	refused(fd, -EBADMSG, "offset 4096: no section begins here");
	fd = small_file();
	patch_header(fd, BLOCK, 4, "One", 3);
	refused(fd, -EBADMSG, "malformed section name");
	fd = small_file();
	memset(name, 'a', sizeof(name));
	patch_header(fd, BLOCK, 4, name, sizeof(name));
	refused(fd, -EBADMSG, "malformed section name");
	fd = small_file();
	patch_header(fd, BLOCK, 9, "x", 1);
	refused(fd, -EBADMSG, "malformed section name");
	fd = small_file();
	patch_header(fd, BLOCK, 4, "\0\0\0", 3);
	refused(fd, -EBADMSG, "malformed section name");
	fd = small_file();
	patch_header32(fd, BLOCK, 32, 0);
	refused(fd, -EBADMSG, "section 'one': version 0");
	fd = small_file();
	patch_header32(fd, BLOCK, 36, 2);
	refused(fd, -EBADMSG, "unknown flags 0x2");
	fd = small_file();
	patch_header32(fd, BLOCK, 52, 1);
	refused(fd, -EBADMSG, "unknown flags");
}

Test(state_file, payload_length)
{
	int fd = small_file();

	patch_header32(fd, BLOCK, 40, 9u << 20);
	refused(fd, -EBADMSG, "limit 8388608");
	fd = small_file();
	patch_header32(fd, BLOCK, 44, UINT32_MAX);
	refused(fd, -EBADMSG, "limit 8388608");
	fd = small_file();
	patch_header32(fd, BLOCK, 40, 5 * (uint32_t)BLOCK + 1);
	refused(fd, -EBADMSG, "are left in the file");
	fd = small_file();
	patch_header32(fd, BLOCK, 40, 4);
	refused(fd, -EBADMSG, "padding is not zero");
	fd = small_file();
	patch_header32(fd, BLOCK, 40, 6);
	refused(fd, -EBADMSG, "is corrupted");
	fd = small_file();
	patch_header32(fd, BLOCK, 40, 0); /* the payload is then taken for a header */
	refused(fd, -EBADMSG, "offset 8192: no section begins here");
}

Test(state_file, twice_is_refused)
{
	struct hv_state_writer *writer = NULL;
	struct base_error err = { 0 };
	int fd = new_file();

	cr_assert_eq(hv_state_writer_new(fd, &writer, &err), 0);
	put(writer, "ram", 0, "x", 1);
	put(writer, "twice", 5, "x", 1);
	put(writer, "ram", 0, "x", 1);
	put(writer, "twice", 4, "x", 1);
	put(writer, "twice", 5, "x", 1);
	cr_assert_eq(hv_state_finish(writer, &err), 0);
	hv_state_writer_free(writer);
	refused(fd, -EBADMSG, "section 'twice' 5 comes twice");
}

Test(state_file, too_many_others_are_refused)
{
	struct hv_state_writer *writer = NULL;
	struct base_error err = { 0 };
	int fd = new_file();

	cr_assert_eq(hv_state_writer_new(fd, &writer, &err), 0);
	for (uint32_t i = 0; i <= HV_STATE_OTHERS_MAX; i++)
		put(writer, "much", i, NULL, 0);
	cr_assert_eq(hv_state_finish(writer, &err), 0);
	hv_state_writer_free(writer);
	refused(fd, -EBADMSG, "more than 4096 sections");
}

/* The end section's payload, with its CRC made right. */
static void patch_end(int fd, uint64_t count, uint64_t total)
{
	uint8_t payload[16];

	base_put_le64(payload, count);
	base_put_le64(payload + 8, total);
	cr_assert_eq(base_pwrite_all(fd, payload, 16, 6 * BLOCK), 0);
	patch_header32(fd, 5 * BLOCK, 48, base_crc32c(0, payload, 16));
}

Test(state_file, end_section)
{
	uint8_t zeros[BLOCK] = { 0 };
	int fd = small_file();

	patch_end(fd, 3, 7 * BLOCK);
	refused(fd, -EBADMSG, "says 3 sections, there are 2");
	fd = small_file();
	patch_end(fd, 2, 8 * BLOCK);
	refused(fd, -EBADMSG, "ends at 28672");
	fd = small_file();
	cr_assert_eq(base_pwrite_all(fd, zeros, BLOCK, 7 * BLOCK), 0);
	refused(fd, -EBADMSG, "the file has 32768");
	fd = small_file();
	patch_header32(fd, 5 * BLOCK, 32, 2);
	refused(fd, -ENOTSUP, "newest known is 1");
	fd = small_file();
	patch_header32(fd, 5 * BLOCK, 28, 1);
	refused(fd, -EBADMSG, "end section: malformed");
	fd = small_file();
	patch_header32(fd, 5 * BLOCK, 36, 1);
	refused(fd, -EBADMSG, "end section: malformed");
	fd = small_file();
	patch_header32(fd, 5 * BLOCK, 40, 17);
	refused(fd, -EBADMSG, "end section: malformed");
	fd = small_file();
	patch_header32(fd, 5 * BLOCK, 48, 0);
	refused(fd, -EBADMSG, "section 'end'");
	fd = small_file(); /* a payload that could be anything instead of the end */
	patch_header(fd, 5 * BLOCK, 4, "ond", 3);
	refused(fd, -EBADMSG, "no end section");
}

Test(state_file, known_and_unknown_sections)
{
	struct hv_state_known known[] = { { "one", 1, 1 }, { "two", 1, 8 } };
	struct hv_state_reader *reader = NULL;
	struct base_error err = { 0 };
	int fd = small_file();

	cr_assert_eq(hv_state_reader_open(fd, &reader, &err), 0);
	cr_assert_eq(hv_state_check_known(reader, known, 2, &err), 0, "%s", err.text);
	cr_assert_eq(hv_state_check_known(reader, known, 1, &err), -ENOTSUP);
	cr_assert_not_null(strstr(err.text, "unknown section 'two', version 1"));
	known[1].instance_count = 7;
	cr_assert_eq(hv_state_check_known(reader, known, 2, &err), -EBADMSG);
	cr_assert_not_null(strstr(err.text, "instance 7, expected below 7"));
	hv_state_reader_free(reader);

	known[1].instance_count = 8;
	patch_header32(fd, 3 * BLOCK, 32, 4);
	cr_assert_eq(hv_state_reader_open(fd, &reader, &err), 0);
	cr_assert_eq(hv_state_check_known(reader, known, 2, &err), -ENOTSUP);
	cr_assert_not_null(strstr(err.text, "section 'two' has version 4, newest known is 1"));
	hv_state_reader_free(reader);

	patch_header32(fd, 3 * BLOCK, 36, 1); /* optional: newer or unknown is left out */
	cr_assert_eq(hv_state_reader_open(fd, &reader, &err), 0);
	cr_assert_eq(hv_state_check_known(reader, known, 2, &err), 0, "%s", err.text);
	cr_assert_eq(hv_state_check_known(reader, known, 1, &err), 0, "%s", err.text);
	hv_state_reader_free(reader);
	close(fd);
}

Test(state_file, optional_is_kept)
{
	struct hv_state_key key = { .name = "maybe", .version = 9, .optional = true };
	struct hv_state_writer *writer = NULL;
	struct hv_state_reader *reader = NULL;
	struct base_error err = { 0 };
	int fd = new_file();

	cr_assert_eq(hv_state_writer_new(fd, &writer, &err), 0);
	cr_assert_eq(hv_state_put(writer, &key, "x", 1, &err), 0);
	cr_assert_eq(hv_state_finish(writer, &err), 0);
	hv_state_writer_free(writer);
	cr_assert_eq(hv_state_reader_open(fd, &reader, &err), 0);
	cr_assert(hv_state_section_at(reader, 0)->optional);
	cr_assert_eq(hv_state_check_known(reader, NULL, 0, &err), 0);
	hv_state_reader_free(reader);
	close(fd);
}

Test(state_file, failed_write_cannot_be_finished)
{
	struct hv_state_key key = { .name = "one", .version = 1 };
	struct hv_state_writer *writer = NULL;
	struct base_error err = { 0 };
	int fd = new_file();

	cr_assert_eq(hv_state_writer_new(fd, &writer, &err), 0);
	cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
	cr_assert_eq(hv_state_put(writer, &key, "x", 1, &err), -EPERM);
	cr_assert_not_null(strstr(err.text, "section 'one' 0 at offset 4096"), "%s", err.text);
	cr_assert_eq(hv_state_finish(writer, &err), -EPROTO);
	hv_state_writer_free(writer);
	close(fd);
}

Test(state_file, too_large_payload)
{
	struct hv_state_key key = { .name = "one", .version = 1 };
	struct hv_state_writer *writer = NULL;
	struct base_error err = { 0 };
	BASE_FREE uint8_t *bytes = calloc(1, HV_STATE_PAYLOAD_BYTES_MAX + 1);
	int fd = new_file();

	cr_assert_eq(hv_state_writer_new(fd, &writer, &err), 0);
	cr_assert_eq(hv_state_put(writer, &key, bytes, HV_STATE_PAYLOAD_BYTES_MAX, &err), 0);
	cr_assert_eq(hv_state_put(writer, &key, bytes, HV_STATE_PAYLOAD_BYTES_MAX + 1, &err),
		     -EFBIG);
	cr_assert_eq(hv_state_finish(writer, &err), -EPROTO);
	hv_state_writer_free(writer);
	close(fd);
}

Test(state_file, file_that_shrinks_while_it_is_read)
{
	struct hv_state_reader *reader = NULL;
	struct base_error err = { 0 };
	uint8_t *payload = NULL;
	int fd = small_file();

	cr_assert_eq(hv_state_reader_open(fd, &reader, &err), 0);
	cr_assert_eq(ftruncate(fd, 2 * (off_t)BLOCK), 0);
	cr_assert_eq(hv_state_get(reader, hv_state_find(reader, "one", 0), &payload, &err),
		     -ENODATA);
	hv_state_reader_free(reader);
	close(fd);
}

Test(state_file, direct_io)
{
	char path[] = TEST_BINARY_DIR "/state-direct-XXXXXX";
	struct base_error err = { 0 };
	uint8_t bytes[7 * BLOCK];
	int from = small_file();
	int fd = mkstemp(path);
	int direct = -1;

	cr_assert_geq(fd, 0);
	cr_assert_eq(base_pread_all(from, bytes, sizeof(bytes), 0), 0);
	cr_assert_eq(base_pwrite_all(fd, bytes, sizeof(bytes), 0), 0);
	cr_assert_eq(fsync(fd), 0);
	direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	unlink(path);
	close(fd);
	close(from);
	if (direct < 0)
		cr_skip_test("this file system has no O_DIRECT");
	cr_assert_eq(read_all(direct, &err), 0, "%s", err.text);
	close(direct);
}

Test(state_file, every_allocation_may_fail)
{
	struct base_error err = { 0 };
	int fd = small_file();

	for (unsigned int k = 0;; k++) {
		int code = 0;

		alloc_fail_at(k);
		code = read_all(fd, &err);
		if (!alloc_fail_done()) {
			cr_assert_eq(code, 0);
			break;
		}
		cr_assert_eq(code, -ENOMEM);
	}
	close(fd);
}
