/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker tells of a move over time, read and checked. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "agent/report.h"
#include "base/cleanup.h"

static int bad(struct base_error *err, const char *key, const char *expected)
{
	return base_fail(err, -EBADMSG, "timeline of a move: key '%s': expected %s", key, expected);
}

static bool is_count(const json_t *value)
{
	return json_is_integer(value) && json_integer_value(value) >= 0;
}

/* Missing is 0. */
static int read_count(const json_t *object, const char *key, uint64_t *ret_value,
		      struct base_error *err)
{
	const json_t *value = json_object_get(object, key);

	if (value == NULL)
		return 0;
	if (!is_count(value))
		return bad(err, key, "an integer from 0");
	*ret_value = (uint64_t)json_integer_value(value);
	return 0;
}

/* Missing is empty; what is too long is cut, between characters. */
static int read_text(const json_t *object, const char *key, char ret_text[REPORT_TEXT_BYTES],
		     struct base_error *err)
{
	const json_t *value = json_object_get(object, key);
	size_t length = 0;

	if (value == NULL)
		return 0;
	if (!json_is_string(value))
		return bad(err, key, "a string");
	length = json_string_length(value);
	if (length >= REPORT_TEXT_BYTES) {
		length = REPORT_TEXT_BYTES - 1;
		while (length > 0 &&
		       ((unsigned char)json_string_value(value)[length] & 0xc0) == 0x80)
			length--;
	}
	memcpy(ret_text, json_string_value(value), length);
	ret_text[length] = '\0';
	return 0;
}

/* A list of @width numbers. */
static int read_row(const json_t *row, size_t width, uint64_t *values)
{
	if (!json_is_array(row) || json_array_size(row) < width)
		return -EBADMSG;
	for (size_t i = 0; i < width; i++) {
		if (!is_count(json_array_get(row, i)))
			return -EBADMSG;
		values[i] = (uint64_t)json_integer_value(json_array_get(row, i));
	}
	return 0;
}

static bool has_list(const json_t *root, const char *key, size_t most, const json_t **ret_list)
{
	*ret_list = json_object_get(root, key);
	return json_is_array(*ret_list) && json_array_size(*ret_list) <= most;
}

static int read_samples(const json_t *root, struct report *report, struct base_error *err)
{
	const json_t *list = NULL;
	struct mig_timeline_sample before = { 0 };

	if (!has_list(root, "samples", REPORT_SAMPLES_MAX, &list))
		return bad(err, "samples", "a list of at most 4096");
	for (size_t i = 0; i < json_array_size(list); i++) {
		uint64_t row[6] = { 0 };
		struct mig_timeline_sample *sample = &report->samples[i];

		if (read_row(json_array_get(list, i), 6, row) < 0 || row[5] > 1000)
			return bad(err, "samples", "lists of 6 integers from 0, the last to 1000");
		*sample = (struct mig_timeline_sample){ .at_ns = row[0],
							.sent_bytes = row[1],
							.dirty_bytes = row[2],
							.left_bytes = row[3],
							.fault_pages = row[4],
							.throttle_permille = (uint32_t)row[5] };
		if (sample->at_ns < before.at_ns || sample->sent_bytes < before.sent_bytes ||
		    sample->dirty_bytes < before.dirty_bytes ||
		    sample->fault_pages < before.fault_pages)
			return bad(err, "samples", "times and sums that do not fall");
		before = *sample;
	}
	report->sample_count = (uint32_t)json_array_size(list);
	return 0;
}

static int read_rounds(const json_t *root, struct report *report, struct base_error *err)
{
	const json_t *list = NULL;
	uint64_t before_ns = 0;

	if (!has_list(root, "rounds", REPORT_ROUNDS_MAX, &list))
		return bad(err, "rounds", "a list of at most 1024");
	for (size_t i = 0; i < json_array_size(list); i++) {
		uint64_t row[2] = { 0 };

		if (read_row(json_array_get(list, i), 2, row) < 0 || row[0] < before_ns ||
		    row[1] > UINT32_MAX)
			return bad(err, "rounds",
				   "lists of a time that does not fall and a number");
		report->rounds[i] =
			(struct mig_timeline_round){ .at_ns = row[0], .number = (uint32_t)row[1] };
		before_ns = row[0];
	}
	report->round_count = (uint32_t)json_array_size(list);
	return 0;
}

static int read_marks(const json_t *root, struct report *report, struct base_error *err)
{
	const json_t *list = NULL;
	char what[REPORT_TEXT_BYTES] = "";
	int code = 0;

	if (!has_list(root, "marks", REPORT_MARKS_MAX, &list))
		return bad(err, "marks", "a list of at most 256");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *mark = json_array_get(list, i);

		if (!json_is_object(mark))
			return bad(err, "marks", "objects");
		code = read_count(mark, "at_ns", &report->marks[i].at_ns, err);
		if (code == 0)
			code = read_text(mark, "what", what, err);
		if (code < 0)
			return code;
		if (strlen(what) >= sizeof(report->marks[i].what))
			return bad(err, "what", "a word of at most 31 bytes");
		memcpy(report->marks[i].what, what, strlen(what) + 1);
	}
	report->mark_count = (uint32_t)json_array_size(list);
	return 0;
}

