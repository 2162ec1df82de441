/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The test page: 4 KiB of MMIO in the device hole through which a host side
 * test talks to the test guest (docs/tests/guest.md).  Every register is 64 bits,
 * naturally aligned, little-endian; the guest only ever makes 8 byte accesses.
 * "R" is read by the guest (the host supplies the value), "W" is written by it.
 * A command that stands in COMMAND when the guest starts is not run (a reset guest
 * must not repeat the last one): wait for STATE running before the first.
 * Shared by guest and host: plain #defines and pure functions, no other include.
 */
#ifndef TESTPAGE_H
#define TESTPAGE_H

#include <stdint.h>

#define TESTPAGE_BYTES     4096
#define TESTPAGE_VCPUS_MAX 64

#define TESTPAGE_ID      0x000 /* R: TESTPAGE_ID_VALUE, or the guest refuses to start */
#define TESTPAGE_COMMAND 0x008 /* R: number << 8 | opcode: run when it changes */
#define TESTPAGE_ARG0    0x010 /* R: read once after COMMAND changed */
#define TESTPAGE_ARG1    0x018 /* R */
#define TESTPAGE_ARG2    0x020 /* R */

#define TESTPAGE_ID_VALUE 0x3174736574646f67 /* "godtest1" */

#define TESTPAGE_ACK     0x100 /* W: the COMMAND value, after it is done and RESULT is written */
#define TESTPAGE_RESULT  0x108 /* W: depends on the command, see below */
#define TESTPAGE_STATE   0x110 /* W: enum testpage_state */
#define TESTPAGE_BEAT    0x118 /* W: one more at each update of the counters (every 100 ms) */
#define TESTPAGE_WRITTEN 0x120 /* W: pages stamped, all vCPUs, the initial stamp included */
#define TESTPAGE_CHECKED 0x128 /* W: pages verified */
#define TESTPAGE_BAD     0x130 /* W: mismatches found */
#define TESTPAGE_GAP_NS  0x138 /* W: largest gap between two TSC reads, largest of all vCPUs */
#define TESTPAGE_TICKS   0x140 /* W: timer ticks of the vCPU that has the fewest */
#define TESTPAGE_TSC_KHZ 0x148 /* W: once at start */
#define TESTPAGE_VCPUS   0x150 /* W: once at start */
#define TESTPAGE_TIME_MS 0x158 /* W: guest time since "ready", by the TSC of vCPU 0 */

/* W, once at start, guest physical byte addresses; *_END is the first byte after. */
#define TESTPAGE_IMAGE_START 0x180 /* code, stacks, counters, page tables */
#define TESTPAGE_IMAGE_END   0x188
#define TESTPAGE_TABLE_START 0x190 /* expectation tables, page tables for memory above 4 GiB */
#define TESTPAGE_TABLE_END   0x198
#define TESTPAGE_WS_PAGES    0x1a0 /* pages of the working set: numbers 0 .. WS_PAGES - 1 */
#define TESTPAGE_FILL_PAGES  0x1a8 /* then pages filled once: WS_PAGES .. + FILL_PAGES - 1 */
#define TESTPAGE_EXTENTS     0x1b0 /* how many of the pairs below are used */
#define TESTPAGE_EXTENT_GPA(i)                                                                     \
	(0x1c0 + (i)*16) /* first byte; page numbers run through 0, 1, ...                         \
			  */
#define TESTPAGE_EXTENT_PAGES(i) (0x1c8 + (i)*16)
#define TESTPAGE_EXTENTS_MAX     4

