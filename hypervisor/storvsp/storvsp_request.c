/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way of one command: planned, at the disk, answered; or parked and begun again.  All on the
 * channel's loop, but for io_done(), which comes on the disk's.
 */
#include "hypervisor/storvsp/storvsp_priv.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

/* --- answers --- */

static void answer_transport(struct storvsp_request *request, enum vstor_srb_status status)
{
	vstor_answer_srb(request->message, status, NULL, 0, request->answer);
	storvsp_channel_answer(request);
}

static void answer_invalid(struct storvsp_request *request, const char *what)
{
	storvsp_complain(request->channel->storvsp, STORVSP_BAD_SRB, what);
	answer_transport(request, VSTOR_SRB_INVALID_REQUEST);
}

static void count_error(struct storvsp_request *request)
{
	if (request->plan.status != SCSI_GOOD && request->srb.lun < STORVSP_LUNS)
		request->channel->shard->counts[request->srb.lun].error_count++;
}

/* The plan is an answer; @moved_bytes of data went to or came from the guest. */
static void answer_plan(struct storvsp_request *request, uint32_t moved_bytes)
{
	const struct scsi_plan *plan = &request->plan;
	enum vstor_srb_status status = VSTOR_SRB_SUCCESS;

	count_error(request);
	if (plan->status == SCSI_CHECK_CONDITION)
		status = VSTOR_SRB_ERROR_WITH_SENSE;
	else if (plan->status == SCSI_BUSY)
		status = VSTOR_SRB_BUSY;
	vstor_answer_srb(request->message, status, plan,
			 plan->status == SCSI_GOOD ? moved_bytes : 0, request->answer);
	storvsp_channel_answer(request);
}

static void effect(struct storvsp_request *request)
{
	_Atomic uint32_t *drive = NULL;

	if (request->plan.effect == SCSI_EFFECT_NONE)
		return; /* perhaps of a unit that is not there */
	drive = &request->channel->storvsp->drive[request->srb.lun];
	switch (request->plan.effect) {
	case SCSI_EFFECT_EJECT:
		(void)atomic_fetch_or(drive, STORVSP_EJECTED);
		break;
	case SCSI_EFFECT_LOAD:
		(void)atomic_fetch_and(drive, ~STORVSP_EJECTED);
		break;
	case SCSI_EFFECT_LOCK:
		(void)atomic_fetch_or(drive, STORVSP_LOCKED);
		break;
	case SCSI_EFFECT_UNLOCK:
		(void)atomic_fetch_and(drive, ~STORVSP_LOCKED);
		break;
	case SCSI_EFFECT_NONE:
	case SCSI_EFFECTS:
		break;
	}
}

/* @taken_bytes: of the guest's parameters. */
static void answer_data(struct storvsp_request *request, uint32_t taken_bytes)
{
	uint32_t size = request->plan.data_bytes;

	if (size > 0 && storvsp_data_put(request, size) != 0) {
		answer_invalid(request, "an answer's pages are no RAM");
		return;
	}
	if (request->plan.status == SCSI_GOOD)
		effect(request);
	answer_plan(request, size > 0 ? size : taken_bytes);
}

/* --- at the disk --- */

static void drains_look(struct storvsp_shard *shard)
{
	struct storvsp_drain **at = &shard->drains;

	while (*at != NULL) {
		struct storvsp_drain *drain = *at;
		uint32_t count = drain->lun == STORVSP_ALL_LUNS
					 ? shard->in_flight
					 : shard->counts[drain->lun].in_flight;

		if (count > 0) {
			at = &drain->next;
			continue;
		}
		*at = drain->next;
		base_io_done(shard->loop, &drain->done);
	}
}

static void counted_in(struct storvsp_request *request)
{
	request->channel->at_disk++;
	request->channel->shard->in_flight++;
	request->channel->shard->counts[request->srb.lun].in_flight++;
}

/* Last of all: who drains goes on from here. */
static void counted_out(struct storvsp_channel *channel, uint32_t lun)
{
	struct storvsp_shard *shard = channel->shard;

	channel->at_disk--;
	if (channel->at_disk == 0 && channel->state == STORVSP_CLOSING)
		storvsp_channel_closed(channel);
	shard->in_flight--;
	shard->counts[lun].in_flight--;
	drains_look(shard);
}

