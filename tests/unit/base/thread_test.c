/* SPDX-License-Identifier: Apache-2.0 */
#include "base/thread.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

static void *masked(void *context)
{
	(void)pthread_sigmask(SIG_SETMASK, NULL, context);
	return NULL;
}

Test(thread, begins_with_signals_blocked_and_leaves_the_callers_mask)
{
	struct base_error err = { .code = 0 };
	pthread_t thread;
	sigset_t inside;
	sigset_t before;
	sigset_t after;

	(void)pthread_sigmask(SIG_SETMASK, NULL, &before);
	cr_assert_eq(base_thread_start(&thread, "test", masked, &inside, &err), 0);
	base_thread_join(thread);
	(void)pthread_sigmask(SIG_SETMASK, NULL, &after);
	cr_assert_eq(sigismember(&inside, SIGTERM), 1);
	cr_assert_eq(sigismember(&inside, SIGUSR1), 1);
	cr_assert_eq(sigismember(&inside, SIGSEGV), 0);
	cr_assert_eq(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
}

static void *named(void *context)
{
	/* The name is given right after the start: wait for it. */
	do {
		(void)pthread_getname_np(pthread_self(), context, 16);
	} while (strcmp(context, "a name of 15 by") != 0);
	return NULL;
}

Test(thread, has_its_name)
{
	pthread_t thread;
	char name[16] = "";

	cr_assert_eq(base_thread_start(&thread, "a name of 15 by", named, name, NULL), 0);
	base_thread_join(thread);
	cr_assert_str_eq(name, "a name of 15 by");
}

Test(thread, bad_names_are_refused)
{
	struct base_error err = { .code = 0 };
	pthread_t thread;

	cr_assert_eq(base_thread_start(&thread, "", masked, NULL, &err), -EINVAL);
	cr_assert_eq(base_thread_start(&thread, "sixteen bytes !!", masked, NULL, &err), -EINVAL);
	cr_assert_eq(err.code, -EINVAL);
}
