/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A migration for people: what a worker tells of it over time (the command migrate-timeline), read
 * and written as one page that needs nothing else.  docs/migrate/report.md.
 *
 * What is read is hostile until it was checked: names may hold anything, numbers too.
 *
 * Threads: values, no state.
 */
#ifndef AGENT_REPORT_H
#define AGENT_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "migrate/mig_timeline.h"

/* More than a worker gives; what a page can show. */
#define REPORT_SAMPLES_MAX 4096u
#define REPORT_ROUNDS_MAX  1024u
#define REPORT_MARKS_MAX   256u
#define REPORT_TEXT_BYTES  1024u
#define REPORT_BYTES_MAX   (4u << 20) /* of the JSON text */
#define REPORT_PHASES      7u

struct report_mark {
	uint64_t at_ns;
	char what[32];
};

/* Figures of the end; 0 where there are none. */
struct report_figures {
	uint64_t total_ns, queued_ns, prepare_ns, copy_ns, blackout_ns;
	uint64_t phase_ns[REPORT_PHASES]; /* pause to activate, in order */
	uint64_t rounds, sent_bytes, pages, zero_pages, lz4_pages, lz4_bytes;
	uint64_t chunks, resent_chunks, state_bytes, cuts, cut_ns, again_bytes;
	bool is_post;
	uint64_t owed_pages, fault_pages, rest_pages, waits;
	uint64_t wait_p50_ns, wait_p99_ns, wait_longest_ns, postcopy_ns;
};

struct report {
	char name[REPORT_TEXT_BYTES];
	char from[REPORT_TEXT_BYTES];
	char to[REPORT_TEXT_BYTES];
	char end[REPORT_TEXT_BYTES]; /* "moved"...; "": it is not over */
	char why[REPORT_TEXT_BYTES]; /* unless it moved */
	char cipher[REPORT_TEXT_BYTES];
	struct report_figures figures;
	uint64_t throttle_permille_most;
	uint64_t lost_marks;
	uint32_t sample_count, round_count, mark_count;
	struct mig_timeline_sample samples[REPORT_SAMPLES_MAX];
	struct mig_timeline_round rounds[REPORT_ROUNDS_MAX];
	struct report_mark marks[REPORT_MARKS_MAX];
};

/**
 * report_decode - read what a worker told.
 * Gives *ret_report, to be freed.  -EBADMSG with what is wrong; -ENOMEM.  Keys that are not known
 * are skipped: a worker may be newer.
 */
BASE_MUST_CHECK int report_decode(const char *text, size_t size_bytes, struct report **ret_report,
				  struct base_error *err);

/* The page.  Errors of @out are its own. */
void report_page(const struct report *report, FILE *out);

/* Its drawings, for report_page(). */
void report_chart_timeline(const struct report *report, FILE *out);
void report_chart_blackout(const struct report *report, FILE *out);

/* Of each phase of the blackout, for people. */
extern const char *const report_phase_names[REPORT_PHASES];

/* --- report_text.c --- */

#define REPORT_SHOWN_BYTES 48
void report_show_ns(uint64_t ns, char ret_text[REPORT_SHOWN_BYTES]);
void report_show_bytes(double bytes, char ret_text[REPORT_SHOWN_BYTES]);
/* Text from outside, so that it is text and nothing else in the page. */
void report_escape(FILE *out, const char *text);

#endif
