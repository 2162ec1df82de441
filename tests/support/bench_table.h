/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For benchmarks: a series of measurements, and the line of the table it becomes.
 *
 * A benchmark never fails because of a time; it prints the goal, or what was measured
 * beside it in the same run, in the last column.  tests/bench/run prints the heading.
 */
#ifndef SUPPORT_BENCH_TABLE_H
#define SUPPORT_BENCH_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define BENCH_VALUES_MAX 1024u

struct bench_series {
	double values[BENCH_VALUES_MAX];
	uint32_t count;
};

/* Beyond BENCH_VALUES_MAX values are dropped. */
void bench_add(struct bench_series *series, double value);
/* 0 of an empty series. */
double bench_median(const struct bench_series *series);
double bench_percentile(const struct bench_series *series, uint32_t percent);
/* One line: name, median, smallest .. largest, count, unit, @beside (printf). */
void bench_row(const char *name, const struct bench_series *series, const char *unit,
	       const char *beside, ...) __attribute__((format(printf, 4, 5)));
/* A heading between lines. */
void bench_title(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Ends the program with the error's text when @code is negative. */
void bench_need(int code, const struct base_error *err);
uint64_t bench_now_ns(void);
/* Processor time of this thread: what others on the machine do is not in it.  A system call. */
uint64_t bench_cpu_ns(void);
/* Of all threads of the process, so far. */
double bench_cpu_seconds(void);
/* Whether one of the arguments is @word. */
bool bench_has_word(int argc, char **argv, const char *word);

#endif
