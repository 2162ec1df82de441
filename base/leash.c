/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's side of the leash.
 *
 * The leash thread owns everything here but what is marked otherwise; state and soft
 * deadline are atomics that the gate reads from any thread.  Order of every change:
 *
 *   read the page, THEN the clock: an extension that was in the page while the clock
 *     still stood before the old soft deadline was written before that deadline, so the
 *     right to run never lapsed; in any other case the worker freezes first;
 *   arm the kill timer, THEN move the soft deadline: at no instant may a request be
 *     submitted that the kernel would not cut off;
 *   close the gate (state), THEN call back; a thaw opens it last.
 *
 * docs/base/leash.md has the protocol and the reasons.
 */
#include "base/leash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/leash_priv.h"
#include "base/thread.h"

#define READ_TRIES   16  /* of the thread: a later update announces itself */
#define START_TRIES  100 /* of base_leash_new(): nothing will wake it up */
#define START_NAP_NS BASE_NS_PER_MS

/* What base_leash_terms() tells. */
struct status {
	pthread_mutex_t lock; /* a leaf */
	struct base_leash_terms terms;
};

struct base_leash {
	uint64_t epoch; /* constant, as is all up to the thread */
	base_leash_changed changed;
	void *context;
	void *shared; /* the page, mapped read-only; NULL when alone */
	int event_fd; /* from the holder; -1 once it misbehaved */
	int stop_fd;
	int timer_fd;
	timer_t kill_timer;
	bool has_kill_timer;
	bool has_thread;
	pthread_t thread;

	_Atomic uint64_t soft_ns;
	atomic_int state; /* enum base_leash_state */

	uint64_t sequence;   /* of the last valid read */
	uint64_t thaw_count; /* seen */

	struct status *status; /* a pointer: readers with a const leash lock it, too */
	struct status status_memory;
};

static uint64_t boot_ns(void)
{
	return base_clock_boot_ns(&base_clock_system);
}

/* The absolute time for timer_settime; zero, which disarms, for BASE_TIME_NEVER only. */
static struct itimerspec deadline_spec(uint64_t deadline_ns)
{
	struct itimerspec spec = { .it_value.tv_sec = 0 };

	if (deadline_ns == BASE_TIME_NEVER)
		return spec;
	spec.it_value.tv_sec = (time_t)(deadline_ns / BASE_NS_PER_SECOND);
	spec.it_value.tv_nsec = (long)(deadline_ns % BASE_NS_PER_SECOND);
	if (deadline_ns == 0)
		spec.it_value.tv_nsec = 1;
	return spec;
}

/* A deadline that has passed kills at once. */
static void kill_timer_arm(const struct base_leash *leash, uint64_t hard_ns)
{
	struct itimerspec spec = deadline_spec(hard_ns);

#ifdef GODWIT_MUTANT_LEASH_KILL
	spec = deadline_spec(BASE_TIME_NEVER);
#endif
	if (timer_settime(leash->kill_timer, TIMER_ABSTIME, &spec, NULL) < 0)
		base_bug("leash: timer_settime: error %d", errno);
}

static enum base_leash_state state_of(const struct base_leash *leash)
{
	return (enum base_leash_state)atomic_load(&leash->state);
}

static void state_set(struct base_leash *leash, enum base_leash_state state)
{
	atomic_store(&leash->state, (int)state);
	leash->changed(leash->context, state);
}

static bool is_stop_signalled(const struct base_leash *leash)
{
	struct pollfd stop = { .fd = leash->stop_fd, .events = POLLIN };

	return poll(&stop, 1, 0) > 0;
}

static void freeze_if_due(struct base_leash *leash, uint64_t now_ns)
{
	if (state_of(leash) == BASE_LEASH_HELD && now_ns >= atomic_load(&leash->soft_ns))
		state_set(leash, BASE_LEASH_FROZEN);
}

static void terms_keep(struct base_leash *leash, const struct base_leash_terms *terms)
{
	BASE_LOCKED(&leash->status->lock);

	leash->status->terms = *terms;
}

/* New deadlines for this worker's own epoch; @page was read before. */
static void page_apply(struct base_leash *leash, const struct base_leash_page *page)
{
	const struct base_leash_terms *terms = &page->terms;
	bool thaw = terms->thaw_count > leash->thaw_count;
	uint64_t now_ns = 0;

	kill_timer_arm(leash, terms->hard_ns);
	atomic_store(&leash->soft_ns, terms->soft_ns);
	terms_keep(leash, terms);
	if (thaw)
		leash->thaw_count = terms->thaw_count;

	/* Read after the page: before thaw_until_ns the thaw was said for these deadlines. */
	now_ns = boot_ns();
	if (thaw && state_of(leash) == BASE_LEASH_FROZEN && now_ns < terms->thaw_until_ns &&
	    now_ns < terms->soft_ns)
		state_set(leash, BASE_LEASH_HELD);
}

