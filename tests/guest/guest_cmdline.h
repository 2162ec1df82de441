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
enum guest_hv {
	GUEST_HV_INVALID = 0,
	GUEST_HV_AUTO, /* on when a key below asks for something that needs it */
	GUEST_HV_ON,
	GUEST_HV_OFF
};
enum guest_irq {
	GUEST_IRQ_INVALID = 0,
	GUEST_IRQ_EVENT, /* rings are looked at when an event flag says so, and only then */
	GUEST_IRQ_POLL   /* interrupts masked, rings looked at all the time */
};
enum guest_disk_mode {
	GUEST_DISK_NONE = 0,
	GUEST_DISK_STAMP,
	GUEST_DISK_READ,
	GUEST_DISK_WRITE,
	GUEST_DISK_RANDREAD,
	GUEST_DISK_RANDWRITE
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

	uint64_t hv;       /* enum guest_hv */
	uint64_t irq;      /* enum guest_irq */
	uint64_t stall_ms; /* a request that takes longer, of running time, is BAD */
	uint64_t ic;       /* 1: answer the integration services */

	uint64_t disk;              /* enum guest_disk_mode */
	uint64_t disk_lun;          /* on the first SCSI controller */
	uint64_t disk_offset_bytes; /* where the region begins */
	uint64_t disk_bytes;        /* its size */
	uint64_t disk_depth;        /* requests in flight, all channels together */
	uint64_t disk_io_bytes;     /* of a request; with stamp: 4 KiB up to this */
	uint64_t disk_reads;        /* stamp: percent of requests that read back */
	uint64_t disk_flush;        /* stamp: a flush after so many writes; 0: none */
	uint64_t disk_seed;
	uint64_t disk_time_ms;  /* a mode that measures: ends after this */
	uint64_t disk_channels; /* at most so many; 0: as many as offered */

	uint64_t net;      /* own address, prefix length << 32; 0: no network */
	uint64_t net_peer; /* to whom the test page's command sends */
};

/** guest_cmdline_wants_hv - whether the options ask for anything of Hyper-V. */
bool guest_cmdline_wants_hv(const struct guest_options *options);

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