/* W, with the counters: what the guest does on VMBus (0 without the keys for it). */
#define TESTPAGE_DISK_STATE   0x200 /* enum testpage_io_state */
#define TESTPAGE_DISK_WRITES  0x208 /* requests acknowledged */
#define TESTPAGE_DISK_READS   0x210 /* requests read back and checked */
#define TESTPAGE_DISK_FLUSHES 0x218
#define TESTPAGE_DISK_ERRORS  0x220
#define TESTPAGE_DISK_LEDGER  0x228 /* guest physical: entries of 24 bytes: u32 sequence */
/* acknowledged, issued, flushed, doubt; u64 serial */
#define TESTPAGE_DISK_RECORDS 0x230
#define TESTPAGE_DISK_BYTES   0x238 /* of the LUN */
#define TESTPAGE_BENCH_OPS    0x240 /* the last measurement: requests, time, latencies */
#define TESTPAGE_BENCH_NS     0x248
#define TESTPAGE_BENCH_P50_NS 0x250
#define TESTPAGE_BENCH_P90_NS 0x258
#define TESTPAGE_BENCH_P99_NS 0x260
#define TESTPAGE_BENCH_MAX_NS 0x268
#define TESTPAGE_CALL_NS      0x270 /* what the last CALL_LOOP took */
#define TESTPAGE_NET_STATE    0x280 /* enum testpage_io_state */
#define TESTPAGE_NET_RX       0x288 /* frames */
#define TESTPAGE_NET_TX       0x290
#define TESTPAGE_NET_RX_BYTES 0x298
#define TESTPAGE_NET_TX_BYTES 0x2a0
#define TESTPAGE_NET_ARP      0x2a8 /* answered */
#define TESTPAGE_NET_ICMP     0x2b0 /* answered */
#define TESTPAGE_NET_UDP      0x2b8 /* answered */
#define TESTPAGE_NET_SUNK     0x2c0 /* datagrams taken by the discard port */
#define TESTPAGE_NET_BAD_SUM  0x2c8 /* checksums that were wrong */
#define TESTPAGE_NET_NEWS     0x2d0 /* indications: link, network change */
#define TESTPAGE_HV_SIGNALS   0x2e0 /* hypercalls SIGNAL_EVENT */
#define TESTPAGE_HV_OFFERS    0x2e8
#define TESTPAGE_HV_VERSION   0x2f0           /* of VMBus, once it is connected */
#define TESTPAGE_IC_BEATS     0x300           /* heartbeats answered */
#define TESTPAGE_IC_SYNCS     0x308           /* times told with the flag SYNC */
#define TESTPAGE_IC_TIME_MS   0x310           /* the last one, since 1970, moved on by the lag */
#define TESTPAGE_IC_KVP       0x318           /* requests answered */
#define TESTPAGE_IC_FROZEN    0x320           /* 1: between freeze and thaw */
#define TESTPAGE_HV_IRQS(v)   (0x380 + (v)*8) /* interrupts of Hyper-V, the first 16 vCPUs */
#define TESTPAGE_HV_IRQS_MAX  16

/* W, one register for each vCPU. */
#define TESTPAGE_VCPU_ROUNDS(v) (0x400 + (v)*8) /* work loop rounds */
#define TESTPAGE_VCPU_GAP_NS(v) (0x600 + (v)*8)
#define TESTPAGE_VCPU_TICKS(v)  (0x800 + (v)*8)

/* The exit loop, one pair for each vCPU. */
#define TESTPAGE_EXIT_WRITE(v) (0xa00 + (v)*8) /* W: 1, 2, 3, ... over the guest's whole life */
#define TESTPAGE_EXIT_READ(v)  (0xc00 + (v)*8) /* R: one more at each read, kept over restore */

