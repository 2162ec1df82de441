/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/mig_steps.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 400u

struct mig_steps mig_steps;

static struct mig_rig *rig;
static int connections[CONNECTIONS_MAX];
static atomic_uint connection_count;

static int keep(uint32_t index, int fd)
{
	uint32_t at = atomic_fetch_add(&connection_count, 1);

	(void)index;
	if (at >= CONNECTIONS_MAX)
		base_bug("more than %u connections", CONNECTIONS_MAX);
	connections[at] = dup(fd);
	return fd;
}

void mig_steps_cut(void)
{
	for (uint32_t i = 0; i < connection_count; i++)
		(void)shutdown(connections[i], SHUT_RDWR);
}

static void at(const char *operation)
{
	if (mig_steps.cut_at != NULL && strcmp(operation, mig_steps.cut_at) == 0) {
		mig_steps.cut_at = NULL;
		mig_steps_cut();
	}
	if (mig_steps.cancel_at != NULL && strcmp(operation, mig_steps.cancel_at) == 0) {
		mig_steps.cancel_at = NULL;
		mig_out_cancel(rig->out);
	}
}

void mig_steps_init(struct mig_rig *of)
{
	rig = of;
	rig->source.at = at;
	rig->destination.at = at;
	rig->between = keep;
}

void mig_steps_fini(void)
{
	for (uint32_t i = 0; i < connection_count; i++)
		(void)close(connections[i]);
}
