/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The integration services of one VM: heartbeat, shutdown, time synchronisation, key-value pairs
 * (KVP) and backup (VSS), each a channel on VMBus where the host speaks first.
 *
 * All of them live on one loop.  Each request to the guest has a limit; a guest without the
 * service, or without the daemon behind it, is an answer, not an error.
 *
 * Protocol: docs/hypervisor/ic/ic.md.  Source: Linux include/linux/hyperv.h, drivers/hv/hv_util.c,
 * hv_kvp.c, hv_snapshot.c.
 */
#ifndef HYPERVISOR_IC_IC_H
#define HYPERVISOR_IC_IC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/error.h"
#include "hypervisor/machine.h"
#include "hypervisor/vmbus/vmbus.h"

struct ic_set;

enum ic_heartbeat {
	IC_HEARTBEAT_INVALID,
	IC_HEARTBEAT_NONE, /* the guest has no such service (yet) */
	IC_HEARTBEAT_OK,
	IC_HEARTBEAT_LOST, /* it answered once, and has not for IC_HEARTBEAT_LOST_MS of running time
			    */
	IC_HEARTBEATS
};
#define IC_HEARTBEAT_PERIOD_MS 2000u
#define IC_HEARTBEAT_LOST_MS   10000u

enum ic_power {
	IC_POWER_INVALID,
	IC_POWER_OFF,
	IC_POWER_RESTART,
	IC_POWER_KINDS
};

/* On the services' loop; must not block nor call back.  All may be NULL. */
struct ic_events {
	void (*heartbeat)(void *context, enum ic_heartbeat state);
	void (*kvp_changed)(void *context); /* what ic_guest_info() gives is new */
};

struct ic_options {
	struct vmbus *bus; /* borrowed, as everything here */
	struct base_io_loop *loop;
	const struct base_clock *clock;
	const char *vm_name;
	/* The partition's reference time, 100 ns. */
	uint64_t (*reference_time)(void *context);
	void *reference_context;
	const struct ic_events *events;
	void *events_context;
};
BASE_MUST_CHECK int ic_new(const struct ic_options *options, struct ic_set **ret_set,
			   struct base_error *err);
void ic_free(struct ic_set *set);                  /* NULL is fine */
extern const struct hv_service_ops ic_service_ops; /* service: the set */

/* Ask the guest to power off or restart in good order.  Any thread; blocks until it has agreed.
 * 0; -ENOTCONN it has no such service, or not this kind; -ETIMEDOUT it did not answer within
 * @timeout_ms, or its channel was closed before it did: UNKNOWN; -EIO it refused; -EBUSY one is
 * under way, also one that timed out; -EAGAIN nothing was asked: paused, quiesced or a full ring.
 */
BASE_MUST_CHECK int ic_shutdown(struct ic_set *set, enum ic_power kind, bool force,
				uint32_t timeout_ms, struct base_error *err);

/* Freeze and thaw the guest's file systems.  Blocking, any thread.  -ENOTCONN no service or no
 * daemon; -ETIMEDOUT: thaw is sent in any case; -EIO refused (thaw is sent); -EBUSY and -EAGAIN as
 * above; -ECANCELED: by ic_thaw_soon() or ic_end().
 *
 * A guest stays frozen for @limit_ms at most (Linux never thaws by itself, Windows after 10 s):
 * then, and when the vCPUs are stopped, the services quiesced or reset, or ic_thaw_soon() is
 * called, the set sends thaw.  ic_thaw() gives -ECANCELED and why after that: what was done
 * meanwhile was not done under a freeze.  It waits for a thaw that was sent because a freeze
 * failed. */
BASE_MUST_CHECK int ic_freeze(struct ic_set *set, uint32_t timeout_ms, uint32_t limit_ms,
			      struct base_error *err);
BASE_MUST_CHECK int ic_thaw(struct ic_set *set, uint32_t timeout_ms, struct base_error *err);
/* Who froze the guest is gone, or has failed: thaw it, and give up a freeze that is under way.  Any
 * thread; does not wait. */
void ic_thaw_soon(struct ic_set *set);
/* Everybody who waits gets -ECANCELED (a shutdown's outcome is unknown all the same), and so does
 * who asks from now on; a frozen guest is thawed.  Any thread; does not wait. */
void ic_end(struct ic_set *set);

/* Whether the vCPUs run: false with a pause by the user or the leash, true when it ends.  Nothing
 * is sent and no silence counted in between; running again sets the guest's clock.  Any thread;
 * does not wait, the last word counts; true when the set is made. */
void ic_set_running(struct ic_set *set, bool running);

/* The guest's clock is to be set to the host's now: after a restore or a move (done by loaded() and
 * resume() themselves), or on the user's word.  Any thread. */
void ic_sync_time(struct ic_set *set);

/* What the guest told of itself by KVP; "" not known.  A value; any thread but the loop. */
struct ic_guest_info {
	bool kvp; /* the daemon answers */
	char fqdn[256];
	char os_name[128];
	char os_version[64];
	char os_build[64];
	char integration_version[64];
	char processor_architecture[32];
	char ipv4[512]; /* separated by ';' */
	char ipv6[512];
};
void ic_guest_info(struct ic_set *set, struct ic_guest_info *ret_info);

struct ic_status {
	enum ic_heartbeat heartbeat;
	bool shutdown, time_sync, kvp, vss; /* negotiated with the guest */
};
void ic_status(struct ic_set *set, struct ic_status *ret_status);

#endif
