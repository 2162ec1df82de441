/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One command to a worker's control socket, for lab tests: what deploy/ctl does, without an
 * interpreter, which takes a node of the lab a second to start.
 *
 *   worker_ctl SOCKET COMMAND [KEY=VALUE ...]
 *
 * true, false and decimal numbers are sent as such, all else as text.  Prints the result as JSON on
 * one line.  Exit status: 0 done, 1 refused (its line on standard error), 2 usage, 3 no answer.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int dial(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
		return -1;
	(void)strcpy(address.sun_path, path);
	return connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 ? fd : -1;
}

static json_t *value_of(const char *text)
{
	char *end = NULL;
	long long number = strtoll(text, &end, 10);

	if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
		return json_boolean(text[0] == 't');
	return *text != '\0' && *end == '\0' ? json_integer(number) : json_string(text);
}

static json_t *request_of(int argc, char **argv)
{
	json_t *request = json_pack("{s:i,s:s}", "id", 1, "cmd", argv[2]);

	for (int i = 3; i < argc && request != NULL; i++) {
		char *sign = strchr(argv[i], '=');

		if (sign == NULL) {
			json_decref(request);
			return NULL;
		}
		*sign = '\0';
		(void)json_object_set_new(request, argv[i], value_of(sign + 1));
	}
	return request;
}

static int show(const char *command, json_t *reply)
{
	const char *text = NULL;
	const char *code = "";
	json_t *result = json_object_get(reply, "result");

	if (json_is_true(json_object_get(reply, "ok"))) {
		if (result == NULL)
			(void)puts("{}");
		else if (json_dumpf(result, stdout, 0) == 0)
			(void)putchar('\n');
		return 0;
	}
	(void)json_unpack(reply, "{s:{s:s,s:s}}", "error", "text", &text, "code", &code);
	(void)fprintf(stderr, "ctl: %s: %s\n", command, text != NULL ? text : "refused");
	return strcmp(code, "ETIMEDOUT") == 0 ? 3 : 1;
}

int main(int argc, char **argv)
{
	json_t *request = argc < 3 ? NULL : request_of(argc, argv);
	json_t *reply = NULL;
	FILE *link = NULL;
	int status = 3;
	int fd = -1;

	if (request == NULL) {
		(void)fprintf(stderr, "usage: worker_ctl SOCKET COMMAND [KEY=VALUE ...]\n");
		return 2;
	}
	fd = dial(argv[1]);
	if (fd < 0 || (link = fdopen(fd, "r+")) == NULL) {
		(void)fprintf(stderr, "ctl: control socket '%s': %s, expected a running worker\n",
			      argv[1], strerror(errno));
		return 1;
	}
	if (json_dumpfd(request, fd, 0) == 0 && write(fd, "\n", 1) == 1)
		while (status == 3 &&
		       (reply = json_loadf(link, JSON_DISABLE_EOF_CHECK, NULL)) != NULL) {
			if (json_integer_value(json_object_get(reply, "id")) == 1)
				status = show(argv[2], reply);
			json_decref(reply);
			if (status != 3)
				break;
		}
	if (status == 3)
		(void)fprintf(stderr, "ctl: %s: the worker ended without an answer\n", argv[2]);
	json_decref(request);
	(void)fclose(link);
	return status;
}
