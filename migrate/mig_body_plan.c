/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies with lists in them: PLAN, FINDINGS, ROUND_DONE. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/plain.h"
#include "migrate/mig_body.h"
#include "migrate/mig_body_priv.h"
#include "migrate/mig_intake.h"

/* --- PLAN --- */

void mig_plan_fini(struct mig_plan *plan)
{
	for (uint32_t i = 0; plan->objects != NULL && i < plan->object_count; i++)
		free(plan->objects[i].description);
	free(plan->objects);
	free(plan->config);
	*plan = (struct mig_plan){ .objects = NULL };
}

/* The rules of both directions: @code is what a breach of them is. */

static int plan_check(const struct mig_plan *plan, int code, struct base_error *err)
{
	if (plan->epoch > MIG_EPOCH_MAX)
		return base_fail(err, code,
				 "migration plan: epoch %" PRIu64 ", expected at most %" PRIu64,
				 plan->epoch, MIG_EPOCH_MAX);
	if ((plan->flags & ~MIG_PLAN_FLAGS) != 0)
		return base_fail(err, code,
				 "migration plan: flags 0x%" PRIx32 ", expected none but 0x%x",
				 plan->flags, MIG_PLAN_FLAGS);
	if (plan->object_count == 0 || plan->object_count > MIG_OBJECTS_MAX)
		return base_fail(err, code, "migration plan: %" PRIu32 " objects, expected 1 to %u",
				 plan->object_count, MIG_OBJECTS_MAX);
	return 0;
}

static int object_check(const struct mig_plan *plan, uint32_t index, uint64_t unit_count, int code,
			struct base_error *err)
{
	uint64_t most = MIG_OBJECT_BYTES_MAX / mig_unit_bytes((uint16_t)index);
	uint64_t least = 1;

	if (index == 0 && (plan->flags & MIG_PLAN_NO_MEMORY) != 0) {
		least = 0;
		most = 0;
	}
#ifdef GODWIT_MUTANT_MIG_PLAN_SIZE
	most = UINT64_MAX;
#endif
	if (unit_count < least || unit_count > most)
		return base_fail(err, code,
				 "migration plan: object %" PRIu32 " of %" PRIu64
				 " units, expected %" PRIu64 " to %" PRIu64,
				 index, unit_count, least, most);
	return 0;
}

/* Memory has no description, an image has one. */
static int description_size_check(uint32_t index, size_t size_bytes, int code,
				  struct base_error *err)
{
	size_t least = index == 0 ? 0 : 1;
	size_t most = index == 0 ? 0 : MIG_DESCRIPTION_BYTES;

	if (size_bytes < least || size_bytes > most)
		return base_fail(err, code,
				 "migration plan: object %" PRIu32
				 " is described in %zu bytes, expected %zu to %zu",
				 index, size_bytes, least, most);
	return 0;
}

static int config_size_check(size_t size_bytes, int code, struct base_error *err)
{
	if (size_bytes > MIG_CONFIG_BYTES)
		return base_fail(
			err, code,
			"migration plan: a configuration of %zu bytes, expected at most %u",
			size_bytes, MIG_CONFIG_BYTES);
	return 0;
}

static int text_check(const char *text, size_t size_bytes, int code, struct base_error *err)
{
	if (!base_is_plain(text, size_bytes))
		return base_fail(err, code,
				 "migration plan: a text that is not printable UTF-8 of one line");
	return 0;
}

/* All of what is to be encoded, and its size. */
static int plan_measure(const struct mig_plan *plan, size_t *ret_bytes, struct base_error *err)
{
	size_t config_bytes = strlen(plan->config);
	size_t bytes = MIG_PLAN_HEADER_BYTES + config_bytes;
	int r = plan_check(plan, -EINVAL, err);

	if (r == 0)
		r = config_size_check(config_bytes, -EINVAL, err);
	if (r == 0)
		r = text_check(plan->config, config_bytes, -EINVAL, err);
	for (uint32_t i = 0; r == 0 && i < plan->object_count; i++) {
		const struct mig_plan_object *object = &plan->objects[i];
		size_t size_bytes = strlen(object->description);

		r = object_check(plan, i, object->object.unit_count, -EINVAL, err);
		if (r == 0)
			r = description_size_check(i, size_bytes, -EINVAL, err);
		if (r == 0)
			r = text_check(object->description, size_bytes, -EINVAL, err);
		bytes += MIG_PLAN_OBJECT_BYTES + size_bytes;
	}
	if (r < 0)
		return r;
	if (bytes > MIG_BODY_BYTES_MAX)
		return base_fail(err, -EINVAL,
				 "migration plan: %zu bytes in all, expected at most %u", bytes,
				 MIG_BODY_BYTES_MAX);
	*ret_bytes = bytes;
	return 0;
}

