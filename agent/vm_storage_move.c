/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two sides of a storage migration in one process: rounds, then the disk is held, and goes on
 * in the copy.  What counts is one rename: of the old top image, away from its name.
 */
#include "agent/vm_storage_move.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_image_away.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "hypervisor/disk/disk_move.h"

#define LEFT_BYTES_DEFAULT  (1ULL << 20)
#define LAST_ROUND_PER_S    20u /* what is copied in a twentieth of a second may wait for the end */
#define ROUNDS_WITHOUT_GAIN 2u

struct moving {
	const struct vm_storage_move_options *options;
	struct vm_storage_move_report report;
	struct vm_storage_view own_view;
	struct vm_storage_view *view;
	struct mig_plan plan;
	struct vm_migrate_out *out;
	struct vm_migrate_in *in;
	struct vm_image top;
	struct vm_storage_copy *copy;
	struct mig_rate *rate;
	struct vm_migrate_own own[MIG_OBJECTS_MAX];
	uint32_t own_count;
	bool begun; /* words were kept of it */
};

/* --- setting up --- */

static int plan_new(struct moving *moving, struct base_error *err)
{
	struct mig_plan *plan = &moving->plan;

	plan->objects = calloc(1, sizeof(*plan->objects));
	if (plan->objects == NULL)
		return base_fail(err, -ENOMEM, "storage migration");
	plan->object_count = 1;
	plan->objects[0].object.unit_count = 1;
	return 0;
}

/* The new files are looked at and not made yet. */
static int making(void *context, const char *const *names, uint32_t count, struct base_error *err)
{
	struct moving *moving = context;
	const struct vm_storage_words *words = moving->options->words;
	const struct vm_storage_files files = {
		.made = names,
		.made_count = count,
		.own = moving->own,
		.own_count = moving->own_count,
		.name = moving->report.name,
	};
	int code = 0;

	if (words == NULL)
		return 0;
	code = words->begins(words->context, &files, err);
	moving->begun = code == 0;
	return code;
}

/* The top is to be called otherwise, and so it is in the records of who goes on in it. */
static int rename_in_plan(struct mig_plan *plan, const char *from, const char *to,
			  struct base_error *err)
{
	if (strlen(to) >= VM_IMAGE_NAME_BYTES || to[0] == '.' || to[0] == '\0')
		return base_fail(err, -EINVAL,
				 "'%s': expected a name of at most %d bytes, not beginning with a "
				 "dot",
				 to, VM_IMAGE_NAME_BYTES - 1);
	for (uint32_t i = 1; i < plan->object_count; i++) {
		struct vm_image image;
		char *text = NULL;
		int code = vm_image_decode(plan->objects[i].description, &image, err);

		if (code < 0)
			return code;
		if (image.is_top)
			memcpy(image.name, to, strlen(to) + 1);
		else if (strcmp(image.next, from) == 0)
			memcpy(image.next, to, strlen(to) + 1);
		else
			continue;
		text = vm_image_encode(&image);
		if (text == NULL)
			return base_fail(err, -ENOMEM, "plan of '%s'", to);
		free(plan->objects[i].description);
		plan->objects[i].description = text;
	}
	return 0;
}

static int source_new(struct moving *moving, struct base_error *err)
{
	const struct vm_storage_move_options *options = moving->options;
	const struct vm_migrate_from from = { .store = options->from, .disk = options->disk };
	int code = plan_new(moving, err);

	if (code == 0)
		code = vm_migrate_out_new(&from, 1, &moving->plan, &moving->out, err);
	if (code < 0)
		return code;
	moving->own_count = vm_migrate_out_own(moving->out, moving->own);
	for (uint32_t i = 0; code == 0 && i < moving->own_count; i++)
		code = vm_image_away_check(options->from, disk_loop(options->disk),
					   moving->own[i].name, err);
	if (code == 0)
		code = vm_image_decode(moving->plan.objects[1].description, &moving->top, err);
	if (code == 0 && options->leaf != NULL && strcmp(options->leaf, moving->top.name) != 0) {
		code = rename_in_plan(&moving->plan, moving->top.name, options->leaf, err);
		if (code == 0)
			code = vm_image_decode(moving->plan.objects[1].description, &moving->top,
					       err);
	}
	return code;
}

