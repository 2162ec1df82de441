/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers here are real child processes: they are stopped, go on, and are killed by the
 * kernel.  Time is one-sided: things must come to pass (PATIENCE_NS is how long a broken
 * one is waited for), or must never.  A child that a slow machine did not let start
 * before its deadline is started again with twice the time.
 */
#include "base/leash.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define EPOCH        7
#define HOUR_NS      (3600 * BASE_NS_PER_SECOND)
#define FIRST_TRY_MS 100
#define TRIES        8
#define PATIENCE_NS  (20 * BASE_NS_PER_SECOND)

/* What a child tells without being asked: shared memory. */
struct view {
	atomic_ullong calls;      /* of may_submit */
	atomic_ullong violations; /* true though the soft deadline had passed before the call */
};

struct worker {
	struct base_leash_holder *holder;
	struct base_leash_terms terms; /* it began with */
	struct view *view;
	pid_t pid;
	int talk;   /* commands and answers */
	int events; /* a letter per change of state */
};

/* The machine never let a test come to its point. */
_Noreturn static void give_up(const char *what)
{
	cr_assert_fail("%s", what);
	abort();
}

static uint64_t now(void)
{
	return base_clock_boot_ns(&base_clock_system);
}

static void sleep_until(uint64_t deadline_ns)
{
	uint64_t now_ns = now();

	if (deadline_ns > now_ns)
		base_sleep_ns(deadline_ns - now_ns);
}

/* --- in the child --- */

static int child_events;

static void child_changed(void *context, enum base_leash_state state)
{
	static const char letters[BASE_LEASH_STATES] = { '?', 'H', 'F', 'S' };

	(void)context;
	if (write(child_events, &letters[state], 1) != 1)
		_exit(9);
}

/* What the gate says, against a clock read before it was asked. */
static void child_probe(const struct base_leash *leash, struct view *view)
{
	struct base_leash_terms terms;
	uint64_t before_ns = 0;

	base_leash_terms(leash, &terms);
	before_ns = now();
	if (base_leash_may_submit(leash) && before_ns >= terms.soft_ns)
		atomic_fetch_add(&view->violations, 1);
	atomic_fetch_add(&view->calls, 1);
}

struct answer {
	struct base_leash_terms terms;
	enum base_leash_state state;
	bool may_submit;
};

static void child_serve(struct base_leash *leash, int talk, struct view *view)
{
	char command = 0;
	ssize_t got = 0;

	for (;;) {
		struct answer answer;

		got = recv(talk, &command, 1, MSG_DONTWAIT);
		if (got < 0 && errno == EAGAIN) {
			child_probe(leash, view);
			continue;
		}
		if (got != 1 || command == 'x')
			_exit(0);
		if (command == 'f') {
			base_leash_free(leash);
			(void)!write(talk, "f", 1);
			(void)!recv(talk, &command, 1, 0); /* live on until told to end */
			_exit(5);
		}
		memset(&answer, 0, sizeof(answer));
		answer.may_submit = base_leash_may_submit(leash);
		answer.state = base_leash_state(leash);
		base_leash_terms(leash, &answer.terms);
		if (write(talk, &answer, sizeof(answer)) != (ssize_t)sizeof(answer))
			_exit(9);
	}
}

_Noreturn static void child_main(const struct worker *worker, int talk, int events)
{
	struct base_leash *leash = NULL;
	int code = 0;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	child_events = events;
	code = base_leash_new(base_leash_holder_page_fd(worker->holder),
			      base_leash_holder_event_fd(worker->holder), EPOCH, child_changed,
			      NULL, &leash, NULL);
	if (code < 0)
		_exit(code == -ETIME ? 3 : 4);
	if (write(talk, "r", 1) != 1)
		_exit(9);
	child_serve(leash, talk, worker->view);
	_exit(9);
}

/* --- in the test --- */

static void worker_end(struct worker *worker)
{
	(void)kill(worker->pid, SIGKILL);
	(void)waitpid(worker->pid, NULL, 0);
	(void)close(worker->talk);
	(void)close(worker->events);
	(void)munmap(worker->view, sizeof(*worker->view));
	base_leash_holder_free(worker->holder);
}

