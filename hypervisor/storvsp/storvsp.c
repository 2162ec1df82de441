/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The controller: its units and its service to the machine.  Control calls, one at a time.
 */
#include "hypervisor/storvsp/storvsp_priv.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"

void storvsp_complain(struct storvsp *storvsp, enum storvsp_complaint kind, const char *what)
{
	static const char *const kinds[STORVSP_COMPLAINTS] = {
		[STORVSP_BAD_PACKET] = "packet",
		[STORVSP_BAD_ORDER] = "order",
		[STORVSP_BAD_SRB] = "request",
	};
	uint32_t bit = 1U << (uint32_t)kind;

	if ((atomic_fetch_or(&storvsp->complained, bit) & bit) == 0)
		base_log(BASE_LOG_WARNING, "scsi.refused", "vm=%s controller=%s kind=%s why=%s",
			 base_log_str(storvsp->options.vm_name), storvsp->name, kinds[kind],
			 base_log_str(what));
}

/* --- the units, seen by each loop --- */

struct unit_change {
	struct storvsp_shard *shard;
	uint32_t lun;
	const struct storvsp_medium *medium;
};

static void unit_change(void *context)
{
	struct unit_change *change = context;

	change->shard->units[change->lun] = *change->medium;
	change->shard->luns &= ~(1ULL << change->lun);
	if (change->medium->kind != STORVSP_INVALID)
		change->shard->luns |= 1ULL << change->lun;
}

static void unit_set(struct storvsp *storvsp, uint32_t lun, const struct storvsp_medium *medium)
{
	storvsp->units[lun] = *medium;
	for (uint32_t i = 0; i < storvsp->options.loop_count; i++) {
		struct unit_change change = { .shard = &storvsp->shards[i],
					      .lun = lun,
					      .medium = medium };

		base_io_call(storvsp->shards[i].loop, unit_change, &change);
	}
}

static void mark_gone(void *context)
{
	struct unit_change *change = context;
	struct storvsp_shard *shard = change->shard;

	for (uint32_t i = 0; i < STORVSP_CHANNELS_MAX; i++) {
		if (shard->storvsp->channels[i].shard == shard)
			storvsp_channel_gone(&shard->storvsp->channels[i], change->lun);
	}
}

/* safety: what the guest meant for the unit that was here must not get to one that comes next. */
static void unit_vacate(struct storvsp *storvsp, uint32_t lun)
{
	uint32_t drive = atomic_load(&storvsp->drive[lun]);

	for (uint32_t i = 0; i < storvsp->options.loop_count; i++) {
		struct unit_change change = { .shard = &storvsp->shards[i], .lun = lun };

		base_io_call(storvsp->shards[i].loop, mark_gone, &change);
	}
	drive = (drive & STORVSP_SEEN) != 0 ? STORVSP_VACATED
					    : drive & (STORVSP_VACATED | STORVSP_TOLD);
	atomic_store(&storvsp->drive[lun], drive);
}

static void tell_task(struct base_io_task *task)
{
	struct storvsp *storvsp =
		(struct storvsp *)((char *)task - offsetof(struct storvsp, tell_task));

	atomic_store(&storvsp->tell_posted, false);
	storvsp_tell_now(storvsp);
}

void storvsp_tell(struct storvsp *storvsp, uint32_t what)
{
	(void)atomic_fetch_or(&storvsp->tell, what);
	if (!atomic_exchange(&storvsp->tell_posted, true))
		base_io_post(storvsp->shards[0].loop, &storvsp->tell_task);
}

void storvsp_unpark_all(struct storvsp *storvsp)
{
	for (uint32_t i = 0; i <= storvsp->sub_max; i++) {
		struct storvsp_channel *channel = &storvsp->channels[i];

		if (!atomic_exchange(&channel->unpark_posted, true))
			base_io_post(channel->shard->loop, &channel->unpark_task);
	}
}

static void drain_begin(void *context)
{
	struct storvsp_drain *drain = context;
	struct storvsp_shard *shard = drain->shard;
	uint32_t count = drain->lun == STORVSP_ALL_LUNS ? shard->in_flight
							: shard->counts[drain->lun].in_flight;

	if (count == 0) {
		base_io_done(shard->loop, &drain->done);
		return;
	}
	drain->next = shard->drains;
	shard->drains = drain;
}

static void nothing(void *context)
{
	(void)context;
}

