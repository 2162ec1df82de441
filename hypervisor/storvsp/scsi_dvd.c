/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands of a DVD drive (MMC) with a finished medium of one session and one data track.
 */
#include <stddef.h>

#include "hypervisor/storvsp/scsi_priv.h"

#define LEAD_OUT        0xaa
#define DATA_TRACK      0x14 /* Q channel: a data track, digital copying not permitted */
#define PROFILE_DVD_ROM 0x0010
#define PROFILE_CD_ROM  0x0008
#define CD_BYTES_MAX    (900ULL << 20) /* larger than any CD */
#define MSF_OFFSET      150            /* blocks in front of block 0: two seconds */
#define EVENT_MEDIA     0x10

static uint32_t last_block(const struct scsi_unit *unit)
{
	uint64_t count = unit->size_bytes / unit->block_bytes;

	return count > UINT32_MAX ? UINT32_MAX : (uint32_t)count;
}

/* A block address as it is, or in minutes, seconds and frames. */
static void put_address(uint8_t *to, uint32_t block, bool msf)
{
	uint64_t frames = (uint64_t)block + MSF_OFFSET;

	if (!msf) {
		base_put_be32(to, block);
		return;
	}
	to[0] = 0;
	to[1] = (uint8_t)(frames / 75 / 60 > 255 ? 255 : frames / 75 / 60);
	to[2] = (uint8_t)(frames / 75 % 60);
	to[3] = (uint8_t)(frames % 75);
}

static uint8_t *put_track(uint8_t *to, uint8_t track, uint32_t block, bool msf)
{
	memset(to, 0, 8);
	to[1] = DATA_TRACK;
	to[2] = track;
	put_address(to + 4, block, msf);
	return to + 8;
}

void scsi_read_toc(const struct scsi_call *call)
{
	const uint8_t *cdb = call->cdb;
	uint8_t *data = call->plan->data;
	uint8_t *at = data + 4;
	bool msf = (cdb[1] & 2) != 0;
	uint8_t format = cdb[2] & 15;

	if (format == 0)
		format = cdb[9] >> 6; /* where it was before MMC */
	data[2] = 1;                  /* first track or session */
	data[3] = 1;                  /* last */
	switch (format) {
	case 0: /* tracks from the one asked for on */
		if (cdb[6] > 1 && cdb[6] != LEAD_OUT) {
			scsi_refuse_field(call->plan);
			return;
		}
		if (cdb[6] <= 1)
			at = put_track(at, 1, 0, msf);
		at = put_track(at, LEAD_OUT, last_block(call->unit), msf);
		break;
	case 1: /* sessions: the first track of the last one */
		at = put_track(at, 1, 0, msf);
		break;
	default:
		scsi_refuse_field(call->plan);
		return;
	}
	base_put_be16(data, (uint16_t)(at - data - 2));
	scsi_good_data(call, (uint32_t)(at - data), base_get_be16(cdb + 7));
}

/* --- GET CONFIGURATION --- */

static uint32_t current_profile(const struct scsi_unit *unit)
{
	if (!unit->has_medium)
		return 0;
	return unit->size_bytes <= CD_BYTES_MAX ? PROFILE_CD_ROM : PROFILE_DVD_ROM;
}

struct feature {
	uint32_t code;
	uint8_t version_and_bits; /* version << 2 | persistent << 1; current is bit 0 */
	uint8_t size_bytes;
	uint8_t data[8];
	bool with_medium; /* current only then */
};
static const struct feature features[] = {
	/* profile list: DVD-ROM, CD-ROM; which is current is put in */
	{ 0x0000, 0x03, 8, { 0, 0x10, 0, 0, 0, 0x08, 0, 0 }, false },
	/* core: SCSI family */
	{ 0x0001, 0x0b, 8, { 0, 0, 0, 1, 1, 0, 0, 0 }, false },
	/* morphing: operational change events are polled for */
	{ 0x0002, 0x07, 4, { 2, 0, 0, 0 }, false },
	/* removable medium: tray, eject, lock */
	{ 0x0003, 0x07, 4, { 0x29, 0, 0, 0 }, false },
	/* random readable: 2048 bytes, one block at a time */
	{ 0x0010, 0x00, 8, { 0, 0, 0x08, 0, 0, 1, 0, 0 }, true },
	/* CD read, DVD read */
	{ 0x001e, 0x08, 4, { 0, 0, 0, 0 }, true },
	{ 0x001f, 0x08, 4, { 0, 0, 0, 0 }, true },
};

