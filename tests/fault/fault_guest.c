/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fault/fault_guest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/thread.h"

#define WRITES_PER_MS  4u
#define FLUSH_EVERY    4u
#define PAGE_BYTES     MIG_PAGE_BYTES
#define WORDS_PER_PAGE (PAGE_BYTES / 8)

/* Not from the heap, which a test starves: of whoever starts it, and of its own thread. */
static _Alignas(4096) uint8_t buffers[2][FAULT_RECORD];

/* --- what is written --- */

/* Word @index of a page or record that is @place and was written at @time. */
static uint64_t pattern(uint64_t place, uint64_t time, uint64_t index)
{
	uint64_t value = (place * 0x9e3779b97f4a7c15ULL) ^ (time * 0xc2b2ae3d27d4eb4fULL) ^
			 (index * 0x165667b19e3779f9ULL);

	return index == 0 ? time : value ^ value >> 31;
}

static void fill(uint8_t *to, uint64_t place, uint64_t time)
{
	for (uint64_t i = 0; i < WORDS_PER_PAGE; i++)
		base_put_le64(to + i * 8, pattern(place, time, i));
}

/* When it was written; false: nobody wrote this. */
static bool read_time(const uint8_t *from, uint64_t place, uint64_t *ret_time)
{
	uint64_t time = base_get_le64(from);

	*ret_time = time;
	if (time == 0)
		return base_is_zero(from, PAGE_BYTES);
	for (uint64_t i = 0; i < WORDS_PER_PAGE; i++)
		if (base_get_le64(from + i * 8) != pattern(place, time, i))
			return false;
	return true;
}

static void bad(_Atomic uint64_t *count, const char *what, uint64_t place, uint64_t time,
		uint64_t least, uint64_t most)
{
	if (atomic_fetch_add(count, 1) < 4)
		(void)dprintf(STDOUT_FILENO,
			      "bad %s %" PRIu64 ": of %" PRIu64 ", expected %" PRIu64 " to %" PRIu64
			      "\n",
			      what, place, time, least, most);
}

/* --- memory --- */

static void write_page(struct fault_guest *guest, uint64_t page)
{
	uint64_t time = atomic_fetch_add(&guest->witness->clock, 1) + 1;

	fill(guest->memory + page * PAGE_BYTES, page, time);
	atomic_store(&guest->witness->pages[page], time);
	atomic_fetch_or(&guest->log[page / 64], 1ULL << page % 64); /* after the last byte */
}

static void check_page(struct fault_guest *guest, uint64_t page)
{
	uint64_t expected = atomic_load(&guest->witness->pages[page]);
	uint64_t time = 0;

	if (!read_time(guest->memory + page * PAGE_BYTES, page, &time) || time != expected)
		bad(&guest->witness->bad_pages, "page", page, time, expected, expected);
}

static uint64_t next_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return *seed >> 33;
}

static void *run_memory(void *context)
{
	struct fault_guest *guest = context;
	uint64_t seed = atomic_load(&guest->witness->clock);

	for (uint64_t page = 0; guest->comes_later && page < FAULT_PAGES; page++)
		if (!atomic_load(&guest->stop))
			check_page(guest, page);
	while (!atomic_load(&guest->stop)) {
		for (uint32_t i = 0; i < WRITES_PER_MS; i++) {
			uint64_t page = next_random(&seed) % FAULT_PAGES;

			check_page(guest, page);
			write_page(guest, page);
			atomic_fetch_add(&guest->writes, 1);
		}
		base_sleep_ns(BASE_NS_PER_MS);
	}
	return NULL;
}

/* --- the disk --- */

static uint64_t place_of(uint64_t slot)
{
	return slot * FAULT_SPACING;
}

/* @crashed: what was not flushed may be lost. */
static void check_record(struct fault_guest *guest, uint64_t slot, bool crashed, uint8_t *buffer)
{
	struct fault_witness *witness = guest->witness;
	uint64_t least = atomic_load(crashed ? &witness->acked[slot] : &witness->done[slot]);
	uint64_t most = atomic_load(&witness->issued[slot]);
	struct base_error why = { 0 };
	uint64_t time = 0;

	int code = -ENOMEM;

	for (int i = 0; i < 3 && code == -ENOMEM; i++) /* by the test's wish, once */
		code = disk_do(guest->disk, DISK_READ, place_of(slot), buffer, FAULT_RECORD, &why);
	if (code < 0) {
		(void)dprintf(STDOUT_FILENO, "record %" PRIu64 ": %s\n", slot, why.text);
		bad(&witness->bad_records, "read", slot, 0, least, most);
		return;
	}
	if (!read_time(buffer, FAULT_PAGES + slot, &time) || time < least || time > most)
		bad(&witness->bad_records, "record", slot, time, least, most);
}

static void write_record(struct fault_guest *guest, uint64_t slot, uint8_t *buffer)
{
	struct fault_witness *witness = guest->witness;
	uint64_t time = atomic_fetch_add(&witness->clock, 1) + 1;

	fill(buffer, FAULT_PAGES + slot, time);
	atomic_store(&witness->issued[slot], time);
	if (disk_do(guest->disk, DISK_WRITE, place_of(slot), buffer, FAULT_RECORD, NULL) == 0)
		atomic_store(&witness->done[slot], time);
	else
		atomic_fetch_add(&guest->disk_errors, 1);
}

