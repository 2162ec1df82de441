/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_faults.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "migrate/mig_wire.h"

#define RANGES_MAX   512u /* more: all of memory is registered as one */
#define EVENTS_MAX   64u
#define BLOCK_WORDS  (MIG_FAULTS_BLOCK_PAGES / 64u)
#define DEVICE       "/dev/userfaultfd"
#define WANTED_FACTS (UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_MISSING_SHMEM)

struct range {
	uint64_t first; /* pages */
	uint64_t count;
};

struct mig_faults {
	struct mig_faults_place place;
	uint8_t *other; /* the mapping that bytes are put through */
	uint32_t range_count;
	uint32_t registered; /* so many of them */
	struct range ranges[RANGES_MAX];
};

/* The device where the call needs a capability: its permissions say who may. */
static int open_either(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	BASE_CLOSE int device = -1;

	if (fd >= 0 || errno != EPERM)
		return fd;
	device = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (device < 0) {
		errno = EPERM;
		return -1;
	}
#ifdef USERFAULTFD_IOC_NEW
	return ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
#else
	return -1;
#endif
}

int mig_faults_open(int *ret_fd, struct base_error *err)
{
	struct uffdio_api api = { .api = UFFD_API, .features = WANTED_FACTS };
	BASE_CLOSE int fd = open_either();

	if (fd < 0)
		return base_fail_errno(err, errno == ENOSYS ? -ENOTSUP : -errno, "userfaultfd");
	if (ioctl(fd, UFFDIO_API, &api) < 0)
		return base_fail(err, -ENOTSUP,
				 "userfaultfd: this kernel cannot take minor faults of shared "
				 "memory (Linux 5.14)");
	*ret_fd = base_take_fd(&fd);
	return 0;
}

static uint8_t *page_at(const struct mig_faults *faults, uint64_t page)
{
	return faults->place.memory + page * MIG_PAGE_BYTES;
}

/* --- what is registered --- */

static bool is_owed(const _Atomic uint64_t *owed, uint64_t block, uint64_t words)
{
	for (uint64_t i = block * BLOCK_WORDS; i < (block + 1) * BLOCK_WORDS && i < words; i++)
		if (atomic_load_explicit(&owed[i], memory_order_relaxed) != 0)
			return true;
	return false;
}

/* Runs of blocks that have an owed page; false: too many. */
static bool collect(struct mig_faults *faults, const _Atomic uint64_t *owed)
{
	uint64_t pages = faults->place.page_count;
	uint64_t words = pages / 64 + (pages % 64 != 0 ? 1 : 0);
	bool inside = false;

	for (uint64_t page = 0; page < pages; page += MIG_FAULTS_BLOCK_PAGES) {
		uint64_t left = pages - page;
		uint64_t count = left < MIG_FAULTS_BLOCK_PAGES ? left : MIG_FAULTS_BLOCK_PAGES;
		bool has = is_owed(owed, page / MIG_FAULTS_BLOCK_PAGES, words);

		if (has && inside) {
			faults->ranges[faults->range_count - 1].count += count;
		} else if (has) {
			if (faults->range_count == RANGES_MAX)
				return false;
			faults->ranges[faults->range_count++] = (struct range){ page, count };
		}
		inside = has;
	}
	return true;
}

/* Registered first: what is dropped before may be mapped again by who touches it. */
static int take_away(struct mig_faults *faults, const struct range *range, struct base_error *err)
{
	struct uffdio_register call = {
		.range = { .start = (uint64_t)(uintptr_t)page_at(faults, range->first),
			   .len = range->count * MIG_PAGE_BYTES },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
	};

	if (ioctl(faults->place.fault_fd, UFFDIO_REGISTER, &call) < 0)
		return base_fail_errno(err, -errno, "userfaultfd: %" PRIu64 " pages from %" PRIu64,
				       range->count, range->first);
	faults->registered++;
	if (madvise(page_at(faults, range->first), range->count * MIG_PAGE_BYTES, MADV_DONTNEED) <
	    0)
		return base_fail_errno(err, -errno, "guest memory: drop %" PRIu64 " pages",
				       range->count);
	return 0;
}

int mig_faults_new(const struct mig_faults_place *place, const _Atomic uint64_t *owed,
		   struct mig_faults **ret_faults, struct base_error *err)
{
	struct mig_faults *faults = calloc(1, sizeof(*faults));
	int r = 0;

