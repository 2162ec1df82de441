/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata pages in memory: found by offset, loaded on demand, dropped oldest first.
 *
 * Loop only.  A page is in the hash from its first use; it is in the idle list, and only
 * then may it be dropped, while it is loaded, clean, not pinned and nothing of it is in the log
 * without being home.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/vhdx_journal_priv.h"

/* gcc 12's analyzer loses a pointer that is stored through another one, and calls it a leak. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define BUCKET_BITS  12U
#define BUCKET_COUNT (1U << BUCKET_BITS)
#define SLAB_PAGES   32U

struct vhdx_slab {
	struct vhdx_slab *next;
	uint8_t *memory;
};

/* --- waiters --- */

void vhdx_waiters_add(struct vhdx_waiter **list, struct vhdx_waiter *waiter)
{
	while (*list != NULL)
		list = &(*list)->next;
	waiter->next = NULL;
	*list = waiter;
}

void vhdx_waiters_run(struct vhdx_waiter **list, int result)
{
	struct vhdx_waiter *waiter = *list;

	*list = NULL;
	while (waiter != NULL) {
		struct vhdx_waiter *next = waiter->next;

		waiter->next = NULL;
		waiter->result = result;
		waiter->run(waiter, result); /* may free it */
		waiter = next;
	}
}

/* --- buffers --- */

static int slab_add(struct vhdx_pages *pages)
{
	struct vhdx_slab *slab = malloc(sizeof(*slab));

	if (slab == NULL)
		return -ENOMEM;
	slab->memory = aligned_alloc(VHDX_PAGE_BYTES, (size_t)SLAB_PAGES * VHDX_PAGE_BYTES);
	if (slab->memory == NULL) {
		free(slab);
		return -ENOMEM;
	}
	slab->next = pages->slabs;
	pages->slabs = slab;
	for (uint32_t i = 0; i < SLAB_PAGES; i++)
		vhdx_buffer_give(pages, slab->memory + (size_t)i * VHDX_PAGE_BYTES);
	return 0;
}

uint8_t *vhdx_buffer_take(struct vhdx_pages *pages)
{
	uint8_t *buffer;

	if (pages->free_buffers == NULL && slab_add(pages) < 0)
		return NULL;
	buffer = pages->free_buffers;
	memcpy(&pages->free_buffers, buffer, sizeof(pages->free_buffers));
	return buffer;
}

void vhdx_buffer_give(struct vhdx_pages *pages, uint8_t *buffer)
{
	if (buffer == NULL)
		return;
	memcpy(buffer, &pages->free_buffers, sizeof(pages->free_buffers));
	pages->free_buffers = buffer;
}

/* --- the hash --- */

static struct vhdx_page **bucket_of(const struct vhdx_pages *pages, uint64_t offset_bytes)
{
	uint64_t mixed = (offset_bytes / VHDX_PAGE_BYTES) * 0x9E3779B97F4A7C15ULL;

	return &pages->buckets[mixed >> (64 - BUCKET_BITS)];
}

static struct vhdx_page *page_find(const struct vhdx_pages *pages, uint64_t offset_bytes)
{
	struct vhdx_page *page = *bucket_of(pages, offset_bytes);

	while (page != NULL && page->offset_bytes != offset_bytes)
		page = page->hash_next;
	return page;
}

struct vhdx_page *vhdx_page_peek(const struct vhdx *vhdx, uint64_t offset_bytes)
{
	struct vhdx_page *page = page_find(vhdx->pages, offset_bytes);

	return page != NULL && page->loaded ? page : NULL;
}

static struct vhdx_page *page_new(struct vhdx_pages *pages, uint64_t offset_bytes)
{
	struct vhdx_page **bucket = bucket_of(pages, offset_bytes);
	struct vhdx_page *page = calloc(1, sizeof(*page));

	if (page == NULL)
		return NULL;
	page->data = vhdx_buffer_take(pages);
	if (page->data == NULL) {
		free(page);
		return NULL;
	}
	page->vhdx = pages->vhdx;
	page->offset_bytes = offset_bytes;
	page->hash_next = *bucket;
	*bucket = page;
	pages->count++;
	return page;
}

static void page_remove(struct vhdx_pages *pages, struct vhdx_page *page)
{
	struct vhdx_page **link = bucket_of(pages, page->offset_bytes);

	while (*link != page)
		link = &(*link)->hash_next;
	*link = page->hash_next;
	pages->count--;
	vhdx_buffer_give(pages, page->data);
	vhdx_buffer_give(pages, page->logged);
	vhdx_buffer_give(pages, page->snapshot);
	vhdx_buffer_give(pages, page->homing);
	free(page);
}

/* --- the idle list --- */