/* It was given back: nothing of it is under way.  Again, as if it had just come. */
static void park(struct storvsp_request *request)
{
	struct storvsp_channel *channel = request->channel;

	if (channel->shard->quiesced || atomic_load(&channel->storvsp->giving_back) > 0) {
		storvsp_list_add(&channel->parked, request);
		return;
	}
	if (request->tries++ > STORVSP_TRIES_MAX) {
		scsi_result(&request->plan, -ECANCELED);
		answer_plan(request, 0);
		return;
	}
	storvsp_request_begin(request);
}

static void count_done(struct storvsp_request *request)
{
	struct storvsp_lun_status *counts = &request->channel->shard->counts[request->srb.lun];

	switch (request->plan.action) {
	case SCSI_READ:
		counts->read_count++;
		counts->read_bytes += request->plan.length_bytes;
		break;
	case SCSI_WRITE:
	case SCSI_FILL:
		counts->write_count++;
		counts->write_bytes += request->plan.length_bytes;
		break;
	case SCSI_FLUSH:
		counts->flush_count++;
		break;
	case SCSI_UNMAP:
	case SCSI_ZERO:
		counts->unmap_count++;
		break;
	case SCSI_INVALID:
	case SCSI_ANSWER:
	case SCSI_PARAMETERS:
	case SCSI_ACTIONS:
		break;
	}
}

static uint32_t moved(const struct storvsp_request *request)
{
	switch (request->plan.action) {
	case SCSI_READ:
	case SCSI_WRITE:
		return (uint32_t)request->plan.length_bytes;
	case SCSI_UNMAP:
	case SCSI_ZERO:
	case SCSI_FILL: /* its parameters */
		return request->srb.transfer_bytes;
	case SCSI_FLUSH:
	case SCSI_INVALID:
	case SCSI_ANSWER:
	case SCSI_PARAMETERS:
	case SCSI_ACTIONS:
		break;
	}
	return 0;
}

static bool submit_step(struct storvsp_request *request);

static void done(struct storvsp_request *request)
{
	struct storvsp_channel *channel = request->channel;
	uint32_t lun = request->srb.lun;
	uint32_t bytes = moved(request);

	if (request->result == -EOPNOTSUPP && request->plan.action == SCSI_UNMAP)
		request->result = 0;
	if (request->result == 0 && channel->state == STORVSP_OPEN && submit_step(request))
		return;
	storvsp_data_unmap(request, request->result == 0);
	if (channel->state != STORVSP_OPEN) {
		storvsp_channel_release(request);
	} else if (request->result == -ECANCELED) {
		park(request);
	} else {
		if (request->result == 0)
			count_done(request);
		scsi_result(&request->plan, request->result);
		answer_plan(request, bytes);
	}
	if (channel->state == STORVSP_OPEN)
		storvsp_request_retry_bounce(channel);
	counted_out(channel, lun);
}

static void done_task(struct base_io_task *task)
{
	done((struct storvsp_request *)((char *)task - offsetof(struct storvsp_request, task)));
}

static void io_done(struct disk_request *io, int result)
{
	struct storvsp_request *request = io->context;
	struct base_io_loop *loop = request->channel->shard->loop;

	request->result = result;
	if (base_io_loop_is_owner(loop)) {
		done(request);
		return;
	}
	request->task = (struct base_io_task){ .run = done_task };
	base_io_post(loop, &request->task);
}

static void fill_step(struct storvsp_request *request)
{
	uint64_t left = request->plan.length_bytes - request->step;
	uint64_t chunk = left < STORVSP_TRANSFER_BYTES ? left : STORVSP_TRANSFER_BYTES;
	uint32_t count = 0;

	request->io.op = DISK_WRITE;
	request->io.offset_bytes = request->plan.offset_bytes + request->step;
	request->io.length_bytes = chunk;
	for (uint64_t at = 0; at < chunk; at += SCSI_DATA_BYTES) {
		uint64_t part = chunk - at < SCSI_DATA_BYTES ? chunk - at : SCSI_DATA_BYTES;

		request->iov[count++] =
			(struct iovec){ .iov_base = request->data, .iov_len = part };
	}
	request->io.iov = request->iov;
	request->io.iov_count = count;
	request->step += chunk;
}