int mig_plan_encode(const struct mig_plan *plan, struct base_buffer *out, struct base_error *err)
{
	size_t bytes = 0;
	size_t config_bytes = 0;
	int r = plan_measure(plan, &bytes, err);

	if (r < 0)
		return r;
	config_bytes = strlen(plan->config);
	base_buffer_le64(out, plan->epoch);
	base_buffer_le32(out, plan->capabilities);
	base_buffer_le32(out, plan->flags);
	base_buffer_le32(out, plan->object_count);
	base_buffer_le32(out, (uint32_t)config_bytes);
	base_buffer_append(out, plan->config, config_bytes);
	for (uint32_t i = 0; i < plan->object_count; i++) {
		const struct mig_plan_object *object = &plan->objects[i];
		size_t size_bytes = strlen(object->description);

		base_buffer_le64(out, object->object.unit_count);
		base_buffer_le32(out, (uint32_t)size_bytes);
		base_buffer_le32(out, 0);
		base_buffer_append(out, object->description, size_bytes);
	}
	if (out->failed)
		return base_fail(err, -ENOMEM, "migration plan: %zu bytes", bytes);
	return 0;
}

/* A text of @size_bytes, as a string of its own. */
static int read_text(struct base_reader *in, uint32_t size_bytes, char **ret_text,
		     struct base_error *err)
{
	const uint8_t *from = base_read_span(in, size_bytes);
	char *text = NULL;
	int r = 0;

	if (from == NULL)
		return base_fail(err, -EBADMSG, "migration plan: truncated in a text");
	r = text_check((const char *)from, size_bytes, -EBADMSG, err);
	if (r < 0)
		return r;
	text = malloc((size_t)size_bytes + 1);
	if (text == NULL)
		return base_fail(err, -ENOMEM, "migration plan: a text of %" PRIu32 " bytes",
				 size_bytes);
	memcpy(text, from, size_bytes);
	text[size_bytes] = '\0';
	*ret_text = text;
	return 0;
}

static int read_object(struct base_reader *in, struct mig_plan *plan, uint32_t index,
		       struct base_error *err)
{
	struct mig_plan_object *object = &plan->objects[index];
	uint32_t size_bytes = 0;
	int r = 0;

	object->object.unit_count = base_read_le64(in);
	size_bytes = base_read_le32(in);
	r = mig_body_zeros("plan", in, 4, err);
	if (r == 0)
		r = object_check(plan, index, object->object.unit_count, -EBADMSG, err);
	if (r == 0)
		r = description_size_check(index, size_bytes, -EBADMSG, err);
	if (r == 0)
		r = read_text(in, size_bytes, &object->description, err);
	return r;
}

/* Into @plan, which is the caller's to release. */
static int read_plan(struct base_reader *in, struct mig_plan *plan, struct base_error *err)
{
	uint32_t config_bytes = 0;
	int r = 0;

	plan->epoch = base_read_le64(in);
	plan->capabilities = base_read_le32(in);
	plan->flags = base_read_le32(in);
	plan->object_count = base_read_le32(in);
	config_bytes = base_read_le32(in);
	if (in->failed)
		return base_fail(err, -EBADMSG, "migration plan: truncated");
	r = plan_check(plan, -EBADMSG, err);
	if (r == 0)
		r = config_size_check(config_bytes, -EBADMSG, err);
	if (r == 0)
		r = read_text(in, config_bytes, &plan->config, err);
	if (r < 0)
		return r;
	plan->objects = calloc(plan->object_count, sizeof(*plan->objects));
	if (plan->objects == NULL)
		return base_fail(err, -ENOMEM, "migration plan: %" PRIu32 " objects",
				 plan->object_count);
	for (uint32_t i = 0; r == 0 && i < plan->object_count; i++)
		r = read_object(in, plan, i, err);
	if (r == 0 && base_reader_left(in) > 0)
		r = base_fail(err, -EBADMSG, "migration plan: %zu bytes too many",
			      base_reader_left(in));
	return r;
}

int mig_plan_decode(const uint8_t *bytes, uint32_t size_bytes, struct mig_plan *ret_plan,
		    struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct mig_plan plan = { .objects = NULL };
	int r = read_plan(&in, &plan, err);

	if (r < 0) {
		mig_plan_fini(&plan);
		return r;
	}
	*ret_plan = plan;
	return 0;
}

/* --- FINDINGS --- */

void mig_findings_add(struct mig_findings *findings, const char *format, ...)
{
	char text[MIG_FINDING_BYTES + 4]; /* a character more, to see where it can be cut */
	char *line = NULL;
	size_t length = 0;
	int written = 0;
	va_list args;

	if (findings->count == MIG_FINDINGS_MAX) {
		if (findings->dropped < UINT32_MAX)
			findings->dropped++;
		return;
	}
	va_start(args, format);
	written = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (written <= 0)
		(void)snprintf(text, sizeof(text), "?");
	length = mig_body_cut(text, MIG_FINDING_BYTES - 1);
	line = findings->lines[findings->count++];
	memcpy(line, text, length);
	line[length] = '\0';
	base_plain(line);
}

void mig_findings_encode(const struct mig_findings *findings, struct base_buffer *out)
{
	base_assert(findings->count <= MIG_FINDINGS_MAX);
	base_buffer_le32(out, findings->count);
	base_buffer_le32(out, findings->dropped);
	for (uint32_t i = 0; i < findings->count; i++) {
		size_t size_bytes = strnlen(findings->lines[i], MIG_FINDING_BYTES - 1);

		base_buffer_le16(out, (uint16_t)size_bytes);
		base_buffer_append(out, findings->lines[i], size_bytes);
	}
}