static uint8_t *put_feature(const struct scsi_unit *unit, const struct feature *feature,
			    uint8_t *to)
{
	uint32_t profile = current_profile(unit);

	base_put_be16(to, (uint16_t)feature->code);
	to[2] = feature->version_and_bits;
	if (feature->with_medium && unit->has_medium)
		to[2] |= 1;
	to[3] = feature->size_bytes;
	memcpy(to + 4, feature->data, feature->size_bytes);
	if (feature->code == 0) {
		to[4 + 2] = profile == PROFILE_DVD_ROM;
		to[4 + 6] = profile == PROFILE_CD_ROM;
	}
	return to + 4 + feature->size_bytes;
}

void scsi_get_configuration(const struct scsi_call *call)
{
	uint8_t *data = call->plan->data;
	uint8_t *at = data + 8;
	uint32_t request = call->cdb[1] & 3; /* 0 all, 1 the current ones, 2 one of them */
	uint32_t first = base_get_be16(call->cdb + 2);

	if (request == 3) {
		scsi_refuse_field(call->plan);
		return;
	}
	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		const struct feature *feature = &features[i];
		bool current = !feature->with_medium || call->unit->has_medium;

		if (request == 2 ? feature->code != first : feature->code < first)
			continue;
		if (request == 1 && !current)
			continue;
		at = put_feature(call->unit, feature, at);
	}
	memset(data, 0, 8);
	base_put_be32(data, (uint32_t)(at - data - 4));
	base_put_be16(data + 6, (uint16_t)(current_profile(call->unit)));
	scsi_good_data(call, (uint32_t)(at - data), base_get_be16(call->cdb + 7));
}

/* Polled only: the state of the medium.  That it has changed is told as a unit attention. */
void scsi_get_event(const struct scsi_call *call)
{
	uint8_t *data = call->plan->data;

	if ((call->cdb[1] & 1) == 0) { /* IMMED: asynchronous events there are not */
		scsi_refuse_field(call->plan);
		return;
	}
	memset(data, 0, 8);
	data[3] = EVENT_MEDIA; /* classes supported */
	if ((call->cdb[4] & EVENT_MEDIA) == 0) {
		base_put_be16(data, 2);
		data[2] = 0x80; /* NEA: none of those asked for */
		scsi_good_data(call, 4, base_get_be16(call->cdb + 7));
		return;
	}
	base_put_be16(data, 6);
	data[2] = 4; /* class: media */
	data[5] = call->unit->has_medium ? 2 : 0;
	scsi_good_data(call, 8, base_get_be16(call->cdb + 7));
}

void scsi_read_disc_information(const struct scsi_call *call)
{
	uint8_t *data = call->plan->data;

	if ((call->cdb[1] & 7) != 0) { /* only the standard data */
		scsi_refuse_field(call->plan);
		return;
	}
	memset(data, 0, 34);
	base_put_be16(data, 32);
	data[2] = 0x0e; /* last session complete, finalized */
	data[3] = 1;    /* first track */
	data[4] = 1;    /* sessions */
	data[5] = 1;    /* first and last track of the last session */
	data[6] = 1;
	data[7] = 0x20;                       /* unrestricted use */
	base_put_be32(data + 16, UINT32_MAX); /* there is no further lead-in and lead-out */
	base_put_be32(data + 20, UINT32_MAX);
	scsi_good_data(call, 34, base_get_be16(call->cdb + 7));
}

void scsi_read_track_information(const struct scsi_call *call)
{
	uint8_t *data = call->plan->data;
	uint32_t kind = call->cdb[1] & 3; /* 0 by address, 1 by track, 2 by session */
	uint32_t number = base_get_be32(call->cdb + 2);

	if (kind == 3 || (kind != 0 && number != 1) ||
	    (kind == 0 && number >= last_block(call->unit))) {
		scsi_refuse_field(call->plan);
		return;
	}
	memset(data, 0, 36);
	base_put_be16(data, 34);
	data[2] = 1; /* track, session */
	data[3] = 1;
	data[5] = 4; /* data track */
	data[6] = 1; /* mode 1 */
	base_put_be32(data + 24, last_block(call->unit));
	scsi_good_data(call, 36, base_get_be16(call->cdb + 7));
}

void scsi_mechanism_status(const struct scsi_call *call)
{
	memset(call->plan->data, 0, 8);
	scsi_good_data(call, 8, base_get_be16(call->cdb + 8));
}
