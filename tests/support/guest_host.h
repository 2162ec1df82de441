/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests: the test guest's drivers, compiled for the host, on the real SynIC and VMBus of this
 * process.  No KVM: one thread takes turns with the guest's vCPUs and the loop of the devices, so
 * a run is deterministic, and what nobody wakes stays asleep and is found.
 *
 * The drivers' state is the process's: one guest in each test.
 */
#ifndef SUPPORT_GUEST_HOST_H
#define SUPPORT_GUEST_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/io_loop.h"
#include "hypervisor/machine.h"
#include "hypervisor/slat.h"
#include "hypervisor/vmbus/vmbus.h"
#include "tests/guest/testpage.h"

#define GUEST_HOST_MEMORY_BYTES (64u << 20)

struct guest_host;

/* @vcpus: 1..16; @cmdline: the guest's keys. */
struct guest_host *guest_host_new(uint32_t vcpus, const char *cmdline);
void guest_host_free(struct guest_host *host); /* devices first */

struct vmbus *guest_host_bus(struct guest_host *host);
struct hv_slat *guest_host_slat(struct guest_host *host);
struct base_io_loop *guest_host_loop(struct guest_host *host);
/* Another bus in place of the one of before, which is freed: a restore.  The guest and its memory
 * stay; devices are made anew by the caller. */
void guest_host_new_bus(struct guest_host *host);

/* The guest connects: once, after the devices are on the bus. */
void guest_host_boot(struct guest_host *host);
/* One turn of everybody; whether anything happened that was not idling. */
bool guest_host_turn(struct guest_host *host);
/* Let the guest have its turns from the loop, while a call of the test blocks and pumps it. */
void guest_host_background(struct guest_host *host, bool on);
/* Turns until the register of the test page is at least @least; fails the test when all have gone
 * to sleep before. */
void guest_host_until(struct guest_host *host, uint32_t offset, uint64_t least);
/* A register of the test page, brought up to date. */
uint64_t guest_host_get(struct guest_host *host, uint32_t offset);
/* A command, on all vCPUs; the sum of the results. */
uint64_t guest_host_command(struct guest_host *host, enum testpage_opcode opcode, uint64_t arg0,
			    uint64_t arg1, uint64_t arg2);
/* BAD lines so far, and the end asked for by the shutdown service. */
uint64_t guest_host_bad(struct guest_host *host);
bool guest_host_end_asked(struct guest_host *host);

#endif