	if (faults == NULL)
		return base_fail(err, -ENOMEM, "memory that comes later");
	faults->place = *place;
	faults->other = mmap(NULL, place->page_count * MIG_PAGE_BYTES, PROT_READ | PROT_WRITE,
			     MAP_SHARED, place->memory_fd, 0);
	if (faults->other == MAP_FAILED) {
		r = -errno;
		free(faults);
		return base_fail_errno(err, r, "guest memory: map %" PRIu64 " pages again",
				       place->page_count);
	}
	(void)madvise(faults->other, place->page_count * MIG_PAGE_BYTES, MADV_DONTDUMP);
	if (!collect(faults, owed)) {
		faults->ranges[0] = (struct range){ 0, place->page_count };
		faults->range_count = 1;
	}
	for (uint32_t i = 0; r == 0 && i < faults->range_count; i++)
		r = take_away(faults, &faults->ranges[i], err);
	if (r < 0) {
		mig_faults_free(faults);
		return r;
	}
	*ret_faults = faults;
	return 0;
}

void mig_faults_end(struct mig_faults *faults)
{
	while (faults->registered > 0) {
		const struct range *range = &faults->ranges[--faults->registered];
		struct uffdio_range call = {
			.start = (uint64_t)(uintptr_t)page_at(faults, range->first),
			.len = range->count * MIG_PAGE_BYTES,
		};

		if (ioctl(faults->place.fault_fd, UFFDIO_UNREGISTER, &call) < 0)
			base_bug("userfaultfd: error %d at the end", errno);
		/* Mapped page by page until here: from now on as large as can be. */
		(void)madvise(page_at(faults, range->first), range->count * MIG_PAGE_BYTES,
			      MADV_DONTNEED);
	}
}

void mig_faults_free(struct mig_faults *faults)
{
	if (faults == NULL)
		return;
	mig_faults_end(faults);
	(void)munmap(faults->other, faults->place.page_count * MIG_PAGE_BYTES);
	free(faults);
}

/* --- faults, and what is done about them --- */

int mig_faults_read(struct mig_faults *faults, uint64_t *ret_pages, uint32_t most,
		    struct base_error *err)
{
	struct uffd_msg events[EVENTS_MAX];
	uint64_t base = (uint64_t)(uintptr_t)faults->place.memory;
	int count = 0;
	ssize_t got = 0;

	most = most < EVENTS_MAX ? most : EVENTS_MAX;
	got = read(faults->place.fault_fd, events, most * sizeof(events[0]));
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (got < 0)
		return base_fail_errno(err, -errno, "userfaultfd: read");
	for (size_t i = 0; i < (size_t)got / sizeof(events[0]); i++) {
		uint64_t page = (events[i].arg.pagefault.address - base) / MIG_PAGE_BYTES;

		if (events[i].event == UFFD_EVENT_PAGEFAULT && page < faults->place.page_count)
			ret_pages[count++] = page;
	}
	return count;
}

static void wake(struct mig_faults *faults, uint64_t page)
{
	struct uffdio_range call = { .start = (uint64_t)(uintptr_t)page_at(faults, page),
				     .len = MIG_PAGE_BYTES };

	(void)ioctl(faults->place.fault_fd, UFFDIO_WAKE, &call);
}

/* A hole of the file is made a page of zeros. */
static void touch(const struct mig_faults *faults, uint64_t page)
{
	const volatile uint8_t *byte = faults->other + page * MIG_PAGE_BYTES;

	(void)*byte;
}

int mig_faults_show(struct mig_faults *faults, uint64_t first, uint64_t count,
		    struct base_error *err)
{
	uint32_t holes = 0;

	base_assert(first <= faults->place.page_count && count <= faults->place.page_count - first);
	while (count > 0) {
		struct uffdio_continue call = {
			.range = { .start = (uint64_t)(uintptr_t)page_at(faults, first),
				   .len = count * MIG_PAGE_BYTES },
		};
		int code = ioctl(faults->place.fault_fd, UFFDIO_CONTINUE, &call) < 0 ? -errno : 0;
		uint64_t done = 0;

		if (code == 0)
			return 0;
		if (code == -EEXIST) { /* shown already, and somebody may have come too late */
			wake(faults, first);
			done = 1;
		} else if (code == -EFAULT && holes++ < 2) {
			touch(faults, first);
		} else if (code == -EAGAIN) {
			done = call.mapped > 0 ? (uint64_t)call.mapped / MIG_PAGE_BYTES : 0;
		} else {
			return base_fail_errno(err, code,
					       "userfaultfd: show %" PRIu64 " pages from %" PRIu64,
					       count, first);
		}
		holes = done > 0 ? 0 : holes;
		first += done;
		count -= done;
	}
	return 0;
}

int mig_faults_fill(struct mig_faults *faults, uint64_t first, uint64_t count, const uint8_t *bytes,
		    struct base_error *err)
{
	uint8_t *to = faults->other + first * MIG_PAGE_BYTES;

	base_assert(first <= faults->place.page_count && count <= faults->place.page_count - first);
	if (bytes != NULL)
		memcpy(to, bytes, count * MIG_PAGE_BYTES);
	else
		memset(to, 0, count * MIG_PAGE_BYTES);
	return mig_faults_show(faults, first, count, err);
}
