/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress of a long verb: a bar on a terminal, and the user's wish to stop (SIGINT, SIGTERM,
 * SIGHUP).
 *
 * Made and ended on the main thread; cli_progress_step() may run on another while the main
 * thread waits for the work.
 */
#ifndef AGENT_CLI_PROGRESS_H
#define AGENT_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define CLI_PROGRESS_LINE_BYTES 256

struct cli_progress {
	FILE *out;
	bool bar;     /* a terminal: one line that is written over */
	bool percent; /* no terminal, but asked for: a line each 10 % */
	const char *what;
	uint64_t shown_ns;  /* the last time something was shown */
	uint64_t sample_ns; /* where the rate is measured from */
	uint64_t sample_bytes;
	double bytes_per_s;
	uint32_t shown_tenths;
	bool began;
};

/* Signals are noted instead of ending the process; a second one ends it.  Once per process. */
void cli_stop_catch(void);
bool cli_stop_wanted(void);

/* @wanted: -p was given: also where @out is no terminal.  @quiet: show nothing. */
void cli_progress_begin(struct cli_progress *progress, FILE *out, const char *what, bool wanted,
			bool quiet);
/* A disk_progress with a struct cli_progress: 1 once a stop is wanted. */
int cli_progress_step(void *context, uint64_t done_bytes, uint64_t total_bytes);
/* Take the bar off the terminal, so that the outcome stands alone. */
void cli_progress_end(struct cli_progress *progress);

struct cli_progress_at {
	const char *what;
	uint64_t done_bytes;
	uint64_t total_bytes;
	double bytes_per_s; /* 0: not known yet */
	uint32_t columns;
};
/* The line of a bar, without control characters: percent, rate and time left. */
void cli_progress_line(const struct cli_progress_at *at, char ret_line[CLI_PROGRESS_LINE_BYTES]);

#endif
