/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all stores share: looking at a request before a provider sees it, letting requests wait
 * in order while the store or the gate says so, and counting what is under way.
 *
 * Everything about requests happens on the file's loop.  The blocking calls come from another
 * thread, or from the thread that pumps the loop; they change a file only through
 * base_io_call().
 */
#include "hypervisor/disk/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* How soon a closed gate is looked at again: short against a leash, long against a loop. */
#define GATE_LOOK_NS (10 * BASE_NS_PER_MS)

static const char *op_name(enum store_op op)
{
	static const char *const names[STORE_OPS] = {
		[STORE_READ] = "read",         [STORE_WRITE] = "write",
		[STORE_FLUSH] = "flush",       [STORE_ALLOCATE] = "allocate",
		[STORE_PUNCH] = "punch",       [STORE_ZERO] = "zero",
		[STORE_TRUNCATE] = "truncate", [STORE_RANGES] = "list ranges",
	};

	if (op <= STORE_OP_INVALID || op >= STORE_OPS)
		return "unknown operation";
	return names[op];
}

/* --- one request --- */

static bool op_writes(enum store_op op)
{
	return op != STORE_READ && op != STORE_RANGES;
}

static int check_iov(const struct store_request *request)
{
	uint64_t left_bytes = request->length_bytes;

	if (request->length_bytes > STORE_REQUEST_BYTES_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < request->iov_count; i++) {
		if (request->iov[i].iov_len > left_bytes)
			return -EINVAL;
		left_bytes -= request->iov[i].iov_len;
	}
	return left_bytes == 0 ? 0 : -EINVAL;
}

/* What does not change while a request waits. */
static int check_form(const struct store_file *file, const struct store_request *request)
{
	uint64_t both = request->offset_bytes | request->length_bytes;

	if (request->op <= STORE_OP_INVALID || request->op >= STORE_OPS)
		return -EINVAL;
	if ((request->flags & ~STORE_FUA) != 0 ||
	    (request->flags != 0 && request->op != STORE_WRITE))
		return -EINVAL;
	if (request->offset_bytes > INT64_MAX ||
	    request->length_bytes > INT64_MAX - request->offset_bytes)
		return -EINVAL;
	if (request->op == STORE_RANGES &&
	    (request->ranges == NULL || request->range_capacity == 0))
		return -EINVAL;
	if (request->op != STORE_READ && request->op != STORE_WRITE)
		return 0;
	if (both % file->align_bytes != 0)
		return -EINVAL;
	return check_iov(request);
}

/* Whether its sender may do that now. */
static int check_owner(const struct store_file *file, const struct store_request *request)
{
	if (file->closing)
		return -ECANCELED;
	if (op_writes(request->op) && !file->acquired)
		return -EROFS;
#ifndef GODWIT_MUTANT_STORE_EPOCH
	if (request->epoch != file->epoch)
		return -ESTALE;
#endif
	return 0;
}

static void tell_idle(struct store_file *file)
{
	bool *idle = file->idle;

	if (idle == NULL || file->undelivered > 0)
		return;
	file->idle = NULL;
	base_io_done(file->loop, idle); /* who waited may free the file: last */
}

static void tell_drained(struct store_file *file)
{
	void (*drained)(void *context) = file->drained;

	if (drained == NULL || file->in_flight > 0)
		return;
	file->drained = NULL;
	drained(file->drained_context);
}

static struct store_request *request_of(struct base_io_task *task)
{
	return (struct store_request *)((char *)task - offsetof(struct store_request, task));
}

static void deliver(struct store_file *file, struct store_request *request)
{
	request->done(request, request->result); /* may free the request */
	file->undelivered--;
}

/* A request that never reached the provider ends. */
static void refused_run(struct base_io_task *task)
{
	struct store_request *request = request_of(task);
	struct store_file *file = request->file;

	deliver(file, request);
	tell_idle(file);
}

static void refuse(struct store_request *request, int result)
{
	request->result = result;
	request->task.run = refused_run;
	request->file->undelivered++;
	base_io_post(request->file->loop, &request->task);
}