/* What had completed before is flushed when it returns. */
static void flush_all(struct fault_guest *guest)
{
	struct fault_witness *witness = guest->witness;
	uint64_t done[FAULT_SLOTS];

	for (uint32_t i = 0; i < FAULT_SLOTS; i++)
		done[i] = atomic_load(&witness->done[i]);
	if (disk_do(guest->disk, DISK_FLUSH, 0, NULL, 0, NULL) < 0) {
		atomic_fetch_add(&guest->disk_errors, 1);
		return;
	}
	for (uint32_t i = 0; i < FAULT_SLOTS; i++)
		atomic_store(&witness->acked[i], done[i]);
}

static void *run_disk(void *context)
{
	struct fault_guest *guest = context;
	uint64_t seed = atomic_load(&guest->witness->clock) + 77;
	uint8_t *buffer = buffers[1];

	for (uint32_t n = 0; !atomic_load(&guest->stop); n++) {
		write_record(guest, next_random(&seed) % FAULT_SLOTS, buffer);
		if (n % FLUSH_EVERY == 0)
			flush_all(guest);
		atomic_fetch_add(&guest->writes, 1);
		base_sleep_ns(2 * BASE_NS_PER_MS);
	}
	return NULL;
}

/* --- life --- */

void fault_guest_init(struct fault_guest *guest, const char *path)
{
	char lock_path[512];
	BASE_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	memset(guest, 0, sizeof(*guest));
	(void)snprintf(lock_path, sizeof(lock_path), "%s.lock", path);
	guest->lock_fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || guest->lock_fd < 0 || ftruncate(fd, sizeof(*guest->witness)) < 0)
		base_bug("witness '%s': error %d", path, errno);
	guest->witness =
		mmap(NULL, sizeof(*guest->witness), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	guest->memory_fd = memfd_create("fault-guest", MFD_CLOEXEC);
	if (guest->memory_fd < 0 ||
	    ftruncate(guest->memory_fd, (off_t)FAULT_PAGES * PAGE_BYTES) < 0)
		base_bug("guest memory: error %d", errno);
	guest->memory = mmap(NULL, (size_t)FAULT_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE,
			     MAP_SHARED, guest->memory_fd, 0);
	if (guest->witness == MAP_FAILED || guest->memory == MAP_FAILED)
		base_bug("witness '%s': error %d", path, errno);
}

bool fault_guest_lock(struct fault_guest *guest)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (guest->locked)
		return true;
	if (fcntl(guest->lock_fd, F_OFD_SETLK, &lock) < 0) {
		atomic_fetch_add(&guest->witness->twice, 1);
		(void)dprintf(STDOUT_FILENO, "bad: it runs elsewhere\n");
		return false;
	}
	guest->locked = true;
	return true;
}

void fault_guest_unlock(struct fault_guest *guest)
{
	struct flock lock = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	if (guest->locked && fcntl(guest->lock_fd, F_OFD_SETLK, &lock) < 0)
		base_bug("witness: error %d", errno);
	guest->locked = false;
}

static void start(struct fault_guest *guest)
{
	base_assert(guest->locked && !guest->runs);
	atomic_fetch_add(&guest->witness->starts, 1);
	atomic_store(&guest->stop, false);
	atomic_store(&guest->verified, true);
	if (base_thread_start(&guest->threads[0], "guest-memory", run_memory, guest, NULL) < 0 ||
	    base_thread_start(&guest->threads[1], "guest-disk", run_disk, guest, NULL) < 0)
		base_bug("guest: no thread");
	guest->runs = true;
}

static void check_records(struct fault_guest *guest, bool crashed)
{
	for (uint64_t slot = 0; slot < FAULT_SLOTS; slot++)
		check_record(guest, slot, crashed, buffers[0]);
}

/* What the crash has lost is the past from now on, or it could come back later unnoticed. */
static void rewrite_records(struct fault_guest *guest)
{
	for (uint64_t slot = 0; slot < FAULT_SLOTS; slot++)
		write_record(guest, slot, buffers[0]);
	flush_all(guest);
}

void fault_guest_boot(struct fault_guest *guest)
{
	check_records(guest, true);
	rewrite_records(guest);
	for (uint64_t page = 0; page < FAULT_PAGES; page++) {
		memset(guest->memory + page * PAGE_BYTES, 0, PAGE_BYTES);
		atomic_store(&guest->witness->pages[page], 0);
		if (page % 5 > 1)
			write_page(guest, page);
	}
	start(guest);
}

void fault_guest_run(struct fault_guest *guest)
{
	for (uint64_t page = 0; page < FAULT_PAGES && !guest->comes_later; page++)
		check_page(guest, page);
	check_records(guest, false);
	start(guest);
}

void fault_guest_hold(struct fault_guest *guest)
{
	if (!guest->runs)
		return;
	atomic_store(&guest->stop, true);
	base_thread_join(guest->threads[0]);
	base_thread_join(guest->threads[1]);
	guest->runs = false;
	atomic_store(&guest->verified, false);
}
