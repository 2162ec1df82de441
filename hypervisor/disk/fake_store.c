/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/fake_store_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the fake keeps in the scratch space of a request. */
enum fake_place {
	PLACE_DELAY, /* turns of the loop that it still waits */
	PLACE_FAIL,  /* the code it fails with, negated; 0: it does not */
	PLACE_RECORD /* from fake_record_begin() */
};
#define HELD_COPY 0 /* of a write's data */

#define FAKE_INFLIGHT_MS 1000 /* any figure: nothing is in flight after a crash */

uint64_t fake_random_seed(uint64_t seed)
{
	uint64_t state = (seed + 1) * 0x9e3779b97f4a7c15ULL;

	state ^= state >> 29;
	return state == 0 ? 1 : state;
}

uint64_t fake_random(uint64_t *state)
{
	uint64_t value = *state;

	value ^= value >> 12;
	value ^= value << 25;
	value ^= value >> 27;
	*state = value;
	return (value * 0x2545f4914f6cdd1dULL) >> 16;
}

/* --- the plan --- */

static bool plan_counts(const struct fake_store *fake, enum store_op op)
{
	return fake->plan.fail_ops == 0 || (fake->plan.fail_ops >> op & 1U) != 0;
}

/* Count @request; the code that it is to fail with, negated, or 0. */
static uint64_t plan_count(struct fake_store *fake, const struct store_request *request)
{
	const struct fake_store_plan *plan = &fake->plan;
	bool fails;

	fake->submitted++;
	if (!plan_counts(fake, request->op))
		return 0;
	fake->counted++;
	if (plan->fail_at == 0)
		return 0;
	fails = plan->fail_forever ? fake->counted >= plan->fail_at
				   : fake->counted == plan->fail_at;
	if (!fails)
		return 0;
	return plan->fail_code == 0 ? EIO : (uint64_t) - (int64_t)plan->fail_code;
}

void fake_store_set_plan(struct store *store, const struct fake_store_plan *plan)
{
	struct fake_store *fake = fake_of(store);

	fake->plan = *plan;
	fake->counted = 0;
	fake->submitted = 0;
	fake->random = fake_random_seed(plan->seed);
}

uint64_t fake_store_request_count(const struct store *store)
{
	return fake_of_const(store)->counted;
}

/* --- requests --- */

void fake_gather(const struct store_request *request, uint8_t *to)
{
	for (uint32_t i = 0; i < request->iov_count; i++) {
		memcpy(to, request->iov[i].iov_base, request->iov[i].iov_len);
		to += request->iov[i].iov_len;
	}
}

static void do_read(const struct fake_content *content, const struct store_request *request)
{
	uint64_t offset_bytes = request->offset_bytes;

	for (uint32_t i = 0; i < request->iov_count; i++) {
		fake_content_read(content, offset_bytes, request->iov[i].iov_base,
				  request->iov[i].iov_len);
		offset_bytes += request->iov[i].iov_len;
	}
}

static uint64_t used_units(const struct fake_store *fake)
{
	uint64_t units = 0;

	for (uint32_t i = 0; i < fake->names.count; i++)
		units += fake->names.names[i]->content->unit_count;
	return units;
}

static bool has_room(const struct fake_store *fake, const struct fake_content *content,
		     const struct store_request *request)
{
	uint64_t missing;
	uint64_t used;
	uint64_t limit = fake->plan.capacity_bytes / FAKE_UNIT_BYTES;

	if (fake->plan.capacity_bytes == 0)
		return true;
	missing = fake_content_units_missing(content, request->offset_bytes, request->length_bytes);
	used = used_units(fake);
	return missing == 0 || (used <= limit && missing <= limit - used);
}

static int do_write(struct fake_store *fake, struct fake_content *content,
		    struct store_request *request)
{
	uint64_t offset_bytes = request->offset_bytes;

	if (!has_room(fake, content, request))
		return -ENOSPC;
	if (request->held[HELD_COPY] != NULL)
		return fake_content_write(content, offset_bytes, request->held[HELD_COPY],
					  request->length_bytes);
	for (uint32_t i = 0; i < request->iov_count; i++) {
		int code = fake_content_write(content, offset_bytes, request->iov[i].iov_base,
					      request->iov[i].iov_len);

		if (code < 0)
			return code;
		offset_bytes += request->iov[i].iov_len;
	}
	return 0;
}

static int do_allocate(struct fake_store *fake, struct fake_content *content,
		       const struct store_request *request)
{
	if (!has_room(fake, content, request))
		return -ENOSPC;
	return fake_content_allocate(content, request->offset_bytes, request->length_bytes);
}