static void note_size(struct store_file *file, const struct store_request *request)
{
	uint64_t end_bytes = request->offset_bytes + request->length_bytes;

	if (request->result < 0)
		return;
	if (request->op == STORE_TRUNCATE)
		file->size_bytes = request->offset_bytes;
	else if ((request->op == STORE_WRITE || request->op == STORE_ALLOCATE) &&
		 end_bytes > file->size_bytes)
		file->size_bytes = end_bytes;
}

static void completed_run(struct base_io_task *task)
{
	struct store_request *request = request_of(task);
	struct store_file *file = request->file;

	base_assert(file->in_flight > 0);
	file->in_flight--;
	note_size(file, request);
	deliver(file, request);
	tell_drained(file);
	tell_idle(file);
}

void store_complete(struct store_request *request, int result)
{
	request->result = result;
	request->task.run = completed_run;
	base_io_post(request->file->loop, &request->task);
}

static bool has_no_bytes(const struct store_request *request)
{
	return (request->op == STORE_READ || request->op == STORE_WRITE) &&
	       request->length_bytes == 0;
}

static void dispatch(struct store_file *file, struct store_request *request)
{
	int code = check_owner(file, request);

	if (code < 0 || has_no_bytes(request)) {
		refuse(request, code);
		return;
	}
#ifdef GODWIT_MUTANT_STORE_FLUSH
	if (request->op == STORE_FLUSH) {
		refuse(request, 0);
		return;
	}
#endif
	file->undelivered++;
	file->in_flight++;
	file->ops->submit(file, request);
}

/* --- waiting --- */

static bool may_submit(const struct store_file *file)
{
	return file->gate.may_submit == NULL || file->gate.may_submit(file->gate.context);
}

static void wait_append(struct store_file *file, struct store_request *request)
{
	if (file->waiting_tail == NULL)
		file->waiting_head = request;
	else
		file->waiting_tail->next = request;
	file->waiting_tail = request;
}

static struct store_request *wait_take(struct store_file *file)
{
	struct store_request *request = file->waiting_head;

	if (request == NULL)
		return NULL;
	file->waiting_head = request->next;
	if (file->waiting_head == NULL)
		file->waiting_tail = NULL;
	request->next = NULL;
	return request;
}

/* Go on with what waits, in the order it came, as far as that may be. */
static void go_on(struct store_file *file)
{
	while (file->waiting_head != NULL && !file->quiesced && !file->changing) {
		if (!may_submit(file)) {
			base_io_timer_arm(file->loop, &file->gate_timer,
					  base_io_loop_now_ns(file->loop) + GATE_LOOK_NS);
			return;
		}
		dispatch(file, wait_take(file));
	}
}

static void gate_look(struct base_io_timer *timer)
{
	go_on((struct store_file *)((char *)timer - offsetof(struct store_file, gate_timer)));
}

void store_submit(struct store_file *file, struct store_request *request)
{
	int code = 0;

	base_assert(base_io_loop_is_owner(file->loop) && request->done != NULL);
	request->file = file;
	request->next = NULL;
	request->result = 0;
	code = check_form(file, request);
	if (code == 0 && file->closing)
		code = -ECANCELED;
	if (code < 0) {
		refuse(request, code);
		return;
	}
	if (file->waiting_head == NULL && !file->quiesced && !file->changing && may_submit(file)) {
		dispatch(file, request);
		return;
	}
	wait_append(file, request);
	if (!file->quiesced && !file->changing && !file->gate_timer.armed)
		base_io_timer_arm(file->loop, &file->gate_timer,
				  base_io_loop_now_ns(file->loop) + GATE_LOOK_NS);
}

void store_quiesce(struct store_file *file, void (*drained)(void *context), void *context)
{
	base_assert(base_io_loop_is_owner(file->loop) && !file->quiesced);
	file->quiesced = true;
	base_io_timer_disarm(file->loop, &file->gate_timer);
	if (file->events != NULL && file->events->quiesced != NULL)
		file->events->quiesced(file->events_context);
	file->drained = drained;
	file->drained_context = context;
	tell_drained(file);
}

void store_resume(struct store_file *file)
{
	base_assert(base_io_loop_is_owner(file->loop));
	if (!file->quiesced)
		return;
	file->quiesced = false;
	file->drained = NULL;
	if (file->events != NULL && file->events->resumed != NULL)
		file->events->resumed(file->events_context);
	go_on(file);
}

