/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Own marks and KVM's log are separate bitmaps that a harvest ORs together.  Why a mark
 * is a locked OR even when its bit is set already: "bytes land, look at the bit"
 * against "clear the bit, read the bytes" needs a full fence on the marking side, and
 * on x86 the locked OR is that fence.
 */
#include "hypervisor/slat.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "hypervisor/memory_priv.h"

struct hv_slat {
	struct hv_memory *memory; /* borrowed */
	uint8_t *base;
	int vm_fd; /* borrowed, -1: none */
	uint32_t slot_count;
	struct hv_ram_range slots[HV_SLOTS_MAX];
	uint64_t page_count;
	size_t word_count;
	_Atomic uint64_t *marks; /* own writes */
	pthread_mutex_t lock;    /* leaf: start, harvest, stop */
	atomic_bool tracking;
	struct hv_slat_cost cost;
};

BASE_DEFINE_FREEP(struct hv_slat, hv_slat_free);

uint32_t hv_slat_cut(uint64_t size_bytes, struct hv_ram_range ret_slots[HV_SLOTS_MAX])
{
	struct hv_ram_range ranges[2];
	uint32_t range_count = hv_memory_layout(size_bytes, ranges);
	uint32_t count = 0;

	for (uint32_t i = 0; i < range_count; i++) {
		for (uint64_t at = 0; at < ranges[i].size_bytes; at += HV_SLOT_BYTES_MAX) {
			uint64_t left = ranges[i].size_bytes - at;

			base_assert(count < HV_SLOTS_MAX);
			ret_slots[count++] = (struct hv_ram_range){
				.gpa = ranges[i].gpa + at,
				.size_bytes = left < HV_SLOT_BYTES_MAX ? left : HV_SLOT_BYTES_MAX,
				.ram_offset = ranges[i].ram_offset + at,
			};
		}
	}
	return count;
}

static int set_slots(struct hv_slat *slat, uint32_t flags, struct base_error *err)
{
	for (uint32_t i = 0; i < slat->slot_count && slat->vm_fd >= 0; i++) {
		struct kvm_userspace_memory_region region = {
			.slot = i,
			.flags = flags,
			.guest_phys_addr = slat->slots[i].gpa,
			.memory_size = slat->slots[i].size_bytes,
			.userspace_addr = (uintptr_t)(slat->base + slat->slots[i].ram_offset),
		};

		if (ioctl(slat->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
			return base_fail_errno(err, -errno,
					       "memory slot %u of %" PRIu64 " MiB at 0x%" PRIx64, i,
					       slat->slots[i].size_bytes >> 20, slat->slots[i].gpa);
	}
	return 0;
}

static int enable_manual_protect(int vm_fd, struct base_error *err)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 };
	int have = ioctl(vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);

	if (have <= 0)
		return base_fail(err, -ENOTSUP,
				 "KVM lacks KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 (Linux 5.7 has it)");
	cap.args[0] = (uint64_t)have &
		      (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET);
	if (ioctl(vm_fd, KVM_ENABLE_CAP, &cap) < 0)
		return base_fail_errno(err, -errno, "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2");
	return 0;
}

int hv_slat_new(struct hv_memory *memory, int vm_fd, struct hv_slat **ret_slat,
		struct base_error *err)
{
	BASE_CLEANUP(hv_slat_freep) struct hv_slat *slat = calloc(1, sizeof(*slat));
	int r;

	if (slat == NULL)
		return base_fail(err, -ENOMEM, "guest memory slots");
	slat->vm_fd = -1;
	(void)pthread_mutex_init(&slat->lock, NULL);
	slat->memory = memory;
	slat->base = hv_memory_base(memory);
	slat->slot_count = hv_slat_cut(hv_memory_size(memory), slat->slots);
	slat->page_count = hv_memory_page_count(memory);
	slat->word_count = (size_t)((slat->page_count + 63) / 64);
	slat->marks = calloc(slat->word_count, sizeof(*slat->marks));
	if (slat->marks == NULL)
		return base_fail(err, -ENOMEM, "dirty bitmap of %zu words", slat->word_count);
	if (vm_fd >= 0) {
		r = enable_manual_protect(vm_fd, err);
		if (r < 0)
			return r;
		slat->vm_fd = vm_fd;
		r = set_slots(slat, 0, err);
		if (r < 0)
			return r;
	}
	*ret_slat = base_take(&slat);
	return 0;
}