static int do_request(struct fake_store *fake, struct fake_content *content,
		      struct store_request *request)
{
	switch (request->op) {
	case STORE_READ:
		do_read(content, request);
		return 0;
	case STORE_WRITE:
		return do_write(fake, content, request);
	case STORE_FLUSH:
		return 0;
	case STORE_ALLOCATE:
		return do_allocate(fake, content, request);
	case STORE_PUNCH:
		return fake_content_clear(content, request->offset_bytes, request->length_bytes,
					  true);
	case STORE_ZERO:
		return fake_content_clear(content, request->offset_bytes, request->length_bytes,
					  false);
	case STORE_TRUNCATE:
		return fake_content_truncate(content, request->offset_bytes);
	case STORE_RANGES:
		request->range_count =
			fake_content_ranges(content, request->offset_bytes,
					    request->offset_bytes + request->length_bytes,
					    request->ranges, request->range_capacity);
		return 0;
	case STORE_OP_INVALID:
	case STORE_OPS:
		break;
	}
	base_bug("store operation %d", (int)request->op);
}

/* What the request would be refused for before it does anything. */
static int refusal(const struct fake_file *file, const struct store_request *request)
{
	uint32_t align_bytes = file->file.align_bytes;

	if (file->granted && file->content->holder != file)
		return -ESTALE;
	if (request->offset_bytes > FAKE_SIZE_MAX ||
	    request->length_bytes > FAKE_SIZE_MAX - request->offset_bytes)
		return -EINVAL;
	if ((request->op == STORE_READ || request->op == STORE_WRITE) &&
	    (request->offset_bytes % align_bytes != 0 || request->length_bytes % align_bytes != 0))
		return -EINVAL;
	return 0;
}

static void finish(struct fake_file *file, struct store_request *request)
{
	struct fake_store *fake = fake_of(file->file.store);
	int failure = -(int)request->place[PLACE_FAIL];
	bool land = failure == 0 || fake->plan.fail_does_it;
	int result = refusal(file, request);

	if (result == 0 && fake->gone) {
		failure = -ENODEV;
		land = request->op == STORE_WRITE && fake_random(&fake->random) % 2 == 0;
	}
	land = land && result == 0;
	if (land)
		result = do_request(fake, file->content, request);
	land = land && result == 0;
	if (result == 0)
		result = failure;
	if (fake->recording != NULL)
		fake_record_end(fake, request->place[PLACE_RECORD], request, land, result);
	base_freep(&request->held[HELD_COPY]);
	request->held[HELD_COPY] = NULL;
	file->file.size_bytes = file->content->size_bytes;
	store_complete(request, result);
}

static void list_append(struct store_request **head, struct store_request **tail,
			struct store_request *request)
{
	request->next = NULL;
	if (*head == NULL)
		*head = request;
	else
		(*tail)->next = request;
	*tail = request;
}

static void file_wake(struct fake_file *file)
{
	if (file->queued)
		return;
	file->queued = true;
	file->idle = false;
	base_io_post(file->loop, &file->tick);
}

/* Take what completes in this turn out of what is in flight. */
static struct store_request *take_ready(struct fake_file *file, uint32_t *ret_count)
{
	struct fake_store *fake = fake_of(file->file.store);
	struct store_request *request = file->head;
	struct store_request *ready = NULL;
	struct store_request *ready_tail = NULL;
	uint32_t count = 0;

	file->head = NULL;
	file->tail = NULL;
	while (request != NULL) {
		struct store_request *next = request->next;
		bool late = request->place[PLACE_DELAY] > 0;

		if (late)
			request->place[PLACE_DELAY]--;
		if (fake->plan.reorder)
			late = late || fake_random(&fake->random) % 2 == 0;
		else
			late = late || file->head != NULL;
		if (late && !fake->gone) {
			list_append(&file->head, &file->tail, request);
		} else {
			list_append(&ready, &ready_tail, request);
			count++;
		}
		request = next;
	}
	*ret_count = count;
	return ready;
}

static void file_drained(void *context)
{
	struct fake_file *file = context;

	file->quiescing = false;
	file->quiesce_turns = FAKE_QUIESCE_TURNS;
	file_wake(file);
}

static void file_quiesce_turn(struct fake_file *file)
{
	if (file->quiesce_turns > 0 && --file->quiesce_turns == 0)
		store_resume(&file->file);
	if (!file->quiesce_wanted || file->quiescing || file->quiesce_turns > 0)
		return;
	file->quiesce_wanted = false;
	file->quiescing = true;
	store_quiesce(&file->file, file_drained, file);
}

