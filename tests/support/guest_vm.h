/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests: the test guest running in a machine of this process.
 *
 * Everything waits with a generous limit and says what it waited for; a limit that is
 * reached is a failure of the test, never a measurement.  One thread drives it.
 */
#ifndef SUPPORT_GUEST_VM_H
#define SUPPORT_GUEST_VM_H

#include <stdbool.h>
#include <stdint.h>

#include "hypervisor/machine.h"
#include "hypervisor/slat.h"
#include "tests/guest/testpage.h"

struct guest_vm;

struct guest_vm_opts {
	uint64_t memory_bytes;          /* 0: 128 MiB */
	uint32_t vcpus;                 /* 0: 1 */
	const char *cmdline;            /* the test page's key is added; NULL: "" */
	enum hv_memory_backing backing; /* 0: auto */
	enum hv_cpu_model cpu;          /* 0: host */
	const char *restore;            /* a saved state instead of a boot */
	/* What came by migration instead: a state without RAM, and the memory, all of it. */
	int arrive_fd;
	const uint8_t *arrive_memory; /* NULL: no migration */
	bool may_not_fit;       /* a restore that this host cannot take is a skip, not a failure */
	bool paused;            /* do not start it */
	bool registers_by_call; /* as in struct hv_machine_config */
	/* Called once the machine is made, before it has a guest: add services. */
	void (*prepare)(struct hv_machine *machine, void *context);
	void *prepare_context;
};

/* NULL and a reason on stdout ("SKIP ...") when this machine has no KVM; aborts on other failures.
 */
struct guest_vm *guest_vm_new(const struct guest_vm_opts *opts);
void guest_vm_free(struct guest_vm *vm);

/* Wait until the console shows @text (after what earlier waits consumed when @fresh). */
void guest_vm_wait(struct guest_vm *vm, const char *text);
/* Whether @text is anywhere in what the console has shown so far. */
bool guest_vm_said(struct guest_vm *vm, const char *text);
/* Forget what the console has shown. */
void guest_vm_forget(struct guest_vm *vm);

/* A command of tests/guest/testpage.h; waits for its acknowledgement; its result. */
uint64_t guest_vm_command(struct guest_vm *vm, enum testpage_opcode opcode, uint64_t arg0,
			  uint64_t arg1, uint64_t arg2);
/* The same without waiting, and the wait. */
void guest_vm_post(struct guest_vm *vm, enum testpage_opcode opcode, uint64_t arg0, uint64_t arg1,
		   uint64_t arg2);
uint64_t guest_vm_result(struct guest_vm *vm);

/* Registers of the test page by byte offset. */
uint64_t guest_vm_get(struct guest_vm *vm, uint32_t offset);
void guest_vm_set(struct guest_vm *vm, uint32_t offset, uint64_t value);

/* The RAM page (dirty bitmap index) of page @number of the guest's region. */
uint64_t guest_vm_region_page(struct guest_vm *vm, uint64_t number);

void guest_vm_pause(struct guest_vm *vm);
void guest_vm_resume(struct guest_vm *vm);
/* Wait for an event; other events are an error. */
void guest_vm_wait_event(struct guest_vm *vm, enum hv_machine_event event);
struct hv_machine *guest_vm_machine(struct guest_vm *vm);
/* Shut and open the leash's gate (machine.h, may_act). */
void guest_vm_set_gate(struct guest_vm *vm, bool is_open);
/* CRC of all of RAM; the VM is paused. */
uint32_t guest_vm_ram_crc(struct guest_vm *vm);

#endif