static void idle_remove(struct vhdx_pages *pages, struct vhdx_page *page)
{
	if (!page->idle)
		return;
	if (page->lru_previous != NULL)
		page->lru_previous->lru_next = page->lru_next;
	else
		pages->idle_oldest = page->lru_next;
	if (page->lru_next != NULL)
		page->lru_next->lru_previous = page->lru_previous;
	else
		pages->idle_newest = page->lru_previous;
	page->lru_next = NULL;
	page->lru_previous = NULL;
	page->idle = false;
	pages->idle_count--;
}

void vhdx_page_settle(struct vhdx_page *page)
{
	struct vhdx_pages *pages = page->vhdx->pages;

	if (page->idle || page->pins > 0 || !page->loaded || page->dirty ||
	    page->snapshot != NULL || page->logged != NULL || page->homing != NULL)
		return;
	page->lru_previous = pages->idle_newest;
	page->lru_next = NULL;
	if (pages->idle_newest != NULL)
		pages->idle_newest->lru_next = page;
	else
		pages->idle_oldest = page;
	pages->idle_newest = page;
	page->idle = true;
	pages->idle_count++;
	while (pages->idle_count > VHDX_PAGES_MAX) {
		struct vhdx_page *oldest = pages->idle_oldest;

		idle_remove(pages, oldest);
		page_remove(pages, oldest);
	}
}

static void page_pin(struct vhdx_page *page)
{
	idle_remove(page->vhdx->pages, page);
	page->pins++;
}

void vhdx_page_put(struct vhdx_page *page)
{
	base_assert(page->pins > 0);
	page->pins--;
	vhdx_page_settle(page);
}

/* --- loading --- */

static void page_loaded(struct store_request *request, int result)
{
	struct vhdx_page *page = request->context;
	struct vhdx *vhdx = page->vhdx;
	struct vhdx_waiter *waiters = page->waiters;

	page->waiters = NULL;
	if (result < 0) {
		page_remove(vhdx->pages, page);
		vhdx_waiters_run(&waiters, result);
		return;
	}
	if (vhdx->overlay != NULL)
		vhdx_overlay_apply(vhdx->overlay, page->offset_bytes, page->data, VHDX_PAGE_BYTES);
	page->loaded = true;
	page_pin(page); /* each of the waiters is to find it */
	vhdx_waiters_run(&waiters, 0);
	vhdx_page_put(page);
}

static void page_load(struct vhdx_page *page)
{
	struct vhdx *vhdx = page->vhdx;

	page->iov = (struct iovec){ .iov_base = page->data, .iov_len = VHDX_PAGE_BYTES };
	page->request = (struct store_request){
		.op = STORE_READ,
		.epoch = store_epoch(vhdx->image.file),
		.offset_bytes = page->offset_bytes,
		.length_bytes = VHDX_PAGE_BYTES,
		.iov = &page->iov,
		.iov_count = 1,
		.done = page_loaded,
		.context = page,
	};
	store_submit(vhdx->image.file, &page->request);
}

int vhdx_page_get(struct vhdx *vhdx, uint64_t offset_bytes, struct vhdx_waiter *waiter,
		  struct vhdx_page **ret_page)
{
	struct vhdx_page *page = page_find(vhdx->pages, offset_bytes);

	base_assert(offset_bytes % VHDX_PAGE_BYTES == 0);
	if (page == NULL) {
		page = page_new(vhdx->pages, offset_bytes);
		if (page == NULL)
			return -ENOMEM;
		page_load(page);
	}
	if (!page->loaded) {
		vhdx_waiters_add(&page->waiters, waiter);
		return -EINPROGRESS;
	}
	page_pin(page);
	*ret_page = page;
	return 0;
}

int vhdx_page_fresh(struct vhdx *vhdx, uint64_t offset_bytes, struct vhdx_page **ret_page)
{
	struct vhdx_page *page = page_find(vhdx->pages, offset_bytes);

	base_assert(offset_bytes % VHDX_PAGE_BYTES == 0);
	if (page != NULL && !page->loaded)
		return -EAGAIN; /* a damaged table names this space already, and it is being read */
	if (page == NULL)
		page = page_new(vhdx->pages, offset_bytes);
	if (page == NULL)
		return -ENOMEM;
	page->loaded = true;
	memset(page->data, 0, VHDX_PAGE_BYTES);
	page_pin(page);
	*ret_page = page;
	return 0;
}

/* --- dirty pages --- */

void vhdx_page_dirty(struct vhdx_page *page, bool ordered)
{
	struct vhdx_pages *pages = page->vhdx->pages;

	page->ordered = page->ordered || ordered;
	if (page->dirty)
		return;
	idle_remove(pages, page);
	page->dirty = true;
	page->dirty_next = NULL;
	*pages->dirty_end = page;
	pages->dirty_end = &page->dirty_next;
	pages->dirty_count++;
	vhdx_journal_dirtied(page->vhdx);
}

