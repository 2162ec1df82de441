/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A move over time, as it is kept in the worker for people: looked at now and then on the loop
 * thread, kept until the next move begins.  docs/migrate/report.md.
 */
#include <errno.h>
#include <stdlib.h>

#include "agent/vm_worker_priv.h"
#include "base/clock.h"

#define FORM 1

struct vm_watch {
	struct mig_timeline timeline;
	uint64_t begin_ns;
	bool is_over;
	char to[VM_ADDRESS_BYTES];
	json_t *report; /* NULL: none yet */
};

static uint64_t now(void)
{
	return base_clock_boot_ns(&base_clock_system);
}

void vm_worker_watch_free(struct vm_worker *worker)
{
	if (worker->watch == NULL)
		return;
	json_decref(worker->watch->report);
	free(worker->watch);
	worker->watch = NULL;
}

void vm_worker_watch_begin(struct vm_worker *worker, const char *to)
{
	struct vm_watch *watch = NULL;

	vm_worker_watch_free(worker);
	watch = calloc(1, sizeof(*watch));
	if (watch == NULL)
		return;
	mig_timeline_begin(&watch->timeline);
	watch->begin_ns = now();
	(void)snprintf(watch->to, sizeof(watch->to), "%s", to);
	worker->watch = watch;
}

static void look(struct vm_worker *worker)
{
	struct mig_timeline_view view;

	vm_move_look(worker->move, &view);
	view.at_ns = now() - worker->watch->begin_ns;
	mig_timeline_look(&worker->watch->timeline, &view);
}

uint64_t vm_worker_watch_look(struct vm_worker *worker)
{
	if (worker->watch == NULL)
		return now() + MIG_TIMELINE_STEP_NS;
	look(worker);
	return worker->watch->begin_ns + worker->watch->timeline.next_ns;
}

static json_t *samples_json(const struct mig_timeline *timeline)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < timeline->sample_count; i++) {
		const struct mig_timeline_sample *sample = &timeline->samples[i];

		(void)json_array_append_new(
			list,
			json_pack("[I,I,I,I,I,I]", (json_int_t)sample->at_ns,
				  (json_int_t)sample->sent_bytes, (json_int_t)sample->dirty_bytes,
				  (json_int_t)sample->left_bytes, (json_int_t)sample->fault_pages,
				  (json_int_t)sample->throttle_permille));
	}
	return list;
}

static json_t *rounds_json(const struct mig_timeline *timeline)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < timeline->round_count; i++)
		(void)json_array_append_new(
			list, json_pack("[I,I]", (json_int_t)timeline->rounds[i].at_ns,
					(json_int_t)timeline->rounds[i].number));
	return list;
}

static json_t *marks_json(const struct mig_timeline *timeline)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < timeline->mark_count; i++) {
		const struct mig_timeline_mark *mark = &timeline->marks[i];
		const char *what = mark->what == MIG_TIMELINE_CUT ? "cut"
				   : mark->what == MIG_TIMELINE_RESUMED
					   ? "resumed"
					   : mig_source_state_name(mark->state);

		(void)json_array_append_new(list, json_pack("{s:s,s:I}", "what", what, "at_ns",
							    (json_int_t)mark->at_ns));
	}
	return list;
}

static json_t *watch_json(const struct vm_worker *worker)
{
	const struct vm_watch *watch = worker->watch;
	const struct mig_timeline *timeline = &watch->timeline;
	json_t *object = json_object();

	(void)json_object_set_new(object, "form", json_integer(FORM));
	(void)json_object_set_new(object, "name", json_string(worker->config->name));
	(void)json_object_set_new(object, "from", json_string(worker->host));
	(void)json_object_set_new(object, "to", json_string(watch->to));
	(void)json_object_set_new(object, "over", json_boolean(watch->is_over));
	(void)json_object_set_new(object, "samples", samples_json(timeline));
	(void)json_object_set_new(object, "rounds", rounds_json(timeline));
	(void)json_object_set_new(object, "marks", marks_json(timeline));
	(void)json_object_set_new(object, "lost_marks",
				  json_integer((json_int_t)timeline->lost_marks));
	(void)json_object_set_new(object, "throttle_permille_most",
				  json_integer((json_int_t)timeline->throttle_most));
	(void)json_object_set_new(object, "report",
				  watch->report != NULL ? json_incref(watch->report) : json_null());
	return object;
}

void vm_worker_watch_end(struct vm_worker *worker, json_t *report)
{
	struct vm_watch *watch = worker->watch;

	if (watch == NULL)
		return;
	look(worker);
	mig_timeline_end(&watch->timeline);
	watch->is_over = true;
	watch->report = report != NULL ? json_deep_copy(report) : NULL;
	for (uint32_t i = 0; i < worker->watcher_count && worker->control != NULL; i++)
		vm_control_answer(worker->control, &worker->watchers[i], watch_json(worker));
	worker->watcher_count = 0;
}

void vm_worker_watch_gone(struct vm_worker *worker, const struct vm_call *call)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < worker->watcher_count; i++)
		if (worker->watchers[i].client != call->client ||
		    worker->watchers[i].generation != call->generation)
			worker->watchers[kept++] = worker->watchers[i];
	worker->watcher_count = kept;
}

int vm_worker_timeline(struct vm_worker *worker, const struct vm_call *call, bool wait,
		       json_t **ret_result, struct base_error *err)
{
	struct vm_watch *watch = worker->watch;

	if (watch == NULL && !wait)
		return base_fail(err, -EPROTO,
				 "command 'migrate-timeline': expected a move, under way or over");
	if (watch == NULL || (wait && !watch->is_over)) {
		if (worker->watcher_count == VM_CONTROL_CLIENTS_MAX)
			return base_fail(err, -EAGAIN,
					 "command 'migrate-timeline': %u wait for it, expected "
					 "fewer",
					 VM_CONTROL_CLIENTS_MAX);
		worker->watchers[worker->watcher_count++] = *call;
		return VM_CALL_LATER;
	}
	*ret_result = watch_json(worker);
	return 0;
}
