/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting threads the way all of Godwit wants them: named, with every signal
 * blocked that another thread may take, errors as negative errno.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

#include "base/error.h"

#define BASE_THREAD_NAME_MAX 15 /* the kernel's limit, without the terminator */

/**
 * base_thread_start - run @body(@context) on a new thread.
 * @name: shows in ps; 1..BASE_THREAD_NAME_MAX bytes, else -EINVAL.
 *
 * The thread begins with all signals blocked (a signal meant for the process goes
 * to its main thread); it unblocks what it wants to receive.  The caller joins it.
 * Return: 0; -EINVAL; -EAGAIN when the system gives no thread.
 */
BASE_MUST_CHECK int base_thread_start(pthread_t *ret_thread, const char *name,
				      void *(*body)(void *context), void *context,
				      struct base_error *err);

/* Wait for the end of @thread; a join that fails is a bug. */
void base_thread_join(pthread_t thread);

#endif
