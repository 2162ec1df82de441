/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Second-level address translation: guest memory in KVM's slots, the accessors to
 * its bytes, and dirty tracking.
 *
 * Dirty tracking has one contract: start, harvest, stop.
 *
 *   - start: from now on every page that is written is remembered.  The first
 *     harvest after it names every page of RAM.
 *   - harvest: names each page written since the last harvest (at least; KVM may
 *     name a few more) and forgets it, before the caller reads the page: a write
 *     that the caller's read misses is named by the next harvest.
 *   - stop: the log is dropped; writes cost nothing extra any more.
 *
 * A harvest in two halves, for who wants a page to stay writable at no cost until it is read:
 * get names what is dirty and forgets nothing; clear forgets pages one range at a time, right
 * before they are read.  Only a page that was cleared costs its next writer a fault.
 *
 * Guest writes come from KVM's dirty log (manual protect, initially all set), this
 * process's own writes from an atomic bitmap here.  Own writes go through
 * hv_slat_write() or a write window, which mark the pages after the last byte
 * landed; there is no other way to a writable pointer outside this folder's
 * restore path.  Marks are made whether tracking is on or not.
 *
 * Bitmaps: uint64_t words, bit i of word w is RAM page 64 * w + i.
 *
 * Accessors and clear: any thread.  start, harvest, get, stop: one thread at a time (they take
 * the module's own leaf lock); beside a clear only get, which names its pages or does not.
 */
#ifndef HYPERVISOR_SLAT_H
#define HYPERVISOR_SLAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "hypervisor/memory.h"

struct hv_slat;

/* KVM takes at most 2^31 - 1 pages in a slot; 2^30 keep bitmaps on whole words. */
#define HV_SLOT_BYTES_MAX (4ULL << 40)
#define HV_SLOTS_MAX      (HV_MEMORY_BYTES_MAX / HV_SLOT_BYTES_MAX + 2)

/* Pure: RAM of @size_bytes cut into slots, ascending; the count. */
uint32_t hv_slat_cut(uint64_t size_bytes, struct hv_ram_range ret_slots[HV_SLOTS_MAX]);

/**
 * hv_slat_new - put @memory into the slots of a KVM VM.
 * @memory: borrowed; outlives the result.
 * @vm_fd:  borrowed; -1 for no KVM at all (tests, tools): then only the process's own
 *          writes are tracked.
 * Errors: errno of KVM_SET_USER_MEMORY_REGION with context; -ENOTSUP when KVM
 * lacks KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2.
 */
BASE_MUST_CHECK int hv_slat_new(struct hv_memory *memory, int vm_fd, struct hv_slat **ret_slat,
				struct base_error *err);
/* Takes the slots out of the VM.  No vCPU may be inside KVM_RUN.  NULL is fine. */
void hv_slat_free(struct hv_slat *slat);

struct hv_memory *hv_slat_memory(const struct hv_slat *slat); /* borrowed */
uint64_t hv_slat_page_count(const struct hv_slat *slat);      /* RAM pages */
size_t hv_slat_word_count(const struct hv_slat *slat);        /* words of a bitmap */

BASE_MUST_CHECK int hv_slat_start(struct hv_slat *slat, struct base_error *err);

/**
 * hv_slat_harvest - name and forget what was written.
 * @into: hv_slat_word_count() words; overwritten.  Bits beyond the last page are 0.
 * @ret_page_count: pages named; may be NULL.
 * 0; -EPROTO when tracking is off; errno of the KVM ioctls: then nothing was
 * forgotten that @into does not hold, and the caller must treat @into as dirty too.
 */
BASE_MUST_CHECK int hv_slat_harvest(struct hv_slat *slat, uint64_t *into, uint64_t *ret_page_count,
				    struct base_error *err);

/**
 * hv_slat_dirty_get - name what was written and not forgotten; all pages after a start.
 * @into: hv_slat_word_count() words; overwritten.  Nothing is forgotten.
 * 0; -EPROTO when tracking is off; errno of the KVM ioctl.
 */
BASE_MUST_CHECK int hv_slat_dirty_get(struct hv_slat *slat, uint64_t *into, struct base_error *err);

/**
 * hv_slat_dirty_clear - forget pages before they are read.
 * @first_page: of whole words; @page_count: whole words, or up to the last page.
 * @bits: the pages among them, from bit 0 of its first word on.
 * A write that comes after is named again.  0; -EPROTO when tracking is off; errno of the KVM
 * ioctl: some are forgotten and some are not.
 */
BASE_MUST_CHECK int hv_slat_dirty_clear(struct hv_slat *slat, uint64_t first_page,
					uint64_t page_count, const uint64_t *bits,
					struct base_error *err);
BASE_MUST_CHECK int hv_slat_stop(struct hv_slat *slat, struct base_error *err);
bool hv_slat_is_tracking(const struct hv_slat *slat);

/**
 * hv_slat_touched - pages that may be other than zero: those that the host has ever provided.
 * @into: hv_slat_word_count() words; overwritten.
 * @ret_page_count: pages named; may be NULL.
 * A page touched after the call began may be named or not.  Where the memory's file cannot tell
 * holes from data every page is named.  Any thread.
 */
void hv_slat_touched(const struct hv_slat *slat, uint64_t *into, uint64_t *ret_page_count);

/* What the last harvest spent, for the benchmark. */
struct hv_slat_cost {
	uint64_t ioctl_ns; /* in KVM_GET_DIRTY_LOG and KVM_CLEAR_DIRTY_LOG */
	uint64_t total_ns;
};
struct hv_slat_cost hv_slat_last_cost(const struct hv_slat *slat);

/* Copy guest memory out.  0; -EFAULT not RAM (@to is then untouched). */
BASE_MUST_CHECK int hv_slat_read(const struct hv_slat *slat, uint64_t gpa, void *to,
				 size_t size_bytes);
/* Copy into guest memory, then mark.  0; -EFAULT not RAM (nothing written). */
BASE_MUST_CHECK int hv_slat_write(struct hv_slat *slat, uint64_t gpa, const void *from,
				  size_t size_bytes);
/* Fill with zeros, then mark.  0; -EFAULT. */
BASE_MUST_CHECK int hv_slat_zero(struct hv_slat *slat, uint64_t gpa, uint64_t size_bytes);

/*
 * A write window: a writable view of guest memory that is marked when it ends.
 * Declare it with HV_SLAT_WINDOW so that the scope's end cannot be missed, or keep
 * it in a request and call hv_slat_window_end() when the last byte has landed and
 * before the guest is told.  data == NULL: nothing to end.
 */
struct hv_slat_window {
	struct hv_slat *slat;
	uint8_t *data;
	uint64_t ram_offset;
	uint64_t size_bytes;
};
#define HV_SLAT_WINDOW BASE_CLEANUP(hv_slat_window_end) struct hv_slat_window

/* 0; -EFAULT not RAM.  The bytes are shared with a running guest: they may change. */
BASE_MUST_CHECK int hv_slat_window_begin(struct hv_slat *slat, uint64_t gpa, uint64_t size_bytes,
					 struct hv_slat_window *ret_window);
void hv_slat_window_end(struct hv_slat_window *window);

/* A read-only view; NULL when any byte is not RAM.  A running guest changes it. */
const uint8_t *hv_slat_view(const struct hv_slat *slat, uint64_t gpa, uint64_t size_bytes);

/* Read-only view by RAM page, for save and migration; NULL out of range. */
const uint8_t *hv_slat_pages(const struct hv_slat *slat, uint64_t first_page, uint64_t page_count);

/*
 * Raw writable pages for restore and arrival, before the guest runs, when every
 * page is written anyway and nothing is tracked yet.  NULL out of range, or (a bug
 * of the caller) while tracking is on.
 */
uint8_t *hv_slat_arrival_pages(struct hv_slat *slat, uint64_t first_page, uint64_t page_count);

#endif