/* Hand the next part to the disk; false: there is none. */
static bool submit_step(struct storvsp_request *request)
{
	const struct scsi_plan *plan = &request->plan;
	struct disk_request *io = &request->io;

	io->flags = 0;
	io->done = io_done;
	io->context = request;
	switch (plan->action) {
	case SCSI_UNMAP:
		if (request->step == plan->range_count)
			return false;
		io->op = DISK_UNMAP;
		scsi_unmap_range(&request->unit, plan, (uint32_t)request->step++, &io->offset_bytes,
				 &io->length_bytes);
		break;
	case SCSI_FILL:
		if (request->step == plan->length_bytes)
			return false;
		fill_step(request);
		break;
	case SCSI_READ:
	case SCSI_WRITE:
	case SCSI_FLUSH:
	case SCSI_ZERO:
		if (request->step++ > 0)
			return false;
		io->op = plan->action == SCSI_READ    ? DISK_READ
			 : plan->action == SCSI_WRITE ? DISK_WRITE
			 : plan->action == SCSI_FLUSH ? DISK_FLUSH
						      : DISK_ZERO;
		io->offset_bytes = plan->offset_bytes;
		io->length_bytes = plan->length_bytes;
		if (plan->action == SCSI_WRITE && plan->fua)
			io->flags = DISK_FUA;
		if (plan->action == SCSI_ZERO && plan->may_unmap)
			io->flags = DISK_MAY_UNMAP;
		break;
	case SCSI_INVALID:
	case SCSI_ANSWER:
	case SCSI_PARAMETERS:
	case SCSI_ACTIONS:
		base_bug("submit of action %d", (int)plan->action);
	}
	disk_submit(request->disk, io);
	return true;
}

static void submit(struct storvsp_request *request)
{
	request->step = 0;
	request->io = (struct disk_request){ .op = DISK_OP_INVALID };
	if (request->plan.action == SCSI_READ || request->plan.action == SCSI_WRITE) {
		switch (storvsp_data_map(request)) {
		case STORVSP_DATA_READY:
			break;
		case STORVSP_DATA_NO_BOUNCE:
			storvsp_list_add(&request->channel->bouncing, request);
			return;
		case STORVSP_DATA_FAULT:
			answer_invalid(request, "the buffer's pages are no RAM");
			return;
		}
	}
	counted_in(request);
	(void)submit_step(request); /* there is a first one */
}

void storvsp_request_retry_bounce(struct storvsp_channel *channel)
{
	if (channel->bounce_count > 0 && !channel->shard->quiesced &&
	    channel->bouncing.head != NULL)
		storvsp_request_begin(storvsp_list_take(&channel->bouncing));
}

/* --- planning --- */

static void act(struct storvsp_request *request)
{
	struct scsi_plan *plan = &request->plan;
	uint32_t taken_bytes = 0;

	if (plan->action == SCSI_PARAMETERS) {
		taken_bytes = (uint32_t)plan->length_bytes;
		if (storvsp_data_get(request, taken_bytes) != 0) {
			answer_invalid(request, "the parameters' pages are no RAM");
			return;
		}
		scsi_plan_parameters(&request->unit, &request->command, plan);
		base_assert(plan->action != SCSI_PARAMETERS);
	}
	if (plan->action == SCSI_ANSWER)
		answer_data(request, taken_bytes);
	else
		submit(request);
}

static void unit_of(const struct storvsp_request *request, const struct storvsp_medium *medium,
		    struct scsi_unit *ret_unit)
{
	struct storvsp *storvsp = request->channel->storvsp;
	uint32_t drive = atomic_load(&storvsp->drive[request->srb.lun]);
	bool dvd = medium->kind == STORVSP_DVD;
	bool in = medium->disk != NULL && (drive & STORVSP_EJECTED) == 0;
	struct disk_geometry geometry = { .size_bytes = 0, .logical_sector_bytes = 512 };

	if (in)
		disk_geometry(medium->disk, &geometry);
	*ret_unit = (struct scsi_unit){
		.dvd = dvd,
		.read_only = dvd || medium->read_only,
		.write_cache = medium->write_cache,
		.solid_state = medium->solid_state,
		.locked = (drive & STORVSP_LOCKED) != 0,
		.block_bytes = dvd ? 2048 : geometry.logical_sector_bytes,
		.physical_block_bytes = dvd ? 2048 : geometry.physical_sector_bytes,
		.unmap_bytes = dvd || medium->read_only ? 0 : geometry.unmap_granularity_bytes,
		.transfer_bytes_max = STORVSP_TRANSFER_BYTES,
		.id = medium->id,
		.luns = request->channel->shard->luns,
	};
	ret_unit->size_bytes = geometry.size_bytes - geometry.size_bytes % ret_unit->block_bytes;
	ret_unit->has_medium = in && ret_unit->size_bytes > 0;
	if (ret_unit->physical_block_bytes < ret_unit->block_bytes)
		ret_unit->physical_block_bytes = ret_unit->block_bytes;
}

