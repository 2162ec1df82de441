/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/pool.h"
#include "hypervisor/memory_priv.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* since Linux 5.14; glibc 2.36 names it */
#endif

#define POPULATE_STEP_BYTES                                                                        \
	(32ULL << 20)  /* enough to amortise the call, small enough to share out */
#define HUGE_PROBES 4u /* pages that tell for all */

struct hv_memory {
	uint64_t size_bytes;
	enum hv_memory_backing wanted;
	enum hv_memory_backing backing; /* what it became */
	int fd;
	uint8_t *base;
};

static const char *const backing_names[HV_MEMORY_BACKINGS] = {
	[HV_MEMORY_INVALID] = "invalid", [HV_MEMORY_AUTO] = "auto",   [HV_MEMORY_HUGE] = "huge",
	[HV_MEMORY_HUGETLB] = "hugetlb", [HV_MEMORY_SMALL] = "small",
};

const char *hv_memory_backing_name(enum hv_memory_backing backing)
{
	base_assert(backing < HV_MEMORY_BACKINGS);
	return backing_names[backing];
}

enum hv_memory_backing hv_memory_backing_parse(const char *name)
{
	for (unsigned int i = HV_MEMORY_AUTO; i < HV_MEMORY_BACKINGS; i++)
		if (strcmp(name, backing_names[i]) == 0)
			return (enum hv_memory_backing)i;
	return HV_MEMORY_INVALID;
}

/* The number behind "@field:" in a file of /proc; 0 if absent. */
static uint64_t number_in(const char *path, const char *field)
{
	BASE_FCLOSE FILE *file = fopen(path, "re");
	size_t length = strlen(field);
	char line[128];

	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
		if (strncmp(line, field, length) == 0 && line[length] == ':')
			return strtoull(line + length + 1, NULL, 10);
	return 0;
}

static uint64_t meminfo(const char *field)
{
	return number_in("/proc/meminfo", field);
}

/* A number of the host's pool of 2 MiB pages, which need not be its default size. */
static uint64_t pool_number(const char *name)
{
	BASE_FCLOSE FILE *file = NULL;
	char path[128];
	char line[32];

	(void)snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-2048kB/%s", name);
	file = fopen(path, "re");
	if (file == NULL || fgets(line, sizeof(line), file) == NULL)
		return 0;
	return strtoull(line, NULL, 10);
}

/* Pages that can be had: free and not promised, and what may be added on demand. */
static uint64_t pool_pages(void)
{
	uint64_t free_pages = pool_number("free_hugepages");
	uint64_t promised = pool_number("resv_hugepages");
	uint64_t more = pool_number("nr_overcommit_hugepages");
	uint64_t added = pool_number("surplus_hugepages");

	return (free_pages > promised ? free_pages - promised : 0) +
	       (more > added ? more - added : 0);
}

int hv_memory_check_size(uint64_t size_bytes, struct base_error *err)
{
	uint64_t total_bytes = meminfo("MemTotal") * 1024;

	if (size_bytes < HV_MEMORY_BYTES_MIN || size_bytes > HV_MEMORY_BYTES_MAX)
		return base_fail(err, -EINVAL,
				 "memory of %" PRIu64 " bytes: expected %llu MiB to %llu TiB",
				 size_bytes, HV_MEMORY_BYTES_MIN >> 20, HV_MEMORY_BYTES_MAX >> 40);
	if (size_bytes % HV_HUGE_PAGE_BYTES != 0)
		return base_fail(err, -EINVAL,
				 "memory of %" PRIu64 " bytes: expected a multiple of 2 MiB",
				 size_bytes);
	if (total_bytes != 0 && size_bytes > total_bytes)
		return base_fail(err, -ENOMEM,
				 "memory of %" PRIu64 " MiB: this host has %" PRIu64 " MiB in all",
				 size_bytes >> 20, total_bytes >> 20);
	return 0;
}

/*
 * A tmpfs of its own that is mounted nowhere: fsmount() gives a detached mount
 * which lives as long as a file of it is open, so a killed worker leaves nothing.
 */
