/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/disk_lab.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAB_EPOCH        7
#define LAB_ALIGN        4096U
#define LAB_SETTLE_TURNS 64 /* turns without work before nothing is expected any more */

static void told_stalled(void *context, int code, const char *why)
{
	struct disk_lab *lab = context;

	lab->stalled++;
	lab->stall_code = code;
	(void)snprintf(lab->why, sizeof(lab->why), "%s", why);
}

static void told_unstalled(void *context)
{
	((struct disk_lab *)context)->unstalled++;
}

static void told_resized(void *context, uint64_t size_bytes)
{
	struct disk_lab *lab = context;

	lab->resized++;
	lab->size_bytes = size_bytes;
}

static void told_failed(void *context, const char *why)
{
	struct disk_lab *lab = context;

	lab->failed++;
	(void)snprintf(lab->why, sizeof(lab->why), "%s", why);
}

void disk_lab_init(struct disk_lab *lab)
{
	struct base_io_loop_options options = { .without_ring = true };

	memset(lab, 0, sizeof(*lab));
	lab->time.boot_ns = BASE_NS_PER_SECOND;
	lab->clock = base_clock_fake(&lab->time);
	options.clock = &lab->clock;
	base_assert(base_io_loop_new(&options, &lab->loop, NULL) == 0);
	base_assert(fake_store_new(&lab->store, NULL) == 0);
	lab->events = (struct disk_events){ .stalled = told_stalled,
					    .unstalled = told_unstalled,
					    .resized = told_resized,
					    .failed = told_failed };
}

void disk_lab_fini(struct disk_lab *lab)
{
	store_free(lab->store);
	base_io_loop_free(lab->loop);
}

void disk_lab_make(struct disk_lab *lab, const char *name, enum disk_format format,
		   enum disk_kind kind, uint64_t size_bytes, const char *parent)
{
	const struct disk_create_options options = {
		.format = format, .kind = kind, .size_bytes = size_bytes, .parent = parent
	};
	struct base_error err = { .code = 0 };

	if (disk_create(lab->store, name, lab->loop, &options, &err) != 0)
		base_bug("%s", err.text);
}

struct disk *disk_lab_open_standby(struct disk_lab *lab, const char *name)
{
	struct disk_options options = lab->options;
	struct base_error err = { .code = 0 };
	struct disk *disk = NULL;

	options.store = lab->store;
	options.name = name;
	options.loop = lab->loop;
	options.events = &lab->events;
	options.events_context = lab;
	if (disk_open_standby(&options, &disk, &err) != 0)
		base_bug("%s", err.text);
	return disk;
}

struct disk *disk_lab_open(struct disk_lab *lab, const char *name)
{
	struct disk *disk = disk_lab_open_standby(lab, name);
	struct base_error err = { .code = 0 };

	if (disk_activate(disk, LAB_EPOCH, NULL, &err) != 0)
		base_bug("%s", err.text);
	return disk;
}

/* --- patterns: one 64-bit word per eight bytes --- */

static uint64_t word_at(uint64_t offset_bytes, uint32_t version)
{
	return version == 0 ? 0 : offset_bytes * 0x9e3779b97f4a7c15ULL + version;
}

void lab_fill(void *to, uint64_t offset_bytes, uint64_t length_bytes, uint32_t version)
{
	for (uint64_t at = 0; at < length_bytes; at += sizeof(uint64_t)) {
		uint64_t word = word_at(offset_bytes + at, version);

		memcpy((uint8_t *)to + at, &word, sizeof(word));
	}
}

uint64_t lab_differs(const void *data, uint64_t offset_bytes, uint64_t length_bytes,
		     uint32_t version)
{
	for (uint64_t at = 0; at < length_bytes; at += sizeof(uint64_t)) {
		uint64_t word = word_at(offset_bytes + at, version);

		if (memcmp((const uint8_t *)data + at, &word, sizeof(word)) != 0)
			return offset_bytes + at;
	}
	return UINT64_MAX;
}

static void *buffer_new(uint64_t length_bytes)
{
	void *buffer = NULL;

	base_assert(posix_memalign(&buffer, LAB_ALIGN, (size_t)length_bytes) == 0);
	return buffer;
}

int lab_write(struct disk *disk, uint64_t offset_bytes, uint64_t length_bytes, uint32_t version)
{
	void *buffer = buffer_new(length_bytes);
	int rc = 0;

	lab_fill(buffer, offset_bytes, length_bytes, version);
	rc = disk_do(disk, DISK_WRITE, offset_bytes, buffer, length_bytes, NULL);
	free(buffer);
	return rc;
}

int lab_verify(struct disk *disk, uint64_t offset_bytes, uint64_t length_bytes, uint32_t version)
{
	void *buffer = buffer_new(length_bytes);
	uint64_t at = 0;
	int rc = 0;

	memset(buffer, 0xee, (size_t)length_bytes);
	rc = disk_do(disk, DISK_READ, offset_bytes, buffer, length_bytes, NULL);
	at = lab_differs(buffer, offset_bytes, length_bytes, version);
	free(buffer);
	if (rc == 0 && at != UINT64_MAX) {
		(void)fprintf(stderr, "version %u: other bytes at %llu\n", version,
			      (unsigned long long)at);
		return -EILSEQ;
	}
	return rc;
}

/* --- asynchronous requests --- */

static uint32_t order;

static void lab_done(struct disk_request *request, int result)
{
	struct lab_request *lab = request->context;

	base_assert(!lab->done);
	lab->done = true;
	lab->result = result;
	lab->order = ++order;
}

void lab_submit(struct disk *disk, struct lab_request *lab, enum disk_op op, uint32_t flags,
		uint64_t offset_bytes, uint64_t length_bytes, uint32_t version)
{
	bool data = op == DISK_READ || op == DISK_WRITE;

	memset(lab, 0, sizeof(*lab));
	if (data && length_bytes > 0) {
		lab->buffer = buffer_new(length_bytes);
		lab_fill(lab->buffer, offset_bytes, length_bytes, version);
	}
	lab->iov = (struct iovec){ lab->buffer, (size_t)length_bytes };
	lab->request = (struct disk_request){ .op = op,
					      .flags = flags,
					      .offset_bytes = offset_bytes,
					      .length_bytes = length_bytes,
					      .iov = &lab->iov,
					      .iov_count = data ? 1 : 0,
					      .done = lab_done,
					      .context = lab };
	disk_submit(disk, &lab->request);
	base_assert(!lab->done); /* never within the call */
}

void lab_request_fini(struct lab_request *lab)
{
	free(lab->buffer);
	lab->buffer = NULL;
}

void disk_lab_settle(struct disk_lab *lab)
{
	for (uint32_t idle = 0; idle < LAB_SETTLE_TURNS;)
		idle = base_io_loop_step(lab->loop, false) ? 0 : idle + 1;
}

void disk_lab_pass_ms(struct disk_lab *lab, uint64_t ms)
{
	lab->time.boot_ns += ms * BASE_NS_PER_MS;
	disk_lab_settle(lab);
}
