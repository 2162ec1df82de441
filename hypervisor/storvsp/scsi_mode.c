/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MODE SENSE and MODE SELECT.  No field can be changed: the write cache is the configuration's
 * decision, because whether "completed" means "flushed" is a promise to who runs the VM.  MODE
 * SELECT of the values that are in force is accepted, as initiators save and restore pages.
 */
#include <stddef.h>

#include "hypervisor/storvsp/scsi_priv.h"

#define CONTROL_CHANGEABLE 1
#define CONTROL_SAVED      3
#define ALL_PAGES          0x3f
#define PAGES_BYTES_MAX    128

/* A page with its header at @to; the size. */
static uint32_t page_recovery(const struct scsi_unit *unit, uint8_t *to)
{
	uint32_t size = unit->dvd ? 8 : 12;

	memset(to, 0, size);
	to[0] = 0x01;
	to[1] = (uint8_t)(size - 2);
	if (!unit->dvd)
		to[2] = 0xc0; /* AWRE, ARRE: a store relocates by itself */
	return size;
}

static uint32_t page_caching(const struct scsi_unit *unit, uint8_t *to)
{
	memset(to, 0, 20);
	to[0] = 0x08;
	to[1] = 18;
	to[2] = unit->write_cache && !unit->dvd ? 4 : 0; /* WCE */
	return 20;
}

static uint32_t page_control(const struct scsi_unit *unit, uint8_t *to)
{
	memset(to, 0, 12);
	to[0] = 0x0a;
	to[1] = 10;
	to[3] = 0x10;                                  /* unrestricted reordering */
	to[4] = unit->read_only && !unit->dvd ? 8 : 0; /* SWP */
	base_put_be16(to + 8, 0xffff);                 /* busy for as long as it takes */
	return 12;
}

/* MMC: CD/DVD capabilities and mechanical status. */
static uint32_t page_capabilities(const struct scsi_unit *unit, uint8_t *to)
{
	memset(to, 0, 22);
	to[0] = 0x2a;
	to[1] = 20;
	to[2] = 0x08 | 0x03;                                    /* reads DVD-ROM, CD-RW, CD-R */
	to[4] = 0x20 | 0x40;                                    /* mode 2 form 2, multi-session */
	to[6] = 0x20 | 0x08 | 0x01 | (unit->locked ? 0x02 : 0); /* tray, eject, lock */
	base_put_be16(to + 8, 0x1100); /* 4 x DVD, as good a figure as any */
	base_put_be16(to + 14, 0x1100);
	return 22;
}

struct mode_page {
	uint8_t code;
	bool disk, dvd;
	uint32_t (*write)(const struct scsi_unit *unit, uint8_t *to);
};
static const struct mode_page mode_pages[] = {
	{ 0x01, true, true, page_recovery },
	{ 0x08, true, true, page_caching },
	{ 0x0a, true, true, page_control },
	{ 0x2a, false, true, page_capabilities },
};
#define PAGE_COUNT (sizeof(mode_pages) / sizeof(mode_pages[0]))

/* 0: there is no such page. */
static uint32_t pages_write(const struct scsi_unit *unit, uint8_t code, bool mask, uint8_t *to)
{
	uint32_t size = 0;

	for (size_t i = 0; i < PAGE_COUNT; i++) {
		const struct mode_page *page = &mode_pages[i];
		uint32_t bytes = 0;

		if (!(unit->dvd ? page->dvd : page->disk) ||
		    (code != ALL_PAGES && code != page->code))
			continue;
		bytes = page->write(unit, to + size);
		if (mask) /* changeable values: none is */
			memset(to + size + 2, 0, bytes - 2);
		size += bytes;
	}
	return size;
}

static uint8_t device_specific(const struct scsi_unit *unit)
{
	if (unit->dvd)
		return 0;
	return (uint8_t)((unit->read_only ? 0x80 : 0) | 0x10); /* WP, DPOFUA */
}

static uint32_t descriptor_write(const struct scsi_unit *unit, bool wide, uint8_t *to)
{
	uint64_t count = unit->size_bytes / unit->block_bytes;

	if (wide) {
		memset(to, 0, 16);
		base_put_be64(to, count);
		base_put_be32(to + 12, unit->block_bytes);
		return 16;
	}
	base_put_be32(to, count > UINT32_MAX ? UINT32_MAX : (uint32_t)count);
	base_put_be32(to + 4, unit->block_bytes); /* three bytes of length behind a zero */
	return 8;
}