void storvsp_drain(struct storvsp *storvsp, uint32_t lun)
{
	for (uint32_t i = 0; i < storvsp->options.loop_count; i++) {
		struct storvsp_drain drain = { .shard = &storvsp->shards[i], .lun = lun };

		base_io_call(drain.shard->loop, drain_begin, &drain);
		base_io_wait(drain.shard->loop, &drain.done);
		/* Whoever counted the last one out has returned to the loop after this. */
		base_io_call(drain.shard->loop, nothing, NULL);
	}
}

/* --- give back, by control --- */

static void give_back(struct storvsp *storvsp, struct disk *disk)
{
	(void)atomic_fetch_add(&storvsp->giving_back, 1);
	disk_give_back(disk);
}

static void keep(struct storvsp *storvsp, struct disk *disk)
{
	disk_keep(disk);
	(void)atomic_fetch_sub(&storvsp->giving_back, 1);
}

/* --- attach, detach, change --- */

/* Made up for a disk without one: the controller's, with the number of the unit. */
static struct disk_guid unit_id(const struct storvsp *storvsp, uint32_t lun,
				const struct storvsp_medium *medium)
{
	struct disk_geometry geometry = { .size_bytes = 0 };
	struct disk_guid id = storvsp->options.instance;

	if (!disk_guid_is_zero(&medium->id))
		return medium->id;
	if (medium->disk != NULL)
		disk_geometry(medium->disk, &geometry);
	if (!disk_guid_is_zero(&geometry.id))
		return geometry.id;
	id.bytes[14] ^= 0x80;
	id.bytes[15] ^= (uint8_t)lun;
	return id;
}

static int medium_check(enum storvsp_kind kind, const struct disk *disk, struct base_error *err)
{
	struct disk_geometry geometry;

	if (kind <= STORVSP_INVALID || kind >= STORVSP_KINDS)
		return base_fail(err, -EINVAL, "kind of unit %d is unknown", (int)kind);
	if (disk == NULL)
		return kind == STORVSP_DVD ? 0 : base_fail(err, -EINVAL, "a unit without a disk");
	disk_geometry(disk, &geometry);
	if (kind == STORVSP_DVD && geometry.logical_sector_bytes > 2048)
		return base_fail(err, -EINVAL, "a DVD with sectors of %u bytes, more than 2048",
				 geometry.logical_sector_bytes);
	return 0;
}

int storvsp_attach(struct storvsp *storvsp, uint32_t lun, const struct storvsp_medium *medium,
		   struct base_error *err)
{
	struct storvsp_medium unit = *medium;
	int rc = lun < STORVSP_LUNS ? medium_check(medium->kind, medium->disk, err)
				    : base_fail(err, -EINVAL, "LUN %u, expected at most %u", lun,
						STORVSP_LUNS - 1);

	if (rc != 0)
		return base_fail_within(err, rc, "%s: attach", storvsp->name);
	(void)pthread_mutex_lock(&storvsp->control_lock);
	if (storvsp->units[lun].kind != STORVSP_INVALID) {
		rc = base_fail(err, -EBUSY, "%s: LUN %u is taken", storvsp->name, lun);
	} else {
		unit.id = unit_id(storvsp, lun, medium);
		atomic_store(&storvsp->attention[lun], 0);
		(void)atomic_fetch_and(&storvsp->drive[lun], STORVSP_VACATED | STORVSP_TOLD);
		if (storvsp->quiesced && unit.disk != NULL)
			give_back(storvsp, unit.disk);
		unit_set(storvsp, lun, &unit);
		storvsp_tell(storvsp, STORVSP_TELL_ENUMERATE);
	}
	(void)pthread_mutex_unlock(&storvsp->control_lock);
	return rc;
}

/* The unit is @next from here on, and nothing is at the disk that it had. */
static void unit_replace(struct storvsp *storvsp, uint32_t lun, const struct storvsp_medium *next)
{
	struct disk *disk = storvsp->units[lun].disk;

	unit_set(storvsp, lun, next);
	if (disk == NULL)
		return;
	give_back(storvsp, disk);
	storvsp_drain(storvsp, lun);
	keep(storvsp, disk);
	if (storvsp->quiesced)
		keep(storvsp, disk); /* quiesce() had asked too */
	else
		storvsp_unpark_all(storvsp);
}