/* One turn of the loop: some of what is in flight ends. */
static void file_tick(struct base_io_task *task)
{
	struct fake_file *file =
		(struct fake_file *)((char *)task - offsetof(struct fake_file, tick));
	struct fake_store *fake = fake_of(file->file.store);
	struct store_request *ready;
	uint32_t count = 0;

	file->queued = false;
	file_quiesce_turn(file);
	ready = take_ready(file, &count);
	while (ready != NULL && count > 0) {
		struct store_request **at = &ready;
		struct store_request *request;
		uint64_t skip = fake->plan.reorder ? fake_random(&fake->random) % count : 0;

		for (; skip > 0; skip--)
			at = &(*at)->next;
		request = *at;
		*at = request->next;
		count--;
		finish(file, request);
	}
	if (file->head != NULL || file->quiesce_wanted || file->quiescing ||
	    file->quiesce_turns > 0)
		file_wake(file);
	if (!file->queued)
		base_io_done(file->loop, &file->idle);
}

static void fake_submit(struct store_file *base, struct store_request *request)
{
	struct fake_file *file = (struct fake_file *)base;
	struct fake_store *fake = fake_of(base->store);

	request->place[PLACE_FAIL] = plan_count(fake, request);
	request->place[PLACE_DELAY] = 0;
	request->place[PLACE_RECORD] = 0;
	request->held[HELD_COPY] = NULL;
	if (fake->plan.delay_steps > 0)
		request->place[PLACE_DELAY] =
			fake_random(&fake->random) % (fake->plan.delay_steps + 1ULL);
	if (refusal(file, request) == 0 && !fake->gone) {
		if (request->op == STORE_WRITE && !fake->plan.garbage_buffers) {
			request->held[HELD_COPY] = malloc(request->length_bytes + 1);
			if (request->held[HELD_COPY] == NULL)
				request->place[PLACE_FAIL] = ENOMEM;
			else
				fake_gather(request, request->held[HELD_COPY]);
		}
		if (fake->recording != NULL)
			request->place[PLACE_RECORD] = fake_record_begin(fake, file, request);
	}
	if (fake->plan.quiesce_every != 0 && fake->submitted % fake->plan.quiesce_every == 0)
		file->quiesce_wanted = true;
	list_append(&file->head, &file->tail, request);
	file_wake(file);
}

/* --- owners --- */

static bool proof_covers(const struct store_proof *proof, uint64_t epoch)
{
	return proof != NULL && proof->epoch >= epoch &&
	       (proof->fence == STORE_FENCE_DEAD || proof->fence == STORE_FENCE_EXPIRED);
}

static int fake_acquire(struct store_file *base, uint64_t epoch, const struct store_proof *proof,
			uint64_t *ret_epoch, struct base_error *err)
{
	struct fake_file *file = (struct fake_file *)base;
	struct fake_store *fake = fake_of(base->store);
	struct fake_content *content = file->content;

	if (fake->gone)
		return base_fail(err, -ENODEV, "the store is gone");
	if (epoch == STORE_EPOCH_NONE)
		epoch = content->lease_epoch;
	if (epoch < content->lease_epoch)
		return base_fail(err, -ESTALE,
				 "epoch %" PRIu64 " is asked for, %" PRIu64 " was granted already",
				 epoch, content->lease_epoch);
	if (content->holder != NULL && content->holder != file &&
	    !proof_covers(proof, content->lease_epoch))
		return base_fail(err, -EBUSY, "%s holds it at epoch %" PRIu64, content->holder_text,
				 content->lease_epoch);
	content->lease_epoch = epoch;
	content->holder = file;
	(void)snprintf(content->holder_text, sizeof(content->holder_text), "file %u of this store",
		       file->number);
	file->granted = true;
	base->size_bytes = content->size_bytes;
	*ret_epoch = epoch;
	return 0;
}

static void lease_drop(struct fake_file *file)
{
	if (file->content->holder == file)
		file->content->holder = NULL;
	file->granted = false;
}

static int fake_release(struct store_file *base, struct base_error *err)
{
	struct fake_file *file = (struct fake_file *)base;

	if (file->granted && file->content->holder != file) {
		file->granted = false;
		return base_fail(err, -ESTALE, "it was taken over at epoch %" PRIu64,
				 file->content->lease_epoch);
	}
	lease_drop(file);
	return 0;
}

