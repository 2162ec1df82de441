/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sanitizers ask a unit test.
 *
 * criterion runs each test in a process of its own and leaks a little in the process
 * that starts them.  Leaks are looked for in the tests, not there; a suppression by
 * library name would not do, since criterion is in every test's stack, too.
 */
#include <stdlib.h>

int __lsan_is_turned_off(void);

static int is_runner;

/* Its library marks the processes of tests with this variable. */
__attribute__((constructor)) static void runner_find(void)
{
	is_runner = getenv("BXFI_MAP") == NULL;
}

int __lsan_is_turned_off(void)
{
	return is_runner;
}