static int open_huge_tmpfs(uint64_t size_bytes, struct base_error *err)
{
	BASE_CLOSE int context = -1;
	BASE_CLOSE int mount_fd = -1;
	char size[32];
	int fd;

	context = fsopen("tmpfs", FSOPEN_CLOEXEC);
	if (context < 0)
		return base_fail_errno(err, -errno, "guest memory: fsopen tmpfs");
	(void)snprintf(size, sizeof(size), "%" PRIu64, size_bytes);
	if (fsconfig(context, FSCONFIG_SET_STRING, "size", size, 0) < 0 ||
	    fsconfig(context, FSCONFIG_SET_STRING, "huge", "always", 0) < 0 ||
	    fsconfig(context, FSCONFIG_SET_STRING, "mode", "0700", 0) < 0 ||
	    fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return base_fail_errno(err, -errno, "guest memory: tmpfs with huge=always");
	mount_fd = fsmount(context, FSMOUNT_CLOEXEC,
			   MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	if (mount_fd < 0)
		return base_fail_errno(err, -errno, "guest memory: fsmount tmpfs");
	fd = openat(mount_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		return base_fail_errno(err, -errno, "guest memory: file in tmpfs");
	return fd;
}

static int open_hugetlb(uint64_t size_bytes, struct base_error *err)
{
	uint64_t need = size_bytes / HV_HUGE_PAGE_BYTES;
	uint64_t have = pool_pages();
	int fd;

	if (have < need)
		return base_fail(err, -ENOMEM,
				 "guest memory: hugetlb needs %" PRIu64
				 " pages of 2 MiB, the host has %" PRIu64 " free (vm.nr_hugepages)",
				 need, have);
	fd = memfd_create("godwit-ram", MFD_CLOEXEC | MFD_HUGETLB | (21U << MAP_HUGE_SHIFT));
	if (fd < 0)
		return base_fail_errno(err, -errno, "guest memory: hugetlb file");
	return fd;
}

static int open_backing(struct hv_memory *memory, enum hv_memory_backing backing,
			struct base_error *err)
{
	memory->backing = backing;
	switch (backing) {
	case HV_MEMORY_HUGE:
		return open_huge_tmpfs(memory->size_bytes, err);
	case HV_MEMORY_HUGETLB:
		return open_hugetlb(memory->size_bytes, err);
	case HV_MEMORY_AUTO: {
		int fd = open_huge_tmpfs(memory->size_bytes, NULL);

		memory->backing = HV_MEMORY_HUGE;
		if (fd >= 0)
			return fd;
		memory->backing = HV_MEMORY_SMALL;
	}
		/* fall through */
	case HV_MEMORY_SMALL: {
		int fd = memfd_create("godwit-ram", MFD_CLOEXEC);

		if (fd < 0)
			return base_fail_errno(err, -errno, "guest memory: memfd");
		return fd;
	}
	case HV_MEMORY_INVALID:
	case HV_MEMORY_BACKINGS:
		break;
	}
	return base_fail(err, -EINVAL, "guest memory: backing %d unknown", (int)backing);
}

/* Map at an address aligned to a huge page, so that KVM can map huge pages too. */
static int map_aligned(struct hv_memory *memory, struct base_error *err)
{
	size_t span = memory->size_bytes + HV_HUGE_PAGE_BYTES;
	uint8_t *reserved =
		mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *aligned;
	size_t head;

	if (reserved == MAP_FAILED)
		return base_fail_errno(err, -errno, "guest memory: address space of %zu bytes",
				       span);
	head = (size_t)(-(uintptr_t)reserved & (HV_HUGE_PAGE_BYTES - 1));
	aligned = reserved + head;
	if (mmap(aligned, memory->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		 memory->fd, 0) == MAP_FAILED) {
		int code = -errno;

		(void)munmap(reserved, span);
		return base_fail_errno(err, code, "guest memory: map %" PRIu64 " bytes",
				       memory->size_bytes);
	}
	if (head > 0)
		(void)munmap(reserved, head);
	if (head < HV_HUGE_PAGE_BYTES)
		(void)munmap(aligned + memory->size_bytes, HV_HUGE_PAGE_BYTES - head);
	memory->base = aligned;
	/* A core dump is no place for a guest's memory. */
	(void)madvise(aligned, memory->size_bytes, MADV_DONTDUMP);
	return 0;
}

BASE_DEFINE_FREEP(struct hv_memory, hv_memory_free);

int hv_memory_new(uint64_t size_bytes, enum hv_memory_backing backing,
		  struct hv_memory **ret_memory, struct base_error *err)
{
	BASE_CLEANUP(hv_memory_freep) struct hv_memory *memory = NULL;
	uint64_t available_bytes = meminfo("MemAvailable") * 1024;
	int r = hv_memory_check_size(size_bytes, err);

	if (r < 0)
		return r;
	if (backing != HV_MEMORY_HUGETLB && available_bytes != 0 && size_bytes > available_bytes)
		return base_fail(err, -ENOMEM,
				 "memory of %" PRIu64 " MiB: this host has %" PRIu64
				 " MiB available",
				 size_bytes >> 20, available_bytes >> 20);
	memory = calloc(1, sizeof(*memory));
	if (memory == NULL)
		return base_fail(err, -ENOMEM, "guest memory");
	memory->size_bytes = size_bytes;
	memory->wanted = backing;
	memory->fd = open_backing(memory, backing, err);
	if (memory->fd < 0)
		return memory->fd;
	if (ftruncate(memory->fd, (off_t)size_bytes) < 0)
		return base_fail_errno(err, -errno, "guest memory: size %" PRIu64, size_bytes);
	r = map_aligned(memory, err);
	if (r < 0)
		return r;
	*ret_memory = base_take(&memory);
	return 0;
}

void hv_memory_free(struct hv_memory *memory)
{
	if (memory == NULL)
		return;
	if (memory->base != NULL)
		(void)munmap(memory->base, memory->size_bytes);
	base_closep(&memory->fd);
	free(memory);
}

int hv_memory_touch(struct hv_memory *memory, uint64_t offset_bytes, uint64_t size_bytes,
		    struct base_error *err)
{
	base_assert(offset_bytes <= memory->size_bytes &&
		    size_bytes <= memory->size_bytes - offset_bytes);
	while (madvise(memory->base + offset_bytes, size_bytes, MADV_POPULATE_WRITE) < 0)
		if (errno != EINTR)
			return base_fail_errno(err, errno == EFAULT ? -ENOMEM : -errno,
					       "guest memory: populate %" PRIu64 " MiB",
					       memory->size_bytes >> 20);
	return 0;
}

static int populate_step(void *context, uint64_t index, struct base_error *err)
{
	struct hv_memory *memory = context;
	uint64_t start = index * POPULATE_STEP_BYTES;
	uint64_t left = memory->size_bytes - start;

	return hv_memory_touch(memory, start,
			       left < POPULATE_STEP_BYTES ? left : POPULATE_STEP_BYTES, err);
}

/* Bytes of the mapping that are mapped by huge pages: a tmpfs may give small ones silently. */
static uint64_t huge_bytes(const struct hv_memory *memory)
{
	BASE_FCLOSE FILE *file = fopen("/proc/self/smaps", "re");
	char start[32];
	char line[256];
	bool is_ours = false;

	(void)snprintf(start, sizeof(start), "%" PRIxPTR "-", (uintptr_t)memory->base);
	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		if (strncmp(line, start, strlen(start)) == 0)
			is_ours = true;
		if (is_ours && strncmp(line, "ShmemPmdMapped:", 15) == 0)
			return strtoull(line + 15, NULL, 10) * 1024;
	}
	return 0;
}

/* What it became: mostly huge, or not.  @touched_bytes: of it all that can be told from. */
static int check_huge(struct hv_memory *memory, uint64_t touched_bytes, struct base_error *err)
{
	uint64_t have = huge_bytes(memory);

	if (memory->backing != HV_MEMORY_HUGE || have >= touched_bytes / 10 * 9)
		return 0;
	if (memory->wanted == HV_MEMORY_HUGE)
		return base_fail(
			err, -ENOMEM, "guest memory: needs %llu huge pages, the host gave %llu",
			memory->size_bytes / HV_HUGE_PAGE_BYTES, have / HV_HUGE_PAGE_BYTES);
	memory->backing = HV_MEMORY_SMALL;
	return 0;
}

int hv_memory_populate(struct hv_memory *memory, struct base_error *err)
{
	uint64_t steps = (memory->size_bytes + POPULATE_STEP_BYTES - 1) / POPULATE_STEP_BYTES;
	uint32_t threads = base_cpu_count();
	struct base_pool *pool = NULL;
	int r;

	if (threads > BASE_POOL_THREADS_MAX)
		threads = BASE_POOL_THREADS_MAX;
	r = base_pool_new(threads, "populate", &pool, err);
	if (r < 0)
		return r;
	r = base_pool_each(pool, steps, populate_step, memory, err);
	base_pool_free(pool);
	return r < 0 ? r : check_huge(memory, memory->size_bytes, err);
}

/* Spread evenly. */
static int touch_probes(struct hv_memory *memory, struct base_error *err)
{
	uint64_t pages = memory->size_bytes / HV_HUGE_PAGE_BYTES;
	uint64_t probes = pages < HUGE_PROBES ? pages : HUGE_PROBES;

	for (uint64_t i = 0; i < probes; i++) {
		int r = hv_memory_touch(memory, pages * i / probes * HV_HUGE_PAGE_BYTES,
					HV_HUGE_PAGE_BYTES, err);

		if (r < 0)
			return r;
	}
	return check_huge(memory, probes * HV_HUGE_PAGE_BYTES, err);
}

int hv_memory_reserve(struct hv_memory *memory, struct base_error *err)
{
	if (memory->wanted == HV_MEMORY_HUGE || memory->wanted == HV_MEMORY_HUGETLB)
		return hv_memory_populate(memory, err);
	while (fallocate(memory->fd, 0, 0, (off_t)memory->size_bytes) < 0)
		if (errno != EINTR)
			return base_fail_errno(err, errno == ENOSPC ? -ENOMEM : -errno,
					       "guest memory: reserve %" PRIu64 " MiB",
					       memory->size_bytes >> 20);
	return memory->backing == HV_MEMORY_HUGE ? touch_probes(memory, err) : 0;
}

uint64_t hv_memory_size(const struct hv_memory *memory)
{
	return memory->size_bytes;
}

uint64_t hv_memory_page_count(const struct hv_memory *memory)
{
	return memory->size_bytes >> HV_PAGE_SHIFT;
}

enum hv_memory_backing hv_memory_backing(const struct hv_memory *memory)
{
	return memory->backing;
}

int hv_memory_fd(const struct hv_memory *memory)
{
	return memory->fd;
}

uint8_t *hv_memory_base(const struct hv_memory *memory)
{
	return memory->base;
}

uint32_t hv_memory_layout(uint64_t size_bytes, struct hv_ram_range ret_ranges[2])
{
	if (size_bytes <= HV_GPA_HOLE_START) {
		ret_ranges[0] = (struct hv_ram_range){ .size_bytes = size_bytes };
		return 1;
	}
	ret_ranges[0] = (struct hv_ram_range){ .size_bytes = HV_GPA_HOLE_START };
	ret_ranges[1] = (struct hv_ram_range){ .gpa = HV_GPA_HOLE_END,
					       .size_bytes = size_bytes - HV_GPA_HOLE_START,
					       .ram_offset = HV_GPA_HOLE_START };
	return 2;
}

uint32_t hv_memory_ranges(const struct hv_memory *memory, struct hv_ram_range ret_ranges[2])
{
	return hv_memory_layout(memory->size_bytes, ret_ranges);
}

int hv_memory_translate(const struct hv_memory *memory, uint64_t gpa, uint64_t size_bytes,
			uint64_t *ret_ram_offset)
{
	struct hv_ram_range ranges[2];
	uint32_t count = hv_memory_ranges(memory, ranges);

	for (uint32_t i = 0; i < count; i++) {
		if (gpa < ranges[i].gpa || gpa - ranges[i].gpa > ranges[i].size_bytes)
			continue;
		if (size_bytes > ranges[i].size_bytes - (gpa - ranges[i].gpa))
			continue;
		*ret_ram_offset = ranges[i].ram_offset + (gpa - ranges[i].gpa);
		return 0;
	}
	return -EFAULT;
}