static void absent(struct storvsp_request *request)
{
	const struct vstor_srb *srb = &request->srb;
	bool here = srb->path == 0 && srb->target == 0;

	base_assert(request->channel->shard != NULL); /* only an open channel has requests */
	request->command.attention = 0;
	if (scsi_plan_absent(&request->command, here ? request->channel->shard->luns : 0,
			     &request->plan)) {
		answer_data(request, 0);
		return;
	}
	/* Linux forgets the unit of that target and number on path 0, whichever path it was. */
	answer_transport(request,
			 srb->path == 0 ? VSTOR_SRB_INVALID_LUN : VSTOR_SRB_SELECTION_TIMEOUT);
}

/*
 * Whether the guest may mean the unit that was here before.  Not when it asks for an identity after
 * it was told that there is no such unit: then it looks at what is here now.
 */
static bool is_for_the_one_before(struct storvsp_request *request)
{
	_Atomic uint32_t *drive = &request->channel->storvsp->drive[request->srb.lun];
	const uint8_t *cdb = request->srb.cdb;
	uint32_t was = atomic_load(drive);

#ifdef GODWIT_MUTANT_STORVSP_VACATED
	return false;
#endif
	if (request->gone)
		return true;
	if ((was & STORVSP_VACATED) == 0 || cdb[0] == 0xa0) /* REPORT LUNS: of no unit */
		return false;
	if ((was & STORVSP_TOLD) == 0 || cdb[0] != 0x12 || (cdb[1] & 1) != 0) /* INQUIRY */
		return true;
	(void)atomic_fetch_and(drive, ~(STORVSP_VACATED | STORVSP_TOLD));
	return false;
}

/* And it is to look once more, when it has taken that in. */
static void answer_gone(struct storvsp_request *request, const struct storvsp_medium *medium)
{
	struct storvsp *storvsp = request->channel->storvsp;
	bool again = medium->kind != STORVSP_INVALID;

	(void)atomic_fetch_or(&storvsp->drive[request->srb.lun], STORVSP_TOLD);
	answer_transport(request, VSTOR_SRB_INVALID_LUN);
	if (again)
		storvsp_tell(storvsp, STORVSP_TELL_ENUMERATE);
}

/* Plan it; whichever channel tells a unit attention first takes it. */
static void plan_it(struct storvsp_request *request)
{
	_Atomic uint32_t *attention = &request->channel->storvsp->attention[request->srb.lun];
	uint32_t told = 0;

	do {
		request->command.attention = atomic_load(attention);
		scsi_plan(&request->unit, &request->command, &request->plan);
		told = request->plan.attention_told;
	} while (told != 0 && (atomic_fetch_and(attention, ~told) & told) == 0);
}

void storvsp_request_begin(struct storvsp_request *request)
{
	struct storvsp_channel *channel = request->channel;
	struct vstor_srb *srb = &request->srb;
	const struct storvsp_medium *medium = NULL;

	vstor_srb_decode(request->message, srb);
	request->plan = (struct scsi_plan){ .data = request->data };
	request->command = (struct scsi_command){ .transfer_bytes = srb->transfer_bytes };
	memcpy(request->command.cdb, srb->cdb, sizeof(srb->cdb));
	if (!srb->valid || request->malformed || srb->transfer_bytes > request->run_bytes) {
		answer_invalid(request, "length of the CDB, page list, or transfer length");
		return;
	}
	if (srb->path == 0 && srb->target == 0 && srb->lun < STORVSP_LUNS)
		medium = &channel->shard->units[srb->lun];
	if (medium != NULL && is_for_the_one_before(request)) {
		answer_gone(request, medium);
		return;
	}
	if (medium == NULL || medium->kind == STORVSP_INVALID) {
		absent(request);
		return;
	}
	if (srb->cdb[0] == 0x12) /* INQUIRY */
		(void)atomic_fetch_or(&channel->storvsp->drive[srb->lun], STORVSP_SEEN);
	request->disk = medium->disk;
	unit_of(request, medium, &request->unit);
	plan_it(request);
	act(request);
}