static int read_post(const json_t *object, struct report_figures *figures, struct base_error *err)
{
	const struct {
		const char *key;
		uint64_t *to;
	} rows[] = {
		{ "owed_pages", &figures->owed_pages },
		{ "fault_pages", &figures->fault_pages },
		{ "rest_pages", &figures->rest_pages },
		{ "waits", &figures->waits },
		{ "wait_p50_ns", &figures->wait_p50_ns },
		{ "wait_p99_ns", &figures->wait_p99_ns },
		{ "wait_longest_ns", &figures->wait_longest_ns },
		{ "postcopy_ns", &figures->postcopy_ns },
	};
	int code = 0;

	if (object == NULL)
		return 0;
	if (!json_is_object(object))
		return bad(err, "postcopy", "an object");
	figures->is_post = true;
	for (size_t i = 0; code == 0 && i < sizeof(rows) / sizeof(rows[0]); i++)
		code = read_count(object, rows[i].key, rows[i].to, err);
	return code;
}

static int read_figures(const json_t *object, struct report_figures *figures,
			struct base_error *err)
{
	const struct {
		const char *key;
		uint64_t *to;
	} rows[] = {
		{ "total_ns", &figures->total_ns },
		{ "queued_ns", &figures->queued_ns },
		{ "prepare_ns", &figures->prepare_ns },
		{ "copy_ns", &figures->copy_ns },
		{ "blackout_ns", &figures->blackout_ns },
		{ "pause_ns", &figures->phase_ns[0] },
		{ "last_round_ns", &figures->phase_ns[1] },
		{ "state_ns", &figures->phase_ns[2] },
		{ "let_go_ns", &figures->phase_ns[3] },
		{ "check_ns", &figures->phase_ns[4] },
		{ "commit_ns", &figures->phase_ns[5] },
		{ "activate_ns", &figures->phase_ns[6] },
		{ "rounds", &figures->rounds },
		{ "sent_bytes", &figures->sent_bytes },
		{ "pages", &figures->pages },
		{ "zero_pages", &figures->zero_pages },
		{ "lz4_pages", &figures->lz4_pages },
		{ "lz4_bytes", &figures->lz4_bytes },
		{ "chunks", &figures->chunks },
		{ "resent_chunks", &figures->resent_chunks },
		{ "state_bytes", &figures->state_bytes },
		{ "cuts", &figures->cuts },
		{ "cut_ns", &figures->cut_ns },
		{ "again_bytes", &figures->again_bytes },
	};
	int code = 0;

	for (size_t i = 0; code == 0 && i < sizeof(rows) / sizeof(rows[0]); i++)
		code = read_count(object, rows[i].key, rows[i].to, err);
	return code == 0 ? read_post(json_object_get(object, "postcopy"), figures, err) : code;
}

static int read_end(const json_t *root, struct report *report, struct base_error *err)
{
	const json_t *object = json_object_get(root, "report");
	const json_t *tls = NULL;
	int code = 0;

	if (object == NULL || json_is_null(object))
		return 0;
	if (!json_is_object(object))
		return bad(err, "report", "an object or null");
	code = read_text(object, "end", report->end, err);
	if (code == 0)
		code = read_text(object, "text", report->why, err);
	tls = json_object_get(object, "tls");
	if (code == 0 && json_is_object(tls))
		code = read_text(tls, "cipher", report->cipher, err);
	return code == 0 ? read_figures(object, &report->figures, err) : code;
}

static int read_all(const json_t *root, struct report *report, struct base_error *err)
{
	const json_t *form = json_object_get(root, "form");
	int code = 0;

	if (!json_is_integer(form) || json_integer_value(form) != 1)
		return bad(err, "form", "1");
	code = read_text(root, "name", report->name, err);
	if (code == 0)
		code = read_text(root, "from", report->from, err);
	if (code == 0)
		code = read_text(root, "to", report->to, err);
	if (code == 0)
		code = read_count(root, "lost_marks", &report->lost_marks, err);
	if (code == 0)
		code = read_count(root, "throttle_permille_most", &report->throttle_permille_most,
				  err);
	if (code == 0)
		code = read_samples(root, report, err);
	if (code == 0)
		code = read_rounds(root, report, err);
	if (code == 0)
		code = read_marks(root, report, err);
	return code == 0 ? read_end(root, report, err) : code;
}

int report_decode(const char *text, size_t size_bytes, struct report **ret_report,
		  struct base_error *err)
{
	json_auto_t *root = NULL;
	BASE_FREE struct report *report = NULL;
	int code = 0;

	if (size_bytes > REPORT_BYTES_MAX)
		return base_fail(err, -EBADMSG,
				 "timeline of a move: %zu bytes, expected at most %u", size_bytes,
				 REPORT_BYTES_MAX);
	root = json_loadb(text, size_bytes, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(root))
		return base_fail(err, -EBADMSG, "timeline of a move: expected one JSON object");
	report = calloc(1, sizeof(*report));
	if (report == NULL)
		return base_fail(err, -ENOMEM, "timeline of a move");
	code = read_all(root, report, err);
	if (code < 0)
		return code;
	*ret_report = base_take(&report);
	return 0;
}