static void mode_sense(const struct scsi_call *call, bool ten)
{
	const uint8_t *cdb = call->cdb;
	uint8_t *data = call->plan->data;
	uint32_t header = ten ? 8 : 4;
	uint32_t descriptor = 0;
	uint32_t pages = 0;
	bool wide = ten && (cdb[1] & 0x10) != 0; /* LLBAA */

	if (cdb[2] >> 6 == CONTROL_SAVED) {
		scsi_refuse(call->plan, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_SAVING_NOT_SUPPORTED);
		return;
	}
	if (cdb[3] != 0 && cdb[3] != 0xff) { /* subpage */
		scsi_refuse_field(call->plan);
		return;
	}
	memset(data, 0, header);
	if ((cdb[1] & 8) == 0 && !call->unit->dvd) /* DBD */
		descriptor = descriptor_write(call->unit, wide, data + header);
	pages = pages_write(call->unit, cdb[2] & 0x3f, cdb[2] >> 6 == CONTROL_CHANGEABLE,
			    data + header + descriptor);
	if (pages == 0) {
		scsi_refuse_field(call->plan);
		return;
	}
	if (ten) {
		base_put_be16(data, (uint16_t)(header + descriptor + pages - 2));
		data[3] = device_specific(call->unit);
		data[4] = wide ? 1 : 0;
		base_put_be16(data + 6, (uint16_t)descriptor);
	} else {
		data[0] = (uint8_t)(header + descriptor + pages - 1);
		data[2] = device_specific(call->unit);
		data[3] = (uint8_t)descriptor;
	}
	scsi_good_data(call, header + descriptor + pages, ten ? base_get_be16(cdb + 7) : cdb[4]);
}

void scsi_mode_sense6(const struct scsi_call *call)
{
	mode_sense(call, false);
}

void scsi_mode_sense10(const struct scsi_call *call)
{
	mode_sense(call, true);
}

/* --- MODE SELECT --- */

static void mode_select(const struct scsi_call *call, uint32_t size)
{
	if ((call->cdb[1] & 0x10) == 0 || (call->cdb[1] & 1) != 0) /* PF; SP */
		scsi_refuse_field(call->plan);
	else
		scsi_want_parameters(call, size);
}

void scsi_mode_select6(const struct scsi_call *call)
{
	mode_select(call, call->cdb[4]);
}

void scsi_mode_select10(const struct scsi_call *call)
{
	mode_select(call, base_get_be16(call->cdb + 7));
}

/* The page at @page is one of ours and says what is in force. */
static bool page_agrees(const struct scsi_unit *unit, const uint8_t *page, uint32_t size)
{
	uint8_t ours[PAGES_BYTES_MAX];
	uint32_t bytes = pages_write(unit, page[0] & 0x3f, false, ours);

	return (page[0] & 0xc0) == 0 && page[0] != ALL_PAGES && bytes == size &&
	       memcmp(page + 1, ours + 1, size - 1) == 0;
}

/* Nothing can be changed, so a list is right when it changes nothing. */
static void mode_select_list(const struct scsi_call *call, uint32_t header, uint32_t descriptor)
{
	const uint8_t *data = call->plan->data;
	uint32_t size = (uint32_t)call->plan->length_bytes;
	uint32_t at = header;

	if (size < header || descriptor > size - header) {
		scsi_refuse(call->plan, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LENGTH);
		return;
	}
	at += descriptor;
	while (at < size) {
		uint32_t page = size - at < 2 ? 0 : 2U + data[at + 1];

		if (page == 0 || page > size - at) {
			scsi_refuse(call->plan, SCSI_KEY_ILLEGAL_REQUEST,
				    SCSI_ASC_PARAMETER_LENGTH);
			return;
		}
		if (!page_agrees(call->unit, data + at, page)) {
			scsi_refuse(call->plan, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_FIELD);
			return;
		}
		at += page;
	}
	scsi_good(call->plan);
}

void scsi_mode_select6_list(const struct scsi_call *call)
{
	mode_select_list(call, 4, call->plan->length_bytes >= 4 ? call->plan->data[3] : 0);
}

void scsi_mode_select10_list(const struct scsi_call *call)
{
	mode_select_list(call, 8,
			 call->plan->length_bytes >= 8 ? base_get_be16(call->plan->data + 6) : 0);
}