static void fake_close(struct store_file *base)
{
	struct fake_file *file = (struct fake_file *)base;
	struct fake_store *fake = fake_of(base->store);
	struct fake_file **at = &fake->files;

	base_io_wait(file->loop, &file->idle);
	lease_drop(file);
	while (*at != file)
		at = &(*at)->next;
	*at = file->next;
	fake_content_unref(file->content);
	free(file);
}

static const struct store_file_ops fake_file_ops = {
	.submit = fake_submit,
	.acquire = fake_acquire,
	.release = fake_release,
	.close = fake_close,
};

/* --- the store --- */

static int name_check(const struct fake_store *fake, const char *name, struct base_error *err)
{
	size_t length = strlen(name);

	if (fake->gone)
		return base_fail(err, -ENODEV, "'%s': the store is gone", name);
	if (length == 0 || length >= STORE_NAME_BYTES)
		return base_fail(err, -EINVAL, "a name of %zu bytes; 1 to %d are allowed", length,
				 STORE_NAME_BYTES - 1);
	for (uint32_t i = 0; i < fake->names.count; i++) {
		const char *other = fake->names.names[i]->name;

		if (strncmp(other, name, length) == 0 && other[length] == '/')
			return base_fail(err, -EISDIR, "'%s' is a folder", name);
	}
	return 0;
}

static int content_for(struct fake_store *fake, const char *name,
		       const struct store_open_options *options, struct fake_content **ret_content,
		       struct base_error *err)
{
	BASE_CLEANUP(fake_content_unrefp) struct fake_content *content = NULL;
	struct fake_content *there = fake_names_find(&fake->names, name);

	if (!options->create) {
		if (there == NULL)
			return base_fail(err, -ENOENT, "'%s' is not there", name);
		*ret_content = fake_content_ref(there);
		return 0;
	}
	if (there != NULL)
		return base_fail(err, -EEXIST, "'%s' is there already", name);
	content = fake_content_new(fake->next_id + 1);
	if (content == NULL || fake_names_set(&fake->names, name, content) < 0)
		return base_fail(err, -ENOMEM, "make '%s'", name);
	fake->next_id++;
	fake_record_name(fake, FAKE_EVENT_CREATE, content->id, name, NULL);
	*ret_content = base_take(&content);
	return 0;
}

static int fake_open(struct store *store, const char *name,
		     const struct store_open_options *options, struct store_file **ret_file,
		     struct base_error *err)
{
	struct fake_store *fake = fake_of(store);
	BASE_FREE struct fake_file *file = NULL;
	struct fake_file *made;
	int code = name_check(fake, name, err);

	if (code < 0)
		return code;
	file = calloc(1, sizeof(*file));
	if (file == NULL)
		return base_fail(err, -ENOMEM, "open '%s'", name);
	code = content_for(fake, name, options, &file->content, err);
	if (code < 0)
		return code;
	base_assert(file->content != NULL);
	file->file.ops = &fake_file_ops;
	file->file.store = store;
	file->file.size_bytes = file->content->size_bytes;
	file->file.align_bytes =
		fake->plan.align_bytes == 0 ? FAKE_SECTOR_BYTES : fake->plan.align_bytes;
	file->file.max_inflight_ms = FAKE_INFLIGHT_MS;
	file->file.read_only = options->read_only;
	(void)snprintf(file->file.name, sizeof(file->file.name), "%s", name);
	file->loop = options->loop;
	file->tick.run = file_tick;
	file->idle = true;
	file->number = ++fake->opened;
	made = base_take(&file);
	made->next = fake->files;
	fake->files = made;
	*ret_file = &made->file;
	return 0;
}

static int fake_list(struct store *store, const char *folder,
		     int (*each)(void *context, const char *name, uint64_t size_bytes),
		     void *context, struct base_error *err)
{
	struct fake_store *fake = fake_of(store);
	size_t length = strlen(folder);

	if (fake->gone)
		return base_fail(err, -ENODEV, "list '%s': the store is gone", folder);
	for (uint32_t i = 0; i < fake->names.count; i++) {
		const struct fake_name *name = fake->names.names[i];
		size_t there = fake_folder_length(name->name);
		int code;

		if (there != length || strncmp(name->name, folder, length) != 0)
			continue;
		code = each(context, name->name + (length == 0 ? 0 : length + 1),
			    name->content->size_bytes);
		if (code != 0)
			return code;
	}
	return 0;
}

static int fake_rename(struct store *store, const char *from, const char *to,
		       struct base_error *err)
{
	struct fake_store *fake = fake_of(store);
	struct fake_content *content;
	int code = name_check(fake, from, err);

