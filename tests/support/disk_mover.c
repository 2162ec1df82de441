/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/disk_mover.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"

#define TIMEOUT_MS 60000u

static int tcp_pair(int fds[2])
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr = { .s_addr = htonl(INADDR_LOOPBACK) } };
	socklen_t size = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&address, &size) < 0 ||
	    connect(fds[0], (struct sockaddr *)&address, size) < 0)
		return -errno;
	fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	(void)close(listener);
	return fds[1] < 0 ? -errno : 0;
}

static int channel_new(struct disk_mover *mover, uint32_t index, bool tcp, struct base_error *err)
{
	int *fds = mover->fds[index];
	struct mig_link_options options = { .is_source = true, .timeout_ms = TIMEOUT_MS };
	int code = tcp ? tcp_pair(fds) : socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds);

	if (code < 0)
		return base_fail(err, -EIO, "no pair of sockets");
	options.fd = fds[0];
	code = mig_link_new(&options, &mover->from[index], err);
	options.is_source = false;
	options.fd = fds[1];
	if (code == 0)
		code = mig_link_new(&options, &mover->to[index], err);
	if (code == 0)
		mig_link_register(mover->to[index], MIG_REGION_BOUNCE,
				  mig_intake_bounce(mover->intake, index + 1), MIG_BOUNCE_BYTES);
	mover->receivers[index] =
		(struct disk_mover_receiver){ .mover = mover, .channel = index + 1 };
	return code;
}

static int objects_new(struct disk_mover *mover)
{
	mover->plan.objects = calloc(1, sizeof(*mover->plan.objects));
	mover->memory = aligned_alloc(MIG_PAGE_BYTES, MIG_PAGE_BYTES);
	mover->no_pages = calloc(2, sizeof(*mover->no_pages));
	mover->findings = calloc(1, sizeof(*mover->findings));
	if (mover->plan.objects == NULL || mover->memory == NULL || mover->no_pages == NULL ||
	    mover->findings == NULL)
		return -ENOMEM;
	mover->plan.object_count = 1;
	mover->plan.objects[0].object.unit_count = 1;
	mover->plan.objects[0].description = calloc(1, 1);
	return 0;
}

static int stream_new(struct disk_mover *mover, bool tcp, struct base_error *err)
{
	uint32_t count = mover->plan.object_count;
	struct mig_intake_options intake = { .memory = mover->memory,
					     .object_count = count,
					     .channel_count = mover->channel_count,
					     .disk = &vm_migrate_in_ops,
					     .disk_context = mover->in };
	struct mig_image_options image = { .ops = &vm_migrate_out_ops,
					   .context = mover->out,
					   .object_count = count,
					   .channel_count = mover->channel_count };
	struct mig_copy_options copy = { .memory = mover->memory,
					 .page_count = 1,
					 .links = mover->from,
					 .channel_count = mover->channel_count };
	int code = 0;

	mover->objects = calloc(count, sizeof(*mover->objects));
	if (mover->objects == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++)
		mover->objects[i] = mover->plan.objects[i].object;
	intake.objects = mover->objects;
	image.objects = mover->objects;
	code = mig_intake_new(&intake, &mover->intake, err);
	for (uint32_t i = 0; i < mover->channel_count && code == 0; i++)
		code = channel_new(mover, i, tcp, err);
	if (code == 0)
		code = base_pool_new(mover->channel_count, "mover", &mover->pool, err);
	if (code == 0)
		code = mig_image_new(&image, &mover->image, err);
	copy.pool = mover->pool;
	copy.images = mover->image;
	return code == 0 ? mig_copy_new(&copy, &mover->copy, err) : code;
}

int disk_mover_init(struct disk_mover *mover, const struct disk_mover_options *options,
		    struct base_error *err)
{
	struct vm_migrate_in_options in = { .store = options->store,
					    .folder = options->folder,
					    .loop = options->loop,
					    .plan = &mover->plan };
	int code = 0;