int storvsp_detach(struct storvsp *storvsp, uint32_t lun, struct base_error *err)
{
	const struct storvsp_medium none = { .kind = STORVSP_INVALID };
	int rc = 0;

	(void)pthread_mutex_lock(&storvsp->control_lock);
	if (lun >= STORVSP_LUNS || storvsp->units[lun].kind == STORVSP_INVALID) {
		rc = base_fail(err, -ENOENT, "%s: there is no LUN %u", storvsp->name, lun);
	} else {
		unit_replace(storvsp, lun, &none);
		unit_vacate(storvsp, lun);
		storvsp_tell(storvsp, STORVSP_TELL_REMOVE);
	}
	(void)pthread_mutex_unlock(&storvsp->control_lock);
	return rc;
}

static int medium_change(struct storvsp *storvsp, uint32_t lun, struct disk *disk,
			 struct base_error *err)
{
	struct storvsp_medium unit;
	int rc = medium_check(STORVSP_DVD, disk, err);

	if (rc != 0)
		return rc;
	if (lun >= STORVSP_LUNS || storvsp->units[lun].kind == STORVSP_INVALID)
		return base_fail(err, -ENOENT, "there is no LUN %u", lun);
	if (storvsp->units[lun].kind != STORVSP_DVD)
		return base_fail(err, -EINVAL, "LUN %u is no DVD drive", lun);
	unit = storvsp->units[lun];
	unit.disk = NULL;
	unit_replace(storvsp, lun, &unit);
	(void)atomic_fetch_and(&storvsp->drive[lun], ~STORVSP_EJECTED);
	(void)atomic_fetch_or(&storvsp->attention[lun], SCSI_ATTENTION_MEDIUM);
	unit.disk = disk;
	if (storvsp->quiesced && disk != NULL)
		give_back(storvsp, disk);
	unit_set(storvsp, lun, &unit);
	/* Once more: a command that found the drive empty may have taken the first. */
	(void)atomic_fetch_or(&storvsp->attention[lun], SCSI_ATTENTION_MEDIUM);
	storvsp_tell(storvsp, STORVSP_TELL_ENUMERATE);
	return 0;
}

int storvsp_change_medium(struct storvsp *storvsp, uint32_t lun, struct disk *disk,
			  struct base_error *err)
{
	int rc = 0;

	(void)pthread_mutex_lock(&storvsp->control_lock);
	rc = medium_change(storvsp, lun, disk, err);
	(void)pthread_mutex_unlock(&storvsp->control_lock);
	return rc == 0 ? 0 : base_fail_within(err, rc, "%s: change medium", storvsp->name);
}

void storvsp_resized(struct storvsp *storvsp, uint32_t lun)
{
	if (lun >= STORVSP_LUNS)
		return;
	(void)atomic_fetch_or(&storvsp->attention[lun], SCSI_ATTENTION_CAPACITY);
	storvsp_tell(storvsp, STORVSP_TELL_ENUMERATE);
}

struct status_ask {
	struct storvsp_shard *shard;
	uint32_t lun;
	struct storvsp_lun_status *status;
};

static void status_add(void *context)
{
	struct status_ask *ask = context;
	const struct storvsp_lun_status *counts = &ask->shard->counts[ask->lun];

	ask->status->read_count += counts->read_count;
	ask->status->write_count += counts->write_count;
	ask->status->flush_count += counts->flush_count;
	ask->status->unmap_count += counts->unmap_count;
	ask->status->error_count += counts->error_count;
	ask->status->read_bytes += counts->read_bytes;
	ask->status->write_bytes += counts->write_bytes;
	ask->status->in_flight += counts->in_flight;
}

void storvsp_lun_status(struct storvsp *storvsp, uint32_t lun,
			struct storvsp_lun_status *ret_status)
{
	*ret_status = (struct storvsp_lun_status){ .kind = STORVSP_INVALID };
	if (lun >= STORVSP_LUNS)
		return;
	(void)pthread_mutex_lock(&storvsp->control_lock);
	ret_status->kind = storvsp->units[lun].kind;
	ret_status->seen = (atomic_load(&storvsp->drive[lun]) & STORVSP_SEEN) != 0;
	for (uint32_t i = 0; i < storvsp->options.loop_count; i++) {
		struct status_ask ask = { .shard = &storvsp->shards[i],
					  .lun = lun,
					  .status = ret_status };

		base_io_call(storvsp->shards[i].loop, status_add, &ask);
	}
	(void)pthread_mutex_unlock(&storvsp->control_lock);
}