static int target_new(struct moving *moving, struct base_error *err)
{
	const struct vm_storage_move_options *options = moving->options;
	const struct vm_migrate_in_options in = { .store = options->to,
						  .folder = options->folder,
						  .loop = disk_loop(options->disk),
						  .plan = &moving->plan,
						  .making = making,
						  .context = moving };
	BASE_FREE struct mig_findings *findings = calloc(1, sizeof(*findings));
	size_t length = strlen(options->folder);
	int code = 0;

	if (findings == NULL)
		return base_fail(err, -ENOMEM, "storage migration");
	(void)snprintf(moving->report.name, sizeof(moving->report.name), "%s%s%s", options->folder,
		       length > 0 && options->folder[length - 1] != '/' ? "/" : "",
		       moving->top.name);
	code = vm_migrate_in_new(&in, findings, &moving->in, err);
	if (code == 0 && moving->in == NULL)
		code = base_fail(err, -EINVAL, "%s", findings->lines[0]);
	return code;
}

static int copy_new(struct moving *moving, struct base_error *err)
{
	struct vm_storage_copy_options copy = {
		.out = moving->out,
		.in = moving->in,
		.plan = &moving->plan,
		.view = moving->view,
		.loop = disk_loop(moving->options->disk),
	};
	int code = 0;

	if (moving->options->bandwidth != 0)
		code = mig_rate_new(moving->options->bandwidth, &moving->rate, err);
	copy.rate = moving->rate;
	return code == 0 ? vm_storage_copy_new(&copy, &moving->copy, err) : code;
}

static void moving_fini(struct moving *moving)
{
	const struct vm_storage_words *words = moving->options->words;

	vm_storage_copy_free(moving->copy);
	mig_rate_free(moving->rate);
	vm_migrate_out_free(moving->out);
	vm_migrate_in_free(moving->in);
	mig_plan_fini(&moving->plan);
	if (moving->begun)
		words->over(words->context);
}

/* --- the rounds --- */

static uint64_t sent_bytes(const struct moving *moving)
{
	struct vm_storage_copy_counts counts = vm_storage_copy_counts(moving->copy);

	return counts.data_bytes + counts.clear_bytes + counts.unmap_bytes;
}

static bool is_cancelled(const struct moving *moving, uint64_t left_bytes)
{
	const struct vm_storage_move_options *options = moving->options;

	return atomic_load(&moving->view->cancel) ||
	       (options->progress != NULL &&
		options->progress(options->context, sent_bytes(moving), left_bytes) != 0);
}

/* How much may be left when the guest's requests are held. */
static uint64_t enough_bytes(const struct moving *moving, uint64_t begin_ns)
{
	uint64_t took_ms = (base_clock_boot_ns(&base_clock_system) - begin_ns) / BASE_NS_PER_MS + 1;
	uint64_t last = atomic_load(&moving->view->done_bytes) / took_ms * 1000 / LAST_ROUND_PER_S;

	if (moving->options->left_bytes != 0)
		return moving->options->left_bytes;
	return last > LEFT_BYTES_DEFAULT ? last : LEFT_BYTES_DEFAULT;
}

/* Until little is left, or what is left does not get less. */
static int converge(struct moving *moving, struct base_error *err)
{
	uint64_t begin_ns = base_clock_boot_ns(&base_clock_system);
	uint64_t best = UINT64_MAX;
	uint32_t without_gain = 0;

	for (;; moving->report.rounds++) {
		uint64_t left = 0;
		int code = vm_storage_copy_harvest(moving->copy, &left, err);

		if (code < 0)
			return code;
		if (is_cancelled(moving, left))
			return base_fail(err, -ECANCELED, "cancelled");
		without_gain = left < best ? 0 : without_gain + 1;
		best = left < best ? left : best;
		if (moving->report.rounds > 0 &&
		    (left <= enough_bytes(moving, begin_ns) || without_gain >= ROUNDS_WITHOUT_GAIN))
			return 0;
		code = vm_storage_copy_round(moving->copy, false, err);
		if (code == 0)
			code = vm_migrate_in_flush(moving->in, err);
		if (code < 0)
			return code;
	}
}

/* --- the switch --- */

