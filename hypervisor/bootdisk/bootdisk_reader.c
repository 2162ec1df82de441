/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's end: serves the child's reads, and believes nothing it says. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/plain.h"
#include "hypervisor/bootdisk/bootdisk_reader.h"
#include "hypervisor/bootdisk/bootdisk_reader_priv.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

struct bootdisk_reader {
	int socket_fd;
};

int bootdisk_reader_start(struct bootdisk_reader **ret_reader, struct base_error *err)
{
	BASE_CLEANUP(bootdisk_reader_freep) struct bootdisk_reader *reader = NULL;
	BASE_CLOSE int other = -1;
	int fds[2];
	pid_t pid;

	reader = malloc(sizeof(*reader));
	if (reader == NULL)
		return base_fail(err, -ENOMEM, "boot disk reader");
	reader->socket_fd = -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return base_fail_errno(err, -errno, "boot disk reader: socket pair");
	reader->socket_fd = fds[0];
	other = fds[1];
	pid = fork();
	if (pid < 0)
		return base_fail_errno(err, -errno, "boot disk reader: fork");
	if (pid == 0) { /* forked twice: nobody has to wait for the keeper */
		pid = fork();
		if (pid == 0)
			reader_keeper(other);
		_exit(pid < 0 ? 1 : 0);
	}
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	*ret_reader = base_take(&reader);
	return 0;
}

void bootdisk_reader_free(struct bootdisk_reader *reader)
{
	if (reader == NULL)
		return;
	base_closep(&reader->socket_fd); /* the helper sees the end and goes */
	free(reader);
}

struct request {
	const struct bootdisk_source *source;
	int socket_fd;
	bool heard; /* a child has said something */
	struct reader_message message;
	struct reader_data data;
	int fds[READER_FDS];
};

static int serve_read(struct request *request, struct base_error *err)
{
	const struct bootdisk_source *source = request->source;
	uint64_t offset = request->message.offset;
	uint32_t bytes = request->message.size_bytes;
	size_t answer = offsetof(struct reader_data, bytes);
	ssize_t sent;

	if (bytes == 0 || bytes > BOOTDISK_LINE_BYTES || bytes % source->sector_bytes != 0 ||
	    offset % source->sector_bytes != 0 || offset > source->size_bytes ||
	    bytes > source->size_bytes - offset)
		return base_fail(err, -EBADMSG, "boot disk reader: a read it must not ask for");
	request->data.code = source->read(source->context, offset, request->data.bytes, bytes, err);
	if (request->data.code == 0)
		answer += bytes;
	sent = reader_send(request->socket_fd, &request->data, answer, NULL, 0);
	return sent < 0 ? base_fail(err, -EBADMSG, "boot disk reader: ended by itself") : 0;
}

/* A string of the child's: ends inside its room and is one line. */
static bool is_text(const char *text, size_t room)
{
	size_t bytes = strnlen(text, room);

	if (bytes == room)
		return false;
	for (size_t i = 0; i < bytes; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 0x7F)
			return false;
	return true;
}

static bool is_sealed(int fd, uint64_t most)
{
	struct stat about;
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && (seals & SEALS) == SEALS && fstat(fd, &about) == 0 &&
	       about.st_size > 0 && (uint64_t)about.st_size <= most;
}

static int take_failure(struct reader_message *message, struct base_error *err)
{
	static const int known[] = { -ENOENT, -EBADMSG, -EFBIG, -EIO, -ENOMEM, -EINVAL };
	int code = -EBADMSG;

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (message->code == known[i])
			code = known[i];
	if (!is_text(message->text, sizeof(message->text)))
		return base_fail(err, code, "boot disk: damaged (no text)");
	base_plain(message->text);
	return base_fail(err, code, "%s", message->text);
}

static int take_entry(struct request *request, struct bootdisk_entry *ret_entry,
		      struct base_error *err)
{
	const struct bootdisk_entry *entry = &request->message.entry;
	const uint64_t kernel_most = bootdisk_most(request->source, HV_KERNEL_BYTES_MAX);
	const uint64_t initrd_most = bootdisk_most(request->source, HV_INITRD_BYTES_MAX);