/* Take @page off the list without its being in any log entry. */
static void dirty_remove(struct vhdx_pages *pages, struct vhdx_page *page)
{
	struct vhdx_page **link = &pages->dirty_first;

	while (*link != page)
		link = &(*link)->dirty_next;
	*link = page->dirty_next;
	if (*link == NULL)
		pages->dirty_end = link;
	page->dirty = false;
	page->ordered = false;
	pages->dirty_count--;
}

struct vhdx_page *vhdx_pages_take_dirty(struct vhdx *vhdx, uint32_t *ret_count, bool *ret_ordered)
{
	struct vhdx_pages *pages = vhdx->pages;
	struct vhdx_page *first = pages->dirty_first;
	bool ordered = false;

	for (struct vhdx_page *page = first; page != NULL; page = page->dirty_next) {
		ordered = ordered || page->ordered;
		page->snapshot_ordered = page->ordered;
		page->ordered = false;
		page->dirty = false;
	}
	*ret_count = pages->dirty_count;
	*ret_ordered = ordered;
	pages->dirty_first = NULL;
	pages->dirty_end = &pages->dirty_first;
	pages->dirty_count = 0;
	return first;
}

uint32_t vhdx_pages_dirty_count(const struct vhdx *vhdx)
{
	return vhdx->pages->dirty_count;
}

int vhdx_commit_extra(struct vhdx *vhdx, uint64_t offset_bytes, const uint8_t data[VHDX_PAGE_BYTES])
{
	struct vhdx_page *page = NULL;
	int code = vhdx_page_fresh(vhdx, offset_bytes, &page); /* replaced whole: not read */

	if (code < 0)
		return code;
	memcpy(page->data, data, VHDX_PAGE_BYTES);
	vhdx_page_dirty(page, true);
	vhdx_page_put(page);
	return 0;
}

/* --- dropping --- */

static void page_drop(struct vhdx_pages *pages, struct vhdx_page *page)
{
	/* One that the journal is at work on becomes idle later, and is dropped then. */
	if (!page->loaded || page->pins > 0 || page->snapshot != NULL || page->homing != NULL)
		return;
	idle_remove(pages, page);
	if (page->dirty)
		dirty_remove(pages, page);
	if (page->logged != NULL)
		vhdx_journal_forget(page);
	page_remove(pages, page);
}

void vhdx_pages_drop(struct vhdx *vhdx, uint64_t offset_bytes, uint64_t length_bytes)
{
	struct vhdx_pages *pages = vhdx->pages;

	if (length_bytes / VHDX_PAGE_BYTES <= BUCKET_COUNT) {
		for (uint64_t at = 0; at < length_bytes; at += VHDX_PAGE_BYTES) {
			struct vhdx_page *page = page_find(pages, offset_bytes + at);

			if (page != NULL)
				page_drop(pages, page);
		}
		return;
	}
	for (uint32_t i = 0; i < BUCKET_COUNT; i++) {
		struct vhdx_page *next;

		for (struct vhdx_page *page = pages->buckets[i]; page != NULL; page = next) {
			next = page->hash_next;
			if (page->offset_bytes >= offset_bytes &&
			    page->offset_bytes - offset_bytes < length_bytes)
				page_drop(pages, page);
		}
	}
}

/* --- making and freeing --- */

int vhdx_pages_new(struct vhdx *vhdx, struct base_error *err)
{
	struct vhdx_pages *pages = calloc(1, sizeof(*pages));

	if (pages == NULL)
		return base_fail(err, -ENOMEM, "metadata pages");
	pages->buckets = calloc(BUCKET_COUNT, sizeof(struct vhdx_page *));
	if (pages->buckets == NULL) {
		free(pages);
		return base_fail(err, -ENOMEM, "metadata pages");
	}
	pages->vhdx = vhdx;
	pages->dirty_end = &pages->dirty_first;
	vhdx->pages = pages;
	return 0;
}

void vhdx_pages_free(struct vhdx *vhdx)
{
	struct vhdx_pages *pages = vhdx->pages;

	if (pages == NULL)
		return;
	for (uint32_t i = 0; i < BUCKET_COUNT; i++) {
		while (pages->buckets[i] != NULL)
			page_remove(pages, pages->buckets[i]);
	}
	while (pages->slabs != NULL) {
		struct vhdx_slab *slab = pages->slabs;

		pages->slabs = slab->next;
		free(slab->memory);
		free(slab);
	}
	free(pages->buckets);
	free(pages);
	vhdx->pages = NULL;
}