enum testpage_opcode {
	TESTPAGE_NONE = 0,
	TESTPAGE_PAUSE = 1,      /* stop stamping and background checks; RESULT: pages stamped */
	TESTPAGE_RESUME = 2,     /* go on; RESULT 0 */
	TESTPAGE_VERIFY_ALL = 3, /* check every page now; RESULT: mismatches found by this pass */
	TESTPAGE_RESET_GAP = 4,  /* forget the largest gap; RESULT: what it was, ns */
	TESTPAGE_STATUS = 5,     /* print a status line; RESULT 0 */
	TESTPAGE_POWER_OFF = 6,  /* acknowledged first, then ACPI S5 */
	TESTPAGE_RESET = 7, /* acknowledged first, then the ACPI reset register, or port 0xcf9 */
	/*
	 * ARG0 times: write EXIT_WRITE, read EXIT_READ.  ARG1: 0 vCPU 0 only, 1 all.
	 * ARG2: 0 MMIO; else a port P (vCPU 0 only): a 32-bit OUT of the low half of
	 * the sequence to P and a 32-bit IN from P that counts like EXIT_READ.
	 * RESULT: reads that were not the previous read plus one (also "BAD exit").
	 */
	TESTPAGE_EXIT_LOOP = 8,
	/*
	 * Implies PAUSE.  Stamps the pages testpage_pick(ARG0, k, WS_PAGES) for
	 * k = 0 .. ARG1 - 1 and writes to no other page of the region until RESUME.
	 * RESULT: pages stamped, which is ARG1: a page picked twice is stamped twice.
	 */
	TESTPAGE_WRITE_SET = 9,
	TESTPAGE_IO_STOP = 10,     /* no new requests; those in flight end; RESULT: writes so far */
	TESTPAGE_IO_START = 11,    /* go on; RESULT 0 */
	TESTPAGE_DISK_VERIFY = 12, /* stop, read every record; RESULT: mismatches */
	/* Stop, close the controller's channels, open them again; the load stays stopped.  ARG0 1:
	 * close over what is in flight, whose writes may then have happened or not. */
	TESTPAGE_DISK_REOPEN = 13,
	/* Stop, measure: ARG0 enum guest_disk_mode (2 read, 3 write, 4 random read, 5 random
	 * write), ARG1 depth (at most disk_depth=), ARG2 ms.  Writes overwrite the records.
	 * RESULT: requests; BENCH_*. */
	TESTPAGE_DISK_BENCH = 14,
	/* Send to net_peer= for ARG1 ms: ARG0 bytes of payload each, datagrams; or, with ARG2, TCP
	 * packets of up to 64 KiB that the host is to cut into segments of ARG2 bytes.  RESULT:
	 * packets sent. */
	TESTPAGE_NET_SOURCE = 15,
	/* vCPU 0, ARG0 times: the hypercall that tells of a long spin wait (it does nothing).  ARG1
	 * enum testpage_call.  RESULT: how many were taken for hypercalls. */
	TESTPAGE_CALL_LOOP = 16,
	TESTPAGE_OPCODES
};

enum testpage_call {
	TESTPAGE_CALL_PAGE = 0,      /* by CPL 0, in the hypercall page */
	TESTPAGE_CALL_USER_PAGE = 1, /* by ring 3 with I/O privilege, in the hypercall page */
	TESTPAGE_CALL_STRAY = 2,     /* by CPL 0, a read of the port ARG2 elsewhere */
	TESTPAGE_CALLS
};

enum testpage_state {
	TESTPAGE_STATE_INVALID = 0,
	TESTPAGE_STATE_STARTING = 1, /* stamping the region for the first time */
	TESTPAGE_STATE_RUNNING = 2,
	TESTPAGE_STATE_PAUSED = 3,
	TESTPAGE_STATE_ENDING = 4,
	TESTPAGE_STATES
};

enum testpage_io_state {
	TESTPAGE_IO_NONE = 0,
	TESTPAGE_IO_STARTING = 1,
	TESTPAGE_IO_RUNNING = 2,
	TESTPAGE_IO_STOPPED = 3,
	TESTPAGE_IO_STATES
};

/**
 * testpage_mix - a 64-bit mixing function (a bijection): the guest's only source
 * of "randomness", for contents, expectation tables and picks.
 */
static inline uint64_t testpage_mix(uint64_t value)
{
	value ^= value >> 32;
	value *= 0xd6e8feb86659fd93;
	value ^= value >> 32;
	value *= 0xd6e8feb86659fd93;
	value ^= value >> 32;
	return value;
}

/**
 * testpage_pick - the number of the @k-th page that WRITE_SET stamps.
 * @page_count: of the working set, not 0.
 */
static inline uint64_t testpage_pick(uint64_t seed, uint64_t k, uint64_t page_count)
{
	return testpage_mix(testpage_mix(seed) + k) % page_count;
}

#endif
