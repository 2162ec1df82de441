/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two sides of a storage migration in one process: rounds over socket pairs, as between hosts,
 * with what verifies and orders them; then the disk is held, and goes on in the copy.
 */
#include "agent/vm_storage_move.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/pool.h"
#include "base/thread.h"
#include "hypervisor/disk/disk_move.h"
#include "migrate/mig_copy.h"

#define CHANNELS            2u /* more than a worker's processors can spare beside its guest */
#define LEFT_BYTES_DEFAULT  (1ULL << 20)
#define ROUNDS_WITHOUT_GAIN 3u
#define TIMEOUT_MS          60000u /* the other end is in this process: a store that hangs */

struct moving;

struct channel {
	struct moving *moving;
	uint32_t number; /* from 1 */
	int fds[2];
	struct mig_link *from;
	struct mig_link *to;
	int code;
	struct base_error err;
};

struct moving {
	const struct vm_storage_move_options *options;
	struct mig_plan plan;
	struct vm_migrate_out *out;
	struct vm_migrate_in *in;
	struct vm_image top;
	struct mig_intake *intake;
	struct mig_image *image;
	struct mig_copy *copy;
	struct base_pool *pool;
	struct mig_link *links[CHANNELS];
	struct channel channels[CHANNELS];
	uint8_t memory[MIG_PAGE_BYTES]; /* object 0, of which nothing is sent */
	uint64_t no_pages[2];
	char moved[STORE_NAME_BYTES]; /* what the old top image is called at the end */
	uint32_t round;
	uint64_t held_ns;
};

/* --- setting up --- */

static int channel_new(struct moving *moving, uint32_t index, struct base_error *err)
{
	struct channel *channel = &moving->channels[index];
	struct mig_link_options options = { .is_source = true, .timeout_ms = TIMEOUT_MS };
	int code = 0;

	channel->moving = moving;
	channel->number = index + 1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel->fds) < 0)
		return base_fail_errno(err, -errno, "channel of a storage migration");
	options.fd = channel->fds[0];
	code = mig_link_new(&options, &channel->from, err);
	options.is_source = false;
	options.fd = channel->fds[1];
	if (code == 0)
		code = mig_link_new(&options, &channel->to, err);
	if (code < 0)
		return code;
	moving->links[index] = channel->from;
	mig_link_register(channel->to, MIG_REGION_BOUNCE,
			  mig_intake_bounce(moving->intake, channel->number), MIG_BOUNCE_BYTES);
	return 0;
}

static int stream_new(struct moving *moving, struct base_error *err)
{
	uint32_t count = moving->plan.object_count;
	BASE_FREE struct mig_object *objects = calloc(count, sizeof(*objects));
	struct mig_intake_options intake = { .memory = moving->memory,
					     .objects = objects,
					     .object_count = count,
					     .channel_count = CHANNELS,
					     .disk = &vm_migrate_in_ops,
					     .disk_context = moving->in };
	struct mig_image_options image = { .ops = &vm_migrate_out_ops,
					   .context = moving->out,
					   .objects = objects,
					   .object_count = count,
					   .channel_count = CHANNELS };
	struct mig_copy_options copy = { .memory = moving->memory,
					 .page_count = 1,
					 .links = moving->links,
					 .channel_count = CHANNELS };
	int code = 0;

	if (objects == NULL)
		return base_fail(err, -ENOMEM, "storage migration of %" PRIu32 " images", count);
	for (uint32_t i = 0; i < count; i++)
		objects[i] = moving->plan.objects[i].object;
	code = mig_intake_new(&intake, &moving->intake, err);
	for (uint32_t i = 0; i < CHANNELS && code == 0; i++)
		code = channel_new(moving, i, err);
	/* Each channel takes two of them: a sender and a receiver. */
	if (code == 0)
		code = base_pool_new(2 * CHANNELS, "disk-move", &moving->pool, err);
	if (code == 0)
		code = mig_image_new(&image, &moving->image, err);
	copy.pool = moving->pool;
	copy.images = moving->image;
	return code == 0 ? mig_copy_new(&copy, &moving->copy, err) : code;
}

static int plan_new(struct moving *moving, struct base_error *err)
{
	struct mig_plan *plan = &moving->plan;

	plan->objects = calloc(1, sizeof(*plan->objects));
	if (plan->objects == NULL)
		return base_fail(err, -ENOMEM, "storage migration");
	plan->object_count = 1;
	plan->objects[0].object.unit_count = 1;
	return 0;
}

