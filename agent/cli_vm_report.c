/* SPDX-License-Identifier: Apache-2.0 */
/*
 * godwit vm report: a migration as a page, from the worker that it leaves or from what that told.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/cli_control.h"
#include "agent/cli_vm_priv.h"
#include "agent/report.h"
#include "base/cleanup.h"
#include "base/file.h"

#define TIMEOUT_S 10u

static int check(const struct cli_vm_args *args, struct base_error *err)
{
	if ((args->control == NULL) == (args->from == NULL))
		return base_fail(err, -EINVAL,
				 "options '--control' and '--from': expected one of them");
	if (args->from != NULL && args->wait)
		return base_fail(err, -EINVAL, "option '--wait': expected '--control' with it");
	if (args->report == NULL && !args->json)
		return base_fail(err, -EINVAL,
				 "option '--report': not given: expected the path of a file, or "
				 "'--json'");
	return 0;
}

/* What the worker tells, as text. */
static int ask(const struct cli_vm_args *args, char **ret_text, struct base_error *err)
{
	json_auto_t *request =
		json_pack("{s:s,s:b}", "cmd", "migrate-timeline", "wait", args->wait);
	json_auto_t *result = NULL;
	int code = 0;

	if (request == NULL)
		return base_fail_errno(err, -ENOMEM, "command to the worker");
	code = cli_control_ask(args->control, request, args->wait ? 0 : TIMEOUT_S, REPORT_BYTES_MAX,
			       &result, err);
	if (code < 0)
		return code;
	*ret_text = json_dumps(result, JSON_COMPACT | JSON_PRESERVE_ORDER);
	return *ret_text == NULL ? base_fail_errno(err, -ENOMEM, "timeline of a move") : 0;
}

static int load(const struct cli_vm_args *args, char **ret_text, size_t *ret_bytes,
		struct base_error *err)
{
	int code = 0;

	if (args->from != NULL) {
		uint8_t *bytes = NULL;

		code = base_file_load(args->from, REPORT_BYTES_MAX, &bytes, ret_bytes, err);
		*ret_text = (char *)bytes;
		return code == -EINVAL ? -EIO : code;
	}
	code = ask(args, ret_text, err);
	if (code == 0)
		*ret_bytes = strlen(*ret_text);
	return code;
}

static int write_page(struct base_new_file *file, const struct report *report,
		      struct base_error *err)
{
	BASE_FREE char *page = NULL;
	size_t bytes = 0;
	FILE *memory = open_memstream(&page, &bytes);
	bool whole = false;
	int code = 0;

	if (memory == NULL)
		return base_fail_errno(err, -ENOMEM, "page");
	report_page(report, memory);
	whole = ferror(memory) == 0;
	if (fclose(memory) != 0 || !whole)
		return base_fail_errno(err, -ENOMEM, "page");
	code = base_write_all(file->fd, page, bytes);
	return code < 0 ? base_fail_errno(err, code, "page") : 0;
}

/* A page is there as a whole or not at all; what is no file is not written over. */
static int save_page(const char *path, const struct report *report, struct base_error *err)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash != NULL ? slash + 1 : path;
	BASE_FREE char *folder =
		slash != NULL ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	BASE_CLOSE int fd = -1;
	struct base_new_file file;
	struct stat there;
	int code = 0;

	if (folder == NULL)
		return base_fail_errno(err, -ENOMEM, "page");
	if (lstat(path, &there) == 0 && !S_ISREG(there.st_mode))
		return base_fail(
			err, -EEXIST,
			"option '--report': '%s' is no regular file: expected one, or none", path);
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return base_fail_errno(err, errno == EINVAL ? -EIO : -errno,
				       "option '--report': '%s'", path);
	code = base_new_file_begin(fd, name, &file, err);
	if (code < 0)
		return base_fail_within(err, code, "option '--report': '%s'", path);
	code = write_page(&file, report, err);
	if (code == 0)
		code = base_new_file_commit(&file, err);
	else
		base_new_file_abort(&file);
	return code < 0 ? base_fail_within(err, code, "option '--report': '%s'", path) : 0;
}

int cli_vm_report(const void *arguments, struct base_error *err)
{
	const struct cli_vm_args *args = arguments;
	BASE_FREE char *text = NULL;
	BASE_FREE struct report *report = NULL;
	size_t bytes = 0;
	int code = check(args, err);

	if (code == 0)
		code = load(args, &text, &bytes, err);
	if (code == 0)
		code = report_decode(text, bytes, &report, err);
	if (code == 0 && args->report != NULL)
		code = save_page(args->report, report, err);
	if (code == 0 && args->json)
		(void)printf("%.*s\n", (int)bytes, text);
	return code;
}