/* --- life --- */

static void storvsp_init(struct storvsp *storvsp, const struct storvsp_options *options)
{
	storvsp->options = *options;
	(void)snprintf(storvsp->name, sizeof(storvsp->name), "scsi%u", options->index);
	for (uint32_t i = 0; i < options->loop_count; i++) {
		storvsp->shards[i].storvsp = storvsp;
		storvsp->shards[i].loop = options->loops[i];
	}
	storvsp->sub_max = options->vcpu_count > 1 ? options->vcpu_count - 1 : 0;
	if (storvsp->sub_max > STORVSP_CHANNELS_MAX - 1)
		storvsp->sub_max = STORVSP_CHANNELS_MAX - 1;
	for (uint32_t i = 0; i < STORVSP_CHANNELS_MAX; i++) {
		storvsp->channels[i].storvsp = storvsp;
		storvsp->channels[i].index = i;
		storvsp->channels[i].shard = &storvsp->shards[i % options->loop_count];
		storvsp_channel_init(&storvsp->channels[i]);
	}
	storvsp->tell_task = (struct base_io_task){ .run = tell_task };
	if (pthread_mutex_init(&storvsp->control_lock, NULL) != 0)
		base_bug("mutex of %s", storvsp->name);
}

int storvsp_new(const struct storvsp_options *options, struct storvsp **ret_storvsp,
		struct base_error *err)
{
	struct storvsp *storvsp = NULL;
	int rc = 0;

	if (options->loop_count == 0 || options->loop_count > STORVSP_LOOPS_MAX)
		return base_fail(err, -EINVAL, "SCSI controller %u: %u loops, expected 1 to %u",
				 options->index, options->loop_count, STORVSP_LOOPS_MAX);
	storvsp = calloc(1, sizeof(*storvsp));
	if (storvsp == NULL)
		return base_fail(err, -ENOMEM, "SCSI controller %u", options->index);
	storvsp_init(storvsp, options);
	rc = storvsp_channel_offer(&storvsp->channels[0], err);
	if (rc != 0) {
		(void)pthread_mutex_destroy(&storvsp->control_lock);
		free(storvsp);
		return base_fail_within(err, rc, "SCSI controller %u", options->index);
	}
	*ret_storvsp = storvsp;
	return 0;
}

struct last_task {
	struct base_io_task task;
	struct base_io_loop *loop;
	bool done;
};

static void last_run(struct base_io_task *task)
{
	struct last_task *last =
		(struct last_task *)((char *)task - offsetof(struct last_task, task));

	base_io_done(last->loop, &last->done);
}

static void channel_end(void *context)
{
	struct storvsp_channel *channel = context;

	free(channel->requests);
	free(channel->memory);
	channel->requests = NULL;
	channel->memory = NULL;
	channel->state = STORVSP_CLOSED;
}

/* Everything that was posted has run after this. */
static void settle(struct storvsp *storvsp)
{
	for (uint32_t i = 0; i < storvsp->options.loop_count; i++) {
		struct last_task last = { .task = { .run = last_run },
					  .loop = storvsp->shards[i].loop };

		base_io_post(last.loop, &last.task);
		base_io_wait(last.loop, &last.done);
		base_io_call(last.loop, nothing, NULL);
	}
}

void storvsp_free(struct storvsp *storvsp)
{
	if (storvsp == NULL)
		return;
	if (!storvsp->quiesced)
		(void)storvsp_service_ops.quiesce(storvsp, NULL);
	/* A sub-channel that closed with the last of its requests may be on its way out: closed,
	 * forgotten by the bus, gone. */
	for (uint32_t round = 0; round < 3; round++)
		settle(storvsp);
	for (uint32_t i = STORVSP_CHANNELS_MAX; i-- > 0;) {
		struct storvsp_channel *channel = &storvsp->channels[i];

		if (atomic_load(&channel->offer_state) != STORVSP_NOT_OFFERED)
			vmbus_channel_free(channel->offer);
		base_io_call(channel->shard->loop, channel_end, channel);
	}
	for (uint32_t i = 0; i < STORVSP_LUNS; i++) {
		if (storvsp->units[i].disk != NULL)
			keep(storvsp, storvsp->units[i].disk);
	}
	settle(storvsp);
	(void)pthread_mutex_destroy(&storvsp->control_lock);
	free(storvsp->saved);
	free(storvsp);
}
