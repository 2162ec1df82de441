/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests of whole migrations with a rig: all connections end, or the user cancels, once, at the
 * first operation of a name.
 */
#ifndef TESTS_SUPPORT_MIG_STEPS_H
#define TESTS_SUPPORT_MIG_STEPS_H

#include "tests/support/mig_rig.h"

struct mig_steps {
	const char *cut_at;    /* the operation; NULL: none, or it has come */
	const char *cancel_at; /* likewise */
};
extern struct mig_steps mig_steps;

/* Of @rig, which was initialised: its operations and connections are listened to. */
void mig_steps_init(struct mig_rig *rig);
void mig_steps_cut(void); /* all connections, now */
/* After mig_rig_fini(). */
void mig_steps_fini(void);

#endif