static int fill(void *context, struct base_error *err)
{
	struct moving *moving = context;
	uint64_t left = 0;
	int code = 0;

	vm_migrate_out_held(moving->out);
#ifdef GODWIT_MUTANT_STORAGE_OLD_FIRST
	code = vm_image_put_away(moving->options->from, disk_name(moving->options->disk), err);
	if (code < 0)
		return code;
#endif
#ifndef GODWIT_MUTANT_STORAGE_LAST_HARVEST
	code = vm_storage_copy_harvest(moving->copy, &left, err);
#else
	(void)left;
#endif
	if (code == 0)
		code = vm_storage_copy_round(moving->copy, true, err);
	moving->report.rounds++;
	return code == 0 ? vm_migrate_in_finish(moving->in, err) : code;
}

/* Under its name nobody finds the old image any more: who starts the VM from there by mistake is
 * told so, and never runs on what is old. */
static int commit(void *context, struct base_error *err)
{
	struct moving *moving = context;
	const struct vm_storage_move_options *options = moving->options;
	const char *name = disk_name(options->disk);

	/* The last instant at which it can be given up. */
	if (atomic_load(&moving->view->cancel))
		return base_fail(err, -ECANCELED, "cancelled");
	/* safety: the old image is perhaps another worker's already. */
	if (options->gate.may_submit != NULL && !options->gate.may_submit(options->gate.context))
		return base_fail(err, -EAGAIN, "'%s': the leash has ended", name);
#ifdef GODWIT_MUTANT_STORAGE_OLD_FIRST
	return 0;
#else
	return vm_image_put_away(options->from, name, err);
#endif
}

/* The guest goes on in the new images.  What fails here leaves files, and says so. */
static void leave_old(struct moving *moving)
{
	const struct vm_storage_move_options *options = moving->options;

	for (uint32_t i = 0; i < moving->own_count; i++) {
		const char *name = moving->own[i].name;
		struct base_error why = { 0 };
		int code = 0;

		if (i > 0) /* the top is put away already */
			code = vm_image_put_away(options->from, name, &why);
		if (code == 0 && !options->keep)
			code = vm_image_drop(options->from, name, &why);
		if (code < 0)
			base_log(BASE_LOG_WARNING, "vm.storage-move", "image=%s why=%s",
				 base_log_str(name), base_log_str(why.text));
	}
}

static int switch_over(struct moving *moving, struct base_error *err)
{
	const struct vm_storage_move_options *options = moving->options;
	const struct disk_move_options move = { .store = options->to,
						.name = moving->report.name,
						.format = moving->top.format,
						.fill = fill,
						.commit = commit,
						.context = moving,
						.held_ns = &moving->report.held_ns };
	int code = disk_move(options->disk, &move, err);

	if (code < 0)
		return code;
	vm_migrate_in_keep(moving->in);
	atomic_store(&moving->view->percent, 100);
	if (options->words != NULL)
		options->words->switched(options->words->context);
	return 0;
}

static int run(struct moving *moving, struct base_error *err)
{
	uint64_t begin_ns = base_clock_boot_ns(&base_clock_system);
	int code = source_new(moving, err);

	if (code == 0)
		code = target_new(moving, err);
	if (code == 0)
		code = copy_new(moving, err);
	if (code == 0)
		code = converge(moving, err);
	if (code == 0)
		code = switch_over(moving, err);
	if (code < 0)
		return code;
	moving->report.total_ns = base_clock_boot_ns(&base_clock_system) - begin_ns;
	moving->report.sent_bytes = sent_bytes(moving);
	leave_old(moving);
	return 0;
}

int vm_storage_move(const struct vm_storage_move_options *options,
		    struct vm_storage_move_report *ret_report, struct base_error *err)
{
	BASE_FREE struct moving *moving = calloc(1, sizeof(*moving));
	int code = 0;

	if (moving == NULL)
		return base_fail(err, -ENOMEM, "storage migration");
	moving->options = options;
	moving->view = options->view != NULL ? options->view : &moving->own_view;
	code = run(moving, err);
	moving_fini(moving);
	if (code < 0)
		return base_fail_within(err, code, "storage of disk '%s'",
					disk_name(options->disk));
	*ret_report = moving->report;
	return 0;
}