/* 0, or -1 when there was not enough time. */
static int worker_try(struct worker *worker, uint64_t soft_ns, uint64_t hard_ns)
{
	int talk[2];
	int events[2];
	char ready = 0;

	worker->terms =
		(struct base_leash_terms){ .epoch = EPOCH, .soft_ns = soft_ns, .hard_ns = hard_ns };
	cr_assert_eq(base_leash_holder_new(&worker->terms, &worker->holder, NULL), 0);
	worker->view = mmap(NULL, sizeof(*worker->view), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(worker->view, MAP_FAILED);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, talk), 0);
	cr_assert_eq(pipe2(events, O_CLOEXEC), 0);
	worker->pid = fork();
	cr_assert_geq(worker->pid, 0);
	if (worker->pid == 0) {
		(void)close(talk[0]);
		(void)close(events[0]);
		child_main(worker, talk[1], events[1]);
	}
	(void)close(talk[1]);
	(void)close(events[1]);
	worker->talk = talk[0];
	worker->events = events[0];
	if (read(worker->talk, &ready, 1) == 1 && now() < soft_ns)
		return 0;
	worker_end(worker);
	return -1;
}

/*
 * A worker whose soft deadline is in @soft_ms and its hard one @more_ms later (0: never);
 * the times grow with each @attempt of the caller.
 */
static struct worker worker_begin(uint64_t soft_ms, uint64_t more_ms, unsigned int attempt)
{
	struct worker worker;

	for (unsigned int i = attempt; i < TRIES; i++) {
		uint64_t soft_ns = now() + (soft_ms << i) * BASE_NS_PER_MS;
		uint64_t hard_ns =
			more_ms == 0 ? BASE_TIME_NEVER : soft_ns + (more_ms << i) * BASE_NS_PER_MS;

		if (worker_try(&worker, soft_ns, hard_ns) == 0)
			return worker;
	}
	give_up("no worker could be started before its deadline");
}

static bool ask(const struct worker *worker, struct answer *answer)
{
	if (send(worker->talk, "?", 1, MSG_NOSIGNAL) != 1)
		return false;
	return recv(worker->talk, answer, sizeof(*answer), MSG_WAITALL) == (ssize_t)sizeof(*answer);
}

/* The next change of state, waited for. */
static char event_next(const struct worker *worker)
{
	struct pollfd wait = { .fd = worker->events, .events = POLLIN };
	char letter = 0;

	cr_assert_eq(poll(&wait, 1, (int)(PATIENCE_NS / BASE_NS_PER_MS)), 1, "no change came");
	cr_assert_eq(read(worker->events, &letter, 1), 1, "the worker is gone");
	return letter;
}

static bool event_is_none(const struct worker *worker)
{
	struct pollfd wait = { .fd = worker->events, .events = POLLIN };

	return poll(&wait, 1, 0) == 0;
}

/* Wait until the worker has applied deadlines with this soft one; false when it died. */
static bool wait_applied(const struct worker *worker, uint64_t soft_ns, struct answer *answer)
{
	do {
		if (!ask(worker, answer))
			return false;
	} while (answer->terms.soft_ns != soft_ns);
	return true;
}

/* Extend twice: when the second is applied, whatever the first caused has happened. */
static void extend_and_settle(const struct worker *worker, struct answer *answer)
{
	uint64_t soft_ns = now() + HOUR_NS;

	for (uint64_t i = 0; i < 2; i++) {
		cr_assert_eq(
			base_leash_extend(worker->holder, soft_ns + i, BASE_TIME_NEVER, true, NULL),
			0);
		cr_assert(wait_applied(worker, soft_ns + i, answer));
	}
	cr_assert(ask(worker, answer));
}

/* Stop it and see that it is stopped; false when it was dead already. */
static bool worker_stop(const struct worker *worker)
{
	int status = 0;

	cr_assert_eq(kill(worker->pid, SIGSTOP), 0);
	cr_assert_eq(waitpid(worker->pid, &status, WUNTRACED), worker->pid);
	return WIFSTOPPED(status);
}

static int wait_death(const struct worker *worker)
{
	uint64_t until_ns = now() + PATIENCE_NS;
	int status = 0;

	for (;;) {
		pid_t pid = waitpid(worker->pid, &status, WNOHANG);

		if (pid == worker->pid)
			return status;
		cr_assert_lt(now(), until_ns, "it is still alive");
		base_sleep_ns(BASE_NS_PER_MS);
	}
}

Test(leash, stopped_across_the_hard_deadline_it_is_killed, .timeout = 300)
{
	for (unsigned int attempt = 0; attempt < TRIES; attempt++) {
		struct worker worker = worker_begin(FIRST_TRY_MS, FIRST_TRY_MS, attempt);
		bool stopped = worker_stop(&worker);

		if (stopped) { /* and nobody sends SIGCONT */
			int status = wait_death(&worker);

			cr_assert(WIFSIGNALED(status));
			cr_assert_eq(WTERMSIG(status), SIGKILL);
			cr_assert_geq(now(), worker.terms.hard_ns, "not before the deadline");
		}
		worker_end(&worker);
		if (stopped)
			return;
	}
	give_up("the worker never lived long enough to be stopped");
}