void hv_slat_free(struct hv_slat *slat)
{
	if (slat == NULL)
		return;
	for (uint32_t i = 0; i < slat->slot_count && slat->vm_fd >= 0; i++) {
		struct kvm_userspace_memory_region none = { .slot = i };

		(void)ioctl(slat->vm_fd, KVM_SET_USER_MEMORY_REGION, &none);
	}
	(void)pthread_mutex_destroy(&slat->lock);
	free(slat->marks);
	free(slat);
}

struct hv_memory *hv_slat_memory(const struct hv_slat *slat)
{
	return slat->memory;
}

uint64_t hv_slat_page_count(const struct hv_slat *slat)
{
	return slat->page_count;
}

size_t hv_slat_word_count(const struct hv_slat *slat)
{
	return slat->word_count;
}

/* The bits of a bitmap's word @index that are pages. */
static uint64_t valid_bits(const struct hv_slat *slat, size_t index)
{
	unsigned int tail = (unsigned int)(slat->page_count % 64);

	return index + 1 == slat->word_count && tail != 0 ? (1ULL << tail) - 1 : ~0ULL;
}

static void mark_all(struct hv_slat *slat)
{
	for (size_t i = 0; i < slat->word_count; i++)
		atomic_store(&slat->marks[i], valid_bits(slat, i));
}

int hv_slat_start(struct hv_slat *slat, struct base_error *err)
{
	BASE_LOCKED(&slat->lock);
	int r;

	if (atomic_load(&slat->tracking))
		return base_fail(err, -EPROTO, "dirty tracking is on already");
	r = set_slots(slat, KVM_MEM_LOG_DIRTY_PAGES, err);
	if (r < 0) {
		(void)set_slots(slat, 0, NULL);
		return base_fail_within(err, r, "dirty tracking");
	}
	mark_all(slat);
	atomic_store(&slat->tracking, true);
	return 0;
}

int hv_slat_stop(struct hv_slat *slat, struct base_error *err)
{
	BASE_LOCKED(&slat->lock);

	if (!atomic_load(&slat->tracking))
		return base_fail(err, -EPROTO, "dirty tracking is off");
	atomic_store(&slat->tracking, false);
	return set_slots(slat, 0, err);
}

bool hv_slat_is_tracking(const struct hv_slat *slat)
{
	return atomic_load(&slat->tracking);
}

/* KVM's log of one slot, copied. */
static int get_slot(struct hv_slat *slat, uint32_t index, uint64_t *into, struct base_error *err)
{
	const struct hv_ram_range *slot = &slat->slots[index];
	/* Slots start on whole words. */
	uint64_t *words = into + (slot->ram_offset >> HV_PAGE_SHIFT) / 64;
	struct kvm_dirty_log get = { .slot = index, .dirty_bitmap = words };

	if (ioctl(slat->vm_fd, KVM_GET_DIRTY_LOG, &get) < 0)
		return base_fail_errno(err, -errno, "KVM_GET_DIRTY_LOG of slot %u", index);
	return 0;
}

/* @bits: of @page_count pages of the slot from @first_page on, which begins a word. */
static int clear_slot(struct hv_slat *slat, uint32_t index, uint64_t first_page,
		      uint64_t page_count, const uint64_t *bits, struct base_error *err)
{
	struct kvm_clear_dirty_log clear = {
		.slot = index,
		.num_pages = (uint32_t)page_count,
		.first_page = first_page,
		.dirty_bitmap = (void *)(uintptr_t)bits, /* which KVM reads only */
	};

	if (ioctl(slat->vm_fd, KVM_CLEAR_DIRTY_LOG, &clear) < 0)
		return base_fail_errno(err, -errno, "KVM_CLEAR_DIRTY_LOG of slot %u", index);
	return 0;
}

/* KVM's log, copied; and, if @forget, then cleared page by page that it names. */
static int read_log(struct hv_slat *slat, uint64_t *into, bool forget, struct base_error *err)
{
	int r = 0;

	if (slat->vm_fd < 0)
		memset(into, 0, slat->word_count * sizeof(*into));
	for (uint32_t i = 0; i < slat->slot_count && slat->vm_fd >= 0 && r == 0; i++) {
		const struct hv_ram_range *slot = &slat->slots[i];

		r = get_slot(slat, i, into, err);
		if (r == 0 && forget)
			r = clear_slot(slat, i, 0, slot->size_bytes >> HV_PAGE_SHIFT,
				       into + (slot->ram_offset >> HV_PAGE_SHIFT) / 64, err);
	}
	return r;
}

