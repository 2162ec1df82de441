/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's command line: key=value words, one table (docs/tests/guest.md lists the keys). */
#ifndef GUEST_CMDLINE_H
#define GUEST_CMDLINE_H

#include <stdbool.h>
#include <stdint.h>

#define GUEST_WORD_BYTES 64

enum guest_stamp {
	GUEST_STAMP_INVALID = 0,
	GUEST_STAMP_PAGE,
	GUEST_STAMP_WORD
};
enum guest_pattern {
	GUEST_PATTERN_INVALID = 0,
	GUEST_PATTERN_SEQ,
	GUEST_PATTERN_RANDOM
};
enum guest_idle {
	GUEST_IDLE_INVALID = 0,
	GUEST_IDLE_SPIN,
	GUEST_IDLE_HALT
};
enum guest_exit {
	GUEST_EXIT_INVALID = 0,
	GUEST_EXIT_HALT,
	GUEST_EXIT_ACPI,
	GUEST_EXIT_TRIPLE,
	GUEST_EXIT_RESET
};
enum guest_dump {
	GUEST_DUMP_INVALID = 0,
	GUEST_DUMP_NONE,
	GUEST_DUMP_CPUID
};

struct guest_options {
	uint64_t vcpus;        /* 0: all that the firmware lists */
	uint64_t ws_bytes;     /* 0: 64 MiB, or half of what is free if that is less */
	uint64_t fill_bytes;   /* stamped once, verified, never rewritten */
	uint64_t rate;         /* pages per second, all vCPUs together; 0: as fast as can be */
	uint64_t verify;       /* background checks per second, all vCPUs together */
	uint64_t report_ms;    /* status line; 0: none */
	uint64_t time_ms;      /* verify all and end after this long; 0: never */
	uint64_t tsc_khz;      /* 0: measure */
	uint64_t lapic_khz;    /* 0: measure */
	uint64_t testpage;     /* 0: none */
	uint64_t content;      /* enum guest_content */
	uint64_t fill_content; /* enum guest_content; 0: as content */
	uint64_t stamp;        /* enum guest_stamp */
	uint64_t pattern;      /* enum guest_pattern */
	uint64_t idle;         /* enum guest_idle */
	uint64_t exit;         /* enum guest_exit */
	uint64_t dump;         /* enum guest_dump */
};

/**
 * guest_cmdline_parse - defaults, then every word of @text.
 * @ret_word: GUEST_WORD_BYTES; on false the word that is wrong, cut to fit.
 *
 * Return: false for an unknown key, a value that is not a number, size or choice
 * of that key.  An unknown key is an error, because a test with a misspelt key
 * would test less than it says.
 */
bool guest_cmdline_parse(const char *text, struct guest_options *ret_options, char *ret_word);

#endif