	if (request->message.code < 0)
		return take_failure(&request->message, err);
	if (request->fds[0] < 0 || !is_sealed(request->fds[0], kernel_most))
		return base_fail(err, -EBADMSG, "boot disk: kernel empty, too large or not sealed");
	if (request->fds[1] >= 0 && !is_sealed(request->fds[1], initrd_most))
		return base_fail(err, -EBADMSG, "boot disk: initrd empty, too large or not sealed");
	if (!is_text(entry->kernel_name, sizeof(entry->kernel_name)) ||
	    !is_text(entry->initrd_name, sizeof(entry->initrd_name)) ||
	    !is_text(entry->title, sizeof(entry->title)) ||
	    !is_text(entry->cmdline, sizeof(entry->cmdline)) ||
	    !is_text(entry->from, sizeof(entry->from)))
		return base_fail(err, -EBADMSG, "boot disk: names or command line are no text");
	*ret_entry = *entry;
	base_plain(ret_entry->kernel_name); /* these are for people only */
	base_plain(ret_entry->initrd_name);
	base_plain(ret_entry->title);
	base_plain(ret_entry->from);
	ret_entry->kernel_fd = base_take_fd(&request->fds[0]);
	ret_entry->initrd_fd = base_take_fd(&request->fds[1]);
	return 0;
}

static int wait_until(int fd, uint64_t deadline_ns, struct base_error *err)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	int ready;

	do {
		uint64_t now_ns = base_clock_boot_ns(&base_clock_system);

		if (now_ns >= deadline_ns)
			return base_fail(err, -ETIMEDOUT, "boot disk: not read within %u ms",
					 BOOTDISK_READER_LIMIT_MS);
		ready = poll(&poller, 1, (int)((deadline_ns - now_ns) / 1000000 + 1));
	} while (ready == 0 || (ready < 0 && errno == EINTR));
	return ready < 0 ? base_fail_errno(err, -errno, "boot disk: poll") : 0;
}

static int serve(struct request *request, struct bootdisk_entry *ret_entry, struct base_error *err)
{
	uint64_t deadline_ns =
		base_clock_boot_ns(&base_clock_system) + BOOTDISK_READER_LIMIT_MS * 1000000ULL;

	for (;;) {
		ssize_t got;
		int rc = wait_until(request->socket_fd, deadline_ns, err);

		if (rc < 0)
			return rc;
		for (size_t i = 0; i < READER_FDS; i++)
			base_closep(&request->fds[i]);
		got = reader_receive(request->socket_fd, &request->message,
				     sizeof(request->message), request->fds);
		if (got != sizeof(request->message))
			return base_fail(err, -EBADMSG, "boot disk: its reader was stopped");
		request->heard = true;
		if (request->message.kind == READER_DONE)
			return take_entry(request, ret_entry, err);
		if (request->message.kind != READER_READ)
			return base_fail(err, -EBADMSG, "boot disk reader: message %u",
					 request->message.kind);
		rc = serve_read(request, err);
		if (rc < 0)
			return rc;
	}
}

/* One order to the helper, and what comes of it. */
static int find_once(struct bootdisk_reader *reader, struct request *request,
		     struct bootdisk_entry *ret_entry, struct base_error *err)
{
	const struct reader_order order = {
		.size_bytes = request->source->size_bytes,
		.file_bytes_max = request->source->file_bytes_max,
		.sector_bytes = request->source->sector_bytes,
	};
	BASE_CLOSE int mine = -1;
	int fds[2];
	ssize_t sent;
	int rc;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return base_fail_errno(err, -errno, "boot disk reader: socket pair");
	mine = fds[0];
	sent = reader_send(reader->socket_fd, &order, sizeof(order), &fds[1], 1);
	(void)close(fds[1]);
	if (sent < 0)
		return base_fail(err, -EIO, "boot disk reader: its helper is gone");
	request->socket_fd = mine;
	rc = serve(request, ret_entry, err);
	for (size_t i = 0; i < READER_FDS; i++)
		base_closep(&request->fds[i]);
	return rc;
}

int bootdisk_reader_find(struct bootdisk_reader *reader, const struct bootdisk_source *source,
			 struct bootdisk_entry *ret_entry, struct base_error *err)
{
	BASE_FREE struct request *request = calloc(1, sizeof(*request));
	int rc;

	if (request == NULL)
		return base_fail(err, -ENOMEM, "boot disk reader");
	if (source->sector_bytes != 512 && source->sector_bytes != 4096)
		return base_fail(err, -EINVAL,
				 "boot disk: sector of %u bytes: expected 512 or 4096",
				 source->sector_bytes);
	request->source = source;
	for (size_t i = 0; i < READER_FDS; i++)
		request->fds[i] = -1;
	rc = find_once(reader, request, ret_entry, err);
	/* A helper that was ended with the order in its hand: the next one gets it once more. */
	if (rc == -EBADMSG && !request->heard)
		rc = find_once(reader, request, ret_entry, err);
	return rc;
}
