/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The controller as a service of the machine: quiesce, resume, reset, save, load.
 */
#include "hypervisor/storvsp/storvsp_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void each_channel(struct storvsp_shard *shard, void (*each)(struct storvsp_channel *channel))
{
	struct storvsp *storvsp = shard->storvsp;

	for (uint32_t i = 0; i < STORVSP_CHANNELS_MAX; i++) {
		if (storvsp->channels[i].shard == shard)
			each(&storvsp->channels[i]);
	}
}

static void quiesce_shard(void *context)
{
	((struct storvsp_shard *)context)->quiesced = true;
}

static void flush_shard(void *context)
{
	each_channel(context, storvsp_channel_flush);
}

static void resume_shard(void *context)
{
	((struct storvsp_shard *)context)->quiesced = false;
}

static void all_shards(struct storvsp *storvsp, void (*call)(void *shard))
{
	for (uint32_t i = 0; i < storvsp->options.loop_count; i++)
		base_io_call(storvsp->shards[i].loop, call, &storvsp->shards[i]);
}

static int quiesce(void *service, struct base_error *err)
{
	struct storvsp *storvsp = service;

	(void)err;
	(void)pthread_mutex_lock(&storvsp->control_lock);
	all_shards(storvsp, quiesce_shard);
	for (uint32_t i = 0; i < STORVSP_LUNS; i++) {
		if (storvsp->units[i].disk == NULL)
			continue;
		(void)atomic_fetch_add(&storvsp->giving_back, 1);
		disk_give_back(storvsp->units[i].disk);
	}
#ifndef GODWIT_MUTANT_STORVSP_DRAIN
	storvsp_drain(storvsp, STORVSP_ALL_LUNS);
#endif
	all_shards(storvsp, flush_shard);
	storvsp->quiesced = true;
	(void)pthread_mutex_unlock(&storvsp->control_lock);
	return 0;
}

static void resume(void *service)
{
	struct storvsp *storvsp = service;

	(void)pthread_mutex_lock(&storvsp->control_lock);
	storvsp->quiesced = false;
	for (uint32_t i = 0; i < STORVSP_LUNS; i++) {
		if (storvsp->units[i].disk == NULL)
			continue;
		disk_keep(storvsp->units[i].disk);
		(void)atomic_fetch_sub(&storvsp->giving_back, 1);
	}
	all_shards(storvsp, resume_shard);
	storvsp_unpark_all(storvsp);
	if (atomic_load(&storvsp->tell) != 0)
		storvsp_tell(storvsp, 0);
	(void)pthread_mutex_unlock(&storvsp->control_lock);
}

static void drop_channel(struct storvsp_channel *channel)
{
	if (channel->state == STORVSP_OPEN)
		storvsp_channel_drop(channel);
}

static void reset_shard(void *context)
{
	each_channel(context, drop_channel);
}

static int reset(void *service, struct base_error *err)
{
	struct storvsp *storvsp = service;

	(void)err;
	(void)pthread_mutex_lock(&storvsp->control_lock);
	all_shards(storvsp, reset_shard);
	atomic_store(&storvsp->protocol, STORVSP_IDLE);
	atomic_store(&storvsp->tell, 0);
	atomic_store(&storvsp->complained, 0);
	for (uint32_t i = 0; i < STORVSP_LUNS; i++) {
		atomic_store(&storvsp->attention[i], 0);
		atomic_store(&storvsp->drive[i], 0);
	}
	(void)pthread_mutex_unlock(&storvsp->control_lock);
	return 0;
}

static uint32_t section_count(void *service)
{
	(void)service;
	return 1;
}

static struct hv_service_section section(void *service, uint32_t index)
{
	const struct storvsp *storvsp = service;
	struct hv_service_section result = storvsp_section;

	(void)index;
	result.instance = storvsp->options.index;
	return result;
}

static int save(void *service, uint32_t index, struct base_buffer *out, struct base_error *err)
{
	struct storvsp *storvsp = service;
	int rc = 0;

	(void)index;
	(void)pthread_mutex_lock(&storvsp->control_lock);
	rc = storvsp_state_save(storvsp, out, err);
	(void)pthread_mutex_unlock(&storvsp->control_lock);
	return rc;
}

static int load_checked(struct storvsp *storvsp, struct base_reader *in, struct base_error *err)
{
	struct base_reader check = *in;
	size_t size = base_reader_left(in);
	int rc = storvsp_state_check(storvsp, &check, err);

	if (rc != 0)
		return rc;
	free(storvsp->saved);
	storvsp->saved = malloc(size);
	if (storvsp->saved == NULL)
		return base_fail(err, -ENOMEM, "%zu bytes", size);
	storvsp->saved_bytes = size;
	base_read_bytes(in, storvsp->saved, size);
	return storvsp_state_apply(storvsp, err);
}

static int load(void *service, uint32_t index, uint32_t version, struct base_reader *in,
		struct base_error *err)
{
	struct storvsp *storvsp = service;
	int rc = 0;

	(void)index;
	if (version != storvsp_section.version)
		return base_fail(err, -ENOTSUP, "%s: version %u of the state, expected %u",
				 storvsp->name, version, storvsp_section.version);
	(void)pthread_mutex_lock(&storvsp->control_lock);
	rc = load_checked(storvsp, in, err);
	(void)pthread_mutex_unlock(&storvsp->control_lock);
	return rc == 0 ? 0 : base_fail_within(err, rc, "%s", storvsp->name);
}

struct take_up {
	struct storvsp_channel *channel;
	int result;
};

/* The bus has opened it again, without asking. */
static void take_up(void *context)
{
	struct take_up *up = context;
	struct storvsp_channel *channel = up->channel;

	if (atomic_load(&channel->offer_state) != STORVSP_OFFERED ||
	    channel->state != STORVSP_CLOSED || !vmbus_channel_is_open(channel->offer))
		return;
	up->result = storvsp_channel_memory(channel);
	if (up->result != 0)
		return;
	channel->bus = channel->offer;
	channel->state = STORVSP_OPEN;
}

static void retract_subs(void *context)
{
	storvsp_channel_retract_subs(context);
}

static int loaded_locked(struct storvsp *storvsp, struct base_error *err)
{
	int rc = 0;

	if (storvsp->saved == NULL)
		return 0;
	for (uint32_t i = 0; i <= storvsp->sub_max; i++) {
		struct take_up up = { .channel = &storvsp->channels[i] };

		base_io_call(up.channel->shard->loop, take_up, &up);
		if (up.result != 0)
			return base_fail(err, up.result, "memory of channel %u", i);
	}
	rc = storvsp_state_apply_requests(storvsp, err);
	if (storvsp_channel_is_lost(&storvsp->channels[0]))
		base_io_call(storvsp->shards[0].loop, retract_subs, storvsp);
	return rc;
}

static int loaded(void *service, struct base_error *err)
{
	struct storvsp *storvsp = service;
	int rc = 0;

	(void)pthread_mutex_lock(&storvsp->control_lock);
	rc = loaded_locked(storvsp, err);
	free(storvsp->saved);
	storvsp->saved = NULL;
	(void)pthread_mutex_unlock(&storvsp->control_lock);
	return rc == 0 ? 0 : base_fail_within(err, rc, "%s", storvsp->name);
}

const struct hv_service_ops storvsp_service_ops = {
	.quiesce = quiesce,
	.resume = resume,
	.reset = reset,
	.section_count = section_count,
	.section = section,
	.save = save,
	.load = load,
	.loaded = loaded,
};