/* Somebody else's VM from now on; deadlines stay as they are, the kill timer stays armed. */
static void page_stale(struct base_leash *leash, uint64_t epoch)
{
	{
		BASE_LOCKED(&leash->status->lock);

		leash->status->terms.epoch = epoch;
	}
	state_set(leash, BASE_LEASH_STALE);
}

/* A page that cannot be used changes nothing: the old deadlines stand. */
static void leash_update(struct base_leash *leash)
{
	struct base_leash_page page;
	int code = -EAGAIN;

	for (int i = 0; i < READ_TRIES && code == -EAGAIN; i++)
		code = base_leash_page_read(leash->shared, &page, NULL);
	freeze_if_due(leash, boot_ns()); /* the clock after the page */
	if (state_of(leash) == BASE_LEASH_STALE)
		return;
	if (code < 0 || page.sequence <= leash->sequence)
		return;
	leash->sequence = page.sequence;
	if (page.terms.epoch > leash->epoch) {
		page_stale(leash, page.terms.epoch);
	} else if (page.terms.epoch == leash->epoch) {
		page_apply(leash, &page);
		freeze_if_due(leash, boot_ns()); /* the holder may have shortened */
	}
}

static void soft_timer_set(const struct base_leash *leash)
{
	bool running = state_of(leash) == BASE_LEASH_HELD;
	struct itimerspec spec =
		deadline_spec(running ? atomic_load(&leash->soft_ns) : BASE_TIME_NEVER);

	if (timerfd_settime(leash->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL) < 0)
		base_bug("leash: timerfd_settime: error %d", errno);
}

/* Take the wake-up; a descriptor that is no eventfd is not listened to any more. */
static void event_take(struct base_leash *leash)
{
	uint64_t counter = 0;
	ssize_t got = read(leash->event_fd, &counter, sizeof(counter));

	if (got == (ssize_t)sizeof(counter) || (got < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	base_closep(&leash->event_fd);
}

static void *leash_thread(void *context)
{
	struct base_leash *leash = context;

	while (!is_stop_signalled(leash)) {
		struct pollfd wait[] = { { .fd = leash->stop_fd, .events = POLLIN },
					 { .fd = leash->timer_fd, .events = POLLIN },
					 { .fd = leash->event_fd, .events = POLLIN } };

		leash_update(leash);
		soft_timer_set(leash);
		if (poll(wait, sizeof(wait) / sizeof(wait[0]), -1) < 0 && errno != EINTR)
			base_bug("leash: poll: error %d", errno);
		if (wait[2].revents != 0)
			event_take(leash);
	}
	return NULL;
}

void base_leash_free(struct base_leash *leash)
{
	const uint64_t one = 1;

	if (leash == NULL)
		return;
	if (leash->has_thread) {
		base_assert(!pthread_equal(leash->thread, pthread_self()));
		(void)!write(leash->stop_fd, &one, sizeof(one)); /* fails only when set already */
		base_thread_join(leash->thread);
	}
	/* safety: the caller runs no VM any more, so there is nothing left to cut off. */
	if (leash->has_kill_timer)
		(void)timer_delete(leash->kill_timer);
	if (leash->shared != NULL)
		(void)munmap(leash->shared, BASE_LEASH_PAGE_BYTES);
	base_closep(&leash->timer_fd);
	base_closep(&leash->stop_fd);
	base_closep(&leash->event_fd);
	(void)pthread_mutex_destroy(&leash->status->lock);
	free(leash);
}

BASE_DEFINE_FREEP(struct base_leash, base_leash_free);

static int page_map(struct base_leash *leash, int page_fd, struct base_error *err)
{
	struct stat status;
	int seals = fcntl(page_fd, F_GET_SEALS);
	void *shared = NULL;

	/* Without the seal the other side could shrink it, and a read would fault. */
	if (seals < 0 || (seals & F_SEAL_SHRINK) == 0)
		return base_fail(err, -EINVAL, "leash page: descriptor %d is no sealed memory file",
				 page_fd);
	if (fstat(page_fd, &status) < 0)
		return base_fail(err, -EINVAL, "leash page: descriptor %d: fstat: error %d",
				 page_fd, errno);
	if (status.st_size != BASE_LEASH_PAGE_BYTES)
		return base_fail(err, -EINVAL, "leash page: %lld bytes, not %d",
				 (long long)status.st_size, BASE_LEASH_PAGE_BYTES);
	shared = mmap(NULL, BASE_LEASH_PAGE_BYTES, PROT_READ, MAP_SHARED, page_fd, 0);
	if (shared == MAP_FAILED)
		return base_fail_errno(err, -errno, "leash page: mmap");
	leash->shared = shared;
	return 0;
}

static int descriptors_open(struct base_leash *leash, int event_fd, struct base_error *err)
{
	leash->event_fd = fcntl(event_fd, F_DUPFD_CLOEXEC, 0);
	if (leash->event_fd < 0 && errno == EBADF)
		return base_fail(err, -EINVAL, "leash event: descriptor %d is not open", event_fd);
	if (leash->event_fd < 0)
		return base_fail_errno(err, -errno, "leash event: descriptor %d", event_fd);
	leash->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (leash->stop_fd < 0)
		return base_fail_errno(err, -errno, "leash: eventfd");
	leash->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (leash->timer_fd < 0)
		return base_fail_errno(err, -errno, "leash: timerfd_create");
	return 0;
}

static int first_read(struct base_leash *leash, struct base_leash_page *ret_page,
		      struct base_error *err)
{
	int code = base_leash_page_read(leash->shared, ret_page, err);

	for (int i = 1; i < START_TRIES && code == -EAGAIN; i++) {
		base_sleep_ns(START_NAP_NS);
		code = base_leash_page_read(leash->shared, ret_page, err);
	}
	return code;
}

/* Whether the first terms give this worker the right to run. */
static int first_check(const struct base_leash *leash, const struct base_leash_terms *terms,
		       struct base_error *err)
{
	uint64_t now_ns = boot_ns();

	if (terms->epoch > leash->epoch)
		return base_fail(err, -ESTALE, "leash: epoch %" PRIu64 " exists, ours is %" PRIu64,
				 terms->epoch, leash->epoch);
	if (terms->epoch < leash->epoch)
		return base_fail(err, -ETIME,
				 "leash: granted for epoch %" PRIu64 " only, ours is %" PRIu64,
				 terms->epoch, leash->epoch);
	if (now_ns >= terms->soft_ns)
		return base_fail(err, -ETIME, "leash: soft deadline %" PRIu64 ", now %" PRIu64,
				 terms->soft_ns, now_ns);
	return 0;
}

static int kill_timer_new(struct base_leash *leash, struct base_error *err)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL };

	if (getpid() == 1)
		return base_fail(err, -EPROTO,
				 "leash: process 1 of a PID namespace ignores its kill timer");
	if (timer_create(CLOCK_BOOTTIME, &event, &leash->kill_timer) < 0)
		return base_fail_errno(err, -errno, "leash: timer_create");
	leash->has_kill_timer = true;
	return 0;
}

