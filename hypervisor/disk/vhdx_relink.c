/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving an active VHDX image another parent, or its content another id.
 *
 * The blocking functions prepare and wait; what changes the image runs on the loop, while requests
 * go on.  The new locator goes where the old one is if it fits there or nothing lies behind it,
 * else behind the last item; item and table change in one commit, so a power failure leaves the
 * old locator or the new one.  When that commit fails the pages are put back as they were, and
 * the next one writes them so.
 *
 * Source: [MS-VHDX] v4.0 sections 2.6.1 and 2.6.2.6.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "hypervisor/disk/vhdx_priv.h"

#define TABLE_PAGES         (VHDX_METADATA_TABLE_BYTES / VHDX_PAGE_BYTES)
#define TABLE_COUNT_OFFSET  10U
#define TABLE_HEADER_BYTES  32U
#define TABLE_ENTRY_BYTES   32U
#define ENTRY_OFFSET_OFFSET 16U
#define ENTRY_LENGTH_OFFSET 20U
#define ENTRIES_MAX         2047U
#define LOCATOR_BYTES_MAX   (64U << 10) /* three paths of the longest kind, in UTF-16 */
#define ITEM_PAGES_MAX      (LOCATOR_BYTES_MAX / VHDX_PAGE_BYTES + 2)
#define PINS_MAX            (TABLE_PAGES + ITEM_PAGES_MAX)
#define ITEM_ALIGN          8U

struct relink {
	struct vhdx *vhdx;
	struct vhdx_waiter waiter;
	struct image_parent parent;
	struct vhdx_locator locator;
	struct vhdx_item_place place; /* of the new item */
	uint8_t item[LOCATOR_BYTES_MAX];
	struct vhdx_page *pins[PINS_MAX];
	uint8_t (*before)[VHDX_PAGE_BYTES]; /* of each pinned page */
	uint32_t pin_count;
	uint32_t entry; /* in the table */
	bool committing;
	bool done;
	int result;
};

/* --- on the loop --- */

static void relink_end(struct relink *relink, int result)
{
	for (uint32_t i = 0; i < relink->pin_count; i++)
		vhdx_page_put(relink->pins[i]);
	relink->pin_count = 0;
	relink->result = result;
	base_io_done(relink->vhdx->image.loop, &relink->done);
}

static uint32_t item_pages(const struct relink *relink)
{
	uint32_t first = relink->place.offset_bytes / VHDX_PAGE_BYTES;
	uint32_t last =
		(relink->place.offset_bytes + relink->place.length_bytes - 1) / VHDX_PAGE_BYTES;

	return last - first + 1;
}

/* Offset in the region of the page that pin @index is for. */
static uint32_t pin_offset(const struct relink *relink, uint32_t index)
{
	if (index < TABLE_PAGES)
		return index * VHDX_PAGE_BYTES;
	return (relink->place.offset_bytes / VHDX_PAGE_BYTES + index - TABLE_PAGES) *
	       VHDX_PAGE_BYTES;
}

/* The table's entry of the locator, found by where it points. */
static int entry_find(struct relink *relink)
{
	const struct vhdx_item_place *old = &relink->vhdx->meta.locator_at;
	uint32_t count = base_get_le16(relink->pins[0]->data + TABLE_COUNT_OFFSET);

	for (uint32_t i = 0; i < count && i < ENTRIES_MAX; i++) {
		uint32_t at = TABLE_HEADER_BYTES + i * TABLE_ENTRY_BYTES;
		const uint8_t *entry =
			relink->pins[at / VHDX_PAGE_BYTES]->data + at % VHDX_PAGE_BYTES;

		if (base_get_le32(entry + ENTRY_OFFSET_OFFSET) == old->offset_bytes &&
		    base_get_le32(entry + ENTRY_LENGTH_OFFSET) == old->length_bytes) {
			relink->entry = at;
			return 0;
		}
	}
	return -EBADMSG;
}