static int read_finding(struct base_reader *in, char line[MIG_FINDING_BYTES],
			struct base_error *err)
{
	uint16_t size_bytes = base_read_le16(in);
	const uint8_t *from = base_read_span(in, size_bytes);

	if (from == NULL)
		return base_fail(err, -EBADMSG, "migration findings: truncated");
	if (size_bytes == 0 || size_bytes >= MIG_FINDING_BYTES)
		return base_fail(err, -EBADMSG,
				 "migration findings: a line of %u bytes, expected 1 to %u",
				 (unsigned int)size_bytes, MIG_FINDING_BYTES - 1);
	if (!base_is_plain((const char *)from, size_bytes))
		return base_fail(err, -EBADMSG,
				 "migration findings: a line that is not printable UTF-8");
	memcpy(line, from, size_bytes);
	line[size_bytes] = '\0';
	return 0;
}

int mig_findings_decode(const uint8_t *bytes, uint32_t size_bytes,
			struct mig_findings *ret_findings, struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct mig_findings findings = { .count = base_read_le32(&in) };
	int r = 0;

	findings.dropped = base_read_le32(&in);
	if (in.failed)
		return base_fail(err, -EBADMSG, "migration findings: truncated");
	if (findings.count > MIG_FINDINGS_MAX)
		return base_fail(err, -EBADMSG,
				 "migration findings: %" PRIu32 " lines, expected at most %u",
				 findings.count, MIG_FINDINGS_MAX);
	if (findings.dropped > 0 && findings.count < MIG_FINDINGS_MAX)
		return base_fail(err, -EBADMSG,
				 "migration findings: %" PRIu32 " more than %" PRIu32
				 " lines, expected none but after %u",
				 findings.dropped, findings.count, MIG_FINDINGS_MAX);
	for (uint32_t i = 0; r == 0 && i < findings.count; i++)
		r = read_finding(&in, findings.lines[i], err);
	if (r < 0)
		return r;
	if (base_reader_left(&in) > 0)
		return base_fail(err, -EBADMSG, "migration findings: %zu bytes too many",
				 base_reader_left(&in));
	*ret_findings = findings;
	return 0;
}

/* --- ROUND_DONE --- */

void mig_done_encode(uint32_t number, const struct mig_failure *failures, uint32_t count,
		     struct base_buffer *out)
{
	base_assert(count <= MIG_FAILURES_MAX);
	base_buffer_le32(out, number);
	base_buffer_le32(out, count);
	for (uint32_t i = 0; i < count; i++) {
		base_buffer_le64(out, failures[i].first);
		base_buffer_le32(out, failures[i].count);
		base_buffer_le16(out, failures[i].object);
		base_buffer_le16(out, 0);
	}
}

static int read_failure(struct base_reader *in, struct mig_failure *ret_failure,
			struct base_error *err)
{
	uint64_t per_span = 0;
	int r = 0;

	ret_failure->first = base_read_le64(in);
	ret_failure->count = base_read_le32(in);
	ret_failure->object = base_read_le16(in);
	r = mig_body_zeros("round-done", in, 2, err);
	if (r < 0)
		return r;
	if (ret_failure->object >= MIG_OBJECTS_MAX)
		return base_fail(err, -EBADMSG,
				 "migration round-done: object %u, expected less than %u",
				 (unsigned int)ret_failure->object, MIG_OBJECTS_MAX);
	per_span = MIG_SPAN_BYTES / mig_unit_bytes(ret_failure->object);
	if (ret_failure->count == 0 ||
	    ret_failure->count > per_span - ret_failure->first % per_span)
		return base_fail(err, -EBADMSG,
				 "migration round-done: %" PRIu32 " units from %" PRIu64
				 ", expected 1 or more within a span of %" PRIu64,
				 ret_failure->count, ret_failure->first, per_span);
	return 0;
}

int mig_done_decode(const uint8_t *bytes, uint32_t size_bytes, uint32_t *ret_number,
		    struct mig_failure *ret_failures, uint32_t *ret_count, struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	uint32_t number = base_read_le32(&in);
	uint32_t count = base_read_le32(&in);
	int r = 0;

	if (in.failed)
		return base_fail(err, -EBADMSG, "migration round-done: truncated");
	if (count > MIG_FAILURES_MAX)
		return base_fail(err, -EBADMSG,
				 "migration round-done: %" PRIu32 " chunks, expected at most %u",
				 count, MIG_FAILURES_MAX);
	r = mig_body_size("round-done", size_bytes,
			  MIG_LIST_HEADER_BYTES + count * MIG_FAILURE_BYTES, err);
	for (uint32_t i = 0; r == 0 && i < count; i++)
		r = read_failure(&in, &ret_failures[i], err);
	if (r < 0)
		return r;
	*ret_number = number;
	*ret_count = count;
	return 0;
}