static uint64_t merge_marks(struct hv_slat *slat, uint64_t *into)
{
	uint64_t count = 0;

	for (size_t i = 0; i < slat->word_count; i++) {
		/* Looking first spares a locked instruction per word; a mark that comes
		 * after the look belongs to the next harvest. */
		if (atomic_load_explicit(&slat->marks[i], memory_order_relaxed) != 0)
			into[i] |= atomic_exchange(&slat->marks[i], 0);
		count += (uint64_t)__builtin_popcountll(into[i]);
	}
	return count;
}

static uint64_t name_all(const struct hv_slat *slat, uint64_t *into)
{
	for (size_t i = 0; i < slat->word_count; i++)
		into[i] = valid_bits(slat, i);
	return slat->page_count;
}

int hv_slat_harvest(struct hv_slat *slat, uint64_t *into, uint64_t *ret_page_count,
		    struct base_error *err)
{
	uint64_t begin_ns = base_clock_boot_ns(&base_clock_system);
	uint64_t ioctl_ns = 0;
	uint64_t count;
	int r;
	BASE_LOCKED(&slat->lock);

	if (!atomic_load(&slat->tracking))
		return base_fail(err, -EPROTO, "dirty tracking is off");
	r = read_log(slat, into, true, err);
	if (r < 0) {
		mark_all(slat); /* what was lost is named next time, with all else */
		(void)name_all(slat, into);
		return r;
	}
	ioctl_ns = base_clock_boot_ns(&base_clock_system) - begin_ns;
	count = merge_marks(slat, into);
	if (ret_page_count != NULL)
		*ret_page_count = count;
	slat->cost.ioctl_ns = ioctl_ns;
	slat->cost.total_ns = base_clock_boot_ns(&base_clock_system) - begin_ns;
	return 0;
}

int hv_slat_dirty_get(struct hv_slat *slat, uint64_t *into, struct base_error *err)
{
	int r;
	BASE_LOCKED(&slat->lock);

	if (!atomic_load(&slat->tracking))
		return base_fail(err, -EPROTO, "dirty tracking is off");
	r = read_log(slat, into, false, err);
	for (size_t i = 0; r == 0 && i < slat->word_count; i++)
		into[i] |= atomic_load_explicit(&slat->marks[i], memory_order_relaxed);
	return r;
}

