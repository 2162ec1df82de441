/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory: one file per VM, mapped once, that another process of this host
 * can take over without copying.
 *
 * RAM is numbered without the hole: *RAM offset* 0..size-1 and *RAM page* =
 * offset / 4096 index the file, the mapping and every dirty bitmap.  Guest-physical
 * addresses below HV_GPA_HOLE_START equal the RAM offset; RAM beyond that lies at
 * HV_GPA_HOLE_END upwards.
 *
 * Backing: a private tmpfs, mounted nowhere, with huge=always (so a killed worker
 * leaves nothing behind); hugetlb when asked; 4 KiB pages as the fallback.  The
 * object is immutable after creation; any thread.
 *
 * This header gives layout and life cycle only.  Bytes are read and written
 * through hypervisor/slat.h, which marks what is written.
 */
#ifndef HYPERVISOR_MEMORY_H
#define HYPERVISOR_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "hypervisor/hv_limits.h"

enum hv_memory_backing {
	HV_MEMORY_INVALID,
	HV_MEMORY_AUTO,    /* tmpfs with huge pages, else small */
	HV_MEMORY_HUGE,    /* tmpfs with huge=always, or fail */
	HV_MEMORY_HUGETLB, /* 2 MiB pages from the host's pool, or fail with have and need */
	HV_MEMORY_SMALL,   /* 4 KiB pages */
	HV_MEMORY_BACKINGS
};

struct hv_memory;

/**
 * hv_memory_check_size - is this a size a VM can have?
 * -EINVAL naming value and limits: HV_MEMORY_BYTES_MIN..HV_MEMORY_BYTES_MAX, a
 * multiple of 2 MiB.  -ENOMEM naming need and have when the host has less in all.
 */
BASE_MUST_CHECK int hv_memory_check_size(uint64_t size_bytes, struct base_error *err);

/**
 * hv_memory_new - create and map guest memory, all zero, not populated.
 * -EINVAL as above; -ENOMEM: the host has less available than asked, or the hugetlb
 * pool is too small (text names have and need in pages); other errno from the
 * kernel with context.  Gives the memory.
 */
BASE_MUST_CHECK int hv_memory_new(uint64_t size_bytes, enum hv_memory_backing backing,
				  struct hv_memory **ret_memory, struct base_error *err);
void hv_memory_free(struct hv_memory *memory); /* NULL is fine */

/**
 * hv_memory_reserve - take all pages from the host now (or -ENOMEM), and leave them untouched.
 * Quick, as nothing is cleared: that is done at the first touch, a huge page at a time.  Until then
 * a page is a hole to whoever asks what has been touched (hv_slat_touched()).  Memory that has to
 * be huge or comes from a pool is populated.  With HV_MEMORY_AUTO it tells from a few probes, which
 * are touched, whether the host gave huge pages.
 */
BASE_MUST_CHECK int hv_memory_reserve(struct hv_memory *memory, struct base_error *err);

/**
 * hv_memory_populate - make the host provide all pages now (or -ENOMEM), on as many
 * threads as there are processors.
 */
BASE_MUST_CHECK int hv_memory_populate(struct hv_memory *memory, struct base_error *err);

/* The same for a part, in whole huge pages, on the caller's thread, beside whoever uses it. */
BASE_MUST_CHECK int hv_memory_touch(struct hv_memory *memory, uint64_t offset_bytes,
				    uint64_t size_bytes, struct base_error *err);

uint64_t hv_memory_size(const struct hv_memory *memory);                  /* bytes */
uint64_t hv_memory_page_count(const struct hv_memory *memory);            /* 4 KiB pages */
enum hv_memory_backing hv_memory_backing(const struct hv_memory *memory); /* what it became */
const char *hv_memory_backing_name(enum hv_memory_backing backing);
enum hv_memory_backing hv_memory_backing_parse(const char *name); /* HV_MEMORY_INVALID if none */
int hv_memory_fd(const struct hv_memory *memory);                 /* borrowed */

/* A run of guest-physical addresses that is RAM. */
struct hv_ram_range {
	uint64_t gpa;
	uint64_t size_bytes;
	uint64_t ram_offset;
};
/* Pure: where RAM of @size_bytes lies.  One or two ranges, ascending; the count. */
uint32_t hv_memory_layout(uint64_t size_bytes, struct hv_ram_range ret_ranges[2]);
uint32_t hv_memory_ranges(const struct hv_memory *memory, struct hv_ram_range ret_ranges[2]);

/* RAM offset of [gpa, gpa + size): -EFAULT when any byte of it is not RAM. */
BASE_MUST_CHECK int hv_memory_translate(const struct hv_memory *memory, uint64_t gpa,
					uint64_t size_bytes, uint64_t *ret_ram_offset);

#endif
