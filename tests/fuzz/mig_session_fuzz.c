/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole sessions with a hostile other side, over VMs that are none.  The first byte says which side
 * is ours; then lists of frames (mig_compose.h): as destination, of the source's control channel,
 * of which the first is answered before a data channel comes, and behind a length those of the data
 * channel; as source, what the destination says on each connection.  Whatever it is: the session
 * comes to its end, one VM runs at most, and what stays is one that may.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/thread.h"
#include "migrate/mig_link.h"
#include "tests/fuzz/mig_compose.h"
#include "tests/support/mig_rig.h"

#define STREAM_BYTES (64u << 10) /* goes into a socket at once */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct mig_fake_world world;
static struct mig_fake_vm vm;
static uint8_t stream[STREAM_BYTES];

static void must(bool holds)
{
	if (!holds)
		abort();
}

/* --- our side is the destination --- */

static struct mig_rig_place place;

static void say(int fd, const void *bytes, size_t size)
{
	if (size > 0)
		(void)!send(fd, bytes, size, MSG_NOSIGNAL);
}

static void say_open(int fd, uint16_t channel, const uint8_t *secret)
{
	struct mig_open open = { .version_min = 1,
				 .version_max = MIG_VERSION,
				 .channel = channel,
				 .channel_count = 1,
				 .id = { 1 } };
	uint8_t bytes[MIG_FRAME_BYTES + MIG_OPEN_BYTES];
	struct mig_frame frame = { .type = MIG_TYPE_OPEN, .body_bytes = MIG_OPEN_BYTES };

	if (secret != NULL)
		memcpy(open.secret, secret, sizeof(open.secret));
	mig_open_encode(&open, bytes + MIG_FRAME_BYTES);
	frame.body_crc = base_crc32c(0, bytes + MIG_FRAME_BYTES, MIG_OPEN_BYTES);
	mig_frame_encode(&frame, bytes);
	say(fd, bytes, sizeof(bytes));
}

static void hear_secret(int fd, uint8_t ret_secret[MIG_ID_BYTES])
{
	uint8_t bytes[MIG_FRAME_BYTES + MIG_OPENED_BYTES];
	const struct timeval patience = { .tv_usec = 3000 }; /* for what may come or not */
	struct mig_opened opened;

	must(base_read_all(fd, bytes, sizeof(bytes)) == 0); /* also over the fuzzer's alarm */
	must(mig_opened_decode(bytes + MIG_FRAME_BYTES, MIG_OPENED_BYTES, &opened, NULL) == 0);
	memcpy(ret_secret, opened.secret, MIG_ID_BYTES);
	must(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
}

static void *run_in(void *context)
{
	uint64_t epoch = 0;
	enum mig_in_end end = mig_in_run(context, &epoch, NULL);

	must(end == MIG_IN_GONE || (atomic_load(&vm.runs) && world.owner.owner == MIG_DESTINATION));
	must(end != MIG_IN_GONE || !atomic_load(&vm.runs));
	return NULL;
}

static void talk(const uint8_t *data, size_t size)
{
	size_t of_control = size < 2 ? 0 : base_get_le16(data) % size;
	uint8_t secret[MIG_ID_BYTES];
	uint8_t answer[4096];
	BASE_CLOSE int control = mig_rig_dial(&place);
	BASE_CLOSE int channel = -1;
	size_t used = 0;

	say_open(control, 0, NULL);
	hear_secret(control, secret);
	data += size < 2 ? 0 : 2;
	size -= size < 2 ? 0 : 2;
	of_control = of_control < size ? of_control : size;
	say(control, stream, mig_compose_one(data, of_control, stream, STREAM_BYTES, &used));
	(void)!recv(control, answer, sizeof(answer), 0);
	channel = mig_rig_dial(&place);
	say_open(channel, 1, secret);
	say(channel, stream,
	    mig_compose(data + of_control, size - of_control, stream, STREAM_BYTES));
	say(control, stream, mig_compose(data + used, of_control - used, stream, STREAM_BYTES));
	(void)shutdown(control, SHUT_WR);
	(void)shutdown(channel, SHUT_WR);
	while (recv(control, answer, sizeof(answer), 0) > 0)
		continue;
}

static void as_destination(const uint8_t *data, size_t size)
{
	const struct mig_arbiter arbiter = mig_fake_arbiter(&vm);
	struct mig_in_options options = { .vm = &mig_fake_destination,
					  .vm_context = &vm,
					  .arbiter = &arbiter,
					  .keeps_register = true,
					  .timeout_ms = 200,
					  .retry_ms = 1,
					  .give_up_ms = 1 };
	struct mig_in *in = NULL;
	pthread_t thread;

	mig_rig_listen(&place);
	options.listen_fd = place.listen_fd;
	must(mig_in_new(&options, &in, NULL) == 0);
	must(base_thread_start(&thread, "run-in", run_in, in, NULL) == 0);
	talk(data, size);
	base_thread_join(thread);
	mig_in_free(in);
	base_closep(&place.listen_fd);
}

/* --- our side is the source --- */

struct script {
	const uint8_t *data;
	size_t size;
	uint32_t connects;
	int peers[8];
};

static int connect_script(void *context, int *ret_fd, struct base_error *err)
{
	struct script *script = context;
	size_t part = script->size / 2;
	bool first = script->connects == 0;
	int fds[2];

	if (script->connects == 8)
		return base_fail(err, -ECONNREFUSED, "script: over");
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	script->peers[script->connects++] = fds[1];
	say(fds[1], stream,
	    mig_compose(first ? script->data : script->data + part,
			first ? part : script->size - part, stream, STREAM_BYTES));
	(void)shutdown(fds[1], SHUT_WR);
	*ret_fd = fds[0];
	return 0;
}

static void as_source(const uint8_t *data, size_t size)
{
	static struct mig_findings findings;
	struct script script = { .data = data, .size = size };
	struct mig_arbiter arbiter =
		mig_fake_arbiter(&vm); /* the destination's word is not asked */
	const struct mig_out_options options = { .vm = &mig_fake_source,
						 .vm_context = &vm,
						 .connect = connect_script,
						 .connect_context = &script,
						 .arbiter = &arbiter,
						 .epoch = MIG_FAKE_EPOCH,
						 .channel_count = 1,
						 .timeout_ms = 200,
						 .retry_ms = 1 };
	struct mig_out *out = NULL;
	enum mig_out_end end;

	mig_fake_vm_start(&vm);
	must(mig_out_new(&options, &out, NULL) == 0);
	end = mig_out_run(out, &findings, NULL);
	must((end == MIG_OUT_MOVED) == (world.owner.owner == MIG_DESTINATION));
	must((end == MIG_OUT_MOVED) == !atomic_load(&vm.runs));
	mig_out_free(out);
	for (uint32_t i = 0; i < script.connects; i++)
		(void)close(script.peers[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool source = size > 0 && (data[0] & 1) != 0;

	if (size < 1)
		return 0;
	mig_fake_world_init(&world);
	mig_fake_vm_init(&vm, &world, false);
	if (source)
		as_source(data + 1, size - 1);
	else
		as_destination(data + 1, size - 1);
	mig_fake_vm_fini(&vm);
	must(world.twice == 0);
	return 0;
}