int hv_slat_dirty_clear(struct hv_slat *slat, uint64_t first_page, uint64_t page_count,
			const uint64_t *bits, struct base_error *err)
{
	uint64_t end = first_page + page_count;

	base_assert(first_page % 64 == 0 && first_page <= slat->page_count &&
		    page_count <= slat->page_count - first_page &&
		    (page_count % 64 == 0 || end == slat->page_count));
	if (!atomic_load(&slat->tracking))
		return base_fail(err, -EPROTO, "dirty tracking is off");
	for (uint64_t i = 0; i < (page_count + 63) / 64; i++)
		/* Acquire: the pages are not read before it. */
		if ((atomic_load_explicit(&slat->marks[first_page / 64 + i], memory_order_acquire) &
		     bits[i]) != 0)
			(void)atomic_fetch_and(&slat->marks[first_page / 64 + i], ~bits[i]);
	for (uint32_t i = 0; i < slat->slot_count && slat->vm_fd >= 0; i++) {
		uint64_t slot_first = slat->slots[i].ram_offset >> HV_PAGE_SHIFT;
		uint64_t slot_end = slot_first + (slat->slots[i].size_bytes >> HV_PAGE_SHIFT);
		uint64_t from = first_page > slot_first ? first_page : slot_first;
		uint64_t to = end < slot_end ? end : slot_end;
		int r = 0;

		if (from < to)
			r = clear_slot(slat, i, from - slot_first, to - from,
				       bits + (from - first_page) / 64, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Clear bits [first, end) of @bits. */
static void clear_bits(uint64_t *bits, uint64_t first, uint64_t end)
{
	while (first < end) {
		uint64_t in_word = 64 - first % 64;
		uint64_t count = end - first < in_word ? end - first : in_word;

		bits[first / 64] &= ~(~0ULL >> (64 - count) << (first % 64));
		first += count;
	}
}

void hv_slat_touched(const struct hv_slat *slat, uint64_t *into, uint64_t *ret_page_count)
{
	int fd = hv_memory_fd(slat->memory);
	off_t end = (off_t)(slat->page_count << HV_PAGE_SHIFT);
	uint64_t count = name_all(slat, into);
	off_t hole = 0;
	off_t data = 0;

	for (; hole < end; hole = data) {
		uint64_t first;

		hole = lseek(fd, hole, SEEK_HOLE);
		if (hole < 0 || hole >= end)
			break;
		data = lseek(fd, hole, SEEK_DATA);
		if (data < 0 && errno != ENXIO) /* ENXIO: no data up to the end */
			break;
		if (data < 0 || data > end)
			data = end;
		if (data <= hole) /* the file changed in between: look no further */
			break;
		first = ((uint64_t)hole + HV_PAGE_BYTES - 1) >> HV_PAGE_SHIFT;
		if ((uint64_t)data >> HV_PAGE_SHIFT <= first)
			continue;
#ifdef GODWIT_MUTANT_SLAT_TOUCHED
		clear_bits(into, first, ((uint64_t)data >> HV_PAGE_SHIFT) + (data < end));
#else
		clear_bits(into, first, (uint64_t)data >> HV_PAGE_SHIFT);
#endif
		count -= ((uint64_t)data >> HV_PAGE_SHIFT) - first;
	}
	if (ret_page_count != NULL)
		*ret_page_count = count;
}

struct hv_slat_cost hv_slat_last_cost(const struct hv_slat *slat)
{
	return slat->cost;
}

/* Mark RAM pages [first, last], whole words at a time. */
static void mark_pages(struct hv_slat *slat, uint64_t first, uint64_t last)
{
#ifndef GODWIT_MUTANT_SLAT_MARK
	uint64_t word = first / 64;
	uint64_t last_word = last / 64;
	uint64_t mask = ~0ULL << (first % 64);

	for (; word < last_word; word++) {
		(void)atomic_fetch_or(&slat->marks[word], mask);
		mask = ~0ULL;
	}
	mask &= ~0ULL >> (63 - last % 64);
	(void)atomic_fetch_or(&slat->marks[word], mask);
#else
	(void)slat;
	(void)first;
	(void)last;
#endif
}

int hv_slat_read(const struct hv_slat *slat, uint64_t gpa, void *to, size_t size_bytes)
{
	uint64_t offset;
	int r = hv_memory_translate(slat->memory, gpa, size_bytes, &offset);

	if (r < 0)
		return r;
	memcpy(to, slat->base + offset, size_bytes);
	return 0;
}

int hv_slat_window_begin(struct hv_slat *slat, uint64_t gpa, uint64_t size_bytes,
			 struct hv_slat_window *ret_window)
{
	uint64_t offset;
	int r = hv_memory_translate(slat->memory, gpa, size_bytes, &offset);

	if (r < 0)
		return r;
	*ret_window = (struct hv_slat_window){ .slat = slat,
					       .data = slat->base + offset,
					       .ram_offset = offset,
					       .size_bytes = size_bytes };
	return 0;
}

void hv_slat_window_end(struct hv_slat_window *window)
{
	if (window->data == NULL)
		return;
	window->data = NULL;
	if (window->size_bytes > 0)
		mark_pages(window->slat, window->ram_offset >> HV_PAGE_SHIFT,
			   (window->ram_offset + window->size_bytes - 1) >> HV_PAGE_SHIFT);
}

int hv_slat_write(struct hv_slat *slat, uint64_t gpa, const void *from, size_t size_bytes)
{
	HV_SLAT_WINDOW window = { .data = NULL };
	int r = hv_slat_window_begin(slat, gpa, size_bytes, &window);

	if (r < 0)
		return r;
	memcpy(window.data, from, size_bytes);
	return 0;
}

int hv_slat_zero(struct hv_slat *slat, uint64_t gpa, uint64_t size_bytes)
{
	HV_SLAT_WINDOW window = { .data = NULL };
	int r = hv_slat_window_begin(slat, gpa, size_bytes, &window);

	if (r < 0)
		return r;
	memset(window.data, 0, size_bytes);
	return 0;
}

const uint8_t *hv_slat_view(const struct hv_slat *slat, uint64_t gpa, uint64_t size_bytes)
{
	uint64_t offset;

	if (hv_memory_translate(slat->memory, gpa, size_bytes, &offset) < 0)
		return NULL;
	return slat->base + offset;
}

const uint8_t *hv_slat_pages(const struct hv_slat *slat, uint64_t first_page, uint64_t page_count)
{
	if (first_page > slat->page_count || page_count > slat->page_count - first_page)
		return NULL;
	return slat->base + (first_page << HV_PAGE_SHIFT);
}

uint8_t *hv_slat_arrival_pages(struct hv_slat *slat, uint64_t first_page, uint64_t page_count)
{
	if (atomic_load(&slat->tracking) || first_page > slat->page_count ||
	    page_count > slat->page_count - first_page)
		return NULL;
	return slat->base + (first_page << HV_PAGE_SHIFT);
}