Test(leash, running_across_the_hard_deadline_it_is_killed, .timeout = 300)
{
	struct worker worker = worker_begin(FIRST_TRY_MS, FIRST_TRY_MS, 0);
	int status = wait_death(&worker);

	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	cr_assert_geq(now(), worker.terms.hard_ns);
	cr_assert_eq(atomic_load(&worker.view->violations), 0);
	worker_end(&worker);
}

Test(leash, stopped_across_the_soft_deadline_it_submits_nothing, .timeout = 300)
{
	struct worker worker = worker_begin(FIRST_TRY_MS, 0, 0);
	unsigned long long calls = 0;
	struct answer answer;

	cr_assert(worker_stop(&worker));
	sleep_until(worker.terms.soft_ns);
	calls = atomic_load(&worker.view->calls);
	cr_assert_eq(kill(worker.pid, SIGCONT), 0);
	while (atomic_load(&worker.view->calls) < calls + 100)
		base_sleep_ns(BASE_NS_PER_MS);
	cr_assert(ask(&worker, &answer));
	cr_assert_not(answer.may_submit);
	cr_assert_eq(atomic_load(&worker.view->violations), 0);
	cr_assert_eq(event_next(&worker), 'F');
	worker_end(&worker);
}

Test(leash, extension_in_time_keeps_it_running, .timeout = 300)
{
	for (unsigned int attempt = 0; attempt < TRIES; attempt++) {
		struct worker worker = worker_begin(FIRST_TRY_MS, FIRST_TRY_MS, attempt);
		uint64_t soft_ns = now() + HOUR_NS;
		struct answer answer;
		bool in_time = false;

		cr_assert_eq(base_leash_extend(worker.holder, soft_ns, soft_ns, false, NULL), 0);
		in_time = wait_applied(&worker, soft_ns, &answer) && ask(&worker, &answer) &&
			  answer.state == BASE_LEASH_HELD;
		if (in_time) {
			sleep_until(worker.terms.hard_ns + 50 * BASE_NS_PER_MS);
			cr_assert(ask(&worker, &answer), "killed at the old hard deadline");
			cr_assert(answer.may_submit);
			cr_assert_eq(answer.state, BASE_LEASH_HELD);
			cr_assert(event_is_none(&worker));
		}
		worker_end(&worker);
		if (in_time)
			return;
	}
	give_up("no extension reached the worker in time");
}

Test(leash, many_extensions, .timeout = 300)
{
	struct worker worker = worker_begin(20 * FIRST_TRY_MS, FIRST_TRY_MS, 0);
	struct answer answer;

	for (uint64_t i = 0; i < 300; i++)
		cr_assert_eq(base_leash_extend(worker.holder, now() + HOUR_NS, now() + 2 * HOUR_NS,
					       false, NULL),
			     0);
	extend_and_settle(&worker, &answer);
	cr_assert_eq(answer.may_submit, answer.state == BASE_LEASH_HELD);
	cr_assert_eq(atomic_load(&worker.view->violations), 0);
	worker_end(&worker);
}

Test(leash, frozen_it_thaws_by_thaw_and_not_by_extension, .timeout = 300)
{
	struct worker worker = worker_begin(FIRST_TRY_MS, 0, 0);
	struct answer answer;

	cr_assert_eq(event_next(&worker), 'F');
	cr_assert_geq(now(), worker.terms.soft_ns, "not before the deadline");
	extend_and_settle(&worker, &answer);
	cr_assert_eq(answer.state, BASE_LEASH_FROZEN);
	cr_assert_not(answer.may_submit);
	cr_assert(event_is_none(&worker));

	cr_assert_eq(base_leash_thaw(worker.holder, NULL), 0);
	cr_assert_eq(event_next(&worker), 'H');
	cr_assert(ask(&worker, &answer));
	cr_assert_eq(answer.state, BASE_LEASH_HELD);
	cr_assert(answer.may_submit);
	worker_end(&worker);
}