/* Table and item, in pages that are all there: no return to the loop in between. */
static void relink_change(struct relink *relink)
{
	struct vhdx_page *page = relink->pins[relink->entry / VHDX_PAGE_BYTES];
	uint8_t *entry = page->data + relink->entry % VHDX_PAGE_BYTES;

	for (uint32_t i = 0; i < relink->pin_count; i++)
		memcpy(relink->before[i], relink->pins[i]->data, VHDX_PAGE_BYTES);
	base_put_le32(entry + ENTRY_OFFSET_OFFSET, relink->place.offset_bytes);
	base_put_le32(entry + ENTRY_LENGTH_OFFSET, relink->place.length_bytes);
	vhdx_page_dirty(page, false);
	for (uint32_t i = TABLE_PAGES; i < relink->pin_count; i++) {
		uint32_t begin = pin_offset(relink, i);
		uint32_t item = relink->place.offset_bytes;
		uint32_t skip = begin > item ? begin - item : 0; /* of the item, before this page */
		uint32_t at = begin > item ? 0 : item - begin;
		uint32_t length = relink->place.length_bytes - skip;

		if (length > VHDX_PAGE_BYTES - at)
			length = VHDX_PAGE_BYTES - at;
		memcpy(relink->pins[i]->data + at, relink->item + skip, length);
		vhdx_page_dirty(relink->pins[i], false);
	}
}

static void relink_restore(struct relink *relink)
{
	for (uint32_t i = 0; i < relink->pin_count; i++) {
		if (memcmp(relink->pins[i]->data, relink->before[i], VHDX_PAGE_BYTES) == 0)
			continue;
		memcpy(relink->pins[i]->data, relink->before[i], VHDX_PAGE_BYTES);
		vhdx_page_dirty(relink->pins[i], false);
	}
}

static void relink_publish(struct relink *relink)
{
	struct vhdx *vhdx = relink->vhdx;
	const struct vhdx_item_place old = vhdx->meta.locator_at;
	uint32_t end = relink->place.offset_bytes + relink->place.length_bytes;

	vhdx->meta.locator = relink->locator;
	vhdx->meta.locator_at = relink->place;
	/* The last item that became shorter is still the last: else each longer name after a
	 * shorter one would take new room, and some day the region would be full. */
	if (vhdx->meta.items_end_bytes < end ||
	    (old.offset_bytes == relink->place.offset_bytes &&
	     old.offset_bytes + old.length_bytes == vhdx->meta.items_end_bytes))
		vhdx->meta.items_end_bytes = end;
	vhdx->image.parent_is = relink->parent;
}

static void relink_go(struct relink *relink)
{
	struct vhdx *vhdx = relink->vhdx;
	uint64_t region = vhdx->regions.metadata.offset_bytes;
	int code = vhdx_touch(vhdx, false, &relink->waiter);

	while (code == 0 && relink->pin_count < TABLE_PAGES + item_pages(relink)) {
		code = vhdx_page_get(vhdx, region + pin_offset(relink, relink->pin_count),
				     &relink->waiter, &relink->pins[relink->pin_count]);
		if (code == 0)
			relink->pin_count++;
	}
	if (code == 0)
		code = entry_find(relink);
	if (code == -EINPROGRESS)
		return;
	if (code < 0) {
		relink_end(relink, code);
		return;
	}
	relink_change(relink);
	relink->committing = true;
	vhdx_commit(vhdx, &relink->waiter);
}

static void relink_waited(struct vhdx_waiter *waiter, int result)
{
	struct relink *relink = waiter->context;

	if (!relink->committing && result == 0) {
		relink_go(relink);
		return;
	}
	if (relink->committing && result == 0)
		relink_publish(relink);
	if (relink->committing && result < 0)
		relink_restore(relink);
	relink_end(relink, result);
}

static void relink_start(void *context)
{
	relink_go(context);
}

/* --- blocking --- */

/* Where the new item goes. */
static int place_plan(struct relink *relink, uint32_t length, struct base_error *err)
{
	const struct vhdx_metadata *meta = &relink->vhdx->meta;
	const struct vhdx_item_place *old = &meta->locator_at;
	uint64_t region = relink->vhdx->regions.metadata.length_bytes;
	uint64_t at = old->offset_bytes;

	if (region > VHDX_METADATA_REGION_BYTES_MAX) /* behind that nobody of us would read it */
		region = VHDX_METADATA_REGION_BYTES_MAX;
	if (length > old->length_bytes &&
	    old->offset_bytes + old->length_bytes != meta->items_end_bytes)
		at = ((uint64_t)meta->items_end_bytes + ITEM_ALIGN - 1) &
		     ~(uint64_t)(ITEM_ALIGN - 1);
	if (at > region || length > region - at)
		return base_fail(err, -ENOSPC,
				 "parent locator: %u bytes do not fit into the metadata region's "
				 "%llu",
				 length, (unsigned long long)region);
	relink->place = (struct vhdx_item_place){ (uint32_t)at, length };
	return 0;
}