void store_set_state(struct store_file *file, enum store_state state, const char *reason)
{
	base_assert(base_io_loop_is_owner(file->loop));
	if (file->state == state && strcmp(file->reason, reason) == 0)
		return;
	file->state = state;
	(void)snprintf(file->reason, sizeof(file->reason), "%s", reason);
	if (file->events != NULL && file->events->state != NULL)
		file->events->state(file->events_context, state, file->reason);
}

/* --- a file --- */

int store_open(struct store *store, const char *name, const struct store_open_options *options,
	       struct store_file **ret_file, struct base_error *err)
{
	char clean[STORE_NAME_BYTES];
	struct store_file *file = NULL;
	int code = store_resolve("", name, clean, err);

	if (code == -ENAMETOOLONG)
		return base_fail(err, -EINVAL, "a name of %zu bytes, %d at most", strlen(name),
				 STORE_NAME_BYTES - 1);
	if (code < 0)
		return code;
	if (options->align_bytes < 512 || (options->align_bytes & (options->align_bytes - 1)) != 0)
		return base_fail(err, -EINVAL,
				 "'%s': requests aligned to %u, not a power of two of 512 or more",
				 clean, options->align_bytes);
	code = store->ops->open(store, clean, options, &file, err);
	if (code < 0)
		return code;
	base_assert(file->align_bytes > 0);
	file->store = store;
	file->loop = options->loop;
	file->events = options->events;
	file->events_context = options->events_context;
	file->gate = options->gate;
	if (options->read_only || file->read_only_why[0] == '\0')
		(void)snprintf(file->read_only_why, sizeof(file->read_only_why), "%s",
			       options->read_only ? "it was opened for reading"
						  : "the store is read-only");
	file->read_only = file->read_only || options->read_only;
	file->gate_timer.expired = gate_look;
	if (file->state == STORE_STATE_INVALID)
		file->state = STORE_DIRECT;
	memcpy(file->name, clean, sizeof(clean));
	*ret_file = file;
	return 0;
}

struct file_call {
	struct store_file *file;
	uint64_t epoch;
	bool granted;
	bool idle;
};

static void look_idle(struct store_file *file, bool *idle)
{
	base_assert(file->idle == NULL); /* one blocking call per file at a time */
	file->idle = idle;
	tell_idle(file);
}

/*
 * Before the owner changes: what comes now waits, so that what is under way comes to an end also
 * when its senders go on sending.
 */
static void change_call(void *context)
{
	struct file_call *call = context;

	call->file->changing = true;
	look_idle(call->file, &call->idle);
}

static void change_begin(struct file_call *call)
{
	base_io_call(call->file->loop, change_call, call);
	base_io_wait(call->file->loop, &call->idle);
}

/* The owner is what @call says; what waited is looked at in this light. */
static void change_end_call(void *context)
{
	struct file_call *call = context;

	call->file->epoch = call->epoch;
	call->file->acquired = call->granted;
	call->file->changing = false;
	go_on(call->file);
}

int store_acquire(struct store_file *file, uint64_t epoch, const struct store_proof *proof,
		  uint64_t *ret_epoch, struct base_error *err)
{
	struct file_call call = { .file = file };
	int code = 0;

	if (file->read_only)
		return base_fail(err, -EROFS, "'%s' cannot be written: %s", file->name,
				 file->read_only_why);
	if (file->acquired)
		return base_fail(err, -EPROTO, "'%s' is acquired already, at epoch %" PRIu64,
				 file->name, file->epoch);
	change_begin(&call);
	code = file->ops->acquire(file, epoch, proof, &call.epoch, err);
	call.granted = code == 0;
	if (code < 0)
		call.epoch = STORE_EPOCH_NONE;
	base_io_call(file->loop, change_end_call, &call);
	if (code < 0)
		return base_fail_within(err, code, "'%s'", file->name);
	if (ret_epoch != NULL)
		*ret_epoch = call.epoch;
	return 0;
}

