/* SPDX-License-Identifier: Apache-2.0 */
/* One command to a worker's control socket. */
#include "agent/cli_control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"

#define READ_BYTES 65536u

static int open_socket(const char *path, uint32_t timeout_s, int *ret_fd, struct base_error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const struct timeval timeout = { .tv_sec = timeout_s };
	BASE_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path))
		return base_fail(err, -EINVAL,
				 "option '--control': %zu bytes, expected at most %zu",
				 strlen(path), sizeof(address.sun_path) - 1);
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
	    connect(fd, (const struct sockaddr *)(const void *)&address, sizeof(address)) < 0)
		return base_fail_errno(err, errno == EINVAL ? -EIO : -errno, "control socket '%s'",
				       path);
	*ret_fd = base_take_fd(&fd);
	return 0;
}

static int send_request(int fd, json_t *request, struct base_error *err)
{
	BASE_FREE char *text = NULL;
	int code = 0;

	if (json_object_set_new(request, "id", json_integer(1)) == 0)
		text = json_dumps(request, JSON_COMPACT);
	if (text == NULL)
		return base_fail_errno(err, -ENOMEM, "command to the worker");
	code = base_write_all(fd, text, strlen(text));
	if (code == 0)
		code = base_write_all(fd, "\n", 1);
	return code < 0 ? base_fail_errno(err, code, "command to the worker") : 0;
}

/* One line, without its newline. */
static int read_line(int fd, size_t limit_bytes, char **ret_line, size_t *ret_bytes,
		     struct base_error *err)
{
	BASE_FREE char *line = NULL;
	size_t used = 0;

	for (;;) {
		char *more = realloc(line, used + READ_BYTES);
		ssize_t got = 0;
		const char *end = NULL;

		if (more == NULL)
			return base_fail_errno(err, -ENOMEM, "answer of the worker");
		line = more;
		got = read(fd, line + used, READ_BYTES);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return errno == EAGAIN
				       ? base_fail(err, -EIO, "answer of the worker: none came")
				       : base_fail_errno(err, -errno, "answer of the worker");
		if (got == 0)
			return base_fail(err, -EIO, "the worker ended without an answer");
		end = memchr(line + used, '\n', (size_t)got);
		used += (size_t)got;
		if (end != NULL) {
			*ret_bytes = (size_t)(end - line);
			*ret_line = base_take(&line);
			return 0;
		}
		if (used > limit_bytes)
			return base_fail(err, -EBADMSG,
					 "answer of the worker: more than %zu bytes in a line",
					 limit_bytes);
	}
}

static int take_answer(const char *line, size_t bytes, json_t **ret_result, struct base_error *err)
{
	json_auto_t *answer = json_loadb(line, bytes, JSON_REJECT_DUPLICATES, NULL);
	const char *text = NULL;

	if (json_is_true(json_object_get(answer, "ok")) &&
	    json_is_object(json_object_get(answer, "result"))) {
		*ret_result = json_incref(json_object_get(answer, "result"));
		return 0;
	}
	text = json_string_value(json_object_get(json_object_get(answer, "error"), "text"));
	if (!json_is_false(json_object_get(answer, "ok")) || text == NULL)
		return base_fail(err, -EBADMSG, "answer of the worker: expected a result");
	return base_fail(err, -EPROTO, "the worker refuses: %s", text);
}

int cli_control_ask(const char *path, json_t *request, uint32_t timeout_s, size_t limit_bytes,
		    json_t **ret_result, struct base_error *err)
{
	BASE_FREE char *line = NULL;
	BASE_CLOSE int fd = -1;
	size_t bytes = 0;
	int code = open_socket(path, timeout_s, &fd, err);

	if (code == 0)
		code = send_request(fd, request, err);
	if (code == 0)
		code = read_line(fd, limit_bytes, &line, &bytes, err);
	return code == 0 ? take_answer(line, bytes, ret_result, err) : code;
}