	*mover = (struct disk_mover){ .channel_count = options->channel_count };
	memset(mover->fds, -1, sizeof(mover->fds));
	if (objects_new(mover) < 0)
		return base_fail(err, -ENOMEM, "mover");
	code = vm_migrate_out_new(options->disks, options->disk_count, &mover->plan, &mover->out,
				  err);
	if (code == 0)
		code = vm_migrate_in_new(&in, mover->findings, &mover->in, err);
	if (code < 0 || mover->in == NULL)
		return code;
	return stream_new(mover, options->tcp, err);
}

static void *receive(void *context)
{
	struct disk_mover_receiver *receiver = context;
	struct disk_mover *mover = receiver->mover;
	uint8_t *bounce = mig_intake_bounce(mover->intake, receiver->channel);

	for (;;) {
		struct mig_received received;
		int code = mig_link_receive(mover->to[receiver->channel - 1], &received,
					    &receiver->err);

		if (code == 0 && received.type == MIG_TYPE_CHUNK &&
		    atomic_exchange(&mover->damage, 0) > 0) {
			for (uint32_t at = 0; at < MIG_BOUNCE_BYTES; at += 512)
				bounce[at] ^= 1;
		}
		if (code == 0 && received.type == MIG_TYPE_CHUNK)
			code = mig_intake_chunk(mover->intake, receiver->channel, received.body,
						&receiver->err);
		else if (code == 0 && received.type == MIG_TYPE_BARRIER)
			code = mig_intake_barrier(mover->intake, receiver->channel,
						  base_get_le32(received.body), &receiver->err);
		receiver->code = code;
		if (code < 0) /* as a destination that fails: the source notices */
			(void)shutdown(mover->fds[receiver->channel - 1][1], SHUT_RDWR);
		if (code < 0 || received.type == MIG_TYPE_BARRIER)
			return NULL;
	}
}

int disk_mover_round(struct disk_mover *mover, bool last, uint64_t *ret_bytes,
		     struct base_error *err)
{
	uint64_t bytes = 0;
	int code = mig_image_harvest(mover->image, &bytes, err);

	if (ret_bytes != NULL)
		*ret_bytes = bytes;
	if (code == 0)
		code = mig_intake_round(mover->intake, mover->round, last, err);
	if (code < 0)
		return code;
	for (uint32_t i = 0; i < mover->channel_count; i++)
		if (pthread_create(&mover->receivers[i].thread, NULL, receive,
				   &mover->receivers[i]) != 0)
			base_bug("no thread");
	code = mig_copy_round(mover->copy, mover->no_pages, mover->round, last, err);
	for (uint32_t i = 0; i < mover->channel_count && code < 0; i++)
		mig_link_cancel(mover->from[i]);
	for (uint32_t i = 0; i < mover->channel_count; i++) {
		struct disk_mover_receiver *receiver = &mover->receivers[i];

		if (code < 0)
			(void)shutdown(mover->fds[i][0], SHUT_RDWR);
		(void)pthread_join(receiver->thread, NULL);
	}
	for (uint32_t i = 0; i < mover->channel_count; i++) {
		struct disk_mover_receiver *receiver = &mover->receivers[i];

		if (receiver->code < 0 && receiver->code != -ENOTCONN &&
		    receiver->code != -ECONNRESET)
			return base_fail(err, receiver->code, "%s", receiver->err.text);
	}
	mover->round++;
	if (code == 0)
		mig_copy_confirmed(mover->copy);
	return code;
}

void disk_mover_fini(struct disk_mover *mover)
{
	mig_copy_free(mover->copy);
	mig_image_free(mover->image);
	base_pool_free(mover->pool);
	for (uint32_t i = 0; i < mover->channel_count; i++) {
		mig_link_free(mover->from[i]);
		mig_link_free(mover->to[i]);
		base_closep(&mover->fds[i][0]);
		base_closep(&mover->fds[i][1]);
	}
	mig_intake_free(mover->intake);
	vm_migrate_in_free(mover->in);
	vm_migrate_out_free(mover->out);
	mig_plan_fini(&mover->plan);
	free(mover->objects);
	free(mover->memory);
	free(mover->no_pages);
	free(mover->findings);
}