int store_release(struct store_file *file, struct base_error *err)
{
	struct file_call call = { .file = file };
	int code = 0;

	if (!file->acquired)
		return base_fail(err, -EPROTO, "'%s' is not acquired", file->name);
	change_begin(&call);
	/* safety: everything that was sent is over, so nothing of this epoch can land later */
	code = file->ops->release(file, err);
	base_io_call(file->loop, change_end_call, &call);
	return code < 0 ? base_fail_within(err, code, "'%s'", file->name) : 0;
}

static void close_call(void *context)
{
	struct file_call *call = context;
	struct store_file *file = call->file;

	file->closing = true;
	base_io_timer_disarm(file->loop, &file->gate_timer);
	while (file->waiting_head != NULL)
		refuse(wait_take(file), -ECANCELED);
	look_idle(file, &call->idle);
}

void store_close(struct store_file *file)
{
	struct file_call call = { .file = file };

	if (file == NULL)
		return;
	base_io_call(file->loop, close_call, &call);
	base_io_wait(file->loop, &call.idle);
	if (file->acquired)
		(void)file->ops->release(file, NULL);
	file->ops->close(file);
}

struct facts_call {
	const struct store_file *file;
	struct store_facts *facts;
};

static void facts_call(void *context)
{
	struct facts_call *call = context;
	const struct store_file *file = call->file;

	*call->facts = (struct store_facts){
		.size_bytes = file->size_bytes,
		.align_bytes = file->align_bytes,
		.max_inflight_ms = file->max_inflight_ms,
		.read_only = file->read_only,
		.state = file->state,
	};
	memcpy(call->facts->reason, file->reason, sizeof(file->reason));
}

void store_facts(const struct store_file *file, struct store_facts *ret_facts)
{
	struct facts_call call = { .file = file, .facts = ret_facts };

	base_io_call(file->loop, facts_call, &call);
}

uint64_t store_epoch(const struct store_file *file)
{
	return file->epoch;
}

const char *store_name(const struct store_file *file)
{
	return file->name;
}

struct base_io_loop *store_loop(const struct store_file *file)
{
	return file->loop;
}

/* --- the blocking form of a request --- */

struct blocking {
	struct store_request request;
	struct store_file *file;
	struct iovec iov;
	int result;
	bool done;
};

static void blocking_done(struct store_request *request, int result)
{
	struct blocking *blocking = request->context;

	blocking->result = result;
	base_io_done(blocking->file->loop, &blocking->done);
}

static void blocking_call(void *context)
{
	struct blocking *blocking = context;

	blocking->request.epoch = blocking->file->epoch;
	store_submit(blocking->file, &blocking->request);
}

static int do_one(struct store_file *file, enum store_op op, uint64_t offset_bytes, void *data,
		  uint64_t length_bytes)
{
	struct blocking blocking = {
		.request = {
			.op = op,
			.offset_bytes = offset_bytes,
			.length_bytes = length_bytes,
			.done = blocking_done,
		},
		.file = file,
		.iov = { .iov_base = data, .iov_len = length_bytes },
	};

	blocking.request.context = &blocking;
	if (op == STORE_READ || op == STORE_WRITE) {
		blocking.request.iov = &blocking.iov;
		blocking.request.iov_count = 1;
	}
	base_io_call(file->loop, blocking_call, &blocking);
	base_io_wait(file->loop, &blocking.done);
	return blocking.result;
}

int store_do(struct store_file *file, enum store_op op, uint64_t offset_bytes, void *data,
	     uint64_t length_bytes, struct base_error *err)
{
	bool has_data = op == STORE_READ || op == STORE_WRITE;
	uint64_t done_bytes = 0;
	int code = 0;

	if (length_bytes > UINT64_MAX - offset_bytes)
		return base_fail(err, -EINVAL,
				 "%s '%s' at %" PRIu64 ": %" PRIu64 " bytes are too many",
				 op_name(op), file->name, offset_bytes, length_bytes);
	do {
		uint64_t piece_bytes = length_bytes - done_bytes;

		if (has_data && piece_bytes > STORE_REQUEST_BYTES_MAX)
			piece_bytes = STORE_REQUEST_BYTES_MAX;
		code = do_one(file, op, offset_bytes + done_bytes,
			      has_data ? (char *)data + done_bytes : NULL, piece_bytes);
		done_bytes += piece_bytes;
	} while (code == 0 && done_bytes < length_bytes);
	if (code < 0)
		return base_fail_errno(err, code, "%s '%s' at %" PRIu64 ", %" PRIu64 " bytes",
				       op_name(op), file->name, offset_bytes, length_bytes);
	return 0;
}

