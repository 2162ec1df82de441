/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtual machine: partition, virtual processors, platform, boot, save and
 * restore behind one object.  What an agent needs and nothing of KVM.
 *
 * The VM runs when nothing holds it.  Each reason to stand still is a bit, so that
 * they compose: a user's resume does not undo the leash's freeze.
 *
 * Calls block for a signal round at most unless said otherwise; any thread, one
 * change at a time (they take the machine's own lock).  Events come on vCPU or calling
 * threads, must not block and must not call back into the machine.
 */
#ifndef HYPERVISOR_MACHINE_H
#define HYPERVISOR_MACHINE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "hypervisor/cpu_model.h"
#include "hypervisor/hv_limits.h"
#include "hypervisor/memory.h"
#include "hypervisor/ram_state.h"

struct hv_machine;
struct hv_synic;

enum hv_hold {
	HV_HOLD_USER = 1 << 0,    /* paused by command; set when the machine is made */
	HV_HOLD_SAVE = 1 << 1,    /* a save is being written */
	HV_HOLD_LEASH = 1 << 2,   /* soft deadline passed */
	HV_HOLD_RESET = 1 << 3,   /* guest asked for a reset, not carried out yet */
	HV_HOLD_STOPPED = 1 << 4, /* powered off, crashed, or saved and left: never released */
	HV_HOLD_DUMP = 1 << 5,    /* hv_machine_dump() looks at the vCPUs; no status shows it */
	HV_HOLD_MIGRATE = 1 << 6, /* a migration's: who runs the VM is being decided */
};

enum hv_machine_event {
	HV_EVENT_INVALID,
	HV_EVENT_POWER_OFF,     /* guest wrote S5 */
	HV_EVENT_RESET_REQUEST, /* by the guest or by triple fault: hv_machine_reset() or end */
	HV_EVENT_CRASHED,       /* KVM cannot go on: internal error, failed entry; see text */
	HV_EVENT_GUEST_PANIC, /* the guest reported a crash of its own (crash MSRs): its parameters
				 and, where it gave one, its message; it goes on or resets itself */
	HV_EVENT_EVENTS
};

struct hv_machine_config {
	char name[HV_NAME_BYTES];
	uint64_t memory_bytes;
	enum hv_memory_backing backing;
	uint32_t vcpu_count; /* 1..HV_VCPUS_MAX */
	enum hv_cpu_model cpu;
	bool cpu_strict;        /* refuse to start when KVM does not honour the CPU model */
	bool test_page;         /* the MMIO test page, tests only */
	bool registers_by_call; /* tests only: ask KVM for registers and page at each hypercall */
	char cmdline[HV_CMDLINE_BYTES];
};

/* Descriptors that only a privileged parent can open; borrowed, outlive the machine. */
struct hv_machine_fds {
	int kvm_fd;
	int kernel_fd;           /* -1: none (restore) */
	int initrd_fd;           /* -1: none */
	const char *kernel_name; /* for error texts */
	const char *initrd_name;
};

struct hv_machine_ops {
	void (*event)(void *context, enum hv_machine_event event, const char *text);
	void (*console_out)(void *context, const uint8_t *bytes, size_t size_bytes);
	void (*console_room)(void *context); /* the guest's receiver has room again */
	/*
	 * The leash's gate, asked before each entry into the guest and before each write of a
	 * saved state: false means not now.  No system call, no lock; NULL means always.
	 */
	bool (*may_act)(void *context);
};

/**
 * hv_machine_new - make partition, memory (reserved), vCPU threads (parked) and devices.
 * The result is held by HV_HOLD_USER and has no guest yet: hv_machine_boot() or
 * hv_machine_restore() comes next.
 * -EINVAL configuration (names key, value, expectation); -ENOMEM have and need;
 * -ENOTSUP the host cannot give the CPU model (feature by feature), or with cpu_strict
 * KVM does not honour it.
 */
BASE_MUST_CHECK int hv_machine_new(const struct hv_machine_config *config,
				   const struct hv_machine_fds *fds,
				   const struct hv_machine_ops *ops, void *context,
				   struct hv_machine **ret_machine, struct base_error *err);
/* Holds the vCPUs for good (HV_HOLD_STOPPED) and quiesces all services for good, whatever state the
 * machine is in; one's -EAGAIN changes nothing for the others.  From then on no device has a
 * request of the guest's under way, but for one that said -EAGAIN: what they use can be handed
 * back.  Again: nothing. */
void hv_machine_end(struct hv_machine *machine);
/* hv_machine_end(), and ends the vCPU threads.  The services are freed after it.  NULL is fine. */
void hv_machine_free(struct hv_machine *machine);

/* Dry run of what hv_machine_new() and hv_machine_boot() check of configuration and files. */
BASE_MUST_CHECK int hv_machine_boot(struct hv_machine *machine, struct base_error *err);

/**
 * hv_machine_restore - load a saved VM.  Blocks for the whole file.
 * @fd: borrowed.  @force_tsc: accept a TSC that would step back.
 * -EBADMSG the file; -ENOTSUP newer version, or this host cannot run it (feature by
 * feature); -EINVAL its memory, vCPUs or processor model differ from the configuration;
 * -ERANGE the TSC would step back and KVM here ignores offsets.
 */
BASE_MUST_CHECK int hv_machine_restore(struct hv_machine *machine, int fd, bool force_tsc,
				       struct base_error *err);

/**
 * hv_machine_save - pause, write the state durably under @name in @directory_fd.
 * Blocks until the file is durable (rename and directory synced) or has failed.
 * @go_on: run on after it.  Otherwise the VM belongs to the file from then on and is
 *         stopped here for good: it must not run twice.
 * 0; -ETIMEDOUT: the file is in place but perhaps not durable, the outcome is UNKNOWN,
 * the VM stays held by HV_HOLD_USER; -EAGAIN: the leash's gate is shut, or a reset is
 * under way; -EPROTO: no guest, or stopped.  After any other failure there is no file
 * and the VM goes on as before.
 */
struct hv_save_report {
	struct hv_ram_report ram;
	uint64_t total_ns;
	uint64_t file_bytes;
};
BASE_MUST_CHECK int hv_machine_save(struct hv_machine *machine, int directory_fd, const char *name,
				    bool go_on, struct hv_save_report *ret_report,
				    struct base_error *err);

/*
 * --- live migration: memory goes another way, page by page, and everything else by these ---
 *
 * hv_machine_state_save - write all of the state but RAM.  The VM is quiesced by the caller
 * (hv_machine_quiesce(), HV_HOLD_MIGRATE) and stays so: what to do with it is the caller's matter.
 * @fd: a new, empty file; borrowed.  A saved state (state_file.h) without sections "ram".
 * -EPROTO not quiesced, stopped, or no guest; -EAGAIN a reset that the guest asked for has not been
 * carried out, or the leash's gate is shut; else as hv_machine_save().
 */
BASE_MUST_CHECK int hv_machine_state_save(struct hv_machine *machine, int fd,
					  struct base_error *err);

/**
 * hv_machine_arrive - load what hv_machine_state_save() wrote; RAM is there already.
 * Takes the place of boot or restore, and finds everything that can be refused: errors are those
 * of hv_machine_restore(), -EBADMSG also for a file that has RAM.  After a failure the VM is never
 * run.  On success it is held by HV_HOLD_MIGRATE, has no guest yet in the eyes of all others, and
 * its services are quiet: nothing outside of it is touched, no interrupt comes.
 */
BASE_MUST_CHECK int hv_machine_arrive(struct hv_machine *machine, int fd, bool force_tsc,
				      struct base_error *err);
/**
 * hv_machine_arrive_finish - the VM is this host's: services take up what was saved and go on,
 * HV_HOLD_MIGRATE is released.  (HV_HOLD_USER stays until the caller releases it.)
 * -EPROTO not arrived; otherwise what a service cannot take up: then the VM is never run, and what
 * services did is what their loaded() does before it fails.
 */
BASE_MUST_CHECK int hv_machine_arrive_finish(struct hv_machine *machine, struct base_error *err);

/**
 * hv_machine_throttle - keep vCPUs from running for a share of their time (partition.h).
 * @permille: one for each vCPU, at most 1000; all 0: no more.  -EAGAIN no thread for it.
 */
BASE_MUST_CHECK int hv_machine_throttle(struct hv_machine *machine, const uint32_t *permille,
					struct base_error *err);
/* How much each vCPU has written, as faults on tracked pages since the last call; false: not known.
 * Both: one caller at a time. */
bool hv_machine_writers(struct hv_machine *machine, uint64_t *ret_faults);

/* Set a hold and wait until every vCPU is parked, also when the VM has stopped (-EPROTO then);
 * clear one.  -EPROTO after STOPPED. */
BASE_MUST_CHECK int hv_machine_hold(struct hv_machine *machine, enum hv_hold hold,
				    struct base_error *err);
BASE_MUST_CHECK int hv_machine_release(struct hv_machine *machine, enum hv_hold hold,
				       struct base_error *err);

/**
 * hv_machine_reset - restart in place: devices and vCPUs to power-on, kernel loaded anew;
 * clears HV_HOLD_RESET.
 * @by_guest: carry out HV_EVENT_RESET_REQUEST.  When two vCPUs asked, the second finds it
 *            done: 0, nothing happens.
 * -EPROTO stopped, or no kernel configured.  Other failures leave half a machine, held for
 * ever: end it.
 */
BASE_MUST_CHECK int hv_machine_reset(struct hv_machine *machine, bool by_guest,
				     struct base_error *err);
/* Waits for a save or reset that is under way. */
void hv_machine_power_button(struct hv_machine *machine);
/* Bytes typed; the count taken, 0 during a save or reset.  console_room tells when to try again. */
size_t hv_machine_console_in(struct hv_machine *machine, const uint8_t *bytes, size_t size_bytes);

/* Test page (only with test_page): -ENOTSUP without. */
BASE_MUST_CHECK int hv_machine_test_get(struct hv_machine *machine, uint32_t reg,
					uint64_t *ret_value, struct base_error *err);
BASE_MUST_CHECK int hv_machine_test_set(struct hv_machine *machine, uint32_t reg, uint64_t value,
					struct base_error *err);
/* Accesses to the test page that were lost or done twice. */
BASE_MUST_CHECK int hv_machine_test_mismatches(struct hv_machine *machine, uint64_t *ret_count,
					       struct base_error *err);

/* Exits of all vCPUs to the worker since the machine was made, by kind. */
struct hv_exit_counts {
	uint64_t total;
	uint64_t hypercalls; /* reads of the hypercall page's port, also those that were none */
	uint64_t ports, mmio, msrs;
	uint64_t interrupted; /* by a signal: holds */
};

/* A value; touches no vCPU. */
struct hv_machine_status {
	uint32_t holds; /* enum hv_hold bits but HV_HOLD_DUMP; 0: running */
	uint32_t vcpu_count;
	uint64_t memory_bytes;
	enum hv_memory_backing backing;
	enum hv_cpu_model cpu;
	bool cpu_honoured;
	char cpu_text[256]; /* what KVM did not honour, "" when all */
	bool tsc_offset_honoured;
	uint64_t tsc_khz;
	struct hv_exit_counts exits;
	uint64_t reset_count;
	uint64_t pause_ns; /* what the last signal round took */
	uint64_t guest_ns; /* guest time since its creation */
};
void hv_machine_status(struct hv_machine *machine, struct hv_machine_status *ret_status);

/**
 * hv_machine_dump - what one looks at when a guest has stalled, as text for people: the machine's
 * holds and clocks, and of each vCPU registers, pending events, local APIC and SynIC.
 * @also: may be NULL; adds what belongs to the same instant (rings).  Gets @context and @out.
 *
 * The vCPUs stand still meanwhile and then go on, unless something else holds them.  One that does
 * not come out of its exit in HV_DUMP_WAIT_MS (its thread is stuck in a device) is said to be
 * stuck, with what can be known of it; the others are shown.  A VM that has stopped is shown as it
 * stopped; one that has no guest yet says so.  At most HV_DUMP_VCPU_BYTES_MAX per vCPU
 * (machine_dump_priv.h).  Reading it: docs/hypervisor/hyperv.md.
 */
void hv_machine_dump(struct hv_machine *machine, FILE *out, void (*also)(void *context, FILE *out),
		     void *context);

/* For migration, devices and tests.  Borrowed, as long as the machine. */
struct hv_slat *hv_machine_slat(struct hv_machine *machine);
struct hv_synic *hv_machine_synic(struct hv_machine *machine);
/* The partition's reference time in units of 100 ns, as the guest reads it now.  Any thread. */
uint64_t hv_machine_reference_time(struct hv_machine *machine);
/* Put another kernel in place for the next boot or reset.  Descriptors and names are borrowed as in
 * struct hv_machine_fds, @cmdline is copied.  -E2BIG a command line that is too long.  Before boot,
 * or from the callback below. */
struct hv_machine_kernel {
	int kernel_fd;
	int initrd_fd; /* -1: none */
	const char *kernel_name;
	const char *initrd_name;
	const char *cmdline;
};
BASE_MUST_CHECK int hv_machine_set_kernel(struct hv_machine *machine,
					  const struct hv_machine_kernel *kernel,
					  struct base_error *err);
/* Asked before the kernel is loaded, at boot and at each reset (vCPUs parked, services quiesced
 * and reset), so that it can call hv_machine_set_kernel() with what the guest's disk holds now.
 * Blocking.  Set before boot. */
void hv_machine_on_load(struct hv_machine *machine,
			int (*load)(void *context, struct base_error *err), void *context);

/*
 * --- services: the devices that live outside of this folder (VMBus and what is on it) ---
 *
 * A service is told of the machine's life; the machine knows nothing else of it.  They are
 * called in the order they were added, resume() in reverse order.  All calls come with the vCPUs
 * parked, from the thread that changes the machine, and may block.
 *
 *   quiesce   take nothing more from the guest, finish what is in flight, put what the guest
 *             is to see into its memory (marked).  From its return to resume() the service
 *             neither writes guest memory nor interrupts.  -EAGAIN and why: it cannot now
 *             (then those already quiesced are resumed).
 *   resume    go on.
 *   reset     quiesced: back to power-on state; the guest of before is forgotten.
 *   sections  of the saved state: save appends the payload of section @index, load checks all
 *             of it before changing anything (guest memory is not there yet);
 *             -EBADMSG malformed, -ENOTSUP newer version, -EINVAL not this configuration.
 *   loaded    guest memory and vCPUs are in place: take up what was saved.
 *   sets_date whether the guest sets its date to the host's when this service tells it to, which it
 *             does after loaded; quiet then; may be NULL.
 *
 * A restore quiesces before the first load and resumes after the last loaded; where the VM came by
 * migration, time may pass between the loads and loaded().  A saved state that
 * has not one section of any service is of a guest that has never seen them: they stay at power-on.
 * After a save that does not go on, or whose outcome is unknown, they stay quiet.
 * hv_machine_free() quiesces those that are not quiet, and none is called after it.
 */
struct hv_service_section {
	const char *name; /* as in docs/hypervisor/saved-state.md; borrowed for ever */
	uint32_t instance;
	uint32_t version; /* the newest we know, and write */
};
struct hv_service_ops {
	int (*quiesce)(void *service, struct base_error *err);
	void (*resume)(void *service);
	int (*reset)(void *service, struct base_error *err);
	uint32_t (*section_count)(void *service);
	struct hv_service_section (*section)(void *service, uint32_t index);
	int (*save)(void *service, uint32_t index, struct base_buffer *out, struct base_error *err);
	int (*load)(void *service, uint32_t index, uint32_t version, struct base_reader *in,
		    struct base_error *err);
	int (*loaded)(void *service, struct base_error *err);
	bool (*sets_date)(void *service);
};
#define HV_SERVICES_MAX                                                                            \
	32 /* VMBus, integration services, up to 4 controllers and 16 network cards */
/* Before boot or restore.  Both are borrowed and outlive the machine's last call.  -ENOSPC. */
BASE_MUST_CHECK int hv_machine_add_service(struct hv_machine *machine,
					   const struct hv_service_ops *ops, void *service,
					   struct base_error *err);
/* Hold the vCPUs and quiesce all services; and let them go on.  For live migration and tests;
 * save and reset do it themselves.  -EAGAIN as quiesce: then it is held if it was before. */
BASE_MUST_CHECK int hv_machine_quiesce(struct hv_machine *machine, enum hv_hold hold,
				       struct base_error *err);
BASE_MUST_CHECK int hv_machine_unquiesce(struct hv_machine *machine, enum hv_hold hold,
					 struct base_error *err);

/* Who takes the guest's hypercalls POST_MESSAGE and SIGNAL_EVENT, on the vCPU's thread; must not
 * block.  The result is a hypercall status (HV_STATUS_*).  Set before boot or restore. */
enum hv_status {
	HV_STATUS_SUCCESS = 0,
	HV_STATUS_INVALID_HYPERCALL_CODE = 2,
	HV_STATUS_INVALID_HYPERCALL_INPUT = 3,
	HV_STATUS_INVALID_ALIGNMENT = 4,
	HV_STATUS_INVALID_PARAMETER = 5,
	HV_STATUS_ACCESS_DENIED = 6,
	HV_STATUS_INSUFFICIENT_MEMORY = 11,
	HV_STATUS_INVALID_VP_INDEX = 14,
	HV_STATUS_INVALID_PORT_ID = 17,
	HV_STATUS_INVALID_CONNECTION_ID = 18,
	HV_STATUS_INSUFFICIENT_BUFFERS = 19,
};
struct hv_hypercall_ops {
	/* @payload: @size_bytes (0..HV_MESSAGE_PAYLOAD_BYTES) already copied out of the guest. */
	enum hv_status (*post_message)(void *context, uint32_t connection_id, uint32_t type,
				       const uint8_t *payload, uint32_t size_bytes);
	enum hv_status (*signal_event)(void *context, uint32_t connection_id, uint16_t flag);
};
void hv_machine_set_hypercalls(struct hv_machine *machine, const struct hv_hypercall_ops *ops,
			       void *context);

#endif
