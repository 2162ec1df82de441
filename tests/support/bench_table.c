/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/bench_table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/clock.h"

void bench_add(struct bench_series *series, double value)
{
	if (series->count < BENCH_VALUES_MAX)
		series->values[series->count++] = value;
}

static int by_value(const void *left, const void *right)
{
	const double *a = left;
	const double *b = right;

	return (*a > *b) - (*a < *b);
}

static struct bench_series sorted(const struct bench_series *series)
{
	struct bench_series copy = *series;

	qsort(copy.values, copy.count, sizeof(copy.values[0]), by_value);
	return copy;
}

static double middle(const struct bench_series *in_order)
{
	uint32_t half = in_order->count / 2;

	if (in_order->count == 0)
		return 0;
	if (in_order->count % 2 == 1)
		return in_order->values[half];
	return (in_order->values[half - 1] + in_order->values[half]) / 2;
}

double bench_median(const struct bench_series *series)
{
	struct bench_series in_order = sorted(series);

	return middle(&in_order);
}

double bench_percentile(const struct bench_series *series, uint32_t percent)
{
	struct bench_series in_order = sorted(series);

	return in_order.count == 0
		       ? 0
		       : in_order.values[(in_order.count - 1) * (uint64_t)percent / 100];
}

void bench_row(const char *name, const struct bench_series *series, const char *unit,
	       const char *beside, ...)
{
	struct bench_series in_order = sorted(series);
	char more[128];
	va_list args;

	if (series->count == 0)
		return;
	va_start(args, beside);
	(void)vsnprintf(more, sizeof(more), beside, args);
	va_end(args);
	(void)printf("%-46s %10.3f %10.3f .. %-10.3f %4u  %-8s %s\n", name, middle(&in_order),
		     in_order.values[0], in_order.values[in_order.count - 1], in_order.count, unit,
		     more);
	(void)fflush(stdout);
}

void bench_title(const char *format, ...)
{
	va_list args;

	(void)fputs("# ", stdout);
	va_start(args, format);
	(void)vprintf(format, args);
	va_end(args);
	(void)putchar('\n');
	(void)fflush(stdout);
}

void bench_need(int code, const struct base_error *err)
{
	if (code >= 0)
		return;
	(void)printf("failed: %s\n", err->text);
	(void)fflush(stdout);
	exit(1);
}

uint64_t bench_now_ns(void)
{
	return base_clock_boot_ns(&base_clock_system);
}

uint64_t bench_cpu_ns(void)
{
	struct timespec now = { .tv_sec = 0 };

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * BASE_NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

bool bench_has_word(int argc, char **argv, const char *word)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], word) == 0)
			return true;
	return false;
}

double bench_cpu_seconds(void)
{
	struct rusage usage;

	(void)getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}