static int leash_begin(struct base_leash *leash, int page_fd, int event_fd, struct base_error *err)
{
	struct base_leash_page page = { .sequence = 0 };
	int code = page_map(leash, page_fd, err);

	if (code == 0)
		code = descriptors_open(leash, event_fd, err);
	if (code == 0)
		code = kill_timer_new(leash, err);
	if (code == 0)
		code = first_read(leash, &page, err);
	if (code == 0)
		code = first_check(leash, &page.terms, err);
	if (code < 0)
		return code;

	kill_timer_arm(leash, page.terms.hard_ns);
	leash->status->terms = page.terms;
	leash->sequence = page.sequence;
	leash->thaw_count = page.terms.thaw_count;
	atomic_store(&leash->soft_ns, page.terms.soft_ns);
	atomic_store(&leash->state, BASE_LEASH_HELD);
	code = base_thread_start(&leash->thread, "leash", leash_thread, leash, err);
	leash->has_thread = code == 0;
	return code;
}

/* NOLINTNEXTLINE(readability-function-size): seven parameters, as the header has it */
int base_leash_new(int page_fd, int event_fd, uint64_t epoch, base_leash_changed changed,
		   void *context, struct base_leash **ret_leash, struct base_error *err)
{
	BASE_CLEANUP(base_leash_freep) struct base_leash *leash = NULL;
	bool alone = page_fd == -1 && event_fd == -1;

	base_assert(alone || changed != NULL);
	leash = calloc(1, sizeof(*leash));
	if (leash == NULL)
		return base_fail(err, -ENOMEM, "leash: no memory");
	leash->status = &leash->status_memory;
	(void)pthread_mutex_init(&leash->status->lock, NULL);
	leash->epoch = epoch;
	leash->changed = changed;
	leash->context = context;
	leash->event_fd = -1;
	leash->stop_fd = -1;
	leash->timer_fd = -1;
	leash->status->terms = (struct base_leash_terms){ .epoch = epoch,
							  .soft_ns = BASE_TIME_NEVER,
							  .hard_ns = BASE_TIME_NEVER };
	atomic_store(&leash->soft_ns, BASE_TIME_NEVER);
	atomic_store(&leash->state, BASE_LEASH_HELD);
	if (!alone) {
		int code = leash_begin(leash, page_fd, event_fd, err);

		if (code < 0)
			return code;
	}
	*ret_leash = base_take(&leash);
	return 0;
}

enum base_leash_state base_leash_state(const struct base_leash *leash)
{
	return state_of(leash);
}

bool base_leash_may_submit(const struct base_leash *leash)
{
	/* The clock last: what is stopped in between wakes with a late clock. */
	uint64_t soft_ns = atomic_load(&leash->soft_ns);
	bool held = state_of(leash) == BASE_LEASH_HELD;
	uint64_t now_ns = boot_ns();

#ifdef GODWIT_MUTANT_LEASH_GATE
	now_ns = 0;
#endif
	return held && now_ns < soft_ns;
}

void base_leash_terms(const struct base_leash *leash, struct base_leash_terms *ret_terms)
{
	BASE_LOCKED(&leash->status->lock);

	*ret_terms = leash->status->terms;
}