static int locator_plan(struct relink *relink, struct base_error *err)
{
	const struct image *image = &relink->vhdx->image;
	const struct image_parent *parent = &relink->parent;
	struct vhdx_locator *locator = &relink->locator;
	bool same = strcmp(parent->name, image->parent_is.name) == 0;
	int code = 0;

	*locator = relink->vhdx->meta.locator;
	if (!same) {
		/* What else was recorded names the old one. */
		locator->volume[0] = '\0';
		locator->absolute[0] = '\0';
		code = vhdx_relative_path(store_name(image->file), parent->name, locator->relative,
					  err);
	}
	if (code < 0)
		return code;
	if (relink->parent.format ==
	    DISK_FORMAT_INVALID) /* what it was; what nobody said is VHDX */
		relink->parent.format = same ? image->parent_is.format : DISK_VHDX;
	locator->format[0] = '\0';
	if (relink->parent.format != DISK_VHDX)
		(void)snprintf(locator->format, sizeof(locator->format), "%s",
			       disk_format_name(relink->parent.format));
	locator->linkage_present = true;
	locator->linkage = parent->data_id;
	locator->linkage2_present = !disk_guid_is_zero(&parent->data_id2);
	locator->linkage2 = parent->data_id2;
	code = vhdx_locator_encode(locator, relink->item, sizeof(relink->item), err);
	return code < 0 ? code : place_plan(relink, (uint32_t)code, err);
}

int vhdx_set_parent(struct image *image, const struct image_parent *parent, struct base_error *err)
{
	struct vhdx *vhdx = vhdx_of(image);
	BASE_FREE struct relink *relink = calloc(1, sizeof(*relink));
	BASE_FREE void *before = calloc(PINS_MAX, VHDX_PAGE_BYTES);
	int code = 0;

	if (relink == NULL || before == NULL)
		return base_fail(err, -ENOMEM, "parent locator of '%s'", store_name(image->file));
	if (!image->active)
		return base_fail(err, -EROFS, "'%s' is not active", store_name(image->file));
	if (!vhdx->meta.has_parent)
		return base_fail(err, -EINVAL, "'%s' is no differencing disk",
				 store_name(image->file));
	relink->vhdx = vhdx;
	relink->parent = *parent;
	relink->before = before;
	relink->waiter.run = relink_waited;
	relink->waiter.context = relink;
	code = locator_plan(relink, err);
	if (code < 0)
		return code;
	base_io_call(image->loop, relink_start, relink);
	base_io_wait(image->loop, &relink->done);
	if (relink->result < 0)
		return base_fail_errno(err, relink->result, "parent locator of '%s'",
				       store_name(image->file));
	return 0;
}

/* --- the id of the content --- */

struct id_change {
	struct vhdx *vhdx;
	const struct disk_guid *id;
	struct vhdx_waiter waiter;
	bool done;
	int result;
};

static void id_changed(struct vhdx_waiter *waiter, int result)
{
	struct id_change *change = waiter->context;

	change->result = result;
	base_io_done(change->vhdx->image.loop, &change->done);
}

static void id_start(void *context)
{
	struct id_change *change = context;

	vhdx_journal_set_data_id(change->vhdx, change->id, &change->waiter);
}

int vhdx_set_data_id(struct image *image, const struct disk_guid *id, struct base_error *err)
{
	struct id_change change = {
		.vhdx = vhdx_of(image),
		.id = id,
		.waiter = { .run = id_changed },
	};

	if (!image->active)
		return base_fail(err, -EROFS, "'%s' is not active", store_name(image->file));
	change.waiter.context = &change;
	base_io_call(image->loop, id_start, &change);
	base_io_wait(image->loop, &change.done);
	if (change.result < 0)
		return base_fail_errno(err, change.result, "data id of '%s'",
				       store_name(image->file));
	return 0;
}
