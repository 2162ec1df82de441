/* SPDX-License-Identifier: Apache-2.0 */
/* Starting and joining threads. */
#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

/* A fault of the thread's own must still end the process with its own signal. */
static void block_signals(sigset_t *ret_before)
{
	static const int own_faults[] = {
		SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS
	};
	sigset_t all;
	int code = 0;

	(void)sigfillset(&all);
	for (size_t i = 0; i < sizeof(own_faults) / sizeof(own_faults[0]); i++)
		(void)sigdelset(&all, own_faults[i]);
	code = pthread_sigmask(SIG_SETMASK, &all, ret_before);
	if (code != 0)
		base_bug("pthread_sigmask: error %d", code);
}

int base_thread_start(pthread_t *ret_thread, const char *name, void *(*body)(void *context),
		      void *context, struct base_error *err)
{
	size_t length = strlen(name);
	pthread_t thread;
	sigset_t before;
	int code = 0;

	if (length == 0 || length > BASE_THREAD_NAME_MAX)
		return base_fail(err, -EINVAL, "thread name '%s': %zu bytes, not 1..%d", name,
				 length, BASE_THREAD_NAME_MAX);

	block_signals(&before); /* the new thread inherits the mask */
	code = pthread_create(&thread, NULL, body, context);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (code != 0)
		return base_fail_errno(err, -code, "thread '%s'", name);

	(void)pthread_setname_np(thread, name); /* a name is a comfort, not a need */
	*ret_thread = thread;
	return 0;
}

void base_thread_join(pthread_t thread)
{
	int code = pthread_join(thread, NULL);

	if (code != 0)
		base_bug("pthread_join: error %d", code);
}