Test(leash, thaw_while_stopped_counts_after_the_freeze, .timeout = 300)
{
	struct worker worker = worker_begin(FIRST_TRY_MS, 0, 0);

	cr_assert(worker_stop(&worker));
	sleep_until(worker.terms.soft_ns);
	cr_assert_eq(
		base_leash_extend(worker.holder, now() + HOUR_NS, BASE_TIME_NEVER, false, NULL), 0);
	cr_assert_eq(base_leash_thaw(worker.holder, NULL), 0);
	cr_assert_eq(kill(worker.pid, SIGCONT), 0);
	cr_assert_eq(event_next(&worker), 'F');
	cr_assert_eq(event_next(&worker), 'H');
	worker_end(&worker);
}

Test(leash, thaw_of_an_earlier_grant_does_not_count, .timeout = 300)
{
	for (unsigned int attempt = 0; attempt < TRIES; attempt++) {
		struct worker worker = worker_begin(FIRST_TRY_MS, 0, attempt);
		struct answer answer;
		int code = 0;

		cr_assert(worker_stop(&worker));
		code = base_leash_thaw(worker.holder, NULL); /* before the deadline, or refused */
		sleep_until(worker.terms.soft_ns);
		cr_assert_eq(base_leash_extend(worker.holder, now() + HOUR_NS, BASE_TIME_NEVER,
					       false, NULL),
			     0);
		cr_assert_eq(kill(worker.pid, SIGCONT), 0);
		cr_assert_eq(event_next(&worker), 'F');
		extend_and_settle(&worker, &answer);
		cr_assert_eq(answer.state, BASE_LEASH_FROZEN);
		cr_assert(event_is_none(&worker));
		worker_end(&worker);
		if (code == 0)
			return;
	}
	give_up("no thaw could be said in time");
}

Test(leash, revoked_it_is_stale_for_good_and_its_life_is_not_extended, .timeout = 300)
{
	struct worker worker = worker_begin(10 * FIRST_TRY_MS, 10 * FIRST_TRY_MS, 0);
	struct answer answer;
	char letter = 0;
	int status = 0;

	cr_assert_eq(base_leash_revoke(worker.holder, EPOCH + 1, NULL), 0);
	letter = event_next(&worker);
	if (letter == 'F') /* a slow machine: the soft deadline came first */
		letter = event_next(&worker);
	cr_assert_eq(letter, 'S');
	cr_assert(ask(&worker, &answer));
	cr_assert_eq(answer.state, BASE_LEASH_STALE);
	cr_assert_eq(answer.terms.epoch, EPOCH + 1);
	cr_assert_not(answer.may_submit);
	cr_assert_eq(
		base_leash_extend(worker.holder, now() + HOUR_NS, now() + 2 * HOUR_NS, false, NULL),
		0);
	cr_assert_eq(base_leash_thaw(worker.holder, NULL), 0);
	status = wait_death(&worker);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	cr_assert(poll(&(struct pollfd){ .fd = worker.events, .events = POLLIN }, 1, 0) == 1);
	cr_assert_eq(read(worker.events, &letter, 1), 0, "no change after stale");
	worker_end(&worker);
}

Test(leash, shortened_on_purpose_it_freezes, .timeout = 300)
{
	struct worker worker = worker_begin(HOUR_NS / BASE_NS_PER_MS, 0, 0);

	cr_assert_eq(base_leash_extend(worker.holder, now(), BASE_TIME_NEVER, true, NULL), 0);
	cr_assert_eq(event_next(&worker), 'F');
	worker_end(&worker);
}

Test(leash, shortened_hard_deadline_kills, .timeout = 300)
{
	struct worker worker = worker_begin(HOUR_NS / BASE_NS_PER_MS, 1000, 0);
	int status = 0;

	cr_assert_eq(base_leash_extend(worker.holder, 0, 0, true, NULL), 0);
	status = wait_death(&worker);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	worker_end(&worker);
}

Test(leash, freed_it_outlives_the_hard_deadline, .timeout = 300)
{
	for (unsigned int attempt = 0; attempt < TRIES; attempt++) {
		struct worker worker = worker_begin(FIRST_TRY_MS, FIRST_TRY_MS, attempt);
		char letter = 0;
		int status = 0;
		bool freed = false;

		(void)send(worker.talk, "f", 1, MSG_NOSIGNAL);
		freed = recv(worker.talk, &letter, 1, 0) == 1 && letter == 'f';
		if (freed) {
			sleep_until(worker.terms.hard_ns + 50 * BASE_NS_PER_MS);
			cr_assert_eq(send(worker.talk, "x", 1, MSG_NOSIGNAL), 1);
			status = wait_death(&worker);
			cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 5);
		}
		worker_end(&worker);
		if (freed)
			return;
	}
	give_up("the worker never lived long enough to free its leash");
}