static int sides_new(struct moving *moving, struct base_error *err)
{
	const struct vm_storage_move_options *options = moving->options;
	const struct vm_migrate_from from = { .store = options->from, .disk = options->disk };
	const struct vm_migrate_in_options in = { .store = options->to,
						  .folder = options->folder,
						  .loop = disk_loop(options->disk),
						  .plan = &moving->plan };
	BASE_FREE struct mig_findings *findings = calloc(1, sizeof(*findings));
	int code = findings != NULL ? plan_new(moving, err)
				    : base_fail(err, -ENOMEM, "storage migration");

	if (code == 0)
		code = vm_migrate_out_new(&from, 1, &moving->plan, &moving->out, err);
	if (code == 0)
		code = vm_image_decode(moving->plan.objects[1].description, &moving->top, err);
	if (code == 0)
		code = vm_migrate_in_new(&in, findings, &moving->in, err);
	if (code == 0 && moving->in == NULL)
		code = base_fail(err, -EINVAL, "%s", findings->lines[0]);
	return code == 0 ? stream_new(moving, err) : code;
}

static void moving_fini(struct moving *moving)
{
	mig_copy_free(moving->copy);
	mig_image_free(moving->image);
	base_pool_free(moving->pool);
	for (uint32_t i = 0; i < CHANNELS; i++) {
		mig_link_free(moving->channels[i].from);
		mig_link_free(moving->channels[i].to);
		base_closep(&moving->channels[i].fds[0]);
		base_closep(&moving->channels[i].fds[1]);
	}
	mig_intake_free(moving->intake);
	vm_migrate_out_free(moving->out);
	vm_migrate_in_free(moving->in);
	mig_plan_fini(&moving->plan);
}

/* --- a round --- */

static void *receive(void *context)
{
	struct channel *channel = context;
	struct mig_intake *intake = channel->moving->intake;

	for (;;) {
		struct mig_received received;
		int code = mig_link_receive(channel->to, &received, &channel->err);

		if (code == 0 && received.type == MIG_TYPE_CHUNK)
			code = mig_intake_chunk(intake, channel->number, received.body,
						&channel->err);
		else if (code == 0 && received.type == MIG_TYPE_BARRIER)
			code = mig_intake_barrier(intake, channel->number,
						  base_get_le32(received.body), &channel->err);
		channel->code = code < 0 ? code : 0;
		if (code < 0) /* its sender comes to an end */
			(void)shutdown(channel->fds[1], SHUT_RDWR);
		if (code < 0 || received.type == MIG_TYPE_BARRIER)
			return NULL;
	}
}

static int wait_for(struct moving *moving, const pthread_t *threads, uint32_t count, int code,
		    struct base_error *err)
{
	/* Whoever waits for what will not come ends. */
	for (uint32_t i = 0; i < CHANNELS && code < 0; i++)
		(void)shutdown(moving->channels[i].fds[0], SHUT_RDWR);
	for (uint32_t i = 0; i < count; i++)
		(void)pthread_join(threads[i], NULL);
	/* The side that failed first says why; the other one saw a connection end. */
	for (uint32_t i = 0; i < count; i++) {
		const struct channel *channel = &moving->channels[i];

		if (channel->code < 0 && channel->code != -ENOTCONN && channel->code != -ECONNRESET)
			return base_fail(err, channel->code, "%s", channel->err.text);
	}
	return code;
}

static int send_round(struct moving *moving, bool last, struct base_error *err)
{
	pthread_t threads[CHANNELS];
	uint32_t count = 0;
	int code = mig_intake_round(moving->intake, moving->round, last, err);

	for (; code == 0 && count < CHANNELS; count++) {
		code = base_thread_start(&threads[count], "disk-move", receive,
					 &moving->channels[count], err);
		if (code < 0)
			break;
	}
	if (code == 0)
		code = mig_copy_round(moving->copy, moving->no_pages, moving->round, last, err);
	moving->round++;
	return wait_for(moving, threads, count, code, err);
}

static uint64_t sent_bytes(const struct moving *moving)
{
	struct mig_image_counts counts = mig_image_counts(moving->image);

	return counts.block_bytes + counts.clear_bytes + counts.unmap_bytes;
}

/* Until little is left, or what is left does not get less. */
static int converge(struct moving *moving, struct base_error *err)
{
	const struct vm_storage_move_options *options = moving->options;
	uint64_t enough = options->left_bytes != 0 ? options->left_bytes : LEFT_BYTES_DEFAULT;
	uint64_t best = UINT64_MAX;
	uint32_t without_gain = 0;

	for (;;) {
		uint64_t left = 0;
		int code = mig_image_harvest(moving->image, &left, err);

		if (code < 0)
			return code;
		if (options->progress != NULL &&
		    options->progress(options->context, sent_bytes(moving), left) != 0)
			return base_fail(err, -ECANCELED, "cancelled");
		without_gain = left < best ? 0 : without_gain + 1;
		best = left < best ? left : best;
		if (moving->round > 0 && (left <= enough || without_gain >= ROUNDS_WITHOUT_GAIN))
			return 0;
		code = send_round(moving, false, err);
		if (code == 0)
			code = vm_migrate_in_flush(moving->in, err);
		if (code < 0)
			return code;
	}
}

