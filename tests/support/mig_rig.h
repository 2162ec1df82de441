/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two sessions of a migration over real connections, with the VMs of mig_fake.h: what tests of
 * whole migrations share.  What cannot be set up aborts.
 */
#ifndef TESTS_SUPPORT_MIG_RIG_H
#define TESTS_SUPPORT_MIG_RIG_H

#include <sys/socket.h>
#include <sys/un.h>

#include "migrate/mig_in.h"
#include "migrate/mig_out.h"
#include "tests/support/mig_fake.h"
#include "tests/support/mig_tls_lab.h"

/* Where a destination listens: an address that no file has. */
struct mig_rig_place {
	struct sockaddr_un address;
	socklen_t address_bytes;
	int listen_fd;
};
void mig_rig_listen(struct mig_rig_place *place);
int mig_rig_dial(const struct mig_rig_place *place); /* a new connection to it */

struct mig_rig {
	struct mig_fake_world world;
	struct mig_fake_vm source, destination;
	struct mig_arbiter arbiter;
	struct mig_rig_place place;
	struct mig_out_options out_options; /* to be changed before mig_rig_begin() */
	struct mig_in_options in_options;
	uint32_t linger_ms;
	/* Puts something between: the socket for the source instead of @fd, which it takes.  May be
	 * NULL.  @index: of the connection, 0 the control channel, then data, then again. */
	int (*between)(uint32_t index, int fd);
	atomic_int refused;   /* connections that are still to be refused */
	int refuse_code;      /* 0: -ECONNREFUSED */
	uint32_t refuse_from; /* all from this one on; 0: none */
	uint32_t connects;

	struct mig_tls_lab lab;
	struct mig_tls *source_tls, *destination_tls; /* NULL: clear text */

	struct mig_out *out;
	struct mig_in *in;
	pthread_t in_thread;
	enum mig_in_end in_end;
	uint64_t in_epoch;
	struct mig_findings findings;
	struct base_error err, in_err;
};

void mig_rig_init(struct mig_rig *rig);
/* Over TLS, between the hosts a.example and b.example.  Before mig_rig_begin(). */
void mig_rig_use_tls(struct mig_rig *rig);
/* Aborts where two ran at once, or the guest found a bad page: an assertion in a teardown does not
 * count. */
void mig_rig_fini(struct mig_rig *rig);
/* The destination waits, the source's guest runs. */
void mig_rig_begin(struct mig_rig *rig);
/* The source's session, then the end of the destination's. */
enum mig_out_end mig_rig_finish(struct mig_rig *rig);
/* As struct mig_out_options wants it; context: the rig. */
int mig_rig_connect(void *context, int *ret_fd, struct base_error *err);

#endif