/* --- names --- */

/* Drop the last part of what is in @name. */
static void name_up(char *name)
{
	char *slash = strrchr(name, '/');

	if (slash == NULL)
		name[0] = '\0';
	else
		*slash = '\0';
}

/* Go @path from the folder in @name.  -EINVAL, -ENAMETOOLONG. */
static int name_walk(char name[STORE_NAME_BYTES], const char *path)
{
	while (*path != '\0') {
		size_t part_bytes = strcspn(path, "/");
		size_t name_bytes = strlen(name);

		if (part_bytes == 2 && path[0] == '.' && path[1] == '.') {
			if (name_bytes == 0)
				return -EINVAL;
			name_up(name);
		} else if (part_bytes > 0 && (part_bytes != 1 || path[0] != '.')) {
			/* A separator, the part, the terminator. */
			if (part_bytes + 1 > STORE_NAME_BYTES - 1 - name_bytes)
				return -ENAMETOOLONG;
			if (name_bytes > 0)
				name[name_bytes++] = '/';
			memcpy(name + name_bytes, path, part_bytes);
			name[name_bytes + part_bytes] = '\0';
		}
		path += part_bytes;
		path += *path == '/';
	}
	return 0;
}

int store_resolve(const char *from, const char *path, char ret_name[STORE_NAME_BYTES],
		  struct base_error *err)
{
	char name[STORE_NAME_BYTES] = "";
	int code = 0;

	if (path[0] != '/') {
		code = name_walk(name, from);
		name_up(name);
	}
	if (code == 0)
		code = name_walk(name, path);
	if (code == -ENAMETOOLONG)
		return base_fail(err, code, "'%.64s' from '%.64s': a name of more than %d bytes",
				 path, from, STORE_NAME_BYTES - 1);
	if (code < 0)
		return base_fail(err, code, "'%.200s' leads outside of the store", path);
	if (name[0] == '\0')
		return base_fail(err, -EINVAL, "'%.200s' names no file", path);
	memcpy(ret_name, name, sizeof(name));
	return 0;
}

int store_list(struct store *store, const char *folder,
	       int (*each)(void *context, const char *name, uint64_t size_bytes), void *context,
	       struct base_error *err)
{
	char clean[STORE_NAME_BYTES] = "";
	int code = name_walk(clean, folder);

	if (code < 0)
		return base_fail(err, -EINVAL, "'%.200s' leads outside of the store or is too long",
				 folder);
	return store->ops->list(store, clean, each, context, err);
}

int store_rename(struct store *store, const char *from, const char *to, struct base_error *err)
{
	char clean_from[STORE_NAME_BYTES];
	char clean_to[STORE_NAME_BYTES];
	int code = store_resolve("", from, clean_from, err);

	if (code == 0)
		code = store_resolve("", to, clean_to, err);
	if (code < 0)
		return code;
	return store->ops->rename(store, clean_from, clean_to, err);
}

int store_remove(struct store *store, const char *name, struct base_error *err)
{
	char clean[STORE_NAME_BYTES];
	int code = store_resolve("", name, clean, err);

	return code < 0 ? code : store->ops->remove(store, clean, err);
}

int store_sync_folder(struct store *store, const char *name, struct base_error *err)
{
	char clean[STORE_NAME_BYTES];
	int code = store_resolve("", name, clean, err);

	return code < 0 ? code : store->ops->sync_folder(store, clean, err);
}

int store_free_space(struct store *store, uint64_t *ret_bytes, struct base_error *err)
{
	return store->ops->free_space(store, ret_bytes, err);
}

int store_lease(struct store *store, const char *name, struct store_lease *ret_lease,
		struct base_error *err)
{
	char clean[STORE_NAME_BYTES];
	int code = store_resolve("", name, clean, err);

	return code < 0 ? code : store->ops->lease(store, clean, ret_lease, err);
}

void store_free(struct store *store)
{
	if (store != NULL)
		store->ops->free(store);
}