	if (code == 0)
		code = name_check(fake, to, err);
	if (code < 0)
		return code;
	content = fake_names_find(&fake->names, from);
	if (content == NULL)
		return base_fail(err, -ENOENT, "rename '%s' to '%s': it is not there", from, to);
	if (strcmp(from, to) == 0)
		return 0;
	if (fake_names_set(&fake->names, to, content) < 0)
		return base_fail(err, -ENOMEM, "rename '%s' to '%s'", from, to);
	(void)fake_names_set(&fake->names, from, NULL);
	fake_record_name(fake, FAKE_EVENT_RENAME, content->id, from, to);
	return 0;
}

static int fake_remove(struct store *store, const char *name, struct base_error *err)
{
	struct fake_store *fake = fake_of(store);
	int code = name_check(fake, name, err);

	if (code < 0)
		return code;
	if (fake_names_find(&fake->names, name) == NULL)
		return base_fail(err, -ENOENT, "remove '%s': it is not there", name);
	(void)fake_names_set(&fake->names, name, NULL);
	fake_record_name(fake, FAKE_EVENT_REMOVE, 0, name, NULL);
	return 0;
}

static int fake_sync_folder(struct store *store, const char *name, struct base_error *err)
{
	struct fake_store *fake = fake_of(store);

	if (fake->gone)
		return base_fail(err, -ENODEV, "sync the folder of '%s': the store is gone", name);
	fake_record_name(fake, FAKE_EVENT_SYNC, 0, name, NULL);
	return 0;
}

static int fake_free_space(struct store *store, uint64_t *ret_bytes, struct base_error *err)
{
	struct fake_store *fake = fake_of(store);
	uint64_t used_bytes = used_units(fake) * FAKE_UNIT_BYTES;

	if (fake->gone)
		return base_fail(err, -ENODEV, "free space: the store is gone");
	if (fake->plan.capacity_bytes == 0)
		*ret_bytes = FAKE_FREE_BYTES;
	else
		*ret_bytes = fake->plan.capacity_bytes > used_bytes
				     ? fake->plan.capacity_bytes - used_bytes
				     : 0;
	return 0;
}

static int fake_lease(struct store *store, const char *name, struct store_lease *ret_lease,
		      struct base_error *err)
{
	struct fake_store *fake = fake_of(store);
	const struct fake_content *content;
	int code = name_check(fake, name, err);

	if (code < 0)
		return code;
	content = fake_names_find(&fake->names, name);
	if (content == NULL)
		return base_fail(err, -ENOENT, "lease of '%s': it is not there", name);
	*ret_lease = (struct store_lease){
		.epoch = content->lease_epoch,
		.held = content->holder != NULL,
	};
	if (ret_lease->held)
		memcpy(ret_lease->holder, content->holder_text, sizeof(ret_lease->holder));
	return 0;
}

static void fake_free(struct store *store)
{
	struct fake_store *fake = fake_of(store);

	base_assert(fake->files == NULL);
	fake_recording_free(fake->recording);
	fake_names_fini(&fake->names);
	free(fake);
}

static const struct store_ops fake_ops = {
	.open = fake_open,
	.list = fake_list,
	.rename = fake_rename,
	.remove = fake_remove,
	.sync_folder = fake_sync_folder,
	.free_space = fake_free_space,
	.lease = fake_lease,
	.free = fake_free,
};

struct fake_store *fake_store_make(void)
{
	struct fake_store *fake = calloc(1, sizeof(*fake));

	if (fake == NULL)
		return NULL;
	fake->store.ops = &fake_ops;
	fake->random = fake_random_seed(0);
	return fake;
}

int fake_store_new(struct store **ret_store, struct base_error *err)
{
	struct fake_store *fake = fake_store_make();

	if (fake == NULL)
		return base_fail(err, -ENOMEM, "a fake store");
	*ret_store = &fake->store;
	return 0;
}

static void tell_gone(void *context)
{
	struct fake_file *file = context;

	if (fake_of(file->file.store)->gone)
		store_set_state(&file->file, STORE_DOWN, "the store is gone");
	else
		store_set_state(&file->file, STORE_DIRECT, "");
}

void fake_store_set_gone(struct store *store, bool gone)
{
	struct fake_store *fake = fake_of(store);

	if (fake->gone == gone)
		return;
	fake->gone = gone;
	for (struct fake_file *file = fake->files; file != NULL; file = file->next)
		base_io_call(file->loop, tell_gone, file);
}
