/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/fake_store_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool fake_grow(void *array, size_t size_bytes, size_t count, size_t *capacity)
{
	size_t wanted = *capacity * 2 + 16;
	void *now;
	void *larger;

	if (count < *capacity)
		return true;
	memcpy(&now, array, sizeof(now)); /* a pointer of any type */
	larger = realloc(now, wanted * size_bytes);
	if (larger == NULL)
		return false;
	memcpy(array, &larger, sizeof(larger));
	*capacity = wanted;
	return true;
}

void fake_recording_free(struct fake_recording *recording)
{
	if (recording == NULL)
		return;
	for (uint64_t i = 0; i < recording->event_count; i++) {
		free(recording->events[i].from);
		free(recording->events[i].to);
	}
	for (uint32_t i = 0; i < recording->operation_count; i++)
		free(recording->operations[i].data);
	for (uint32_t i = 0; i < recording->snapshot_count; i++)
		fake_cursor_free(recording->snapshots[i]);
	fake_cursor_free(recording->cursor);
	free(recording->events);
	free(recording->operations);
	free(recording->snapshots);
	free(recording);
}

BASE_DEFINE_FREEP(struct fake_recording, fake_recording_free);

int fake_store_record(struct store *store, struct base_error *err)
{
	struct fake_store *fake = fake_of(store);
	BASE_CLEANUP(fake_recording_freep)
	struct fake_recording *recording = calloc(1, sizeof(*recording));
	struct fake_cursor *start;

	if (recording == NULL)
		return base_fail(err, -ENOMEM, "record of a fake store");
	for (const struct fake_file *file = fake->files; file != NULL; file = file->next)
		base_assert(file->head == NULL);
	start = fake_cursor_start(fake);
	if (start == NULL ||
	    !fake_grow(&recording->snapshots, sizeof(void *), 0, &recording->snapshot_capacity)) {
		fake_cursor_free(start);
		return base_fail(err, -ENOMEM, "record of a fake store");
	}
	recording->snapshots[0] = start;
	recording->snapshot_count = 1;
	fake_recording_free(fake->recording);
	fake->recording = base_take(&recording);
	return 0;
}

uint64_t fake_store_event_count(const struct store *store)
{
	const struct fake_store *fake = fake_of_const(store);

	return fake->recording == NULL ? 0 : fake->recording->event_count;
}

/* The new event; NULL: no memory, and the record is of no use any more. */
static struct fake_event *event_add(struct fake_recording *recording)
{
	if (recording->failed || !fake_grow(&recording->events, sizeof(*recording->events),
					    recording->event_count, &recording->event_capacity)) {
		recording->failed = true;
		return NULL;
	}
	recording->events[recording->event_count] = (struct fake_event){ .operation = 0 };
	return &recording->events[recording->event_count++];
}

static bool op_counts(enum store_op op)
{
	return op != STORE_READ && op != STORE_RANGES;
}

uint64_t fake_record_begin(struct fake_store *fake, const struct fake_file *file,
			   const struct store_request *request)
{
	struct fake_recording *recording = fake->recording;
	struct fake_operation operation = {
		.op = request->op,
		.fua = (request->flags & STORE_FUA) != 0,
		.content = file->content->id,
		.offset_bytes = request->offset_bytes,
		.length_bytes = request->length_bytes,
		.end = UINT64_MAX,
	};
	struct fake_event *event;

	if (!op_counts(request->op) || recording->failed)
		return 0;
	operation.begin = recording->event_count;
	if (request->op == STORE_WRITE) {
		operation.data = malloc(request->length_bytes + 1);
		if (operation.data == NULL) {
			recording->failed = true;
			return 0;
		}
		fake_gather(request, operation.data);
	}
	if (!fake_grow(&recording->operations, sizeof(*recording->operations),
		       recording->operation_count, &recording->operation_capacity)) {
		free(operation.data);
		recording->failed = true;
		return 0;
	}
	recording->operations[recording->operation_count++] = operation;
	event = event_add(recording);
	if (event == NULL)
		return 0;
	event->kind = FAKE_EVENT_BEGIN;
	event->operation = recording->operation_count - 1;
	event->content = operation.content;
	return recording->operation_count;
}

void fake_record_end(struct fake_store *fake, uint64_t number, const struct store_request *request,
		     bool landed, int result)
{
	struct fake_recording *recording = fake->recording;
	struct fake_operation *operation;
	struct fake_event *event;

	if (number == 0 || number > recording->operation_count)
		return;
	event = event_add(recording);
	if (event == NULL)
		return;
	operation = &recording->operations[number - 1];
	operation->end = recording->event_count - 1;
	operation->landed = landed;
	operation->result = result;
	/* What landed is what the buffer held at the end, when the store copies late. */
	if (request->op == STORE_WRITE && request->held[0] == NULL)
		fake_gather(request, operation->data);
	event->kind = FAKE_EVENT_END;
	event->operation = (uint32_t)number - 1;
	event->content = operation->content;
}

void fake_record_name(struct fake_store *fake, enum fake_event_kind kind, uint32_t content,
		      const char *from, const char *to)
{
	struct fake_recording *recording = fake->recording;
	struct fake_event *event;

	if (recording == NULL)
		return;
	event = event_add(recording);
	if (event == NULL)
		return;
	event->kind = kind;
	event->content = content;
	event->from = strdup(from);
	event->to = to == NULL ? NULL : strdup(to);
	if (event->from == NULL || (to != NULL && event->to == NULL))
		recording->failed = true;
}
