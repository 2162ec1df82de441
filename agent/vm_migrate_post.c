/* SPDX-License-Identifier: Apache-2.0 */
/* A move that ends by post-copy: what each side's worker knows of it. */
#include <errno.h>

#include "agent/vm_migrate_priv.h"
#include "base/log.h"
#include "hypervisor/slat.h"

static void put(json_t *object, const char *key, uint64_t value)
{
	(void)json_object_set_new(object, key, json_integer((json_int_t)value));
}

static void put_complete(json_t *object, const struct mig_complete *counts)
{
	put(object, "owed_pages", counts->owed_pages);
	put(object, "fault_pages", counts->fault_pages);
	put(object, "rest_pages", counts->rest_pages);
	put(object, "twice_pages", counts->twice_pages);
	put(object, "waits", counts->waits);
	put(object, "wait_p50_ns", counts->p50_ns);
	put(object, "wait_p99_ns", counts->p99_ns);
	put(object, "wait_longest_ns", counts->longest_ns);
	put(object, "reconnects", counts->reconnects);
}

/* --- source --- */

int vm_move_post_now(struct vm_move *move, struct base_error *err)
{
	if (move->request.late != MIG_LATE_POSTCOPY)
		return base_fail(err, -EPROTO,
				 "command 'migrate-postcopy': expected a move with late=postcopy");
	mig_out_post_now(move->out);
	return 0;
}

void vm_move_put_post(json_t *object, const struct vm_move *move)
{
	const struct mig_out_report *report = &move->report;
	json_t *post = NULL;

	if (!report->is_post)
		return;
	post = json_object();
	put_complete(post, &report->post);
	put(post, "postcopy_ns", report->post_ns);
	(void)json_object_set_new(object, "postcopy", post);
}

/* --- destination --- */

/* A pool's pages cannot be filled in parts. */
void vm_move_post_options(const struct vm_move *move, struct mig_in_options *options)
{
	const struct hv_memory *memory = hv_slat_memory(hv_machine_slat(move->options.machine));

	options->post =
		move->options.fault_fd >= 0 && hv_memory_backing(memory) != HV_MEMORY_HUGETLB;
	options->fault_fd = move->options.fault_fd;
	options->memory_fd = hv_memory_fd(memory);
}

bool vm_move_fill(struct vm_move *move)
{
	mig_in_fill(move->in);
	return !mig_in_is_broken(move->in);
}

bool vm_move_is_filling(struct vm_move *move)
{
	struct mig_complete counts;
	uint64_t left_pages = 0;

	return mig_in_is_filling(move->in, &left_pages, &counts);
}

json_t *vm_move_fill_json(struct vm_move *move)
{
	struct mig_complete counts = { 0 };
	uint64_t left_pages = 0;
	bool filling = mig_in_is_filling(move->in, &left_pages, &counts);
	json_t *object = json_object();

	(void)json_object_set_new(object, "state", json_string(filling ? "filling" : "complete"));
	put(object, "left_pages", left_pages);
	put_complete(object, &counts);
	return object;
}
