/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens when the store fails a request: report it to the guest, or keep it and try
 * again.  Loop, but for disk_retry().
 *
 * A disk is stalled from the first request that is kept until all that were kept are over.
 * Meanwhile new requests wait behind them; reads go on unless the store is gone.
 */
#include "hypervisor/disk/disk_priv.h"

#include <errno.h>
#include <string.h>

static enum disk_policy policy_of(const struct disk_options *options, int code)
{
	switch (code) {
	case -ENOSPC:
		return options->on_no_space;
	case -EIO:
		return options->on_io_error;
	case -ENODEV:
	case -ETIMEDOUT:
		/* No answer is the store's absence.  Writing the same bytes once more makes either
		 * outcome the one that was asked for. */
		return options->on_gone;
	default:
		return DISK_POLICY_REPORT;
	}
}

static void arm(struct disk *disk, int code)
{
	uint64_t wait_ms = disk->options.retry_ms;
	struct store_facts facts;

	if (code == -ETIMEDOUT) {
		/* What was sent must not land after what is sent now has been overwritten. */
		store_facts(disk->layers[0]->file, &facts);
		if (facts.max_inflight_ms != STORE_MS_UNBOUNDED && facts.max_inflight_ms > wait_ms)
			wait_ms = facts.max_inflight_ms;
	}
	base_io_timer_arm(disk->loop, &disk->retry_timer,
			  base_io_loop_now_ns(disk->loop) + wait_ms * BASE_NS_PER_MS);
}

static void tell_stalled(struct disk *disk, int code)
{
	const struct disk_events *events = disk->options.events;
	char why[STORE_TEXT_BYTES];
	struct base_error err = { .code = 0 };

	(void)base_fail_errno(&err, code, "disk '%s': request waits", disk->top_name);
	(void)strncpy(why, err.text, sizeof(why) - 1);
	why[sizeof(why) - 1] = '\0';
	if (events != NULL && events->stalled != NULL)
		events->stalled(disk->options.events_context, code, why);
}

bool disk_stall(struct disk_io *io, int code)
{
	struct disk *disk = io->disk;
	bool first = disk->stall_code == 0;

	if (io->inner.op == DISK_RESIZE || io->inner.op == DISK_MAP)
		return false; /* nobody's data: who asked can ask again */
	if (disk->closing || disk->broken != NULL ||
	    policy_of(&disk->options, code) != DISK_POLICY_PAUSE)
		return false;
	/* A flush that failed may have dropped what it should have made durable; to try it again
	 * could "succeed".  The image knows. */
	if (disk->layers[0]->failed)
		return false;

	disk->stall_code = code;
	arm(disk, code);
	if (first)
		tell_stalled(disk, code);
	if (disk_gives_back(io)) {
		disk_io_finish(io, -ECANCELED);
		return true;
	}
	if (io->retrying)
		disk->retrying--;
	io->retrying = false;
	disk_list_remove(&disk->flight, io);
	io->in_flight = false;
	disk_list_add(&disk->stalled, io);
	if (disk->flight.count == 0)
		disk_drained(disk);
	return true;
}

bool disk_stall_blocks(const struct disk_io *io)
{
	const struct disk *disk = io->disk;

	if (disk->stall_code == 0 || io->retrying)
		return false;
	if (io->inner.op != DISK_READ && io->inner.op != DISK_MAP)
		return true;
	return disk->stall_code == -ENODEV || disk->stall_code == -ETIMEDOUT;
}

static void stall_end(struct disk *disk)
{
	const struct disk_events *events = disk->options.events;

	disk->stall_code = 0;
	base_io_timer_disarm(disk->loop, &disk->retry_timer);
	disk_waiting_go(disk);
	if (disk->stall_code == 0 && events != NULL && events->unstalled != NULL)
		events->unstalled(disk->options.events_context);
}

void disk_stall_over(struct disk_io *io)
{
	struct disk *disk = io->disk;

	io->retrying = false;
	disk->retrying--;
	/* The timer is armed and nothing is stalled: what it failed for was given back, and may be
	 * tried again only when the timer says so. */
	if (disk->retrying > 0 || disk->stalled.count > 0 || disk->retry_timer.armed)
		return;
	stall_end(disk);
}

