/* SPDX-License-Identifier: Apache-2.0 */
/*
 * godwit disk check.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>

#include "agent/cli_disk_priv.h"

/* The findings beyond this are counted and not kept: a damaged table can give millions. */
#define FINDINGS_SHOWN 1000

struct report {
	json_t *findings; /* JSON wanted */
	uint64_t count;
	bool show;
	bool no_memory;
};

static const char *finding_word(enum disk_finding finding)
{
	switch (finding) {
	case DISK_LEAK:
		return "leak";
	case DISK_DAMAGE:
		return "damage";
	case DISK_REPAIRED:
		return "repaired";
	case DISK_FINDING_INVALID:
	case DISK_FINDINGS:
		break;
	}
	return "unknown";
}

static void note(void *context, enum disk_finding finding, const char *text)
{
	struct report *report = context;
	json_t *item;

	if (report->count++ >= FINDINGS_SHOWN)
		return;
	if (report->findings != NULL) {
		item = json_pack("{s:s, s:s}", "kind", finding_word(finding), "text", text);
		if (item == NULL || json_array_append_new(report->findings, item) != 0)
			report->no_memory = true;
	} else if (report->show) {
		(void)printf("%s: %s\n", finding_word(finding), text);
	}
}

static json_t *result_json(const char *name, const struct disk_check_result *result,
			   const struct report *report)
{
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:O}", "filename", name,
			 "damages", (json_int_t)result->damages, "leaks", (json_int_t)result->leaks,
			 "leaked-bytes", (json_int_t)result->leaked_bytes, "repaired",
			 (json_int_t)result->repaired, "total-blocks",
			 (json_int_t)result->blocks_total, "allocated-blocks",
			 (json_int_t)result->blocks_allocated, "image-end-offset",
			 (json_int_t)result->end_bytes, "findings", report->findings);
}

static void result_text(const struct disk_check_result *result, const struct report *report)
{
	char size[CLI_SIZE_SHOWN_BYTES];

	if (report->count > FINDINGS_SHOWN)
		(void)printf("... and %" PRIu64 " more\n", report->count - FINDINGS_SHOWN);
	if (result->repaired > 0)
		(void)printf("%" PRIu64 " repaired\n", result->repaired);
	if (result->leaks > 0) {
		cli_size_show(result->leaked_bytes, size);
		(void)printf("%" PRIu64 " leaks, %s that nothing uses; they do no harm\n",
			     result->leaks, size);
	}
	if (result->blocks_total > 0)
		(void)printf("%" PRIu64 " of %" PRIu64 " blocks allocated\n",
			     result->blocks_allocated, result->blocks_total);
	if (result->damages == 0)
		(void)printf("No damage found\n");
}

static int check(struct cli_disk *session, const struct cli_disk_args *args, struct report *report,
		 struct base_error *err)
{
	struct disk_check_result result = { 0 };
	struct disk_options options = {
		.store = session->store,
		.loop = session->loop,
		.format = cli_disk_format_of(args->format),
		.on_no_space = DISK_POLICY_REPORT,
		.on_io_error = DISK_POLICY_REPORT,
		.on_gone = DISK_POLICY_REPORT,
	};
	bool repair = args->repair || args->mend != 0;
	int rc = cli_disk_probe(session, args->name, args->format, &options.name, err);

	if (rc == 0 && !args->force_share)
		rc = cli_disk_not_in_use(session, args->name, err);
	if (rc < 0)
		return rc;
	options.read_only = !repair;
	rc = disk_check(&options, repair, note, report, &result, err);
	rc = cli_disk_words(session, cli_disk_begun(rc), err);
	if (rc < 0)
		return rc;
	if (report->no_memory)
		return base_fail(err, -ENOMEM, "findings as JSON");
	if (report->findings != NULL)
		rc = cli_disk_print_json(result_json(args->name, &result, report), err);
	else if (report->show)
		result_text(&result, report);
	if (rc == 0 && result.damages > 0)
		rc = base_fail(err, -EBADMSG,
			       "'%s' is damaged: %" PRIu64 " findings: expected none%s", args->name,
			       result.damages,
			       repair ? "; they cannot be mended without guessing" : "");
	return rc;
}

int cli_disk_check(const void *arguments, struct base_error *err)
{
	const struct cli_disk_args *args = arguments;
	struct report report = { .show = !args->quiet };
	struct cli_disk session = { 0 };
	int rc = cli_disk_begin(&session, err);

	if (rc == 0 && cli_disk_wants_json(args)) {
		report.findings = json_array();
		if (report.findings == NULL)
			rc = base_fail(err, -ENOMEM, "findings as JSON");
	}
	if (rc == 0)
		rc = check(&session, args, &report, err);
	json_decref(report.findings);
	cli_disk_end(&session);
	return rc;
}
