/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small runner in place of criterion's, for the thread sanitizer only: criterion maps
 * its arena at addresses that the sanitizer keeps for itself.  One process per test, one
 * after another.  A race ends a test with the sanitizer's exit code.  What an assertion
 * calls is defined here, too, and so taken instead of the library's.
 *
 * usage: <test> [part of a "suite::name"]
 */
#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The section that criterion's Test() collects pointers in; the linker gives its ends. */
extern struct criterion_test *__start_cr_tst[];
extern struct criterion_test *__stop_cr_tst[];
/* And the one of TestSuite(); a program need not have any. */
extern struct criterion_suite *__start_cr_sts[] __attribute__((weak));
extern struct criterion_suite *__stop_cr_sts[] __attribute__((weak));

#define SKIPPED 77

static const struct criterion_test *running; /* in its own process */
static atomic_bool is_failed;                /* an expectation that lets the test go on */

void criterion_send_assert(struct criterion_assert_stats *stats)
{
	if (!stats->passed)
		(void)printf("%s:%u: %s\n", stats->file, (unsigned int)stats->line, stats->message);
}

void cri_asserts_passed_incr(void)
{
}

void criterion_continue_test(void)
{
	atomic_store(&is_failed, true);
}

void criterion_abort_test(void)
{
	exit(1);
}

void criterion_skip_test(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vprintf(format, args);
	va_end(args);
	(void)putchar('\n');
	exit(SKIPPED);
}

void cr_log(enum criterion_severity severity, const char *format, ...)
{
	va_list args;

	(void)severity;
	va_start(args, format);
	(void)vprintf(format, args);
	va_end(args);
	(void)putchar('\n');
}

/* What the suite of the running test says for all its tests; NULL for nothing. */
static const struct criterion_test_extra_data *suite_data(void)
{
	for (struct criterion_suite **at = __start_cr_sts; at < __stop_cr_sts; at++)
		if (*at != NULL && strcmp((*at)->name, running->category) == 0)
			return (*at)->data;
	return NULL;
}

/* What a test's own entry calls, in this order. */
void criterion_internal_test_setup(void)
{
	const struct criterion_test_extra_data *suite = suite_data();

	if (suite != NULL && suite->init != NULL)
		suite->init();
	if (running->data->init != NULL)
		running->data->init();
}

void criterion_internal_test_main(void (*body)(void))
{
	body();
}

void criterion_internal_test_teardown(void)
{
	const struct criterion_test_extra_data *suite = suite_data();

	if (running->data->fini != NULL)
		running->data->fini();
	if (suite != NULL && suite->fini != NULL)
		suite->fini();
}

_Noreturn static void run_here(const struct criterion_test *test)
{
	if (test->data->timeout > 0)
		(void)alarm((unsigned int)test->data->timeout);
	running = test;
	test->test();
	exit(atomic_load(&is_failed)
		     ? 1
		     : 0); /* not _exit: the sanitizer reports from its exit handler */
}

static bool is_expected(const struct criterion_test *test, int status)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)
		return true;
	if (WIFSIGNALED(status))
		return WTERMSIG(status) == test->data->signal;
	return test->data->signal == 0 && WEXITSTATUS(status) == test->data->exit_code;
}

int main(int argc, char **argv)
{
	unsigned int failed = 0;
	unsigned int count = 0;

	for (struct criterion_test **at = __start_cr_tst; at < __stop_cr_tst; at++) {
		const struct criterion_test *test = *at;
		char name[256];
		int status = 0;
		pid_t pid = 0;

		if (test == NULL) /* padding of the section */
			continue;
		(void)snprintf(name, sizeof(name), "%s::%s", test->category, test->name);
		if (argc > 1 && strstr(name, argv[1]) == NULL)
			continue;
		(void)fflush(NULL);
		count++;
		pid = fork();
		if (pid == 0)
			run_here(test);
		if (pid < 0 || waitpid(pid, &status, 0) != pid || !is_expected(test, status)) {
			(void)printf("[FAIL] %s: status 0x%x\n", name, (unsigned int)status);
			failed++;
		}
	}
	(void)printf("%u tests, %u failed\n", count, failed);
	return failed == 0 ? 0 : 1;
}