void disk_retry_now(struct disk *disk)
{
	struct disk_io_list list = disk->stalled;
	struct disk_io *io = NULL;

	if (disk->parked || disk->holds > 0 || disk->closing)
		return; /* whoever lets the disk go on calls again */
	base_io_timer_disarm(disk->loop, &disk->retry_timer);
	disk->stalled = (struct disk_io_list){ .head = NULL };
	for (io = list.head; io != NULL; io = io->next) {
		io->retrying = true;
		disk->retrying++;
	}
	while (list.head != NULL) {
		io = list.head;
		disk_list_remove(&list, io);
		disk_io_go(io);
	}
	if (disk->stall_code != 0 && disk->retrying == 0 && disk->stalled.count == 0 &&
	    !disk->retry_timer.armed)
		stall_end(disk); /* all of them had been given back */
}

static void retry_expired(struct base_io_timer *timer)
{
	disk_retry_now((struct disk *)((char *)timer - offsetof(struct disk, retry_timer)));
}

static void retry_asked(struct base_io_task *task)
{
	struct disk *disk = (struct disk *)((char *)task - offsetof(struct disk, retry_task));

	atomic_store(&disk->retry_posted, false);
	disk_retry_now(disk);
}

/* --- giving back --- */

#ifdef GODWIT_MUTANT_DISK_GIVE_BACK
#define GIVES_BACK false
#else
#define GIVES_BACK true
#endif

bool disk_gives_back(const struct disk_io *io)
{
	const struct disk *disk = io->disk;

	if (atomic_load(&disk->giving_back) == 0 || !GIVES_BACK)
		return false;
	return disk->parked || io->in_flight || disk_stall_blocks(io);
}

static void give_back_list(struct disk *disk, struct disk_io_list *list)
{
	struct disk_io_list taken = *list;

	*list = (struct disk_io_list){ .head = NULL };
	while (taken.head != NULL) {
		struct disk_io *io = taken.head;

		disk_list_remove(&taken, io);
		if (list == &disk->stalled || disk_gives_back(io))
			disk_io_finish(io, -ECANCELED);
		else
			disk_list_add(list, io);
	}
}

static void give_asked(struct base_io_task *task)
{
	struct disk *disk = (struct disk *)((char *)task - offsetof(struct disk, give_task));

	atomic_store(&disk->give_posted, false);
	if (atomic_load(&disk->giving_back) == 0 || !GIVES_BACK)
		return;
	give_back_list(disk, &disk->stalled);
	give_back_list(disk, &disk->waiting);
}

void disk_give_back(struct disk *disk)
{
	(void)atomic_fetch_add(&disk->giving_back, 1);
	if (!atomic_exchange(&disk->give_posted, true))
		base_io_post(disk->loop, &disk->give_task);
}

void disk_keep(struct disk *disk)
{
	uint32_t before = atomic_fetch_sub(&disk->giving_back, 1);

	base_assert(before > 0);
}

void disk_policy_init(struct disk *disk)
{
	struct disk_options *options = &disk->options;

	if (options->on_no_space == DISK_POLICY_INVALID)
		options->on_no_space = DISK_POLICY_PAUSE;
	if (options->on_io_error == DISK_POLICY_INVALID)
		options->on_io_error = DISK_POLICY_REPORT;
	if (options->on_gone == DISK_POLICY_INVALID)
		options->on_gone = DISK_POLICY_PAUSE;
	if (options->retry_ms == 0)
		options->retry_ms = DISK_RETRY_MS_DEFAULT;
	disk->retry_timer = (struct base_io_timer){ .expired = retry_expired };
	disk->retry_task = (struct base_io_task){ .run = retry_asked };
	disk->give_task = (struct base_io_task){ .run = give_asked };
}

void disk_retry(struct disk *disk)
{
	if (!atomic_exchange(&disk->retry_posted, true))
		base_io_post(disk->loop, &disk->retry_task);
}
