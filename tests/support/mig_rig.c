/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/mig_rig.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/thread.h"

#define TIMEOUT_MS 5000u

void mig_rig_listen(struct mig_rig_place *place)
{
	*place = (struct mig_rig_place){ .address = { .sun_family = AF_UNIX },
					 .address_bytes = sizeof(place->address) };
	place->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (place->listen_fd < 0 ||
	    bind(place->listen_fd, (struct sockaddr *)&place->address, sizeof(sa_family_t)) < 0 ||
	    getsockname(place->listen_fd, (struct sockaddr *)&place->address,
			&place->address_bytes) < 0 ||
	    listen(place->listen_fd, 20) < 0)
		base_bug("rig: nowhere to listen, error %d", errno);
}

int mig_rig_dial(const struct mig_rig_place *place)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 ||
	    connect(fd, (const struct sockaddr *)&place->address, place->address_bytes) < 0)
		base_bug("rig: nobody listens, error %d", errno);
	return fd;
}

int mig_rig_connect(void *context, int *ret_fd, struct base_error *err)
{
	struct mig_rig *rig = context;
	int left = atomic_load(&rig->refused);

	if (rig->refuse_from != 0 && rig->connects >= rig->refuse_from)
		left = -1;
	if (left != 0) {
		atomic_store(&rig->refused, left - 1);
		return base_fail(err, rig->refuse_code != 0 ? rig->refuse_code : -ECONNREFUSED,
				 "connect: by the test's wish");
	}
	*ret_fd = mig_rig_dial(&rig->place);
	if (rig->between != NULL)
		*ret_fd = rig->between(rig->connects, *ret_fd);
	rig->connects++;
	return 0;
}

void mig_rig_init(struct mig_rig *rig)
{
	memset(rig, 0, sizeof(*rig));
	mig_fake_world_init(&rig->world);
	mig_fake_vm_init(&rig->source, &rig->world, true);
	mig_fake_vm_init(&rig->destination, &rig->world, false);
	rig->arbiter = mig_fake_arbiter(&rig->destination);
	rig->linger_ms = 20000;
	mig_rig_listen(&rig->place);
	rig->in_options = (struct mig_in_options){ .vm = &mig_fake_destination,
						   .vm_context = &rig->destination,
						   .listen_fd = rig->place.listen_fd,
						   .arbiter = &rig->arbiter,
						   .keeps_register = true,
						   .timeout_ms = TIMEOUT_MS,
						   .retry_ms = 5 };
	rig->out_options =
		(struct mig_out_options){ .vm = &mig_fake_source,
					  .vm_context = &rig->source,
					  .connect = mig_rig_connect,
					  .connect_context = rig,
					  .epoch = MIG_FAKE_EPOCH,
					  .channel_count = 3,
					  .timeout_ms = TIMEOUT_MS,
					  .retry_ms = 5,
					  .pace = { .downtime_goal_ns = 50 * BASE_NS_PER_MS,
						    .time_limit_ns = 20 * BASE_NS_PER_SECOND } };
}

void mig_rig_use_tls(struct mig_rig *rig)
{
	mig_tls_lab_init(&rig->lab);
	mig_tls_lab_host(&rig->lab,
			 &(struct mig_tls_lab_host){ .folder = "a", .names = "DNS:a.example" });
	mig_tls_lab_host(&rig->lab,
			 &(struct mig_tls_lab_host){ .folder = "b", .names = "DNS:b.example" });
	if (mig_tls_lab_open(&rig->lab, "a", true, "b.example", &rig->source_tls, &rig->err) < 0 ||
	    mig_tls_lab_open(&rig->lab, "b", false, "a.example", &rig->destination_tls, &rig->err) <
		    0)
		base_bug("rig: %s", rig->err.text);
	rig->out_options.tls = rig->source_tls;
	rig->in_options.tls = rig->destination_tls;
}

void mig_rig_fini(struct mig_rig *rig)
{
	mig_out_free(rig->out);
	mig_in_free(rig->in);
	if (rig->destination_tls != NULL)
		mig_tls_lab_fini(&rig->lab);
	mig_tls_free(rig->source_tls);
	mig_tls_free(rig->destination_tls);
	mig_fake_vm_fini(&rig->source);
	mig_fake_vm_fini(&rig->destination);
	base_closep(&rig->place.listen_fd);
	if (rig->world.twice != 0 || rig->world.bad_page != 0)
		base_bug("%d times two at once, %u bad pages", rig->world.twice,
			 rig->world.bad_page);
}

static void *run_in(void *context)
{
	struct mig_rig *rig = context;

	rig->in_end = mig_in_run(rig->in, &rig->in_epoch, &rig->in_err);
	mig_in_linger(rig->in, rig->linger_ms);
	return NULL;
}

void mig_rig_begin(struct mig_rig *rig)
{
	if (mig_in_new(&rig->in_options, &rig->in, &rig->err) < 0 ||
	    mig_out_new(&rig->out_options, &rig->out, &rig->err) < 0 ||
	    base_thread_start(&rig->in_thread, "run-in", run_in, rig, &rig->err) < 0)
		base_bug("rig: %s", rig->err.text);
	mig_fake_vm_start(&rig->source);
}

enum mig_out_end mig_rig_finish(struct mig_rig *rig)
{
	enum mig_out_end end = mig_out_run(rig->out, &rig->findings, &rig->err);

	base_thread_join(rig->in_thread);
	return end;
}