/* --- the switch --- */

static int fill(void *context, struct base_error *err)
{
	struct moving *moving = context;
	uint64_t left = 0;
	int code = 0;

	moving->held_ns = base_clock_boot_ns(&base_clock_system);
	vm_migrate_out_held(moving->out);
	code = mig_image_harvest(moving->image, &left, err);
	if (code == 0)
		code = send_round(moving, true, err);
	return code == 0 ? vm_migrate_in_finish(moving->in, err) : code;
}

/* Under its name nobody finds the old image any more: who starts the VM from there by mistake is
 * told so, and never runs on what is old. */
static int commit(void *context, struct base_error *err)
{
	const struct moving *moving = context;
	const struct vm_storage_move_options *options = moving->options;
	const char *name = disk_name(options->disk);
	const char *moved = moving->moved;
	int code = 0;

	/* safety: the old image is perhaps another worker's already. */
	if (options->gate.may_submit != NULL && !options->gate.may_submit(options->gate.context))
		return base_fail(err, -EAGAIN, "'%s': the leash has ended", name);
	code = store_rename(options->from, name, moved, err);
	if (code < 0)
		return code;
	code = store_sync_folder(options->from, moved, err);
	if (code < 0 && store_rename(options->from, moved, name, NULL) < 0)
		base_log(BASE_LOG_ERR, "vm.storage-move", "image=%s now=%s why=%s",
			 base_log_str(name), base_log_str(moved), "renamed-and-not-back");
	return code;
}

static void remove_old(const struct moving *moving)
{
	struct base_error why = { 0 };

	if (store_remove(moving->options->from, moving->moved, &why) < 0)
		base_log(BASE_LOG_WARNING, "vm.storage-move", "image=%s why=%s",
			 base_log_str(moving->moved), base_log_str(why.text));
}

static int switch_over(struct moving *moving, const char *name, struct base_error *err)
{
	const struct vm_storage_move_options *options = moving->options;
	const struct disk_move_options move = { .store = options->to,
						.name = name,
						.format = moving->top.format,
						.fill = fill,
						.commit = commit,
						.context = moving };
	int code = disk_move(options->disk, &move, err);

	if (code < 0)
		return code;
	moving->held_ns = base_clock_boot_ns(&base_clock_system) - moving->held_ns;
	vm_migrate_in_keep(moving->in);
	remove_old(moving);
	return 0;
}

static int run(struct moving *moving, struct vm_storage_move_report *report, struct base_error *err)
{
	const char *folder = moving->options->folder;
	size_t length = strlen(folder);
	int code = snprintf(moving->moved, sizeof(moving->moved), "%s.moved",
			    disk_name(moving->options->disk));

	if (code < 0 || (size_t)code >= sizeof(moving->moved))
		return base_fail(err, -ENAMETOOLONG, "no room for '.moved'");
	code = sides_new(moving, err);

	(void)snprintf(report->name, sizeof(report->name), "%s%s%s", folder,
		       length > 0 && folder[length - 1] != '/' ? "/" : "", moving->top.name);
	if (code == 0)
		code = converge(moving, err);
	if (code == 0)
		code = switch_over(moving, report->name, err);
	if (code < 0)
		return code;
	report->rounds = moving->round;
	report->sent_bytes = sent_bytes(moving);
	report->held_ns = moving->held_ns;
	return 0;
}

int vm_storage_move(const struct vm_storage_move_options *options,
		    struct vm_storage_move_report *ret_report, struct base_error *err)
{
	struct vm_storage_move_report report = { .rounds = 0 };
	struct moving *moving = calloc(1, sizeof(*moving));
	int code = 0;

	if (moving == NULL)
		return base_fail(err, -ENOMEM, "storage migration");
	moving->options = options;
	for (uint32_t i = 0; i < CHANNELS; i++) {
		moving->channels[i].fds[0] = -1;
		moving->channels[i].fds[1] = -1;
	}
	code = run(moving, &report, err);
	moving_fini(moving);
	free(moving);
	if (code == 0)
		*ret_report = report;
	return code < 0 ? base_fail_within(err, code, "storage of disk '%s'",
					   disk_name(options->disk))
			: 0;
}
